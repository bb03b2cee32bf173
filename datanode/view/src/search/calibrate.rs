//! Measuring how far searches of a grid must go: queries whose answers are found by a scan
//! say which lists held them and how far off their estimates were.

use std::sync::Arc;

use rhumb_core::query::Accuracy;
use rhumb_core::{FieldName, Vector, VectorType};

use crate::ann::{Aim, Calibration, Grid, Lists};
use crate::error::ViewError;
use crate::rows::RowRef;
use crate::score::Scorer;
use crate::snapshot::{Sealed, Snapshot};

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

impl Snapshot {
    /// Limits for the segments of `field` on `grid`, measured: one scan of all codes per
    /// query.  `None` when no query found a listed row.
    pub fn calibrate(
        self: &Arc<Self>,
        field: &FieldName,
        grid: &Arc<Grid>,
        queries: &[CalibrationQuery],
        cancel: &dyn Fn() -> bool,
    ) -> Result<Option<Calibration>, ViewError> {
        let parts: Vec<Sample<'_>> = self
            .populated()
            .filter_map(|sealed| Sample::new(sealed, field, grid))
            .collect();
        let reach = longest_reach(&parts);
        let (mut reaches, mut margins) = (Vec::new(), Vec::new());
        for query in queries {
            let hits = self.hits(field, grid.ty(), query, cancel)?;
            let Some(bar) = hits.iter().map(|(_, score)| *score).reduce(f32::min) else {
                continue;
            };
            let scorer = Scorer::new(grid.ty(), &query.vector)?;
            let Some(aim) = scorer.query().and_then(|query| Aim::new(grid, query)) else {
                continue;
            };
            for (row, _) in hits {
                let Some(part) = parts.iter().find(|part| part.sealed.id == row.segment) else {
                    continue;
                };
                let (list, position) = part.places[row.ordinal as usize];
                if list == u32::MAX {
                    continue;
                }
                let (list, position) = (list as usize, position as usize);
                reaches.push(aim.needed_reach(list, &reach, bar));
                margins.push(aim.needed_margin(&part.lists, list, position, bar));
            }
        }
        Ok((!reaches.is_empty()).then(|| Calibration::from_needed(queries.len() as u32, reaches, margins)))
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
        let spec = SearchSpec {
            field,
            ty,
            query: &query.vector,
            k: HITS + 1,
            mask: None,
            accuracy: Accuracy::Exact,
            cancel,
        };
        let mut scan = Scan::new(&spec, &scorer, Finalists::new(self, HITS + 1), 0.0);
        for sealed in self.populated() {
            scan.sealed(sealed)?;
        }
        let mut hits = scan.finalists.estimates();
        hits.retain(|(row, _)| Some(*row) != query.source);
        hits.truncate(HITS);
        Ok(hits)
    }
}

/// A segment with lists on the grid, and where its rows stand in them.
struct Sample<'a> {
    sealed: &'a Sealed,
    lists: Arc<Lists>,
    places: Vec<(u32, u32)>,
}

impl<'a> Sample<'a> {
    fn new(sealed: &'a Sealed, field: &FieldName, grid: &Grid) -> Option<Self> {
        let lists = sealed.segment.lists(field.as_str())?;
        let places = (lists.grid().id() == grid.id()).then(|| lists.places())?;
        Some(Self {
            sealed,
            lists,
            places,
        })
    }
}

fn longest_reach(parts: &[Sample<'_>]) -> Vec<f32> {
    super::approximate::longest_reach(parts.iter().map(|part| &*part.lists))
}
