//! Limits that the contract gives a number or a status.

use std::io::Write;
use std::time::Duration;

use rhumb_e2e::Suite;
use rhumb_e2e::raw;
use serde_json::{Value, json};

use crate::{collection, documents, query};

const CAP: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_kept() {
    let t = Suite::start("limits").await;
    t.create(
        "l",
        json!({"fields": {"n": "int", "s": "string", "v": {"type": "vector", "dim": 4}}}),
    )
    .await;
    bodies_have_a_cap(&t).await;
    bombs_do_not_go_off(&t).await;
    batches_documents_and_schemas_are_bounded(&t).await;
    large_but_legal_is_served(&t).await;
    t.finish().await;
}

async fn react(t: &Suite, name: &str, wire: &[u8], expected: &[u16]) {
    let reaction = raw::send(t.client().address(), wire, true, PATIENCE).await;
    let status = reaction.as_ref().ok().and_then(raw::Reaction::status);
    t.check(
        name,
        status.is_some_and(|status| expected.contains(&status)),
        || format!("{reaction:?}"),
    );
}

async fn bodies_have_a_cap(t: &Suite) {
    let path = documents("l");
    let announced = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{{\"upsert\": [",
        CAP + 1
    );
    react(t, "a body announced beyond the cap", announced.as_bytes(), &[413]).await;
    let huge = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999999999999\r\n\r\n"
    );
    react(t, "a length beyond every number", huge.as_bytes(), &[400, 413]).await;

    let mut chunked = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    let piece = vec![b' '; 1 << 20];
    for _ in 0..=(CAP >> 20) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(&piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    react(t, "a body that grows beyond the cap", &chunked, &[413]).await;
    drop(chunked);

    let seen = t
        .case("a body of exactly one byte more")
        .to(reqwest::Method::POST, &path);
    seen.body(vec![b' '; CAP + 1], "application/json")
        .await
        .refused(413, "body_too_large");
    t.case("the server goes on")
        .get(&collection("l"))
        .await
        .status(200);
}

/// Gigabytes of blanks in a few megabytes of gzip.
async fn bombs_do_not_go_off(t: &Suite) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let blank = vec![b' '; 1 << 20];
    for _ in 0..2 * (CAP >> 20) {
        gzip.write_all(&blank).expect("in memory");
    }
    let bomb = gzip.finish().expect("in memory");
    for path in [
        documents("l"),
        query("l"),
        format!("{}/aggregate", collection("l")),
    ] {
        t.case(format!("a bomb for {path}"))
            .to(reqwest::Method::POST, &path)
            .header("content-encoding", "gzip")
            .body(bomb.clone(), "application/json")
            .await
            .refused(413, "body_too_large");
    }
}

async fn batches_documents_and_schemas_are_bounded(t: &Suite) {
    let path = documents("l");
    let many: Vec<Value> = (0..1_000_001).map(|n| json!(n.to_string())).collect();
    t.case("a million deletes")
        .post(&path, json!({"delete": many}))
        .await
        .status_in(&[200, 413, 422]);
    let many: Vec<Value> = (0..300_000).map(|n| json!({"id": n.to_string()})).collect();
    t.case("300,000 upserts")
        .post(&path, json!({"upsert": many}))
        .await
        .status_in(&[200, 413, 422, 429]);
    t.case("a long text")
        .post(
            &path,
            json!({"upsert": [{"id": "long", "s": "x".repeat(40 << 20)}]}),
        )
        .await
        .status_in(&[200, 413, 422]);
    let wide: Value = (0..5_000)
        .map(|n| (format!("w{n}"), json!(n)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut document = wide.clone();
    document["id"] = json!("wide");
    t.case("5,000 attributes")
        .post(&path, json!({"upsert": [document]}))
        .await
        .status_in(&[200, 422]);
    let fields: Value = (0..5_000)
        .map(|n| (format!("w{n}"), json!("int")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    t.case("5,000 fields")
        .put(&collection("wide"), json!({"fields": fields}))
        .await
        .status_in(&[201, 422]);
    let ids: Vec<String> = (0..200_000).map(|n| n.to_string()).collect();
    t.case("200,000 ids to get")
        .post(&format!("{path}/get"), json!({"ids": ids}))
        .await
        .status_in(&[200, 413, 422]);
    let include: Vec<String> = vec!["n".to_owned(); 100_000];
    t.case("n, 100,000 times")
        .post(&query("l"), json!({"vector": [1, 0, 0, 0], "include": include}))
        .await
        .status_in(&[200, 422]);
    let long_key = "k".repeat(1 << 20);
    t.case("a member with a long name")
        .post(&path, json!({long_key: 1}))
        .await
        .refused(422, "unknown_field")
        .check("shortened", |problem| problem.to_string().len() < 10_000);
}

async fn large_but_legal_is_served(t: &Suite) {
    t.create("legal", json!({"fields": {"v": {"type": "vector", "dim": 1536}}}))
        .await;
    let vector: Vec<f32> = (0..1536).map(|n| n as f32 / 512.0).collect();
    let row = |n: usize| json!({"id": n, "v": vector, "text": "x".repeat(1_000)});
    let rows: Vec<Value> = (0..2_000).map(row).collect();
    t.case("2,000 rows of 1,536 dimensions")
        .post(&documents("legal"), json!({"upsert": rows}))
        .await
        .status(200)
        .at("/upserted", 2_000);
    let ids: Vec<usize> = (0..2_000).collect();
    t.case("all of them at once")
        .post(
            &format!("{}/get", documents("legal")),
            json!({"ids": ids, "include": ["text"]}),
        )
        .await
        .status(200)
        .check("all are there", |answer| {
            answer["documents"]
                .as_array()
                .is_some_and(|d| d.iter().all(|d| d["id"].is_u64()))
        });
    t.case("a text of a megabyte")
        .post(
            &documents("l"),
            json!({"upsert": [{"id": "mb", "s": "é".repeat(1 << 19)}]}),
        )
        .await
        .status(200);
    t.case("comes back")
        .get(&format!("{}/mb", documents("l")))
        .await
        .status(200)
        .check("whole", |answer| {
            answer["document"]["s"]
                .as_str()
                .is_some_and(|text| text.len() == 1 << 20)
        });
}
