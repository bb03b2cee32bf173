//! Reading log slots in order, with read-ahead, in bounded memory.
//!
//! One GET brings the last `AT_ONCE` bytes of a slot: the trailer, and for nearly every
//! record the whole body.  Larger bodies are fetched when their turn comes, so that at
//! most `WINDOW_MOST × AT_ONCE` plus one batch of bodies is in memory at a time, however
//! large the records are.
//!
//! A missing slot ends the tail only when nothing behind it in the window is there: slots
//! are written one after the other, so `n + 1` is proof that `n` was written.  A hole that
//! stays is `Corrupt`; the caller asks first whether a newer holder's GC made it.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, try_join_all};
use futures::stream::FuturesOrdered;
use object_store::path::Path;
use object_store::{Error as OsError, GetOptions, GetRange};
use rhumb_core::Slot;

use super::PartitionFolder;
use super::record::{Record, TRAILER_LEN, Trailer};
use crate::{ErrorKind, Result, StoreError};

/// Slots in flight at first, and at most once records keep coming.
const WINDOW_FIRST: usize = 32;
const WINDOW_MOST: usize = 128;
const AT_ONCE: u64 = 256 << 10;
/// Bodies that a tail keeps for its replay, and that a replay fetches at a time.
const HELD_BYTES: u64 = 64 << 20;
/// Reads of a slot that does not decode, before it counts as corrupt.
const READS: u32 = 3;

/// A record as a tail finds it.
#[derive(Clone, Debug)]
pub struct Found {
    pub trailer: Trailer,
    /// `None` when it is still to be fetched.
    body: Option<Bytes>,
}

/// The records of a log from a slot on.
pub struct Tail {
    folder: PartitionFolder,
    next: Slot,
    /// The slot that the next read-ahead takes.
    ahead: Slot,
    /// The last slot to read, when it is known.
    last: Option<Slot>,
    window: usize,
    reads: FuturesOrdered<BoxFuture<'static, Result<Option<Found>>>>,
    held_bytes: u64,
}

impl Tail {
    pub fn read_from(folder: &PartitionFolder, slot: Slot) -> Self {
        Self {
            folder: folder.clone(),
            next: slot,
            ahead: slot,
            last: None,
            window: WINDOW_FIRST,
            reads: FuturesOrdered::new(),
            held_bytes: 0,
        }
    }

    /// Reads no further than `last`, not even ahead.
    pub fn until(mut self, last: Slot) -> Self {
        self.last = Some(last);
        self
    }

    /// The slot that `next` will look at.
    pub fn position(&self) -> Slot {
        self.next
    }

    /// The record in the next slot; `None` when it is not there yet.  After `None` or an
    /// error the same slot is looked at again.
    pub async fn next(&mut self) -> Result<Option<Found>> {
        if self.last.is_some_and(|last| self.next > last) {
            return Ok(None);
        }
        self.read_ahead();
        let read = match self.reads.next().await {
            Some(Ok(Some(found))) => Ok(Some(found)),
            Some(Ok(None)) => self.look_behind().await,
            Some(Err(e)) => Err(e),
            None => Ok(None),
        };
        match read {
            Ok(Some(found)) => {
                self.next = self.next.next();
                self.window = WINDOW_MOST.min(self.window + 1);
                Ok(Some(self.hold(found)))
            }
            Ok(None) => {
                // Whoever polls a quiet log pays for one miss, not for a window of them.
                self.forget_reads(1);
                Ok(None)
            }
            Err(e) => {
                self.forget_reads(self.window);
                Err(e)
            }
        }
    }

    fn read_ahead(&mut self) {
        while self.reads.len() < self.window && self.last.is_none_or(|last| self.ahead <= last) {
            let (folder, slot) = (self.folder.clone(), self.ahead);
            self.reads
                .push_back(async move { read_slot(&folder, slot).await }.boxed());
            self.ahead = self.ahead.next();
        }
    }

    /// The next slot was missing.  If something behind it is there, then it was written
    /// after we looked, or it is lost.
    async fn look_behind(&mut self) -> Result<Option<Found>> {
        let mut behind = None;
        while let Some(read) = self.reads.next().await {
            if let Some(found) = read? {
                behind.get_or_insert(found.trailer.slot);
            }
        }
        let Some(behind) = behind else { return Ok(None) };
        self.forget_reads(self.window);
        let found = read_slot(&self.folder, self.next).await?;
        if found.is_none() {
            return Err(StoreError::Corrupt {
                path: self.folder.slot_path(self.next),
                reason: format!("it is missing, and slot {behind} behind it is not"),
            });
        }
        self.ahead = self.next.next();
        Ok(found)
    }

    fn forget_reads(&mut self, window: usize) {
        self.reads = FuturesOrdered::new();
        self.ahead = self.next;
        self.window = window;
    }

