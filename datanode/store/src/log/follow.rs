//! Reading a partition without claiming it: what a cold partition answers from, and what a
//! follower starts with.
//!
//! The state is read, then the log from there to the first missing slot, then the state
//! again.  If `applied` has moved past the start meanwhile, GC may have made the hole that
//! looked like the tip, so everything is read anew.  A weaker check, that GC did not pass
//! the *end*, is not enough: a stale claimant's fence can fill a collected slot.

use super::PartitionFolder;
use super::chain::{Chain, Verdict};
use super::record::{Kind, Record};
use super::tail::{Replay, Tail};
use crate::cas::{Cas, Versioned};
use crate::state::State;
use crate::{Result, StoreError};

/// Readings that checkpoints may overtake before the reader gives up.
const ROUNDS: u32 = 16;

/// A partition as one moment knew it.
#[derive(Debug)]
pub struct Reading {
    pub state: State,
    /// The DATA records above `state.applied` that count.
    pub tail: Vec<Record>,
    /// Where a follower goes on.
    pub chain: Chain,
}

/// Everything that was acknowledged before the call, and whatever else is in the log by
/// then.  `None` when the partition was never written.  Two GETs of the state, one GET per
/// record, and a window of misses.
pub async fn read_verified(folder: &PartitionFolder) -> Result<Option<Reading>> {
    let cas = Cas::<State>::new(folder.bucket().clone(), folder.state_path());
    for _ in 0..ROUNDS {
        let Some(state) = cas.load().await? else {
            return Ok(None);
        };
        let not_whole = |reason| StoreError::Corrupt {
            path: folder.state_path(),
            reason,
        };
        state.value.check().map_err(not_whole)?;
        let read = read_tail(folder, &state.value).await;
        if moved_on(&cas, &state).await? {
            continue;
        }
        let (tail, chain) = read?;
        return Ok(Some(Reading {
            state: state.value,
            tail,
            chain,
        }));
    }
    Err(StoreError::Conflict {
        path: folder.state_path(),
    })
}

async fn read_tail(folder: &PartitionFolder, state: &State) -> Result<(Vec<Record>, Chain)> {
    let mut chain = Chain::after(state.applied, state.anchor, None);
    let mut tail = Tail::read_from(folder, chain.next);
    let mut live = Vec::new();
    while let Some(found) = tail.next().await? {
        let path = folder.slot_path(found.trailer.slot);
        let verdict = chain
            .step(&found.trailer)
            .map_err(|reason| StoreError::Corrupt { path, reason })?;
        if verdict != Verdict::Void && found.trailer.kind == Kind::Data {
            live.push(found);
        }
    }
    Ok((Replay::of(folder, live).read_all().await?, chain))
}

/// Whether a checkpoint came between.
async fn moved_on(cas: &Cas<State>, start: &Versioned<State>) -> Result<bool> {
    if cas.is_still(&start.tag).await? {
        return Ok(false);
    }
    let now = cas.load().await?.ok_or_else(|| StoreError::NotFound {
        path: cas.path().clone(),
    })?;
    Ok(now.value.applied > start.value.applied)
}
