//! One open database: its catalog, its open collections, its budgets.
//!
//! Collections and partitions open on first use and close when they have been idle, so
//! that 100,000 idle collections cost their objects and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use rhumb_core::schema::Field;
use rhumb_core::{Code, CollectionId, CollectionName, Limits, Problem, Quota, Schema};
use rhumb_seams::{CancellationToken, Clock, Ids, OnExit, Tasks, Term};
use rhumb_store::Bucket;
use rhumb_store::catalog::{Catalog, CatalogEntry, CatalogState, Creation};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::budget::{MemtableBudget, SegmentParts};
use crate::collection::Collection;
use crate::env::Env;
use crate::error::EngineError;
use crate::lance_store::LanceEnv;
use crate::lead::Lead;
use crate::schema_cell::set_quota;
use crate::sole_writer::SoleWriter;

/// Flushes and merges at once: two keep two cores busy without starving queries.
const HEAVY_JOBS: usize = 2;
/// A partition nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(600);
/// Open partitions; beyond it the longest idle are closed early.
const MAX_OPEN: usize = 1_024;
const SWEEP: Duration = Duration::from_secs(10);
/// Writes go on while a hand-over flushes; after so many rounds the rest is replayed.
const FLUSHES: u32 = 3;

/// What an operator may tune; everything else is a constant with its reason.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    /// Bytes that views, memtables, Lance caches and requests may hold together.
    pub memory_limit: usize,
    pub sharing: Sharing,
}

/// Who else can reach the bucket, and how this process knows that it may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody else: an exclusive lock of a folder.
    Locked,
    /// Other servers; the last to start has it.  `strong` asks the bucket who that is, as
    /// `verified` does.
    LastComer,
    /// Other data nodes; this one serves what it has a term for.
    Terms,
}

/// Sums over open partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenStats {
    pub partitions: u64,
    pub rows: u64,
    pub bytes: u64,
    /// The highest.
    pub epoch: u64,
    /// Log slots.
    pub position: u64,
}

pub enum Created {
    New(Arc<Collection>),
    /// The same definition was already there.
    Same(Arc<Collection>),
}

