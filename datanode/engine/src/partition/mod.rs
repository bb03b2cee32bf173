//! One open partition: its view, its base, its writer task and its maintenance loop.
//!
//! Opening claims the epoch, fences, replays and only then serves (P14); `recover.rs` does
//! that.  Closing ends both tasks; the log keeps what was not merged yet.

mod flush;
pub mod follow;
mod group;
mod index;
pub mod maintain;
mod memtable;
mod merge;
mod merge_policy;
mod pace;
pub mod purge;
mod recover;
mod refusals;
pub mod writer;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use futures::TryStreamExt;
use parking_lot::{Mutex, RwLock};
use rhumb_core::query::Include;
use rhumb_core::write::Write;
use rhumb_core::{DocId, Filter, Position};
use rhumb_store::log::{Barrier, Claim, Log};
use rhumb_view::{RowMask, Snapshot, View};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::base::Base;
use crate::env::Env;
use crate::error::EngineError;
use crate::judge::Old;
use crate::lead::Lead;
use crate::partition::maintain::Job;
use crate::partition::purge::{PurgeJob, Purged};
use crate::partition::writer::{Applied, Request, WriteRequest};
use crate::pinned::Pinned;
use crate::raw::Raws;
use crate::remains::{Object, Objects};
use crate::rows::Row;
use crate::schema_cell::SchemaCell;
use crate::tally::{Room, Share};
use crate::view_files::ViewFiles;

/// Requests waiting for the writer; more make their senders wait.
const QUEUE: usize = 1_024;
/// The indexer is told of every so many rows.
const TELL_INDEXER: usize = 256;
/// So much of a log is read more slowly than it is flushed.
const SLOW_SLOTS: u64 = 32;
const SLOW_ROWS: u64 = 1_000;

/// From whom a partition may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Anybodys,
    /// Nobody else holds it.
    Nobodys,
}

/// A handle; the partition lives until it is closed.
pub struct Partition {
    pub shared: Arc<Shared>,
    /// `None` of one that another node leads.
    barrier: Option<Barrier>,
    requests: mpsc::Sender<Request>,
    /// The writer and maintenance; each ends with what it owned of the claim.
    tasks: Mutex<Option<(JoinHandle<Log>, JoinHandle<Claim>)>>,
    /// Ends the indexer and merges, at the latest with this handle.
    closing: CancellationToken,
    _closing_guard: DropGuard,
}

/// What the writer, maintenance and readers of a partition see.
pub struct Shared {
    /// `collection/p0`, for messages.
    pub name: String,
    /// `c/<id>/p0`, relative to the bucket's prefix.
    pub folder: String,
    pub env: Arc<Env>,
    pub lead: Lead,
    pub schema: Arc<SchemaCell>,
    pub share: Share,
    pub view: View,
    /// `None` until the first flush.  Held for writing while view and base change
    /// together, for reading while a reader pins both: a pinned snapshot's rows are all in
    /// the pinned base.
    pub base: RwLock<Option<Base>>,
    /// The last position that is durable and visible.
    pub position: watch::Sender<Position>,
    /// The last slot that the base holds, as STATE says.
    pub applied: AtomicU64,
    /// There may be something for the indexer to do.
    pub index_due: Arc<Notify>,
    /// Somebody waits for a round that begins after this was counted up.
    index_asked: AtomicU64,
    /// What `index_asked` was when the last finished round began.
    indexed: watch::Sender<u64>,
    /// Rows shown since it was last told.
    shown: AtomicUsize,
    pub files: Arc<ViewFiles>,
    pub raws: Arc<Raws>,
    halted: Mutex<Option<String>>,
    /// A task of the partition panicked, and what it was about to do is in doubt; or nobody
    /// follows its leader any more.  It has to be opened anew.
    unsound: AtomicBool,
}

/// Held by a task of the partition; tells how the task ended.
struct Watched(Weak<Shared>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(shared) = self.0.upgrade()
        {
            shared.unsound.store(true, Ordering::SeqCst);
        }
    }
}

