//! The serial maintenance loop of a partition: flush, merge, collect.  Run by its leader
//! alone, one step at a time, so that no two steps ever race for the base.
//!
//! Flush order (P11): rows and deletions in one Lance commit → idempotency keys → STATE →
//! view → collect the log.  A crash between two of them leaves an orphan that the next
//! flush undoes, or garbage that the next collection takes; never a lost row: a log object
//! goes only after STATE covers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::{Seq, Slot};
use rhumb_store::log::Claim;
use rhumb_store::state::IdemFile;
use rhumb_view::{
    Codes, CodesBuilder, Frozen, Keys, Lists, RowRef, Segment, SegmentId, SparseIndexBuilder, Swap,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::base::{self, Base, Change};
use crate::budget::SegmentPart;
use crate::error::EngineError;
use crate::idem;
use crate::partition::recover::table_url;
use crate::partition::{Shared, merge_policy};
use crate::pinned::Pinned;
use crate::rows::Row;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Old base versions live longer than the longest cursor (1 h, P10) and a margin.
const KEEP_VERSIONS: chrono::TimeDelta = chrono::TimeDelta::minutes(75);
/// Log objects deleted after one flush: as many as a flush can cover, and then some.
const COLLECT_MOST: u64 = 4_096;
const CLEAN_EVERY: Duration = Duration::from_secs(600);

pub enum Job {
    Flush(FlushJob),
    /// Merge whatever can be merged, then tell.
    Optimize(oneshot::Sender<()>),
}

/// A frozen memtable on its way into the base.
pub struct FlushJob {
    /// `None` when only keys were logged.
    pub frozen: Option<Arc<Frozen>>,
    /// The last log slot it holds.
    pub upto: Slot,
    pub next_seq: Seq,
    pub idempotency: Vec<idem::Entry>,
    /// What it counts for in the memtable budget.
    pub bytes: usize,
}

pub struct Maintenance {
    shared: Arc<Shared>,
    claim: Claim,
    jobs: mpsc::Receiver<Job>,
    cleaned: Instant,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Flush(&'a FlushJob),
    /// What the policy asks for, until somebody has a job.
    Merge,
    /// All there is.
    MergeAll,
}

impl Step<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Flush(_) => "flush",
            Self::Merge | Self::MergeAll => "merge",
        }
    }
}

impl Maintenance {
    pub fn new(shared: Arc<Shared>, claim: Claim, jobs: mpsc::Receiver<Job>) -> Self {
        Self {
            shared,
            claim,
            jobs,
            cleaned: Instant::now(),
        }
    }

    /// Ends with the writer, or when the partition is lost; gives the claim back.
    pub async fn run(mut self) -> Claim {
        let _watched = self.shared.watched();
        while let Some(job) = self.jobs.recv().await {
            let goes_on = match job {
                Job::Flush(job) => {
                    let flushed = self.until_done(Step::Flush(&job)).await;
                    self.shared.env.memtables.free(job.bytes);
                    flushed && (!self.jobs.is_empty() || self.until_done(Step::Merge).await)
                }
                Job::Optimize(done) => {
                    let merged = self.until_done(Step::MergeAll).await;
                    // Dropped unsent, it says that the partition is lost.
                    merged.then(|| done.send(()));
                    merged
                }
            };
            if !goes_on {
                break;
            }
            if let Err(e) = self.collect().await {
                tracing::warn!(partition = self.shared.name, error = %e, "garbage was left for the next time");
            }
        }
        // What is still queued stays in the log.
        self.jobs.close();
        while let Some(job) = self.jobs.recv().await {
            if let Job::Flush(job) = job {
                self.shared.env.memtables.free(job.bytes);
            }
        }
        self.claim
    }

    /// Repeats a step until it is done.  False when there is no point in going on.
    async fn until_done(&mut self, step: Step<'_>) -> bool {
        let what = step.name();
        let mut backoff = RETRY_FIRST;
        loop {
            let env = self.shared.env.clone();
            let result = {
                let Ok(_permit) = env.heavy.acquire().await else {
                    return false;
                };
                match step {
                    Step::Flush(job) => self.flush(job).await,
                    Step::Merge => self.merge().await,
                    Step::MergeAll => self.merge_all().await,
                }
            };
            let error = match result {
                Ok(()) => return true,
                Err(error) => error,
            };
            if error.is_fenced() {
                self.shared.fence();
                return false;
            }
            if matches!(error, EngineError::Bug(_) | EngineError::Corrupt(_)) {
                tracing::error!(partition = self.shared.name, error = %error, "{what} met a broken invariant");
                self.shared.halt(error.to_string());
                return false;
            }
            if self.shared.is_fenced() || env.tasks.stopping().is_cancelled() {
                return false;
            }
            tracing::warn!(partition = self.shared.name, error = %error, "{what} failed: trying again");
            let pause = tokio::time::sleep(backoff);
            tokio::select! {
                () = pause => {}
                () = env.tasks.stopping().cancelled() => return false,
            }
            backoff = (backoff * 2).min(RETRY_MAX);
        }
    }

