//! A snapshot of one partition with the base it belongs to, and everything that is read
//! from the two: rows from the base by address, columns and codes of segments on demand.

use std::sync::Arc;

use arrow_array::RecordBatch;
use futures::future::try_join_all;
use rhumb_core::query::Include;
use rhumb_core::{
    DocId, Document, FieldName, FieldType, Filter, Position, Schema, Value, Vector, VectorType,
};
use rhumb_text::{Split, SplitBuilder, TextFields};
use rhumb_view::{
    Codes, CodesBuilder, Column, ColumnBuilder, RowMask, RowRef, Segment, Snapshot, SparseIndex,
    SparseIndexBuilder, ViewError,
};
use tokio::sync::mpsc;

use crate::base::{self, Base};
use crate::budget::SegmentPart;
use crate::env::Env;
use crate::error::EngineError;
use crate::raw::Raws;
use crate::rows;
use crate::view_files::{FileName, ViewFiles};

#[derive(Clone)]
pub struct Pinned {
    pub snapshot: Arc<Snapshot>,
    pub base: Option<Base>,
    pub schema: Arc<Schema>,
    pub env: Arc<Env>,
    pub files: Arc<ViewFiles>,
    pub raws: Arc<Raws>,
    pub position: Position,
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

    /// Columns of the fields, loaded where they are missing.  They stay findable for as
    /// long as the caller holds them.
    pub async fn load_columns(&self, fields: &[FieldName]) -> Result<Vec<Arc<Column>>, EngineError> {
        let mut held = self.snapshot.hold_columns(fields);
        let missing = self.snapshot.missing_fields(fields);
        let loads = missing
            .iter()
            .map(|(segment, field)| self.load_column(segment, field));
        held.extend(try_join_all(loads).await?);
        Ok(held)
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

    async fn load_column(
        &self,
        segment: &Arc<Segment>,
        field: &FieldName,
    ) -> Result<Arc<Column>, EngineError> {
        let mut builder = ColumnBuilder::new(&self.field_type(field)?);
        self.each_value(segment, field, |value| match value {
            Some(value) => builder.push(Some(value)),
            None => builder.push_missing(),
        })
        .await?;
        let column = Arc::new(builder.finish());
        let bytes = column.heap_size();
        segment
            .attach_column(field.clone(), column.clone())
            .map_err(bug)?;
        self.env
            .parts
            .loaded(segment, SegmentPart::Column(field.clone()), bytes);
        Ok(column)
    }

    /// The inverted lists that a sparse search of `field` needs, loaded where they are
    /// missing; to be held like columns.
    pub async fn load_sparse(&self, field: &FieldName) -> Result<Vec<Arc<SparseIndex>>, EngineError> {
        let mut held = self.snapshot.hold_sparse(field.as_str());
        for segment in self.snapshot.missing_sparse(field.as_str()) {
            let mut builder = SparseIndexBuilder::new();
            self.each_value(&segment, field, |value| match value {
                Some(Value::Sparse(vector)) => builder.push(Some(vector)),
                _ => builder.push_missing(),
            })
            .await?;
            let index = Arc::new(builder.finish());
            let bytes = index.heap_size();
            segment.attach_sparse(field.clone(), index.clone()).map_err(bug)?;
            self.env
                .parts
                .loaded(&segment, SegmentPart::Sparse(field.clone()), bytes);
            held.push(index);
        }
        Ok(held)
    }

    /// The text indexes that a text search needs, loaded where they are missing; to be held
    /// like columns.
    pub async fn load_splits(&self, fields: &Arc<TextFields>) -> Result<Vec<Arc<Split>>, EngineError> {
        let mut held = self.snapshot.hold_splits();
        for segment in self.snapshot.missing_splits() {
            let name = FileName::split(self.base()?, segment.fragment());
            let saved = match &name {
                Some(name) => self.files.read(name, |bytes| Split::open(bytes.to_vec())).await?,
                None => None,
            };
            let split = match saved.filter(|split| split.rows() == segment.len()) {
                Some(split) => split,
                None => self.made_split(&segment, fields).await?,
            };
            let split = Arc::new(split);
            let bytes = split.heap_size();
            segment.attach_split(split.clone()).map_err(bug)?;
            self.env.parts.loaded(&segment, SegmentPart::Split, bytes);
            held.push(split);
        }
        Ok(held)
    }

    /// From the base's rows, dead ones left empty.
    pub async fn made_split(
        &self,
        segment: &Segment,
        fields: &Arc<TextFields>,
    ) -> Result<Split, EngineError> {
        let (rows, mut arriving) = mpsc::channel::<Vec<(u32, Texts)>>(1);
        let reading = self.segment_texts(segment, fields, rows);
        let (names, fields, length) = (text_names(fields), fields.clone(), segment.len());
        let building = self.compute(move || {
            let mut split = SplitBuilder::new(&fields)?;
            let mut next = 0;
            while let Some(chunk) = arriving.blocking_recv() {
                for (ordinal, texts) in chunk {
                    (next..ordinal).try_for_each(|_| split.push(|_| None))?;
                    split.push(|field| texts[names.iter().position(|name| name == field)?].as_deref())?;
                    next = ordinal + 1;
                }
            }
            (next..length).try_for_each(|_| split.push(|_| None))?;
            Split::open(split.finish()?)
        });
        let (read, split) = tokio::join!(reading, building);
        read?;
        split?.map_err(|e| bug(e.into()))
    }

    /// The texts of a segment's rows, in ordinal order, in chunks.
    async fn segment_texts(
        &self,
        segment: &Segment,
        fields: &TextFields,
        chunks: mpsc::Sender<Vec<(u32, Texts)>>,
    ) -> Result<(), EngineError> {
        let names = text_names(fields);
        let columns: Vec<_> = names.iter().map(rows::column_name).collect();
        let mut batches = self.base()?.batches(segment.fragment(), &columns).await?;
        while let Some((offsets, batch)) = batches.next().await? {
            let mut chunk: Vec<(u32, Texts)> = offsets
                .into_iter()
                .map(|offset| (offset, vec![None; names.len()]))
                .collect();
            for (at, name) in names.iter().enumerate() {
                let Some(column) = batch.column_by_name(&columns[at]) else {
                    continue;
                };
                let ty = self.field_type(name)?;
                for ((_, texts), value) in chunk.iter_mut().zip(rows::decode_column(column, &ty)?) {
                    if let Some(Value::Str(text)) = value {
                        texts[at] = Some(text);
                    }
                }
            }
            if chunks.send(chunk).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// A field of every row of a segment in order, dead rows as missing.
    async fn each_value(
        &self,
        segment: &Segment,
        field: &FieldName,
        mut each: impl FnMut(Option<&Value>) -> Result<(), ViewError>,
    ) -> Result<(), EngineError> {
        let (ty, name) = (self.field_type(field)?, rows::column_name(field));
        let mut next = 0;
        self.base()?
            .scan(
                segment.fragment(),
                std::slice::from_ref(&name),
                |offsets, batch| {
                    let Some(column) = batch.column_by_name(&name) else {
                        return Ok(());
                    };
                    for (offset, value) in offsets.iter().zip(rows::decode_column(column, &ty)?) {
                        (next..*offset).try_for_each(|_| each(None)).map_err(bug)?;
                        each(value.as_ref()).map_err(bug)?;
                        next = offset + 1;
                    }
                    Ok(())
                },
            )
            .await?;
        (next..segment.len()).try_for_each(|_| each(None)).map_err(bug)
    }

    /// The codes that a search of `field` needs, loaded where they are missing; to be held
    /// like columns.
    pub async fn load_codes(
        &self,
        field: &FieldName,
        ty: &VectorType,
    ) -> Result<Vec<Arc<Codes>>, EngineError> {
        let mut held = self.snapshot.hold_codes(field.as_str());
        let missing = self.snapshot.missing_codes(field.as_str());
        let loads = missing.iter().map(|segment| async move {
            // Where the vectors lie is asked for in the same round trips as what says which
            // of them to read.
            let place = self
                .raws
                .find(self.base()?, &self.env.bucket, segment.fragment(), field, ty);
            let (codes, _) = tokio::try_join!(self.codes(segment, field, ty), place)?;
            Ok::<_, EngineError>(codes)
        });
        held.extend(try_join_all(loads).await?);
        Ok(held)
    }

    async fn codes(
        &self,
        segment: &Arc<Segment>,
        field: &FieldName,
        ty: &VectorType,
    ) -> Result<Arc<Codes>, EngineError> {
        let codes = match self.saved_codes(segment, field, ty).await? {
            Some(codes) => codes,
            None => self.made_codes(segment, field, ty).await?,
        };
        let codes = Arc::new(codes);
        let bytes = codes.heap_size();
        segment.attach_codes(field.clone(), codes.clone()).map_err(bug)?;
        self.env
            .parts
            .loaded(segment, SegmentPart::Codes(field.clone()), bytes);
        Ok(codes)
    }

    async fn saved_codes(
        &self,
        segment: &Segment,
        field: &FieldName,
        ty: &VectorType,
    ) -> Result<Option<Codes>, EngineError> {
        let Some(name) = FileName::codes(self.base()?, segment.fragment(), &rows::column_name(field)) else {
            return Ok(None);
        };
        let saved = self.files.read(&name, Codes::from_bytes).await?;
        Ok(saved.filter(|codes| codes.rows() == segment.len() && codes.is_of(ty)))
    }

    async fn made_codes(
        &self,
        segment: &Segment,
        field: &FieldName,
        ty: &VectorType,
    ) -> Result<Codes, EngineError> {
        let mut builder = CodesBuilder::new(ty, segment.len() as usize);
        let mut next = 0;
        self.scan_vectors(segment, field, ty, |offset, vector| {
            (next..offset)
                .try_for_each(|_| builder.push_missing())
                .map_err(bug)?;
            next = offset + 1;
            builder.push(Some(&vector)).map_err(bug)
        })
        .await?;
        (next..segment.len())
            .try_for_each(|_| builder.push_missing())
            .map_err(bug)?;
        Ok(builder.finish())
    }

    /// The vectors of a segment, in ordinal order, in chunks.  Ends early, and well, when
    /// nobody takes them any more.
    pub async fn segment_vectors(
        &self,
        segment: &Segment,
        field: &FieldName,
        ty: &VectorType,
        chunks: mpsc::Sender<Vec<(u32, Vector)>>,
    ) -> Result<(), EngineError> {
        let columns = [rows::column_name(field)];
        let mut batches = self.base()?.batches(segment.fragment(), &columns).await?;
        while let Some((offsets, batch)) = batches.next().await? {
            let Some(column) = batch.column_by_name(&columns[0]) else {
                break;
            };
            let vectors = offsets.into_iter().zip(rows::decode_vectors(column, ty)?);
            let chunk = vectors
                .filter_map(|(offset, vector)| Some((offset, vector?)))
                .collect();
            if chunks.send(chunk).await.is_err() {
                break;
            }
        }
        Ok(())
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

    fn field_type(&self, field: &FieldName) -> Result<FieldType, EngineError> {
        let ty = self.schema.get(field.as_str());
        ty.cloned()
            .ok_or_else(|| EngineError::Bug(format!("field {field} is not in the schema")))
    }

    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        self.env
            .tasks
            .compute(work)
            .await
            .map_err(|e| EngineError::Bug(format!("a computation panicked: {e}")))
    }
}

/// A row's text in each of the fields.
type Texts = Vec<Option<Arc<str>>>;

fn text_names(fields: &TextFields) -> Vec<FieldName> {
    fields.iter().map(|(name, _)| name.clone()).collect()
}

fn bug(e: ViewError) -> EngineError {
    EngineError::Bug(e.to_string())
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
