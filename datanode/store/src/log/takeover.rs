//! Taking a partition over: claim, fence, validate, and hand out what the claim is worth.
//!
//! 1. **Claim**: the state's epoch rises by one, by compare-and-swap.  From here on no
//!    lower epoch can write the state.
//! 2. **Fence**: the log is read from `applied + 1`, and a FENCE is created in the first
//!    free slot.  Every lower epoch collides there, or at a slot before it, and stops.
//!    What it had landed by then lies before the fence and is replayed.
//! 3. **Validate**: the state must still be ours.  A newer holder may have collected slots
//!    since our claim, and our fence may have gone into such a hole.
//!
//! After a holder that handed the partition back, nothing is in flight and the last slot
//! is known: step 2 shrinks to reading the records up to it.
//!
//! A takeover that stops anywhere leaves a claimed epoch and perhaps a fence: both only
//! make the next one read one object more.

use rhumb_core::{Epoch, Slot};

use super::PartitionFolder;
use super::append::Log;
use super::chain::{Chain, Verdict};
use super::claim::{Barrier, Claim, Held};
use super::record::{Kind, Record, Trailer};
use super::tail::{Found, Replay, Tail};
use crate::cas::{Cas, Swap, Versioned};
use crate::deviation::{self, Deviation};
use crate::state::{State, Status};
use crate::{Outcome, Result, StoreError};

/// Writers that may come between reading the state and claiming it.
const CLAIMS: u32 = 64;
/// Slots that a live predecessor may take before our fence finds a free one.
const CHASE: u32 = 4_096;
/// Repetitions of the fence's PUT while its outcome is unknown.
const FENCE_TRIES: u32 = 4;

/// What a claim is worth.
#[derive(Debug)]
pub struct Takeover {
    /// For the one task that appends.
    pub log: Log,
    /// For the one task that maintains the state, which it holds.
    pub claim: Claim,
    /// For everybody who reads.
    pub barrier: Barrier,
    /// What the base does not have yet, in order.  If it ends with an error, ask
    /// `Barrier::confirm` whether to believe it.
    pub tail: Replay,
    /// Objects above `applied`, fences included: what the next takeover would read.
    pub tail_slots: u64,
}

/// Takes the partition over for `holder`, whoever holds it now.  From a clean hand-back:
/// one GET, one PUT, and a GET per record.  Otherwise also a window of misses, the PUT of
/// the fence and a HEAD.
///
/// `Fenced` when somebody newer came meanwhile, `Sealed` when the partition has ended,
/// `Unknown` when the store left a step in doubt: then a new takeover settles it.
pub async fn takeover(folder: &PartitionFolder, holder: &str) -> Result<Takeover> {
    take(folder, holder, Whom::Anybody).await
}

/// As `takeover`, but only what nobody holds: for whoever cannot tell whether it should
/// still lead.  `Superseded` when somebody else has it.
pub async fn takeover_if_free(folder: &PartitionFolder, holder: &str) -> Result<Takeover> {
    take(folder, holder, Whom::Nobody).await
}

/// Whom a partition may be taken from.
#[derive(Clone, Copy, PartialEq)]
enum Whom {
    Anybody,
    Nobody,
}

async fn take(folder: &PartitionFolder, holder: &str, whom: Whom) -> Result<Takeover> {
    let cas = Cas::<State>::new(folder.bucket().clone(), folder.state_path());
    let (state, handed_back) = claim(folder, &cas, holder, whom).await?;
    let held = Held::new(folder, &state);
    let barrier = Barrier::new(held.clone(), cas.clone());
    let mut scan = Scan {
        chain: Chain::after(state.value.applied, state.value.anchor, Some(state.value.epoch)),
        tail: Tail::read_from(folder, state.value.applied.next()),
        held: held.clone(),
        live: Vec::new(),
    };
    let scanned = match handed_back {
        Some(tip) => scan.read_to(tip).await,
        None => scan.fence().await,
    };
    if let Err(e) = scanned {
        return Err(barrier.confirm(e).await);
    }
    let tail_slots = scan.chain.next.0 - state.value.applied.next().0;
    // Nothing read and nothing fenced: then there is nothing that a hole could have spoilt.
    if tail_slots > 0 && !deviation::active(Deviation::NoValidate) {
        barrier.check().await?;
    }
    let next_seq = state.value.next_seq.max(scan.chain.next_seq);
    Ok(Takeover {
        tail_slots,
        log: Log::new(held.clone(), &scan.chain, next_seq),
        tail: Replay::of(folder, scan.live),
        claim: Claim::new(held, cas, state),
        barrier,
    })
}

/// The state under a new epoch, and the last slot when the one before was handed back.
async fn claim(
    folder: &PartitionFolder,
    cas: &Cas<State>,
    holder: &str,
    whom: Whom,
) -> Result<(Versioned<State>, Option<Slot>)> {
    let path = || cas.path().clone();
    let mut current = folder.state(cas).await?;
    for _ in 0..CLAIMS {
        let (epoch, handed_back, swap) = match &current {
            None => (Epoch(1), Some(Slot(0)), cas.create(State::born(holder)).await?),
            Some(from) if whom == Whom::Nobody && is_held_by_another(&from.value, holder) => {
                return Err(StoreError::Superseded { path: path() });
            }
            Some(from) => {
                let next = claimed(from, holder, cas)?;
                (next.epoch, from.value.released, cas.replace(from, next).await?)
            }
        };
        match swap {
            Swap::Landed(now) if now.value.epoch == epoch => return Ok((now, handed_back)),
            Swap::Landed(now) => {
                let theirs = now.value.epoch.0;
                return Err(StoreError::Fenced {
                    path: path(),
                    ours: epoch.0,
                    theirs,
                });
            }
            Swap::Lost(now) => current = Some(now),
            Swap::Unknown => return Err(StoreError::Unknown { path: path() }),
        }
    }
    Err(StoreError::Conflict { path: path() })
}

