//! A snapshot of one partition with the base it belongs to, and the rows that are read from
//! the two.  What segments need for searches: `parts`.

use std::sync::Arc;

use arrow_array::RecordBatch;
use rhumb_core::query::Include;
use rhumb_core::{
    DocId, Document, FieldName, FieldType, Filter, Position, Schema, Value, Vector, VectorType,
};
use rhumb_view::{RowMask, RowRef, Segment, Snapshot, ViewError};

use tokio::sync::Notify;

use crate::base::{self, Base};
use crate::env::Env;
use crate::error::EngineError;
use crate::raw::Raws;
use crate::rows;
use crate::view_files::ViewFiles;

#[derive(Clone)]
pub struct Pinned {
    pub snapshot: Arc<Snapshot>,
    pub base: Option<Base>,
    pub schema: Arc<Schema>,
    pub env: Arc<Env>,
    pub files: Arc<ViewFiles>,
    pub raws: Arc<Raws>,
    pub position: Position,
    /// Wakes the partition's indexer.
    pub index_due: Arc<Notify>,
    /// Nobody waits: what is computed yields to requests.
    pub quiet: bool,
}

impl Pinned {
    pub fn base(&self) -> Result<&Base, EngineError> {
        self.base
            .as_ref()
            .ok_or_else(|| EngineError::Bug("a sealed row without a base table".into()))
    }

