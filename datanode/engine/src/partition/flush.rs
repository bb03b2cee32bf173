//! A frozen memtable goes into the base.
//!
//! Order (P11): rows and deletions in one Lance commit → idempotency keys → STATE → view →
//! collect the log.  A crash between two of them leaves an orphan that the next flush
//! undoes, or garbage that the next collection takes; never a lost row: a log object goes
//! only after STATE covers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rhumb_core::{FieldName, Schema, Value};
use rhumb_store::state::IdemFile;
use rhumb_text::TextFields;
use rhumb_view::{CodesBuilder, Frozen, Grid, Keys, Killed, Segment, SparseIndexBuilder, Swap, ViewError};

use crate::base::{self, Base, Change};
use crate::error::EngineError;
use crate::idem;
use crate::partition::Shared;
use crate::partition::maintain::{FlushJob, Maintenance};
use crate::partition::recover::table_url;
use crate::rows::Row;

impl Maintenance {
    pub(super) async fn flush(&mut self, job: &FlushJob) -> Result<(), EngineError> {
        let shared = self.shared.clone();
        let schema = shared.schema.schema();
        let current = shared.base.read().clone();
        let Some(frozen) = &job.frozen else {
            return self.checkpoint(job, current.as_ref()).await;
        };
        let (rows, killed) = self.rows_of(frozen).await?;
        if rows.is_empty() && killed.is_empty() {
            self.checkpoint(job, current.as_ref()).await?;
            return self.complete(frozen, None, current).await;
        }
        let start = match &current {
            Some(base) => base.clone(),
            None => {
                Base::create(
                    &shared.env.lance,
                    &table_url(&shared.env, &shared.folder),
                    &schema,
                )
                .await?
            }
        };
        let base = start.on_top().await?.with_columns(&schema).await?;
        let file = match rows.is_empty() {
            true => None,
            false => base.write_rows(schema.clone(), base::chunks(rows)).await?,
        };
        let kill: BTreeMap<_, _> = killed.into_iter().map(|k| (k.fragment, k.ordinals)).collect();
        let properties = self.properties("flush", job.upto);
        let (base, fragment) = base
            .commit(
                Change {
                    kill,
                    drop: Vec::new(),
                    properties,
                },
                file,
            )
            .await?;
        self.checkpoint(job, Some(&base)).await?;
        self.complete(frozen, fragment, Some(base)).await
    }

    /// What the base must take in, and what it must delete.  The first look at a frozen
    /// group sorts it.
    async fn rows_of(&self, frozen: &Arc<Frozen>) -> Result<(Vec<Row>, Vec<Killed>), EngineError> {
        let frozen = frozen.clone();
        self.shared
            .env
            .quietly("flush", move || {
                let rows = frozen.live_rows().map(|r| Row {
                    id: r.id.clone(),
                    seq: r.seq,
                    document: r.document.clone(),
                });
                Ok((rows.collect(), frozen.killed()?))
            })
            .await
    }

    /// The view shows the rows as a segment of the base.
    async fn complete(
        &self,
        frozen: &Arc<Frozen>,
        fragment: Option<u64>,
        base: Option<Base>,
    ) -> Result<(), EngineError> {
        let with = Sealing::of(&self.shared)?;
        let frozen = frozen.clone();
        // What is long happens outside the lock that every reader takes.
        let swap = self.shared.env.quietly("seal", move || {
            let segment = fragment.map(|number| with.segment(number, &frozen)).transpose()?;
            Swap::freeze(&frozen, segment)
        });
        let swap = swap.await?;
        self.show(swap, base).await
    }

