//! Process-wide budgets.  Memtables: bytes of acknowledged rows that are not in the base
//! yet; a write waits for room, and gives up with `Busy` (429) when none comes.
//! Segment parts: codes, columns, inverted lists and text indexes that can be loaded again; the oldest go first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::FieldName;
use rhumb_view::Segment;
use tokio::sync::Notify;

use crate::error::EngineError;

/// How long a write waits for a flush to make room.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct MemtableBudget {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl MemtableBudget {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// True when partitions should flush before their own thresholds say so.
    pub fn is_tight(&self) -> bool {
        self.used() > self.limit / 2
    }

    pub fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn free(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Returns once there is room.  A single write larger than the whole budget is let in
    /// alone rather than refused for ever.
    pub async fn admit(&self, bytes: usize) -> Result<(), EngineError> {
        let has_room = || {
            let used = self.used();
            used == 0 || used + bytes <= self.limit
        };
        let wait = async {
            loop {
                let freed = self.freed.notified();
                if has_room() {
                    return;
                }
                freed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(|_| {
            EngineError::Busy("writes arrive faster than they can be merged into the base table".into())
        })
    }
}

/// What of a segment can be dropped and loaded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentPart {
    Codes(FieldName),
    Lists(FieldName),
    Column(FieldName),
    Sparse(FieldName),
    Split,
}

#[derive(Debug)]
struct LoadedPart {
    segment: Weak<Segment>,
    part: SegmentPart,
    bytes: usize,
}

/// The loaded parts of all open views, oldest first.
#[derive(Debug)]
pub struct SegmentParts {
    limit: usize,
    state: Mutex<PartsState>,
}

#[derive(Debug, Default)]
struct PartsState {
    used: usize,
    loaded: VecDeque<LoadedPart>,
}

impl SegmentParts {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::new(PartsState::default()),
        }
    }

    pub fn used(&self) -> usize {
        self.state.lock().used
    }

    /// Notes a part that was attached, and detaches older ones while over the limit.  The
    /// newest always stays: the query that loaded it is about to use it.
    pub fn loaded(&self, segment: &Arc<Segment>, part: SegmentPart, bytes: usize) {
        let mut state = self.state.lock();
        state.used += bytes;
        state.loaded.push_back(LoadedPart {
            segment: Arc::downgrade(segment),
            part,
            bytes,
        });
        while state.loaded.len() > 1 && (state.used > self.limit || state.front_is_gone()) {
            let Some(oldest) = state.loaded.pop_front() else {
                break;
            };
            state.used -= oldest.bytes;
            if let Some(segment) = oldest.segment.upgrade() {
                match &oldest.part {
                    SegmentPart::Codes(field) => drop(segment.detach_codes(field.as_str())),
                    SegmentPart::Lists(field) => drop(segment.detach_lists(field.as_str())),
                    SegmentPart::Column(field) => drop(segment.detach_column(field.as_str())),
                    SegmentPart::Sparse(field) => drop(segment.detach_sparse(field.as_str())),
                    SegmentPart::Split => drop(segment.detach_split()),
                }
            }
        }
    }
}

impl PartsState {
    fn front_is_gone(&self) -> bool {
        self.loaded
            .front()
            .is_some_and(|part| part.segment.strong_count() == 0)
    }
}
