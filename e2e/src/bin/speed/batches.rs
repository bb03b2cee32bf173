//! Batches of 1,000 rows over two connections, in each form a batch may have.  Bodies are
//! made before the clock starts: the sender must not be what is measured.

use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::Client;
use rhumb_e2e::data::{b64, vector};
use serde_json::{Value, json};

const DIM: usize = 384;
const ROWS: usize = 1_000;
const BATCHES: usize = 40;
const CONNECTIONS: usize = 2;

/// A body of `ROWS` documents, from the number of the first.
type Form = fn(usize) -> Value;

const FORMS: [(&str, Form); 3] = [("JSON arrays", arrays), ("b64", texts), ("columns", columns)];

pub async fn rows_per_second() -> Result<()> {
    for (name, form) in FORMS {
        let (_home, server) = crate::server("batches", None).await?;
        let definition =
            json!({"fields": {"v": {"type": "vector", "dim": DIM}, "n": "int", "pos": "string"}});
        server.client().create("c", &definition).await?;
        let bodies: Vec<Bytes> = (0..BATCHES)
            .map(|batch| Bytes::from(form(batch * ROWS).to_string()))
            .collect();
        let bytes: usize = bodies.iter().map(Bytes::len).sum();
        let begin = Instant::now();
        let senders = bodies
            .chunks(BATCHES / CONNECTIONS)
            .map(|share| send(server.client(), share));
        futures::future::try_join_all(senders).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let (rate, megabytes) = ((BATCHES * ROWS) as f64 / seconds, bytes as f64 / seconds / 1e6);
        println!(
            "batches of {ROWS} x {DIM} as {name}: {rate:.0} rows/s acknowledged, {megabytes:.0} MB/s (aim >= 20,000 rows/s)"
        );
    }
    Ok(())
}

async fn send(client: &Client, bodies: &[Bytes]) -> Result<()> {
    for body in bodies {
        let request = client.request(reqwest::Method::POST, "/v1/collections/c/documents");
        request
            .body(body.clone(), "application/json")
            .send()
            .await?
            .expect(200)?;
    }
    Ok(())
}

fn vectors(first: usize) -> impl Iterator<Item = (usize, Vec<f32>)> {
    let mut rng = StdRng::seed_from_u64(first as u64);
    (first..first + ROWS).map(move |id| (id, vector(&mut rng, DIM)))
}

fn arrays(first: usize) -> Value {
    let rows: Vec<Value> = vectors(first)
        .map(|(id, v)| json!({"id": id, "v": v, "n": id, "pos": "n"}))
        .collect();
    json!({"upsert": rows})
}

fn texts(first: usize) -> Value {
    let rows: Vec<Value> = vectors(first)
        .map(|(id, v)| json!({"id": id, "v": b64(&v), "n": id, "pos": "n"}))
        .collect();
    json!({"upsert": rows})
}

fn columns(first: usize) -> Value {
    let ids: Vec<usize> = (first..first + ROWS).collect();
    let values: Vec<f32> = vectors(first).flat_map(|(_, v)| v).collect();
    json!({"upsert_columns": {"id": ids, "v": b64(&values), "n": ids, "pos": vec!["n"; ROWS]}})
}
