//! Reads of one snapshot per partition.

mod scan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use rhumb_core::aggregate::{Groups, Plan};
use rhumb_core::query::{Hit, Include, Query, Stored, Touched, VectorLeg};
use rhumb_core::{
    DocId, Document, FieldName, FieldType, Filter, Position, Schema, Value, Vector, VectorType,
};
use rhumb_view::{Bounds, RowMask, RowRef, Scorer, SearchSpec};
use tokio::time::Instant;

pub use self::scan::{Page, PageStart, Scan, ScanSnapshot};
use crate::error::EngineError;
use crate::partition::Partition;
use crate::pinned::Pinned;

/// One snapshot per partition; every answer comes from it, however long it is kept.
#[derive(Clone)]
pub struct Reading {
    schema: Arc<Schema>,
    parts: Vec<Pinned>,
    /// Kept open for as long as the reading lives.
    partitions: Vec<Arc<Partition>>,
}

impl Reading {
    pub(crate) fn new(schema: Arc<Schema>, opened: Vec<(Arc<Partition>, Pinned)>) -> Self {
        let (partitions, parts) = opened.into_iter().unzip();
        Self {
            schema,
            parts,
            partitions,
        }
    }

    /// What the snapshot includes, for session tokens.
    pub fn positions(&self) -> Vec<(u32, Position)> {
        (0..).zip(self.parts.iter().map(|p| p.position)).collect()
    }

    /// `EngineError::Timeout` when `timeout` passes; the work stops then.
    pub async fn query(
        &self,
        query: &Query,
        timeout: Option<Duration>,
    ) -> Result<(Vec<Hit>, Touched), EngineError> {
        let deadline = timeout.map(|t| Instant::now() + t);
        let work = self.answer(query, deadline);
        match deadline {
            None => work.await,
            Some(at) => tokio::time::timeout_at(at, work)
                .await
                .map_err(|_| EngineError::Timeout)?,
        }
    }

    async fn answer(
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
            Some(leg) => self.search(leg, query.k, masks, deadline, &mut touched).await?,
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

    async fn masks(&self, filter: Option<&Filter>) -> Result<Vec<Option<RowMask>>, EngineError> {
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

    async fn search(
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

    async fn with_documents(&self, found: Vec<Found>, include: &Include) -> Result<Vec<Hit>, EngineError> {
        let hit = |f: Found, document| Hit {
            id: f.id,
            score: f.score,
            document,
        };
        if *include == Include::Nothing {
            return Ok(found.into_iter().map(|f| hit(f, None)).collect());
        }
        let rows: Vec<(usize, RowRef)> = found.iter().map(|f| (f.part, f.row)).collect();
        let documents = self.documents(&rows, include).await?;
        Ok(found
            .into_iter()
            .zip(documents)
            .map(|(f, d)| hit(f, Some(d.as_ref().clone())))
            .collect())
    }

    /// Documents of rows of any partition, in the order asked for.
    async fn documents(
        &self,
        rows: &[(usize, RowRef)],
        include: &Include,
    ) -> Result<Vec<Arc<Document>>, EngineError> {
        let mut documents: Vec<Arc<Document>> = vec![Arc::default(); rows.len()];
        for (at, part) in self.parts.iter().enumerate() {
            let places: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].0 == at).collect();
            let of_part: Vec<RowRef> = places.iter().map(|i| rows[*i].1).collect();
            for (place, document) in places.into_iter().zip(part.documents(&of_part, include).await?) {
                documents[place] = document;
            }
        }
        Ok(documents)
    }

    /// In the order of `ids`; `None` where there is no such document.  Answered from the
    /// newest state, which is no older than the snapshot.
    pub async fn get(&self, ids: &[DocId], include: &Include) -> Result<Vec<Option<Stored>>, EngineError> {
        let count = self.partitions.len() as u32;
        let mut by_part: Vec<Vec<DocId>> = vec![Vec::new(); self.partitions.len()];
        for id in ids {
            by_part[id.partition(count) as usize].push(id.clone());
        }
        let gets = self
            .partitions
            .iter()
            .zip(by_part)
            .filter(|(_, ids)| !ids.is_empty());
        let found = try_join_all(gets.map(|(p, ids)| p.shared.stored(ids, |_| true, include))).await?;
        let mut by_id: HashMap<DocId, Stored> = HashMap::new();
        for (id, old) in found.into_iter().flatten() {
            let document = old.document.map(Arc::unwrap_or_clone).unwrap_or_default();
            by_id.insert(
                id.clone(),
                Stored {
                    id,
                    version: old.seq,
                    document,
                },
            );
        }
        Ok(ids.iter().map(|id| by_id.get(id).cloned()).collect())
    }

    /// The groups as JSON, in a stable order.
    pub async fn aggregate(
        &self,
        filter: Option<&Filter>,
        plan: &Plan,
    ) -> Result<Vec<serde_json::Value>, EngineError> {
        let masks = self.masks(filter).await?;
        let fields: Vec<FieldName> = plan.fields().into_iter().cloned().collect();
        let mut groups = Groups::new(plan);
        for (part, mask) in self.parts.iter().zip(&masks) {
            let _held = part.load_columns(&fields).await?;
            groups.merge(
                part.snapshot
                    .aggregate(plan, mask.as_ref())
                    .map_err(lost_column)?,
            )?;
        }
        Ok(groups.into_json())
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

    /// Rows that match, for limits and messages.
    pub async fn count(&self, filter: Option<&Filter>) -> Result<u64, EngineError> {
        match filter {
            None => Ok(self.parts.iter().map(|p| p.snapshot.live_rows()).sum()),
            Some(_) => Ok(self
                .masks(filter)
                .await?
                .iter()
                .flatten()
                .map(RowMask::count)
                .sum()),
        }
    }
}

struct Found {
    part: usize,
    row: RowRef,
    id: DocId,
    score: f32,
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

fn lost_column(e: rhumb_view::ViewError) -> EngineError {
    EngineError::Busy(format!("memory is tight: {e}"))
}
