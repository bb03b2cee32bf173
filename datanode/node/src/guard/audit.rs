//! The audit on its way to the bucket.
//!
//! One task owns the chain of this process.  Records wait in a bounded queue and leave as
//! segments `audit/<time>-<process>-<number>.jsonl`, each written once (If-None-Match) and
//! tried until it is there.  While the store is silent the queue fills; of what finds it full
//! only the number is kept, and told in a record of its own.  A flood of refusals is thinned
//! out the same way, so that nobody can fill the bucket by knocking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use rhumb_auth::audit::{self, Chain, END, Outcome, Record};
use rhumb_core::{Code, Problem, time};
use rhumb_seams::{CancellationToken, Clock, Ids, OnExit, Tasks};
use rhumb_store::{Bucket, Outcome as Put, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

const FOLDER: &str = "audit";
const QUEUE: usize = 8_192;
/// Records of one segment.
const FULL: usize = 2_000;
const FLUSH_EVERY: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);
/// How long the last records may take when the process stops.
const FAREWELL: Duration = Duration::from_secs(3);
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);
/// Refusals for want of credentials that are written out, in one second.
const REFUSALS_PER_S: u32 = 20;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Entry {
    pub subject: String,
    pub action: &'static str,
    pub target: String,
    pub outcome: Outcome,
    pub status: u16,
    pub reason: String,
    pub request_id: String,
}

enum Message {
    Record(Entry),
    Flush(oneshot::Sender<()>),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    to: mpsc::Sender<Message>,
    bucket: Bucket,
    /// Records that were not kept.
    dropped: Arc<AtomicU64>,
}

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    pub subject: Option<String>,
    pub limit: usize,
    /// The segment and the line to go on from.
    pub from: Option<(String, usize)>,
}

pub struct Page {
    pub records: Vec<Record>,
    pub next: Option<(String, usize)>,
}

impl Audit {
    pub fn start(bucket: Bucket, node: String, clock: Clock, ids: Ids, tasks: &Tasks, days: u32) -> Self {
        let (to, from) = mpsc::channel(QUEUE);
        let name = ids.ulid().to_ascii_lowercase();
        let dropped = Arc::new(AtomicU64::new(0));
        let scribe = Scribe {
            bucket: bucket.clone(),
            node,
            clock,
            chain: Chain::new(&name),
            name,
            segment: 0,
            waiting: Vec::new(),
            dropped: dropped.clone(),
            refusals: (BTreeMap::new(), None),
        };
        tasks.spawn(
            "audit",
            OnExit::Stop,
            scribe.run(from, tasks.stopping().clone(), days),
        );
        Self { to, bucket, dropped }
    }

    /// Never waits: what finds the queue full is told to the log alone.
    pub fn record(&self, entry: Entry) {
        tracing::info!(
            target: "rhumb_audit",
            subject = ?entry.subject, action = entry.action, at = ?entry.target, outcome = ?entry.outcome,
            status = entry.status, reason = entry.reason, request_id = ?entry.request_id, "audit"
        );
        if self.to.try_send(Message::Record(entry)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A page of records; those of this process up to now are among them.
    pub async fn read(&self, query: &Query) -> Result<Page, Problem> {
        let (done, flushed) = oneshot::channel();
        if self.to.send(Message::Flush(done)).await.is_ok() {
            // The task is gone only when the process stops.
            let _ = flushed.await;
        }
        let unavailable =
            |error: StoreError| Problem::new(Code::Unavailable, format!("the audit cannot be read: {error}"));
        let names = names(&self.bucket).await.map_err(unavailable)?;
        let mut page = Page {
            records: Vec::new(),
            next: None,
        };
        for name in names {
            if query.from.as_ref().is_some_and(|(from, _)| name < *from)
                || began(&name) >= query.until_ms.unwrap_or(i64::MAX)
            {
                continue;
            }
            let path = self.bucket.path(&format!("{FOLDER}/{name}"));
            let Some((bytes, _)) = self.bucket.get_uncached(&path).await.map_err(unavailable)? else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes);
            let first = match &query.from {
                Some((from, line)) if *from == name => *line,
                _ => 0,
            };
            for (line, record) in audit::records(&text).enumerate().skip(first) {
                if !query.wants(&record) {
                    continue;
                }
                if page.records.len() == query.limit {
                    page.next = Some((name, line));
                    return Ok(page);
                }
                page.records.push(record);
            }
        }
        Ok(page)
    }
}

impl Query {
    fn wants(&self, record: &Record) -> bool {
        let at = time::parse(&record.at).ok();
        self.subject
            .as_ref()
            .is_none_or(|subject| record.subject == *subject)
            && self.since_ms.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until_ms.is_none_or(|until| at.is_some_and(|at| at < until))
    }
}

/// The segments there are, in the order of their first records.
async fn names(bucket: &Bucket) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = bucket
        .list(&bucket.path(FOLDER))
        .map_ok(|meta| meta.location.filename().unwrap_or_default().to_owned())
        .try_collect()
        .await?;
    names.retain(|name| name.ends_with(".jsonl"));
    names.sort_unstable();
    Ok(names)
}

/// When a segment's first record was made; of a foreign name, never.
fn began(name: &str) -> i64 {
    let time = name.split('-').next().and_then(|time| time.parse().ok());
    time.unwrap_or(i64::MAX)
}

/// Owns the chain.
struct Scribe {
    bucket: Bucket,
    node: String,
    clock: Clock,
    chain: Chain,
    name: String,
    segment: u64,
    waiting: Vec<(i64, Entry)>,
    dropped: Arc<AtomicU64>,
    /// How many refusals of whom in the second that began then.
    refusals: (BTreeMap<String, u32>, Option<Instant>),
}

