//! From an id's hash to its row, in 9 bytes plus the table's slack per row.
//!
//! Entries hold no key: the caller tells, row by row, whether it is the one meant, and on
//! growth what its hash is.  At most one entry per id is the caller's invariant.

use hashbrown::HashTable;

use crate::rows::RowRef;

/// Growth rehashes one shard at a time, so that no write waits for a million keys.
const SHARDS: usize = 256;

#[derive(Debug)]
pub(crate) struct KeyMap {
    shards: Vec<HashTable<u64>>,
}

impl KeyMap {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
        }
    }

    pub(crate) fn reserve(&mut self, rows: usize, hash_of: impl Fn(RowRef) -> u64) {
        // An eighth more than the mean: shards of a random hash are not quite equal.
        let each = (rows / SHARDS).saturating_mul(9) / 8;
        for shard in &mut self.shards {
            shard.reserve(each, |&packed| hash_of(RowRef::unpack(packed)));
        }
    }

    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(RowRef) -> bool) -> Option<RowRef> {
        let found = self.shards[shard(hash)].find(hash, |&packed| is_it(RowRef::unpack(packed)));
        found.map(|&packed| RowRef::unpack(packed))
    }

    /// The caller has made sure that the id has no entry yet.
    pub(crate) fn insert(&mut self, hash: u64, row: RowRef, hash_of: impl Fn(RowRef) -> u64) {
        let hasher = |&packed: &u64| hash_of(RowRef::unpack(packed));
        self.shards[shard(hash)].insert_unique(hash, row.pack(), hasher);
    }

    /// Renames the entry that is exactly `from`; false when there is none any more.
    pub(crate) fn repoint(&mut self, hash: u64, from: RowRef, to: RowRef) -> bool {
        let slot = self.shards[shard(hash)].find_mut(hash, |&packed| packed == from.pack());
        slot.map(|slot| *slot = to.pack()).is_some()
    }

    pub(crate) fn remove(&mut self, hash: u64, row: RowRef) {
        if let Ok(entry) = self.shards[shard(hash)].find_entry(hash, |&packed| packed == row.pack()) {
            entry.remove();
        }
    }

    pub(crate) fn heap_size(&self) -> usize {
        let tables: usize = self.shards.iter().map(HashTable::allocation_size).sum();
        tables + self.shards.capacity() * size_of::<HashTable<u64>>()
    }
}

/// Neither the bits that pick a bucket (low), nor those of its tag (top seven), nor those
/// that picked the partition (from 32 up).
fn shard(hash: u64) -> usize {
    (hash >> 49) as usize % SHARDS
}
