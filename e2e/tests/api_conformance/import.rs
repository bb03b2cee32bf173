//! Import of text: NDJSON and CSV, whole and broken.

use bytes::Bytes;
use futures::stream;
use rhumb_e2e::Suite;
use rhumb_e2e::suite::Seen;
use serde_json::{Value, json};

use crate::{collection, document, documents};

pub const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

#[tokio::test]
async fn text_is_imported_line_by_line() {
    let t = Suite::start("import").await;
    ndjson_is_imported(&t).await;
    broken_lines_are_counted(&t).await;
    many_broken_lines_are_counted_and_some_shown(&t).await;
    csv_is_typed_by_the_fields(&t).await;
    csv_quotes_and_breaks(&t).await;
    a_large_import_shows_progress(&t).await;
    requests_are_checked(&t).await;
    t.finish().await;
}

fn path(name: &str) -> String {
    format!("{}/import", collection(name))
}

pub async fn import<'a>(t: &'a Suite, name: &str, body: impl Into<Bytes>, content_type: &str) -> Seen<'a> {
    t.case(format!("import of {content_type} into {name}"))
        .to(reqwest::Method::POST, &path(name))
        .body(body, content_type)
        .await
}

/// An import that ran to its end: 200, and a last line with these counts.
pub fn done(seen: Seen<'_>, rows: u64, failed: u64) -> Seen<'_> {
    seen.status(200).holds(|answer| {
        let lines = answer.lines().map_err(|error| error.to_string())?;
        let last = lines.last().cloned().unwrap_or_default();
        let as_expected = last["done"] == true && last["rows"] == rows && last["failed"] == failed;
        as_expected
            .then_some(())
            .ok_or_else(|| format!("expected {rows} rows and {failed} failed in {last}"))
    })
}

async fn ndjson_is_imported(t: &Suite) {
    let fields =
        json!({"v": {"type": "vector", "dim": 2}, "n": "int", "tags": ["string"], "at": "timestamp"});
    t.create("nd", json!({"fields": fields})).await;
    let body = "{\"id\": \"a\", \"v\": [1, 0], \"n\": 1, \"tags\": [\"x\"], \"at\": \"2024-01-01T00:00:00Z\"}\n\
        {\"id\": \"b\", \"v\": \"b64:AACAPwAAAAA=\", \"new\": {\"deep\": true}}\r\n\
        \n   \n\
        {\"id\": \"c\", \"n\": null}";
    let seen = done(import(t, "nd", body, NDJSON).await, 3, 0);
    seen.header("content-type", |value| value.starts_with("application/x-ndjson"));
    t.case("the first line").get(&document("nd", "a")).await.at(
        "/document",
        json!({"v": [1.0, 0.0], "n": 1, "tags": ["x"], "at": "2024-01-01T00:00:00.000Z"}),
    );
    t.case("the second")
        .get(&document("nd", "b"))
        .await
        .at("/document", json!({"v": [1.0, 0.0], "new": {"deep": true}}));
    t.case("the last, without a line end")
        .get(&document("nd", "c"))
        .await
        .at("/document", json!({}));
    done(import(t, "nd", "{\"id\": \"a\", \"n\": 2}\n", NDJSON).await, 1, 0);
    t.case("an import replaces")
        .get(&document("nd", "a"))
        .await
        .at("/document", json!({"n": 2}));
    done(import(t, "nd", "", NDJSON).await, 0, 0);
    done(import(t, "nd", "\u{feff}{\"id\": \"bom\"}\n", NDJSON).await, 1, 0);
    let same = "{\"id\": \"twice\", \"n\": 1}\n{\"id\": \"twice\", \"n\": 2}\n";
    import(t, "nd", same, NDJSON).await.status(200);
    t.case("of one id twice the last stays")
        .get(&document("nd", "twice"))
        .await
        .at("/document/n", 2);
    t.create("parts", json!({"fields": {}, "partitions": 4})).await;
    let rows: String = (0..500)
        .map(|n| format!("{{\"id\": {n}, \"n\": {n}}}\n"))
        .collect();
    done(import(t, "parts", rows, NDJSON).await, 500, 0);
    t.case("into several partitions")
        .get(&collection("parts"))
        .await
        .at("/rows", 500);
}

async fn broken_lines_are_counted(t: &Suite) {
    t.create(
        "broken",
        json!({"fields": {"v": {"type": "vector", "dim": 2}, "n": "int"}}),
    )
    .await;
    let lines: [&[u8]; 16] = [
        b"{\"id\": \"good1\", \"n\": 1}",
        b"{\"id\": \"x1\", \"n\": }",
        b"not json at all",
        b"{\"id\": \"good2\", \"v\": [1, 2]}",
        b"[1, 2]",
        b"{\"n\": 1}",
        b"{\"id\": \"x2\", \"n\": \"text\"}",
        b"{\"id\": \"x3\", \"v\": [1]}",
        b"{\"id\": \"x4\", \"v\": [1, 1e400]}",
        b"{\"id\": \"\", \"n\": 1}",
        b"{\"id\": 7}",
        b"{\"id\": \"x\xff5\"}",
        b"{\"id\": \"x6\"} {\"id\": \"x7\"}",
        b"{\"id\": \"\\ud800\"}",
        b"{\"id\": \"good3\"}",
        b"{\"id\": \"x8\"",
    ];
    let body = lines.join(&b"\n"[..]);
    let seen = done(import(t, "broken", body, NDJSON).await, 3, 13);
    let last = seen.lines().last().cloned().unwrap_or_default();
    let shown: Vec<u64> = errors_in(&last)
        .iter()
        .filter_map(|error| error["line"].as_u64())
        .collect();
    t.check(
        "each broken line is shown",
        shown == [2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16],
        || last.to_string(),
    );
    let told = errors_in(&last)
        .iter()
        .all(|error| error["error"].as_str().is_some_and(|text| !text.is_empty()));
    t.check("with its error", told, || last.to_string());
    t.case("the good lines are written")
        .get(&documents("broken"))
        .await
        .ids("/documents", &["good1", "good2", "good3"]);
}

/// The list of `{"line", "error"}` in the last line, whatever its name.
fn errors_in(last: &Value) -> Vec<Value> {
    let lists = last
        .as_object()
        .into_iter()
        .flat_map(|members| members.values().filter_map(Value::as_array));
    lists
        .flatten()
        .filter(|item| item["line"].is_u64())
        .cloned()
        .collect()
}

async fn many_broken_lines_are_counted_and_some_shown(t: &Suite) {
    let body: String = (0..3_000)
        .map(|n| {
            if n % 2 == 0 {
                format!("{{\"id\": \"g{n}\"}}\n")
            } else {
                "{\n".into()
            }
        })
        .collect();
    let seen = done(import(t, "broken", body, NDJSON).await, 1_500, 1_500);
    let last = seen.lines().last().cloned().unwrap_or_default();
    let shown = errors_in(&last);
    t.check(
        "the first 100 are shown",
        shown.len() == 100 && shown[99]["line"] == 200,
        || last.to_string(),
    );
    let endless = vec![b'x'; 20 << 20];
    import(t, "broken", endless, NDJSON)
        .await
        .status_in(&[200, 413, 422]);
    let nothing = "\u{0}".repeat(1_000);
    done(import(t, "broken", nothing, NDJSON).await, 0, 1);
}

async fn csv_is_typed_by_the_fields(t: &Suite) {
    let fields = json!({"n": "int", "f": "float", "b": "bool", "s": "string", "at": "timestamp", "tags": ["string"], "v": {"type": "vector", "dim": 2}, "j": "json"});
    t.create("csv", json!({"fields": fields})).await;
    let body = "id,n,f,b,s,at,tags,v,j\n\
        a,1,1.5,true,text,2024-01-01T00:00:00Z,\"[\"\"x\"\",\"\"y\"\"]\",\"[1, 0]\",\"{\"\"k\"\": 1}\"\n\
        b,-2,3,false,123,,,b64:AACAPwAAAAA=,\n\
        c,,,,,,,,\n";
    done(import(t, "csv", body, CSV).await, 3, 0);
    t.case("each value has its field's type").get(&document("csv", "a")).await.at(
        "/document",
        json!({"n": 1, "f": 1.5, "b": true, "s": "text", "at": "2024-01-01T00:00:00.000Z", "tags": ["x", "y"], "v": [1.0, 0.0], "j": {"k": 1}}),
    );
    t.case("digits in a text field are a text")
        .get(&document("csv", "b"))
        .await
        .at(
            "/document",
            json!({"n": -2, "f": 3.0, "b": false, "s": "123", "v": [1.0, 0.0]}),
        );
    t.case("an empty cell is missing")
        .get(&document("csv", "c"))
        .await
        .check("but for texts, perhaps", |answer| {
            let document = answer["document"].as_object().cloned().unwrap_or_default();
            document.iter().all(|(key, value)| key == "s" && value == "")
        });
    t.create("csvn", json!({"fields": {"s": "string"}})).await;
    t.write("csvn", json!({"upsert": [{"id": 1, "s": "x"}]})).await;
    done(
        import(t, "csvn", "s,id\ny,2\nz,18446744073709551615\n", CSV).await,
        2,
        0,
    );
    t.case("ids are of the collection's kind")
        .get(&documents("csvn"))
        .await
        .ids("/documents", &["1", "2", "18446744073709551615"]);
}

async fn csv_quotes_and_breaks(t: &Suite) {
    let body = "id,s\r\nq1,\"a,b\"\r\nq2,\"a \"\"quoted\"\" word\"\r\nq3,\"two\nlines\"\r\nq4,é😀\r\n";
    done(import(t, "csv", body, CSV).await, 4, 0);
    for (id, text) in [
        ("q1", "a,b"),
        ("q2", "a \"quoted\" word"),
        ("q3", "two\nlines"),
        ("q4", "é😀"),
    ] {
        t.case(format!("the cell {text:?}"))
            .get(&document("csv", id))
            .await
            .at("/document/s", text);
    }
    let broken =
        "id,n,v\nc1,1,\"[1, 0]\"\nc2,one,\"[1, 0]\"\nc3,1,\"[1]\"\nc4,1\nc5,1,\"[1, 0]\",extra\n,1,\nc6,6,\n";
    let seen = done(import(t, "csv", broken, CSV).await, 2, 5);
    let last = seen.lines().last().cloned().unwrap_or_default();
    let shown: Vec<u64> = errors_in(&last)
        .iter()
        .filter_map(|error| error["line"].as_u64())
        .collect();
    t.check(
        "lines are counted with the header",
        shown == [3, 4, 5, 6, 7],
        || last.to_string(),
    );
    t.case("the good rows")
        .get(&format!("{}?prefix=c&include=n", documents("csv")))
        .await
        .ids("/documents", &["c", "c1", "c6"]);
    import(t, "csv", "n,s\n1,x\n", CSV)
        .await
        .status_in(&[200, 400, 422]);
    import(t, "csv", "id,a-b\nx,1\n", CSV)
        .await
        .status_in(&[200, 400, 422]);
    import(t, "csv", "id,n,n\nx,1,2\n", CSV)
        .await
        .status_in(&[200, 400, 422]);
    done(import(t, "csv", "id,n\n", CSV).await, 0, 0);
    import(t, "csv", "", CSV).await.status_in(&[200, 400, 422]);
    import(t, "csv", "id,s\nz,\"never closed\n", CSV)
        .await
        .status(200);
    import(t, "csv", &b"id,s\nz,\xff\xfe\n"[..], CSV)
        .await
        .status_in(&[200, 400, 422]);
}

async fn a_large_import_shows_progress(t: &Suite) {
    t.create("large", json!({"fields": {"v": {"type": "vector", "dim": 64}}}))
        .await;
    let vector: Vec<f32> = (0..64).map(|n| n as f32 / 8.0).collect();
    let vector = json!(vector).to_string();
    let chunks = (0..40_u64).map(move |chunk| {
        let lines: String = (0..1_000)
            .map(|n| format!("{{\"id\": {}, \"v\": {vector}}}\n", chunk * 1_000 + n))
            .collect();
        Ok(Bytes::from(lines))
    });
    let answer = t
        .client()
        .request(reqwest::Method::POST, &path("large"))
        .stream(stream::iter(chunks), NDJSON)
        .send()
        .await;
    let lines = answer
        .as_ref()
        .ok()
        .and_then(|answer| answer.lines().ok())
        .unwrap_or_default();
    let last = lines.last().cloned().unwrap_or_default();
    t.check(
        "40,000 rows",
        last["done"] == true && last["rows"] == 40_000 && last["failed"] == 0,
        || format!("{answer:?}"),
    );
    let progress = &lines[..lines.len().saturating_sub(1)];
    let well_formed = progress.iter().all(|line| {
        line["rows"].is_u64()
            && line["bytes"].is_u64()
            && line["rows_per_s"].is_number()
            && line["position"].is_string()
    });
    t.check("progress lines have their members", well_formed, || {
        format!("{lines:?}")
    });
    let grows = progress
        .windows(2)
        .all(|pair| pair[0]["rows"].as_u64() <= pair[1]["rows"].as_u64());
    t.check("progress only grows", grows, || format!("{lines:?}"));
    t.case("all are there")
        .get(&collection("large"))
        .await
        .at("/rows", 40_000);
}

async fn requests_are_checked(t: &Suite) {
    for content_type in [
        "application/json",
        "text/plain",
        "application/octet-stream",
        "x",
        "multipart/form-data",
    ] {
        import(t, "nd", "{\"id\": \"x\"}", content_type).await.status(415);
    }
    t.case("no content type")
        .to(reqwest::Method::POST, &path("nd"))
        .header("content-length", "0")
        .await
        .status_in(&[415, 400]);
    done(
        import(
            t,
            "nd",
            "{\"id\": \"charset\"}",
            "application/x-ndjson; charset=utf-8",
        )
        .await,
        1,
        0,
    );
    done(
        import(t, "nd", "{\"id\": \"case\"}", "Application/X-NDJSON").await,
        1,
        0,
    );
    import(t, "nope", "{\"id\": \"x\"}", NDJSON)
        .await
        .refused(404, "collection_not_found");
    t.case("an unknown parameter")
        .to(reqwest::Method::POST, &format!("{}?formt=x", path("nd")))
        .body("", NDJSON)
        .await
        .status_in(&[400, 422]);
}