#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
    lead: Lead,
}

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
        let sole_writer = match settings.sharing {
            Sharing::LastComer => Some(SoleWriter::claim(&bucket, &holder).await?),
            Sharing::Locked | Sharing::Terms => None,
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
        let database = Self {
            inner: Arc::new(inner),
            lead: Lead::Alone,
        };
        env.tasks
            .spawn("idle sweep", OnExit::Stop, database.clone().sweep());
        Ok(database)
    }

    /// The same database, served under a term.
    pub fn under(&self, term: Term) -> Self {
        let holder = self.inner.env.holder.as_str().into();
        Self {
            inner: self.inner.clone(),
            lead: Lead::Term { term, holder },
        }
    }

    /// The same database, for readers that can do with what was true a moment ago, of
    /// collections that another node leads.
    pub fn following(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            lead: Lead::Following,
        }
    }

    /// Cancelled when another server took over: the process must exit with status 3.
    pub fn fenced(&self) -> &CancellationToken {
        &self.inner.env.fenced
    }

    /// `schema` holds the declared fields.  Another definition under the same name is
    /// `Code::CollectionExists`; another quota is none, and is set.
    pub async fn create_collection(
        &self,
        name: &CollectionName,
        schema: Schema,
        partitions: u32,
        quota: Option<Quota>,
    ) -> Result<Created, EngineError> {
        let naming = self.inner.naming.lock().await;
        self.lead.settle().await;
        loop {
            let id = CollectionId::parse(&self.inner.env.ids.ulid())
                .map_err(|p| EngineError::Bug(p.to_string()))?;
            let mut entry = CatalogEntry {
                id,
                name: name.clone(),
                created_at_ms: self.inner.env.clock.unix_ms(),
                schema: schema.clone(),
                partitions,
                state: CatalogState::Active,
                leader: None,
                settings: BTreeMap::new(),
            };
            set_quota(&mut entry, quota.unwrap_or_default());
            self.lead.sign(&mut entry)?;
            match self.inner.catalog.create(entry).await? {
                Creation::Created(entry) => return Ok(Created::New(self.adopt(entry).await?)),
                Creation::Exists(there) if there.state == CatalogState::Deleting => {
                    // A deletion that a crash cut short.
                    self.finish_deletion(there).await?;
                }
                Creation::Exists(there) => {
                    drop(naming);
                    same_definition(&there, &schema, partitions)?;
                    let same = self.adopt(there).await?;
                    same.declare(&BTreeMap::new(), quota).await?;
                    return Ok(Created::Same(same));
                }
            }
        }
    }

    /// `Code::CollectionNotFound` when there is none.
    pub async fn collection(&self, name: &CollectionName) -> Result<Arc<Collection>, EngineError> {
        if let Some(open) = self.opened(name) {
            return Ok(open);
        }
        let _naming = self.inner.naming.lock().await;
        if let Some(open) = self.opened(name) {
            return Ok(open);
        }
        match self.inner.catalog.load(name).await? {
            Some(entry) if entry.state == CatalogState::Active => self.adopt(entry).await,
            _ => Err(not_found(name)),
        }
    }

    /// Under the same term: what an earlier one opened may be out of date.
    fn opened(&self, name: &CollectionName) -> Option<Arc<Collection>> {
        let open = self.inner.open.lock();
        open.get(name)
            .filter(|open| open.lead().is_same(&self.lead) && !open.is_gone())
            .cloned()
    }

    async fn adopt(&self, entry: CatalogEntry) -> Result<Arc<Collection>, EngineError> {
        if self.lead.is_following() {
            return self.adopt_followed(entry).await;
        }
        // Where others may lead, nobody serves without a term, whatever the caller forgot.
        if self.inner.env.settings.sharing == Sharing::Terms && matches!(self.lead, Lead::Alone) {
            return Err(EngineError::NotLeading);
        }
        self.lead.check()?;
        if let Some(open) = self.opened(&entry.name) {
            return Ok(open);
        }
        let signed = match self.lead.has_signed(&entry) {
            true => entry,
            false => {
                self.lead.settle().await;
                let sign = |entry: &mut CatalogEntry| self.lead.sign(entry);
                self.inner.catalog.update(&entry.name, &entry.id, sign).await?
            }
        };
        let name = signed.name.clone();
        let made = Arc::new(self.made(signed));
        let before = self.inner.open.lock().insert(name, made.clone());
        if let Some(before) = before {
            before.close().await;
        }
        Ok(made)
    }

    /// Never in the place of one that this node leads.
    async fn adopt_followed(&self, entry: CatalogEntry) -> Result<Arc<Collection>, EngineError> {
        let name = entry.name.clone();
        let made = Arc::new(self.made(entry));
        let before = {
            let mut open = self.inner.open.lock();
            let is_led = |open: &Arc<Collection>| !open.lead().is_following() && !open.lead().is_over();
            if open.get(&name).is_some_and(is_led) {
                return Err(EngineError::NotLeading);
            }
            open.insert(name, made.clone())
        };
        if let Some(before) = before {
            before.close().await;
        }
        Ok(made)
    }

    fn made(&self, entry: CatalogEntry) -> Collection {
        Collection::new(
            self.inner.env.clone(),
            self.inner.catalog.clone(),
            self.lead.clone(),
            entry,
        )
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
            let page = self.inner.catalog.list(prefix, after.as_ref(), limit).await?;
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
        let _naming = self.inner.naming.lock().await;
        let entry = self
            .inner
            .catalog
            .load(name)
            .await?
            .ok_or_else(|| not_found(name))?;
        if entry.state == CatalogState::Deleting {
            return Err(not_found(name));
        }
        let may = |entry: &CatalogEntry| self.lead.sign(&mut entry.clone());
        let entry = self.inner.catalog.start_removal(name, &entry.id, may).await?;
        self.finish_deletion(entry).await
    }

    async fn finish_deletion(&self, entry: CatalogEntry) -> Result<(), EngineError> {
        let open = self.inner.open.lock().remove(&entry.name);
        let collection = match open {
            Some(open) => open,
            None => Arc::new(self.made(entry.clone())),
        };
        collection.seal().await?;
        // Before the name is free: whoever finds the entry still being deleted repeats this.
        self.inner.env.bucket.destroy_keys(&entry.id).await?;
        self.inner.catalog.finish_removal(&entry.name, &entry.id).await?;
        let env = self.inner.env.clone();
        self.inner.env.tasks.spawn("collection removal", OnExit::Fine, async move {
            if let Err(e) = remove_objects(&env, &entry.id).await {
                tracing::warn!(collection = %entry.name, error = %e, "objects of a deleted collection were left behind");
            }
        });
        Ok(())
    }

    /// Gauges for `/metrics` and `/v1/status`: name, value.
    pub fn gauges(&self) -> Vec<(&'static str, f64)> {
        let open: Vec<_> = self.inner.open.lock().values().cloned().collect();
        let partitions: usize = open.iter().map(|c| c.open_partitions().len()).sum();
        let env = &self.inner.env;
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
        self.close_where(|_| true).await;
    }

    /// Closes the collections that `is` means; returns when nothing of them is under way.
    pub async fn close_where(&self, is: impl Fn(&CollectionName) -> bool) {
        let closing: Vec<_> = {
            let mut open = self.inner.open.lock();
            let names: Vec<_> = open.keys().filter(|name| is(name)).cloned().collect();
            names.iter().filter_map(|name| open.remove(name)).collect()
        };
        join_all(closing.iter().map(|collection| collection.close())).await;
    }

    /// Moves fresh rows of the open collections that `is` means into their tables, where
    /// there are enough to make the next opening slow.
    pub async fn flush_where(&self, is: impl Fn(&CollectionName) -> bool) {
        let open = self.open_where(is);
        let partitions = || open.iter().flat_map(|collection| collection.open_partitions());
        for _ in 0..FLUSHES {
            let slow: Vec<_> = partitions().filter(|p| p.is_slow_to_replay()).collect();
            if slow.is_empty() {
                return;
            }
            let flushed = join_all(slow.iter().map(|partition| partition.flush())).await;
            if let Some(error) = flushed.into_iter().find_map(Result::err) {
                tracing::debug!(%error, "not flushed: the next leader replays the log");
                return;
            }
        }
    }

    /// What is open of the collections that `is` means.
    pub fn open_stats(&self, is: impl Fn(&CollectionName) -> bool) -> OpenStats {
        let mut stats = OpenStats::default();
        for collection in self.open_where(is) {
            collection.add_open_stats(&mut stats);
        }
        stats
    }

    /// Of those that this process leads.
    fn open_where(&self, is: impl Fn(&CollectionName) -> bool) -> Vec<Arc<Collection>> {
        let open = self.inner.open.lock();
        let led = open.iter().filter(|(_, open)| !open.lead().is_following());
        let meant = led.filter(|(name, _)| is(name));
        meant.map(|(_, collection)| collection.clone()).collect()
    }

    /// Closes what has been idle, and the longest idle when too much is open.
    async fn sweep(self) {
        let stopping = self.inner.env.tasks.stopping().clone();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            let open: Vec<_> = self.inner.open.lock().values().cloned().collect();
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
                    self.inner.open.lock().remove(&collection.entry().name);
                }
            }
        }
    }
}

fn not_found(name: &CollectionName) -> EngineError {
    EngineError::Refused(collection_not_found(name.as_str()))
}

/// Said of a collection that is not there, and of one that whoever asks may not know of.
pub fn collection_not_found(name: &str) -> Problem {
    let name = rhumb_core::problem::shorten(name);
    Problem::new(
        Code::CollectionNotFound,
        format!("there is no collection '{name}'"),
    )
    .hint(format!("create it with PUT /v1/collections/{name}"))
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
