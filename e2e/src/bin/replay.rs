//! Sends prepared requests as fast as they are answered, or at an even rate, and says how
//! long answers took.  It costs a few microseconds a request, so it can share a small
//! machine with the server it measures.
//!
//! `replay ADDRESS PATH FILE [connections=1] [seconds=5] [rate=0]`
//!
//! FILE has one JSON body per line; they are sent to PATH by POST, round and round.  A rate
//! above 0 is an open loop: requests start evenly spaced, whatever became of those before,
//! and a time counts from when its request was due.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real time, real connections, and a report on standard output"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rhumb_e2e::data::percentile;
use rhumb_e2e::http1;
use serde_json::json;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

struct Plan {
    address: String,
    requests: Vec<Vec<u8>>,
    next: AtomicUsize,
    begin: Instant,
    length: Duration,
    /// Between two requests; zero is a closed loop.
    spacing: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, file, options @ ..] = args.as_slice() else {
        anyhow::bail!("replay ADDRESS PATH FILE [connections=1] [seconds=5] [rate=0]");
    };
    let option = |name: &str, default: f64| -> Result<f64> {
        let given = options
            .iter()
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        given.map_or(Ok(default), |value| {
            value.parse().with_context(|| format!("{name} is a number"))
        })
    };
    let bodies = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let request = |body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    let rate = option("rate", 0.0)?;
    let plan = Arc::new(Plan {
        address: address.clone(),
        requests: bodies.lines().map(request).collect(),
        next: AtomicUsize::new(0),
        begin: Instant::now(),
        length: Duration::from_secs_f64(option("seconds", 5.0)?),
        spacing: match rate > 0.0 {
            true => Duration::from_secs_f64(1.0 / rate),
            false => Duration::ZERO,
        },
    });
    ensure!(!plan.requests.is_empty(), "{file} has no requests");
    let connections = option("connections", 1.0)? as usize;
    let clients: Vec<_> = (0..connections.max(1))
        .map(|_| tokio::spawn(client(plan.clone())))
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    let took = plan.begin.elapsed().as_secs_f64();
    times.sort_unstable();
    let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    let ms = |share| percentile(&times, share);
    println!(
        "{}",
        json!({"requests": times.len(), "qps": times.len() as f64 / took,
            "p50_ms": ms(0.5), "p90_ms": ms(0.9), "p99_ms": ms(0.99), "max_ms": ms(1.0)})
    );
    Ok(())
}

async fn client(plan: Arc<Plan>) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(&plan.address).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut times = Vec::new();
    loop {
        let number = plan.next.fetch_add(1, Ordering::Relaxed);
        let due = match plan.spacing.is_zero() {
            true => Instant::now(),
            false => plan.begin + plan.spacing.mul_f64(number as f64),
        };
        if due.duration_since(plan.begin) >= plan.length {
            return Ok(times);
        }
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            wait(early).await;
        }
        writer
            .write_all(&plan.requests[number % plan.requests.len()])
            .await?;
        let answer = http1::read_response(&mut reader, false).await?;
        ensure!(
            answer.status() == Some(200),
            "{}: {}",
            answer.first_line(),
            String::from_utf8_lossy(&answer.body)
        );
        times.push(due.elapsed());
    }
}

/// tokio's timer is a millisecond coarse: the last bit is spun.
async fn wait(early: Duration) {
    let begin = Instant::now();
    if early > Duration::from_millis(2) {
        tokio::time::sleep(early - Duration::from_millis(2)).await;
    }
    while begin.elapsed() < early {
        tokio::task::yield_now().await;
    }
}
