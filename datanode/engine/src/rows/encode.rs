//! Documents to Arrow columns.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, FixedSizeListBuilder, Float16Builder, Float32Builder,
    Float64Builder, Int8Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMillisecondBuilder,
    UInt8Builder,
};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field as ArrowField, Schema as ArrowSchema};
use rhumb_core::ids::IdKind;
use rhumb_core::{DocId, Element, FieldName, FieldType, Scalar, Schema, Value, Vector, VectorType};

use super::{DELETED, Row, column, key_columns, table_schema};
use crate::error::EngineError;

/// Rows for the base table: all fields, no tombstones.
pub fn encode_table(rows: &[Row], schema: &Schema) -> Result<RecordBatch, EngineError> {
    let arrow = table_schema(schema)?;
    let mut columns = encode_keys(rows, schema)?;
    columns.extend(
        schema
            .fields
            .iter()
            .map(|(name, f)| encode_column(rows, name, &f.ty)),
    );
    Ok(RecordBatch::try_new(Arc::new(arrow), columns).map_err(lance::Error::from)?)
}

/// Rows for the log: only the fields that occur, and which rows are tombstones.
pub fn encode_log(
    rows: &[Row],
    schema: &Schema,
    metadata: HashMap<String, String>,
) -> Result<RecordBatch, EngineError> {
    let mut fields = key_columns(schema)?;
    let mut columns = encode_keys(rows, schema)?;
    fields.push(ArrowField::new(DELETED, DataType::Boolean, false));
    columns.push(Arc::new(BooleanArray::from_iter(
        rows.iter().map(|r| Some(r.document.is_none())),
    )));
    let occurring: BTreeSet<&FieldName> = rows
        .iter()
        .filter_map(|r| r.document.as_deref())
        .flat_map(|d| d.iter().map(|(n, _)| n))
        .collect();
    for name in occurring {
        let ty = schema
            .get(name.as_str())
            .ok_or_else(|| EngineError::Bug(format!("field {name} is in a row but not in the schema")))?;
        fields.push(column(name, ty));
        columns.push(encode_column(rows, name, ty));
    }
    let arrow = ArrowSchema::new_with_metadata(fields, metadata);
    Ok(RecordBatch::try_new(Arc::new(arrow), columns).map_err(lance::Error::from)?)
}

fn encode_keys(rows: &[Row], schema: &Schema) -> Result<Vec<ArrayRef>, EngineError> {
    let wrong_kind = || EngineError::Bug("an id of the wrong kind reached the encoder".into());
    let ids: ArrayRef = match schema.id_kind {
        Some(IdKind::Num) => {
            let ids = rows.iter().map(|r| match r.id {
                DocId::Num(n) => Ok(n),
                DocId::Str(_) => Err(wrong_kind()),
            });
            Arc::new(UInt64Array::from(ids.collect::<Result<Vec<u64>, _>>()?))
        }
        _ => {
            let ids = rows.iter().map(|r| match &r.id {
                DocId::Str(s) => Ok(s.as_ref()),
                DocId::Num(_) => Err(wrong_kind()),
            });
            Arc::new(StringArray::from(ids.collect::<Result<Vec<&str>, _>>()?))
        }
    };
    Ok(vec![
        ids,
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.seq.0))),
    ])
}

fn encode_column(rows: &[Row], name: &FieldName, ty: &FieldType) -> ArrayRef {
    let values = rows
        .iter()
        .map(|r| r.document.as_deref().and_then(|d| d.get(name.as_str())));
    match ty {
        FieldType::Vector(v) => encode_vectors(values, v),
        FieldType::Sparse => {
            let mut out = BinaryBuilder::new();
            for value in values {
                match value {
                    Some(Value::Sparse(vector)) => out.append_value(vector.to_bytes()),
                    _ => out.append_null(),
                }
            }
            Arc::new(out.finish())
        }
        FieldType::Text { .. } => encode_scalars(values, Scalar::String),
        FieldType::Scalar(s) => encode_scalars(values, *s),
        FieldType::Json => {
            let mut out = StringBuilder::new();
            for value in values {
                match value {
                    Some(Value::Json(json)) => out.append_value(json.to_string()),
                    _ => out.append_null(),
                }
            }
            Arc::new(out.finish())
        }
        FieldType::List(s) => encode_lists(values, *s),
    }
}

