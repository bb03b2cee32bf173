//! The live state of one partition and the only way to change it.
//!
//! Every change happens under one write lock and ends with one publication, so a lookup
//! and a snapshot taken together agree.  Nothing here can fail half-way: what may be
//! refused is checked before the first change.

mod lists;
mod space;
mod swap;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rhumb_core::{DocId, Document, FieldName, Seq};
use roaring::RoaringBitmap;

use crate::ann::Grid;
use crate::bits::Bits;
use crate::error::ViewError;
use crate::fresh::{FreshRow, Frozen};
use crate::keymap::KeyMap;
use crate::keys::KeyRef;
use crate::rows::{RowRef, SegmentId};
use crate::segment::Segment;
use crate::size::HeapSize;
use crate::snapshot::Snapshot;

pub use swap::Swap;

use space::RowSpace;

/// The newest state of one document, as the log has it.
#[derive(Clone, Debug)]
pub struct Change {
    pub id: DocId,
    pub seq: Seq,
    /// `None` deletes.
    pub document: Option<Arc<Document>>,
}

/// What the active group holds: the measure of when to freeze it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreshSize {
    /// Writes, deletions and superseded ones included.
    pub rows: u64,
    pub bytes: usize,
}

#[derive(Debug)]
pub struct View {
    state: RwLock<State>,
    /// Apart from `state`, so that a query never waits for a write; changed only while
    /// `state` is locked.
    current: RwLock<Arc<Snapshot>>,
    /// By vector field, for its fresh rows.
    grids: RwLock<BTreeMap<FieldName, Arc<Grid>>>,
}

#[derive(Debug)]
struct State {
    /// At most one entry per id; deletions have one until their group is in the base.
    keys: KeyMap,
    rows: RowSpace,
}

impl Default for View {
    fn default() -> Self {
        Self::new()
    }
}

impl View {
    pub fn new() -> Self {
        let rows = RowSpace::new();
        let current = RwLock::new(Arc::new(rows.snapshot()));
        Self {
            state: RwLock::new(State {
                keys: KeyMap::new(),
                rows,
            }),
            current,
            grids: RwLock::default(),
        }
    }

    /// Adds a segment of the base as it was opened; `dead` are its rows that the base has
    /// deleted.  Refused, and nothing changed, when an id is known already.
    pub fn add_segment(
        &self,
        segment: impl Into<Arc<Segment>>,
        dead: &RoaringBitmap,
    ) -> Result<SegmentId, ViewError> {
        let segment = segment.into();
        let rows = segment.len();
        let past_end = dead.max().filter(|&ordinal| ordinal >= rows);
        if let Some(ordinal) = past_end {
            let found = u64::from(ordinal) + 1;
            return Err(ViewError::RowCount {
                what: "dead rows",
                expected: u64::from(rows),
                found,
            });
        }
        let mut live = Bits::all(rows as usize);
        live.and_not(&Bits::from_fn(rows as usize, |at| dead.contains(at as u32)));

        let mut state = self.state.write();
        let state = &mut *state;
        let id = state.rows.seal(segment.clone(), &live);
        let hash_of = |row| state.rows.key(row).hash64();
        state.keys.reserve(live.count() as usize, hash_of);
        for ordinal in live.iter() {
            let key = segment.keys().get(ordinal);
            let known = state.keys.find(key.hash64(), |row| state.rows.key(row) == key);
            if let Some(first) = known {
                for added in live.iter().take_while(|&added| added < ordinal) {
                    state
                        .keys
                        .remove(segment.keys().get(added).hash64(), RowRef::new(id, added));
                }
                state.rows.unseal(id);
                let second = RowRef::new(id, ordinal);
                return Err(ViewError::DuplicateKey {
                    id: key.to_id(),
                    first,
                    second,
                });
            }
            state.keys.insert(key.hash64(), RowRef::new(id, ordinal), hash_of);
        }
        self.publish(state);
        Ok(id)
    }

    /// Applies changes in order and publishes them together.  A change older than what
    /// the view knows of its id does nothing (P3); among equals the later one wins.
    /// O(changes), however large the view is.
    pub fn apply(&self, changes: &[Change]) {
        let mut state = self.state.write();
        for change in changes {
            state.apply(change);
        }
        self.publish(&mut state);
    }

    /// The newest state; never waits for a write.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    pub fn lookup(&self, id: &DocId) -> Option<(RowRef, Seq)> {
        self.state.read().lookup(id)
    }

    /// Rows and the very snapshot that they are rows of.
    pub fn lookup_with_snapshot(&self, ids: &[DocId]) -> (Arc<Snapshot>, Vec<Option<(RowRef, Seq)>>) {
        let state = self.state.read();
        let found = ids.iter().map(|id| state.lookup(id)).collect();
        (self.snapshot(), found)
    }

    /// Closes the active group: its rows stay searchable and wait for `complete_freeze`.
    /// `None` when nothing was written since the last freeze.
    pub fn freeze(&self) -> Option<Arc<Frozen>> {
        let mut state = self.state.write();
        let frozen = state.rows.freeze()?;
        self.publish(&mut state);
        Some(frozen)
    }

    pub fn fresh_size(&self) -> FreshSize {
        let state = self.state.read();
        FreshSize {
            rows: u64::from(state.rows.active.rows.len()),
            bytes: state.rows.active.bytes,
        }
    }

    pub fn heap_size(&self) -> HeapSize {
        let state = self.state.read();
        let mut size = HeapSize {
            key_map: state.keys.heap_size(),
            ..state.rows.heap_size()
        };
        for sealed in state.rows.sealed.iter() {
            size.add_segment(&sealed.segment.size());
        }
        size
    }

    fn publish(&self, state: &mut State) {
        let next = Arc::new(state.rows.snapshot());
        let last = std::mem::replace(&mut *self.current.write(), next);
        drop(last);
    }
}

impl State {
    fn lookup(&self, id: &DocId) -> Option<(RowRef, Seq)> {
        let row = self.rows.resolve(self.entry(id)?)?;
        let fresh_deletion = self.rows.fresh(row).is_some_and(|fresh| fresh.document.is_none());
        (!fresh_deletion).then(|| (row, self.rows.seq(row)))
    }

    fn entry(&self, id: &DocId) -> Option<RowRef> {
        let key = KeyRef::of(id);
        self.keys.find(id.hash64(), |row| self.rows.key(row) == key)
    }

    fn apply(&mut self, change: &Change) {
        let hash = change.id.hash64();
        let entry = self.entry(&change.id);
        if let Some(known) = entry.and_then(|entry| self.rows.resolve(entry)) {
            if change.seq < self.rows.seq(known) {
                return;
            }
            self.rows.kill(known);
        }
        let Change { id, seq, document } = change.clone();
        let row = self.rows.active.push(FreshRow { id, seq, document });
        match entry {
            Some(entry) => {
                self.keys.repoint(hash, entry, row);
            }
            None => self.keys.insert(hash, row, |row| self.rows.key(row).hash64()),
        }
    }
}
