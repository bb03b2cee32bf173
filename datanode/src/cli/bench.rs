//! `rhumb bench`: loads a collection of its own, runs a mix of reads and writes, and says
//! how fast and how right the answers were.
//!
//! What is sent depends on the seed alone; how much of it, on the time.  A collection that
//! was there before is neither used nor deleted.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use rhumb_api::{
    Query, QueryAnswer, RecallAnswer, RecallRequest, VectorLeg, VectorValue, WriteAnswer, WriteRequest,
};
use rhumb_seams::{OnExit, Rand, Tasks};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::client::{self, CliError, Client, grouped};

const FIELD: &str = "embedding";
const K: u64 = 10;
const CLUSTERS: u64 = 64;
/// Of a row around its cluster's middle: clusters touch, as those of text embeddings do.
const SPREAD: f32 = 0.6;
/// Spreads row numbers over the seeds (2^64 over the golden ratio).
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(clap::Args)]
pub struct Load {
    /// Is created, and must not be there already.
    #[arg(long, default_value = "bench")]
    collection: String,
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    #[arg(long, default_value_t = 384, value_parser = clap::value_parser!(u32).range(1..))]
    dim: u32,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    clients: u64,
    /// Rows of one request while loading.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// How long the mix runs.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Of the mix; the rest overwrites one random row each.
    #[arg(long, default_value_t = 0.9, value_parser = share)]
    read_share: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    load: Load,
    /// Leaves the collection there.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    server: client::Server,
}

pub async fn run(args: Args) -> ExitCode {
    client::exit(bench(args).await)
}

async fn bench(args: Args) -> Result<ExitCode, CliError> {
    let client = Client::new(&args.server)?;
    create(&client, &args.load).await?;
    let bench = Arc::new(Bench {
        vectors: Vectors::new(&args.load),
        load: args.load,
        client,
    });
    let tasks = Tasks::new();
    let measured = tokio::select! {
        biased;
        result = measure(&bench, &tasks) => result,
        // An error means that nothing listens for Ctrl-C: as if it were pressed.
        _ = tokio::signal::ctrl_c() => Err(CliError::Usage("interrupted".into())),
    };
    // Clients that still run would write to a collection that is gone.
    tasks.shut_down().await;
    if args.keep {
        return measured;
    }
    let deleted = client::send(bench.client.request(Method::DELETE, &bench.load.collection, &[])).await;
    // Why the measurement failed is told first: the server may be gone for both.
    let exit = measured?;
    deleted?;
    Ok(exit)
}

async fn create(client: &Client, load: &Load) -> Result<(), CliError> {
    let definition = json!({"fields": {FIELD: {"type": "vector", "dim": load.dim}}});
    let request = client
        .request(Method::PUT, &load.collection, &[])
        .json(&definition);
    match client::send(request).await?.status() {
        StatusCode::CREATED => Ok(()),
        _ => Err(CliError::Usage(format!(
            "collection {} is there already: delete it, or give another --collection",
            load.collection
        ))),
    }
}

async fn measure(bench: &Arc<Bench>, tasks: &Tasks) -> Result<ExitCode, CliError> {
    let load = &bench.load;
    client::print(&format!(
        "{} rows of {} dimensions, {} clients, {:.0} % reads, seed {}\n",
        grouped(load.rows),
        load.dim,
        load.clients,
        load.read_share * 100.0,
        load.seed
    ))?;
    let took = bench.load_rows(tasks).await?.as_secs_f64();
    client::print(&format!(
        "load       {:>9} rows/s  in {took:.1} s\n",
        grouped((load.rows as f64 / took.max(1e-6)) as u64)
    ))?;
    let (mut seen, took) = bench.mix(tasks).await?;
    client::print(&timed("reads", &mut seen.reads, took))?;
    client::print(&timed("writes", &mut seen.writes, took))?;
    let asked = RecallRequest {
        k: Some(K),
        ..RecallRequest::default()
    };
    let found: RecallAnswer = bench.client.post(&load.collection, &["recall"], &asked).await?;
    client::print(&format!(
        "recall@{K}  {:>9.4}  of {} stored vectors, the worst {:.2}\n",
        found.recall, found.queries, found.min
    ))?;
    Ok(match seen.first_error {
        None => ExitCode::SUCCESS,
        Some(e) => super::fail(&format!(
            "{} requests failed, the first: {e}",
            grouped(seen.failed)
        )),
    })
}

