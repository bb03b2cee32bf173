//! What a grid was asked lately: how far searches must go is measured with queries like
//! those to come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rhumb_core::Vector;

/// Queries that are kept, and the bytes that they may take.
const KEPT: usize = 200;
const MOST_BYTES: usize = 512 << 10;
/// Fewer say little about those to come.
pub(crate) const LEAST: usize = 64;
/// Once there are enough, one in so many takes the place of an older one: of a list that is
/// asked round and round every query has its turn.
const ONE_IN: u64 = 7;
/// After so many queries it is time to measure: once they are enough, and again when what is
/// asked may have changed.
const DUE: [u64; 3] = [128, 4_096, 131_072];

#[derive(Debug, Default)]
pub(crate) struct Asked {
    seen: AtomicU64,
    due: AtomicBool,
    kept: Mutex<Vec<Vector>>,
}

impl Asked {
    /// True when it is time to measure with what was asked; less soon `again`.
    pub(crate) fn note(&self, query: &Vector, again: bool) -> bool {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = match query {
            Vector::F32(vector) => 4 * vector.len(),
            Vector::I8(vector) => vector.len(),
            Vector::Bits(vector) => vector.len(),
        };
        let most = KEPT.min(MOST_BYTES / bytes.max(1));
        if seen <= most as u64 || seen.is_multiple_of(ONE_IN) {
            let mut kept = self.kept.lock();
            match kept.len() < most {
                true => kept.push(query.clone()),
                false if most == 0 => {}
                false => kept[(seen / ONE_IN) as usize % most] = query.clone(),
            }
        }
        let due = DUE[usize::from(again)..].contains(&seen);
        if due {
            self.due.store(true, Ordering::Relaxed);
        }
        due
    }

    /// Whether nobody has taken the queries since it was time to measure.
    pub(crate) fn is_due(&self) -> bool {
        self.due.load(Ordering::Relaxed)
    }

    /// What to measure with, if it is enough.
    pub(crate) fn queries(&self) -> Option<Vec<Vector>> {
        self.due.store(false, Ordering::Relaxed);
        let kept = self.kept.lock();
        (kept.len() >= LEAST).then(|| kept.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(x: u64, dim: usize) -> Vector {
        Vector::F32(vec![x as f32; dim].into())
    }

    #[test]
    fn a_few_recent_queries_are_kept_and_it_says_when_to_measure() {
        let asked = Asked::default();
        assert_eq!(asked.queries(), None);
        let due: Vec<u64> = (1..=5_000).filter(|n| asked.note(&query(*n, 4), false)).collect();
        assert_eq!(due, [128, 4_096]);
        assert!(asked.is_due());
        let kept = asked.queries().expect("enough");
        assert_eq!((kept.len(), asked.is_due()), (KEPT, false));
        assert!(!kept.contains(&query(1, 4)), "old ones go");
        assert!(kept.contains(&query(4_998, 4)));
        let thousand = Asked::default();
        for n in 0..4_096 {
            thousand.note(&query(n % 1_000, 4), true);
        }
        let mut kept = thousand.queries().expect("enough");
        kept.sort_by_key(|kept| format!("{kept:?}"));
        kept.dedup();
        assert_eq!(kept.len(), KEPT, "no query twice");
    }

    #[test]
    fn long_queries_are_kept_within_bytes() {
        let asked = Asked::default();
        let due = (0..1_000).filter(|n| asked.note(&query(*n, 8_192), true)).count();
        assert_eq!(due, 0);
        assert_eq!(asked.queries(), None, "16 are too few");
        assert!(asked.kept.lock().len() <= 16);
    }
}
