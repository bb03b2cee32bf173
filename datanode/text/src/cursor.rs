//! One list of rows, walked forward: blocks of a split, or what was copied out of fresh
//! rows or found by a phrase.

use tantivy::TERMINATED;
use tantivy::postings::BlockSegmentPostings;

pub(crate) struct Cursor {
    source: Source,
    /// In the current block.
    at: usize,
}

enum Source {
    Blocks(Box<BlockSegmentPostings>),
    /// One block with all of it.
    Listed {
        docs: Vec<u32>,
        frequencies: Vec<u32>,
    },
}

impl Cursor {
    pub(crate) fn blocks(postings: BlockSegmentPostings) -> Self {
        Self {
            source: Source::Blocks(Box::new(postings)),
            at: 0,
        }
    }

    pub(crate) fn listed(docs: Vec<u32>, frequencies: Vec<u32>) -> Self {
        Self {
            source: Source::Listed { docs, frequencies },
            at: 0,
        }
    }

    /// Rows and frequencies of the current block.
    pub(crate) fn block(&self) -> (&[u32], &[u32]) {
        match &self.source {
            Source::Blocks(postings) => (postings.docs(), postings.freqs()),
            Source::Listed { docs, frequencies } => (docs, frequencies),
        }
    }

    /// The row it stands on; `TERMINATED` at the end.
    #[inline]
    pub(crate) fn row(&self) -> u32 {
        self.block().0.get(self.at).copied().unwrap_or(TERMINATED)
    }

    /// Visits the rows before `end`, and stands on the first one that is not.
    #[inline]
    pub(crate) fn drain(&mut self, end: u32, mut visit: impl FnMut(u32, u32)) {
        loop {
            let (docs, frequencies) = self.block();
            let rest = &docs[self.at..];
            let taken = match rest.last() {
                None => return,
                Some(&last) if last < end => rest.len(),
                Some(_) => rest.partition_point(|&row| row < end),
            };
            let frequencies = &frequencies[self.at..self.at + taken];
            for (&row, &frequency) in rest[..taken].iter().zip(frequencies) {
                visit(row, frequency);
            }
            let more = taken < rest.len();
            self.at += taken;
            if more || !self.next_block() {
                return;
            }
        }
    }

    /// Stands on `row` or the first one after it; the frequency when it is there.
    #[inline]
    pub(crate) fn seek(&mut self, row: u32) -> Option<u32> {
        if self.row() < row {
            self.leap(row);
        }
        let (docs, frequencies) = self.block();
        (docs.get(self.at) == Some(&row)).then(|| frequencies[self.at])
    }

    fn leap(&mut self, row: u32) {
        let (docs, _) = self.block();
        if docs.last().is_some_and(|&last| last >= row) {
            self.at += gallop(&docs[self.at..], row);
            return;
        }
        match &mut self.source {
            Source::Blocks(postings) => self.at = postings.seek(row).min(postings.block_len()),
            Source::Listed { docs, .. } => self.at = docs.len(),
        }
    }

    fn next_block(&mut self) -> bool {
        match &mut self.source {
            Source::Blocks(postings) => {
                postings.advance();
                self.at = 0;
                postings.block_len() > 0
            }
            Source::Listed { .. } => false,
        }
    }
}

/// The first place whose row is not before `row`; near ones are found fast.
fn gallop(docs: &[u32], row: u32) -> usize {
    let mut step = 1;
    while step < docs.len() && docs[step] < row {
        step *= 2;
    }
    let from = step / 2;
    from + docs[from..(step + 1).min(docs.len())].partition_point(|&doc| doc < row)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn galloping_finds_what_a_plain_search_finds(
            docs in proptest::collection::btree_set(0u32..500, 1..200), row in 0u32..600,
        ) {
            let docs: Vec<u32> = docs.into_iter().collect();
            prop_assert_eq!(gallop(&docs, row), docs.partition_point(|&doc| doc < row));
        }

        #[test]
        fn draining_and_seeking_visit_every_row_once(
            docs in proptest::collection::btree_set(0u32..500, 0..200),
            stops in proptest::collection::btree_set(0u32..600, 0..10),
        ) {
            let all: Vec<u32> = docs.iter().copied().collect();
            let mut cursor = Cursor::listed(all.clone(), all.iter().map(|row| row + 1).collect());
            let mut seen = Vec::new();
            for &stop in &stops {
                cursor.drain(stop, |row, frequency| {
                    assert_eq!(frequency, row + 1);
                    seen.push(row);
                });
                prop_assert_eq!(cursor.seek(stop), docs.contains(&stop).then_some(stop + 1));
            }
            cursor.drain(TERMINATED, |row, _| seen.push(row));
            prop_assert_eq!(seen, all);
            prop_assert_eq!(cursor.row(), TERMINATED);
        }
    }
}
