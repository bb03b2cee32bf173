//! Measuring how far searches of a grid must go: queries whose answers are found by a scan
//! say which lists held them and how far off their estimates were.

use std::sync::Arc;

use rhumb_core::query::Accuracy;
use rhumb_core::{FieldName, Vector};

use crate::ann::{Aim, Calibration, Grid, Limits, Lists, Needed};
use crate::error::ViewError;
use crate::filter::RowMask;
use crate::rows::{RowRef, SegmentId};
use crate::score::Scorer;
use crate::snapshot::Snapshot;

use super::SearchSpec;
use super::approximate::rows_per_list;
use super::exact::Scan;
use super::finalists::Finalists;

/// Hits per query that are looked at.
pub(super) const HITS: usize = 10;

/// A query to calibrate with.
#[derive(Clone, Debug)]
pub struct CalibrationQuery {
    pub vector: Vector,
    /// The row it was made of, which is not to count as its answer.
    pub source: Option<RowRef>,
}

/// Classes of filters that are measured, by the share of rows that pass.
const SHARES: [f32; 4] = [0.55, 0.27, 0.12, 0.05];
/// Of the class whose rows are not where the query is.
const ELSEWHERE: f32 = 0.01;
/// Queries per class of filters: searches under them are long.
const FILTERED_QUERIES: usize = 100;
/// Filters that go with the vectors.
const REGIONS: usize = 4;

impl Snapshot {
    /// Limits for the lists of `field` on `grid`, measured: one scan of all codes per query.
    /// With what was asked of the grid lately, once that is enough; `queries` until then.
    /// `None` when no query found a listed row.
    pub fn calibrate(
        self: &Arc<Self>,
        field: &FieldName,
        grid: &Arc<Grid>,
        queries: &[CalibrationQuery],
        cancel: &dyn Fn() -> bool,
    ) -> Result<Option<Calibration>, ViewError> {
        let measuring = Measuring::new(self, field, grid, cancel);
        let asked = grid.asked().queries().unwrap_or_default();
        let mut calibration = Calibration::new(self.live_rows(), asked.len() as u32);
        let asked = asked
            .into_iter()
            .map(|vector| CalibrationQuery { vector, source: None });
        let asked: Vec<_> = asked.collect();
        let queries = match asked.is_empty() {
            true => queries,
            false => &asked[..],
        };
        let all = [(None, queries)];
        if !measuring.class(&mut calibration, 1.0, &all)? {
            return Ok(None);
        }
        let some = spread(queries, FILTERED_QUERIES);
        for share in SHARES {
            let mask = measuring.scattered(share);
            measuring.class(&mut calibration, share, &[(Some(&mask), &some)])?;
        }
        // Where hardly a row passes the others are somewhere else, wherever that is.
        let regions = measuring.regions(queries)?;
        let askers = some.chunks(some.len().div_ceil(REGIONS).max(1));
        let cases: Vec<_> = regions.iter().map(Some).zip(askers).collect();
        measuring.class(&mut calibration, ELSEWHERE, &cases)?;
        Ok(Some(calibration))
    }
}

/// Some filter, or none, and queries to ask under it.
type Case<'c> = (Option<&'c RowMask>, &'c [CalibrationQuery]);

struct Measuring<'a> {
    snapshot: &'a Arc<Snapshot>,
    field: &'a FieldName,
    grid: &'a Arc<Grid>,
    parts: Vec<Sample>,
    cancel: &'a dyn Fn() -> bool,
}

/// A query and the best rows for it, as far as codes tell.
struct Known<'a> {
    spec: SearchSpec<'a>,
    hits: Vec<(RowRef, f32)>,
}

