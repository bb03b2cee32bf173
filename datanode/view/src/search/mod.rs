//! Nearest neighbours.
//!
//! *Exact* (`exact`): every live row with a vector gets a lower and an upper bound of its
//! score from its code; a row is dropped only when its upper bound is below k lower
//! bounds, so no hit is ever lost.  *Approximate* (`approximate`): where parts have lists
//! on a grid, only the lists that can hold hits are looked at, and bounds are as wide as
//! codes are off in practice.  Both feed the same `finalists`, and every returned score is
//! of a stored vector: fresh rows and rows whose codes are their vectors are scored here,
//! the others are left for the caller to fetch and score.

mod approximate;
mod calibrate;
mod exact;
mod finalists;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rhumb_core::query::Accuracy;
use rhumb_core::{DocId, FieldName, Vector, VectorType};

use crate::ann::Limits;
use crate::error::ViewError;
use crate::filter::RowMask;
use crate::keys::KeyRef;
use crate::rows::RowRef;
use crate::score::Scorer;
use crate::snapshot::Snapshot;

use approximate::{Course, Listed};
use exact::Scan;
use finalists::Finalists;

pub use calibrate::CalibrationQuery;

/// An error of a code is as random as the row: of its bound, the length of the error
/// vector, a share of 1/√dim is one standard deviation.  This many are trusted.
const DEVIATIONS: f64 = 2.5;

/// Fewer rows are scanned as fast as they are looked up in lists.
const LEAST_LISTED: u64 = 2_000;

/// Survivors of a filter that are scanned one by one as fast as lists find the best of
/// them, and without missing any.
const FEW_SURVIVORS: u64 = 1_500;

pub struct SearchSpec<'a> {
    pub field: &'a FieldName,
    pub ty: &'a VectorType,
    pub query: &'a Vector,
    pub k: usize,
    /// Of the same snapshot.
    pub mask: Option<&'a RowMask>,
    /// Less than exact saves time where segments and fresh rows have lists.
    pub accuracy: Accuracy,
    /// Asked every thousand rows or so; true ends the search with `Cancelled`.
    pub cancel: &'a dyn Fn() -> bool,
}

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
    /// Fresh rows looked at that no list held.
    pub fresh_scanned: u64,
    /// Rows whose score was only estimated, in the lists that were looked at; 0 for an
    /// exact search.
    pub rows_estimated: u64,
    /// It is time to call [`Snapshot::calibrate`].
    pub calibration_due: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub id: DocId,
    pub row: RowRef,
    pub score: f32,
}

/// Rows that a search has touched.
#[derive(Clone, Copy, Debug, Default)]
struct Touched {
    fresh: u64,
    estimated: u64,
}

impl Snapshot {
    /// O(rows of `mask`) when exact, far less where lists are attached.  `NotLoaded` when
    /// codes are missing, see `missing_codes`.
    pub fn search(self: &Arc<Self>, spec: &SearchSpec<'_>) -> Result<Candidates, ViewError> {
        self.search_within(spec, None)
    }

    fn search_within(
        self: &Arc<Self>,
        spec: &SearchSpec<'_>,
        limits: Option<Limits>,
    ) -> Result<Candidates, ViewError> {
        let scorer = Scorer::new(spec.ty, spec.query)?;
        let trust = match spec.accuracy {
            Accuracy::Exact => 1.0,
            Accuracy::Recall(_) | Accuracy::Effort(_) => {
                (DEVIATIONS / f64::from(spec.ty.dim).sqrt()).min(1.0)
            }
        };
        let mut scan = Scan::new(spec, &scorer, Finalists::new(self, spec.k), trust);
        scan.limits = limits;
        let mut touched = Touched::default();
        if spec.k > 0 {
            touched = self.search_parts(&mut scan)?;
        }
        let rows_scanned = scan.rows - touched.fresh;
        let calibration_due = scan.calibration_due;
        let (certain, mut uncertain) = scan.finalists.finish(&scorer, spec.field);
        if touched.estimated > 0 {
            uncertain.truncate((2 * spec.k).max(20));
        }
        Ok(Candidates {
            snapshot: self.clone(),
            k: spec.k,
            certain,
            uncertain,
            rows_scanned,
            fresh_scanned: touched.fresh,
            rows_estimated: touched.estimated,
            calibration_due,
        })
    }

    fn search_parts<'a>(self: &'a Arc<Self>, scan: &mut Scan<'a>) -> Result<Touched, ViewError> {
        let listed = self.listed(scan)?;
        let courses = Course::plan(scan, listed);
        let listed = |id| {
            let parts = courses.iter().flat_map(|course| &course.parts);
            parts.filter(move |part| part.id == id)
        };
        // Fresh rows first: exact scores raise the bar for everyone after them.
        for group in &self.fresh {
            let end = listed(group.id).map(|part| part.lists.rows()).max();
            scan.fresh(group, end.unwrap_or(0))?;
        }
        let fresh = scan.rows;
        for sealed in self
            .populated()
            .filter(|sealed| listed(sealed.id).next().is_none())
        {
            scan.sealed(sealed)?;
        }
        let mut estimated = 0;
        for course in &courses {
            estimated += course.walk(scan)?;
        }
        Ok(Touched { fresh, estimated })
    }

    /// The parts that this search goes through by their lists.
    fn listed<'a>(self: &'a Arc<Self>, scan: &mut Scan<'a>) -> Result<Vec<Listed<'a>>, ViewError> {
        let spec = scan.spec;
        let few = || spec.mask.is_some_and(|mask| mask.count() <= FEW_SURVIVORS);
        if spec.accuracy == Accuracy::Exact || matches!(spec.accuracy, Accuracy::Recall(_)) && few() {
            return Ok(Vec::new());
        }
        let mut listed = Vec::new();
        let mut rows = 0;
        for sealed in self.populated() {
            let lists = sealed.segment.lists(spec.field.as_str());
            if let Some(lists) = lists.filter(|lists| lists.grid().is_of(spec.ty)) {
                rows += u64::from(lists.listed());
                listed.push(Listed::sealed(scan, sealed, lists)?);
            }
        }
        for group in self.fresh.iter().filter(|group| group.live.count() > 0) {
            let stretches = group.rows.stretches(spec.field);
            if stretches.is_empty() || !stretches.iter().all(|lists| lists.grid().is_of(spec.ty)) {
                continue;
            }
            let codes = Arc::new(
                group
                    .rows
                    .parts(spec.field, spec.ty, 0)
                    .collect::<Result<Vec<_>, _>>()?,
            );
            for lists in stretches.iter() {
                rows += u64::from(lists.listed());
                listed.push(Listed::fresh(scan, group, lists.clone(), codes.clone()));
            }
        }
        let worth = match spec.accuracy {
            Accuracy::Effort(_) => true,
            Accuracy::Recall(_) | Accuracy::Exact => rows >= LEAST_LISTED.max(8 * spec.k as u64),
        };
        Ok(if worth { listed } else { Vec::new() })
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
