//! A query's way from filter to hits: legs at once on one snapshot, under the same masks;
//! then fused, re-ranked, grouped, and only then the documents.

use std::collections::HashMap;

use futures::future::try_join_all;
use rhumb_core::query::{Accuracy, Hits, Leg, LegTouched, Query, Touched, best_first};
use rhumb_core::{DocId, Filter, Value};
use rhumb_view::{Bounds, RowMask, RowRef};
use tokio::time::Instant;

use super::Reading;
use crate::error::EngineError;

/// A filter's rows of each partition.
pub(super) type Masks = [Option<RowMask>];

#[derive(Clone)]
pub(super) struct Found {
    pub(super) part: usize,
    pub(super) row: RowRef,
    pub(super) id: DocId,
    pub(super) score: f32,
}

/// Best first.
pub(super) enum Ranked {
    Flat(Vec<Found>),
    Grouped(Vec<(Value, Vec<Found>)>),
}

/// What a round over the legs brought, best first.
struct Round {
    found: Vec<Found>,
    /// Deeper legs would find no more.
    is_all: bool,
}

/// What one leg brought, best first.
struct LegFound {
    found: Vec<Found>,
    touched: Touched,
}

impl Reading {
    pub(super) async fn answer(
        &self,
        query: &Query,
        deadline: Option<Instant>,
    ) -> Result<(Hits, Touched), EngineError> {
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
        let ranked = self.ranked(query, &masks, deadline, &mut touched).await?;
        touched.search = searching.elapsed();
        let fetching = Instant::now();
        let hits = self.hits(ranked, query).await?;
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

    async fn ranked(
        &self,
        query: &Query,
        masks: &Masks,
        deadline: Option<Instant>,
        touched: &mut Touched,
    ) -> Result<Ranked, EngineError> {
        let mut depth = query.depth();
        let Some(group_by) = &query.group_by else {
            let mut found = self.round(query, depth, masks, deadline, touched).await?.found;
            found.truncate(query.k);
            return Ok(Ranked::Flat(found));
        };
        // Groups that the first hits do not fill are looked for deeper, up to a bound.
        let most = match query.rerank.as_ref().and_then(|rerank| rerank.depth) {
            Some(_) => depth,
            None => depth.max(self.most_candidates()),
        };
        loop {
            let round = self.round(query, depth, masks, deadline, touched).await?;
            let groups = self.grouped(round.found, group_by, query.k).await?;
            let full = groups.len() == query.k && groups.iter().all(|(_, hits)| hits.len() == group_by.size);
            if full || round.is_all || depth >= most {
                return Ok(Ranked::Grouped(groups));
            }
            depth = (4 * depth).min(most);
        }
    }

    fn most_candidates(&self) -> usize {
        let first = self.parts.first();
        first.map_or(0, |part| part.env.settings.limits.candidates)
    }

    /// All legs, each `depth` deep, as one ranking.
    async fn round(
        &self,
        query: &Query,
        depth: usize,
        masks: &Masks,
        deadline: Option<Instant>,
        touched: &mut Touched,
    ) -> Result<Round, EngineError> {
        if query.legs.is_empty() {
            let found = self.first_by_id(depth, masks);
            let is_all = found.len() < depth;
            return Ok(Round { found, is_all });
        }
        let legs = query
            .legs
            .iter()
            .map(|leg| self.leg(leg, (depth, query.accuracy), masks, deadline));
        let mut legs = try_join_all(legs).await?;
        for (at, leg) in legs.iter_mut().enumerate() {
            touched.rows_scanned += leg.touched.rows_scanned;
            touched.rows_rescored += leg.touched.rows_rescored;
            note(&mut touched.legs, at, std::mem::take(&mut leg.touched.legs));
        }
        let is_all = legs.iter().all(|leg| leg.found.len() < depth);
        let mut found = match <[LegFound; 1]>::try_from(legs) {
            Ok([only]) => only.found,
            Err(several) => fused(query, several),
        };
        if let Some(rerank) = &query.rerank {
            found.truncate(rerank.depth.unwrap_or(depth));
            found = self.reranked(rerank, found).await?;
        }
        Ok(Round { found, is_all })
    }

    async fn leg(
        &self,
        leg: &Leg,
        (depth, accuracy): (usize, Accuracy),
        masks: &Masks,
        deadline: Option<Instant>,
    ) -> Result<LegFound, EngineError> {
        let begin = Instant::now();
        let mut touched = Touched::default();
        let mut found = match leg {
            Leg::Vector(leg) => {
                let masks = masks.to_vec();
                self.search(leg, (depth, accuracy), masks, deadline, &mut touched)
                    .await?
            }
            Leg::Sparse(leg) => self.sparse(leg, depth, masks, deadline, &mut touched).await?,
            Leg::Text(leg) => self.text(leg, depth, masks).await?,
        };
        sort(&mut found);
        found.truncate(depth);
        touched.legs = vec![LegTouched {
            leg: leg.name(),
            fields: leg.fields().into_iter().cloned().collect(),
            hits: found.len() as u64,
            rows_scanned: touched.rows_scanned,
            took: begin.elapsed(),
        }];
        Ok(LegFound { found, touched })
    }

    fn first_by_id(&self, k: usize, masks: &Masks) -> Vec<Found> {
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
        sort(&mut found);
        found.truncate(k);
        found
    }
}

/// Ties go to the smaller id, across partitions too.
pub(super) fn sort(found: &mut [Found]) {
    found.sort_by(|a, b| best_first((a.score, &a.id), (b.score, &b.id)));
}

fn fused(query: &Query, legs: Vec<LegFound>) -> Vec<Found> {
    let lists: Vec<Vec<(DocId, f32)>> = legs
        .iter()
        .map(|leg| leg.found.iter().map(|f| (f.id.clone(), f.score)).collect())
        .collect();
    let all = legs.into_iter().flat_map(|leg| leg.found);
    let mut by_id: HashMap<DocId, Found> = all.map(|found| (found.id.clone(), found)).collect();
    let ranking = query.fuse.fuse(&lists).into_iter();
    ranking
        .filter_map(|(id, score)| {
            let found = by_id.remove(&id)?;
            Some(Found { score, ..found })
        })
        .collect()
}

/// Adds what a leg did in one more round.
fn note(legs: &mut Vec<LegTouched>, at: usize, round: Vec<LegTouched>) {
    for leg in round {
        match legs.get_mut(at) {
            Some(known) => {
                known.hits = leg.hits;
                known.rows_scanned += leg.rows_scanned;
                known.took += leg.took;
            }
            None => legs.push(leg),
        }
    }
}
