//! Reading a partition without claiming it: what a cold partition answers from, and how a
//! follower starts and goes on.
//!
//! The state is read, then the log from there to the first missing slot, then the state
//! again.  If `applied` has moved past the start meanwhile, GC may have made the hole that
//! looked like the tip, so everything is read anew.  A weaker check, that GC did not pass
//! the *end*, is not enough: a stale claimant's fence can fill a collected slot.

use rhumb_core::Slot;

use super::PartitionFolder;
use super::chain::{Chain, Verdict};
use super::record::{Kind, Record};
use super::tail::{Found, Replay, Tail};
use crate::cas::{Cas, Versioned};
use crate::state::{State, Status};
use crate::{Result, StoreError};

/// Readings that checkpoints may overtake before the reader gives up.
const ROUNDS: u32 = 16;

/// A partition as one moment knew it.
pub struct Reading {
    pub state: State,
    /// The DATA records above `state.applied` that count.
    pub tail: Vec<Record>,
    /// Goes on from there.
    pub follower: Follower,
}

/// Reads on in a log that others write.
pub struct Follower {
    folder: PartitionFolder,
    cas: Cas<State>,
    /// `None` while nothing was ever written.
    state: Option<Versioned<State>>,
    tail: Tail,
    chain: Chain,
}

/// What came since the last look.
#[derive(Debug)]
pub enum News {
    /// More records of the log, in order; often none.
    Records(Vec<Record>),
    /// Another base, or a log that was collected past us: the partition is to be read anew.
    Moved,
    /// Nothing is written there any more.
    Ended,
}

/// Everything that was acknowledged before the call, and whatever else is in the log by
/// then.  `None` when the partition was never written.  Two GETs of the state, one GET per
/// record, and a window of misses.
pub async fn read_verified(folder: &PartitionFolder) -> Result<Option<Reading>> {
    let cas = Cas::<State>::new(folder.bucket().clone(), folder.state_path());
    for _ in 0..ROUNDS {
        let Some(state) = folder.state(&cas).await? else {
            return Ok(None);
        };
        let not_whole = |reason| StoreError::Corrupt {
            path: folder.state_path(),
            reason,
        };
        state.value.check().map_err(not_whole)?;
        let mut chain = Chain::after(state.value.applied, state.value.anchor, None);
        let mut tail = Tail::read_from(folder, chain.next);
        let read = read_on(folder, &mut tail, &mut chain).await;
        if moved_on(&cas, &state).await? {
            continue;
        }
        return Ok(Some(Reading {
            state: state.value.clone(),
            tail: read?,
            follower: Follower {
                folder: folder.clone(),
                cas,
                state: Some(state),
                tail,
                chain,
            },
        }));
    }
    Err(StoreError::Conflict {
        path: folder.state_path(),
    })
}

/// The records that count up to the first slot that is missing.
async fn read_on(folder: &PartitionFolder, tail: &mut Tail, chain: &mut Chain) -> Result<Vec<Record>> {
    let mut live = Vec::new();
    while let Some(found) = tail.next().await? {
        if counts(folder, chain, &found)? {
            live.push(found);
        }
    }
    Replay::of(folder, live).read_all().await
}

fn counts(folder: &PartitionFolder, chain: &mut Chain, found: &Found) -> Result<bool> {
    let path = folder.slot_path(found.trailer.slot);
    let verdict = chain.step(&found.trailer);
    let verdict = verdict.map_err(|reason| StoreError::Corrupt { path, reason })?;
    Ok(verdict != Verdict::Void && found.trailer.kind == Kind::Data)
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

impl Follower {
    /// Of a partition that nobody has written yet.
    pub fn of_nothing(folder: &PartitionFolder) -> Self {
        let born = State::born("");
        let chain = Chain::after(born.applied, born.anchor, None);
        Self {
            folder: folder.clone(),
            cas: Cas::new(folder.bucket().clone(), folder.state_path()),
            state: None,
            tail: Tail::read_from(folder, chain.next),
            chain,
        }
    }

    /// The slot that the next record is expected in.
    pub fn next(&self) -> Slot {
        self.chain.next
    }

    /// A HEAD of the state, a GET per record and a miss.  After an error nothing has changed.
    pub async fn news(&mut self) -> Result<News> {
        if let Some(news) = self.look_at_state().await? {
            return Ok(news);
        }
        // Only on a copy: what is read between a checkpoint and its GC may not link up.
        let mut chain = self.chain.clone();
        match read_on(&self.folder, &mut self.tail, &mut chain).await {
            Ok(records) => {
                self.chain = chain;
                Ok(News::Records(records))
            }
            Err(error) => {
                self.tail = Tail::read_from(&self.folder, self.chain.next);
                self.look_at_state().await?.ok_or(error)
            }
        }
    }

    async fn look_at_state(&mut self) -> Result<Option<News>> {
        let Some(state) = &self.state else {
            let nothing = News::Records(Vec::new());
            let is_there = self.cas.load().await?.is_some();
            return Ok(Some(if is_there { News::Moved } else { nothing }));
        };
        if self.cas.is_still(&state.tag).await? {
            return Ok(None);
        }
        let Some(now) = self.cas.load().await? else {
            return Ok(Some(News::Ended));
        };
        let (was, is) = (&state.value, &now.value);
        if is.status == Status::Sealed {
            return Ok(Some(News::Ended));
        }
        if is.base != was.base || is.applied >= self.chain.next {
            return Ok(Some(News::Moved));
        }
        self.state = Some(now);
        Ok(None)
    }
}
