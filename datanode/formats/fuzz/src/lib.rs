//! Entry points of the fuzzers, one for each file format.
//!
//! Each asserts more than "no panic": how the bytes are cut on their way must not matter,
//! every row is either written or counted as failed, and what is accepted keeps the limits.

use std::sync::LazyLock;

use bytes::Bytes;
use rhumb_core::{Code, Json, Limits, Schema, fields};
use rhumb_formats::{Chunk, Parquet, Splitter, typed};

/// As small as to be met by a fuzzer.
static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    body_bytes: 64 << 10,
    dims: 16,
    id_bytes: 16,
    fields: 20,
    document_bytes: 4 << 10,
    ..Limits::default()
});

const FIELDS: &str = r#"{"v": {"type": "vector", "dim": 2}, "i": {"type": "vector", "dim": 2, "element": "int8"},
    "text": "text", "pos": "string", "lex": "int", "price": "float", "live": "bool", "at": "timestamp",
    "tags": ["string"], "extra": "json"}"#;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let json = Json::parse(FIELDS.as_bytes(), &LIMITS).expect("valid JSON");
    let fields = fields::parse(&json, &LIMITS).expect("a valid definition");
    Schema::default().declare(&fields, &LIMITS).expect("new fields")
});

pub fn ndjson(data: &[u8]) {
    streamed(data, Splitter::ndjson);
}

pub fn csv(data: &[u8]) {
    streamed(data, Splitter::csv);
}

pub fn arrow(data: &[u8]) {
    streamed(data, Splitter::arrow);
}

pub fn parquet(data: &[u8]) {
    let Ok(mut file) = Parquet::open(Bytes::copy_from_slice(data)) else {
        return;
    };
    // A file may promise more rows than anybody can wait for.
    for _ in 0..8 {
        let Ok(Some(chunk)) = file.next_rows() else { return };
        check(&chunk);
    }
}

/// The first byte decides where the rest is cut.
fn streamed(data: &[u8], splitter: fn(&Limits) -> Splitter) {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let whole = read(splitter(&LIMITS), data, data.len().max(1));
    let pieces = read(splitter(&LIMITS), data, usize::from(*cut).max(1));
    assert_eq!(whole, pieces, "it matters how the bytes arrive");
}

/// How many rows there were, well formed or not, or why the file is none.
fn read(mut splitter: Splitter, data: &[u8], size: usize) -> Result<usize, Code> {
    let mut rows = 0;
    for piece in data.chunks(size).map(Some).chain([None]) {
        splitter.push(piece).map_err(|problem| problem.code)?;
        while piece.is_none() || splitter.is_full() {
            match splitter.take().map_err(|problem| problem.code)? {
                Some(chunk) => rows += check(&chunk),
                None => break,
            }
        }
    }
    Ok(rows)
}

fn check(chunk: &Chunk) -> usize {
    let all = chunk.rows.count() + chunk.broken.len();
    for schema in [&*SCHEMA, &Schema::default()] {
        let typed = typed(chunk, schema, &LIMITS);
        let (rows, failed) = (typed.rows as usize, typed.failures.len());
        assert_eq!(rows + failed, all, "a row was lost");
        assert!(typed.write.upsert.len() <= rows);
        assert_eq!(typed.hashes.len(), typed.write.upsert.len());
        let extended = schema.extend(&typed.write.new_fields, &LIMITS);
        extended.expect("the typer kept the limits");
    }
    all
}
