//! What is exported can be read by others, and imported again.

use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rhumb_e2e::Suite;
use rhumb_e2e::compare::same;
use serde_json::{Value, json};

use crate::import::{NDJSON, import};
use crate::{collection, documents};

#[tokio::test]
async fn exports_can_be_read_and_imported_again() {
    let t = Suite::start("exchange").await;
    let definition = json!({"fields": {"v": {"type": "vector", "dim": 3}, "n": "int", "f": "float", "b": "bool", "s": "string", "g": {"type": "text"},
        "at": "timestamp", "tags": ["string"], "nums": ["int"], "j": "json", "sp": "sparse_vector"}, "partitions": 2});
    t.create("source", definition.clone()).await;
    fill(&t).await;
    let all = t.client().scan("source", "limit=1000").await.expect("a scan");
    for (format, content_type) in [
        ("ndjson", NDJSON),
        ("arrow", "application/vnd.apache.arrow.stream"),
        ("parquet", "application/vnd.apache.parquet"),
    ] {
        let path = format!("{}/export?format={format}", collection("source"));
        let seen = t
            .case(format!("export as {format}"))
            .get(&path)
            .await
            .status(200)
            .header("content-type", |value| value.starts_with(content_type));
        let bytes = seen.bytes();
        let rows = rows_in(format, &bytes);
        t.check("as many rows as documents", rows == Some(all.len()), || {
            format!("{format}: {rows:?} of {}", all.len())
        });

        t.create(format, definition.clone()).await;
        crate::import::done(import(&t, format, bytes, content_type).await, all.len() as u64, 0);
        let copy = t.client().scan(format, "limit=1000").await.expect("a scan");
        let alike = copy.len() == all.len()
            && copy
                .iter()
                .zip(&all)
                .all(|(a, b)| a["id"] == b["id"] && same(&a["document"], &b["document"]));
        t.check("the copy is alike", alike, || difference(format, &copy, &all));
    }
    requests_are_checked(&t).await;
    t.finish().await;
}

async fn fill(t: &Suite) {
    let rows: Vec<Value> = (0..300)
        .map(|n| {
            let mut row = json!({"id": format!("id-{n:03}")});
            let put = [
                ("v", json!([n, 0.5, -1])),
                ("n", json!(n * 1_000_000_007_i64)),
                ("f", json!(f64::from(n as i32) / 7.0)),
                ("b", json!(n % 2 == 0)),
                ("s", json!(format!("text \"{n}\"\n, é"))),
                ("g", json!("a longer text")),
                ("at", json!(format!("2024-01-01T00:00:{:02}.{:03}Z", n % 60, n))),
                ("tags", json!(["a", n.to_string()])),
                ("nums", json!([n, -n])),
                ("j", json!({"deep": {"n": n}, "list": [1, null, "x"]})),
                ("inferred", json!(n)),
                ("sp", json!({"indices": [n, 1_000 + n], "values": [0.1, -1.5]})),
            ];
            for (at, (name, value)) in put.into_iter().enumerate() {
                // Every attribute is missing somewhere.
                if n % 12 != at as i64 {
                    row[name] = value;
                }
            }
            row
        })
        .collect();
    t.write("source", json!({"upsert": rows})).await;
    t.client().optimize("source").await.expect("optimize works");
    t.write("source", json!({"upsert": [{"id": "id-000", "s": "changed"}], "delete": ["id-001", "id-299"], "patch": [{"id": "id-002", "n": 5}]})).await;
}

fn rows_in(format: &str, bytes: &bytes::Bytes) -> Option<usize> {
    match format {
        "ndjson" => {
            let text = std::str::from_utf8(bytes).ok()?;
            let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
            Some(lines.ok()?.iter().filter(|line| line["id"].is_string()).count())
        }
        "arrow" => {
            let reader = arrow_ipc::reader::StreamReader::try_new(&bytes[..], None).ok()?;
            count_rows(reader.map(|batch| batch.ok()))
        }
        _ => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())
                .ok()?
                .build()
                .ok()?;
            count_rows(reader.map(|batch| batch.ok()))
        }
    }
}

fn count_rows(mut batches: impl Iterator<Item = Option<RecordBatch>>) -> Option<usize> {
    batches.try_fold(0, |rows, batch| {
        let batch = batch?;
        let ids = batch.column_by_name("id")?;
        (ids.null_count() == 0).then_some(rows + batch.num_rows())
    })
}

fn difference(format: &str, copy: &[Value], all: &[Value]) -> String {
    let first = copy
        .iter()
        .zip(all)
        .find(|(a, b)| a["id"] != b["id"] || !same(&a["document"], &b["document"]));
    format!(
        "{format}: {} against {} documents; first difference {first:?}",
        copy.len(),
        all.len()
    )
}

async fn requests_are_checked(t: &Suite) {
    let path = format!("{}/export", collection("source"));
    t.case("without a format").get(&path).await.status(200);
    for format in ["xml", "NDJSON", "ndjson,arrow"] {
        t.case(format!("the format '{format}'"))
            .get(&format!("{path}?format={format}"))
            .await
            .status_in(&[400, 422]);
    }
    t.case("an unknown parameter")
        .get(&format!("{path}?fromat=ndjson"))
        .await
        .status_in(&[400, 422]);
    t.case("of no collection")
        .get(&format!("{}/export?format=ndjson", collection("nope")))
        .await
        .refused(404, "collection_not_found");
    t.create("void", json!({"fields": {"n": "int"}})).await;
    for format in ["ndjson", "arrow", "parquet"] {
        let seen = t
            .case(format!("nothing as {format}"))
            .get(&format!("{}/export?format={format}", collection("void")))
            .await;
        let bytes = seen.status(200).bytes();
        t.check("holds no rows", rows_in(format, &bytes) == Some(0), || {
            format!("{format}: {bytes:?}")
        });
    }
    t.case("and nothing is what it has")
        .get(&documents("void"))
        .await
        .at("/documents", json!([]));
}
