//! What the active fresh rows amount to, and when they have to be frozen (P22).

use std::time::Duration;

use rhumb_core::Slot;
use tokio::time::Instant;

use crate::entry::LogEntry;

/// Thresholds; the bytes are `Env::freeze_bytes`.
const FREEZE_ROWS: usize = 65_536;
const FREEZE_ENTRIES: u64 = 1_024;
/// A new leader reads each entry before it serves: many are kept for a short while only.
const FREEZE_AGE_MANY: Duration = Duration::from_secs(10);
const MANY_ENTRIES: u64 = 256;
/// Searches find so many only by a scan, until they are in the base and in lists.
const MANY_ROWS: usize = 10_000;
const FREEZE_AGE: Duration = Duration::from_secs(60);
const FREEZE_AGE_ENTRIES: u64 = 32;
const FREEZE_AGE_TRICKLE: Duration = Duration::from_secs(3_600);

/// What the active fresh rows amount to.
#[derive(Debug)]
pub struct Memtable {
    pub bytes: usize,
    pub rows: usize,
    pub entries: u64,
    pub since: Instant,
    /// Up to which slot the last frozen memtable reaches.
    pub frozen_upto: Slot,
}

impl Memtable {
    pub fn new(frozen_upto: Slot) -> Self {
        Self {
            bytes: 0,
            rows: 0,
            entries: 0,
            since: Instant::now(),
            frozen_upto,
        }
    }

    pub fn grow(&mut self, rows: usize, bytes: usize) {
        if self.entries == 0 {
            self.since = Instant::now();
        }
        self.rows += rows;
        self.bytes += bytes;
        self.entries += 1;
    }

    /// Takes in a record of the log tail.
    pub fn replay(&mut self, entry: &LogEntry, body_bytes: usize) {
        self.grow(entry.rows.len(), body_bytes);
    }

    pub fn due_at(&self) -> Instant {
        let age = match self.entries {
            _ if self.rows >= MANY_ROWS => FREEZE_AGE_MANY,
            MANY_ENTRIES.. => FREEZE_AGE_MANY,
            FREEZE_AGE_ENTRIES.. => FREEZE_AGE,
            _ => FREEZE_AGE_TRICKLE,
        };
        self.since + age
    }

    /// `tight`: all memtables together leave little room for more.
    pub fn is_due(&self, freeze_bytes: usize, tight: bool) -> bool {
        let full = self.bytes >= freeze_bytes
            || self.rows >= FREEZE_ROWS
            || self.entries >= FREEZE_ENTRIES
            || (tight && self.bytes >= freeze_bytes / 4);
        full || (self.entries > 0 && self.due_at() <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1 << 20;

    fn after(entries: u64, rows: usize, bytes: usize) -> Memtable {
        let mut memtable = Memtable::new(Slot(0));
        (0..entries).for_each(|_| memtable.grow(rows, bytes));
        memtable
    }

    #[test]
    fn size_rows_and_entries_freeze_at_once() {
        assert!(!after(0, 0, 0).is_due(BYTES, true));
        assert!(!after(1, 1, 100).is_due(BYTES, true));
        assert!(after(1, 1, BYTES).is_due(BYTES, false));
        assert!(after(1, FREEZE_ROWS, 100).is_due(BYTES, false));
        assert!(after(FREEZE_ENTRIES, 1, 1).is_due(BYTES, false));
        assert!(!after(1, 1, BYTES / 2).is_due(BYTES, false));
        assert!(after(1, 1, BYTES / 2).is_due(BYTES, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_frozen_late_and_a_stream_soon() {
        let (trickle, stream) = (after(1, 1, 1), after(FREEZE_AGE_ENTRIES, 1, 1));
        let many = after(MANY_ENTRIES, 1, 1);
        assert!(!many.is_due(BYTES, false));
        tokio::time::advance(FREEZE_AGE_MANY).await;
        assert!(many.is_due(BYTES, false) && !stream.is_due(BYTES, false));
        assert!(after(1, MANY_ROWS, 1).due_at() < stream.due_at());
        tokio::time::advance(FREEZE_AGE).await;
        assert!(!trickle.is_due(BYTES, false));
        assert!(stream.is_due(BYTES, false));
        tokio::time::advance(FREEZE_AGE_TRICKLE).await;
        assert!(trickle.is_due(BYTES, false));
    }
}
