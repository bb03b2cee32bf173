//! What segments need for searches: columns, codes, inverted lists, text indexes.  They hang
//! on their segment once somebody has asked for them, until the budget takes them away;
//! whoever searches holds what it was given.
//!
//! Saved ones are read, the others are made from the base's rows.  All that are missing come
//! at once: a cold search has few round trips.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use futures::future::try_join_all;
use rhumb_core::{FieldName, FieldType, Value, Vector, VectorType};
use rhumb_text::{Split, SplitBuilder, TextFields};
use rhumb_view::{
    Codes, CodesBuilder, Column, ColumnBuilder, Segment, SparseIndex, SparseIndexBuilder, ViewError,
};
use tokio::sync::mpsc;

use crate::budget::SegmentPart;
use crate::error::EngineError;
use crate::pinned::{Pinned, bug};
use crate::rows;
use crate::view_files::FileName;

impl Pinned {
    pub async fn load_columns(&self, fields: &[FieldName]) -> Result<Vec<Arc<Column>>, EngineError> {
        let mut held = self.snapshot.hold_columns(fields);
        let missing = self.snapshot.missing_fields(fields);
        let loads = missing
            .iter()
            .map(|(segment, field)| self.load_column(segment, field));
        held.extend(try_join_all(loads).await?);
        Ok(held)
    }

    async fn load_column(
        &self,
        segment: &Arc<Segment>,
        field: &FieldName,
    ) -> Result<Arc<Column>, EngineError> {
        let ty = self.field_type(field)?;
        let column = self.built(segment, vec![rows::column_name(field).into()], move |rows| {
            let mut builder = ColumnBuilder::new(&ty);
            rows.each_value(&ty, |value| match value {
                Some(value) => builder.push(Some(&value)),
                None => builder.push_missing(),
            })?;
            Ok(Arc::new(builder.finish()))
        });
        let column = column.await?;
        segment
            .attach_column(field.clone(), column.clone())
            .map_err(bug)?;
        self.note(segment, SegmentPart::Column(field.clone()), column.heap_size());
        Ok(column)
    }

    pub async fn load_sparse(&self, field: &FieldName) -> Result<Vec<Arc<SparseIndex>>, EngineError> {
        let mut held = self.snapshot.hold_sparse(field.as_str());
        let missing = self.snapshot.missing_sparse(field.as_str());
        let loads = missing.iter().map(|segment| self.sparse(segment, field));
        held.extend(try_join_all(loads).await?);
        Ok(held)
    }

    async fn sparse(
        &self,
        segment: &Arc<Segment>,
        field: &FieldName,
    ) -> Result<Arc<SparseIndex>, EngineError> {
        let ty = self.field_type(field)?;
        let index = self.built(segment, vec![rows::column_name(field).into()], move |rows| {
            let mut builder = SparseIndexBuilder::new();
            rows.each_value(&ty, |value| match value {
                Some(Value::Sparse(vector)) => builder.push(Some(&vector)),
                _ => builder.push_missing(),
            })?;
            Ok(Arc::new(builder.finish()))
        });
        let index = index.await?;
        segment.attach_sparse(field.clone(), index.clone()).map_err(bug)?;
        self.note(segment, SegmentPart::Sparse(field.clone()), index.heap_size());
        Ok(index)
    }

    pub async fn load_splits(&self, fields: &Arc<TextFields>) -> Result<Vec<Arc<Split>>, EngineError> {
        let mut held = self.snapshot.hold_splits();
        let missing = self.snapshot.missing_splits();
        let loads = missing.iter().map(|segment| self.split(segment, fields));
        held.extend(try_join_all(loads).await?);
        Ok(held)
    }

    async fn split(
        &self,
        segment: &Arc<Segment>,
        fields: &Arc<TextFields>,
    ) -> Result<Arc<Split>, EngineError> {
        let saved = match FileName::split(self.base()?, segment.fragment()) {
            Some(name) => {
                let open = |bytes: &[u8]| Split::open(bytes.to_vec());
                self.files.read(&name, open).await?
            }
            None => None,
        };
        let split = match saved.filter(|split| split.rows() == segment.len()) {
            Some(split) => split,
            None => self.made_split(segment, fields).await?,
        };
        let split = Arc::new(split);
        segment.attach_split(split.clone()).map_err(bug)?;
        self.note(segment, SegmentPart::Split, split.heap_size());
        Ok(split)
    }

    pub async fn made_split(
        &self,
        segment: &Segment,
        fields: &Arc<TextFields>,
    ) -> Result<Split, EngineError> {
        let names: Vec<FieldName> = fields.iter().map(|(name, _)| name.clone()).collect();
        let columns = names.iter().map(|name| rows::column_name(name).into()).collect();
        let types = names.iter().map(|name| self.field_type(name));
        let types = types.collect::<Result<Vec<_>, _>>()?;
        let fields = fields.clone();
        self.built(segment, columns, move |rows| {
            let mut split = SplitBuilder::new(&fields).map_err(ViewError::from).map_err(bug)?;
            rows.each_texts(&types, |texts| {
                let text = |field: &FieldName| {
                    let at = names.iter().position(|name| name == field)?;
                    texts.get(at)?.as_deref()
                };
                Ok(split.push(text)?)
            })?;
            let made = split.finish().and_then(Split::open);
            made.map_err(|e| bug(e.into()))
        })
        .await
    }

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
        segment.attach_codes(field.clone(), codes.clone()).map_err(bug)?;
        self.note(segment, SegmentPart::Codes(field.clone()), codes.heap_size());
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

