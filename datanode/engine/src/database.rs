//! One open database: its catalog, its open collections, its budgets.
//!
//! Collections and partitions open on first use and close when they have been idle, so
//! that 100,000 idle collections cost their objects and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::schema::Field;
use rhumb_core::{Code, CollectionId, CollectionName, Limits, Problem, Schema};
use rhumb_seams::{CancellationToken, Clock, Ids, OnExit, Tasks};
use rhumb_store::Bucket;
use rhumb_store::catalog::{Catalog, CatalogEntry, CatalogState, Creation};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::budget::{MemtableBudget, SegmentParts};
use crate::collection::Collection;
use crate::env::Env;
use crate::error::EngineError;
use crate::lance_store::LanceEnv;
use crate::sole_writer::SoleWriter;

/// Flushes and merges at once: two keep two cores busy without starving queries.
const HEAVY_JOBS: usize = 2;
/// A partition nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(600);
/// Open partitions; beyond it the longest idle are closed early.
const MAX_OPEN: usize = 1_024;
const SWEEP: Duration = Duration::from_secs(10);

/// What an operator may tune; everything else is a constant with its reason.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    /// Bytes that views, memtables, Lance caches and requests may hold together.
    pub memory_limit: usize,
    /// True where other servers can reach the bucket: `strong` then asks the bucket who
    /// leads, as `verified` does.  False under the exclusive lock of a folder.
    pub shared_bucket: bool,
}

pub enum Created {
    New(Arc<Collection>),
    /// The same definition was already there.
    Same(Arc<Collection>),
}

#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    env: Arc<Env>,
    catalog: Catalog,
    open: Mutex<BTreeMap<CollectionName, Arc<Collection>>>,
    /// Creating, deleting and opening by name, one at a time.
    naming: tokio::sync::Mutex<()>,
}

impl Database {
    /// `holder` names this process in STATE: host, pid and boot nonce.
    pub async fn open(
        bucket: Bucket,
        settings: Settings,
        holder: String,
        clock: Clock,
        ids: Ids,
        tasks: Tasks,
    ) -> Result<Self, EngineError> {
        let memory = settings.memory_limit;
        let sole_writer = match settings.shared_bucket {
            true => Some(SoleWriter::claim(&bucket, &holder).await?),
            false => None,
        };
        let env = Arc::new(Env {
            lance: LanceEnv::new(bucket.clone(), memory / 16),
            fenced: CancellationToken::new(),
            sole_writer,
            // What is left is for keys and versions of rows, and for a flush, a merge and
            // the queries under way.
            memtables: MemtableBudget::new(memory / 5),
            parts: SegmentParts::new(memory * 3 / 8),
            heavy: Semaphore::new(HEAVY_JOBS),
            bucket: bucket.clone(),
            settings,
            holder,
            clock,
            ids,
            tasks,
        });
        env.tasks
            .spawn("sole writer watch", OnExit::Fine, SoleWriter::watch(env.clone()));
        let inner = Inner {
            env: env.clone(),
            catalog: Catalog::new(&bucket),
            open: Mutex::default(),
            naming: tokio::sync::Mutex::new(()),
        };
        let database = Self(Arc::new(inner));
        env.tasks
            .spawn("idle sweep", OnExit::Stop, database.clone().sweep());
        Ok(database)
    }

    /// Cancelled when another server took over: the process must exit with status 3.
    pub fn fenced(&self) -> &CancellationToken {
        &self.0.env.fenced
    }

    /// `schema` holds the declared fields.  Another definition under the same name is
    /// `Code::CollectionExists`.
    pub async fn create_collection(
        &self,
        name: &CollectionName,
        schema: Schema,
        partitions: u32,
    ) -> Result<Created, EngineError> {
        let naming = self.0.naming.lock().await;
        loop {
            let id =
                CollectionId::parse(&self.0.env.ids.ulid()).map_err(|p| EngineError::Bug(p.to_string()))?;
            let entry = CatalogEntry {
                id,
                name: name.clone(),
                created_at_ms: self.0.env.clock.unix_ms(),
                schema: schema.clone(),
                partitions,
                state: CatalogState::Active,
                settings: BTreeMap::new(),
            };
            match self.0.catalog.create(entry).await? {
                Creation::Created(entry) => return Ok(Created::New(self.adopt(entry))),
                Creation::Exists(there) if there.state == CatalogState::Deleting => {
                    // A deletion that a crash cut short.
                    self.finish_deletion(there).await?;
                }
                Creation::Exists(there) => {
                    drop(naming);
                    same_definition(&there, &schema, partitions)?;
                    return Ok(Created::Same(self.adopt(there)));
                }
            }
        }
    }

    /// `Code::CollectionNotFound` when there is none.
    pub async fn collection(&self, name: &CollectionName) -> Result<Arc<Collection>, EngineError> {
        if let Some(open) = self.0.open.lock().get(name) {
            return Ok(open.clone());
        }
        let _naming = self.0.naming.lock().await;
        if let Some(open) = self.0.open.lock().get(name) {
            return Ok(open.clone());
        }
        match self.0.catalog.load(name).await? {
            Some(entry) if entry.state == CatalogState::Active => Ok(self.adopt(entry)),
            _ => Err(not_found(name)),
        }
    }

