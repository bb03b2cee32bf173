//! A query's way from filter to hits.

use futures::future::try_join_all;
use rhumb_core::query::{Hit, Query, Touched};
use rhumb_core::{DocId, Filter};
use rhumb_view::{Bounds, RowMask, RowRef};
use tokio::time::Instant;

use super::Reading;
use crate::error::EngineError;

pub(super) struct Found {
    pub(super) part: usize,
    pub(super) row: RowRef,
    pub(super) id: DocId,
    pub(super) score: f32,
}

impl Reading {
    pub(super) async fn answer(
        &self,
        query: &Query,
        deadline: Option<Instant>,
    ) -> Result<(Vec<Hit>, Touched), EngineError> {
        let started = Instant::now();
        let mut touched = Touched::default();
        let masks = self.masks(query.filter.as_ref()).await?;
        if query.filter.is_some() {
            touched.filter_survivors = Some(masks.iter().flatten().map(RowMask::count).sum());
        }
        for part in &self.parts {
            touched.segments += part.snapshot.segments().len() as u64;
            touched.fresh_rows += part.snapshot.fresh_rows();
        }
        touched.plan = started.elapsed();
        let searching = Instant::now();
        let mut best = match &query.vector {
            Some(leg) => {
                let effort = (query.k, query.accuracy);
                self.search(leg, effort, masks, deadline, &mut touched).await?
            },
            None => self.first_by_id(query.k, &masks),
        };
        // Ties go to the smaller id, across partitions too.
        best.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        best.truncate(query.k);
        touched.search = searching.elapsed();
        let fetching = Instant::now();
        let hits = self.with_documents(best, &query.include).await?;
        touched.fetch = fetching.elapsed();
        Ok((hits, touched))
    }

    pub(super) async fn masks(&self, filter: Option<&Filter>) -> Result<Vec<Option<RowMask>>, EngineError> {
        let Some(filter) = filter else {
            return Ok(vec![None; self.parts.len()]);
        };
        try_join_all(
            self.parts
                .iter()
                .map(|part| async move { part.mask(filter).await.map(Some) }),
        )
        .await
    }

    fn first_by_id(&self, k: usize, masks: &[Option<RowMask>]) -> Vec<Found> {
        let mut found = Vec::new();
        for (part, mask) in masks.iter().enumerate() {
            let snapshot = &self.parts[part].snapshot;
            for row in snapshot.ordered(None, &Bounds::default(), mask.as_ref(), k) {
                found.extend(snapshot.row_id(row).map(|id| Found {
                    part,
                    row,
                    id,
                    score: 0.0,
                }));
            }
        }
        found
    }
}