impl Partition {
    /// Judged, logged, shown.  Not cancelled when the caller goes away: the writer task
    /// owns the request once it is queued.
    pub async fn write(&self, write: Write, bytes: usize, room: Room) -> Result<Applied, EngineError> {
        self.shared.check_halted()?;
        self.shared.env.memtables.admit(bytes).await?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Write(Box::new(WriteRequest {
            write,
            bytes,
            room,
            reply,
        }));
        self.requests
            .send(request)
            .await
            .map_err(|_| self.shared.closed())?;
        if let Ok(answer) = answer.await {
            return answer;
        }
        // A panic drops the replies first; what it was is known once the writer is gone.
        self.requests.closed().await;
        Err(match self.is_unsound() {
            true => EngineError::OutcomeUnknown,
            false => self.shared.closed(),
        })
    }

    /// Only opening it anew helps.
    pub fn is_unsound(&self) -> bool {
        self.shared.unsound.load(Ordering::SeqCst)
    }

    /// The snapshot and base that readers use.
    pub fn pin(&self) -> Pinned {
        self.shared.pin()
    }

    /// `verified`: nobody else holds the epoch, asked of the bucket (P15).
    pub async fn verify(&self) -> Result<(), EngineError> {
        let barrier = self.barrier.as_ref().ok_or(EngineError::NotLeading)?;
        let checked = barrier.check().await.map_err(EngineError::from);
        if checked.as_ref().is_err_and(EngineError::is_fenced) {
            self.shared.fence();
        }
        checked
    }

    /// Returns when every row acknowledged before the call is in the base and its indexes,
    /// and the base in as few fragments as can be.
    pub async fn optimize(&self) -> Result<(), EngineError> {
        self.after_flush(Job::Optimize).await?;
        let asked = self.shared.index_asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.index_due.notify_one();
        let mut indexed = self.shared.indexed.subscribe();
        let round = indexed.wait_for(|done| *done >= asked);
        match self.closing.run_until_cancelled(round).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(self.shared.closed()),
        }
    }

    /// Returns when every row acknowledged before the call is in the base.
    pub async fn flush(&self) -> Result<(), EngineError> {
        self.after_flush(Job::Tell).await
    }

    /// Whether whoever opens this next reads so much of the log that a flush is faster.
    pub fn is_slow_to_replay(&self) -> bool {
        let shared = &self.shared;
        let slots = shared.position.borrow().slot.0 - shared.applied.load(Ordering::Relaxed);
        slots >= SLOW_SLOTS || shared.view.snapshot().fresh_rows() >= SLOW_ROWS
    }

    /// Returns when the base holds no row that was deleted or overwritten before the call.
    pub async fn rewrite_dead(&self) -> Result<(), EngineError> {
        self.after_flush(Job::RewriteDead).await
    }

    /// Deletes what no reader of today needs, and looks for `ids` in what is left.
    pub async fn purge(&self, ids: Arc<HashSet<DocId>>) -> Result<Purged, EngineError> {
        let job = |reply| Job::Purge(PurgeJob { ids, reply });
        self.after_flush(job).await?
    }

    /// Hands a job to maintenance behind the flush of all that is acknowledged.
    async fn after_flush<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, EngineError> {
        let (reply, done) = oneshot::channel();
        self.requests
            .send(Request::AfterFlush(job(reply)))
            .await
            .map_err(|_| self.shared.closed())?;
        done.await.map_err(|_| self.shared.closed())
    }

    /// True when nothing runs or waits here, so that closing costs nobody anything.
    pub fn is_idle(&self) -> bool {
        self.requests.capacity() == QUEUE && Arc::strong_count(&self.shared) <= 4
    }

    /// Refuses new requests, waits until both tasks have ended and hands the partition
    /// back, so that the next opening needs no fence.
    pub async fn close(&self) {
        let Some((log, claim)) = self.stop().await else {
            return;
        };
        if let Err(e) = claim.release(log).await {
            tracing::debug!(partition = self.shared.name, error = %e, "not handed back: the next opening fences");
        }
    }

    /// No write is accepted any more, by us or anybody: the collection is being deleted.
    pub async fn seal(&self) -> Result<(), EngineError> {
        match self.stop().await {
            Some((log, claim)) => Ok(claim.seal(log).await?),
            None => Err(self.shared.closed()),
        }
    }

    /// Both owners of the claim, once; `None` when they are gone already.
    async fn stop(&self) -> Option<(Log, Claim)> {
        self.closing.cancel();
        let (reply, ended) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_ok() {
            // An error means that the writer had ended already.
            let _ = ended.await;
        }
        let (writer, maintenance) = self.tasks.lock().take()?;
        match tokio::join!(writer, maintenance) {
            (Ok(log), Ok(claim)) => Some((log, claim)),
            (log, claim) => {
                for e in [log.err(), claim.err()].into_iter().flatten() {
                    tracing::error!(partition = self.shared.name, error = %e, "a partition task ended badly");
                }
                None
            }
        }
    }
}

