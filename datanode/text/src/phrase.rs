//! Rows where words stand at given distances from each other.

use tantivy::postings::{Postings, SegmentPostings};
use tantivy::{DocSet, TERMINATED};

use crate::fresh::Occurrences;
use crate::search::Allowed;

/// One place of a phrase: a word, or any of the words that its beginning may mean.
pub(crate) struct Slot {
    offset: u32,
    words: Vec<Word>,
}

pub(crate) enum Word {
    Sealed(Box<SegmentPostings>),
    Fresh { found: Occurrences, at: usize },
}

impl Slot {
    pub(crate) fn new(offset: u32, words: Vec<Word>) -> Self {
        Self { offset, words }
    }

    fn row(&self) -> u32 {
        self.words.iter().map(Word::row).min().unwrap_or(TERMINATED)
    }

    fn seek(&mut self, row: u32) -> u32 {
        self.words.iter_mut().for_each(|word| word.seek(row));
        self.row()
    }

    fn rows(&self) -> u64 {
        self.words.iter().map(Word::rows).sum()
    }

    /// Where a phrase that has this slot here would begin, shifted so that none is
    /// negative; ascending.
    fn starts(&mut self, row: u32, last: u32, out: &mut Vec<u32>) {
        out.clear();
        let shift = last - self.offset;
        for word in self.words.iter_mut().filter(|word| word.row() == row) {
            word.positions(shift, out);
        }
        if self.words.len() > 1 {
            out.sort_unstable();
            out.dedup();
        }
    }
}

impl Word {
    fn row(&self) -> u32 {
        match self {
            Self::Sealed(postings) => postings.doc(),
            Self::Fresh { found, at } => found.docs.get(*at).copied().unwrap_or(TERMINATED),
        }
    }

    fn seek(&mut self, row: u32) {
        if self.row() >= row {
            return;
        }
        match self {
            Self::Sealed(postings) => {
                postings.seek(row);
            }
            Self::Fresh { found, at } => *at += found.docs[*at..].partition_point(|&doc| doc < row),
        }
    }

    fn rows(&self) -> u64 {
        match self {
            Self::Sealed(postings) => u64::from(postings.doc_freq()),
            Self::Fresh { found, .. } => found.docs.len() as u64,
        }
    }

    fn positions(&mut self, shift: u32, out: &mut Vec<u32>) {
        match self {
            Self::Sealed(postings) => postings.append_positions_with_offset(shift, out),
            Self::Fresh { found, at } => {
                let start = at.checked_sub(1).map_or(0, |before| found.ends[before]);
                let positions = &found.positions[start as usize..found.ends[*at] as usize];
                out.extend(positions.iter().map(|position| position + shift));
            }
        }
    }
}

/// Allowed rows with the phrase, and how often each has it.
pub(crate) fn find(mut slots: Vec<Slot>, allowed: &Allowed<'_>) -> (Vec<u32>, Vec<u32>) {
    let (mut rows, mut frequencies) = (Vec::new(), Vec::new());
    let last = slots.iter().map(|slot| slot.offset).max().unwrap_or(0);
    slots.sort_by_key(Slot::rows);
    let (mut starts, mut more) = (Vec::new(), Vec::new());
    let mut row = slots.first().map_or(TERMINATED, Slot::row);
    'rows: while row != TERMINATED {
        for slot in &mut slots {
            let at = slot.seek(row);
            if at > row {
                row = at;
                continue 'rows;
            }
        }
        if allowed.has(row) {
            let mut each = slots.iter_mut();
            if let Some(slot) = each.next() {
                slot.starts(row, last, &mut starts);
            }
            for slot in each {
                slot.starts(row, last, &mut more);
                keep_common(&mut starts, &more);
            }
            if !starts.is_empty() {
                rows.push(row);
                frequencies.push(starts.len() as u32);
            }
        }
        row = slots.first_mut().map_or(TERMINATED, |slot| slot.seek(row + 1));
    }
    (rows, frequencies)
}

/// Both ascending.
fn keep_common(kept: &mut Vec<u32>, other: &[u32]) {
    let mut at = 0;
    kept.retain(|start| {
        while other.get(at).is_some_and(|next| next < start) {
            at += 1;
        }
        other.get(at) == Some(start)
    });
}
