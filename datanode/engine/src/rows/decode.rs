//! Arrow columns back to documents.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int64Type, TimestampMillisecondType, UInt8Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use rhumb_core::{
    DocId, Document, Element, FieldName, FieldType, Json, Limits, Scalar, Schema, Seq, SparseVector, Value,
    Vector, VectorType,
};

use super::{DELETED, ID, Row, SEQ, column_name, data_type};
use crate::error::EngineError;

/// The rows of a log batch, tombstones included.
pub fn decode_log(batch: &RecordBatch, schema: &Schema) -> Result<Vec<Row>, EngineError> {
    let deleted = batch
        .column_by_name(DELETED)
        .and_then(|c| c.as_boolean_opt())
        .ok_or_else(|| corrupt("a log batch has no _deleted column"))?;
    let mut rows = decode_table(batch, schema)?;
    for (at, row) in rows.iter_mut().enumerate() {
        if deleted.value(at) {
            row.document = None;
        }
    }
    Ok(rows)
}

/// The rows of a table batch.  Columns that are not in the schema are skipped, fields that
/// are not in the batch are missing.
pub fn decode_table(batch: &RecordBatch, schema: &Schema) -> Result<Vec<Row>, EngineError> {
    let ids = decode_ids(batch)?;
    let seqs = decode_seqs(batch)?;
    let mut documents: Vec<Vec<(FieldName, Value)>> = vec![Vec::new(); batch.num_rows()];
    for (name, field) in &schema.fields {
        let Some(array) = batch.column_by_name(&column_name(name)) else {
            continue;
        };
        let values = decode_column(array, &field.ty)?;
        for (at, value) in values.enumerate() {
            if let Some(value) = value {
                documents[at].push((name.clone(), value));
            }
        }
    }
    let rows = ids.into_iter().zip(seqs).zip(documents);
    Ok(rows
        .map(|((id, seq), fields)| Row {
            id,
            seq,
            document: Some(Arc::new(Document::from_fields(fields))),
        })
        .collect())
}

pub fn decode_ids(batch: &RecordBatch) -> Result<Vec<DocId>, EngineError> {
    let array = batch.column_by_name(ID).ok_or_else(|| corrupt("no id column"))?;
    match array.data_type() {
        DataType::UInt64 => Ok(array
            .as_primitive::<UInt64Type>()
            .values()
            .iter()
            .map(|n| DocId::Num(*n))
            .collect()),
        DataType::Utf8 => Ok(array
            .as_string::<i32>()
            .iter()
            .map(|s| DocId::Str(s.unwrap_or_default().into()))
            .collect()),
        other => Err(corrupt(&format!("the id column has type {other}"))),
    }
}

pub fn decode_seqs(batch: &RecordBatch) -> Result<Vec<Seq>, EngineError> {
    let array = batch
        .column_by_name(SEQ)
        .and_then(|c| c.as_primitive_opt::<UInt64Type>())
        .ok_or_else(|| corrupt("no _seq column"))?;
    Ok(array.values().iter().map(|n| Seq(*n)).collect())
}

/// The values of one column, `None` where missing.
pub fn decode_column<'a>(
    array: &'a ArrayRef,
    ty: &'a FieldType,
) -> Result<Box<dyn Iterator<Item = Option<Value>> + 'a>, EngineError> {
    if array.data_type() != &data_type(ty) {
        return Err(corrupt(&format!(
            "a column of type {} holds a {}",
            array.data_type(),
            ty.name()
        )));
    }
    Ok(match ty {
        FieldType::Sparse => Box::new(decode_sparse(array)?.into_iter().map(|v| v.map(Value::Sparse))),
        FieldType::Text { .. } => decode_scalars(array, Scalar::String),
        FieldType::Scalar(s) => decode_scalars(array, *s),
        FieldType::Json => Box::new(
            array
                .as_string::<i32>()
                .iter()
                .map(|text| text.map(|t| Value::Json(Arc::new(decode_json(t))))),
        ),
        FieldType::List(s) => {
            let lists = array.as_list::<i32>();
            Box::new((0..lists.len()).map(move |at| {
                lists.is_valid(at).then(|| {
                    let items = lists.value(at);
                    Value::List(decode_scalars(&items, *s).flatten().collect())
                })
            }))
        }
        FieldType::Vector(v) => Box::new(decode_vectors(array, v)?.map(|v| v.map(Value::Vector))),
    })
}