impl Shared {
    fn watched(self: &Arc<Self>) -> Watched {
        Watched(Arc::downgrade(self))
    }

    pub fn pin(&self) -> Pinned {
        self.together(|view| (view.snapshot(), ())).0
    }

    /// A snapshot with the base it belongs to.  `look` is given the view alone: whoever
    /// took the base's lock again here would wait for a flush that waits for him.
    fn together<T>(&self, look: impl FnOnce(&View) -> (Arc<Snapshot>, T)) -> (Pinned, T) {
        let base = self.base.read();
        let (snapshot, found) = look(&self.view);
        let pinned = Pinned {
            snapshot,
            base: base.clone(),
            schema: self.schema.schema(),
            env: self.env.clone(),
            files: self.files.clone(),
            raws: self.raws.clone(),
            position: *self.position.borrow(),
            index_due: self.index_due.clone(),
            quiet: false,
        };
        (pinned, found)
    }

    /// The objects of the partition as they are now, by their names in its folder.
    pub async fn objects(&self) -> Result<Objects, EngineError> {
        let folder = self.env.bucket.path(&self.folder);
        let listed = self.env.bucket.list(&folder).map_ok(|object| {
            let inside = object.location.as_ref().strip_prefix(folder.as_ref());
            let name = inside.unwrap_or_default().trim_start_matches('/').to_owned();
            let (bytes, etag) = (object.size, object.e_tag);
            (name, Object { bytes, etag })
        });
        Ok(listed.try_collect().await?)
    }

    /// Shows durable rows.
    pub fn show(&self, rows: Vec<Row>, position: Position) {
        let shown = rows.len();
        self.view.apply(&writer::changes(rows));
        self.position.send_replace(position);
        // One task shows; it is told often enough, and not for every single write.
        if self.shown.fetch_add(shown, Ordering::Relaxed) + shown >= TELL_INDEXER {
            self.shown.store(0, Ordering::Relaxed);
            self.index_due.notify_one();
        }
    }

    /// The current versions of `ids` that exist; with the document where `needs` says so.
    pub async fn stored(
        &self,
        ids: Vec<DocId>,
        needs: impl Fn(&DocId) -> bool,
        include: &Include,
    ) -> Result<Vec<(DocId, Old)>, EngineError> {
        let (pinned, found) = self.together(|view| view.lookup_with_snapshot(&ids));
        let mut old = Vec::new();
        let mut to_fetch = Vec::new();
        for (id, found) in ids.into_iter().zip(found) {
            let Some((row, seq)) = found else { continue };
            if needs(&id) {
                to_fetch.push((old.len(), row));
            }
            old.push((id, Old { seq, document: None }));
        }
        let rows: Vec<_> = to_fetch.iter().map(|(_, row)| *row).collect();
        let documents = pinned.documents(&rows, include).await?;
        for ((at, _), document) in to_fetch.into_iter().zip(documents) {
            old[at].1.document = Some(document);
        }
        Ok(old)
    }

