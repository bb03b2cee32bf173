//! The vector leg, and stored vectors to ask with.

use std::sync::Arc;

use futures::future::try_join_all;
use rhumb_core::query::{Accuracy, Touched, VectorLeg};
use rhumb_core::{FieldName, FieldType, Filter, Vector, VectorType};
use rhumb_view::{Candidates, RowMask, SearchSpec, Snapshot, ViewError};
use tokio::time::Instant;

use super::Reading;
use super::legs::Found;
use crate::error::EngineError;
use crate::pinned::Pinned;

impl Reading {
    pub(super) async fn search(
        &self,
        leg: &VectorLeg,
        (k, accuracy): (usize, Accuracy),
        masks: Vec<Option<RowMask>>,
        deadline: Option<Instant>,
        touched: &mut Touched,
    ) -> Result<Vec<Found>, EngineError> {
        let ty = self.vector_type(&leg.field)?;
        let searches = self
            .parts
            .iter()
            .zip(masks)
            .enumerate()
            .map(|(at, (part, mask))| {
                let query = PartQuery {
                    field: leg.field.clone(),
                    ty,
                    query: leg.value.clone(),
                    k,
                    accuracy,
                    mask,
                    deadline,
                };
                async move { query.answer(at, part).await }
            });
        let mut found = Vec::new();
        for part in try_join_all(searches).await? {
            touched.rows_scanned += part.scanned;
            touched.rows_rescored += part.rescored;
            found.extend(part.found);
        }
        Ok(found)
    }

    fn vector_type(&self, field: &FieldName) -> Result<VectorType, EngineError> {
        match self.schema.get(field.as_str()) {
            Some(FieldType::Vector(ty)) => Ok(*ty),
            _ => Err(EngineError::Bug(format!("{field} is not a vector field"))),
        }
    }

    /// Up to `n` stored vectors of `field`, spread over the rows that match `filter`.
    pub async fn sample_vectors(
        &self,
        field: &FieldName,
        n: usize,
        filter: Option<&Filter>,
    ) -> Result<Vec<Vector>, EngineError> {
        let ty = self.vector_type(field)?;
        let masks = self.masks(filter).await?;
        let mut sample = Vec::new();
        for (part, mask) in self.parts.iter().zip(&masks) {
            let n = n.div_ceil(self.parts.len());
            let of_part = part.sample(field, &ty, n, mask.as_ref()).await?;
            sample.extend(of_part.into_iter().map(|(_, vector)| vector));
        }
        sample.truncate(n);
        Ok(sample)
    }
}

struct PartFound {
    found: Vec<Found>,
    scanned: u64,
    rescored: u64,
}

/// So many bytes of codes are scanned on the request's own thread: a hop to another takes as
/// long as a good part of it.
const INLINE_BYTES: u64 = 2 << 20;

/// What one partition is asked.
#[derive(Clone)]
struct PartQuery {
    field: FieldName,
    ty: VectorType,
    query: Vector,
    k: usize,
    accuracy: Accuracy,
    mask: Option<RowMask>,
    deadline: Option<Instant>,
}

impl PartQuery {
    /// Codes and lists say which rows can be hits; those are scored from their stored vectors.
    async fn answer(self, at: usize, part: &Pinned) -> Result<PartFound, EngineError> {
        // Held until the answer: under memory pressure one load may evict another.
        let _codes = part.load_codes(&self.field, &self.ty).await?;
        let _lists = part.snapshot.hold_lists(self.field.as_str());
        let candidates = match self.is_quick(&part.snapshot) {
            true => self.search(&part.snapshot),
            false => {
                let (snapshot, query) = (part.snapshot.clone(), self.clone());
                part.compute(move || query.search(&snapshot)).await?
            }
        };
        let candidates = match candidates {
            Ok(candidates) => candidates,
            Err(ViewError::Cancelled) => return Err(EngineError::Timeout),
            Err(e) => return Err(EngineError::Bug(e.to_string())),
        };
        if candidates.calibration_due {
            part.index_due.notify_one();
        }
        let scored = part
            .scores(&self.field, &self.ty, &self.query, &candidates.uncertain)
            .await?;
        let (scanned, rescored) = (
            candidates.rows_scanned + candidates.rows_estimated,
            scored.len() as u64,
        );
        let hits = candidates
            .finish(&scored)
            .map_err(|e| EngineError::Bug(e.to_string()))?;
        let found = hits.into_iter().map(|h| Found {
            part: at,
            row: h.row,
            id: h.id,
            score: h.score,
        });
        Ok(PartFound {
            found: found.collect(),
            scanned,
            rescored,
        })
    }

    fn search(&self, snapshot: &Arc<Snapshot>) -> Result<Candidates, ViewError> {
        let cancel = || self.deadline.is_some_and(|at| Instant::now() >= at);
        snapshot.search(&SearchSpec {
            field: &self.field,
            ty: &self.ty,
            query: &self.query,
            k: self.k,
            mask: self.mask.as_ref(),
            accuracy: self.accuracy,
            cancel: &cancel,
        })
    }

    /// Whether few rows lie outside lists, or are to be looked at for another reason.
    fn is_quick(&self, snapshot: &Snapshot) -> bool {
        let unlisted = match self.accuracy {
            Accuracy::Exact => snapshot.live_rows(),
            Accuracy::Recall(_) | Accuracy::Effort(_) => snapshot.unlisted_rows(self.field.as_str()),
        };
        let wanted = self.mask.as_ref().map_or(u64::MAX, RowMask::count);
        let rows = unlisted.min(wanted) + self.k as u64;
        rows * u64::from(self.ty.dim) <= INLINE_BYTES
    }
}
