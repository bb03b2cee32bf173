//! The search: window by window over the rows, list by list within one.
//!
//! A window's sums fit the fastest cache.  Lists whose greatest values together cannot
//! reach the k-th best score are not read: they only add to rows that another list found.

use std::cmp::Ordering;
use std::ops::Range;

use rhumb_core::{FieldName, SparseVector, Value};

use super::best::Best;
use super::index::{List, SparseIndex};
use crate::bits::{LiveBits, Ones, mask_word, word_bit};
use crate::error::ViewError;
use crate::filter::RowMask;
use crate::rows::{RowRef, SegmentId};
use crate::score::score_of;
use crate::search::Hit;
use crate::snapshot::{FreshGroup, Sealed, Snapshot};

const WORDS: usize = 64;
const WINDOW: usize = WORDS * u64::BITS as usize;

pub struct SparseSpec<'a> {
    pub field: &'a FieldName,
    pub query: &'a SparseVector,
    pub k: usize,
    /// Of the same snapshot.
    pub mask: Option<&'a RowMask>,
    /// Asked every few thousand rows; true ends the search with `Cancelled`.
    pub cancel: &'a dyn Fn() -> bool,
}

#[derive(Debug)]
pub struct SparseFound {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Rows that share an index with the query in the lists that were read, and fresh rows
    /// that were looked at.
    pub rows_scanned: u64,
}

impl Snapshot {
    /// `NotLoaded` when the lists of a segment are missing, see `missing_sparse`.
    pub fn search_sparse(&self, spec: &SparseSpec<'_>) -> Result<SparseFound, ViewError> {
        let mut search = Search {
            spec,
            best: Best::new(self, spec.k),
            sums: Box::new([0.0; WINDOW]),
            rows: 0,
        };
        for group in &self.fresh {
            search.fresh(group)?;
        }
        for sealed in self.populated() {
            search.sealed(sealed)?;
        }
        let rows_scanned = search.rows;
        let hit = |(row, score)| self.row_id(row).map(|id| Hit { id, row, score });
        Ok(SparseFound {
            hits: search.best.finish().into_iter().filter_map(hit).collect(),
            rows_scanned,
        })
    }
}

/// The dot product; `None` when no index is in both.
fn dot(query: &SparseVector, vector: &SparseVector) -> Option<f64> {
    let (mut q, mut v) = (query.elements(), vector.elements());
    let mut sum = None;
    while let ([(qi, qx), q_rest @ ..], [(vi, vx), v_rest @ ..]) = (q, v) {
        match qi.cmp(vi) {
            Ordering::Less => q = q_rest,
            Ordering::Greater => v = v_rest,
            Ordering::Equal => {
                sum = Some(sum.unwrap_or(0.0) + f64::from(*qx) * f64::from(*vx));
                (q, v) = (q_rest, v_rest);
            }
        }
    }
    sum
}

struct Search<'a> {
    spec: &'a SparseSpec<'a>,
    best: Best<'a>,
    /// Of the window at hand; all zero between windows.
    sums: Box<[f64; WINDOW]>,
    rows: u64,
}

/// Lists and the rows they are of.
struct Stretch<'a> {
    id: SegmentId,
    /// The ordinal of the lists' row 0, a multiple of 64.
    first: u32,
    live: &'a LiveBits,
    mask: Option<&'a [u64]>,
}

impl Stretch<'_> {
    /// Live rows of the mask among the 64 from row `64 * at` of the lists.
    fn wanted(&self, at: usize) -> u64 {
        let at = self.first as usize / u64::BITS as usize + at;
        self.live.word(at) & mask_word(self.mask, at)
    }
}

/// The lists of a query in one index.
struct Terms<'a> {
    /// In the order of the indices.
    all: Vec<Term<'a>>,
    /// Their places, those that can add least first: they are the ones to leave unread.
    by_most: Vec<usize>,
    /// More than sums in two orders can differ by.
    slack: f64,
}

impl<'a> Terms<'a> {
    fn new(query: &SparseVector, index: &'a SparseIndex) -> Self {
        let mut all: Vec<Term<'_>> = Vec::with_capacity(query.len());
        let mut slack = 0.0;
        for (at, weight) in query.elements() {
            if let Some(list) = index.list(*at) {
                let weight = f64::from(*weight);
                let (low, high) = (weight * f64::from(list.range.0), weight * f64::from(list.range.1));
                slack += 1e-11 * low.abs().max(high.abs());
                all.push(Term {
                    list,
                    weight,
                    most: low.max(high).max(0.0),
                    at: 0,
                });
            }
        }
        let mut by_most: Vec<usize> = (0..all.len()).collect();
        by_most.sort_by(|a, b| all[*a].most.total_cmp(&all[*b].most));
        Self { all, by_most, slack }
    }

    /// Terms that need not be read to find rows above `floor`, and what they could add.
    fn unread(&self, floor: f64) -> (&[usize], f64) {
        let (mut count, mut sum) = (0, self.slack);
        for &at in &self.by_most {
            let with = sum + self.all[at].most;
            if with >= floor {
                break;
            }
            (count, sum) = (count + 1, with);
        }
        (&self.by_most[..count], sum)
    }

