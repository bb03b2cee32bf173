//! The one task that writes a partition.
//!
//! It takes all queued requests as a group, judges each in order against what the view and
//! the group so far show (P4), logs the group as one object, shows it in the view, and
//! only then answers.  One PUT is in flight at a time; the next group gathers meanwhile.
//!
//! Failure: a PUT whose outcome is unknown is repeated, same slot, same bytes, same
//! put-id, until the store says what happened; its writers are told `OutcomeUnknown` after
//! a while, later ones are refused.  Fenced: everything stops (I2).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::query::Include;
use rhumb_core::write::{Counts, Write};
use rhumb_core::{DocId, Position, Quota, Seq};
use rhumb_store::ErrorKind;
use rhumb_store::log::{AppendError, Log};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::entry::LogEntry;
use crate::error::EngineError;
use crate::idem::{self, Entry};
use crate::judge::{self, Judged, Old};
use crate::partition::Shared;
use crate::partition::group::{Group, Verdict};
use crate::partition::maintain::{FlushJob, Job};
use crate::partition::memtable::Memtable;
use crate::partition::pace::Pace;
use crate::partition::refusals::{document_too_large, outside};
use crate::rows::Row;
use crate::tally::Room;

/// Requests and bytes one log object carries at most.
const GROUP_REQUESTS: usize = 1_024;
const GROUP_BYTES: usize = 32 << 20;
/// After this long a writer is told that its outcome is unknown, and new ones are refused.
const UNKNOWN_AFTER: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);
pub enum Request {
    Write(Box<WriteRequest>),
    /// Freeze what is fresh; this job comes right after its flush.
    AfterFlush(Job),
    /// Refuse everything from now on and end.
    Close(oneshot::Sender<()>),
}

pub struct WriteRequest {
    pub write: Write,
    pub bytes: usize,
    pub room: Room,
    pub reply: oneshot::Sender<Result<Applied, EngineError>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Applied {
    pub counts: Counts,
    pub position: Position,
}

pub struct Writer {
    pub shared: Arc<Shared>,
    pub log: Log,
    pub requests: mpsc::Receiver<Request>,
    pub jobs: mpsc::Sender<Job>,
    pub idempotency: idem::Index,
    pub next_seq: Seq,
    pub memtable: Memtable,
    pub pace: Pace,
}

enum Flow {
    GoOn,
    End,
}

impl Writer {
    /// Ends when it is told to, or when the partition is lost; gives the log back.
    pub async fn run(mut self) -> Log {
        let _watched = self.shared.watched();
        let mut carried = None;
        loop {
            let request = match carried.take() {
                Some(request) => Some(request),
                None => self.next_request().await,
            };
            let flow = match request {
                None => Flow::End,
                Some(Request::Write(write)) => {
                    let (writes, next) = self.gather(*write).await;
                    carried = next;
                    self.commit(writes).await
                }
                Some(Request::AfterFlush(job)) => {
                    self.freeze().await;
                    self.hand_over(job).await;
                    Flow::GoOn
                }
                Some(Request::Close(reply)) => {
                    let _ = reply.send(());
                    Flow::End
                }
            };
            if matches!(flow, Flow::End) {
                break;
            }
            self.freeze_when_due().await;
        }
        self.shared.env.memtables.free(self.memtable.bytes);
        self.log
    }

    /// Waits for work, waking up when the memtable has come of age.
    async fn next_request(&mut self) -> Option<Request> {
        loop {
            let due = self.memtable.due_at();
            tokio::select! {
                biased;
                request = self.requests.recv() => return request,
                () = tokio::time::sleep_until(due), if self.memtable.entries > 0 => {
                    self.freeze().await;
                }
            }
        }
    }