    fn adopt(&self, entry: CatalogEntry) -> Arc<Collection> {
        let mut open = self.0.open.lock();
        let name = entry.name.clone();
        let made = || Arc::new(Collection::new(self.0.env.clone(), self.0.catalog.clone(), entry));
        open.entry(name).or_insert_with(made).clone()
    }

    /// In name order, after `after`, names that start with `prefix`.
    pub async fn list_collections(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<CatalogEntry>, EngineError> {
        let mut found = Vec::new();
        let mut after = after.and_then(|name| CollectionName::parse(name).ok());
        while found.len() < limit {
            let page = self.0.catalog.list(prefix, after.as_ref(), limit).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            let full = page.len() == limit;
            found.extend(page.into_iter().filter(|e| e.state == CatalogState::Active));
            if !full {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Sealed at its leader first, then gone from the catalog, then from the bucket.
    pub async fn delete_collection(&self, name: &CollectionName) -> Result<(), EngineError> {
        let _naming = self.0.naming.lock().await;
        let entry = self.0.catalog.load(name).await?.ok_or_else(|| not_found(name))?;
        if entry.state == CatalogState::Deleting {
            return Err(not_found(name));
        }
        let entry = self.0.catalog.start_removal(name, &entry.id).await?;
        self.finish_deletion(entry).await
    }

    async fn finish_deletion(&self, entry: CatalogEntry) -> Result<(), EngineError> {
        let open = self.0.open.lock().remove(&entry.name);
        let collection = match open {
            Some(open) => open,
            None => Arc::new(Collection::new(
                self.0.env.clone(),
                self.0.catalog.clone(),
                entry.clone(),
            )),
        };
        collection.seal().await?;
        self.0.catalog.finish_removal(&entry.name, &entry.id).await?;
        let env = self.0.env.clone();
        self.0.env.tasks.spawn("collection removal", OnExit::Fine, async move {
            if let Err(e) = remove_objects(&env, &entry.id).await {
                tracing::warn!(collection = %entry.name, error = %e, "objects of a deleted collection were left behind");
            }
        });
        Ok(())
    }

    /// Gauges for `/metrics` and `/v1/status`: name, value.
    pub fn gauges(&self) -> Vec<(&'static str, f64)> {
        let open: Vec<_> = self.0.open.lock().values().cloned().collect();
        let partitions: usize = open.iter().map(|c| c.open_partitions().len()).sum();
        let env = &self.0.env;
        vec![
            ("rhumb_open_collections", open.len() as f64),
            ("rhumb_open_partitions", partitions as f64),
            ("rhumb_memtable_bytes", env.memtables.used() as f64),
            ("rhumb_segment_part_bytes", env.parts.used() as f64),
            ("rhumb_memory_limit_bytes", env.settings.memory_limit as f64),
        ]
    }

    /// Closes every partition; the log keeps what was not merged.
    pub async fn close(&self) {
        let open: Vec<_> = std::mem::take(&mut *self.0.open.lock()).into_values().collect();
        for collection in open {
            collection.close().await;
        }
    }

    /// Closes what has been idle, and the longest idle when too much is open.
    async fn sweep(self) {
        let stopping = self.0.env.tasks.stopping().clone();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            let open: Vec<_> = self.0.open.lock().values().cloned().collect();
            let mut idle: Vec<(Instant, Arc<Collection>)> =
                open.iter().map(|c| (c.last_used(), c.clone())).collect();
            idle.sort_by_key(|(used, _)| *used);
            let mut partitions: usize = open.iter().map(|c| c.open_partitions().len()).sum();
            for (used, collection) in idle {
                if used.elapsed() < IDLE && partitions <= MAX_OPEN {
                    break;
                }
                partitions -= collection.close_idle().await;
                if collection.open_partitions().is_empty() && used.elapsed() >= IDLE {
                    self.0.open.lock().remove(&collection.entry().name);
                }
            }
        }
    }
}

fn not_found(name: &CollectionName) -> EngineError {
    EngineError::Refused(
        Problem::new(
            Code::CollectionNotFound,
            format!("there is no collection '{name}'"),
        )
        .hint(format!("create it with PUT /v1/collections/{name}")),
    )
}

/// Compared on the declared fields alone: inference may have added others since.
fn same_definition(there: &CatalogEntry, asked: &Schema, partitions: u32) -> Result<(), EngineError> {
    let declared = |s: &Schema| -> BTreeMap<_, Field> {
        s.fields
            .iter()
            .filter(|(_, f)| f.declared)
            .map(|(n, f)| (n.clone(), f.clone()))
            .collect()
    };
    if declared(&there.schema) == declared(asked) && there.partitions == partitions {
        return Ok(());
    }
    Err(EngineError::Refused(
        Problem::new(
            Code::CollectionExists,
            format!("collection '{}' exists with another definition", there.name),
        )
        .hint("PATCH adds fields; another definition needs another name or a DELETE first"),
    ))
}

async fn remove_objects(env: &Env, id: &CollectionId) -> Result<(), EngineError> {
    use futures::TryStreamExt;
    let mut objects = env.bucket.list(&env.bucket.path(&format!("c/{id}")));
    while let Some(object) = objects.try_next().await? {
        env.bucket.delete(&object.location).await?;
    }
    Ok(())
}