fn is_held_by_another(state: &State, holder: &str) -> bool {
    state.released.is_none() && state.holder != holder
}

fn claimed(from: &Versioned<State>, holder: &str, cas: &Cas<State>) -> Result<State> {
    let path = || cas.path().clone();
    from.value
        .check()
        .map_err(|reason| StoreError::Corrupt { path: path(), reason })?;
    if from.value.status == Status::Sealed {
        return Err(StoreError::Sealed { path: path() });
    }
    let used_up = || StoreError::Broken {
        path: path(),
        reason: "no epoch is left".into(),
    };
    let next = from.value.claimed_by(holder).ok_or_else(used_up)?;
    from.value
        .may_become(&next)
        .map_err(|reason| StoreError::Broken { path: path(), reason })?;
    Ok(next)
}

/// The walk over the tail that a takeover makes.
struct Scan {
    chain: Chain,
    tail: Tail,
    held: Held,
    live: Vec<Found>,
}

impl Scan {
    /// After a hand-back: everything up to `tip` must be there, and nothing else is.
    async fn read_to(&mut self, tip: Slot) -> Result<()> {
        self.tail = Tail::read_from(&self.held.folder, self.chain.next).until(tip);
        while let Some(found) = self.tail.next().await? {
            if self.keep(found)? {
                return Err(self.corrupt(tip, "a record carries the epoch that was only just claimed"));
            }
        }
        if self.chain.next <= tip {
            return Err(self.corrupt(
                self.chain.next,
                "it is missing below the slot that was handed back",
            ));
        }
        Ok(())
    }

    /// Reads to the end and puts a fence there.
    async fn fence(&mut self) -> Result<()> {
        let mut fence: Option<Trailer> = None;
        for _ in 0..CHASE {
            while let Some(found) = self.tail.next().await? {
                let trailer = found.trailer.clone();
                if self.keep(found)? {
                    return self.must_be_ours(&trailer, fence.as_ref());
                }
            }
            if deviation::active(Deviation::NoFence) {
                return Ok(());
            }
            // The same PUT again while the slot is the same: an earlier one may be under way.
            let ours = match fence.take() {
                Some(earlier) if earlier.slot == self.chain.next => earlier,
                _ => self.fence_here(),
            };
            if self.put(&ours).await? {
                return Ok(());
            }
            fence = Some(ours);
        }
        Err(StoreError::Conflict {
            path: self.held.folder.slot_path(self.chain.next),
        })
    }

    /// True once the fence is known to be in its slot, false when something else may be.
    async fn put(&mut self, fence: &Trailer) -> Result<bool> {
        let path = self.held.folder.slot_path(fence.slot);
        let object = Record {
            trailer: fence.clone(),
            body: Default::default(),
        }
        .encode();
        for _ in 0..FENCE_TRIES {
            match self
                .held
                .folder
                .bucket()
                .create(&path, object.clone(), &fence.put_id)
                .await?
            {
                Outcome::Landed(_) => {
                    self.step(fence)?;
                    return Ok(true);
                }
                Outcome::Lost => return Ok(false),
                Outcome::Unknown => {}
            }
        }
        Err(StoreError::Unknown { path })
    }

    fn fence_here(&self) -> Trailer {
        Trailer {
            partition: self.held.folder.id(),
            epoch: self.held.epoch(),
            slot: self.chain.next,
            prev: self.chain.prev,
            next_seq: self.chain.next_seq,
            body_len: 0,
            body_crc: 0,
            put_id: self.held.folder.bucket().mint_put_id(),
            kind: Kind::Fence,
        }
    }

    /// Takes a record in; true when it carries our own epoch.
    fn keep(&mut self, found: Found) -> Result<bool> {
        let verdict = self.step(&found.trailer)?;
        if verdict == Verdict::Live && found.trailer.kind == Kind::Data {
            self.live.push(found);
        }
        Ok(verdict == Verdict::Own)
    }

    /// Steps over a record and remembers it for checkpoints, a void one too.
    fn step(&mut self, record: &Trailer) -> Result<Verdict> {
        let verdict = self
            .chain
            .step(record)
            .map_err(|reason| self.corrupt(record.slot, &reason))?;
        if let Verdict::Newer(epoch) = verdict {
            return Err(self.held.fenced_by(epoch));
        }
        self.held.note(record);
        Ok(verdict)
    }

    fn must_be_ours(&self, found: &Trailer, fence: Option<&Trailer>) -> Result<()> {
        if fence == Some(found) {
            return Ok(());
        }
        Err(StoreError::Broken {
            path: self.held.folder.slot_path(found.slot),
            reason: format!(
                "put-id {} writes under epoch {}, which is ours",
                found.put_id, found.epoch
            ),
        })
    }

    fn corrupt(&self, slot: Slot, reason: &str) -> StoreError {
        StoreError::Corrupt {
            path: self.held.folder.slot_path(slot),
            reason: reason.to_owned(),
        }
    }
}