    /// Takes what is queued, and holds the group open as [`Pace`] says.
    async fn gather(&mut self, first: WriteRequest) -> (Vec<WriteRequest>, Option<Request>) {
        let (expected, hold) = self.pace.hold();
        let until = Instant::now() + hold;
        let mut bytes = first.bytes;
        let mut alone = is_alone(&first.write);
        let mut group = vec![first];
        while !alone && group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
            let next = match self.requests.try_recv() {
                Ok(request) => request,
                Err(_) if group.len() >= expected => break,
                Err(_) => match tokio::time::timeout_at(until, self.requests.recv()).await {
                    Ok(Some(request)) => request,
                    Ok(None) | Err(_) => break,
                },
            };
            match next {
                Request::Write(write) if !is_alone(&write.write) => {
                    bytes += write.bytes;
                    alone = false;
                    group.push(*write);
                }
                other => return (group, Some(other)),
            }
        }
        (group, None)
    }

    async fn commit(&mut self, writes: Vec<WriteRequest>) -> Flow {
        let mut group = Group::default();
        for request in writes {
            let verdict = self
                .judge(&request, &mut group)
                .await
                .unwrap_or_else(Verdict::Refused);
            if matches!(verdict, Verdict::Applied(_)) {
                group.bytes += request.bytes;
            }
            group.answers.push((request.reply, verdict));
        }
        if group.entry == LogEntry::default() {
            group.answer(*self.shared.position.borrow());
            return Flow::GoOn;
        }
        match group.entry.encode(&self.shared.schema.schema()) {
            Ok(body) => self.append(group, body).await,
            Err(e) => {
                tracing::error!(partition = self.shared.name, error = %e, "a group could not be encoded");
                self.shared.share.take_back(group.growth);
                group.fail(|| EngineError::Bug("the write could not be encoded; nothing was applied".into()));
                Flow::GoOn
            }
        }
    }

    /// Judges one request and adds what it does to the group.
    async fn judge(&mut self, request: &WriteRequest, group: &mut Group) -> Result<Verdict, EngineError> {
        let write = &request.write;
        let now_ms = self.shared.env.clock.unix_ms();
        if let Some(verdict) = self.repeated(write, group, now_ms)? {
            return Ok(verdict);
        }
        if let Room::Full(problem) = &request.room {
            return Err(EngineError::Refused(problem.clone()));
        }
        let matched = match &write.delete_by_filter {
            None => Vec::new(),
            Some(filter) => self.shared.matching_ids(filter).await?,
        };
        let old = self.old_documents(write, &matched, group).await?;
        let mut seq = self.next_seq;
        let judged = judge::judge(write, &matched, &old, || {
            let given = seq;
            seq = seq.next();
            given
        });
        if let Some(id) = &judged.outside {
            return Err(EngineError::Refused(outside(id)));
        }
        let limit = self.shared.env.settings.limits.document_bytes;
        if let Some(id) = judged.too_large(write, limit) {
            return Err(EngineError::Refused(document_too_large(id, limit)));
        }
        if write.all_or_nothing && judged.counts.skipped > 0 {
            return Ok(Verdict::Applied(judged.counts));
        }
        self.make_room(&judged, &request.room)?;
        if !judged.rows.is_empty() && !write.new_fields.is_empty() {
            // In the catalog before the log: recovery must know every column it meets.
            let extended = self.shared.schema.extend(&write.new_fields).await;
            extended.inspect_err(|_| self.shared.share.take_back(judged.growth))?;
        }
        self.next_seq = seq;
        Ok(self.admit(write, judged, group, now_ms))
    }

    /// Before anything else is done about the write: one that is refused fixes no type.
    fn make_room(&self, judged: &Judged, room: &Room) -> Result<(), EngineError> {
        let quota = match judged.growth {
            ..=0 => Quota::default(),
            _ => self.shared.schema.quota()?,
        };
        Ok(self.shared.share.grow(judged.growth, &quota, room)?)
    }

