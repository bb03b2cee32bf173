//! The body of a log object: the rows of one group commit as an Arrow IPC stream, with the
//! idempotency keys of its requests in the schema's metadata.  Any Arrow reader opens it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use rhumb_core::ids::IdKind;
use rhumb_core::{Position, Schema};

use crate::error::EngineError;
use crate::idem::{self, Entry};
use crate::rows::{self, Row};

#[derive(Debug, Default, PartialEq)]
pub struct LogEntry {
    pub rows: Vec<Row>,
    pub idempotency: Vec<Entry>,
}

impl LogEntry {
    pub fn encode(&self, schema: &Schema) -> Result<Vec<u8>, EngineError> {
        let mut metadata = HashMap::new();
        if !self.idempotency.is_empty() {
            metadata.insert(idem::METADATA_KEY.to_owned(), idem::to_json(&self.idempotency)?);
        }
        // An entry of keys alone may come before the first document.
        let schema = match schema.id_kind {
            Some(_) => std::borrow::Cow::Borrowed(schema),
            None => std::borrow::Cow::Owned(Schema {
                id_kind: Some(IdKind::Str),
                ..schema.clone()
            }),
        };
        let batch = rows::encode_log(&self.rows, &schema, metadata)?;
        let mut body = Vec::with_capacity(batch.get_array_memory_size() + 1_024);
        let mut writer = StreamWriter::try_new(&mut body, batch.schema_ref()).map_err(lance::Error::from)?;
        writer
            .write(&batch)
            .and_then(|()| writer.finish())
            .map_err(lance::Error::from)?;
        drop(writer);
        Ok(body)
    }

    /// Whether it has a field that `schema` has not: `decode` would leave it out.
    pub fn is_ahead_of(body: &[u8], schema: &Schema) -> Result<bool, EngineError> {
        let corrupt = |e: arrow_schema::ArrowError| EngineError::Corrupt(format!("log entry: {e}"));
        let reader = StreamReader::try_new(body, None).map_err(corrupt)?;
        let ours = [rows::ID, rows::SEQ, rows::DELETED].map(Cow::Borrowed);
        let known: HashSet<Cow<'_, str>> = schema.fields.keys().map(rows::column_name).chain(ours).collect();
        let columns = reader.schema();
        let mut names = columns.fields().iter().map(|column| column.name());
        Ok(names.any(|name| !known.contains(name.as_str())))
    }

