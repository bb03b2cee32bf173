//! All rows of a view by name, old names included until the key map has learned the new
//! ones.

use std::collections::VecDeque;
use std::sync::Arc;

use rhumb_core::Seq;

use crate::bits::{Bits, LiveBits};
use crate::fresh::{Active, FreshRow, FreshRows, Frozen, FrozenGroup, FrozenGroups, NOWHERE};
use crate::keys::KeyRef;
use crate::rows::{RowRef, SegmentId};
use crate::segment::Segment;
use crate::size::HeapSize;
use crate::snapshot::{FreshGroup, Sealed, Snapshot};

#[derive(Debug)]
pub(super) struct RowSpace {
    /// By id, ascending; shared with snapshots.
    pub(super) sealed: Arc<Vec<Sealed>>,
    /// Oldest first.
    pub(super) frozen: FrozenGroups,
    pub(super) active: Active,
    /// Oldest first, and settled in that order: an old name may lead over several swaps.
    pub(super) forwards: VecDeque<Forward>,
    next_sealed: u32,
    next_fresh: u32,
}

/// Rows that have been renamed while entries of the key map may still carry the old name.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) from: SegmentId,
    pub(super) source: Source,
    pub(super) to: SegmentId,
    /// Old ordinal to new one, or `NOWHERE`.
    pub(super) places: Vec<u32>,
    /// Entries of lower ordinals have been renamed.
    pub(super) settled: u32,
}

/// What the old rows were: the key map needs their keys to find the entries.
#[derive(Debug)]
pub(super) enum Source {
    Fresh(FreshRows),
    Sealed(Arc<Segment>),
}

impl Source {
    pub(super) fn key(&self, ordinal: u32) -> KeyRef<'_> {
        match self {
            Self::Fresh(rows) => KeyRef::of(&rows.row(ordinal).id),
            Self::Sealed(segment) => segment.keys().get(ordinal),
        }
    }
}

impl RowSpace {
    pub(super) fn new() -> Self {
        Self {
            sealed: Arc::new(Vec::new()),
            frozen: FrozenGroups::new(),
            active: Active::new(SegmentId::fresh(0)),
            forwards: VecDeque::new(),
            next_sealed: 0,
            next_fresh: 1,
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let frozen = self
            .frozen
            .iter()
            .map(|group| (group.frozen.id, &group.frozen.rows, &group.live));
        let active = (self.active.id, &self.active.rows, &self.active.live);
        let fresh = frozen.chain([active]).filter(|(_, rows, _)| rows.len() > 0);
        let group = |(id, rows, live): (_, &FreshRows, &LiveBits)| FreshGroup {
            id,
            rows: rows.clone(),
            live: live.clone(),
        };
        Snapshot::new(self.sealed.clone(), fresh.map(group).collect())
    }

    pub(super) fn seal(&mut self, segment: Arc<Segment>, live: &Bits) -> SegmentId {
        let id = SegmentId::sealed(self.next_sealed);
        self.next_sealed += 1;
        let live = LiveBits::from_bits(live);
        Arc::make_mut(&mut self.sealed).push(Sealed { id, segment, live });
        id
    }

    pub(super) fn unseal(&mut self, id: SegmentId) -> Option<Sealed> {
        let at = self.sealed.binary_search_by_key(&id, |sealed| sealed.id).ok()?;
        Some(Arc::make_mut(&mut self.sealed).remove(at))
    }

    pub(super) fn sealed(&self, id: SegmentId) -> Option<&Sealed> {
        let at = self.sealed.binary_search_by_key(&id, |sealed| sealed.id).ok()?;
        Some(&self.sealed[at])
    }

    pub(super) fn freeze(&mut self) -> Option<Arc<Frozen>> {
        if self.active.is_empty() {
            return None;
        }
        let next = Active::new(SegmentId::fresh(self.next_fresh));
        self.next_fresh += 1;
        let closed = std::mem::replace(&mut self.active, next);
        let live = closed.live.clone();
        let frozen = Arc::new(Frozen::new(closed));
        self.frozen.push_back(FrozenGroup {
            frozen: frozen.clone(),
            live,
        });
        Some(frozen)
    }

    /// The key of any name that the key map may hold.
    pub(super) fn key(&self, row: RowRef) -> KeyRef<'_> {
        if let Some(fresh) = self.fresh(row) {
            return KeyRef::of(&fresh.id);
        }
        match self.sealed(row.segment) {
            Some(sealed) => sealed.segment.keys().get(row.ordinal),
            None => {
                let forward = self.forward(row.segment);
                forward
                    .expect("a name leaves the key map before its forward goes")
                    .source
                    .key(row.ordinal)
            }
        }
    }

    fn forward(&self, from: SegmentId) -> Option<&Forward> {
        self.forwards.iter().find(|forward| forward.from == from)
    }

    /// The row's present name, or `None` when it had no place in what replaced it.
    pub(super) fn resolve(&self, row: RowRef) -> Option<RowRef> {
        let mut row = row;
        while let Some(forward) = self.forward(row.segment) {
            let place = forward.places[row.ordinal as usize];
            if place == NOWHERE {
                return None;
            }
            row = RowRef::new(forward.to, place);
        }
        Some(row)
    }

    pub(super) fn fresh(&self, row: RowRef) -> Option<&FreshRow> {
        if !row.segment.is_fresh() {
            return None;
        }
        if row.segment == self.active.id {
            return self.active.rows.get(row.ordinal);
        }
        let group = self.frozen.iter().find(|group| group.frozen.id == row.segment)?;
        group.frozen.rows.get(row.ordinal)
    }

    /// Of a present name.
    pub(super) fn seq(&self, row: RowRef) -> Seq {
        match self.fresh(row) {
            Some(fresh) => fresh.seq,
            None => self
                .sealed(row.segment)
                .expect("a present name")
                .segment
                .seq(row.ordinal),
        }
    }

    /// Kills a row by its present name and notes what the base will have to delete.
    pub(super) fn kill(&mut self, row: RowRef) {
        if row.segment == self.active.id {
            self.active.live.kill(row.ordinal);
            return;
        }
        if let Some(group) = self
            .frozen
            .iter_mut()
            .find(|group| group.frozen.id == row.segment)
        {
            if group.live.kill(row.ordinal) {
                self.active.kills.record(row, 0);
            }
            return;
        }
        let at = self
            .sealed
            .binary_search_by_key(&row.segment, |sealed| sealed.id)
            .expect("a present name");
        let sealed = &mut Arc::make_mut(&mut self.sealed)[at];
        if sealed.live.kill(row.ordinal) {
            self.active.kills.record(row, sealed.segment.fragment());
        }
    }

    /// Gives the rows of `from` new names in every list of kills.  Those that a merge
    /// under way will delete under the old name are deleted once more with the next one.
    pub(super) fn rename_kills(
        &mut self,
        from: SegmentId,
        fragment: u64,
        to: impl Fn(u32) -> Option<RowRef>,
    ) {
        for group in &self.frozen {
            for row in group.frozen.kills().rename(from, fragment, &to) {
                self.active.kills.record(row, fragment);
            }
        }
        self.active.kills.rename(from, fragment, &to);
    }

    pub(super) fn heap_size(&self) -> HeapSize {
        let live = self
            .sealed
            .iter()
            .map(|sealed| sealed.live.heap_size())
            .sum::<usize>();
        let frozen = self
            .frozen
            .iter()
            .map(|group| group.frozen.heap_size())
            .sum::<usize>();
        let active = self.active.bytes + self.active.rows.codes_size();
        HeapSize {
            live,
            fresh: frozen + active,
            ..HeapSize::default()
        }
    }
}
