//! Streaming documents in: chunks of a body become writes, a few at a time.
//!
//! - A row that cannot be typed is counted, the others are written.
//! - Rows take effect in the order of the file: two writes of one document are never under
//!   way together, and a chunk that fixes types is written before the next is typed.
//! - A busy store or server slows the import down.  Only when it stays so does the import
//!   stop, and its last line says what is written.
//! - Each chunk is written under an idempotency key of its own, so repeating one whose
//!   outcome was unknown cannot overwrite what another client wrote meanwhile.

mod report;
mod source;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rhumb_core::write::Idempotency;
use rhumb_core::{Code, Filter, Limits, Position, Problem, Schema};
use rhumb_engine::{Collection, EngineError};
use rhumb_formats::{Chunk, Failure, Typed, typed};
use rhumb_seams::{OnExit, Tasks};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::http::{Caller, Meter, outside};
pub use report::Reporter;
pub use source::{Format, Message, Source};

/// Writes under way at once: one is being logged while others are typed.
const AT_ONCE: usize = 4;
/// How long a chunk is tried again while the server or the store is busy.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub struct Import {
    pub collection: Arc<Collection>,
    pub limits: Arc<Limits>,
    pub caller: Caller,
    /// Of the rows that are written.
    pub meter: Option<Meter>,
    pub tasks: Tasks,
    /// Makes the keys of its chunks its own.
    pub name: String,
    pub reporter: Reporter,
}

/// What became of a chunk.
struct Done {
    rows: u64,
    failures: Vec<Failure>,
    positions: Vec<(u32, Position)>,
    hashes: Vec<u64>,
}

type Writing = FuturesUnordered<JoinHandle<Result<Done, Problem>>>;

impl Import {
    /// To the end of the source, or to the first problem that is one of the whole import.
    pub async fn run(mut self, mut from: mpsc::Receiver<Result<Message, Problem>>) {
        let ended = self.pump(&mut from).await;
        // Lets the source stop reading.
        drop(from);
        self.reporter.finish(ended.err()).await;
    }

    async fn pump(&mut self, from: &mut mpsc::Receiver<Result<Message, Problem>>) -> Result<(), Problem> {
        let mut writing = Writing::new();
        let mut under_way = HashSet::new();
        let outcome = self.feed(from, &mut writing, &mut under_way).await;
        // What was begun is finished and counted, whatever happened.
        let drained = self.drain(&mut writing, &mut under_way).await;
        outcome.and(drained)
    }

    async fn feed(
        &mut self,
        from: &mut mpsc::Receiver<Result<Message, Problem>>,
        writing: &mut Writing,
        under_way: &mut HashSet<u64>,
    ) -> Result<(), Problem> {
        let stopping = self.tasks.stopping().clone();
        let begin = Instant::now();
        let (mut number, mut rows) = (0_u64, 0_u64);
        loop {
            let message = tokio::select! {
                biased;
                () = stopping.cancelled() => {
                    return Err(Problem::new(Code::Unavailable, "the server is stopping"));
                }
                Some(done) = writing.next() => {
                    self.count(done, under_way)?;
                    continue;
                }
                message = from.recv(), if writing.len() < AT_ONCE => message,
            };
            let chunk = match message {
                None => return Ok(()),
                Some(Ok(Message::Head)) => continue,
                Some(Ok(Message::Chunk(chunk))) => Arc::new(chunk),
                Some(Err(problem)) => return Err(problem),
            };
            rows += chunk.rows.count() as u64;
            let typed = self.typed(&chunk).await?;
            let fixes_types = !typed.write.new_fields.is_empty();
            if fixes_types || typed.hashes.iter().any(|hash| under_way.contains(hash)) {
                self.drain(writing, under_way).await?;
            }
            under_way.extend(&typed.hashes);
            number += 1;
            writing.push(self.write(chunk, typed, number));
            if fixes_types {
                self.drain(writing, under_way).await?;
            }
            self.throttle(begin, rows).await;
        }
    }

    async fn typed(&self, chunk: &Arc<Chunk>) -> Result<Typed, Problem> {
        let (chunk, schema, limits) = (chunk.clone(), self.collection.schema(), self.limits.clone());
        let caller = self.caller.clone();
        self.tasks
            .compute(move || within(typed(&chunk, &schema, &limits), &caller, &schema, &limits))
            .await
            .map_err(|_| panicked())
    }

    /// In a task of its own, so that it goes on while the next chunk is read.
    fn write(&self, chunk: Arc<Chunk>, first: Typed, number: u64) -> JoinHandle<Result<Done, Problem>> {
        let batch = Batch {
            chunk,
            collection: self.collection.clone(),
            limits: self.limits.clone(),
            caller: self.caller.clone(),
            tasks: self.tasks.clone(),
            key: format!("import:{}:{number}", self.name),
        };
        self.tasks.spawn("import batch", OnExit::Fine, batch.write(first))
    }