    /// `position` is where the entry was read: its keys were answered with it.
    pub fn decode(body: &[u8], schema: &Schema, position: Position) -> Result<Self, EngineError> {
        let corrupt =
            |e: arrow_schema::ArrowError| EngineError::Corrupt(format!("log entry {position}: {e}"));
        let reader = StreamReader::try_new(body, None).map_err(corrupt)?;
        let mut entry = Self::default();
        if let Some(text) = reader.schema().metadata().get(idem::METADATA_KEY) {
            entry.idempotency = idem::from_json(text.as_bytes())?;
            entry.idempotency.iter_mut().for_each(|e| e.position = position);
        }
        for batch in reader {
            entry
                .rows
                .extend(rows::decode_log(&batch.map_err(corrupt)?, schema)?);
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rhumb_core::schema::Field;
    use rhumb_core::write::Counts;
    use rhumb_core::{
        Document, Element, FieldName, FieldType, Metric, Scalar, Seq, SparseVector, Value, Vector,
        VectorIndex, VectorType,
    };

    use super::*;

    fn name(text: &str) -> FieldName {
        FieldName::parse(text).expect("a field name")
    }

    fn vector(dim: u32, element: Element) -> FieldType {
        FieldType::Vector(VectorType {
            dim,
            metric: Metric::Cosine,
            element,
            index: VectorIndex::Auto,
        })
    }

    fn every_type() -> Vec<(FieldName, FieldType, Value)> {
        let json = serde_json::json!({"color": "red", "n": [31.245270191439438, 2.5], "m": [1, -2]});
        vec![
            (name("a_bool"), FieldType::Scalar(Scalar::Bool), Value::Bool(true)),
            (
                name("b_int"),
                FieldType::Scalar(Scalar::Int),
                Value::Int(i64::MIN),
            ),
            (
                name("c_float"),
                FieldType::Scalar(Scalar::Float),
                Value::Float(1.5),
            ),
            (
                name("d_str"),
                FieldType::Scalar(Scalar::String),
                Value::Str("straße".into()),
            ),
            (
                name("e_time"),
                FieldType::Scalar(Scalar::Timestamp),
                Value::Time(-1),
            ),
            (
                name("f_text"),
                FieldType::Text {
                    language: "english".into(),
                },
                Value::Str("a boat".into()),
            ),
            (name("g_json"), FieldType::Json, Value::Json(Arc::new(json))),
            (
                name("h_list"),
                FieldType::List(Scalar::String),
                Value::List(vec![Value::Str("x".into())]),
            ),
            (
                name("i_none"),
                FieldType::List(Scalar::Int),
                Value::List(Vec::new()),
            ),
            (
                name("j_f32"),
                vector(2, Element::F32),
                Value::Vector(Vector::F32([0.25, -1.0].into())),
            ),
            (
                name("k_f16"),
                vector(2, Element::F16),
                Value::Vector(Vector::F32([0.5, 2.0].into())),
            ),
            (
                name("l_i8"),
                vector(3, Element::Int8),
                Value::Vector(Vector::I8([-128, 0, 127].into())),
            ),
            (
                name("m_bits"),
                vector(10, Element::Binary),
                Value::Vector(Vector::Bits([0xA5, 0x40].into())),
            ),
            (
                name("n_sparse"),
                FieldType::Sparse,
                Value::Sparse(SparseVector::new(vec![(u32::MAX, -1.5), (0, 0.1)]).expect("two indices")),
            ),
            (
                name("o_empty"),
                FieldType::Sparse,
                Value::Sparse(SparseVector::default()),
            ),
        ]
    }

    #[test]
    fn every_type_survives_the_log() {
        let fields = every_type();
        let schema = Schema {
            fields: fields
                .iter()
                .map(|(n, ty, _)| {
                    (
                        n.clone(),
                        Field {
                            ty: ty.clone(),
                            declared: true,
                        },
                    )
                })
                .collect(),
            id_kind: Some(IdKind::Str),
        };
        let full = Document::from_fields(fields.into_iter().map(|(n, _, v)| (n, v)).collect());
        let row = |id: &str, seq, document: Option<Document>| Row {
            id: id.into(),
            seq: Seq(seq),
            document: document.map(Arc::new),
        };
        let position = Position {
            epoch: rhumb_core::Epoch(2),
            slot: rhumb_core::Slot(9),
        };
        let entry = LogEntry {
            rows: vec![
                row("full", 1, Some(full)),
                row("empty", 2, Some(Document::default())),
                row("gone", 3, None),
            ],
            idempotency: vec![Entry {
                key: "k\"1".into(),
                body_hash: u64::MAX,
                at_ms: 5,
                counts: Counts {
                    upserted: 2,
                    version: Some(Seq(2)),
                    ..Counts::default()
                },
                position,
            }],
        };
        let body = entry.encode(&schema).expect("encodes");
        let mut with_trailer = body;
        with_trailer.extend_from_slice(&[0xEE; 64]);
        assert_eq!(
            LogEntry::decode(&with_trailer, &schema, position).expect("decodes"),
            entry
        );
    }

    #[test]
    fn keys_alone_may_come_before_the_first_document() {
        let entry = LogEntry {
            rows: Vec::new(),
            ..LogEntry::default()
        };
        let body = entry.encode(&Schema::default()).expect("encodes");
        let read = LogEntry::decode(&body, &Schema::default(), Position::default()).expect("decodes");
        assert_eq!(read, entry);
    }

    #[test]
    fn a_cut_body_is_corrupt_and_never_a_panic() {
        let schema = Schema {
            id_kind: Some(IdKind::Num),
            ..Schema::default()
        };
        let rows = vec![Row {
            id: 7.into(),
            seq: Seq(1),
            document: None,
        }];
        let body = LogEntry {
            rows,
            ..LogEntry::default()
        }
        .encode(&schema)
        .expect("encodes");
        for len in 0..body.len() - 8 {
            let read = LogEntry::decode(&body[..len], &schema, Position::default());
            assert!(
                read.is_err() || read.is_ok_and(|e| e.rows.is_empty()),
                "cut at {len}"
            );
        }
    }
}
