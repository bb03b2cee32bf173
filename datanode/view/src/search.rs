//! Exact nearest neighbours through codes.
//!
//! Every live row with a vector gets a lower and an upper bound of its score; a row is
//! dropped only when its upper bound is below k lower bounds, so no hit is ever lost.
//! Fresh rows and rows whose codes are their vectors are scored here; of the others only
//! those that may still be hits are left for the caller to fetch and score.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

use rhumb_core::{DocId, FieldName, Vector, VectorType};

use crate::bits::{LiveBits, Ones, word_bit};
use crate::codes::{Bounds, Codes, CodesRef, Packed, Probe, Scaled, pack_words};
use crate::error::ViewError;
use crate::filter::RowMask;
use crate::kernels::kernels;
use crate::keys::KeyRef;
use crate::rows::{RowRef, SegmentId};
use crate::score::{Scorer, hamming_score, score_of};
use crate::snapshot::{FreshGroup, Sealed, Snapshot};

/// Rows per kernel call, and between two looks at `cancel`.
const BLOCK: usize = 1_024;

pub struct SearchSpec<'a> {
    pub field: &'a FieldName,
    pub ty: &'a VectorType,
    pub query: &'a Vector,
    pub k: usize,
    /// Of the same snapshot.
    pub mask: Option<&'a RowMask>,
    /// Asked every thousand rows or so; true ends the search with `Cancelled`.
    pub cancel: &'a dyn Fn() -> bool,
}

/// The rows that can be among the best k.
#[derive(Debug)]
pub struct Candidates {
    snapshot: Arc<Snapshot>,
    k: usize,
    /// With their scores.
    pub certain: Vec<(RowRef, f32)>,
    /// To be scored with [`Scorer`] from their stored vectors; most promising first.
    pub uncertain: Vec<RowRef>,
    /// Rows whose codes were read.
    pub rows_scanned: u64,
    /// Fresh rows looked at.
    pub fresh_scanned: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub id: DocId,
    pub row: RowRef,
    pub score: f32,
}

impl Snapshot {
    /// O(rows of `mask`).  `NotLoaded` when codes are missing, see `missing_codes`.
    pub fn search(self: &Arc<Self>, spec: &SearchSpec<'_>) -> Result<Candidates, ViewError> {
        let scorer = Scorer::new(spec.ty, spec.query)?;
        let finalists = Finalists::new(self, spec.k);
        let mut scan = Scan {
            spec,
            scorer: &scorer,
            finalists,
            probe: None,
            rows: 0,
        };
        if spec.k > 0 {
            // Fresh rows first: exact scores raise the bar for everyone after them.
            for group in &self.fresh {
                scan.fresh(group)?;
            }
        }
        let fresh_scanned = std::mem::take(&mut scan.rows);
        if spec.k > 0 {
            for sealed in self.populated() {
                scan.sealed(sealed)?;
            }
        }
        let rows_scanned = scan.rows;
        let (certain, uncertain) = scan.finalists.finish(&scorer, spec.field);
        Ok(Candidates {
            snapshot: self.clone(),
            k: spec.k,
            certain,
            uncertain,
            rows_scanned,
            fresh_scanned,
        })
    }

    pub(crate) fn key(&self, row: RowRef) -> Option<KeyRef<'_>> {
        match row.segment.is_fresh() {
            true => self.fresh_row(row).map(|fresh| KeyRef::of(&fresh.id)),
            false => self
                .segment(row.segment)
                .map(|sealed| sealed.segment.keys().get(row.ordinal)),
        }
    }

    /// Best first: the higher score, then the smaller id.
    fn by_rank(&self, a: &(RowRef, f32), b: &(RowRef, f32)) -> Ordering {
        b.1.total_cmp(&a.1)
            .then_with(|| self.key(a.0).cmp(&self.key(b.0)))
    }

    fn keep_best(&self, rows: &mut Vec<(RowRef, f32)>, k: usize) {
        if k < rows.len() {
            rows.select_nth_unstable_by(k, |a, b| self.by_rank(a, b));
            rows.truncate(k);
        }
    }
}

