//! Swaps: a frozen group becomes a segment, segments become one.
//!
//! What is long (checking keys, turning tables round) happens before the lock, and what
//! only saves time (telling the key map the new names) after it, in slices; between the
//! two, old names are forwarded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bits::{Bits, LiveBits};
use crate::error::ViewError;
use crate::fresh::{Frozen, NOWHERE};
use crate::keys::KeyRef;
use crate::rows::{RowRef, SegmentId};
use crate::segment::Segment;
use crate::snapshot::{Sealed, Snapshot};

use super::space::{Forward, RowSpace, Source};
use super::{State, View};

/// Entries renamed under one lock: some hundred microseconds.
const SLICE: u32 = 2_048;

/// A change of names that has been checked and only waits for its moment.
pub struct Swap {
    plan: Plan,
}

enum Plan {
    Freeze(Completion),
    Segments(Replacement),
}

impl Swap {
    /// See [`View::complete_freeze`].  O(rows), takes no lock.
    pub fn freeze(frozen: &Arc<Frozen>, segment: Option<Segment>) -> Result<Self, ViewError> {
        check_rows_of(frozen, segment.as_ref())?;
        let places = frozen.new_places().to_vec();
        Ok(Self {
            plan: Plan::Freeze(Completion {
                frozen: frozen.clone(),
                segment,
                places,
            }),
        })
    }

    /// See [`View::replace_segments`].  O(rows), takes no lock; `before` is any snapshot
    /// that has the old segments.
    pub fn segments(
        before: Arc<Snapshot>,
        old: &[SegmentId],
        new: Option<Segment>,
        mapping: &[RowRef],
    ) -> Result<Self, ViewError> {
        Ok(Self {
            plan: Plan::Segments(Replacement::plan(before, old, new, mapping)?),
        })
    }
}

impl View {
    /// The base holds the frozen group now: `segment` is the fragment with its
    /// `live_rows` in their order, `None` when there were none, and `killed` is deleted.
    /// What was killed since the freeze stays dead and is left to the next group.
    pub fn complete_freeze(
        &self,
        frozen: &Arc<Frozen>,
        segment: Option<Segment>,
    ) -> Result<Option<SegmentId>, ViewError> {
        let sealed_as = self.swap(Swap::freeze(frozen, segment)?)?;
        self.settle();
        Ok(sealed_as)
    }

    /// Compaction: `new` takes the place of `old`, and `mapping` says which old row each
    /// of its rows was.  Every row of `old` that is alive must be in it.  A row that died
    /// since the compaction read it is dead in `new` too, and the base will be told.
    pub fn replace_segments(
        &self,
        old: &[SegmentId],
        new: Option<Segment>,
        mapping: &[RowRef],
    ) -> Result<Option<SegmentId>, ViewError> {
        let sealed_as = self.swap(Swap::segments(self.snapshot(), old, new, mapping)?)?;
        self.settle();
        Ok(sealed_as)
    }

    /// The moment of a swap alone: O(rows killed since it was prepared), for a caller that
    /// must change something else at the same moment.  `settle` is due after it.
    pub fn swap(&self, swap: Swap) -> Result<Option<SegmentId>, ViewError> {
        let mut state = self.state.write();
        let sealed_as = match swap.plan {
            Plan::Freeze(completion) => completion.execute(&mut state.rows)?,
            Plan::Segments(replacement) => replacement.execute(&mut state.rows)?,
        };
        self.publish(&mut state);
        Ok(sealed_as)
    }

    /// Tells the key map the names that swaps have changed, in slices between which others
    /// get the lock, and lets go of what was swapped out.  Lookups are right before it,
    /// only slower.
    pub fn settle(&self) {
        while self.settle_slice(SLICE) {}
    }

    /// False when no entry is left to rename.
    pub(super) fn settle_slice(&self, slice: u32) -> bool {
        self.state.write().settle_slice(slice)
    }
}

