//! Sends prepared requests as fast as they are answered, or at an even rate, and says how
//! long answers took.  It costs a few microseconds a request, so it can share a small
//! machine with the server it measures.
//!
//! `replay ADDRESS PATH FILE [connections=1] [seconds=5] [rate=0] [ca=PEM] [key=FILE]`
//!
//! With `ca` it speaks TLS to a server whose certificate that authority signed; `key` is a
//! file with an API key.
//! FILE has one JSON body per line; they are sent to PATH by POST, round and round.  A rate
//! above 0 is an open loop: requests start evenly spaced, whatever became of those before,
//! and a time counts from when its request was due.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real time, real connections, and a report on standard output"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rhumb_e2e::data::percentile;
use rhumb_e2e::http1;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

struct Plan {
    address: String,
    /// `None`: in the clear.
    tls: Option<TlsConnector>,
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
        anyhow::bail!("replay ADDRESS PATH FILE [connections=1] [seconds=5] [rate=0] [ca=PEM] [key=FILE]");
    };
    let given = |name: &str| {
        let mut options = options.iter();
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    };
    let option = |name: &str, default: f64| -> Result<f64> {
        given(name).map_or(Ok(default), |value| {
            value.parse().with_context(|| format!("{name} is a number"))
        })
    };
    let key = given("key").map(std::fs::read_to_string).transpose()?;
    let key = key.map_or(String::new(), |key| {
        format!("authorization: Bearer {}\r\n", key.trim())
    });
    let bodies = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let request = |body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{key}\r\n{body}"
        )
        .into_bytes()
    };
    let rate = option("rate", 0.0)?;
    let plan = Arc::new(Plan {
        address: address.clone(),
        tls: given("ca").map(|ca| connector(Path::new(ca))).transpose()?,
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

fn connector(ca: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn client(plan: Arc<Plan>) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(&plan.address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &plan.tls else {
        return ask(&plan, stream).await;
    };
    let host = plan
        .address
        .rsplit_once(':')
        .map_or(plan.address.as_str(), |(host, _)| host);
    let name = ServerName::try_from(host.to_owned())?;
    ask(&plan, tls.connect(name, stream).await?).await
}

async fn ask(plan: &Plan, stream: impl AsyncRead + AsyncWrite) -> Result<Vec<Duration>> {
    let (reader, mut writer) = tokio::io::split(stream);
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
        writer.flush().await?;
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
