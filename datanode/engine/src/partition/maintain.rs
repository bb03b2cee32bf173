//! The serial maintenance loop of a partition: flush, merge, collect.  Run by its leader
//! alone, one step at a time, so that no two steps ever race for the base.
//! The steps: `flush`, `merge`, `purge`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::{Seq, Slot};
use rhumb_seams::CancellationToken;
use rhumb_store::log::Claim;
use rhumb_view::{Frozen, Segment, Swap};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::base::Base;
use crate::budget::SegmentPart;
use crate::error::EngineError;
use crate::idem;
use crate::partition::Shared;
use crate::partition::purge::PurgeJob;
use crate::pinned::bug;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Old base versions live longer than the longest cursor (1 h, P10) and a margin.
const KEEP_VERSIONS: chrono::TimeDelta = chrono::TimeDelta::minutes(75);
/// Log objects deleted after one flush: as many as a flush can cover, and then some.
const COLLECT_MOST: u64 = 4_096;
const CLEAN_EVERY: Duration = Duration::from_secs(600);

pub enum Job {
    Flush(FlushJob),
    /// Tell: what came before is done.
    Tell(oneshot::Sender<()>),
    /// Merge whatever can be merged, then tell.
    Optimize(oneshot::Sender<()>),
    /// Rewrite every fragment with dead rows, then tell.
    RewriteDead(oneshot::Sender<()>),
    /// Delete every object that is not needed any more, and tell what is left.
    Purge(PurgeJob),
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
    pub(super) shared: Arc<Shared>,
    pub(super) claim: Claim,
    pub(super) jobs: mpsc::Receiver<Job>,
    cleaned: Instant,
    /// Every step is given up then, as a crash would cut it short: whoever leads next would
    /// wait for its end.
    closing: CancellationToken,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Flush(&'a FlushJob),
    /// What the policy asks for, until somebody has a job.
    Merge,
    /// All there is.
    MergeAll,
    RewriteDead,
}

impl Step<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Flush(_) => "flush",
            Self::Merge | Self::MergeAll => "merge",
            Self::RewriteDead => "erasure",
        }
    }
}

impl Maintenance {
    pub fn new(
        shared: Arc<Shared>,
        claim: Claim,
        jobs: mpsc::Receiver<Job>,
        closing: CancellationToken,
    ) -> Self {
        Self {
            closing,
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
                Job::Tell(done) => {
                    let _ = done.send(());
                    true
                }
                Job::Optimize(done) => self.told(Step::MergeAll, done).await,
                Job::RewriteDead(done) => self.told(Step::RewriteDead, done).await,
                Job::Purge(job) => self.purged(job).await,
            };
            if !goes_on {
                break;
            }
            let closing = self.closing.clone();
            if let Some(Err(e)) = closing.run_until_cancelled(self.collect()).await {
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

    /// `done`, dropped unsent, says that the partition is lost.
    async fn told(&mut self, step: Step<'_>, done: oneshot::Sender<()>) -> bool {
        let is_done = self.until_done(step).await;
        is_done.then(|| done.send(()));
        is_done
    }

    /// Repeats a step until it is done.  False when there is no point in going on.
    async fn until_done(&mut self, step: Step<'_>) -> bool {
        let what = step.name();
        let mut backoff = RETRY_FIRST;
        loop {
            let env = self.shared.env.clone();
            let closing = self.closing.clone();
            let attempt = async {
                let Ok(_permit) = env.heavy.acquire().await else {
                    return None;
                };
                Some(match step {
                    Step::Flush(job) => self.flush(job).await,
                    Step::Merge => self.merge().await,
                    Step::MergeAll => self.merge_all().await,
                    Step::RewriteDead => self.rewrite_dead().await,
                })
            };
            let Some(Some(result)) = closing.run_until_cancelled(attempt).await else {
                return false;
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
                () = self.closing.cancelled() => return false,
                () = env.tasks.stopping().cancelled() => return false,
            }
            backoff = (backoff * 2).min(RETRY_MAX);
        }
    }

    /// Of a commit: who made it, and from what.
    pub(super) fn properties(&self, step: &str, upto: Slot) -> HashMap<String, String> {
        [
            ("rhumb.epoch".to_owned(), self.claim.epoch().to_string()),
            ("rhumb.step".to_owned(), step.to_owned()),
            ("rhumb.upto".to_owned(), upto.to_string()),
        ]
        .into()
    }

    /// View and base change together under the base's lock.
    pub(super) async fn show(&self, swap: Swap, base: Option<Base>) -> Result<(), EngineError> {
        let sealed = {
            let mut current = self.shared.base.write();
            let sealed = self.shared.view.swap(swap).map_err(bug)?;
            let bytes = base.as_ref().map_or(0, Base::bytes);
            *current = base;
            self.shared.share.base_is(bytes);
            sealed
        };
        let shared = self.shared.clone();
        self.shared
            .env
            .quietly("settle", move || {
                shared.view.settle();
                Ok(())
            })
            .await?;
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
            self.collect_view(&base).await?;
        }
        Ok(())
    }

    pub(super) async fn collect_view(&self, base: &Base) -> Result<(), EngineError> {
        let schema = self.shared.schema.schema();
        let grids = schema
            .vectors()
            .filter_map(|(field, _)| self.shared.view.grid(field.as_str()));
        let grids: Vec<u128> = grids.map(|grid| grid.id()).collect();
        self.shared.files.collect(base, &grids).await
    }
}
