//! How much memory the server holds while a million rows stream in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::data::{b64, vector};
use rhumb_e2e::{Client, env_number};
use serde_json::{Value, json};

const DIM: usize = 384;
const LIMIT: &str = "1GiB";
const LIMIT_BYTES: f64 = (1u64 << 30) as f64;
const CHUNK: usize = 1_000;
/// Vectors are made once and used again and again: this program shares the machine.
const POOL: usize = 512;

pub async fn resident_while_streaming() -> Result<()> {
    let rows = env_number("RHUMB_SPEED_ROWS", 1_000_000);
    for (name, how) in [
        ("import of NDJSON", How::Import),
        ("batches of columns", How::Batches),
    ] {
        let (_home, mut server) = crate::server("memory", Some(LIMIT)).await?;
        let client = server.client().clone();
        client
            .create(
                "c",
                &json!({"fields": {"v": {"type": "vector", "dim": DIM}, "n": "int"}}),
            )
            .await?;
        let idle = server.process().status_bytes("VmRSS")?;
        let ended = Arc::new(AtomicBool::new(false));
        let watch = tokio::spawn(watch(server.process().pid(), Arc::clone(&ended)));
        let begin = Instant::now();
        match how {
            How::Import => import(&client, rows).await?,
            How::Batches => batches(&client, rows).await?,
        }
        let rate = rows as f64 / begin.elapsed().as_secs_f64();
        ended.store(true, Ordering::SeqCst);
        let highest = watch.await?;
        let peak = server.process().status_bytes("VmHWM")?;
        println!(
            "{name}, {rows} rows: {rate:.0} rows/s, resident {} idle, {} at most (VmHWM {}), {:.2} of --memory-limit {LIMIT}",
            megabytes(idle),
            megabytes(highest),
            megabytes(peak),
            peak as f64 / LIMIT_BYTES,
        );
        let found = client.get("/v1/collections/c").send().await?.json()["rows"].as_u64();
        anyhow::ensure!(found == Some(rows as u64), "{found:?} of {rows} rows are there");
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum How {
    Import,
    Batches,
}

/// Prints what is resident every ten seconds; the highest seen.
async fn watch(pid: u32, ended: Arc<AtomicBool>) -> u64 {
    let mut highest = 0;
    let mut ticks = 0_u64;
    while !ended.load(Ordering::SeqCst) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = text.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        });
        let resident = resident.unwrap_or_default() * 1024;
        highest = highest.max(resident);
        if ticks.is_multiple_of(50) {
            println!("  {:>4} s: {}", ticks / 5, megabytes(resident));
        }
        ticks += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    highest
}

async fn import(client: &Client, rows: usize) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(1);
    let pool: Vec<String> = (0..POOL)
        .map(|_| json!(vector(&mut rng, DIM)).to_string())
        .collect();
    let chunks = (0..rows).step_by(CHUNK).map(move |first| {
        let mut lines = String::new();
        for id in first..(first + CHUNK).min(rows) {
            lines.push_str(&format!(
                "{{\"id\": {id}, \"n\": {id}, \"v\": {}}}\n",
                pool[id % POOL]
            ));
        }
        Ok(Bytes::from(lines))
    });
    let request = client.request(reqwest::Method::POST, "/v1/collections/c/import");
    let request = request
        .stream(futures::stream::iter(chunks), "application/x-ndjson")
        .timeout(Duration::from_secs(3_600));
    let answer = request.send().await?.expect(200)?;
    let last = answer.lines()?.pop().context("no lines")?;
    anyhow::ensure!(last["done"] == true && last["failed"] == 0, "{last}");
    Ok(())
}

/// Two connections; a 429 is waited out, as a client should.
async fn batches(client: &Client, rows: usize) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(1);
    let values: Vec<f32> = (0..CHUNK).flat_map(|_| vector(&mut rng, DIM)).collect();
    let vectors = Arc::new(b64(&values));
    let halves = [0, 1].map(|half| {
        let (client, vectors) = (client.clone(), Arc::clone(&vectors));
        async move {
            for first in (half * CHUNK..rows).step_by(2 * CHUNK) {
                let ids: Vec<usize> = (first..first + CHUNK).collect();
                send(
                    &client,
                    &json!({"upsert_columns": {"id": ids, "n": ids, "v": vectors.as_str()}}),
                )
                .await?;
            }
            Ok::<(), anyhow::Error>(())
        }
    });
    futures::future::try_join_all(halves).await?;
    Ok(())
}

async fn send(client: &Client, body: &Value) -> Result<()> {
    loop {
        let answer = client.post("/v1/collections/c/documents", body).send().await?;
        if answer.status != 429 {
            return answer.expect(200).map(drop);
        }
        let seconds = answer
            .header("retry-after")
            .and_then(|text| text.parse().ok())
            .unwrap_or(1);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
