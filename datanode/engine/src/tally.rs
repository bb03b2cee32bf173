//! What a collection holds over all its partitions, and whether new rows may come to it.
//!
//! Every writer counts the rows of its partition when it judges them, on their way to the
//! log already: whatever happens at the same time, a collection never goes over its quota of
//! rows.  Bytes are those of the base tables, and follow.  A partition that was closed is
//! remembered, since nobody else writes it for as long as this process may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rhumb_core::{Held, Problem, Quota};

pub struct Tally(Mutex<State>);

struct State {
    /// `None` of a partition that was never open here.
    parts: Vec<Option<Held>>,
    /// Rows that writes over several partitions may add and that no writer counts yet.
    kept: u64,
}

/// One partition's part in it.
pub struct Share {
    tally: Arc<Tally>,
    index: usize,
}

/// What a writer is told about room for the rows of a write.
#[derive(Clone)]
pub enum Room {
    /// Nobody asked yet: the writer does.
    Unasked,
    Kept(Arc<Kept>),
    /// There is none.  A repeat of a write that was applied is still answered.
    Full(Problem),
}

/// Rows of one write, until its writers count them; what they do not use is free again when
/// this is dropped.
pub struct Kept {
    tally: Arc<Tally>,
    /// Changed under the tally's lock alone.
    left: AtomicU64,
}

impl Tally {
    pub fn of(partitions: u32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            parts: vec![None; partitions as usize],
            kept: 0,
        })))
    }

    pub fn share(self: &Arc<Self>, index: u32) -> Share {
        Share {
            tally: self.clone(),
            index: index as usize,
        }
    }

    /// Partitions of which nobody knows what they hold.
    pub fn unknown(&self) -> Vec<u32> {
        let state = self.0.lock();
        let parts = (0..).zip(&state.parts);
        parts
            .filter(|(_, part)| part.is_none())
            .map(|(index, _)| index)
            .collect()
    }

    /// Keeps room for `more` rows, or says that there is none.
    pub fn keep(self: &Arc<Self>, more: u64, quota: &Quota) -> Room {
        let mut state = self.0.lock();
        if let Err(problem) = quota.admits(state.held(), more) {
            return Room::Full(problem);
        }
        state.kept += more;
        Room::Kept(Arc::new(Kept {
            tally: self.clone(),
            left: AtomicU64::new(more),
        }))
    }
}

impl State {
    fn held(&self) -> Held {
        let parts = self.parts.iter().flatten();
        parts.fold(
            Held {
                rows: self.kept,
                bytes: 0,
            },
            |sum, part| Held {
                rows: sum.rows + part.rows,
                bytes: sum.bytes + part.bytes,
            },
        )
    }

    fn part(&mut self, index: usize) -> &mut Held {
        self.parts[index].get_or_insert_default()
    }
}

impl Share {
    /// Of the partition.
    pub fn index(&self) -> u32 {
        self.index as u32
    }

    /// What the partition holds as it opens, when nothing is on its way.
    pub fn opened(&self, held: Held) {
        *self.tally.0.lock().part(self.index) = held;
    }

    pub fn base_is(&self, bytes: u64) {
        self.tally.0.lock().part(self.index).bytes = bytes;
    }

    /// Counts rows that come (or go, below 0), unless there is no room for them.
    pub fn grow(&self, growth: i64, quota: &Quota, room: &Room) -> Result<(), Problem> {
        let mut state = self.tally.0.lock();
        if let Ok(more) = u64::try_from(growth) {
            let covered = room.left().min(more);
            quota.admits(state.held(), more - covered)?;
            state.kept -= covered;
            room.take(covered);
        }
        let part = state.part(self.index);
        part.rows = part.rows.saturating_add_signed(growth);
        Ok(())
    }

    /// What was counted did not come about.
    pub fn take_back(&self, growth: i64) {
        let mut state = self.tally.0.lock();
        let part = state.part(self.index);
        part.rows = part.rows.saturating_add_signed(growth.saturating_neg());
    }
}

impl Room {
    fn left(&self) -> u64 {
        match self {
            Self::Kept(kept) => kept.left.load(Ordering::Relaxed),
            Self::Unasked | Self::Full(_) => 0,
        }
    }

    fn take(&self, rows: u64) {
        if let Self::Kept(kept) = self {
            kept.left.fetch_sub(rows, Ordering::Relaxed);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tally.0.lock().kept -= *self.left.get_mut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten() -> Quota {
        Quota {
            rows: Some(10),
            bytes: None,
        }
    }

    fn two_of(rows: [u64; 2]) -> (Arc<Tally>, [Share; 2]) {
        let tally = Tally::of(2);
        let shares = [tally.share(0), tally.share(1)];
        for (share, rows) in shares.iter().zip(rows) {
            share.opened(Held { rows, bytes: 0 });
        }
        (tally, shares)
    }

    fn rows(tally: &Tally) -> u64 {
        tally.0.lock().held().rows
    }

    #[test]
    fn partitions_share_one_quota() {
        let (tally, [a, b]) = two_of([3, 4]);
        assert!(a.grow(4, &ten(), &Room::Unasked).is_err());
        assert_eq!(rows(&tally), 7, "what is refused counts nothing");
        assert!(a.grow(3, &ten(), &Room::Unasked).is_ok());
        assert!(b.grow(1, &ten(), &Room::Unasked).is_err());
        assert!(b.grow(0, &ten(), &Room::Unasked).is_ok());
        assert!(b.grow(-1, &ten(), &Room::Unasked).is_ok());
        assert!(a.grow(1, &ten(), &Room::Unasked).is_ok());
        a.take_back(1);
        assert_eq!(rows(&tally), 9);
    }

    #[test]
    fn room_that_is_kept_is_for_its_write_alone_and_comes_back() {
        let (tally, [a, b]) = two_of([3, 3]);
        let room = tally.keep(4, &ten());
        assert!(a.grow(1, &ten(), &Room::Unasked).is_err());
        assert!(matches!(tally.keep(1, &ten()), Room::Full(_)));
        assert!(a.grow(1, &ten(), &room).is_ok());
        assert!(b.grow(2, &ten(), &room.clone()).is_ok());
        assert_eq!(rows(&tally), 10, "counted once, kept or not");
        drop(room);
        assert_eq!(rows(&tally), 9, "its write added fewer than it might have");
        assert!(a.grow(1, &ten(), &Room::Unasked).is_ok());
    }

    #[test]
    fn a_write_that_adds_more_than_was_kept_is_judged_for_the_rest() {
        let (tally, [a, _]) = two_of([4, 4]);
        let room = tally.keep(1, &ten());
        assert!(a.grow(3, &ten(), &room).is_err());
        assert!(a.grow(2, &ten(), &room).is_ok());
        assert_eq!(rows(&tally), 10);
    }

    #[test]
    fn bytes_of_all_base_tables_count() {
        let (tally, [a, b]) = two_of([0, 0]);
        let quota = Quota {
            rows: None,
            bytes: Some(100),
        };
        a.base_is(60);
        assert!(b.grow(1, &quota, &Room::Unasked).is_ok());
        b.base_is(40);
        assert!(a.grow(1, &quota, &Room::Unasked).is_err());
        assert!(matches!(tally.keep(1, &quota), Room::Full(_)));
        assert!(a.grow(-1, &quota, &Room::Unasked).is_ok());
    }

    #[test]
    fn a_partition_is_known_once_it_was_open() {
        let tally = Tally::of(3);
        assert_eq!(tally.unknown(), [0, 1, 2]);
        tally.share(1).opened(Held::default());
        assert_eq!(tally.unknown(), [0, 2]);
    }
}