    fn admit(&mut self, write: &Write, judged: Judged, group: &mut Group, now_ms: i64) -> Verdict {
        for row in &judged.rows {
            let old = row.document.clone().map(|d| Old {
                seq: row.seq,
                document: Some(d),
            });
            group.changed.insert(row.id.clone(), old);
        }
        group.growth += judged.growth;
        group.entry.rows.extend(judged.rows);
        if let Some(idempotency) = &write.idempotency {
            group.entry.idempotency.push(Entry {
                key: idempotency.key.clone(),
                body_hash: idempotency.body_hash,
                at_ms: now_ms,
                counts: judged.counts,
                position: Position::default(),
            });
        }
        Verdict::Applied(judged.counts)
    }

    /// The first answer to this idempotency key, from the index or from this very group.
    fn repeated(&self, write: &Write, group: &Group, now_ms: i64) -> Result<Option<Verdict>, EngineError> {
        let Some(idempotency) = &write.idempotency else {
            return Ok(None);
        };
        if let Some(first) = group.entry.idempotency.iter().find(|e| e.key == idempotency.key) {
            idem::check(first, idempotency)?;
            return Ok(Some(Verdict::Applied(first.counts)));
        }
        if let Some(first) = self.idempotency.find(idempotency, now_ms)? {
            return Ok(Some(Verdict::Repeat(Applied {
                counts: first.counts,
                position: first.position,
            })));
        }
        if self.idempotency.len() >= self.shared.env.settings.limits.idempotency_keys {
            return Err(EngineError::Busy(
                "too many idempotency keys within 24 hours".into(),
            ));
        }
        Ok(None)
    }

    /// How the documents a write touches look in write order: the group first, then the
    /// view; documents themselves only where they decide something.
    async fn old_documents(
        &self,
        write: &Write,
        matched: &[DocId],
        group: &Group,
    ) -> Result<HashMap<DocId, Old>, EngineError> {
        let mut old = HashMap::new();
        let mut unknown = Vec::new();
        for id in judge::touches(write).chain(matched) {
            match group.changed.get(id) {
                Some(Some(changed)) => drop(old.insert(id.clone(), changed.clone())),
                Some(None) => {}
                None => unknown.push(id.clone()),
            }
        }
        let mut needed: Vec<&DocId> = judge::needs_document(write);
        let conditional = matches!(write.condition, Some(rhumb_core::write::Condition::Filter(_)));
        if conditional || write.scope.is_some() {
            needed.extend(matched);
        }
        let needed: std::collections::HashSet<&DocId> = needed.into_iter().collect();
        for (id, found) in self
            .shared
            .stored(unknown, |id| needed.contains(id), &Include::Everything)
            .await?
        {
            old.insert(id, found);
        }
        Ok(old)
    }