    /// Keeps the body while there is room; a replay fetches the others again.
    fn hold(&mut self, mut found: Found) -> Found {
        let bytes = found.body.as_ref().map_or(0, |body| body.len() as u64);
        if self.held_bytes + bytes > HELD_BYTES {
            found.body = None;
        } else {
            self.held_bytes += bytes;
        }
        found
    }
}

/// The bodies of records that were found, in order.
#[derive(Debug)]
pub struct Replay {
    folder: PartitionFolder,
    records: VecDeque<Found>,
}

impl Replay {
    pub(super) fn of(folder: &PartitionFolder, records: Vec<Found>) -> Self {
        Self {
            folder: folder.clone(),
            records: records.into(),
        }
    }

    /// Records left.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of the bodies left.
    pub fn bytes(&self) -> u64 {
        self.records.iter().map(|found| found.trailer.body_len).sum()
    }

    /// The next record with its body.  After an error the same record is tried again.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        if self.records.front().is_some_and(|first| first.body.is_none()) {
            self.fetch().await?;
        }
        let Some(Found { trailer, body }) = self.records.pop_front() else {
            return Ok(None);
        };
        let body = body.unwrap_or_default();
        Ok(Some(Record { trailer, body }))
    }

    pub async fn read_all(mut self) -> Result<Vec<Record>> {
        let mut records = Vec::with_capacity(self.len());
        while let Some(record) = self.next().await? {
            records.push(record);
        }
        Ok(records)
    }

    /// Fetches the first body that is missing, and more of them while they are few bytes.
    async fn fetch(&mut self) -> Result<()> {
        let mut room = HELD_BYTES;
        let mut wanted = Vec::new();
        for (at, found) in self.records.iter().enumerate() {
            if found.body.is_some() {
                continue;
            }
            let fits = found.trailer.body_len <= room && wanted.len() < WINDOW_MOST;
            if !wanted.is_empty() && !fits {
                break;
            }
            room = room.saturating_sub(found.trailer.body_len);
            wanted.push((at, found.trailer.clone()));
        }
        let fetches = wanted.into_iter().map(|(at, trailer)| {
            let folder = &self.folder;
            async move { Ok::<_, StoreError>((at, read_body(folder, &trailer).await?)) }
        });
        for (at, body) in try_join_all(fetches).await? {
            self.records[at].body = Some(body);
        }
        Ok(())
    }
}

/// The record in `slot`, with its body when that is small.  One GET.
pub(super) async fn read_slot(folder: &PartitionFolder, slot: Slot) -> Result<Option<Found>> {
    let path = folder.slot_path(slot);
    again(|| read_end(folder, &path, slot)).await
}

async fn read_body(folder: &PartitionFolder, trailer: &Trailer) -> Result<Bytes> {
    let path = folder.slot_path(trailer.slot);
    again(|| async {
        let gone = || StoreError::Corrupt {
            path: path.clone(),
            reason: "it went away".into(),
        };
        let (object, _) = folder.bucket().get_uncached(&path).await?.ok_or_else(gone)?;
        let record = Record::decode(&path, &object, folder.id(), trailer.slot)?;
        if record.trailer != *trailer {
            return Err(StoreError::Corrupt {
                path: path.clone(),
                reason: "it was replaced".into(),
            });
        }
        Ok(record.body)
    })
    .await
}

async fn read_end(folder: &PartitionFolder, path: &Path, slot: Slot) -> Result<Option<Found>> {
    let options = GetOptions::new().with_range(Some(GetRange::Suffix(AT_ONCE)));
    let found = match folder.bucket().object_store().get_opts(path, options).await {
        Ok(found) => found,
        Err(OsError::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(too_short_or(folder, path, e.into()).await),
    };
    let size = found.meta.size;
    let end = found.bytes().await?;
    let trailer = Trailer::decode(path, &end)?;
    trailer.check_place(path, folder.id(), slot, size)?;
    let body = if end.len() as u64 == size {
        let body = end.slice(..end.len() - TRAILER_LEN);
        trailer.check_body(path, &body)?;
        Some(body)
    } else {
        None
    };
    Ok(Some(Found { trailer, body }))
}

/// S3 has no range to answer with when an object is empty.
async fn too_short_or(folder: &PartitionFolder, path: &Path, error: StoreError) -> StoreError {
    match folder.bucket().head(path).await {
        Ok(Some((meta, _))) if meta.size < TRAILER_LEN as u64 => StoreError::Corrupt {
            path: path.clone(),
            reason: "shorter than a trailer".into(),
        },
        _ => error,
    }
}

/// Reads again what does not decode: the damage may be on the way, not in the store.
async fn again<T, F: Future<Output = Result<T>>>(read: impl Fn() -> F) -> Result<T> {
    let mut outcome = read().await;
    for _ in 1..READS {
        match &outcome {
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => outcome = read().await,
            _ => break,
        }
    }
    outcome
}
