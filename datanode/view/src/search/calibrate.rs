//! Measuring how far searches of a grid must go: queries whose answers are found by a scan
//! say which lists held them and how far off their estimates were.

use std::sync::Arc;

use rhumb_core::query::Accuracy;
use rhumb_core::{FieldName, Vector, VectorType};

use crate::ann::{Aim, Calibration, Grid, Limits, Lists, Needed};
use crate::error::ViewError;
use crate::rows::{RowRef, SegmentId};
use crate::score::Scorer;
use crate::snapshot::Snapshot;

use super::SearchSpec;
use super::exact::Scan;
use super::finalists::Finalists;

/// Hits per query that are looked at.
const HITS: usize = 10;

/// A query to calibrate with.
#[derive(Clone, Debug)]
pub struct CalibrationQuery {
    pub vector: Vector,
    /// The row it was made of, which is not to count as its answer.
    pub source: Option<RowRef>,
}

impl CalibrationQuery {
    /// For its hits and the row it was made of.
    fn asking<'a>(
        &'a self,
        field: &'a FieldName,
        ty: &'a VectorType,
        accuracy: Accuracy,
        cancel: &'a dyn Fn() -> bool,
    ) -> SearchSpec<'a> {
        SearchSpec {
            field,
            ty,
            query: &self.vector,
            k: HITS + 1,
            mask: None,
            accuracy,
            cancel,
        }
    }
}

impl Snapshot {
    /// Limits for the lists of `field` on `grid`, measured: one scan of all codes per query.
    /// `None` when no query found a listed row.
    pub fn calibrate(
        self: &Arc<Self>,
        field: &FieldName,
        grid: &Arc<Grid>,
        queries: &[CalibrationQuery],
        cancel: &dyn Fn() -> bool,
    ) -> Result<Option<Calibration>, ViewError> {
        let sealed = self
            .populated()
            .filter_map(|sealed| Some((sealed.id, sealed.segment.lists(field.as_str())?)));
        let stretches = self.fresh.iter().flat_map(|group| {
            let stretches = group.rows.stretches(field);
            let of_group = stretches.iter().map(|lists| (group.id, lists.clone()));
            of_group.collect::<Vec<_>>()
        });
        let parts: Vec<Sample> = sealed
            .chain(stretches)
            .filter_map(|(id, lists)| Sample::new(id, lists, grid))
            .collect();
        let reach = longest_reach(&parts);
        let mut needed = Needed::default();
        let mut known = Vec::with_capacity(queries.len());
        for query in queries {
            let hits = self.hits(field, grid.ty(), query, cancel)?;
            let Some(bar) = hits.iter().map(|(_, score)| *score).reduce(f32::min) else {
                continue;
            };
            let scorer = Scorer::new(grid.ty(), &query.vector)?;
            let Some(aim) = scorer.query().and_then(|query| Aim::new(grid, query)) else {
                continue;
            };
            for (row, _) in &hits {
                if let Some((part, list, position)) = parts.iter().find_map(|part| part.place(*row)) {
                    needed.reaches.push(aim.needed_reach(list, &reach, bar));
                    needed
                        .margins
                        .push(aim.needed_margin(&part.lists, list, position, bar));
                }
            }
            known.push((query, hits));
        }
        if needed.reaches.is_empty() {
            return Ok(None);
        }
        let found = |limits| self.found(field, grid.ty(), &known, limits, cancel);
        Calibration::measured(self.live_rows(), &mut needed, found).map(Some)
    }

    /// What share of the known hits searches within these limits find.
    fn found(
        self: &Arc<Self>,
        field: &FieldName,
        ty: &VectorType,
        known: &[(&CalibrationQuery, Vec<(RowRef, f32)>)],
        limits: Limits,
        cancel: &dyn Fn() -> bool,
    ) -> Result<f32, ViewError> {
        let (mut found, mut all) = (0, 0);
        for (query, hits) in known {
            let spec = query.asking(field, ty, Accuracy::Recall(1.0), cancel);
            let candidates = self.search_within(&spec, Some(limits))?;
            let is_found = |row: &RowRef| {
                candidates.uncertain.contains(row)
                    || candidates.certain.iter().any(|(certain, _)| certain == row)
            };
            found += hits.iter().filter(|(row, _)| is_found(row)).count();
            all += hits.len();
        }
        Ok(found as f32 / all.max(1) as f32)
    }

    /// The best rows but the query's own, as far as codes tell.
    fn hits(
        self: &Arc<Self>,
        field: &FieldName,
        ty: &VectorType,
        query: &CalibrationQuery,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Vec<(RowRef, f32)>, ViewError> {
        let scorer = Scorer::new(ty, &query.vector)?;
        let spec = query.asking(field, ty, Accuracy::Exact, cancel);
        let mut scan = Scan::new(&spec, &scorer, Finalists::new(self, HITS + 1), 0.0);
        for sealed in self.populated() {
            scan.sealed(sealed)?;
        }
        for group in &self.fresh {
            scan.fresh(group, 0)?;
        }
        let mut hits = scan.finalists.estimates();
        hits.retain(|(row, _)| Some(*row) != query.source);
        hits.truncate(HITS);
        Ok(hits)
    }
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

fn longest_reach(parts: &[Sample]) -> Vec<f32> {
    super::approximate::longest_reach(parts.iter().map(|part| &*part.lists))
}
