//! Rows that may still be among the best k, and the bar that they must reach.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use rhumb_core::FieldName;

use crate::codes::{Bounds, Codes};
use crate::rows::{RowRef, SegmentId};
use crate::score::{Scorer, score_of};
use crate::snapshot::Snapshot;

/// Rows that nothing so far has ruled out.
pub(super) struct Finalists<'a> {
    snapshot: &'a Snapshot,
    k: usize,
    /// The k largest lower bounds.
    lows: BinaryHeap<Reverse<Ordered>>,
    /// The smallest of them once there are k: k rows are at least this good.
    pub(super) bar: f32,
    /// Whatever is below rounds to less than `bar`.
    floor: f64,
    certain: Vec<(RowRef, f32)>,
    /// The last of the k best exact rows when `certain` was last pruned.
    cut: Option<(RowRef, f32)>,
    uncertain: Vec<(RowRef, f32)>,
    pub(super) scanned: BTreeMap<SegmentId, Arc<Codes>>,
}

/// Pruning starts here, so that small k do not prune at every row.
const SLACK: usize = 1_024;

impl<'a> Finalists<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, k: usize) -> Self {
        Self {
            snapshot,
            k,
            lows: BinaryHeap::new(),
            bar: f32::NEG_INFINITY,
            floor: f64::NEG_INFINITY,
            certain: Vec::new(),
            cut: None,
            uncertain: Vec::new(),
            scanned: BTreeMap::new(),
        }
    }

    #[inline]
    pub(super) fn offer(&mut self, row: RowRef, bounds: Bounds) {
        if bounds.high >= self.floor {
            self.keep(row, score_of(bounds.low), score_of(bounds.high));
        }
    }

    fn keep(&mut self, row: RowRef, low: f32, high: f32) {
        self.raise(low);
        self.uncertain.push((row, high));
        if self.uncertain.len() >= 2 * self.k + SLACK && self.uncertain.len().is_power_of_two() {
            let bar = self.bar;
            self.uncertain.retain(|(_, high)| *high >= bar);
        }
    }

    pub(super) fn offer_exact(&mut self, row: RowRef, score: f32) {
        let candidate = (row, score);
        let beaten = self
            .cut
            .is_some_and(|cut| self.snapshot.by_rank(&cut, &candidate).is_lt());
        if score < self.bar || beaten {
            return;
        }
        self.raise(score);
        self.certain.push(candidate);
        if self.certain.len() >= 2 * self.k + SLACK {
            self.prune_certain();
        }
    }

    fn prune_certain(&mut self) {
        self.snapshot.keep_best(&mut self.certain, self.k);
        self.cut = self
            .certain
            .iter()
            .max_by(|a, b| self.snapshot.by_rank(a, b))
            .copied();
    }

    fn raise(&mut self, low: f32) {
        if low <= self.bar {
            return;
        }
        self.lows.push(Reverse(Ordered(low)));
        if self.lows.len() > self.k {
            self.lows.pop();
        }
        if let (true, Some(Reverse(lowest))) = (self.lows.len() == self.k, self.lows.peek()) {
            self.bar = lowest.0;
            self.floor = f64::from(self.bar.next_down());
        }
    }

    /// Rows by the middle of their bounds, best first, without scoring any.  For searches
    /// that trust bounds to be points.
    pub(super) fn estimates(mut self) -> Vec<(RowRef, f32)> {
        self.uncertain.extend(std::mem::take(&mut self.certain));
        self.uncertain.sort_by(|a, b| b.1.total_cmp(&a.1));
        self.uncertain.truncate(self.k);
        self.uncertain
    }

    /// Rows that are scored, and rows left to score, best upper bound first.
    pub(super) fn finish(
        mut self,
        scorer: &Scorer<'_>,
        field: &FieldName,
    ) -> (Vec<(RowRef, f32)>, Vec<RowRef>) {
        let bar = self.bar;
        self.certain.retain(|(_, score)| *score >= bar);
        self.uncertain.retain(|(_, high)| *high >= bar);
        let mut left = Vec::new();
        for (row, high) in self.uncertain {
            let score = match self.scanned.get(&row.segment) {
                Some(codes) => codes.own_score(scorer, row.ordinal),
                None => self
                    .snapshot
                    .fresh_row(row)
                    .and_then(|fresh| fresh.score(scorer, field)),
            };
            match score {
                Some(score) => self.certain.push((row, score)),
                None => left.push((row, high)),
            }
        }
        self.snapshot.keep_best(&mut self.certain, self.k);
        left.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        (self.certain, left.into_iter().map(|(row, _)| row).collect())
    }
}

/// f32 in its total order; scores are never NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
