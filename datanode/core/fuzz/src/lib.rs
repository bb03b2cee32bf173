//! Entry points of the fuzzers, one for each parser of foreign bytes in `rhumb-core`.
//!
//! Each asserts more than "no panic": what is accepted must survive the way out and back.
//! `cargo +nightly fuzz run json` in `datanode/core` runs one of them under libFuzzer.
//! `tests/fuzz_smoke.rs` includes this file, so that CI runs it without nightly.

use std::sync::LazyLock;

use rhumb_core::typing::Typer;
use rhumb_core::{DocId, Document, Filter, Json, Limits, Schema, fields};

/// As small as to be met by a fuzzer.
static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    body_bytes: 64 << 10,
    batch_rows: 16,
    dims: 16,
    sparse_elements: 8,
    filter_clauses: 32,
    filter_depth: 6,
    id_bytes: 16,
    fields: 20,
    document_bytes: 4 << 10,
    ..Limits::default()
});

const FIELDS: &str = r#"{"v": {"type": "vector", "dim": 2}, "h": {"type": "vector", "dim": 2, "element": "f16"},
    "i": {"type": "vector", "dim": 2, "element": "int8"}, "b": {"type": "vector", "dim": 9, "element": "binary"},
    "terms": "sparse_vector", "text": "text", "pos": "string", "lex": "int", "price": "float", "live": "bool", "at": "timestamp",
    "tags": ["string"], "sizes": ["float"], "extra": "json"}"#;

const ROWS: &str = r#"[{"id": "a", "v": [1, 2], "terms": {"indices": [7, 1], "values": [0.5, 2]}, "text": "a small boat", "pos": "n", "lex": 3, "price": 2.5, "live": true,
    "at": "2026-01-31T12:00:00Z", "tags": ["a", "b"], "sizes": [1, 2.5], "extra": {"c": ["x", 1, null], "n": 3}},
    {"id": "b"}]"#;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let fields = fields::parse(&known_json(FIELDS), &LIMITS).expect("a valid definition");
    Schema::default().declare(&fields, &LIMITS).expect("new fields")
});

static STORED: LazyLock<Vec<(DocId, Document)>> = LazyLock::new(|| {
    Typer::new(&SCHEMA, &LIMITS)
        .upsert(known_json(ROWS))
        .expect("valid documents")
});

fn known_json(text: &str) -> Json {
    Json::parse(text.as_bytes(), &LIMITS).expect("valid JSON")
}

pub fn json(data: &[u8]) {
    let Ok(json) = Json::parse(data, &LIMITS) else {
        return;
    };
    // Ours accepts nothing that serde_json does not, and means the same by it.
    let theirs: serde_json::Value = serde_json::from_slice(data).expect("serde_json accepts it too");
    let tree = json.clone().into_serde();
    assert_eq!(without_numbers(&theirs), without_numbers(&tree));
    assert_eq!(Json::from(tree.clone()), sorted(json));
    let text = serde_json::to_vec(&tree).expect("a tree is writable");
    assert_eq!(
        Json::parse(&text, &Limits::default()).expect("what serde_json wrote"),
        Json::from(tree)
    );
}

/// A tree of serde_json has its keys in order.
fn sorted(json: Json) -> Json {
    match json {
        Json::Object(mut entries) => {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect(),
            )
        }
        Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// serde_json does not round every float correctly; that we do is tested elsewhere.
fn without_numbers(tree: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match tree {
        Value::Number(_) => Value::from(0),
        Value::Array(items) => items.iter().map(without_numbers).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), without_numbers(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

pub fn filter_json(data: &[u8]) {
    if let Ok(json) = Json::parse(data, &LIMITS) {
        evaluate(Filter::parse_json(&json, &SCHEMA, &LIMITS).ok());
    }
}

pub fn filter_sql(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        evaluate(Filter::parse_sql(text, &SCHEMA, &LIMITS).ok());
    }
}

fn evaluate(filter: Option<Filter>) {
    let Some(filter) = filter else { return };
    assert!(filter.leaves().len() <= 2 * LIMITS.filter_clauses);
    let negated = Filter::Not(Box::new(filter.clone()));
    for (id, document) in STORED.iter() {
        assert_ne!(filter.matches(id, document), negated.matches(id, document));
    }
}

pub fn document(data: &[u8]) {
    let Ok(mut json) = Json::parse(data, &LIMITS) else {
        return;
    };
    for schema in [&*SCHEMA, &Schema::default()] {
        let mut typer = Typer::new(schema, &LIMITS);
        let rows = match json.take("upsert_columns") {
            Some(columns) => typer.upsert_columns(columns),
            None => typer.upsert(json.clone()),
        };
        let Ok(rows) = rows else { continue };
        let schema = schema
            .extend(&typer.into_new_fields(), &LIMITS)
            .expect("the typer kept the limits");
        for (id, document) in rows {
            let row = rhumb_core::render::ExportRow {
                id: &id,
                document: &document,
                schema: &schema,
            };
            let text = serde_json::to_vec(&row).expect("a document is writable");
            let json = Json::parse(&text, &Limits::default()).expect("what we wrote is JSON");
            let again = Typer::new(&schema, &LIMITS)
                .row(json)
                .expect("what we wrote fits");
            assert_eq!(again, (id, document));
        }
    }
}

pub fn fields_definition(data: &[u8]) {
    let Ok(json) = Json::parse(data, &LIMITS) else {
        return;
    };
    let Ok(definition) = fields::parse(&json, &LIMITS) else {
        return;
    };
    let schema = Schema::default()
        .declare(&definition, &LIMITS)
        .expect("the parser kept the limits");
    assert!(schema.declares_exactly(&definition));
    let rendered = Json::from(fields::render(&schema));
    assert_eq!(fields::parse(&rendered, &LIMITS), Ok(definition));
}