impl State {
    fn settle_slice(&mut self, slice: u32) -> bool {
        let Some(forward) = self.rows.forwards.front() else {
            return false;
        };
        let from = forward.from;
        let rows = forward.places.len() as u32;
        let (start, end) = (forward.settled, rows.min(forward.settled.saturating_add(slice)));
        for ordinal in start..end {
            let old = RowRef::new(from, ordinal);
            let hash = forward.source.key(ordinal).hash64();
            match self.rows.resolve(old) {
                Some(new) => {
                    self.keys.repoint(hash, old, new);
                }
                // A deletion that the base has now carried out, or a row dead long since.
                None => self.keys.remove(hash, old),
            }
        }
        match self.rows.forwards.front_mut() {
            Some(forward) if end < rows => forward.settled = end,
            _ => {
                self.rows.forwards.pop_front();
            }
        }
        !self.rows.forwards.is_empty()
    }
}

struct Completion {
    frozen: Arc<Frozen>,
    segment: Option<Segment>,
    /// Frozen ordinal to ordinal in the segment, or `NOWHERE`.
    places: Vec<u32>,
}

impl Completion {
    fn execute(self, rows: &mut RowSpace) -> Result<Option<SegmentId>, ViewError> {
        let Self {
            frozen,
            segment,
            places,
        } = self;
        let Some(group) = rows
            .frozen
            .pop_front_if(|group| Arc::ptr_eq(&group.frozen, &frozen))
        else {
            return Err(ViewError::NotOldestFrozen(frozen.id));
        };
        let sealed_as = segment.map(|segment| {
            let (fragment, all) = (segment.fragment(), Bits::all(segment.len() as usize));
            let id = rows.seal(Arc::new(segment), &all);
            let killed = group.live.killed_since(frozen.live_at_freeze());
            rows.kill_silently(id, killed.map(|old| places[old as usize]));
            rows.rename_kills(frozen.id, fragment, |old| {
                Some(RowRef::new(id, places[old as usize]))
            });
            id
        });
        let source = Source::Fresh(frozen.rows.clone());
        let to = sealed_as.unwrap_or(frozen.id);
        rows.forwards.push_back(Forward {
            from: frozen.id,
            source,
            to,
            places,
            settled: 0,
        });
        Ok(sealed_as)
    }
}

struct Replacement {
    before: Arc<Snapshot>,
    new: Option<Segment>,
    live: Bits,
    /// Per old segment: old ordinal to new one, or `NOWHERE`.
    places: BTreeMap<SegmentId, Vec<u32>>,
}

impl Replacement {
    fn plan(
        before: Arc<Snapshot>,
        old: &[SegmentId],
        new: Option<Segment>,
        mapping: &[RowRef],
    ) -> Result<Self, ViewError> {
        let rows = new.as_ref().map_or(0, Segment::len) as usize;
        if rows != mapping.len() {
            let (expected, found) = (rows as u64, mapping.len() as u64);
            return Err(ViewError::RowCount {
                what: "mapping",
                expected,
                found,
            });
        }
        let mut places = BTreeMap::new();
        for &id in old {
            let sealed = before.segment(id).ok_or(ViewError::UnknownSegment(id))?;
            places.insert(id, vec![NOWHERE; sealed.segment.len() as usize]);
        }
        let mut live = Bits::none(rows);
        for (ordinal, &row) in (0..).zip(mapping) {
            let places = places.get_mut(&row.segment);
            match places.and_then(|places| places.get_mut(row.ordinal as usize)) {
                Some(place) if *place == NOWHERE => *place = ordinal,
                _ => return Err(ViewError::BadMapping(row)),
            }
            let sealed = before
                .segment(row.segment)
                .ok_or(ViewError::UnknownSegment(row.segment))?;
            if let Some(new) = &new {
                check_key(new, ordinal, &sealed.segment, row.ordinal)?;
            }
            if sealed.live.get(row.ordinal) {
                live.set(ordinal as usize);
            }
        }
        let alive = |id: &SegmentId| before.segment(*id).map_or(0, Sealed::live_rows);
        let lost = places.keys().map(alive).sum::<u64>() - live.count();
        if lost > 0 {
            return Err(ViewError::LostRows(lost));
        }
        Ok(Self {
            before,
            new,
            live,
            places,
        })
    }

