//! How long after `kill -9` until the server is right again.
//!
//! `recovery [ROWS] [DIM]` loads rows, kills the server, starts it and prints the time
//! from the start of the process to the first correct strong read and the first correct
//! query, several times.  A wrong answer ends the program: only right ones count.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real time, real chance, and a report on standard output"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::data::{b64, vector};
use rhumb_e2e::{Client, Server, Spec, Store, TempDir};
use serde_json::json;

const BATCH: usize = 1_000;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let rows = arguments.next().transpose()?.unwrap_or(100_000);
    let dim = arguments.next().transpose()?.unwrap_or(384);
    let home = TempDir::new("recovery")?;
    let spec = Spec::new(Store::Folder(home.folder("store")?), home.path())?;
    let mut server = Server::start(spec).await?;
    let client = server.client().clone();
    client
        .create(
            "c",
            &json!({"fields": {"v": {"type": "vector", "dim": dim}, "n": "int"}}),
        )
        .await?;
    let mut rng = StdRng::seed_from_u64(1);
    let begin = Instant::now();
    for from in (0..rows).step_by(BATCH) {
        let count = BATCH.min(rows - from);
        let ids: Vec<usize> = (from..from + count).collect();
        let values: Vec<f32> = (0..count).flat_map(|_| vector(&mut rng, dim)).collect();
        client
            .write(
                "c",
                &json!({"upsert_columns": {"id": ids, "v": b64(&values), "n": ids}}),
            )
            .await?;
    }
    println!(
        "loaded {rows} rows of {dim} dimensions in {:.1?}",
        begin.elapsed()
    );
    println!("round  ready      strong read  query     (from the start of the process)");
    for round in 0..ROUNDS {
        // Written last, so that both answers need the newest log object; a sure hit.
        let probe = rows + round;
        let target = vector(&mut rng, dim);
        client
            .write("c", &json!({"upsert": [{"id": probe, "v": target, "n": probe}]}))
            .await?;
        server.kill()?;
        let begin = Instant::now();
        server.respawn()?;
        server.ready_within(PATIENCE).await?;
        let ready = begin.elapsed();
        let read = first_read(&client, probe, begin).await?;
        let query = first_query(&client, probe, &target, begin).await?;
        println!("{round:>5}  {ready:<9.0?}  {read:<11.0?}  {query:.0?}");
    }
    Ok(())
}

async fn first_read(client: &Client, probe: usize, begin: Instant) -> Result<Duration> {
    let answer = client
        .get(&format!("/v1/collections/c/documents/{probe}"))
        .send()
        .await?
        .expect(200)?;
    ensure!(answer.json()["document"]["n"] == probe, "a wrong read: {answer}");
    Ok(begin.elapsed())
}

async fn first_query(client: &Client, probe: usize, target: &[f32], begin: Instant) -> Result<Duration> {
    let body = json!({"vector": b64(target), "k": 1, "exact": true});
    let answer = client
        .post("/v1/collections/c/query", &body)
        .send()
        .await?
        .expect(200)?;
    let hit = answer.json()["hits"][0].clone();
    let score = hit["score"].as_f64().context("no score")?;
    ensure!(
        hit["id"] == probe && (score - 1.0).abs() < 1e-4,
        "a wrong hit: {answer}"
    );
    Ok(begin.elapsed())
}
