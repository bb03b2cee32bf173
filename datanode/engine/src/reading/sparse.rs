//! The sparse leg.

use futures::future::try_join_all;
use rhumb_core::query::{SparseLeg, Touched};
use rhumb_view::{RowMask, SparseSpec, ViewError};
use tokio::time::Instant;

use super::Reading;
use super::legs::{Found, Masks};
use crate::error::EngineError;
use crate::pinned::Pinned;

impl Reading {
    /// The best `depth` rows of each partition.
    pub(super) async fn sparse(
        &self,
        leg: &SparseLeg,
        depth: usize,
        masks: &Masks,
        deadline: Option<Instant>,
        touched: &mut Touched,
    ) -> Result<Vec<Found>, EngineError> {
        let parts = self.parts.iter().zip(masks).enumerate();
        let searches =
            parts.map(|(at, (part, mask))| search_part(at, part, leg.clone(), depth, mask.clone(), deadline));
        let mut found = Vec::new();
        for (rows_scanned, of_part) in try_join_all(searches).await? {
            touched.rows_scanned += rows_scanned;
            found.extend(of_part);
        }
        Ok(found)
    }
}

async fn search_part(
    at: usize,
    part: &Pinned,
    leg: SparseLeg,
    k: usize,
    mask: Option<RowMask>,
    deadline: Option<Instant>,
) -> Result<(u64, Vec<Found>), EngineError> {
    // Held until the answer: under memory pressure one load may evict another.
    let _held = part.load_sparse(&leg.field).await?;
    let snapshot = part.snapshot.clone();
    let search = move || {
        let spec = SparseSpec {
            field: &leg.field,
            query: &leg.value,
            k,
            mask: mask.as_ref(),
            cancel: &|| deadline.is_some_and(|at| Instant::now() >= at),
        };
        snapshot.search_sparse(&spec)
    };
    let found = match part.compute(search).await? {
        Ok(found) => found,
        Err(ViewError::Cancelled) => return Err(EngineError::Timeout),
        Err(e) => return Err(EngineError::Bug(e.to_string())),
    };
    let hits = found.hits.into_iter().map(|hit| Found {
        part: at,
        row: hit.row,
        id: hit.id,
        score: hit.score,
    });
    Ok((found.rows_scanned, hits.collect()))
}
