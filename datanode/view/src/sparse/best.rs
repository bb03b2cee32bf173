//! The k best rows so far.

use std::cmp::Ordering;

use crate::rows::RowRef;
use crate::snapshot::Snapshot;

/// Rows over `2 * k` before the worse half goes.
const SLACK: usize = 64;

pub(super) struct Best<'a> {
    snapshot: &'a Snapshot,
    k: usize,
    rows: Vec<(RowRef, f32)>,
    /// The k-th best score of the last pruning: what is below is out.
    bar: f32,
}

impl<'a> Best<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, k: usize) -> Self {
        Self {
            snapshot,
            k,
            rows: Vec::new(),
            bar: f32::NEG_INFINITY,
        }
    }

    /// A sum below it rounds to a score that is out.
    pub(super) fn floor(&self) -> f64 {
        f64::from(self.bar.next_down())
    }

    pub(super) fn offer(&mut self, row: RowRef, score: f32) {
        if score < self.bar || self.k == 0 {
            return;
        }
        self.rows.push((row, score));
        if self.rows.len() >= 2 * self.k + SLACK {
            self.prune();
        }
    }

    /// Best first.
    pub(super) fn finish(mut self) -> Vec<(RowRef, f32)> {
        self.prune();
        let snapshot = self.snapshot;
        self.rows.sort_unstable_by(|a, b| by_rank(snapshot, a, b));
        self.rows
    }

    fn prune(&mut self) {
        if self.rows.len() <= self.k {
            return;
        }
        let snapshot = self.snapshot;
        self.rows
            .select_nth_unstable_by(self.k, |a, b| by_rank(snapshot, a, b));
        self.rows.truncate(self.k);
        let scores = self.rows.iter().map(|(_, score)| *score);
        self.bar = scores.fold(f32::INFINITY, f32::min);
    }
}

/// The higher score, then the smaller id.
fn by_rank(snapshot: &Snapshot, a: &(RowRef, f32), b: &(RowRef, f32)) -> Ordering {
    b.1.total_cmp(&a.1)
        .then_with(|| snapshot.key(a.0).cmp(&snapshot.key(b.0)))
}