    async fn drain(&mut self, writing: &mut Writing, under_way: &mut HashSet<u64>) -> Result<(), Problem> {
        let mut worst = Ok(());
        while let Some(done) = writing.next().await {
            worst = worst.and(self.count(done, under_way));
        }
        worst
    }

    fn count(
        &mut self,
        done: Result<Result<Done, Problem>, tokio::task::JoinError>,
        under_way: &mut HashSet<u64>,
    ) -> Result<(), Problem> {
        let done = done.map_err(|_| panicked())??;
        for hash in &done.hashes {
            under_way.remove(hash);
        }
        if let Some(meter) = &self.meter {
            meter.rows(done.rows);
        }
        self.reporter.wrote(done.rows, &done.failures, &done.positions);
        Ok(())
    }

    /// Holds the rate that `import_rows_per_s` allows.
    async fn throttle(&self, begin: Instant, rows: u64) {
        let rate = self.limits.import_rows_per_s;
        if rate > 0 {
            tokio::time::sleep_until(begin + Duration::from_secs_f64(rows as f64 / rate as f64)).await;
        }
    }
}

/// One chunk on its way into the log.
struct Batch {
    chunk: Arc<Chunk>,
    collection: Arc<Collection>,
    limits: Arc<Limits>,
    caller: Caller,
    tasks: Tasks,
    key: String,
}

impl Batch {
    async fn write(self, first: Typed) -> Result<Done, Problem> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let mut typed_now = Some(first);
        loop {
            let Typed {
                mut write,
                rows,
                mut failures,
                hashes,
            } = match typed_now.take() {
                Some(typed) => typed,
                None => self.typed_again().await?,
            };
            if write.upsert.is_empty() {
                return Ok(Done {
                    rows: 0,
                    failures,
                    positions: Vec::new(),
                    hashes,
                });
            }
            write.idempotency = Some(Idempotency {
                key: self.key.clone(),
                body_hash: 0,
            });
            match self.collection.write(write).await {
                Ok(written) => {
                    return Ok(Done {
                        rows,
                        failures,
                        positions: written.positions,
                        hashes,
                    });
                }
                // Typed again at once: another client's field came in between.
                Err(EngineError::SchemaMoved) => {}
                // Of the whole chunk: its rows are counted as failed, the import goes on.
                Err(EngineError::Refused(problem)) if is_of_rows(problem.code) => {
                    failures.extend((0..rows).map(|_| Failure {
                        line: 0,
                        problem: problem.clone(),
                    }));
                    return Ok(Done {
                        rows: 0,
                        failures,
                        positions: Vec::new(),
                        hashes,
                    });
                }
                Err(error) if Instant::now() < deadline && is_passing(&error) => {
                    tracing::debug!(key = self.key, %error, "an import waits");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error.problem()),
            }
        }
    }

    async fn typed_again(&self) -> Result<Typed, Problem> {
        let (chunk, schema, limits) = (self.chunk.clone(), self.collection.schema(), self.limits.clone());
        let caller = self.caller.clone();
        self.tasks
            .compute(move || within(typed(&chunk, &schema, &limits), &caller, &schema, &limits))
            .await
            .map_err(|_| panicked())
    }
}

/// Rows outside what the caller may write are counted as failed, like those that cannot be
/// typed.
fn within(mut typed: Typed, caller: &Caller, schema: &Schema, limits: &Limits) -> Typed {
    if !caller.is_scoped() {
        return typed;
    }
    let extended = schema.extend(&typed.write.new_fields, limits);
    let scope = extended.ok().and_then(|schema| caller.scope(&schema, limits));
    let scope = scope.unwrap_or_else(Filter::nothing);
    let failures = &mut typed.failures;
    let before = typed.write.upsert.len();
    typed.write.upsert.retain(|(id, document)| {
        let is_own = scope.matches(id, document);
        if !is_own {
            failures.push(Failure {
                line: 0,
                problem: outside(id),
            });
        }
        is_own
    });
    typed.rows -= (before - typed.write.upsert.len()) as u64;
    typed.write.scope = Some(scope);
    typed
}

/// Whether a refusal is about what the rows hold, and not about the collection.
fn is_of_rows(code: Code) -> bool {
    code == Code::Forbidden || (rhumb_api::status(code) == 422 && code != Code::QuotaExceeded)
}

/// Whether the same write may go through later.
fn is_passing(error: &EngineError) -> bool {
    !error.is_fenced()
        && !matches!(error, EngineError::NotLeading)
        && matches!(
            error.problem().code,
            Code::TooManyRequests | Code::Unavailable | Code::OutcomeUnknown | Code::PartiallyApplied
        )
}

fn panicked() -> Problem {
    Problem::new(Code::Internal, "a part of the import panicked")
}