    /// A row's sum over all terms, in the order of the indices.
    fn whole_sum(&self, spans: &[Range<usize>], ordinal: u32) -> f64 {
        let mut sum = 0.0;
        for (term, span) in self.all.iter().zip(spans) {
            if let Ok(at) = term.list.ordinals[span.clone()].binary_search(&ordinal) {
                sum += term.weight * f64::from(term.list.values[span.start + at]);
            }
        }
        sum
    }
}

/// A list of the query, in the order of the indices.
struct Term<'a> {
    list: List<'a>,
    weight: f64,
    /// What it can add to a row at most; not negative.
    most: f64,
    /// Everything before is in windows gone by.
    at: usize,
}

impl Term<'_> {
    /// Its part of the rows up to `end`.
    fn window(&mut self, begin: u32, end: u32) -> Range<usize> {
        let rest = &self.list.ordinals[self.at..];
        // A window that was skipped left its rows behind.
        let skipped = match rest.first() {
            Some(first) if *first < begin => rest.partition_point(|o| *o < begin),
            _ => 0,
        };
        let start = self.at + skipped;
        let len = self.list.ordinals[start..].partition_point(|o| *o < end);
        self.at = start + len;
        start..start + len
    }
}

impl<'a> Search<'a> {
    fn fresh(&mut self, group: &'a FreshGroup) -> Result<(), ViewError> {
        let mask = self.spec.mask.map(|mask| mask.part(group.id));
        for (rows, index) in group.rows.sparse_parts(self.spec.field) {
            self.look_at_cancel()?;
            match index {
                Some(index) => {
                    let stretch = Stretch {
                        id: group.id,
                        first: rows.start,
                        live: &group.live,
                        mask,
                    };
                    self.lists(&stretch, &index)?;
                }
                None => self.one_by_one(group, rows, mask),
            }
        }
        Ok(())
    }

    fn one_by_one(&mut self, group: &FreshGroup, rows: Range<u32>, mask: Option<&[u64]>) {
        for ordinal in rows {
            let wanted = group.live.get(ordinal) && mask.is_none_or(|words| word_bit(words, ordinal));
            let document = group.rows.row(ordinal).document.as_ref().filter(|_| wanted);
            let value = document.and_then(|document| document.get(self.spec.field.as_str()));
            if let Some(Value::Sparse(vector)) = value {
                self.rows += 1;
                if let Some(sum) = dot(self.spec.query, vector) {
                    self.best.offer(RowRef::new(group.id, ordinal), score_of(sum));
                }
            }
        }
    }

    fn sealed(&mut self, sealed: &Sealed) -> Result<(), ViewError> {
        let segment = sealed.segment();
        let Some(index) = segment.sparse(self.spec.field.as_str()) else {
            return Err(ViewError::NotLoaded {
                fragment: segment.fragment(),
                field: self.spec.field.clone(),
            });
        };
        let stretch = Stretch {
            id: sealed.id,
            first: 0,
            live: &sealed.live,
            mask: self.spec.mask.map(|mask| mask.part(sealed.id)),
        };
        self.lists(&stretch, &index)
    }

    fn lists(&mut self, stretch: &Stretch<'_>, index: &SparseIndex) -> Result<(), ViewError> {
        let mut terms = Terms::new(self.spec.query, index);
        for begin in (0..index.rows()).step_by(WINDOW) {
            let first = begin as usize / u64::BITS as usize;
            if (first..first + WORDS).any(|at| stretch.wanted(at) != 0) {
                self.look_at_cancel()?;
                self.window(stretch, &mut terms, begin);
            }
        }
        Ok(())
    }

    fn window(&mut self, stretch: &Stretch<'_>, terms: &mut Terms<'_>, begin: u32) {
        let end = begin.saturating_add(WINDOW as u32);
        let spans: Vec<Range<usize>> = terms.all.iter_mut().map(|term| term.window(begin, end)).collect();
        let (unread, could_add) = terms.unread(self.best.floor());
        let mut touched = [0_u64; WORDS];
        for (at, (term, span)) in terms.all.iter().zip(&spans).enumerate() {
            if unread.contains(&at) {
                continue;
            }
            let (ordinals, values) = (&term.list.ordinals[span.clone()], &term.list.values[span.clone()]);
            for (ordinal, value) in ordinals.iter().zip(values) {
                let row = (ordinal - begin) as usize;
                self.sums[row] += term.weight * f64::from(*value);
                touched[row / 64] |= 1 << (row % 64);
            }
        }
        for (word, bits) in touched.into_iter().enumerate() {
            let wanted = stretch.wanted(begin as usize / 64 + word);
            let base = (word * 64) as u32;
            self.rows += u64::from(bits.count_ones());
            for row in (Ones { word: bits, base }) {
                let sum = std::mem::take(&mut self.sums[row as usize]);
                if wanted >> (row - base) & 1 == 0 || sum + could_add < self.best.floor() {
                    continue;
                }
                let sum = match unread.is_empty() {
                    true => sum,
                    false => terms.whole_sum(&spans, begin + row),
                };
                let row = RowRef::new(stretch.id, stretch.first + begin + row);
                self.best.offer(row, score_of(sum));
            }
        }
    }

    fn look_at_cancel(&self) -> Result<(), ViewError> {
        match (self.spec.cancel)() {
            true => Err(ViewError::Cancelled),
            false => Ok(()),
        }
    }
}
