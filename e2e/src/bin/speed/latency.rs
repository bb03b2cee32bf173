//! One row at a time: how much more than the disk itself does an acknowledged write cost,
//! and how well do connections share the disk.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::Client;
use rhumb_e2e::data::{b64, percentile, vector};
use serde_json::{Value, json};

const DIM: usize = 384;
/// Many and short: a shared disk changes its mind every few hundred milliseconds.
const BLOCKS: usize = 100;
const PER_BLOCK: usize = 12;
const SPAN: Duration = Duration::from_secs(3);

/// The raw side writes as many bytes as the server's log objects have, on the same folder:
/// a temporary file, its data synced, linked to its name (which fails if it exists), and
/// the folder synced.  Blocks alternate so that both sides see the same weather.
pub async fn single_upsert_against_own_create() -> Result<()> {
    let (home, server) = crate::server("latency", None).await?;
    let client = server.client();
    client.create("c", &definition()).await?;
    let mut rng = StdRng::seed_from_u64(1);
    let raw_folder = home.folder("store/raw")?;
    let mut upserts = Vec::new();
    let mut creates = Vec::new();
    let mut size = 0;
    for block in 0..BLOCKS {
        let mut times = Vec::new();
        for n in 0..PER_BLOCK {
            let body = row(&mut rng, block * PER_BLOCK + n);
            let begin = Instant::now();
            client.write("c", &body).await?;
            times.push(millis(begin));
        }
        if block == 0 {
            // Warm-up, and the way to learn what a log object weighs.
            size = median_log_object(home.path())?;
            continue;
        }
        upserts.append(&mut times);
        for n in 0..PER_BLOCK {
            let begin = Instant::now();
            create(&raw_folder, &format!("{block}-{n}"), &vec![7; size])?;
            creates.push(millis(begin));
        }
    }
    let (upsert, raw) = (p50(&mut upserts), p50(&mut creates));
    println!(
        "single upsert p50 {upsert:.2} ms, own create of {size} bytes p50 {raw:.2} ms: ratio {:.2} (aim <= 1.3)",
        upsert / raw
    );
    println!(
        "  p99 {:.2} ms against {:.2} ms",
        percentile(&upserts, 0.99),
        percentile(&creates, 0.99)
    );
    Ok(())
}

pub async fn eight_connections_against_one() -> Result<()> {
    let (_home, server) = crate::server("connections", None).await?;
    server.client().create("c", &definition()).await?;
    let mut next = 0;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        for (at, connections) in [1, 8].into_iter().enumerate() {
            let rate = rate(server.client(), connections, next).await?;
            next += 10_000_000;
            rates[at].push(rate);
        }
    }
    let [one, eight] = rates.map(|mut rates| p50(&mut rates));
    println!(
        "upserts per second: 1 connection {one:.0}, 8 connections {eight:.0}: ratio {:.2} (aim >= 6)",
        eight / one
    );
    Ok(())
}

/// Acknowledged single upserts per second.
async fn rate(client: &Client, connections: usize, first_id: usize) -> Result<f64> {
    let begin = Instant::now();
    let writers = (0..connections).map(|writer| {
        let client = client.clone();
        async move {
            let mut rng = StdRng::seed_from_u64(writer as u64);
            let mut written = 0;
            while begin.elapsed() < SPAN {
                client
                    .write("c", &row(&mut rng, first_id + writer * 1_000_000 + written))
                    .await?;
                written += 1;
            }
            Ok::<usize, anyhow::Error>(written)
        }
    });
    let written: usize = futures::future::try_join_all(writers).await?.into_iter().sum();
    Ok(written as f64 / begin.elapsed().as_secs_f64())
}

fn definition() -> Value {
    json!({"fields": {"v": {"type": "vector", "dim": DIM}, "n": "int"}})
}

fn row(rng: &mut StdRng, id: usize) -> Value {
    json!({"upsert": [{"id": id, "v": b64(&vector(rng, DIM)), "n": id}]})
}

fn create(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let temporary = folder.join(format!(".{name}"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::hard_link(&temporary, folder.join(name))?;
    std::fs::remove_file(&temporary)?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

fn median_log_object(home: &Path) -> Result<usize> {
    let mut files = Vec::new();
    log_objects(home, &mut files)?;
    let mut sizes: Vec<u64> = files
        .iter()
        .filter_map(|path| Some(path.metadata().ok()?.len()))
        .collect();
    sizes.sort_unstable();
    let size = sizes
        .get(sizes.len() / 2)
        .context("no log object under the store: has its name changed?")?;
    Ok(*size as usize)
}

fn log_objects(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            log_objects(&path, into)?;
        } else if path.parent().is_some_and(|parent| parent.ends_with("wal")) {
            into.push(path);
        }
    }
    Ok(())
}

fn millis(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1_000.0
}

fn p50(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(values, 0.5)
}