    pub async fn made_codes(
        &self,
        segment: &Segment,
        field: &FieldName,
        ty: &VectorType,
    ) -> Result<Codes, EngineError> {
        let (ty, length) = (*ty, segment.len());
        self.built(segment, vec![rows::column_name(field).into()], move |rows| {
            let mut builder = CodesBuilder::new(&ty, length as usize);
            rows.each_vector(&ty, |_, vector| match vector {
                Some(vector) => builder.push(Some(&vector)),
                None => builder.push_missing(),
            })?;
            Ok(builder.finish())
        })
        .await
    }

    fn note(&self, segment: &Arc<Segment>, part: SegmentPart, bytes: usize) {
        self.env.parts.loaded(segment, part, bytes);
    }

    /// Something built from columns of a segment's rows, on a thread of its own while the
    /// next batch is being read.
    pub async fn built<T: Send + 'static>(
        &self,
        segment: &Segment,
        columns: Vec<String>,
        build: impl FnOnce(Rows) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (batches, arriving) = mpsc::channel(1);
        let names: Vec<_> = columns.iter().map(|name| name.as_str().into()).collect();
        let reading = async {
            // Dropped at the end: it tells the builder that there is no more.
            let batches = batches;
            let mut stream = self.base()?.batches(segment.fragment(), &names).await?;
            while let Some(batch) = stream.next().await? {
                // Whoever builds has met an error, which comes back below.
                if batches.send(batch).await.is_err() {
                    break;
                }
            }
            Ok::<_, EngineError>(())
        };
        let rows = Rows {
            batches: arriving,
            columns: columns.clone(),
            length: segment.len(),
        };
        let (read, built) = tokio::join!(reading, self.compute(move || build(rows)));
        // What was built of half the rows is not looked at.
        read?;
        built?
    }
}

/// The rows of a segment as they arrive, in ordinal order; dead ones are missing.
pub struct Rows {
    batches: mpsc::Receiver<(Vec<u32>, RecordBatch)>,
    columns: Vec<String>,
    length: u32,
}

/// A column's values by a type of theirs.
type Decode<T, V> =
    for<'a> fn(&'a ArrayRef, &'a T) -> Result<Box<dyn Iterator<Item = Option<V>> + 'a>, EngineError>;

impl Rows {
    pub fn each_vector(
        self,
        ty: &VectorType,
        each: impl FnMut(u32, Option<Vector>) -> Result<(), ViewError>,
    ) -> Result<(), EngineError> {
        self.each(rows::decode_vectors, ty, each)
    }

    fn each_value(
        self,
        ty: &FieldType,
        mut each: impl FnMut(Option<Value>) -> Result<(), ViewError>,
    ) -> Result<(), EngineError> {
        self.each(rows::decode_column, ty, |_, value| each(value))
    }

    fn each<T, V>(
        mut self,
        decode: Decode<T, V>,
        ty: &T,
        mut each: impl FnMut(u32, Option<V>) -> Result<(), ViewError>,
    ) -> Result<(), EngineError> {
        let mut next = 0;
        while let Some((offsets, batch)) = self.batches.blocking_recv() {
            let Some(column) = batch.column_by_name(&self.columns[0]) else {
                continue;
            };
            for (offset, value) in offsets.into_iter().zip(decode(column, ty)?) {
                (next..offset)
                    .try_for_each(|dead| each(dead, None))
                    .map_err(bug)?;
                each(offset, value).map_err(bug)?;
                next = offset + 1;
            }
        }
        (next..self.length)
            .try_for_each(|dead| each(dead, None))
            .map_err(bug)
    }

    /// A row's texts in the order of the columns; none of a dead one.
    fn each_texts(
        mut self,
        types: &[FieldType],
        mut each: impl FnMut(&[Option<Arc<str>>]) -> Result<(), ViewError>,
    ) -> Result<(), EngineError> {
        let mut next = 0;
        while let Some((offsets, batch)) = self.batches.blocking_recv() {
            let mut chunk = vec![vec![None; self.columns.len()]; offsets.len()];
            for (at, (name, ty)) in self.columns.iter().zip(types).enumerate() {
                let Some(column) = batch.column_by_name(name) else {
                    continue;
                };
                for (texts, value) in chunk.iter_mut().zip(rows::decode_column(column, ty)?) {
                    if let Some(Value::Str(text)) = value {
                        texts[at] = Some(text);
                    }
                }
            }
            for (offset, texts) in offsets.into_iter().zip(chunk) {
                (next..offset).try_for_each(|_| each(&[])).map_err(bug)?;
                each(&texts).map_err(bug)?;
                next = offset + 1;
            }
        }
        (next..self.length).try_for_each(|_| each(&[])).map_err(bug)
    }
}
