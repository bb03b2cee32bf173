//! How fast a write request is read: 1,000 documents of 384 floats, as numpy writes f32
//! (shortest form) and as Python writes them once they are doubles.
//!
//! `cargo run -p rhumb-core --release --example parse_speed`

use std::io::Write;
use std::time::Duration;

use rhumb_core::typing::Typer;
use rhumb_core::{
    Element, Field, FieldName, FieldType, Filter, Json, Limits, Metric, Schema, VectorIndex, VectorType,
    fields,
};

const ROWS: usize = 1_000;
const DIM: usize = 384;
const ROUNDS: usize = 30;

#[expect(
    clippy::disallowed_methods,
    reason = "a stopwatch of an example, no part of the server"
)]
fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let times = (0..ROUNDS).map(|_| {
        let start = std::time::Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    });
    times.min().unwrap_or_default()
}

fn body(number: fn(f32) -> String) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5) * 0.2
    };
    let rows: Vec<String> = (0..ROWS)
        .map(|row| {
            let vector: Vec<String> = (0..DIM).map(|_| number(next())).collect();
            format!(
                "{{\"id\":\"n{row}\",\"embedding\":[{}],\"pos\":\"n\",\"lex\":{row}}}",
                vector.join(",")
            )
        })
        .collect();
    format!("{{\"upsert\":[{}]}}", rows.join(","))
}

fn main() -> std::io::Result<()> {
    let mut schema = Schema::default();
    let vector = VectorType {
        dim: 384,
        metric: Metric::Cosine,
        element: Element::F32,
        index: VectorIndex::Auto,
    };
    let name = FieldName::parse("embedding").map_err(std::io::Error::other)?;
    schema.fields.insert(
        name,
        Field {
            ty: FieldType::Vector(vector),
            declared: true,
        },
    );
    let limits = Limits::default();
    let mut out = std::io::stdout().lock();
    for (label, body) in [
        ("f32 shortest", body(|x| format!("{x}"))),
        ("as doubles", body(|x| format!("{}", f64::from(x)))),
    ] {
        let parse = best(|| Json::parse(body.as_bytes(), &limits));
        let serde = best(|| serde_json::from_str::<serde_json::Value>(&body));
        let typed = best(|| {
            let mut json = Json::parse(body.as_bytes(), &limits)?;
            let rows = json.take("upsert").unwrap_or_default();
            Typer::new(&schema, &limits).upsert(rows)
        });
        let mb = body.len() as f64 / 1e6;
        let rate = |t: Duration| mb / t.as_secs_f64();
        writeln!(
            out,
            "{label}: {mb:.2} MB; Json::parse {parse:.2?} ({:.0} MB/s), serde_json::Value {serde:.2?} ({:.0} MB/s), parse and type {typed:.2?}",
            rate(parse),
            rate(serde)
        )?;
    }
    filters(&mut out)
}

fn filters(out: &mut impl Write) -> std::io::Result<()> {
    let limits = Limits::default();
    let json = |text: &str| Json::parse(text.as_bytes(), &limits).map_err(std::io::Error::other);
    let definition = json(r#"{"pos": "string", "lex": "int", "tags": ["string"], "gloss": "text"}"#)?;
    let definition = fields::parse(&definition, &limits).map_err(std::io::Error::other)?;
    let schema = Schema::default()
        .declare(&definition, &limits)
        .map_err(std::io::Error::other)?;
    let row = json(r#"{"id": "n1", "pos": "n", "lex": 3, "tags": ["a", "b"], "gloss": "a small boat"}"#)?;
    let (id, document) = Typer::new(&schema, &limits)
        .row(row)
        .map_err(std::io::Error::other)?;
    for text in [
        r#"{"lex": {"$gte": 3, "$lt": 9}, "pos": {"$in": ["n", "v"]}, "$not": {"tags": {"$contains": "x"}}}"#,
        "lex >= 3 AND lex < 9 AND pos IN ('n','v') AND NOT tags HAS 'x'",
        "gloss LIKE '%small%'",
    ] {
        let parse = best(|| Filter::parse_param(text, &schema, &limits));
        let filter = Filter::parse_param(text, &schema, &limits).map_err(std::io::Error::other)?;
        let thousand = best(|| (0..1_000).filter(|_| filter.matches(&id, &document)).count());
        writeln!(
            out,
            "{text}: parse {parse:.2?}, evaluate {:.2?}",
            thousand / 1_000
        )?;
    }
    Ok(())
}
