//! `rhumb import`: streams a file into a collection and follows the server's progress.
//!
//! Broken rows do not stop an import; they make the exit status 1.  When it stops early,
//! what was counted as written is written.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method, Response};
use rhumb_api::{ImportDone, ImportProgress};
use tokio_util::io::ReaderStream;

use super::client::{self, CliError, Client, grouped, plain};

const READ_BYTES: usize = 256 << 10;
const PACE: Duration = Duration::from_millis(200);
const BAR: u64 = 24;
const ERRORS_SHOWN: usize = 10;

#[derive(clap::Args)]
pub struct Args {
    file: PathBuf,
    /// Where to; it must be there already.
    #[arg(long)]
    collection: String,
    /// Told from the file's name when left out.
    #[arg(long)]
    format: Option<Format>,
    #[command(flatten)]
    server: client::Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

pub async fn run(args: Args) -> ExitCode {
    client::exit(import(args).await)
}

async fn import(args: Args) -> Result<ExitCode, CliError> {
    let format = args.format.map_or_else(|| Format::of(&args.file), Ok)?;
    let client = Client::new(&args.server)?;
    let unreadable = |source| CliError::File {
        path: args.file.clone(),
        source,
    };
    let file = tokio::fs::File::open(&args.file).await.map_err(unreadable)?;
    let bar = Bar::new(file.metadata().await.map_err(unreadable)?.len());
    let sent = bar.sent.clone();
    let stream = ReaderStream::with_capacity(file, READ_BYTES).inspect_ok(move |bytes| {
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    let request = client
        .request(Method::POST, &args.collection, &["import"])
        .header(CONTENT_TYPE, format.content_type())
        .body(Body::wrap_stream(stream));
    let done = bar
        .drawn_during(async { follow(client::send(request).await?, &bar).await })
        .await;
    bar.clear();
    report(&done?)
}

impl Format {
    fn of(file: &Path) -> Result<Self, CliError> {
        let extension = file
            .extension()
            .and_then(|e| e.to_str())
            .map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("ndjson" | "jsonl") => Ok(Self::Ndjson),
            Some("csv") => Ok(Self::Csv),
            Some("arrow") => Ok(Self::Arrow),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(CliError::Usage(format!(
                "{}: the name does not tell the format; give --format ndjson, csv, arrow or parquet",
                file.display()
            ))),
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => rhumb_api::NDJSON,
            Self::Csv => rhumb_api::CSV,
            Self::Arrow => rhumb_api::ARROW,
            Self::Parquet => rhumb_api::PARQUET,
        }
    }
}

/// Reads the answer's lines up to the last one.
async fn follow(mut response: Response, bar: &Bar) -> Result<ImportDone, CliError> {
    let mut buffer = Vec::new();
    while let Some(bytes) = response.chunk().await? {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if let Ok(progress) = serde_json::from_slice::<ImportProgress>(&line) {
                bar.rows.store(progress.rows, Ordering::Relaxed);
                bar.rows_per_s
                    .store(progress.rows_per_s as u64, Ordering::Relaxed);
            } else {
                return Ok(serde_json::from_slice(&line)?);
            }
        }
    }
    Err(CliError::Usage(format!(
        "the server's answer broke off; at least {} rows are written",
        grouped(bar.rows.load(Ordering::Relaxed))
    )))
}

fn report(done: &ImportDone) -> Result<ExitCode, CliError> {
    let seconds = (done.took_ms as f64 / 1e3).max(1e-3);
    client::print(&format!(
        "{} rows in {seconds:.1} s ({} rows/s), {} failed\n",
        grouped(done.rows),
        grouped((done.rows as f64 / seconds) as u64),
        grouped(done.failed)
    ))?;
    for failure in done.errors.iter().take(ERRORS_SHOWN) {
        let place = failure
            .field
            .as_ref()
            .map(|field| format!("{}: ", plain(field, 80)))
            .unwrap_or_default();
        eprintln!(
            "  line {}: {place}{} ({})",
            failure.line,
            plain(&failure.error, 200),
            failure.code
        );
    }
    let shown = done.errors.len().min(ERRORS_SHOWN) as u64;
    if done.failed > shown {
        eprintln!("  … and {} more", grouped(done.failed - shown));
    }
    if let Some(problem) = &done.error {
        return Ok(super::fail(&format!(
            "the import stopped early: {}",
            client::refusal(problem)
        )));
    }
    Ok(if done.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One line on a terminal's stderr; elsewhere nothing.
struct Bar {
    sent: Arc<AtomicU64>,
    size: u64,
    rows: AtomicU64,
    rows_per_s: AtomicU64,
    shown: bool,
}

impl Bar {
    fn new(size: u64) -> Self {
        Self {
            sent: Arc::default(),
            size,
            rows: AtomicU64::new(0),
            rows_per_s: AtomicU64::new(0),
            shown: std::io::stderr().is_terminal(),
        }
    }

    async fn drawn_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                output = &mut work => return output,
                () = tokio::time::sleep(PACE) => self.draw(&self.line()),
            }
        }
    }

    fn line(&self) -> String {
        // A file that grows meanwhile is sent to its new end.
        let sent = self.sent.load(Ordering::Relaxed).min(self.size);
        let full = (BAR * sent).checked_div(self.size).unwrap_or(BAR) as usize;
        format!(
            "[{}{}] {:.1} of {:.1} MB  {} rows  {} rows/s",
            "#".repeat(full),
            "·".repeat(BAR as usize - full),
            sent as f64 / 1e6,
            self.size as f64 / 1e6,
            grouped(self.rows.load(Ordering::Relaxed)),
            grouped(self.rows_per_s.load(Ordering::Relaxed)),
        )
    }

    fn clear(&self) {
        self.draw("");
    }

    fn draw(&self, line: &str) {
        if self.shown {
            // A terminal that is gone sees no bar; the import goes on.
            let _ = write!(std::io::stderr(), "\r\x1b[2K{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_told_from_the_name() {
        let of = |name: &str| Format::of(Path::new(name)).ok();
        assert_eq!(of("a/words.jsonl"), Some(Format::Ndjson));
        assert_eq!(of("WORDS.CSV"), Some(Format::Csv));
        assert_eq!(of("words"), None);
        assert_eq!(of("words.txt"), None);
    }

    #[test]
    fn the_bar_is_full_at_the_end_and_for_an_empty_file() {
        let bar = Bar::new(2_000_000);
        bar.sent.store(1_000_000, Ordering::Relaxed);
        assert!(bar.line().starts_with("[############············] 1.0 of 2.0 MB"));
        assert!(Bar::new(0).line().starts_with("[########################]"));
    }
}