fn encode_vectors<'a>(values: impl Iterator<Item = Option<&'a Value>>, ty: &VectorType) -> ArrayRef {
    fn fill<'a, B: ArrayBuilder, T: Copy + 'a>(
        values: impl Iterator<Item = Option<&'a Value>>,
        width: usize,
        builder: B,
        pick: impl Fn(&Vector) -> Option<&[T]>,
        append: impl Fn(&mut B, &[T]),
        pad: T,
    ) -> ArrayRef {
        let mut out = FixedSizeListBuilder::new(builder, width as i32);
        let zeros = vec![pad; width];
        for value in values {
            let present = match value {
                Some(Value::Vector(v)) => pick(v).filter(|v| v.len() == width),
                _ => None,
            };
            append(out.values(), present.unwrap_or(&zeros));
            out.append(present.is_some());
        }
        Arc::new(out.finish())
    }
    let dim = ty.dim as usize;
    match ty.element {
        Element::F32 => fill(
            values,
            dim,
            Float32Builder::new(),
            |v| match v {
                Vector::F32(v) => Some(v.as_ref()),
                _ => None,
            },
            |b, v| b.append_slice(v),
            0.0,
        ),
        Element::Int8 => fill(
            values,
            dim,
            Int8Builder::new(),
            |v| match v {
                Vector::I8(v) => Some(v.as_ref()),
                _ => None,
            },
            |b, v| b.append_slice(v),
            0,
        ),
        Element::Binary => fill(
            values,
            dim.div_ceil(8),
            UInt8Builder::new(),
            |v| match v {
                Vector::Bits(v) => Some(v.as_ref()),
                _ => None,
            },
            |b, v| b.append_slice(v),
            0,
        ),
        Element::F16 => {
            let mut out = FixedSizeListBuilder::new(Float16Builder::new(), dim as i32);
            for value in values {
                let present = match value {
                    Some(Value::Vector(Vector::F32(v))) if v.len() == dim => Some(v),
                    _ => None,
                };
                for at in 0..dim {
                    let x = present.map_or(0.0, |v| v[at]);
                    out.values().append_value(half::f16::from_f32(x));
                }
                out.append(present.is_some());
            }
            Arc::new(out.finish())
        }
    }
}

fn encode_scalars<'a>(values: impl Iterator<Item = Option<&'a Value>>, ty: Scalar) -> ArrayRef {
    match ty {
        Scalar::Bool => {
            let mut out = BooleanBuilder::new();
            values.for_each(|v| append_bool(&mut out, v));
            Arc::new(out.finish())
        }
        Scalar::Int => {
            let mut out = Int64Builder::new();
            values.for_each(|v| append_int(&mut out, v));
            Arc::new(out.finish())
        }
        Scalar::Float => {
            let mut out = Float64Builder::new();
            values.for_each(|v| append_float(&mut out, v));
            Arc::new(out.finish())
        }
        Scalar::String => {
            let mut out = StringBuilder::new();
            values.for_each(|v| append_str(&mut out, v));
            Arc::new(out.finish())
        }
        Scalar::Timestamp => {
            let mut out = TimestampMillisecondBuilder::new().with_timezone("UTC");
            values.for_each(|v| append_time(&mut out, v));
            Arc::new(out.finish())
        }
    }
}

fn encode_lists<'a>(values: impl Iterator<Item = Option<&'a Value>>, ty: Scalar) -> ArrayRef {
    fn fill<'a, B: ArrayBuilder>(
        values: impl Iterator<Item = Option<&'a Value>>,
        builder: B,
        append: impl Fn(&mut B, Option<&Value>),
    ) -> ArrayRef {
        let mut out = ListBuilder::new(builder);
        for value in values {
            match value {
                Some(Value::List(items)) => {
                    items.iter().for_each(|item| append(out.values(), Some(item)));
                    out.append(true);
                }
                _ => out.append(false),
            }
        }
        Arc::new(out.finish())
    }
    match ty {
        Scalar::Bool => fill(values, BooleanBuilder::new(), append_bool),
        Scalar::Int => fill(values, Int64Builder::new(), append_int),
        Scalar::Float => fill(values, Float64Builder::new(), append_float),
        Scalar::String => fill(values, StringBuilder::new(), append_str),
        Scalar::Timestamp => fill(
            values,
            TimestampMillisecondBuilder::new().with_timezone("UTC"),
            append_time,
        ),
    }
}

fn append_bool(out: &mut BooleanBuilder, value: Option<&Value>) {
    match value {
        Some(Value::Bool(b)) => out.append_value(*b),
        _ => out.append_null(),
    }
}

fn append_int(out: &mut Int64Builder, value: Option<&Value>) {
    match value {
        Some(Value::Int(n)) => out.append_value(*n),
        _ => out.append_null(),
    }
}

fn append_float(out: &mut Float64Builder, value: Option<&Value>) {
    match value {
        Some(Value::Float(x)) => out.append_value(*x),
        _ => out.append_null(),
    }
}

fn append_str(out: &mut StringBuilder, value: Option<&Value>) {
    match value {
        Some(Value::Str(s)) => out.append_value(s),
        _ => out.append_null(),
    }
}

fn append_time(out: &mut TimestampMillisecondBuilder, value: Option<&Value>) {
    match value {
        Some(Value::Time(ms)) => out.append_value(*ms),
        _ => out.append_null(),
    }
}
