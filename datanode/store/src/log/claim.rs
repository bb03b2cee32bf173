//! What holding an epoch is good for besides appending: the read barrier, checkpoints,
//! sealing and handing back.
//!
//! Every write of the state goes through `State::may_become` first, so a bug of ours ends
//! as `Broken` before it reaches the bucket.  A compare-and-swap that is lost to a newer
//! epoch ends as `Fenced`, and from then on every owner of this claim says so at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rhumb_core::{Epoch, Slot};

use super::PartitionFolder;
use super::append::Log;
use super::record::{Kind, Trailer};
use crate::cas::{Cas, Swap, Versioned};
use crate::deviation::{self, Deviation};
use crate::state::{Link, MAX_FENCES, State, Status};
use crate::{Result, StoreError, Tag};

/// Rounds of a state change that is lost to an earlier attempt of our own.
const ROUNDS: u32 = 8;

/// What the owners of one claim share.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) folder: PartitionFolder,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    epoch: Epoch,
    holder: String,
    /// The newest epoch above ours that anybody met; 0 while ours is the newest.
    newer: AtomicU64,
    /// The highest slot a PUT was sent for.
    issued: AtomicU64,
    /// The newest version of the state that carries our epoch.
    known: Mutex<(u64, Tag)>,
    /// The records above `applied`: what a checkpoint must know of them.
    marks: Mutex<VecDeque<Mark>>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    slot: Slot,
    link: Link,
    fence: bool,
}