fn timed(name: &str, times: &mut [Duration], took: Duration) -> String {
    times.sort_unstable();
    let rate = times.len() as f64 / took.as_secs_f64().max(1e-6);
    format!(
        "{name:<10} {:>9.1} /s  p50 {:.2} ms  p99 {:.2} ms\n",
        rate,
        percentile(times, 50).as_secs_f64() * 1e3,
        percentile(times, 99).as_secs_f64() * 1e3
    )
}

/// The smallest that `p` percent are not above; `times` are sorted.
fn percentile(times: &[Duration], p: usize) -> Duration {
    let rank = (times.len() * p).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("not in 0 to 1".to_owned())
    }
}

struct Bench {
    client: Client,
    load: Load,
    vectors: Vectors,
}

/// What one client saw of the mix, or all of them.
#[derive(Default)]
struct Seen {
    reads: Vec<Duration>,
    writes: Vec<Duration>,
    failed: u64,
    first_error: Option<CliError>,
}

impl Bench {
    async fn load_rows(self: &Arc<Self>, tasks: &Tasks) -> Result<Duration, CliError> {
        let begin = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let loader = |_| {
            let (bench, next, stop) = (self.clone(), next.clone(), tasks.stopping().clone());
            tasks.spawn("bench load", OnExit::Fine, async move {
                while !stop.is_cancelled() {
                    let first = next.fetch_add(bench.load.batch, Ordering::Relaxed);
                    if first >= bench.load.rows {
                        break;
                    }
                    let ids: Vec<u64> = (first..(first + bench.load.batch).min(bench.load.rows)).collect();
                    let vectors: Vec<f32> = ids.iter().flat_map(|id| bench.vectors.at(*id)).collect();
                    bench.write(&ids, &vectors).await?;
                }
                Ok::<_, CliError>(())
            })
        };
        let loaders: Vec<_> = (0..self.load.clients).map(loader).collect();
        for loader in loaders {
            loader.await??;
        }
        Ok(begin.elapsed())
    }

    async fn mix(self: &Arc<Self>, tasks: &Tasks) -> Result<(Seen, Duration), CliError> {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(self.load.seconds);
        let chance = Rand::from_seed(self.load.seed);
        let client = |_| {
            let (bench, chance) = (self.clone(), Rand::from_seed(chance.u64()));
            let stop = tasks.stopping().clone();
            tasks.spawn("bench client", OnExit::Fine, async move {
                let mut seen = Seen::default();
                while Instant::now() < end && !stop.is_cancelled() {
                    bench.step(&chance, &mut seen).await;
                }
                seen
            })
        };
        let clients: Vec<_> = (0..self.load.clients).map(client).collect();
        let mut all = Seen::default();
        for client in clients {
            let seen = client.await?;
            all.reads.extend(seen.reads);
            all.writes.extend(seen.writes);
            all.failed += seen.failed;
            all.first_error = all.first_error.or(seen.first_error);
        }
        Ok((all, begin.elapsed()))
    }

    async fn step(&self, chance: &Rand, seen: &mut Seen) {
        let is_read = chance.unit() < self.load.read_share;
        let vector = self.vectors.at(chance.u64());
        let id = chance.below(self.load.rows);
        let begin = Instant::now();
        let result = match is_read {
            true => self.read(&vector).await,
            false => self.write(&[id], &vector).await,
        };
        match result {
            Ok(()) if is_read => seen.reads.push(begin.elapsed()),
            Ok(()) => seen.writes.push(begin.elapsed()),
            Err(e) => {
                seen.failed += 1;
                seen.first_error.get_or_insert(e);
            }
        }
    }

