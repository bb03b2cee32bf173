//! Documents to Arrow and back: the one place that knows how a field's type looks as a
//! column.  The same layout serves the base table and the log, so that any Arrow or Lance
//! reader can open either.
//!
//! | field type | column |
//! |---|---|
//! | bool, int, float, string | Boolean, Int64, Float64, Utf8 |
//! | timestamp | Timestamp(ms, UTC) |
//! | text, json | Utf8 (json as its text) |
//! | list of T | List\<T\> |
//! | sparse_vector | Binary: its elements by index, each u32 and f32, little-endian |
//! | vector f32, f16, int8, binary | FixedSizeList of Float32, Float16, Int8, UInt8 (packed bits) |
//!
//! A column has the name of its field, see [`column_name`] for the few that cannot.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Schema as ArrowSchema, TimeUnit};
use rhumb_core::ids::IdKind;
use rhumb_core::{DocId, Document, Element, FieldName, FieldType, Scalar, Schema, Seq};

pub use self::decode::{decode_column, decode_ids, decode_log, decode_seqs, decode_table, decode_vectors};
pub use self::encode::{encode_log, encode_table};
use crate::error::EngineError;

mod decode;
mod encode;

pub const ID: &str = "id";
pub const SEQ: &str = "_seq";
/// Log only: the row is a tombstone.
pub const DELETED: &str = "_deleted";

/// One version of one document; `None` says it was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: DocId,
    pub seq: Seq,
    pub document: Option<Arc<Document>>,
}

/// The base table's columns: every field of the schema.
pub fn table_schema(schema: &Schema) -> Result<ArrowSchema, EngineError> {
    let mut fields = key_columns(schema)?;
    fields.extend(schema.fields.iter().map(|(name, f)| column(name, &f.ty)));
    Ok(ArrowSchema::new(fields))
}

pub fn column(name: &FieldName, ty: &FieldType) -> ArrowField {
    ArrowField::new(column_name(name), data_type(ty), true)
}

/// The column that holds a field: its own name, except that the names with a leading `_`
/// are ours and Lance's (`_seq`, `_rowid`, …).  `_x` is kept in `f_x`, a field `f_x`
/// therefore in `ff_x`, and so on: no two fields ever share a column.
pub fn column_name(field: &FieldName) -> Cow<'_, str> {
    let name = field.as_str();
    match name.trim_start_matches('f').starts_with('_') {
        true => Cow::Owned(format!("f{name}")),
        false => Cow::Borrowed(name),
    }
}

fn key_columns(schema: &Schema) -> Result<Vec<ArrowField>, EngineError> {
    let kind = schema
        .id_kind
        .ok_or_else(|| EngineError::Bug("rows were to be encoded before the id kind was known".into()))?;
    let id_type = match kind {
        IdKind::Num => DataType::UInt64,
        IdKind::Str => DataType::Utf8,
    };
    Ok(vec![
        ArrowField::new(ID, id_type, false),
        ArrowField::new(SEQ, DataType::UInt64, false),
    ])
}

fn data_type(ty: &FieldType) -> DataType {
    match ty {
        FieldType::Vector(v) => {
            let (item, width) = match v.element {
                Element::F32 => (DataType::Float32, v.dim),
                Element::F16 => (DataType::Float16, v.dim),
                Element::Int8 => (DataType::Int8, v.dim),
                Element::Binary => (DataType::UInt8, v.dim.div_ceil(8)),
            };
            DataType::FixedSizeList(Arc::new(ArrowField::new("item", item, true)), width as i32)
        }
        FieldType::Sparse => DataType::Binary,
        FieldType::Text { .. } | FieldType::Json => DataType::Utf8,
        FieldType::Scalar(s) => scalar_type(*s),
        FieldType::List(s) => DataType::List(Arc::new(ArrowField::new("item", scalar_type(*s), true))),
    }
}

fn scalar_type(s: Scalar) -> DataType {
    match s {
        Scalar::Bool => DataType::Boolean,
        Scalar::Int => DataType::Int64,
        Scalar::Float => DataType::Float64,
        Scalar::String => DataType::Utf8,
        Scalar::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column_of(field: &str) -> String {
        column_name(&FieldName::parse(field).expect(field)).into_owned()
    }

    #[test]
    fn no_field_takes_a_column_of_ours_or_of_another_field() {
        assert_eq!(column_of("price"), "price");
        assert_eq!(column_of("f"), "f");
        assert_eq!(column_of("fx_"), "fx_");
        for field in ["_seq", "_rowid", "_", "f_seq", "ff_seq", "f_"] {
            assert_eq!(column_of(field), format!("f{field}"));
        }
    }
}