    /// STATE names the new base and the log cursor; the keys of the flushed slots first,
    /// for the slots may go once STATE covers them.
    async fn checkpoint(&mut self, job: &FlushJob, base: Option<&Base>) -> Result<(), EngineError> {
        let version = base.map(Base::version);
        let added = self.save_keys(&job.idempotency).await?;
        let now_ms = self.shared.env.clock.unix_ms();
        self.claim
            .checkpoint(|state| {
                state.applied = state.applied.max(job.upto);
                state.next_seq = state.next_seq.max(job.next_seq);
                state.base = version.or(state.base);
                state
                    .idem
                    .retain(|file| file.newest_ms + idem::WINDOW_MS > now_ms);
                if let Some(added) = added.clone().filter(|added| !state.idem.contains(added)) {
                    state.idem.push(added);
                }
                Ok(())
            })
            .await?;
        self.shared.applied.fetch_max(job.upto.0, Ordering::Relaxed);
        Ok(())
    }

    async fn save_keys(&self, entries: &[idem::Entry]) -> Result<Option<IdemFile>, EngineError> {
        let times = entries.iter().map(|e| e.at_ms);
        let (Some(oldest_ms), Some(newest_ms)) = (times.clone().min(), times.max()) else {
            return Ok(None);
        };
        let env = &self.shared.env;
        let name = format!("{}.json", env.ids.ulid());
        let path = env.bucket.path(&format!("{}/idem/{name}", self.shared.folder));
        let body = idem::to_json(entries)?;
        let checksum = Some(IdemFile::checksum(body.as_bytes()));
        let put_id = env.bucket.mint_put_id();
        match env.bucket.create(&path, body.into(), &put_id).await? {
            rhumb_store::Outcome::Landed(_) => Ok(Some(IdemFile {
                name,
                oldest_ms,
                newest_ms,
                keys: entries.len() as u64,
                checksum,
            })),
            _ => Err(EngineError::Unavailable(format!("{path} could not be written"))),
        }
    }
}

/// What a segment is made with.
struct Sealing {
    schema: Arc<Schema>,
    grids: Vec<(FieldName, Arc<Grid>)>,
    texts: Arc<TextFields>,
}

impl Sealing {
    fn of(shared: &Shared) -> Result<Self, EngineError> {
        let schema = shared.schema.schema();
        let grids = schema.vectors().filter_map(|(field, _)| {
            let grid = shared.view.grid(field.as_str())?;
            Some((field.clone(), grid))
        });
        Ok(Self {
            grids: grids.collect(),
            texts: shared.schema.texts()?,
            schema: schema.clone(),
        })
    }

    /// The segment of a new fragment.  All that searches need comes from the rows in memory:
    /// a search right after a flush reads nothing and is no slower.
    fn segment(&self, fragment: u64, frozen: &Frozen) -> Result<Segment, ViewError> {
        let mut keys = Keys::builder();
        let mut seqs = Vec::with_capacity(frozen.live_rows().len());
        for row in frozen.live_rows() {
            keys.push(&row.id)?;
            seqs.push(row.seq);
        }
        let segment = Segment::new(fragment, keys.finish(), seqs)?;
        for (field, ty) in self.schema.vectors() {
            let mut codes = CodesBuilder::new(ty, frozen.live_rows().len());
            for value in values(frozen, field) {
                codes.push(match value {
                    Some(Value::Vector(vector)) => Some(vector),
                    _ => None,
                })?;
            }
            segment.attach_codes(field.clone(), Arc::new(codes.finish()))?;
        }
        for field in self.schema.sparse_vectors() {
            let mut index = SparseIndexBuilder::new();
            for value in values(frozen, field) {
                index.push(match value {
                    Some(Value::Sparse(vector)) => Some(vector),
                    _ => None,
                })?;
            }
            segment.attach_sparse(field.clone(), Arc::new(index.finish()))?;
        }
        for (field, grid) in &self.grids {
            let lists = frozen.lists(field, grid, &|| false)?;
            segment.attach_lists(field.clone(), Arc::new(lists))?;
        }
        if !self.texts.is_empty() {
            segment.attach_split(Arc::new(frozen.split(&self.texts)?))?;
        }
        Ok(segment)
    }
}

/// A field of every live row.
fn values<'a>(frozen: &'a Frozen, field: &FieldName) -> impl Iterator<Item = Option<&'a Value>> {
    let rows = frozen.live_rows();
    rows.map(move |row| row.document.as_ref()?.get(field.as_str()))
}