    /// The documents of live rows, in the order asked for.
    pub async fn documents(
        &self,
        rows: &[RowRef],
        include: &Include,
    ) -> Result<Vec<Arc<Document>>, EngineError> {
        let mut documents: Vec<Option<Arc<Document>>> = vec![None; rows.len()];
        let mut sealed = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            match self.snapshot.fresh_document(*row) {
                Some(document) => documents[at] = Some(project(&document, include)),
                None if *include == Include::Nothing => documents[at] = Some(Arc::default()),
                None => sealed.push((at, self.address(*row)?)),
            }
        }
        if !sealed.is_empty() {
            let fields: Vec<&FieldName> = match include {
                Include::Everything => self.schema.fields.keys().collect(),
                Include::Fields(names) => names.iter().collect(),
                Include::Nothing => Vec::new(),
            };
            let addresses: Vec<(u64, u32)> = sealed.iter().map(|(_, address)| *address).collect();
            let batch = self.base()?.take(&addresses, &base::with_keys(fields)).await?;
            for ((at, _), row) in sealed.into_iter().zip(rows::decode_table(&batch, &self.schema)?) {
                documents[at] = row.document;
            }
        }
        let complete: Option<Vec<_>> = documents.into_iter().collect();
        complete.ok_or_else(|| EngineError::Bug("a live row without a document".into()))
    }

    /// One vector of each row; `None` where the document has none.
    pub async fn vectors(
        &self,
        field: &FieldName,
        ty: &VectorType,
        rows: &[RowRef],
    ) -> Result<Vec<Option<Vector>>, EngineError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let addresses = rows
            .iter()
            .map(|row| self.address(*row))
            .collect::<Result<Vec<_>, _>>()?;
        let batch = self.base()?.take(&addresses, &[rows::column_name(field)]).await?;
        match batch.column_by_name(&rows::column_name(field)) {
            Some(column) => Ok(rows::decode_vectors(column, ty)?.collect()),
            None => Ok(vec![None; rows.len()]),
        }
    }

    /// For work that nobody waits for.
    pub fn quietly(self) -> Self {
        Self { quiet: true, ..self }
    }

    fn address(&self, row: RowRef) -> Result<(u64, u32), EngineError> {
        let segment = self
            .snapshot
            .segment(row.segment)
            .ok_or_else(|| EngineError::Bug("a row of a segment that its snapshot has not".into()))?;
        Ok((segment.segment().fragment(), row.ordinal))
    }

    /// The rows that match, loading the columns that decide it.
    pub async fn mask(&self, filter: &Filter) -> Result<RowMask, EngineError> {
        // Asked before: a microsecond.
        if let Some(known) = self.snapshot.known_filter(filter) {
            return Ok(known);
        }
        let fields: Vec<FieldName> = filter.fields().into_iter().cloned().collect();
        // Held until the answer: under memory pressure one load may evict another.
        let _held = self.load_columns(&fields).await?;
        let (snapshot, filter) = (self.snapshot.clone(), filter.clone());
        self.compute(move || snapshot.filter(&filter)).await?.map_err(bug)
    }

    pub fn ids(&self, mask: &RowMask) -> Vec<DocId> {
        self.snapshot
            .rows(Some(mask))
            .filter_map(|row| self.snapshot.row_id(row))
            .collect()
    }

    /// A field of a row whose column is loaded.
    pub fn value(&self, row: RowRef, field: &FieldName) -> Option<Value> {
        if row.segment.is_fresh() {
            return self.snapshot.fresh_document(row)?.get(field.as_str()).cloned();
        }
        self.snapshot
            .segment(row.segment)?
            .segment()
            .column(field.as_str())?
            .value(row.ordinal)
    }

    /// Up to `n` live vectors, spread over all rows.
    pub async fn sample(
        &self,
        field: &FieldName,
        ty: &VectorType,
        n: usize,
        mask: Option<&RowMask>,
    ) -> Result<Vec<(RowRef, Vector)>, EngineError> {
        let rows: Vec<RowRef> = self.snapshot.rows(mask).collect();
        let wanted = n.min(rows.len());
        let chosen = (0..wanted).map(|i| rows[i * rows.len() / wanted]);
        let (fresh, sealed): (Vec<RowRef>, Vec<RowRef>) = chosen.partition(|row| row.segment.is_fresh());
        let mut sample = Vec::with_capacity(wanted);
        for row in fresh {
            let document = self.snapshot.fresh_document(row);
            if let Some(Value::Vector(vector)) = document.as_ref().and_then(|d| d.get(field.as_str())) {
                sample.push((row, vector.clone()));
            }
        }
        let stored = self.vectors(field, ty, &sealed).await?;
        let stored = sealed.into_iter().zip(stored);
        sample.extend(stored.filter_map(|(row, vector)| Some((row, vector?))));
        Ok(sample)
    }

    async fn scan_vectors(
        &self,
        segment: &Segment,
        field: &FieldName,
        ty: &VectorType,
        mut each: impl FnMut(u32, Vector) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let columns = [rows::column_name(field)];
        let of_batch = |offsets: &[u32], batch: RecordBatch| {
            let Some(column) = batch.column_by_name(&columns[0]) else {
                return Ok(());
            };
            for (offset, vector) in offsets.iter().zip(rows::decode_vectors(column, ty)?) {
                if let Some(vector) = vector {
                    each(*offset, vector)?;
                }
            }
            Ok(())
        };
        self.base()?.scan(segment.fragment(), &columns, of_batch).await
    }

    /// Every live vector once, in no order that means anything.
    pub async fn each_vector(
        &self,
        field: &FieldName,
        ty: &VectorType,
        mut each: impl FnMut(&Vector) -> Result<(), ViewError>,
    ) -> Result<(), EngineError> {
        for row in self.snapshot.rows(None).filter(|row| row.segment.is_fresh()) {
            let document = self.snapshot.fresh_document(row);
            if let Some(Value::Vector(vector)) = document.as_ref().and_then(|d| d.get(field.as_str())) {
                each(vector).map_err(bug)?;
            }
        }
        for sealed in self.snapshot.segments() {
            self.scan_vectors(sealed.segment(), field, ty, |ordinal, vector| {
                match sealed.is_live(ordinal) {
                    true => each(&vector).map_err(bug),
                    false => Ok(()),
                }
            })
            .await?;
        }
        Ok(())
    }

    pub fn field_type(&self, field: &FieldName) -> Result<FieldType, EngineError> {
        let ty = self.schema.get(field.as_str());
        ty.cloned()
            .ok_or_else(|| EngineError::Bug(format!("field {field} is not in the schema")))
    }

    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let tasks = &self.env.tasks;
        let done = match self.quiet {
            true => tasks.compute_quietly("background", work).await,
            false => tasks.compute(work).await.ok(),
        };
        done.ok_or_else(|| EngineError::Bug("a computation panicked".into()))
    }
}

pub fn bug(e: ViewError) -> EngineError {
    match e {
        ViewError::Cancelled => EngineError::Unavailable("the partition is closing".into()),
        e => EngineError::Bug(e.to_string()),
    }
}

fn project(document: &Arc<Document>, include: &Include) -> Arc<Document> {
    match include {
        Include::Everything => document.clone(),
        Include::Nothing => Arc::default(),
        Include::Fields(names) => {
            let kept = names
                .iter()
                .filter_map(|n| document.get(n.as_str()).map(|v| (n.clone(), v.clone())));
            Arc::new(Document::from_fields(kept.collect()))
        }
    }
}