    /// Logs the group, shows it, answers.
    async fn append(&mut self, mut group: Group, body: Vec<u8>) -> Flow {
        let mut pending = match self.log.prepare(body, self.next_seq) {
            Ok(pending) => pending,
            Err(e) => return self.lost(group, e),
        };
        let started = Instant::now();
        let mut backoff = RETRY_FIRST;
        loop {
            let outcome = {
                let mut put = std::pin::pin!(self.log.put(&mut pending));
                loop {
                    let patience = UNKNOWN_AFTER.saturating_sub(started.elapsed()).max(RETRY_MAX);
                    tokio::select! {
                        biased;
                        outcome = &mut put => break outcome,
                        () = tokio::time::sleep(patience) => {
                            refuse_while_unknown(&mut group, &mut self.requests, started);
                        }
                    }
                }
            };
            let refused = match outcome {
                Ok(position) => {
                    self.landed(group, position, started.elapsed());
                    return Flow::GoOn;
                }
                Err(AppendError::Unknown { .. }) => false,
                Err(AppendError::Refused(e)) if e.kind() == ErrorKind::Retry => true,
                Err(e) => return self.lost(group, e),
            };
            let stopping = self.shared.env.tasks.stopping().is_cancelled();
            if refused && started.elapsed() >= UNKNOWN_AFTER {
                // Nothing is in doubt: the slot can be used again.
                pending = match self.log.take_back(pending) {
                    Ok(()) => {
                        self.shared.share.take_back(group.growth);
                        group.fail(unreachable);
                        return Flow::GoOn;
                    }
                    Err(pending) => pending,
                };
            }
            refuse_while_unknown(&mut group, &mut self.requests, started);
            if stopping && started.elapsed() >= UNKNOWN_AFTER {
                return Flow::End;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(RETRY_MAX);
        }
    }

    /// The partition is not ours any more, or its log is not what we wrote.
    fn lost(&mut self, group: Group, error: AppendError) -> Flow {
        let fenced = error.kind() == ErrorKind::Fenced;
        tracing::error!(partition = self.shared.name, %error, fenced, "the partition stops");
        if fenced {
            self.shared.fence();
        } else {
            self.shared.halt(error.to_string());
        }
        // Whether an earlier attempt landed, the successor knows.
        group.fail(|| EngineError::OutcomeUnknown);
        let closed = || match fenced {
            true => EngineError::Fenced,
            false => EngineError::Unavailable("the partition is halted".into()),
        };
        refuse_queue(&mut self.requests, closed);
        Flow::End
    }

    fn landed(&mut self, mut group: Group, position: Position, took: Duration) {
        let rows = std::mem::take(&mut group.entry.rows);
        self.memtable.grow(rows.len(), group.bytes);
        self.shared.env.memtables.add(group.bytes);
        for mut entry in std::mem::take(&mut group.entry.idempotency) {
            entry.position = position;
            self.idempotency.insert(entry);
        }
        self.idempotency.expire(self.shared.env.clock.unix_ms());
        self.shared.show(rows, position);
        self.pace.served(group.answers.len(), took);
        group.answer(position);
    }

    async fn freeze_when_due(&mut self) {
        let env = &self.shared.env;
        if self.memtable.is_due(env.freeze_bytes(), env.memtables.is_tight()) {
            self.freeze().await;
        }
    }

    /// Hands the fresh rows to maintenance.
    async fn freeze(&mut self) {
        if self.memtable.entries == 0 {
            return;
        }
        let position = *self.shared.position.borrow();
        let frozen = self.shared.view.freeze();
        let keys = self.idempotency.between(self.memtable.frozen_upto, position.slot);
        let job = FlushJob {
            frozen,
            upto: position.slot,
            next_seq: self.next_seq,
            idempotency: keys.into_iter().cloned().collect(),
            bytes: self.memtable.bytes,
        };
        self.memtable = Memtable::new(position.slot);
        self.hand_over(Job::Flush(job)).await;
    }

    async fn hand_over(&self, job: Job) {
        if self.jobs.send(job).await.is_err() {
            tracing::warn!(
                partition = self.shared.name,
                "maintenance has ended: fresh rows stay in the log"
            );
        }
    }
}

/// The store has been silent for a while: tell those who wait.
fn refuse_while_unknown(group: &mut Group, requests: &mut mpsc::Receiver<Request>, started: Instant) {
    if started.elapsed() < UNKNOWN_AFTER {
        return;
    }
    let waiting = Group {
        answers: std::mem::take(&mut group.answers),
        ..Group::default()
    };
    waiting.fail(|| EngineError::OutcomeUnknown);
    refuse_queue(requests, unreachable);
}

fn unreachable() -> EngineError {
    EngineError::Unavailable("the store does not answer; nothing was written".into())
}

fn refuse_queue(requests: &mut mpsc::Receiver<Request>, error: impl Fn() -> EngineError) {
    while let Ok(request) = requests.try_recv() {
        // A caller that went away needs no answer; dropping the other replies answers them.
        if let Request::Write(write) = request {
            let _ = write.reply.send(Err(error()));
        }
    }
}

/// A filter is judged against the view alone, so nothing may stand before it in its group.
fn is_alone(write: &Write) -> bool {
    write.delete_by_filter.is_some()
}

/// Rows as the view takes them.
pub fn changes(rows: Vec<Row>) -> Vec<rhumb_view::Change> {
    rows.into_iter()
        .map(|r| rhumb_view::Change {
            id: r.id,
            seq: r.seq,
            document: r.document,
        })
        .collect()
}