impl Candidates {
    /// The k best hits, best first.  `scores` has every row of `uncertain`, in any order.
    pub fn finish(self, scores: &[(RowRef, f32)]) -> Result<Vec<Hit>, ViewError> {
        let scores: BTreeMap<RowRef, f32> = scores.iter().copied().collect();
        let mut rows = self.certain;
        for row in self.uncertain {
            let score = scores.get(&row).ok_or(ViewError::Unscored(row))?;
            rows.push((row, *score));
        }
        let snapshot = &self.snapshot;
        snapshot.keep_best(&mut rows, self.k);
        rows.sort_unstable_by(|a, b| snapshot.by_rank(a, b));
        let hit = |(row, score)| snapshot.row_id(row).map(|id| Hit { id, row, score });
        Ok(rows.into_iter().filter_map(hit).collect())
    }
}

struct Scan<'a> {
    spec: &'a SearchSpec<'a>,
    scorer: &'a Scorer<'a>,
    finalists: Finalists<'a>,
    /// The query as the field's codes see it.
    probe: Option<Probe>,
    rows: u64,
}

impl<'a> Scan<'a> {
    fn fresh(&mut self, group: &'a FreshGroup) -> Result<(), ViewError> {
        let mask = self.spec.mask.map(|mask| mask.part(group.id));
        for part in group.rows.parts(self.spec.field, self.spec.ty) {
            let part = part?;
            match &part.codes {
                Some(codes) => {
                    let (id, live, first) = (group.id, &group.live, part.rows.start);
                    self.stretch(&Stretch {
                        id,
                        first,
                        live,
                        mask,
                        codes,
                    })?;
                }
                None => self.without_codes(group, part.rows, mask)?,
            }
        }
        Ok(())
    }

    fn without_codes(
        &mut self,
        group: &'a FreshGroup,
        rows: Range<u32>,
        mask: Option<&[u64]>,
    ) -> Result<(), ViewError> {
        self.look_at_cancel()?;
        for ordinal in rows {
            let wanted = group.live.get(ordinal) && mask.is_none_or(|words| word_bit(words, ordinal));
            if wanted && let Some(score) = group.rows.row(ordinal).score(self.scorer, self.spec.field) {
                self.rows += 1;
                self.finalists.offer_exact(RowRef::new(group.id, ordinal), score);
            }
        }
        Ok(())
    }

    fn sealed(&mut self, sealed: &'a Sealed) -> Result<(), ViewError> {
        let segment = &sealed.segment;
        let Some(codes) = segment.codes(self.spec.field.as_str()) else {
            let field = self.spec.field.clone();
            return Err(ViewError::NotLoaded {
                fragment: segment.fragment(),
                field,
            });
        };
        if !codes.is_of(self.spec.ty) {
            return Err(ViewError::VectorShape);
        }
        let mask = self.spec.mask.map(|mask| mask.part(sealed.id));
        self.stretch(&Stretch {
            id: sealed.id,
            first: 0,
            live: &sealed.live,
            mask,
            codes: &codes,
        })?;
        self.finalists.scanned.insert(sealed.id, codes);
        Ok(())
    }

    fn stretch(&mut self, stretch: &Stretch<'_>) -> Result<(), ViewError> {
        match stretch.codes.body() {
            CodesRef::Scaled(scaled) => self.scaled(stretch, scaled),
            CodesRef::Packed(packed) => self.packed(stretch, packed),
        }
    }

    fn scaled(&mut self, stretch: &Stretch<'_>, scaled: &Scaled) -> Result<(), ViewError> {
        let probe = match self.probe.take() {
            Some(probe) => probe,
            None => Probe::new(self.spec.ty.metric, self.scorer, scaled).ok_or(ViewError::VectorShape)?,
        };
        let mut dots = [0; BLOCK];
        let scanned = self.blocks(stretch, |finalists, rows| {
            let dots = &mut dots[..rows.len()];
            (kernels().dot_rows)(&probe.query, &scaled.codes, rows, dots);
            for (&row, &dot) in rows.iter().zip(dots.iter()) {
                let bounds = probe.bounds(&scaled.rows[row as usize], dot);
                finalists.offer(stretch.row(row), bounds);
            }
        });
        self.probe = Some(probe);
        scanned
    }

