//! The vector leg, and stored vectors to ask with.

use futures::future::try_join_all;
use rhumb_core::query::{Touched, VectorLeg};
use rhumb_core::{FieldName, FieldType, Filter, Value, Vector, VectorType};
use rhumb_view::{RowMask, RowRef, Scorer, SearchSpec};
use tokio::time::Instant;

use super::Reading;
use super::legs::Found;
use crate::error::EngineError;
use crate::pinned::Pinned;

impl Reading {
    pub(super) async fn search(
        &self,
        leg: &VectorLeg,
        k: usize,
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
                let (field, query) = (leg.field.clone(), leg.value.clone());
                async move { search_part(at, part, field, ty, query, k, mask, deadline).await }
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
            let rows: Vec<RowRef> = part.snapshot.rows(mask.as_ref()).collect();
            let wanted = n.div_ceil(self.parts.len()).min(rows.len());
            let chosen: Vec<RowRef> = (0..wanted).map(|i| rows[i * rows.len() / wanted]).collect();
            let (fresh, sealed): (Vec<RowRef>, Vec<RowRef>) =
                chosen.into_iter().partition(|r| r.segment.is_fresh());
            for row in fresh {
                let document = part.snapshot.fresh_document(row);
                if let Some(Value::Vector(v)) = document.as_ref().and_then(|d| d.get(field.as_str())) {
                    sample.push(v.clone());
                }
            }
            sample.extend(part.vectors(field, &ty, &sealed).await?.into_iter().flatten());
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

/// Codes say which rows cannot be hits; the others are scored from their stored vectors.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site; a struct would only repeat the names"
)]
async fn search_part(
    at: usize,
    part: &Pinned,
    field: FieldName,
    ty: VectorType,
    query: Vector,
    k: usize,
    mask: Option<RowMask>,
    deadline: Option<Instant>,
) -> Result<PartFound, EngineError> {
    // Held until the answer: under memory pressure one load may evict another.
    let _held = part.load_codes(&field, &ty).await?;
    let search = {
        let (snapshot, field, query) = (part.snapshot.clone(), field.clone(), query.clone());
        move || {
            let cancel = || deadline.is_some_and(|at| Instant::now() >= at);
            let spec = SearchSpec {
                field: &field,
                ty: &ty,
                query: &query,
                k,
                mask: mask.as_ref(),
                cancel: &cancel,
            };
            snapshot.search(&spec)
        }
    };
    let candidates = match part.compute(search).await? {
        Ok(candidates) => candidates,
        Err(rhumb_view::ViewError::Cancelled) => return Err(EngineError::Timeout),
        Err(e) => return Err(EngineError::Bug(e.to_string())),
    };
    let uncertain = candidates.uncertain.clone();
    let vectors = part.vectors(&field, &ty, &uncertain).await?;
    let scorer = Scorer::new(&ty, &query).map_err(|e| EngineError::Bug(e.to_string()))?;
    let score = |(row, v): (&RowRef, &Option<Vector>)| Some((*row, scorer.score(v.as_ref()?)?));
    let scored: Vec<(RowRef, f32)> = uncertain.iter().zip(&vectors).filter_map(score).collect();
    let scanned = candidates.rows_scanned;
    let found = candidates
        .finish(&scored)
        .map_err(|e| EngineError::Bug(e.to_string()))?;
    Ok(PartFound {
        found: found
            .into_iter()
            .map(|h| Found {
                part: at,
                row: h.row,
                id: h.id,
                score: h.score,
            })
            .collect(),
        scanned,
        rescored: uncertain.len() as u64,
    })
}