    fn execute(self, rows: &mut RowSpace) -> Result<Option<SegmentId>, ViewError> {
        let Self {
            before,
            new,
            live,
            places,
        } = self;
        let gone = places.keys().find(|&&id| rows.sealed(id).is_none());
        if let Some(&id) = gone {
            return Err(ViewError::UnknownSegment(id));
        }
        let target = new.map(|segment| {
            let fragment = segment.fragment();
            (rows.seal(Arc::new(segment), &live), fragment)
        });
        for (from, places) in places {
            let was = before.segment(from).expect("planned on this snapshot");
            let now = rows.unseal(from).expect("checked above under the same lock");
            if let Some((to, fragment)) = target {
                let killed = now.live.killed_since(&was.live);
                rows.kill_silently(to, killed.map(|old| places[old as usize]));
                let place = |old: u32| Some(places[old as usize]).filter(|&new| new != NOWHERE);
                rows.rename_kills(from, fragment, |old| place(old).map(|new| RowRef::new(to, new)));
            } else {
                rows.rename_kills(from, 0, |_| None);
            }
            let source = Source::Sealed(now.segment);
            let to = target.map_or(from, |(to, _)| to);
            rows.forwards.push_back(Forward {
                from,
                source,
                to,
                places,
                settled: 0,
            });
        }
        if let Some((id, fragment)) = target {
            rows.kill_in_base(id, fragment);
        }
        Ok(target.map(|(id, _)| id))
    }
}

impl RowSpace {
    /// The base knows of these deaths already, or a list of kills does.
    fn kill_silently(&mut self, id: SegmentId, ordinals: impl Iterator<Item = u32>) {
        let at = self
            .sealed
            .binary_search_by_key(&id, |sealed| sealed.id)
            .expect("just sealed");
        let live: &mut LiveBits = &mut Arc::make_mut(&mut self.sealed)[at].live;
        for ordinal in ordinals {
            live.kill(ordinal);
        }
    }

    /// A compaction may have copied rows whose deletion it did not see.  Whatever is dead
    /// here and on no list of kills goes onto the active one: deleting twice is harmless,
    /// never deleting is a resurrection at the next open.
    fn kill_in_base(&mut self, id: SegmentId, fragment: u64) {
        let Some(sealed) = self.sealed(id) else { return };
        let mut dead = Bits::all(sealed.segment.len() as usize);
        dead.and_not(&sealed.live.to_bits());
        for row in dead.iter().map(|ordinal| RowRef::new(id, ordinal)) {
            let pending = self.frozen.iter().any(|group| group.frozen.kills().contains(row));
            if !pending {
                self.active.kills.record(row, fragment);
            }
        }
    }
}

fn check_rows_of(frozen: &Frozen, segment: Option<&Segment>) -> Result<(), ViewError> {
    let rows = frozen.live_rows();
    let (expected, found) = (rows.len() as u64, segment.map_or(0, Segment::len) as u64);
    if expected != found {
        return Err(ViewError::RowCount {
            what: "new segment",
            expected,
            found,
        });
    }
    let Some(segment) = segment else {
        return Ok(());
    };
    for (ordinal, fresh) in (0..).zip(rows) {
        if segment.keys().get(ordinal) != KeyRef::of(&fresh.id) || segment.seq(ordinal) != fresh.seq {
            let (expected, found) = (fresh.id.clone(), segment.id(ordinal));
            return Err(ViewError::KeyMismatch {
                ordinal,
                expected,
                found,
            });
        }
    }
    Ok(())
}

fn check_key(new: &Segment, at: u32, old: &Segment, old_at: u32) -> Result<(), ViewError> {
    let (found, expected) = (new.keys().get(at), old.keys().get(old_at));
    match found == expected && new.seq(at) == old.seq(old_at) {
        true => Ok(()),
        false => Err(ViewError::KeyMismatch {
            ordinal: at,
            expected: expected.to_id(),
            found: found.to_id(),
        }),
    }
}