impl<'a> Measuring<'a> {
    fn new(
        snapshot: &'a Arc<Snapshot>,
        field: &'a FieldName,
        grid: &'a Arc<Grid>,
        cancel: &'a dyn Fn() -> bool,
    ) -> Self {
        let sealed = snapshot
            .populated()
            .filter_map(|sealed| Some((sealed.id, sealed.segment.lists(field.as_str())?)));
        let stretches = snapshot.fresh.iter().flat_map(|group| {
            let stretches = group.rows.stretches(field);
            let of_group = stretches.iter().map(|lists| (group.id, lists.clone()));
            of_group.collect::<Vec<_>>()
        });
        let parts: Vec<Sample> = sealed
            .chain(stretches)
            .filter_map(|(id, lists)| Sample::new(id, lists, grid))
            .collect();
        Self {
            snapshot,
            field,
            grid,
            parts,
            cancel,
        }
    }

    /// Adds a class to the calibration.  False when no query found a listed row.
    fn class(
        &self,
        calibration: &mut Calibration,
        share: f32,
        cases: &[Case<'_>],
    ) -> Result<bool, ViewError> {
        let mut needed = Needed::default();
        let mut known = Vec::new();
        for (mask, queries) in cases {
            let of_case = queries.iter().map(|query| self.known(query, *mask, &mut needed));
            let of_case = of_case.collect::<Result<Vec<_>, _>>()?;
            known.push(of_case.into_iter().flatten().collect::<Vec<_>>());
        }
        if needed.depths.is_empty() {
            return Ok(false);
        }
        // The hardest of the filters decides: nobody knows which one comes.
        let try_out = |limits| {
            let cases = known.iter().filter(|known| !known.is_empty());
            let found = cases.map(|of_case| self.try_out(of_case, limits));
            found.reduce(|a, b| Ok(a?.min(b?))).unwrap_or(Ok(0.0))
        };
        calibration.measure::<ViewError>(share, &mut needed, try_out)?;
        Ok(true)
    }

    /// The answer to a query, and what it needed.  `None` for one that has none.
    fn known<'q>(
        &'q self,
        query: &'q CalibrationQuery,
        mask: Option<&'q RowMask>,
        needed: &mut Needed,
    ) -> Result<Option<Known<'q>>, ViewError> {
        let spec = SearchSpec {
            field: self.field,
            ty: self.grid.ty(),
            query: &query.vector,
            // For its hits and the row it was made of.
            k: HITS + 1,
            mask,
            accuracy: Accuracy::Recall(1.0),
            cancel: self.cancel,
        };
        let hits = self.hits(&spec, query.source)?;
        let Some(bar) = hits.iter().map(|(_, score)| *score).reduce(f32::min) else {
            return Ok(None);
        };
        let Some(aim) = self.aim(query)? else {
            return Ok(None);
        };
        let before = self.rows_before(&aim);
        for (row, _) in &hits {
            if let Some((part, list, position)) = self.place(*row) {
                needed.depths.push(aim.needed_depth(list, bar, before[list]));
                let margin = aim.needed_margin(&part.lists, list, position, bar);
                needed.margins.push(margin);
            }
        }
        Ok(Some(Known { spec, hits }))
    }

    /// What share of the known hits searches within these limits find.
    fn try_out(&self, known: &[Known<'_>], limits: Limits) -> Result<f32, ViewError> {
        let (mut all, mut found) = (0, 0);
        for Known { spec, hits } in known {
            let candidates = self.snapshot.search_within(spec, Some(limits))?;
            let is_found = |row: &RowRef| {
                candidates.uncertain.contains(row)
                    || candidates.certain.iter().any(|(certain, _)| certain == row)
            };
            all += hits.len();
            found += hits.iter().filter(|(row, _)| is_found(row)).count();
        }
        Ok(found as f32 / all.max(1) as f32)
    }

    /// How many lists a search has gone through when it comes to each, as rows make lists.
    fn rows_before(&self, aim: &Aim) -> Vec<f32> {
        let order = in_order(aim.keys());
        let of_a_list = rows_per_list(self.listed(), order.len());
        let mut before = vec![0.0; order.len()];
        let mut rows = 0;
        for list in order {
            before[list] = rows as f32 / of_a_list;
            rows += self.rows_of(list);
        }
        before
    }

    /// The query as the grid sees it; `None` when it cannot place it.
    fn aim(&self, query: &CalibrationQuery) -> Result<Option<Aim>, ViewError> {
        let scorer = Scorer::new(self.grid.ty(), &query.vector)?;
        Ok(scorer.query().and_then(|query| Aim::new(self.grid, query)))
    }

    /// Rows in lists.
    fn listed(&self) -> u64 {
        let listed = self.parts.iter().map(|part| u64::from(part.lists.listed()));
        listed.sum()
    }

    /// The part, list and position of a row that stands in one.
    fn place(&self, row: RowRef) -> Option<(&Sample, usize, usize)> {
        self.parts.iter().find_map(|part| part.place(row))
    }

    fn rows_of(&self, list: usize) -> usize {
        self.parts.iter().map(|part| part.lists.rows_of(list).len()).sum()
    }

    /// The best rows but the query's own, as far as codes tell.
    fn hits(&self, spec: &SearchSpec<'_>, source: Option<RowRef>) -> Result<Vec<(RowRef, f32)>, ViewError> {
        let scorer = Scorer::new(spec.ty, spec.query)?;
        let mut scan = Scan::new(spec, &scorer, Finalists::new(self.snapshot, spec.k), 0.0);
        for sealed in self.snapshot.populated() {
            scan.sealed(sealed)?;
        }
        for group in &self.snapshot.fresh {
            scan.fresh(group, 0)?;
        }
        let mut hits = scan.finalists.estimates();
        hits.retain(|(row, _)| Some(*row) != source);
        hits.truncate(HITS);
        Ok(hits)
    }

    /// A filter that has nothing to do with the vectors.
    fn scattered(&self, share: f32) -> RowMask {
        let below = (f64::from(share) * f64::from(u32::MAX)) as u32;
        RowMask::choose(self.snapshot, |row| {
            let mixed = row.pack().wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32 < u64::from(below)
        })
    }

    /// Filters that keep what lies around some of the queries: for most of the others that
    /// is far away.
    fn regions(&self, queries: &[CalibrationQuery]) -> Result<Vec<RowMask>, ViewError> {
        let shares = SHARES.into_iter().cycle();
        let regions = spread(queries, REGIONS).into_iter().rev().zip(shares);
        let region = |(query, share): (CalibrationQuery, f32)| {
            let aim = self.aim(&query)?;
            Ok(aim.map(|aim| self.around(&aim, share)))
        };
        let regions: Result<Vec<_>, ViewError> = regions.map(region).collect();
        Ok(regions?.into_iter().flatten().collect())
    }

    /// The rows of the nearest lists, up to a share of all.
    fn around(&self, aim: &Aim, share: f32) -> RowMask {
        let order = in_order(aim.keys());
        let mut left = (self.listed() as f64 * f64::from(share)) as usize;
        let mut chosen = vec![false; order.len()];
        for list in order {
            chosen[list] = left > 0;
            left = left.saturating_sub(self.rows_of(list));
        }
        RowMask::choose(self.snapshot, |row| {
            let place = self.place(row);
            place.is_some_and(|(_, list, _)| chosen[list])
        })
    }
}

/// Lists by their keys, best first.
fn in_order(keys: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by(|&a, &b| keys[a].total_cmp(&keys[b]));
    order
}

/// Up to `n` of them, from all over.
fn spread(queries: &[CalibrationQuery], n: usize) -> Vec<CalibrationQuery> {
    let n = n.min(queries.len());
    (0..n).map(|i| queries[i * queries.len() / n].clone()).collect()
}

/// Lists on the grid, and where their rows stand in them.
struct Sample {
    id: SegmentId,
    lists: Arc<Lists>,
    places: Vec<(u32, u32)>,
}

impl Sample {
    fn new(id: SegmentId, lists: Arc<Lists>, grid: &Grid) -> Option<Self> {
        let places = (lists.grid().id() == grid.id()).then(|| lists.places())?;
        Some(Self { id, lists, places })
    }

    /// The list and position of a row that stands in one here.
    fn place(&self, row: RowRef) -> Option<(&Self, usize, usize)> {
        let (list, position) = *self.places.get(row.ordinal as usize)?;
        (self.id == row.segment && list != u32::MAX).then_some((self, list as usize, position as usize))
    }
}