    fn packed(&mut self, stretch: &Stretch<'_>, packed: &Packed) -> Result<(), ViewError> {
        let Vector::Bits(query) = self.spec.query else {
            return Err(ViewError::VectorShape);
        };
        let query: Vec<u64> = pack_words(query).collect();
        let mut differing = [0; BLOCK];
        self.blocks(stretch, |finalists, rows| {
            let differing = &mut differing[..rows.len()];
            (kernels().hamming_rows)(&query, &packed.words, rows, differing);
            for (&row, &differing) in rows.iter().zip(differing.iter()) {
                finalists.offer_exact(stretch.row(row), hamming_score(differing));
            }
        })
    }

    /// Rows of the codes that are alive and of the mask, a block at a time.
    fn blocks(
        &mut self,
        stretch: &Stretch<'_>,
        mut block: impl FnMut(&mut Finalists<'a>, &[u32]),
    ) -> Result<(), ViewError> {
        let mut rows = Vec::with_capacity(BLOCK);
        for (at, &present) in stretch.codes.present().words().iter().enumerate() {
            rows.extend(Ones {
                word: present & stretch.wanted(at),
                base: at as u32 * u64::BITS,
            });
            if rows.len() + u64::BITS as usize > BLOCK {
                self.look_at_cancel()?;
                self.rows += rows.len() as u64;
                block(&mut self.finalists, &rows);
                rows.clear();
            }
        }
        self.look_at_cancel()?;
        self.rows += rows.len() as u64;
        block(&mut self.finalists, &rows);
        Ok(())
    }

    fn look_at_cancel(&self) -> Result<(), ViewError> {
        match (self.spec.cancel)() {
            true => Err(ViewError::Cancelled),
            false => Ok(()),
        }
    }
}

/// Codes and the rows they are of: a segment, or a full chunk of a fresh group.
struct Stretch<'a> {
    id: SegmentId,
    /// The ordinal of the codes' row 0, a multiple of 64.
    first: u32,
    live: &'a LiveBits,
    mask: Option<&'a [u64]>,
    codes: &'a Codes,
}

impl Stretch<'_> {
    fn row(&self, row: u32) -> RowRef {
        RowRef::new(self.id, self.first + row)
    }

    /// Live rows of the mask among the 64 from row `64 * at` of the codes.
    fn wanted(&self, at: usize) -> u64 {
        let at = self.first as usize / u64::BITS as usize + at;
        let allowed = self
            .mask
            .map_or(u64::MAX, |words| words.get(at).copied().unwrap_or(0));
        self.live.word(at) & allowed
    }
}

/// Rows that nothing so far has ruled out.
struct Finalists<'a> {
    snapshot: &'a Snapshot,
    k: usize,
    /// The k largest lower bounds.
    lows: BinaryHeap<Reverse<Ordered>>,
    /// The smallest of them once there are k: k rows are at least this good.
    bar: f32,
    /// Whatever is below rounds to less than `bar`.
    floor: f64,
    certain: Vec<(RowRef, f32)>,
    /// The last of the k best exact rows when `certain` was last pruned.
    cut: Option<(RowRef, f32)>,
    uncertain: Vec<(RowRef, f32)>,
    scanned: BTreeMap<SegmentId, Arc<Codes>>,
}

/// Pruning starts here, so that small k do not prune at every row.
const SLACK: usize = 1_024;

impl<'a> Finalists<'a> {
    fn new(snapshot: &'a Snapshot, k: usize) -> Self {
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
    fn offer(&mut self, row: RowRef, bounds: Bounds) {
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

    fn offer_exact(&mut self, row: RowRef, score: f32) {
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

    /// Rows that are scored, and rows left to score, best upper bound first.
    fn finish(mut self, scorer: &Scorer<'_>, field: &FieldName) -> (Vec<(RowRef, f32)>, Vec<RowRef>) {
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
        left.sort_by(|a, b| b.1.total_cmp(&a.1));
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