fn decode_sparse(array: &ArrayRef) -> Result<Vec<Option<SparseVector>>, EngineError> {
    let broken = || corrupt("a sparse vector of other bytes than we write");
    let vector = |bytes: &[u8]| {
        let pairs = SparseVector::pairs_of(bytes).ok_or_else(broken)?;
        SparseVector::new(pairs).map_err(|_| broken())
    };
    let each = array.as_binary::<i32>().iter();
    each.map(|bytes| bytes.map(vector).transpose()).collect()
}

/// By our own reader, which gives back the very floats that were written; serde_json rounds
/// some of them to a neighbour.
fn decode_json(text: &str) -> serde_json::Value {
    let limits = Limits {
        body_bytes: usize::MAX,
        ..Limits::default()
    };
    // Our own text: what does not parse is shown as the string it is.
    Json::parse(text.as_bytes(), &limits).map_or_else(|_| text.to_owned().into(), Json::into_serde)
}

fn decode_scalars<'a>(array: &'a ArrayRef, ty: Scalar) -> Box<dyn Iterator<Item = Option<Value>> + 'a> {
    match ty {
        Scalar::Bool => Box::new(array.as_boolean().iter().map(|v| v.map(Value::Bool))),
        Scalar::Int => Box::new(
            array
                .as_primitive::<Int64Type>()
                .iter()
                .map(|v| v.map(Value::Int)),
        ),
        Scalar::Float => Box::new(
            array
                .as_primitive::<Float64Type>()
                .iter()
                .map(|v| v.map(Value::Float)),
        ),
        Scalar::String => Box::new(
            array
                .as_string::<i32>()
                .iter()
                .map(|v| v.map(|s| Value::Str(s.into()))),
        ),
        Scalar::Timestamp => Box::new(
            array
                .as_primitive::<TimestampMillisecondType>()
                .iter()
                .map(|v| v.map(Value::Time)),
        ),
    }
}

pub fn decode_vectors<'a>(
    array: &'a ArrayRef,
    ty: &VectorType,
) -> Result<Box<dyn Iterator<Item = Option<Vector>> + 'a>, EngineError> {
    let lists = array
        .as_fixed_size_list_opt()
        .ok_or_else(|| corrupt("a vector column is no list"))?;
    let width = lists.value_length() as usize;
    // `values()` of a sliced list array already starts at its offset.
    let values = lists.values();
    let wrong = || corrupt("a vector column has the wrong element type");
    let at = move |row: usize| (row * width)..((row + 1) * width);
    let present = move |row: usize| lists.is_valid(row);
    Ok(match ty.element {
        Element::F32 => {
            let v = values
                .as_primitive_opt::<Float32Type>()
                .ok_or_else(wrong)?
                .values();
            Box::new((0..lists.len()).map(move |r| present(r).then(|| Vector::F32(v[at(r)].into()))))
        }
        Element::F16 => {
            let v = values
                .as_primitive_opt::<Float16Type>()
                .ok_or_else(wrong)?
                .values();
            Box::new(
                (0..lists.len()).map(move |r| {
                    present(r).then(|| Vector::F32(v[at(r)].iter().map(|x| x.to_f32()).collect()))
                }),
            )
        }
        Element::Int8 => {
            let v = values.as_primitive_opt::<Int8Type>().ok_or_else(wrong)?.values();
            Box::new((0..lists.len()).map(move |r| present(r).then(|| Vector::I8(v[at(r)].into()))))
        }
        Element::Binary => {
            let v = values.as_primitive_opt::<UInt8Type>().ok_or_else(wrong)?.values();
            Box::new((0..lists.len()).map(move |r| present(r).then(|| Vector::Bits(v[at(r)].into()))))
        }
    })
}

fn corrupt(what: &str) -> EngineError {
    EngineError::Corrupt(what.to_owned())
}
