//! The text index of one group of fresh rows: in memory, append only, part of the write
//! path.
//!
//! Lists are in the order of ordinals, so what a snapshot of n rows may see is a first
//! part of each.  Readers copy that part out under the lock and search without it; text
//! is analyzed before the lock is taken.

use std::collections::HashMap;

use parking_lot::{Mutex, RwLock};
use rhumb_core::FieldName;

use crate::analyze::{Analyzer, TextFields};
use crate::bm25::{FieldStats, Peaks, norm_id};
use crate::error::TextError;
use crate::split::MAX_ROWS;

/// Rows between two running totals.
const MARK_EVERY: usize = 64;

#[derive(Default)]
pub struct FreshText {
    inner: RwLock<Inner>,
    /// One writer at a time; its buffers outlive a row.
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Inner {
    rows: u32,
    fields: HashMap<FieldName, FreshField>,
}

#[derive(Default)]
pub(crate) struct FreshField {
    numbers: HashMap<Box<str>, u32>,
    lists: Vec<List>,
    lengths: Vec<u32>,
    norms: Vec<u8>,
    /// Totals before every 64th row.
    marks: Vec<FieldStats>,
    total: FieldStats,
    bytes: usize,
}

/// Where one term occurs.
struct List {
    docs: Vec<u32>,
    /// Where the positions of each row end; the frequency is the distance to the one before.
    ends: Vec<u32>,
    positions: Vec<u32>,
    peaks: Peaks,
}

#[derive(Default)]
struct Writer {
    analyzers: HashMap<&'static str, Analyzer>,
    text: String,
    /// End in `text`, position.
    tokens: Vec<(u32, u32)>,
    touched: Vec<u32>,
}

impl FreshText {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next row, deletions (which have no text) included.  Returns its ordinal.  A
    /// field may come later than the first row.  Costs a few microseconds per ten words.
    pub fn push<'t>(
        &self,
        fields: &TextFields,
        text: impl Fn(&FieldName) -> Option<&'t str>,
    ) -> Result<u32, TextError> {
        let mut writer = self.writer.lock();
        let row = self.inner.read().rows;
        if row == MAX_ROWS {
            return Err(TextError::TooManyRows(MAX_ROWS));
        }
        for (name, analyzer) in fields.iter() {
            if let Some(text) = text(name) {
                writer.analyze(analyzer, text);
                let mut inner = self.inner.write();
                if !inner.fields.contains_key(name) {
                    inner.fields.insert(name.clone(), FreshField::default());
                }
                if let Some(field) = inner.fields.get_mut(name) {
                    field.append(row, &mut writer);
                }
            }
        }
        self.inner.write().rows = row + 1;
        Ok(row)
    }

    pub fn rows(&self) -> u32 {
        self.inner.read().rows
    }

    pub fn heap_size(&self) -> usize {
        let inner = self.inner.read();
        let of = |field: &FreshField| field.bytes + size_of::<FreshField>();
        inner.fields.values().map(of).sum::<usize>() + size_of::<Self>()
    }

    /// `None` when no row has had the field yet.
    pub(crate) fn read<R>(&self, field: &FieldName, read: impl FnOnce(&FreshField) -> R) -> Option<R> {
        self.inner.read().fields.get(field).map(read)
    }
}

impl std::fmt::Debug for FreshText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FreshText")
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl Writer {
    fn analyze(&mut self, analyzer: &Analyzer, text: &str) {
        let Self {
            analyzers,
            text: terms,
            tokens,
            ..
        } = self;
        terms.clear();
        tokens.clear();
        let own = analyzers
            .entry(analyzer.language())
            .or_insert_with(|| analyzer.clone());
        own.terms(text, |token| {
            terms.push_str(&token.text);
            tokens.push((terms.len() as u32, token.position as u32));
        });
    }
}

impl FreshField {
    fn append(&mut self, row: u32, writer: &mut Writer) {
        self.pad(row);
        writer.touched.clear();
        let mut start = 0;
        for &(end, position) in &writer.tokens {
            let number = self.number(&writer.text[start..end as usize]);
            start = end as usize;
            let list = &mut self.lists[number as usize];
            let before = list.capacity();
            if list.add(row, position) {
                writer.touched.push(number);
            }
            self.bytes += (list.capacity() - before) * size_of::<u32>();
        }
        let length = writer.tokens.len() as u32;
        let norm = norm_id(length);
        for &number in &writer.touched {
            let list = &mut self.lists[number as usize];
            list.peaks.see(list.frequency(list.docs.len() - 1), norm);
        }
        self.push_length(length, norm);
    }

    fn number(&mut self, term: &str) -> u32 {
        if let Some(&number) = self.numbers.get(term) {
            return number;
        }
        let number = self.lists.len() as u32;
        self.numbers.insert(term.into(), number);
        self.lists.push(List::new());
        // Key, its place in the table (half full on average) and the list's head.
        self.bytes += term.len() + 48 + size_of::<List>();
        number
    }

    /// Rows that did not have the field.
    fn pad(&mut self, row: u32) {
        while (self.lengths.len() as u32) < row {
            self.push_length(0, 0);
        }
    }