impl Scribe {
    async fn run(mut self, mut from: mpsc::Receiver<Message>, stopping: CancellationToken, days: u32) {
        let mut pruned = None;
        loop {
            let message = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                message = from.recv() => message,
                () = tokio::time::sleep(FLUSH_EVERY) => {
                    self.flush(&stopping).await;
                    if pruned.is_none_or(|at: Instant| at.elapsed() > PRUNE_EVERY) {
                        pruned = Some(Instant::now());
                        self.prune(days).await;
                    }
                    continue;
                }
            };
            match message {
                None => break,
                Some(Message::Record(entry)) => self.take(entry),
                Some(Message::Flush(done)) => {
                    self.flush(&stopping).await;
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
            }
            if self.waiting.len() >= FULL {
                self.flush(&stopping).await;
            }
        }
        while let Ok(Message::Record(entry)) = from.try_recv() {
            self.take(entry);
        }
        let end = self.own(END, String::new());
        self.waiting.push((self.clock.unix_ms(), end));
        let never = CancellationToken::new();
        if tokio::time::timeout(FAREWELL, self.flush(&never)).await.is_err() {
            tracing::warn!("the last records of the audit are in the log alone");
        }
    }

    fn take(&mut self, entry: Entry) {
        if entry.outcome != Outcome::Done && self.is_flood(&entry.subject) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.waiting.push((self.clock.unix_ms(), entry));
    }

    fn is_flood(&mut self, subject: &str) -> bool {
        let (counts, since) = &mut self.refusals;
        if since.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            *since = Some(Instant::now());
            counts.clear();
        }
        let count = counts.entry(subject.to_owned()).or_default();
        *count += 1;
        *count > REFUSALS_PER_S
    }

    /// What the audit says of itself.
    fn own(&self, action: &'static str, reason: String) -> Entry {
        Entry {
            subject: "audit".to_owned(),
            action,
            target: String::new(),
            outcome: Outcome::Done,
            status: 0,
            reason,
            request_id: String::new(),
        }
    }

    async fn flush(&mut self, stopping: &CancellationToken) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let entry = self.own("audit_thinned", format!("{dropped} records were not kept"));
            self.waiting.push((self.clock.unix_ms(), entry));
        }
        while !self.waiting.is_empty() {
            let taken: Vec<_> = self.waiting.drain(..self.waiting.len().min(FULL)).collect();
            let (first, lines) = (taken.first().map_or(0, |(at, _)| *at), self.lines(taken));
            let name = format!("{first:013}-{}-{:08}.jsonl", self.name, self.segment);
            if !self.put(&name, lines.into(), stopping).await {
                return;
            }
            self.segment += 1;
        }
    }

    fn lines(&mut self, entries: Vec<(i64, Entry)>) -> String {
        let mut lines = String::new();
        for (at, entry) in entries {
            let record = Record {
                number: 0,
                at: time::format(at),
                node: self.node.clone(),
                subject: entry.subject,
                action: entry.action.to_owned(),
                target: entry.target,
                outcome: entry.outcome,
                status: entry.status,
                reason: entry.reason,
                request_id: entry.request_id,
            };
            match self.chain.append(record) {
                Ok(line) => lines.push_str(&line),
                Err(error) => tracing::error!(%error, "a record of the audit cannot be written"),
            }
        }
        lines
    }

    /// Until it is there.  Only the end of the process gives up.
    async fn put(&self, name: &str, lines: Bytes, stopping: &CancellationToken) -> bool {
        let path = self.bucket.path(&format!("{FOLDER}/{name}"));
        let id = self.bucket.mint_put_id();
        loop {
            match self.bucket.create(&path, lines.clone(), &id).await {
                Ok(Put::Landed(_)) => return true,
                // The name is this process's own: what is there is what an earlier try put.
                Ok(Put::Lost) => return true,
                Ok(Put::Unknown) => {}
                Err(error) => tracing::warn!(%error, "the audit waits for the store"),
            }
            tokio::select! {
                () = stopping.cancelled() => return false,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn prune(&self, days: u32) {
        let oldest = self.clock.unix_ms() - i64::from(days) * DAY_MS;
        let names = match names(&self.bucket).await {
            Ok(names) => names,
            Err(error) => return tracing::debug!(%error, "the audit cannot be pruned"),
        };
        for name in names.iter().filter(|name| began(name) < oldest) {
            let path = self.bucket.path(&format!("{FOLDER}/{name}"));
            if let Err(error) = self.bucket.delete(&path).await {
                tracing::debug!(%error, name, "a segment of the audit cannot be deleted");
            }
        }
    }
}

/// A chain's name, and what was found.
pub type Verdict = (String, Result<audit::Verified, audit::Broken>);

/// Every chain in the bucket, held against its hashes.
pub async fn verify(bucket: &Bucket) -> Result<Vec<Verdict>, StoreError> {
    let mut chains: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for name in names(bucket).await? {
        let chain = name.split('-').nth(1).unwrap_or_default().to_owned();
        let path = bucket.path(&format!("{FOLDER}/{name}"));
        if let Some((bytes, _)) = bucket.get_uncached(&path).await? {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            chains.entry(chain).or_default().push(text);
        }
    }
    let held = chains.into_iter().map(|(name, segments)| {
        let verdict = audit::verify(&name, segments.iter().map(String::as_str));
        (name, verdict)
    });
    Ok(held.collect())
}
