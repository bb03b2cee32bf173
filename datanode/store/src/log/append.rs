//! Appending: one record, one slot, one PUT, and never a step past a slot whose outcome is
//! not known.
//!
//! `prepare` binds a body to the next slot; `put` tries to store it and may be called
//! again with the same `Pending` as often as the caller's patience lasts: same key, same
//! bytes, same put-id.  Only `Landed` (the `Ok` of `put`) frees the next slot, so whoever
//! gives up leaves the slot to the next takeover, which decides it for ever.
//!
//! A `put` whose future is dropped counts as in doubt.

use bytes::Bytes;
use rhumb_core::{Epoch, Position, Seq, Slot};

use super::PartitionFolder;
use super::chain::Chain;
use super::claim::Held;
use super::record::{Kind, Record, Trailer};
use super::tail::read_slot;
use crate::deviation::{self, Deviation};
use crate::state::Link;
use crate::{ErrorKind, Outcome, PutId, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A newer epoch took over.  Whether the record of a repeated `put` is in the log, its
    /// successor knows: to the client the outcome is unknown.
    #[error("fenced by epoch {by}")]
    Fenced { by: Epoch },

    /// The record may be in its slot, or may get there yet.  Call `put` again.
    #[error("the outcome of slot {slot} is unknown")]
    Unknown { slot: Slot, source: Option<StoreError> },

    /// Another record where only ours can be: halt the partition, never advance.
    #[error("broken invariant: {reason}")]
    Broken { reason: String },

    /// Nothing was written and nothing is in doubt.
    #[error(transparent)]
    Refused(StoreError),
}

impl AppendError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Unknown { .. } => ErrorKind::Retry,
            Self::Broken { .. } => ErrorKind::Bug,
            Self::Refused(e) => e.kind(),
        }
    }
}

/// A record on its way into its slot.
#[derive(Debug)]
pub struct Pending {
    trailer: Trailer,
    object: Bytes,
    /// A PUT was sent and its end was not seen.
    in_doubt: bool,
}

impl Pending {
    /// Where it lands, if it lands.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.trailer.epoch,
            slot: self.trailer.slot,
        }
    }

    /// False when it is certain that nothing was stored.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }
}

/// The right to append, for one task.
#[derive(Debug)]
pub struct Log {
    held: Held,
    next: Slot,
    prev: Link,
    next_seq: Seq,
    outstanding: Option<PutId>,
    halted: Option<String>,
}

impl Log {
    pub(super) fn new(held: Held, chain: &Chain, next_seq: Seq) -> Self {
        Self {
            held,
            next: chain.next,
            prev: chain.prev,
            next_seq,
            outstanding: None,
            halted: None,
        }
    }

    /// The last slot that is written.
    pub fn tip(&self) -> Slot {
        Slot(self.next.0 - 1)
    }

    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Nothing is on its way.
    pub fn is_settled(&self) -> bool {
        self.outstanding.is_none() && self.halted.is_none()
    }

    pub(super) fn folder(&self) -> &PartitionFolder {
        &self.held.folder
    }

    /// Binds `body` to the next slot.  `next_seq` is the first version that is still free
    /// once the body is written.
    pub fn prepare(&mut self, body: Vec<u8>, next_seq: Seq) -> Result<Pending, AppendError> {
        self.check_usable()?;
        if body.is_empty() || next_seq < self.next_seq {
            let next = self.next_seq;
            return Err(broken(format!(
                "an empty body, or next_seq {next_seq} after {next}"
            )));
        }
        if let Some(put_id) = &self.outstanding {
            return Err(broken(format!(
                "slot {} is still in doubt under put-id {put_id}",
                self.next
            )));
        }
        let put_id = self.held.folder.bucket().mint_put_id();
        let trailer = Trailer {
            partition: self.held.folder.id(),
            epoch: self.held.epoch(),
            slot: self.next,
            prev: self.prev,
            next_seq,
            body_len: body.len() as u64,
            body_crc: crc32fast::hash(&body),
            put_id: put_id.clone(),
            kind: Kind::Data,
        };
        let mut object = body;
        object.extend_from_slice(&trailer.encode());
        self.outstanding = Some(put_id);
        Ok(Pending {
            trailer,
            object: object.into(),
            in_doubt: false,
        })
    }

