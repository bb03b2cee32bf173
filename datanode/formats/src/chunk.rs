//! A piece of an import: rows as they came, and what becomes of them under a schema.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::Bytes;
use rhumb_core::ids::IdKind;
use rhumb_core::typing::{Typer, cell};
use rhumb_core::write::Write;
use rhumb_core::{Code, DocId, Document, Json, Limits, Problem, Schema};

use crate::columns;

/// Rows of one write.
pub const ROWS: usize = 1_000;
/// Bytes after which a chunk is full before it has so many rows.
pub const BYTES: usize = 4 << 20;

/// Kept until it is written, so that it can be typed again when the schema moves.
#[derive(Debug)]
pub enum Rows {
    /// NDJSON, by number of line.
    Lines(Vec<(u64, Bytes)>),
    /// CSV, by number of line.
    Records {
        header: Arc<[String]>,
        records: Vec<(u64, Vec<String>)>,
    },
    /// Arrow, and the number of its first row.
    Batch { first: u64, batch: RecordBatch },
}

#[derive(Debug)]
pub struct Chunk {
    pub rows: Rows,
    /// What was no row at all.
    pub broken: Vec<Failure>,
}

/// A row that will not be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub line: u64,
    pub problem: Problem,
}

/// A chunk as a write.
#[derive(Debug)]
pub struct Typed {
    pub write: Write,
    /// Rows that the write stands for; one whose id comes again is among them.
    pub rows: u64,
    pub failures: Vec<Failure>,
    /// Of the ids, to keep writes of one document in their order.
    pub hashes: Vec<u64>,
}

impl Rows {
    pub fn count(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.len(),
            Self::Records { records, .. } => records.len(),
            Self::Batch { batch, .. } => batch.num_rows(),
        }
    }
}

/// CPU-bound: milliseconds for a full chunk.
pub fn typed(chunk: &Chunk, schema: &Schema, limits: &Limits) -> Typed {
    let mut rows = Vec::with_capacity(chunk.rows.count());
    let mut failures = chunk.broken.clone();
    let mut typer = Typer::new(schema, limits);
    let mut take = |line: u64, typer: &mut Typer<'_>, row: Result<Json, Problem>| match row
        .and_then(|row| typer.row(row))
    {
        Ok(typed) => rows.push(typed),
        Err(problem) => failures.push(Failure { line, problem }),
    };
    match &chunk.rows {
        Rows::Lines(lines) => {
            for (line, text) in lines {
                let row = Json::parse(text, limits);
                take(*line, &mut typer, row);
            }
        }
        Rows::Records { header, records } => {
            for (line, record) in records {
                let row = row_of_text(header, record, &typer, schema, limits);
                take(*line, &mut typer, row);
            }
        }
        Rows::Batch { first, batch } => {
            for row in 0..batch.num_rows() {
                let json = columns::row(batch, row, schema, limits);
                take(first + row as u64, &mut typer, json);
            }
        }
    }
    let new_fields = typer.into_new_fields();
    let count = rows.len() as u64;
    let upsert = last_of_each(rows);
    failures.sort_by_key(|failure| failure.line);
    Typed {
        hashes: upsert.iter().map(|(id, _)| id.hash64()).collect(),
        write: Write {
            upsert,
            new_fields,
            ..Write::default()
        },
        rows: count,
        failures,
    }
}

/// A file may hold an id twice: the later row wins, as if they were written one by one.
fn last_of_each(rows: Vec<(DocId, Document)>) -> Vec<(DocId, Document)> {
    let mut places: HashMap<DocId, usize> = HashMap::with_capacity(rows.len());
    let mut kept: Vec<(DocId, Document)> = Vec::with_capacity(rows.len());
    for (id, document) in rows {
        match places.get(&id) {
            Some(place) => kept[*place].1 = document,
            None => {
                places.insert(id.clone(), kept.len());
                kept.push((id, document));
            }
        }
    }
    kept
}

/// A CSV record under the types of its fields; an empty cell is missing.
fn row_of_text(
    header: &[String],
    record: &[String],
    typer: &Typer<'_>,
    schema: &Schema,
    limits: &Limits,
) -> Result<Json, Problem> {
    if record.len() != header.len() {
        let detail = format!("{} values for {} columns", record.len(), header.len());
        return Err(Problem::new(Code::Malformed, detail));
    }
    let mut fields = Vec::with_capacity(header.len());
    for (name, text) in header.iter().zip(record) {
        let json = if name == "id" {
            id_of_text(text, schema.id_kind.or(typer.new_fields().id_kind))
        } else {
            let inferred = || typer.new_fields().fields.get(name.as_str());
            cell(text, schema.get(name).or_else(inferred), limits)
        };
        if !json.is_null() {
            fields.push((Arc::from(name.as_str()), json));
        }
    }
    Ok(Json::Object(fields))
}