    async fn read(&self, vector: &[f32]) -> Result<(), CliError> {
        let value = VectorLeg::Value(VectorValue::B64(b64(vector)));
        let query = Query {
            vector: Some(value),
            k: Some(K),
            ..Query::default()
        };
        let _: QueryAnswer = self
            .client
            .post(&self.load.collection, &["query"], &query)
            .await?;
        Ok(())
    }

    async fn write(&self, ids: &[u64], vectors: &[f32]) -> Result<(), CliError> {
        let ids = Value::from(ids.to_vec());
        let columns = Map::from_iter([("id".to_owned(), ids), (FIELD.to_owned(), b64(vectors).into())]);
        let request = WriteRequest {
            upsert_columns: Some(columns),
            ..WriteRequest::default()
        };
        let _: WriteAnswer = self
            .client
            .post(&self.load.collection, &["documents"], &request)
            .await?;
        Ok(())
    }
}

fn b64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    format!("b64:{}", STANDARD.encode(bytes))
}

/// Random vectors around random middles; each depends on the seed and its number alone, so
/// it does not matter which client sends it.
struct Vectors {
    seed: u64,
    middles: Vec<Vec<f32>>,
}

impl Vectors {
    fn new(load: &Load) -> Self {
        let chance = Rand::from_seed(load.seed);
        let middle = |_| (0..load.dim).map(|_| normal(&chance)).collect();
        Self {
            seed: load.seed,
            middles: (0..CLUSTERS).map(middle).collect(),
        }
    }

    fn at(&self, number: u64) -> Vec<f32> {
        let chance = Rand::from_seed(self.seed.wrapping_add(number.wrapping_add(1).wrapping_mul(STEP)));
        let middle = &self.middles[chance.below(CLUSTERS) as usize];
        middle.iter().map(|x| x + SPREAD * normal(&chance)).collect()
    }
}

/// Nearly normal, mean 0 and variance 1: the sum of four even draws, each of variance 1/12.
fn normal(chance: &Rand) -> f32 {
    let bits = chance.u64();
    let sum: f32 = (0..4)
        .map(|part| f32::from((bits >> (16 * part)) as u16) / 65_536.0)
        .sum();
    (sum - 2.0) * 3.0_f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(seed: u64) -> Vectors {
        let load = Load {
            collection: "bench".into(),
            rows: 10,
            dim: 64,
            clients: 1,
            batch: 1,
            seconds: 1,
            read_share: 1.0,
            seed,
        };
        Vectors::new(&load)
    }

    #[test]
    fn a_vector_depends_on_the_seed_and_its_number_alone() {
        assert_eq!(vectors(1).at(7), vectors(1).at(7));
        assert_ne!(vectors(1).at(7), vectors(1).at(8));
        assert_ne!(vectors(1).at(7), vectors(2).at(7));
    }

    #[test]
    fn draws_have_mean_nought_and_variance_one() {
        let chance = Rand::from_seed(1);
        let draws: Vec<f32> = (0..10_000).map(|_| normal(&chance)).collect();
        let mean = draws.iter().sum::<f32>() / 10_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 10_000.0;
        assert!(
            mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05,
            "mean {mean}, variance {variance}"
        );
    }

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let ms = |n| Duration::from_millis(n);
        let times: Vec<Duration> = (1..=200).map(ms).collect();
        assert_eq!(
            (percentile(&times, 50), percentile(&times, 99)),
            (ms(100), ms(198))
        );
        assert_eq!(
            (percentile(&times[..1], 99), percentile(&[], 50)),
            (ms(1), Duration::ZERO)
        );
    }
}
