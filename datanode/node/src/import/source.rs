//! Where an import's rows come from: a body that arrives, cut into chunks.
//!
//! A source runs in a task of its own, at most two chunks ahead of the writes, so a slow
//! store slows the sender down.  Its first message is the head: that the file is what it
//! is said to be.  Only Parquet must be there as a whole before a row can be read; it goes
//! to a nameless file in the cache folder, never into memory.

use std::fs::File;
use std::io::{Seek, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rhumb_core::{Code, Limits, Problem};
use rhumb_formats::{Chunk, Parquet, Splitter};
use rhumb_seams::Tasks;
use tokio::sync::mpsc;

use crate::http::Incoming;

/// An import may come from a pipe that is silent for a while.
const IDLE: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

pub enum Message {
    /// The file is what it is said to be.
    Head,
    Chunk(Chunk),
}

pub struct Source {
    pub format: Format,
    pub body: Incoming,
    pub limits: Arc<Limits>,
    pub tasks: Tasks,
    /// Where Parquet is put, and how much of it.
    pub spool: Arc<Path>,
    pub spool_limit: u64,
    /// Bytes read so far, for whoever watches.
    pub read: Arc<AtomicU64>,
}

type Sender = mpsc::Sender<Result<Message, Problem>>;

impl Format {
    pub fn of_content_type(essence: Option<&str>) -> Result<Self, Problem> {
        match essence {
            Some(
                rhumb_api::NDJSON | "application/ndjson" | "application/jsonl" | "application/x-jsonlines",
            ) => Ok(Self::Ndjson),
            Some(rhumb_api::CSV) => Ok(Self::Csv),
            Some(rhumb_api::ARROW) => Ok(Self::Arrow),
            Some(rhumb_api::PARQUET) => Ok(Self::Parquet),
            other => Err(Problem::new(
                Code::UnsupportedMediaType,
                format!(
                    "an import is NDJSON, CSV, Arrow or Parquet, not {}",
                    other.unwrap_or("unnamed")
                ),
            )
            .field("Content-Type")
            .hint(format!(
                "send {}, {}, {} or {}",
                rhumb_api::NDJSON,
                rhumb_api::CSV,
                rhumb_api::ARROW,
                rhumb_api::PARQUET
            ))),
        }
    }

    /// `None`: it must be there as a whole.
    fn splitter(self, limits: &Limits) -> Option<Splitter> {
        match self {
            Self::Ndjson => Some(Splitter::ndjson(limits)),
            Self::Csv => Some(Splitter::csv(limits)),
            Self::Arrow => Some(Splitter::arrow(limits)),
            Self::Parquet => None,
        }
    }
}

impl Source {
    /// Until the body ends, something is wrong with it, or nobody takes chunks any more.
    pub async fn run(mut self, to: Sender) {
        self.body = self.body.patient(IDLE);
        let ended = match self.format.splitter(&self.limits) {
            Some(splitter) => self.stream(splitter, &to).await,
            None => self.parquet(&to).await,
        };
        if let Err(Ended::Problem(problem)) = ended {
            // Nobody listens when the import has been given up: nothing to tell then.
            let _ = to.send(Err(problem)).await;
        }
        self.body.drain(&self.tasks);
    }

    async fn stream(&mut self, mut splitter: Splitter, to: &Sender) -> Result<(), Ended> {
        let mut headed = false;
        loop {
            let bytes = self.bytes().await?;
            let ended = bytes.is_none();
            splitter.push(bytes.as_deref())?;
            if !headed && (splitter.has_head() || ended) {
                headed = true;
                give(to, Message::Head).await?;
            }
            // A full chunk at once, a part of one when there will be no more.
            while ended || splitter.is_full() {
                match splitter.take()? {
                    Some(chunk) => give(to, Message::Chunk(chunk)).await?,
                    None => break,
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    async fn parquet(&mut self, to: &Sender) -> Result<(), Ended> {
        let file = self.spooled().await?;
        let opened = self.tasks.compute(move || Parquet::open(file)).await;
        let mut parquet = opened.map_err(lost)??;
        give(to, Message::Head).await?;
        loop {
            let next = self.tasks.compute(move || (parquet.next_rows(), parquet)).await;
            let (chunk, rest) = next.map_err(lost)?;
            parquet = rest;
            match chunk? {
                Some(chunk) => give(to, Message::Chunk(chunk)).await?,
                None => return Ok(()),
            }
        }
    }

    /// The whole body in a file that has no name any more: it is gone when it is closed.
    async fn spooled(&mut self) -> Result<File, Ended> {
        let folder = self.spool.clone();
        let opened = self
            .tasks
            .compute(move || nameless_file(&folder))
            .await
            .map_err(lost)?;
        let mut file = opened.map_err(|error| spool_failed(&error))?;
        let mut length = 0;
        while let Some(bytes) = self.bytes().await? {
            length += bytes.len() as u64;
            if length > self.spool_limit {
                let detail = format!("a Parquet file may have {} bytes here", self.spool_limit);
                let problem = Problem::new(Code::BodyTooLarge, detail);
                return Err(problem.hint("raise --cache-size, or send smaller files").into());
            }
            let written = self
                .tasks
                .compute(move || file.write_all(&bytes).map(|()| file))
                .await;
            file = written.map_err(lost)?.map_err(|error| spool_failed(&error))?;
        }
        file.rewind().map_err(|error| spool_failed(&error))?;
        Ok(file)
    }

    async fn bytes(&mut self) -> Result<Option<Bytes>, Problem> {
        let bytes = self.body.next().await?;
        self.read.fetch_add(
            bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Ordering::Relaxed,
        );
        Ok(bytes)
    }
}

/// Why a source stops before its end.
enum Ended {
    Problem(Problem),
    /// The import is over for other reasons.
    Unwanted,
}

impl From<Problem> for Ended {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

async fn give(to: &Sender, message: Message) -> Result<(), Ended> {
    to.send(Ok(message)).await.map_err(|_| Ended::Unwanted)
}

/// A task of our own that did not come back.
fn lost(error: tokio::task::JoinError) -> Problem {
    Problem::new(Code::Internal, format!("reading a file ended early: {error}"))
}

fn spool_failed(why: &dyn std::fmt::Display) -> Problem {
    Problem::new(
        Code::Unavailable,
        format!("the file cannot be kept while it is read: {why}"),
    )
    .hint("is there room in --cache-dir?")
}

fn nameless_file(folder: &Path) -> std::io::Result<File> {
    std::fs::create_dir_all(folder)?;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        "import-{}-{}.parquet",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let path = folder.join(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use arrow_array::{RecordBatch, StringArray};
    use axum::body::Body;
    use axum::http::HeaderMap;
    use parquet::arrow::ArrowWriter;

    use super::*;

    async fn run(format: Format, pieces: Vec<Vec<u8>>) -> (bool, usize, Option<Problem>) {
        let pieces = pieces
            .into_iter()
            .map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let body = Body::from_stream(futures::stream::iter(pieces));
        let source = Source {
            format,
            body: Incoming::new(&HeaderMap::new(), body).expect("no encoding"),
            limits: Arc::default(),
            tasks: Tasks::new(),
            spool: std::env::temp_dir().join("rhumb-node-tests").into(),
            spool_limit: 1 << 20,
            read: Arc::default(),
        };
        let (to, mut from) = mpsc::channel(64);
        source.run(to).await;
        let (mut head, mut rows, mut problem) = (false, 0, None);
        while let Some(message) = from.recv().await {
            match message {
                Ok(Message::Head) => head = true,
                Ok(Message::Chunk(chunk)) => rows += chunk.rows.count(),
                Err(found) => problem = Some(found),
            }
        }
        (head, rows, problem)
    }

    fn parquet(rows: usize) -> Vec<u8> {
        let ids: StringArray = (0..rows).map(|n| Some(format!("n{n}"))).collect();
        let batch = RecordBatch::try_from_iter([("id", Arc::new(ids) as _)]).expect("a batch");
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("memory");
        writer.write(&batch).expect("memory");
        writer.into_inner().expect("memory")
    }

    #[tokio::test]
    async fn a_stream_of_lines_is_cut_into_chunks() {
        let pieces = vec![b"{\"id\": \"a\"}\n{\"i".to_vec(), b"d\": \"b\"}".to_vec()];
        assert_eq!(run(Format::Ndjson, pieces).await, (true, 2, None));
        assert_eq!(run(Format::Ndjson, Vec::new()).await, (true, 0, None));
    }

    #[tokio::test]
    async fn parquet_is_read_once_it_is_there_as_a_whole() {
        let file = parquet(2_345);
        let pieces = file.chunks(1_000).map(<[u8]>::to_vec).collect();
        assert_eq!(run(Format::Parquet, pieces).await, (true, 2_345, None));
    }

    #[tokio::test]
    async fn a_file_of_another_kind_has_no_head() {
        for format in [Format::Csv, Format::Arrow, Format::Parquet] {
            let (head, rows, problem) = run(format, vec![b"{\"id\": \"a\"}\n".repeat(20)]).await;
            assert_eq!((head, rows), (false, 0), "{format:?}");
            assert!(problem.is_some(), "{format:?}");
        }
        let cut = parquet(100);
        let (head, _, problem) = run(Format::Parquet, vec![cut[..cut.len() - 5].to_vec()]).await;
        assert_eq!(
            (head, problem.map(|problem| problem.code)),
            (false, Some(Code::Malformed))
        );
    }

    #[tokio::test]
    async fn a_parquet_file_larger_than_its_place_is_refused() {
        let (_, _, problem) = run(Format::Parquet, vec![vec![0; 600 << 10], vec![0; 600 << 10]]).await;
        assert_eq!(problem.map(|problem| problem.code), Some(Code::BodyTooLarge));
    }

    #[test]
    fn the_content_type_says_which_format_it_is() {
        assert_eq!(Format::of_content_type(Some("text/csv")), Ok(Format::Csv));
        for other in [None, Some("application/json"), Some("text/plain")] {
            assert_eq!(
                Format::of_content_type(other).expect_err("refused").code,
                Code::UnsupportedMediaType
            );
        }
    }
}