impl Held {
    pub(super) fn new(folder: &PartitionFolder, state: &Versioned<State>) -> Self {
        let shared = Shared {
            epoch: state.value.epoch,
            holder: state.value.holder.clone(),
            newer: AtomicU64::new(0),
            issued: AtomicU64::new(0),
            known: Mutex::new((state.change, state.tag.clone())),
            marks: Mutex::new(VecDeque::new()),
        };
        Self {
            folder: folder.clone(),
            shared: Arc::new(shared),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// The epoch that replaced ours, once anybody met it.
    pub(super) fn newer(&self) -> Option<Epoch> {
        match self.shared.newer.load(Ordering::SeqCst) {
            0 => None,
            newer => Some(Epoch(newer)),
        }
    }

    pub(super) fn fenced_by(&self, newer: Epoch) -> StoreError {
        self.shared.newer.fetch_max(newer.0, Ordering::SeqCst);
        StoreError::Fenced {
            path: self.folder.state_path(),
            ours: self.epoch().0,
            theirs: self.shared.newer.load(Ordering::SeqCst),
        }
    }

    /// Before the PUT: from here on others may find the record in the bucket.
    pub(super) fn issue(&self, slot: Slot) {
        self.shared.issued.fetch_max(slot.0, Ordering::SeqCst);
    }

    pub(super) fn check(&self) -> Result<()> {
        self.newer().map_or(Ok(()), |newer| Err(self.fenced_by(newer)))
    }

    /// Remembers a record of the tail until a checkpoint covers it.
    pub(super) fn note(&self, record: &Trailer) {
        let mark = Mark {
            slot: record.slot,
            link: record.link(),
            fence: record.kind == Kind::Fence,
        };
        self.shared.marks.lock().push_back(mark);
    }

    /// Whether the state that was read still carries our claim.
    fn judge(&self, state: &State) -> Result<()> {
        state.check().map_err(|reason| self.corrupt(reason))?;
        if state.epoch > self.epoch() {
            return Err(self.fenced_by(state.epoch));
        }
        if state.epoch < self.epoch() || state.holder != self.shared.holder {
            let reason = format!(
                "epoch {} of {} is there, {} was claimed",
                state.epoch,
                state.holder,
                self.epoch()
            );
            return Err(self.corrupt(reason));
        }
        Ok(())
    }

    fn corrupt(&self, reason: String) -> StoreError {
        StoreError::Corrupt {
            path: self.folder.state_path(),
            reason,
        }
    }

    fn learn(&self, state: &Versioned<State>) {
        let mut known = self.shared.known.lock();
        if state.change > known.0 {
            *known = (state.change, state.tag.clone());
        }
    }

    fn known_tag(&self) -> Tag {
        self.shared.known.lock().1.clone()
    }
}

/// Tells whether this claim is still the newest: the `verified` read barrier, and the step
/// *validate* of a takeover.
#[derive(Clone, Debug)]
pub struct Barrier {
    held: Held,
    cas: Cas<State>,
}

impl Barrier {
    pub(super) fn new(held: Held, cas: Cas<State>) -> Self {
        Self { held, cas }
    }

    /// The highest slot a PUT was sent for under this claim; 0 before the first.
    ///
    /// Somebody who reads the bucket (`read_verified`) may see a record before its own
    /// writer knows that it landed.  Where both kinds of reading are mixed, a reader here
    /// asks for this slot first, then for `check`, and answers once the view has reached
    /// it; otherwise a later read could show less than an earlier one.
    pub fn issued(&self) -> Slot {
        Slot(self.held.shared.issued.load(Ordering::SeqCst))
    }

    /// Ends well when, at some moment since the call began, no newer epoch was claimed:
    /// nobody else can have acknowledged anything by then.  One HEAD, and one GET after
    /// the state changed.
    pub async fn check(&self) -> Result<()> {
        self.held.check()?;
        if self.cas.is_still(&self.held.known_tag()).await? {
            return Ok(());
        }
        let gone = || self.held.corrupt("it is gone".into());
        let now = self.cas.load().await?.ok_or_else(gone)?;
        self.held.judge(&now.value)?;
        if now.value.status == Status::Sealed {
            return Err(StoreError::Sealed {
                path: self.cas.path().clone(),
            });
        }
        self.held.learn(&now);
        Ok(())
    }

    /// A suspicion is worth something only while the epoch is ours: a newer holder's GC
    /// makes holes, and what stale claimants leave in them fits nothing.
    pub async fn confirm(&self, suspicion: StoreError) -> StoreError {
        self.check().await.err().unwrap_or(suspicion)
    }
}

/// The right to change the state, for one task.
#[derive(Debug)]
pub struct Claim {
    pub(super) held: Held,
    cas: Cas<State>,
    state: Versioned<State>,
    /// DATA objects up to here are deleted; the state learns of it at the next checkpoint.
    pub(super) collected: Slot,
}

impl Claim {
    pub(super) fn new(held: Held, cas: Cas<State>, state: Versioned<State>) -> Self {
        let collected = state.value.collected;
        Self {
            held,
            cas,
            state,
            collected,
        }
    }

    /// The state as it was last written or read under this claim.
    pub fn state(&self) -> &State {
        &self.state.value
    }

    pub fn epoch(&self) -> Epoch {
        self.held.epoch()
    }

    /// The epoch that replaced ours, once any owner of this claim met it.
    pub fn fenced_by(&self) -> Option<Epoch> {
        self.held.newer()
    }

    /// Changes `applied`, `next_seq`, `base` and `idem` in one step; what else `edit`
    /// touches is put back.  One PUT.
    ///
    /// `edit` runs again on the newer state when an earlier attempt whose outcome was
    /// unknown turns out to have landed.  After `Unknown` either state may be the one that
    /// counts, so whatever either of them names must stay.
    pub async fn checkpoint(&mut self, mut edit: impl FnMut(&mut State) -> Result<()>) -> Result<&State> {
        self.change(|claim, state| {
            let mut next = state.clone();
            edit(&mut next)?;
            claim.bound(state, next)
        })
        .await?;
        self.forget_applied();
        Ok(&self.state.value)
    }

    /// Ends the partition for ever.  The log is taken along: nothing is appended after.
    pub async fn seal(mut self, log: Log) -> Result<()> {
        drop(log);
        self.change(|_, state| Ok(state.sealed())).await
    }

    /// Hands the partition back, so that the next claim needs no fence.  Only for a log
    /// with nothing on its way; both owners are used up, whatever the outcome.
    pub async fn release(mut self, log: Log) -> Result<()> {
        if !log.is_settled() && !deviation::active(Deviation::HandBackInDoubt) {
            return Err(StoreError::Unknown {
                path: log.folder().slot_path(log.tip().next()),
            });
        }
        let (tip, next_seq) = (log.tip(), log.next_seq());
        self.change(|_, state| Ok(state.released_at(tip, next_seq))).await
    }

    async fn change(&mut self, mut make: impl FnMut(&Self, &State) -> Result<State>) -> Result<()> {
        self.held.check()?;
        for _ in 0..ROUNDS {
            let next = make(self, &self.state.value)?;
            let path = self.cas.path();
            self.state
                .value
                .may_become(&next)
                .map_err(|reason| StoreError::Broken {
                    path: path.clone(),
                    reason,
                })?;
            match self.cas.replace(&self.state, next).await? {
                Swap::Landed(now) => {
                    self.adopt(now)?;
                    return Ok(());
                }
                Swap::Lost(now) => self.adopt(now)?,
                Swap::Unknown => return Err(self.unknown().await),
            }
        }
        Err(StoreError::Conflict {
            path: self.cas.path().clone(),
        })
    }

    /// Of a holder that slept through more changes than an envelope names, not even the
    /// loss is certain; that it is fenced is.
    async fn unknown(&self) -> StoreError {
        let path = self.cas.path().clone();
        match self.cas.load().await {
            Ok(Some(now)) => self
                .held
                .judge(&now.value)
                .err()
                .unwrap_or(StoreError::Unknown { path }),
            Ok(None) | Err(_) => StoreError::Unknown { path },
        }
    }

    /// Goes on from a state that was just read, if it is still ours.
    fn adopt(&mut self, now: Versioned<State>) -> Result<()> {
        self.held.judge(&now.value)?;
        // The barrier keeps to a tag that is gone, so that its readers learn of the seal.
        if now.value.status == Status::Open {
            self.held.learn(&now);
        }
        self.state = now;
        Ok(())
    }

    /// `next` with the fields that follow from the log.
    fn bound(&self, state: &State, next: State) -> Result<State> {
        let marks = self.held.shared.marks.lock();
        let anchor = if next.applied == state.applied {
            state.anchor
        } else {
            let mark = marks.iter().find(|mark| mark.slot == next.applied);
            let reason = || format!("slot {} was never logged under this claim", next.applied);
            let path = || self.cas.path().clone();
            mark.ok_or_else(|| StoreError::Broken {
                path: path(),
                reason: reason(),
            })?
            .link
        };
        let newly = marks
            .iter()
            .filter(|m| m.fence && m.slot > state.applied && m.slot <= next.applied);
        let mut fences: Vec<Slot> = state
            .fences
            .iter()
            .copied()
            .chain(newly.map(|m| m.slot))
            .collect();
        let mut collected = self.collected.max(state.collected);
        if let Some(excess) = fences.len().checked_sub(MAX_FENCES).filter(|excess| *excess > 0) {
            // GC was kept from working for that long: what it would find is left to the sweep.
            collected = collected.max(fences[excess - 1]);
        }
        fences.retain(|fence| *fence > collected);
        Ok(State {
            applied: next.applied,
            next_seq: next.next_seq,
            base: next.base,
            idem: next.idem,
            anchor,
            collected,
            fences,
            ..state.clone()
        })
    }

    fn forget_applied(&mut self) {
        let applied = self.state.value.applied;
        let mut marks = self.held.shared.marks.lock();
        while marks.front().is_some_and(|mark| mark.slot <= applied) {
            marks.pop_front();
        }
    }
}