    async fn flush(&mut self, job: &FlushJob) -> Result<(), EngineError> {
        let shared = self.shared.clone();
        let schema = shared.schema.schema();
        let current = shared.base.read().clone();
        let Some(frozen) = &job.frozen else {
            return self.checkpoint(job, current.as_ref()).await;
        };
        let rows: Vec<Row> = frozen
            .live_rows()
            .map(|r| Row {
                id: r.id.clone(),
                seq: r.seq,
                document: r.document.clone(),
            })
            .collect();
        let killed = frozen.killed().map_err(bug)?;
        if rows.is_empty() && killed.is_empty() {
            self.checkpoint(job, current.as_ref()).await?;
            return self.complete(frozen, None, current);
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
        let segment = match fragment {
            Some(fragment) => Some(self.sealed(fragment, frozen)?),
            None => None,
        };
        if let Some(segment) = &segment {
            self.list_frozen(segment, frozen).await?;
            self.split_frozen(segment, frozen).await?;
        }
        self.complete(frozen, segment, Some(base))
    }

    /// The frozen rows' lists under their new ordinals, so that a flush slows no search.
    async fn list_frozen(&self, segment: &Segment, frozen: &Arc<Frozen>) -> Result<(), EngineError> {
        for (field, _) in self.shared.schema.schema().vectors() {
            let Some(grid) = self.shared.view.grid(field.as_str()) else {
                continue;
            };
            let (frozen, of) = (frozen.clone(), field.clone());
            let tasks = &self.shared.env.tasks;
            let made = tasks
                .compute_quietly("lists", move || frozen.lists(&of, &grid, &|| false))
                .await;
            let lists = made.ok_or_else(|| EngineError::Bug("making lists panicked".into()))?;
            segment
                .attach_lists(field.clone(), Arc::new(lists.map_err(bug)?))
                .map_err(bug)?;
        }
        Ok(())
    }

    /// The frozen rows' text index: a search right after a flush reads nothing.
    async fn split_frozen(&self, segment: &Segment, frozen: &Arc<Frozen>) -> Result<(), EngineError> {
        let fields = self.shared.schema.texts()?;
        if fields.is_empty() {
            return Ok(());
        }
        let (frozen, tasks) = (frozen.clone(), &self.shared.env.tasks);
        let made = tasks
            .compute_quietly("split", move || frozen.split(&fields))
            .await;
        let split = made.ok_or_else(|| EngineError::Bug("making a text index panicked".into()))?;
        segment.attach_split(Arc::new(split.map_err(bug)?)).map_err(bug)
    }

    fn properties(&self, step: &str, upto: Slot) -> std::collections::HashMap<String, String> {
        [
            ("rhumb.epoch".to_owned(), self.claim.epoch().to_string()),
            ("rhumb.step".to_owned(), step.to_owned()),
            ("rhumb.upto".to_owned(), upto.to_string()),
        ]
        .into()
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
        let put_id = env.bucket.mint_put_id();
        match env.bucket.create(&path, body.into(), &put_id).await? {
            rhumb_store::Outcome::Landed(_) => Ok(Some(IdemFile {
                name,
                oldest_ms,
                newest_ms,
                keys: entries.len() as u64,
            })),
            _ => Err(EngineError::Unavailable(format!("{path} could not be written"))),
        }
    }

    /// The segment of a new fragment; codes come from the rows in memory, so that a query
    /// right after a flush reads nothing.
    fn sealed(&self, fragment: u64, frozen: &Frozen) -> Result<Segment, EngineError> {
        let mut keys = Keys::builder();
        let mut seqs = Vec::with_capacity(frozen.live_rows().len());
        for row in frozen.live_rows() {
            keys.push(&row.id).map_err(bug)?;
            seqs.push(row.seq);
        }
        let segment = Segment::new(fragment, keys.finish(), seqs).map_err(bug)?;
        for (field, ty) in self.shared.schema.schema().vectors() {
            let mut codes = CodesBuilder::new(ty, frozen.live_rows().len());
            for row in frozen.live_rows() {
                let value = row.document.as_ref().and_then(|d| d.get(field.as_str()));
                let vector = match value {
                    Some(rhumb_core::Value::Vector(v)) => Some(v),
                    _ => None,
                };
                codes.push(vector).map_err(bug)?;
            }
            segment
                .attach_codes(field.clone(), Arc::new(codes.finish()))
                .map_err(bug)?;
        }
        for field in self.shared.schema.schema().sparse_vectors() {
            let mut index = SparseIndexBuilder::new();
            for row in frozen.live_rows() {
                let value = row.document.as_ref().and_then(|d| d.get(field.as_str()));
                let vector = match value {
                    Some(rhumb_core::Value::Sparse(v)) => Some(v),
                    _ => None,
                };
                index.push(vector).map_err(bug)?;
            }
            segment
                .attach_sparse(field.clone(), Arc::new(index.finish()))
                .map_err(bug)?;
        }
        Ok(segment)
    }

    /// View and base change together under the base's lock.
    fn complete(
        &self,
        frozen: &Arc<Frozen>,
        segment: Option<Segment>,
        base: Option<Base>,
    ) -> Result<(), EngineError> {
        // What is long happens outside the lock that every reader takes.
        let swap = Swap::freeze(frozen, segment).map_err(bug)?;
        let sealed = {
            let mut current = self.shared.base.write();
            let sealed = self.shared.view.swap(swap).map_err(bug)?;
            *current = base;
            sealed
        };
        self.shared.view.settle();
        let snapshot = self.shared.view.snapshot();
        if let Some(sealed) = sealed.and_then(|id| snapshot.segment(id)) {
            self.note_parts(sealed.segment());
        }
        self.shared.index_due.notify_one();
        Ok(())
    }

    fn note_parts(&self, segment: &Arc<Segment>) {
        let parts = &self.shared.env.parts;
        if let Some(split) = segment.split() {
            parts.loaded(segment, SegmentPart::Split, split.heap_size());
        }
        for field in self.shared.schema.schema().sparse_vectors() {
            if let Some(index) = segment.sparse(field.as_str()) {
                parts.loaded(segment, SegmentPart::Sparse(field.clone()), index.heap_size());
            }
        }
        for (field, _) in self.shared.schema.schema().vectors() {
            if let Some(codes) = segment.codes(field.as_str()) {
                parts.loaded(segment, SegmentPart::Codes(field.clone()), codes.heap_size());
            }
            if let Some(lists) = segment.lists(field.as_str()) {
                parts.loaded(segment, SegmentPart::Lists(field.clone()), lists.heap_size());
            }
        }
    }

    /// Merges fragments while the policy finds some, one commit each.
    async fn merge(&mut self) -> Result<(), EngineError> {
        while self.jobs.is_empty() && self.merge_chosen(merge_policy::choose).await? {}
        Ok(())
    }

    async fn merge_all(&mut self) -> Result<(), EngineError> {
        while self.merge_chosen(merge_policy::choose_any).await? {}
        Ok(())
    }

    /// False when nothing was chosen.
    async fn merge_chosen(
        &mut self,
        choose: fn(&[merge_policy::Size]) -> Option<Vec<u64>>,
    ) -> Result<bool, EngineError> {
        let Some(base) = self.shared.base.read().clone() else {
            return Ok(false);
        };
        let fragments = base.fragments().await?;
        let sizes: Vec<merge_policy::Size> = fragments
            .iter()
            .map(|f| merge_policy::Size {
                id: f.id,
                live: u64::from(f.physical_rows) - f.dead.len(),
                dead: f.dead.len(),
            })
            .collect();
        let Some(chosen) = choose(&sizes) else {
            return Ok(false);
        };
        self.merge_fragments(&base, &chosen, &fragments).await?;
        Ok(true)
    }

    async fn merge_fragments(
        &mut self,
        base: &Base,
        chosen: &[u64],
        fragments: &[base::FragmentInfo],
    ) -> Result<(), EngineError> {
        let shared = self.shared.clone();
        let schema = shared.schema.schema();
        let base = base.on_top().await?.with_columns(&schema).await?;
        let merging: Vec<&base::FragmentInfo> = fragments.iter().filter(|f| chosen.contains(&f.id)).collect();
        let file = base.rewrite(chosen).await?;
        let upto = shared.position.borrow().slot;
        let change = Change {
            drop: chosen.to_vec(),
            properties: self.properties("merge", upto),
            ..Change::default()
        };
        let (base, fragment) = base.commit(change, file).await?;
        let version = base.version();
        self.claim
            .checkpoint(|state| {
                state.base = Some(version);
                Ok(())
            })
            .await?;
        let snapshot = shared.view.snapshot();
        let old = merging.iter().map(|info| {
            let found = snapshot
                .segments()
                .iter()
                .find(|s| s.segment().fragment() == info.id);
            found.map(|s| (s.id(), s.segment().clone())).ok_or_else(|| {
                EngineError::Bug(format!(
                    "fragment {} of the base has no segment in the view",
                    info.id
                ))
            })
        });
        let old = old.collect::<Result<Vec<_>, _>>()?;
        let mut keys = Keys::builder();
        let mut seqs = Vec::new();
        let mut mapping = Vec::new();
        for (info, (id, segment)) in merging.iter().zip(&old) {
            for ordinal in (0..info.physical_rows).filter(|o| !info.dead.contains(*o)) {
                keys.push(&segment.id(ordinal)).map_err(bug)?;
                seqs.push(segment.seq(ordinal));
                mapping.push(RowRef::new(*id, ordinal));
            }
        }
        let segment = match fragment {
            Some(fragment) => Some(Segment::new(fragment, keys.finish(), seqs).map_err(bug)?),
            None => None,
        };
        if let Some(segment) = &segment {
            self.carry_over(segment, &old, &mapping).await?;
            let fields = shared.schema.texts()?;
            if !fields.is_empty() {
                let merged = Pinned {
                    base: Some(base.clone()),
                    ..shared.pin()
                };
                let split = merged.made_split(segment, &fields).await?;
                segment.attach_split(Arc::new(split)).map_err(bug)?;
            }
        }
        let ids: Vec<_> = old.iter().map(|(id, _)| *id).collect();
        let swap = Swap::segments(snapshot, &ids, segment, &mapping).map_err(bug)?;
        let merged = {
            let mut current = shared.base.write();
            let merged = shared.view.swap(swap).map_err(bug)?;
            *current = Some(base);
            merged
        };
        shared.view.settle();
        if let Some(sealed) = merged.and_then(|id| shared.view.snapshot().segment(id).cloned()) {
            self.note_parts(sealed.segment());
        }
        shared.index_due.notify_one();
        Ok(())
    }

    /// Codes and lists of the old segments under the new one's ordinals, where all have them:
    /// a merge reads no vector and slows no search.
    async fn carry_over(
        &self,
        segment: &Segment,
        old: &[(SegmentId, Arc<Segment>)],
        mapping: &[RowRef],
    ) -> Result<(), EngineError> {
        for (field, ty) in self.shared.schema.schema().vectors() {
            let grid = self.shared.view.grid(field.as_str());
            let (field, ty) = (field.clone(), *ty);
            let (of, old, mapping) = (field.clone(), old.to_vec(), mapping.to_vec());
            let tasks = &self.shared.env.tasks;
            let carried = tasks.compute_quietly("carry over", move || {
                let codes = Codes::carried(&of, &ty, &old, &mapping)?;
                let lists = grid
                    .map(|grid| Lists::carried(&of, &grid, &old, &mapping))
                    .transpose()?;
                Ok((codes, lists.flatten()))
            });
            let carried = carried
                .await
                .ok_or_else(|| EngineError::Bug("carrying codes over panicked".into()))?;
            let (codes, lists): (Option<Codes>, Option<Lists>) = carried.map_err(bug)?;
            if let Some(codes) = codes {
                segment
                    .attach_codes(field.clone(), Arc::new(codes))
                    .map_err(bug)?;
            }
            if let Some(lists) = lists {
                segment
                    .attach_lists(field.clone(), Arc::new(lists))
                    .map_err(bug)?;
            }
        }
        Ok(())
    }

    async fn collect(&mut self) -> Result<(), EngineError> {
        self.claim.collect(COLLECT_MOST).await?;
        if self.cleaned.elapsed() < CLEAN_EVERY {
            return Ok(());
        }
        self.cleaned = Instant::now();
        let now =
            chrono::DateTime::from_timestamp_millis(self.shared.env.clock.unix_ms()).unwrap_or_default();
        let base = self.shared.base.read().clone();
        if let Some(base) = base {
            base.clean(now - KEEP_VERSIONS).await?;
            let schema = self.shared.schema.schema();
            let grids = schema
                .vectors()
                .filter_map(|(field, _)| self.shared.view.grid(field.as_str()));
            let grids: Vec<u128> = grids.map(|grid| grid.id()).collect();
            self.shared.files.collect(&base, &grids).await?;
        }
        Ok(())
    }
}

fn bug(e: rhumb_view::ViewError) -> EngineError {
    EngineError::Bug(e.to_string())
}
