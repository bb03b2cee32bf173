//! One byte per row that says roughly where its value lies, so that a test on wide values
//! reads a byte of most rows and the value of few.
//!
//! A bucket holds the rows whose key lies between two edges.  Edges come from a sample, so
//! that buckets are about equally full; a value that fills buckets alone gets its own.

use super::narrow::Run;
use crate::bits::Bits;

#[derive(Debug)]
pub(super) struct Buckets {
    /// Ascending; bucket i holds the keys from `edges[i - 1]` on and below `edges[i]`.
    edges: Vec<u64>,
    codes: Vec<u8>,
}

/// Fewer rows are as quickly looked at one by one.
pub(super) const WORTH: usize = 2_048;
const MOST_EDGES: usize = 255;
const SAMPLE: usize = 8_192;

/// What keys say about a test: outside `possible` no row passes, inside `certain` every
/// row does, and the rest is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) possible: Run,
    pub(super) certain: Option<Run>,
}

impl Buckets {
    pub(super) fn new(rows: usize, key: impl Fn(usize) -> u64) -> Self {
        let edges = edges(rows, &key);
        // Padded to a full tree of comparisons, which has no branch to guess.
        let mut padded = [u64::MAX; MOST_EDGES + 1];
        padded[..edges.len()].copy_from_slice(&edges);
        let code = |at| {
            let key = key(at);
            let mut bucket = 0;
            for step in [128, 64, 32, 16, 8, 4, 2, 1] {
                bucket += usize::from(padded[bucket + step - 1] <= key) * step;
            }
            bucket.min(edges.len()) as u8
        };
        let mut codes: Vec<u8> = (0..rows).map(code).collect();
        codes.shrink_to_fit();
        Self { edges, codes }
    }

    pub(super) fn heap_size(&self) -> usize {
        self.codes.capacity() + self.edges.capacity() * size_of::<u64>()
    }

    /// Rows that are in a window for sure or pass when asked.
    pub(super) fn select(&self, windows: &[Window], passes: impl Fn(usize) -> bool) -> Bits {
        let mut sure = [false; MOST_EDGES + 1];
        let mut unsure = [false; MOST_EDGES + 1];
        for window in windows {
            let first = self.bucket(window.possible.first);
            for bucket in first..=self.bucket(window.possible.last) {
                match window.certain {
                    Some(certain) if self.is_inside(bucket, certain) => sure[bucket] = true,
                    _ => unsure[bucket] = true,
                }
            }
        }
        let mut rows = self.rows_of(&sure);
        let asked: [bool; MOST_EDGES + 1] = std::array::from_fn(|bucket| unsure[bucket] && !sure[bucket]);
        if asked.contains(&true) {
            let candidates = self.rows_of(&asked);
            for row in candidates.iter() {
                if passes(row as usize) {
                    rows.set(row as usize);
                }
            }
        }
        rows
    }

    fn rows_of(&self, wanted: &[bool; MOST_EDGES + 1]) -> Bits {
        let mut rows = Bits::none(self.codes.len());
        let first = wanted.iter().position(|&wanted| wanted);
        let last = wanted.iter().rposition(|&wanted| wanted);
        let (Some(first), Some(last)) = (first, last) else {
            return rows;
        };
        let (low, high) = (first as u8, last as u8);
        if wanted[first..=last].iter().all(|&wanted| wanted) {
            rows.add_where(&self.codes, |code| (low <= code) & (code <= high));
        } else if last - first >= 2 && !wanted[first + 1..last].contains(&true) {
            rows.add_where(&self.codes, |code| (code == low) | (code == high));
        } else {
            rows.add_where(&self.codes, |code| wanted[usize::from(code)]);
        }
        rows
    }

    fn bucket(&self, key: u64) -> usize {
        self.edges.partition_point(|&edge| edge <= key)
    }

    fn is_inside(&self, bucket: usize, run: Run) -> bool {
        let low = bucket.checked_sub(1).map_or(0, |before| self.edges[before]);
        let high = self.edges.get(bucket).map_or(u64::MAX, |&edge| edge - 1);
        run.first <= low && high <= run.last
    }
}

fn edges(rows: usize, key: &impl Fn(usize) -> u64) -> Vec<u64> {
    let stride = rows.div_ceil(SAMPLE).max(1);
    let mut sample: Vec<u64> = (0..rows).step_by(stride).map(key).collect();
    sample.sort_unstable();
    // A value met at two steps takes an edge just above it too, and so fills a bucket alone.
    let mut edges: Vec<u64> = Vec::with_capacity(MOST_EDGES);
    for step in 1..=MOST_EDGES {
        let Some(&edge) = sample.get(step * sample.len() / (MOST_EDGES + 1)) else {
            break;
        };
        if edges.last() == Some(&edge) {
            edges.extend(edge.checked_add(1));
        } else if edges.last().is_none_or(|&last| last < edge) {
            edges.push(edge);
        }
    }
    // Key 0 opens no bucket: nothing lies before it.
    edges.retain(|&edge| edge > 0);
    edges.shrink_to_fit();
    edges
}