    /// The ids a by-filter write means, refused when they are too many.
    pub async fn matching_ids(&self, filter: &Filter) -> Result<Vec<DocId>, EngineError> {
        let (pinned, mask) = self.matching(filter).await?;
        Ok(pinned.ids(&mask))
    }

    /// The rows a by-filter write means, refused when they are too many.
    pub async fn matching(&self, filter: &Filter) -> Result<(Pinned, RowMask), EngineError> {
        let pinned = self.pin();
        let mask = pinned.mask(filter).await?;
        let limit = self.env.settings.limits.by_filter_rows;
        if mask.count() > limit as u64 {
            return Err(refusals::too_many(mask.count(), limit));
        }
        Ok((pinned, mask))
    }

    /// Somebody newer has the partition.
    pub fn fence(&self) {
        self.env.fence(&self.lead);
    }

    pub fn is_fenced(&self) -> bool {
        match &self.lead {
            Lead::Alone => self.env.fenced.is_cancelled(),
            Lead::Term { term, .. } => term.was_fenced(),
            Lead::Following => false,
        }
    }

    pub fn halt(&self, reason: String) {
        self.halted.lock().get_or_insert(reason);
    }

    fn check_halted(&self) -> Result<(), EngineError> {
        match self.halted.lock().as_ref() {
            None => Ok(()),
            Some(reason) => Err(EngineError::Corrupt(format!("{} is halted: {reason}", self.name))),
        }
    }

    fn closed(&self) -> EngineError {
        if self.is_fenced() {
            return EngineError::Fenced;
        }
        if self.lead.is_over() || self.lead.is_following() {
            return EngineError::NotLeading;
        }
        EngineError::Unavailable(format!("{} is closing", self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rhumb_core::{CollectionName, Schema};
    use rhumb_seams::{Clock, Ids, OnExit, Rand, Tasks};
    use rhumb_store::{Bucket, BucketOptions};

    use super::*;
    use crate::database::{Database, Settings};

    async fn open() -> Arc<Partition> {
        let (clock, rand) = (Clock::system(), Rand::from_seed(1));
        let ids = Ids::new(clock.clone(), rand.clone());
        let options = BucketOptions::default();
        let url = "memory://".parse().expect("a store");
        let bucket = Bucket::open(&url, options, clock.clone(), rand, ids.clone()).await;
        let settings = Settings {
            limits: Default::default(),
            memory_limit: 256 << 20,
            sharing: crate::database::Sharing::Locked,
        };
        let bucket = bucket.expect("the bucket opens");
        let database = Database::open(bucket, settings, "test".into(), clock, ids, Tasks::new()).await;
        let name = CollectionName::parse("c").expect("a name");
        let database = database.expect("the database opens");
        let created = database
            .create_collection(&name, Schema::default(), 1, None)
            .await;
        created.expect("created");
        let collection = database.collection(&name).await.expect("there");
        collection.stats().await.expect("opens the partition");
        collection.open_partitions().remove(0)
    }

    /// A flush waits for the base's lock while the writer reads under it: neither may wait
    /// for the other.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_writer_and_a_flush_never_wait_for_each_other() {
        let partition = open().await;
        let shared = partition.shared.clone();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let flush = std::thread::spawn(move || {
            while stopped.try_recv().is_err() {
                drop(shared.base.write());
            }
        });
        let reads = Tasks::new().spawn("reads", OnExit::Fine, async move {
            for _ in 0..20_000 {
                let found = partition
                    .shared
                    .stored(vec!["a".into()], |_| false, &Include::Nothing)
                    .await;
                assert!(found.expect("nothing fails here").is_empty());
            }
        });
        let ended = tokio::time::timeout(Duration::from_secs(30), reads).await;
        ended.expect("a deadlock").expect("no panic");
        stop.send(()).expect("it still runs");
        flush.join().expect("no panic");
    }
}