/// Text that is no number stays text, for the typer to refuse in its own words.
fn id_of_text(text: &str, kind: Option<IdKind>) -> Json {
    let number = || text.parse::<u64>().ok().filter(|n| n.to_string() == text);
    match kind {
        Some(IdKind::Num) => {
            number().map_or_else(|| Json::from(text), |n| Json::from(serde_json::Value::from(n)))
        }
        Some(IdKind::Str) | None => Json::from(text),
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::{FieldType, Scalar, Value};

    use super::*;

    fn lines(text: &str) -> Chunk {
        let lines = (1..)
            .zip(text.lines())
            .map(|(line, text)| (line, Bytes::copy_from_slice(text.as_bytes())));
        Chunk {
            rows: Rows::Lines(lines.collect()),
            broken: Vec::new(),
        }
    }

    fn records(header: &[&str], rows: &[&[&str]]) -> Chunk {
        let header = header.iter().map(|name| (*name).to_owned()).collect();
        let records = (2..)
            .zip(rows)
            .map(|(line, row)| (line, row.iter().map(|cell| (*cell).to_owned()).collect()));
        Chunk {
            rows: Rows::Records {
                header,
                records: records.collect(),
            },
            broken: Vec::new(),
        }
    }

    fn typed_fresh(chunk: &Chunk) -> Typed {
        typed(chunk, &Schema::default(), &Limits::default())
    }

    fn broken_lines(typed: &Typed) -> Vec<u64> {
        typed.failures.iter().map(|failure| failure.line).collect()
    }

    #[test]
    fn a_row_that_fails_is_counted_and_the_others_go_on() {
        let typed = typed_fresh(&lines(
            "{\"id\": \"a\", \"n\": 1}\nnot json\n{\"n\": 2}\n{\"id\": \"b\", \"n\": \"x\"}\n{\"id\": \"c\", \"n\": 3}",
        ));
        assert_eq!((typed.rows, typed.write.upsert.len()), (2, 2));
        assert_eq!(broken_lines(&typed), [2, 3, 4]);
        assert_eq!(typed.failures[2].problem.field.as_deref(), Some("n"));
    }

    #[test]
    fn the_later_of_two_rows_with_one_id_wins() {
        let typed = typed_fresh(&lines(
            "{\"id\": \"a\", \"n\": 1}\n{\"id\": \"b\"}\n{\"id\": \"a\", \"n\": 3}",
        ));
        assert_eq!((typed.rows, typed.write.upsert.len()), (3, 2));
        assert_eq!(typed.write.upsert[0].1.get("n"), Some(&Value::Int(3)));
    }

    #[test]
    fn csv_is_typed_by_its_fields_and_an_empty_cell_is_missing() {
        let typed = typed_fresh(&records(
            &["id", "n", "s"],
            &[&["a", "1", "007"], &["b", "", ""], &["c", "x", "y"]],
        ));
        assert_eq!(typed.write.upsert.len(), 2);
        assert_eq!(typed.write.upsert[0].1.get("n"), Some(&Value::Int(1)));
        assert_eq!(typed.write.upsert[0].1.get("s"), Some(&Value::Str("007".into())));
        assert!(typed.write.upsert[1].1.is_empty());
        assert_eq!(broken_lines(&typed), [4]);
    }

    #[test]
    fn a_csv_record_has_a_value_for_every_column() {
        let typed = typed_fresh(&records(&["id", "n"], &[&["a"], &["b", "1", "2"], &["c", "1"]]));
        assert_eq!(broken_lines(&typed), [2, 3]);
        assert_eq!(typed.write.new_fields.fields.len(), 1);
        let n = typed.write.new_fields.fields.values().next();
        assert_eq!(n, Some(&FieldType::Scalar(Scalar::Int)));
    }

    #[test]
    fn ids_of_a_csv_are_numbers_where_ids_are_numbers() {
        let schema = Schema {
            id_kind: Some(IdKind::Num),
            ..Schema::default()
        };
        let typed = typed(
            &records(&["id"], &[&["7"], &["007"], &["x"]]),
            &schema,
            &Limits::default(),
        );
        assert_eq!(typed.write.upsert[0].0, DocId::Num(7));
        assert_eq!(broken_lines(&typed), [3, 4]);
    }
}
