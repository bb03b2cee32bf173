//! The best k rows seen so far.

use std::cmp::Ordering;

use crate::search::TextRow;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scored {
    pub(crate) units: u32,
    pub(crate) row: TextRow,
}

/// A heap with the worst row on top.  Equal scores go by the caller's order of rows.
pub(crate) struct Top<'a> {
    k: usize,
    heap: Vec<Scored>,
    tie: &'a dyn Fn(TextRow, TextRow) -> Ordering,
    /// Rows of the part at hand come in tie order: once one has lost a tie, so will all
    /// later ones until the worst row changes.
    ascending: bool,
    lost: bool,
}

impl<'a> Top<'a> {
    pub(crate) fn new(k: usize, tie: &'a dyn Fn(TextRow, TextRow) -> Ordering) -> Self {
        Self {
            k,
            heap: Vec::with_capacity(k.min(1_024)),
            tie,
            ascending: false,
            lost: false,
        }
    }

    pub(crate) fn begin_part(&mut self, ascending: bool) {
        self.ascending = ascending;
        self.lost = false;
    }

    /// Rows below it need not be offered.
    #[inline]
    pub(crate) fn floor(&self) -> u32 {
        match self.heap.first() {
            Some(worst) if self.heap.len() == self.k => worst.units.saturating_add(u32::from(self.lost)),
            _ => 0,
        }
    }

    pub(crate) fn offer(&mut self, new: Scored) {
        if self.heap.len() < self.k {
            self.heap.push(new);
            self.rise(self.heap.len() - 1);
            return;
        }
        let Some(&worst) = self.heap.first() else {
            return;
        };
        if self.is_worse(new, worst) {
            self.lost |= self.ascending && new.units == worst.units;
            return;
        }
        self.heap[0] = new;
        self.sink();
        self.lost = false;
    }

    /// Best first.
    pub(crate) fn into_sorted(self) -> Vec<Scored> {
        let tie = self.tie;
        let mut rows = self.heap;
        rows.sort_unstable_by(|a, b| b.units.cmp(&a.units).then_with(|| tie(a.row, b.row)));
        rows
    }

    fn is_worse(&self, a: Scored, b: Scored) -> bool {
        match a.units.cmp(&b.units) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => (self.tie)(a.row, b.row).is_gt(),
        }
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_worse(self.heap[at], self.heap[parent]) {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    fn sink(&mut self) {
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut worst = at;
            for child in [left, right] {
                if child < self.heap.len() && self.is_worse(self.heap[child], self.heap[worst]) {
                    worst = child;
                }
            }
            if worst == at {
                return;
            }
            self.heap.swap(at, worst);
            at = worst;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_are_kept_whatever_the_order_and_the_ties(
            units in proptest::collection::vec(0u32..6, 1..200), k in 1usize..40, descending in any::<bool>(),
        ) {
            let tie = |a: TextRow, b: TextRow| match descending {
                true => b.ordinal.cmp(&a.ordinal),
                false => a.ordinal.cmp(&b.ordinal),
            };
            let rows: Vec<Scored> = units.iter().enumerate().map(|(at, &units)| Scored {
                units,
                row: TextRow { part: 0, ordinal: at as u32 },
            }).collect();
            let mut top = Top::new(k, &tie);
            top.begin_part(!descending);
            for &row in &rows {
                if row.units >= top.floor() {
                    top.offer(row);
                }
            }
            let mut expected = rows;
            expected.sort_by(|a, b| b.units.cmp(&a.units).then(tie(a.row, b.row)));
            expected.truncate(k);
            let seen: Vec<(u32, u32)> = top.into_sorted().iter().map(|s| (s.units, s.row.ordinal)).collect();
            let expected: Vec<(u32, u32)> = expected.iter().map(|s| (s.units, s.row.ordinal)).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