    fn push_length(&mut self, length: u32, norm: u8) {
        if self.lengths.len().is_multiple_of(MARK_EVERY) {
            self.marks.push(self.total);
            self.bytes += size_of::<FieldStats>();
        }
        self.lengths.push(length);
        self.norms.push(norm);
        self.total.add(FieldStats::of_length(length));
        self.bytes += size_of::<u32>() + 1;
    }

    /// Of the first `rows` rows, or those of them that are live.
    pub(crate) fn stats(&self, rows: u32, live: Option<&[u64]>) -> FieldStats {
        let mut stats = self.stats_of_all(rows);
        let lengths = &self.lengths[..(rows as usize).min(self.lengths.len())];
        for (at, word) in live.unwrap_or_default().iter().enumerate() {
            let mut dead = !word;
            while dead != 0 {
                let row = at * 64 + dead.trailing_zeros() as usize;
                dead &= dead - 1;
                let Some(&length) = lengths.get(row) else { break };
                stats.remove(FieldStats::of_length(length));
            }
        }
        stats
    }

    fn stats_of_all(&self, rows: u32) -> FieldStats {
        let rows = (rows as usize).min(self.lengths.len());
        if rows == self.lengths.len() {
            return self.total;
        }
        let mark = rows / MARK_EVERY;
        let mut stats = self.marks[mark];
        for &length in &self.lengths[mark * MARK_EVERY..rows] {
            stats.add(FieldStats::of_length(length));
        }
        stats
    }

    /// The list of a term, and how many rows of it count.
    pub(crate) fn find(&self, term: &str, rows: u32, live: Option<&[u64]>) -> Option<(u32, u64)> {
        let number = *self.numbers.get(term)?;
        let list = &self.lists[number as usize];
        let docs = &list.docs[..list.cut(rows)];
        let found = match live {
            None => docs.len(),
            Some(live) => {
                let is_live = |row: u32| {
                    live.get(row as usize / 64)
                        .is_some_and(|w| w >> (row % 64) & 1 == 1)
                };
                docs.iter().filter(|row| is_live(**row)).count()
            }
        };
        (found > 0).then_some((number, found as u64))
    }

    /// Norm ids of the first `rows` rows; rows past the end have none.
    pub(crate) fn norms(&self, rows: u32) -> Vec<u8> {
        let mut norms = self.norms[..(rows as usize).min(self.norms.len())].to_vec();
        norms.resize(rows as usize, 0);
        norms
    }

    pub(crate) fn list(&self, number: u32, rows: u32) -> (Vec<u32>, Vec<u32>, Peaks) {
        let list = &self.lists[number as usize];
        let found = list.cut(rows);
        let frequencies = (0..found).map(|at| list.frequency(at)).collect();
        (list.docs[..found].to_vec(), frequencies, list.peaks)
    }

    pub(crate) fn occurrences(&self, number: u32, rows: u32) -> Occurrences {
        let list = &self.lists[number as usize];
        let found = list.cut(rows);
        let end = found.checked_sub(1).map_or(0, |last| list.ends[last] as usize);
        Occurrences {
            docs: list.docs[..found].to_vec(),
            ends: list.ends[..found].to_vec(),
            positions: list.positions[..end].to_vec(),
        }
    }

    pub(crate) fn each_term(&self, rows: u32, mut each: impl FnMut(&str, u64)) {
        for (term, &number) in &self.numbers {
            let list = &self.lists[number as usize];
            // A term that came after the snapshot is not there yet.
            if list.docs.first().is_some_and(|&first| first < rows) {
                each(term, list.cut(rows) as u64);
            }
        }
    }
}

/// The positions of one term, row by row.
pub(crate) struct Occurrences {
    pub(crate) docs: Vec<u32>,
    pub(crate) ends: Vec<u32>,
    pub(crate) positions: Vec<u32>,
}

impl List {
    fn new() -> Self {
        Self {
            docs: Vec::with_capacity(1),
            ends: Vec::with_capacity(1),
            positions: Vec::with_capacity(1),
            peaks: Peaks::NONE,
        }
    }

    /// True when it is the row's first.
    fn add(&mut self, row: u32, position: u32) -> bool {
        self.positions.push(position);
        let end = self.positions.len() as u32;
        match (self.docs.last(), self.ends.last_mut()) {
            (Some(&last), Some(last_end)) if last == row => {
                *last_end = end;
                false
            }
            _ => {
                self.docs.push(row);
                self.ends.push(end);
                true
            }
        }
    }

    fn frequency(&self, at: usize) -> u32 {
        let before = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.ends[at] - before
    }

    fn cut(&self, rows: u32) -> usize {
        match self.docs.last() {
            Some(&last) if last < rows => self.docs.len(),
            _ => self.docs.partition_point(|&row| row < rows),
        }
    }

    fn capacity(&self) -> usize {
        self.docs.capacity() + self.ends.capacity() + self.positions.capacity()
    }
}

impl FieldStats {
    fn of_length(length: u32) -> Self {
        Self {
            docs: u64::from(length > 0),
            tokens: u64::from(length),
        }
    }
}