    /// Stores the record, or finds out what became of it.  One PUT; one GET more when the
    /// slot is taken.
    pub async fn put(&mut self, pending: &mut Pending) -> Result<Position, AppendError> {
        if let Some(reason) = &self.halted {
            return Err(broken(reason.clone()));
        }
        if self.outstanding.as_ref() != Some(&pending.trailer.put_id) {
            return Err(broken(format!("slot {} is not on its way", pending.trailer.slot)));
        }
        let doubted = std::mem::replace(&mut pending.in_doubt, true);
        self.held.issue(pending.trailer.slot);
        let path = self.held.folder.slot_path(pending.trailer.slot);
        let put = self
            .held
            .folder
            .bucket()
            .create(&path, pending.object.clone(), &pending.trailer.put_id)
            .await;
        let settled = match put {
            Ok(Outcome::Landed(_)) => Ok(self.advance(pending)),
            Ok(Outcome::Lost) => self.settle(pending).await,
            Ok(Outcome::Unknown) => Err(AppendError::Unknown {
                slot: pending.trailer.slot,
                source: None,
            }),
            Err(source) if doubted => Err(AppendError::Unknown {
                slot: pending.trailer.slot,
                source: Some(source),
            }),
            Err(source) => {
                pending.in_doubt = false;
                Err(AppendError::Refused(source))
            }
        };
        if settled.is_err() && deviation::active(Deviation::NextSlotWhenLost) {
            self.move_on(pending);
        }
        settled
    }

    /// Gives the slot back.  Only a record that is certain not to be stored can be taken
    /// back; any other is returned.
    pub fn take_back(&mut self, pending: Pending) -> Result<(), Pending> {
        if pending.in_doubt || self.outstanding.as_ref() != Some(&pending.trailer.put_id) {
            return Err(pending);
        }
        self.outstanding = None;
        Ok(())
    }

    /// Says what took the slot.
    async fn settle(&mut self, pending: &mut Pending) -> Result<Position, AppendError> {
        let slot = pending.trailer.slot;
        let found = match read_slot(&self.held.folder, slot).await {
            Ok(Some(found)) => found.trailer,
            // Taken, and gone: our own record may have been stored, replayed by a newer
            // holder and collected.  The next `put` tells.
            Ok(None) => return Err(AppendError::Unknown { slot, source: None }),
            Err(source) => {
                return Err(AppendError::Unknown {
                    slot,
                    source: Some(source),
                });
            }
        };
        if found == pending.trailer {
            return Ok(self.advance(pending));
        }
        if found.epoch > self.held.epoch() {
            self.held.fenced_by(found.epoch);
            return Err(AppendError::Fenced { by: found.epoch });
        }
        let reason = format!(
            "slot {slot} holds put-id {} of epoch {} where epoch {} put {}",
            found.put_id,
            found.epoch,
            self.held.epoch(),
            pending.trailer.put_id
        );
        self.halted = Some(reason.clone());
        Err(broken(reason))
    }

    fn advance(&mut self, pending: &mut Pending) -> Position {
        pending.in_doubt = false;
        self.outstanding = None;
        self.held.note(&pending.trailer);
        self.prev = pending.trailer.link();
        self.next = self.next.next();
        self.next_seq = pending.trailer.next_seq;
        pending.position()
    }

    fn check_usable(&self) -> Result<(), AppendError> {
        if let Some(reason) = &self.halted {
            return Err(broken(reason.clone()));
        }
        match self.held.newer() {
            Some(by) => Err(AppendError::Fenced { by }),
            None => Ok(()),
        }
    }

    /// What MemWAL's writer does with a taken slot, for `Deviation::NextSlotWhenLost`.
    fn move_on(&mut self, pending: &mut Pending) {
        self.halted = None;
        self.next = self.next.next();
        pending.trailer.slot = self.next;
        let body = pending.object.slice(..pending.trailer.body_len as usize);
        pending.object = Record {
            trailer: pending.trailer.clone(),
            body,
        }
        .encode();
    }
}

fn broken(reason: String) -> AppendError {
    AppendError::Broken { reason }
}
