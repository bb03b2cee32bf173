//! What an import tells: a line of progress now and then, and a last line that counts.
//!
//! Progress is for whoever reads along; a client that sends and does not read must not
//! stop the import, so lines that find no room are left out.  The last line waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rhumb_core::{CollectionId, Position, Problem};
use rhumb_formats::Failure;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::http::{Refusal, Session, position_text, write_json};

const PACE: Duration = Duration::from_millis(500);
const MOST_ERRORS: usize = 100;
/// How long the last line waits for a client that does not read.
const FAREWELL: Duration = Duration::from_secs(60);

pub struct Reporter {
    lines: mpsc::Sender<std::io::Result<Bytes>>,
    request_id: String,
    read: Arc<AtomicU64>,
    begin: Instant,
    told: Instant,
    rows: u64,
    failed: u64,
    errors: Vec<rhumb_api::ImportFailure>,
    collection: CollectionId,
    session: Session,
}

impl Reporter {
    /// `read` are the bytes that the source has read; `session` is the request's.
    pub fn new(
        lines: mpsc::Sender<std::io::Result<Bytes>>,
        request_id: String,
        read: Arc<AtomicU64>,
        collection: CollectionId,
        session: Session,
    ) -> Self {
        let begin = Instant::now();
        Self {
            lines,
            request_id,
            read,
            begin,
            told: begin,
            rows: 0,
            failed: 0,
            errors: Vec::new(),
            collection,
            session,
        }
    }

    pub fn wrote(&mut self, rows: u64, failures: &[Failure], positions: &[(u32, Position)]) {
        self.rows += rows;
        self.failed += failures.len() as u64;
        self.errors
            .extend(failures.iter().map(|failure| rhumb_api::ImportFailure {
                line: failure.line,
                error: failure.problem.detail.clone(),
                code: rhumb_api::name(failure.problem.code).to_owned(),
                field: failure.problem.field.clone(),
            }));
        // Chunks end in any order; the first lines of the file are to stay.
        self.errors.sort_by_key(|error| error.line);
        self.errors.truncate(MOST_ERRORS);
        if !positions.is_empty() {
            self.session.saw(&self.collection, positions);
        }
        if self.told.elapsed() >= PACE {
            self.told = Instant::now();
            // No room: the client does not read along.
            let _ = self.lines.try_send(Ok(line(&self.progress())));
        }
    }

    pub async fn finish(self, error: Option<Problem>) {
        if let Some(problem) = &error {
            tracing::warn!(request_id = self.request_id, %problem, rows = self.rows, "an import stopped early");
        }
        let done = self.done(error);
        // A client that has left is told nothing.
        let _ = tokio::time::timeout(FAREWELL, self.lines.send(Ok(line(&done)))).await;
    }

    fn progress(&self) -> rhumb_api::ImportProgress {
        let seconds = self.begin.elapsed().as_secs_f64().max(1e-6);
        rhumb_api::ImportProgress {
            rows: self.rows,
            bytes: self.read.load(Ordering::Relaxed),
            rows_per_s: (self.rows as f64 / seconds).round(),
            position: self.position(),
        }
    }

    fn done(&self, error: Option<Problem>) -> rhumb_api::ImportDone {
        rhumb_api::ImportDone {
            done: error.is_none(),
            rows: self.rows,
            failed: self.failed,
            errors: self.errors.clone(),
            error: error.map(|problem| Refusal::from(problem).wire(&self.request_id)),
            bytes: self.read.load(Ordering::Relaxed),
            took_ms: self.begin.elapsed().as_millis() as u64,
            position: self.position(),
            session: self.session.token(),
        }
    }

    fn position(&self) -> String {
        position_text(self.session.positions(&self.collection))
    }
}

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut out = Vec::with_capacity(128);
    write_json(&mut out, value);
    out.push(b'\n');
    out.into()
}

#[cfg(test)]
mod tests {
    use rhumb_core::Code;

    use super::*;

    fn reporter(room: usize) -> (Reporter, mpsc::Receiver<std::io::Result<Bytes>>) {
        let (lines, from) = mpsc::channel(room);
        let collection = CollectionId::parse(&"0".repeat(26)).expect("26 digits");
        (
            Reporter::new(
                lines,
                "r1".into(),
                Arc::new(7.into()),
                collection,
                Session::default(),
            ),
            from,
        )
    }

    fn failure(line: u64) -> Failure {
        Failure {
            line,
            problem: Problem::new(Code::TypeMismatch, "no").field("lex"),
        }
    }

    async fn read<T: serde::de::DeserializeOwned>(from: &mut mpsc::Receiver<std::io::Result<Bytes>>) -> T {
        let line = from.recv().await.expect("a line").expect("bytes");
        assert!(line.ends_with(b"\n"));
        serde_json::from_slice(&line).expect("the type reads it")
    }

    #[tokio::test]
    async fn the_first_hundred_broken_lines_are_told_whatever_order_they_came_in() {
        let (mut reporter, mut from) = reporter(1);
        reporter.wrote(0, &(200..400).map(failure).collect::<Vec<_>>(), &[]);
        reporter.wrote(0, &(1..51).map(failure).collect::<Vec<_>>(), &[]);
        reporter
            .finish(Some(Problem::new(Code::Unavailable, "gone")))
            .await;
        let done: rhumb_api::ImportDone = read(&mut from).await;
        assert_eq!((done.failed, done.errors.len()), (250, 100));
        assert_eq!((done.errors[0].line, done.errors[99].line), (1, 249));
        assert!(!done.done);
        assert_eq!(done.error.map(|problem| problem.status), Some(503));
    }
}
