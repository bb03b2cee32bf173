//! What the store is asked and how it answers, counted as the store sees it: one count per
//! request, repetitions included.  Lock-free; reading is a snapshot that others render.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::time::Instant;

use crate::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Get,
    Head,
    /// Every kind of write: PUT, a part, COPY, rename.
    Put,
    List,
    Delete,
}

impl Op {
    pub const ALL: [Self; 5] = [Self::Get, Self::Head, Self::Put, Self::List, Self::Delete];

    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// Bucket `i` counts what took less than `2^i` µs; the last one also what took longer.
pub const LATENCY_BUCKETS: usize = 28;

#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    ops: [OpCounters; Op::ALL.len()],
    events: [AtomicU64; Event::ALL.len()],
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

#[derive(Debug, Default)]
struct OpCounters {
    requests: AtomicU64,
    failures: AtomicU64,
    micros: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS],
}

/// What happens above the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Retry,
    Throttled,
    /// A write that looked lost and was found to have landed.
    Resolved,
    /// A write given up on with its outcome unknown.
    Unknown,
    CacheRam,
    CacheDisk,
    CacheMiss,
    /// A cached block that was not what was put there.
    CacheCorrupt,
    /// A read that did not match the checksums of its file.
    Damaged,
}

impl Event {
    pub const ALL: [Self; 9] = [
        Self::Retry,
        Self::Throttled,
        Self::Resolved,
        Self::Unknown,
        Self::CacheRam,
        Self::CacheDisk,
        Self::CacheMiss,
        Self::CacheCorrupt,
        Self::Damaged,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retries",
            Self::Throttled => "throttled",
            Self::Resolved => "resolved_writes",
            Self::Unknown => "unknown_writes",
            Self::CacheRam => "cache_ram_hits",
            Self::CacheDisk => "cache_disk_hits",
            Self::CacheMiss => "cache_misses",
            Self::CacheCorrupt => "cache_corrupt_blocks",
            Self::Damaged => "damaged_reads",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub ops: Vec<(&'static str, OpSnapshot)>,
    pub events: Vec<(&'static str, u64)>,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpSnapshot {
    pub requests: u64,
    pub failures: u64,
    pub total: Duration,
    pub latency: [u64; LATENCY_BUCKETS],
}

impl OpSnapshot {
    /// Upper bound of the bucket in which the quantile lies; zero without requests.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = (self.latency.iter().sum::<u64>() as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.latency.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return Duration::from_micros(1 << i);
            }
        }
        Duration::ZERO
    }
}

impl Metrics {
    pub fn snapshot(&self) -> Snapshot {
        let ops = Op::ALL.map(|op| {
            let counters = &self.0.ops[op as usize];
            let snapshot = OpSnapshot {
                requests: counters.requests.load(Relaxed),
                failures: counters.failures.load(Relaxed),
                total: Duration::from_micros(counters.micros.load(Relaxed)),
                latency: counters.latency.each_ref().map(|count| count.load(Relaxed)),
            };
            (op.name(), snapshot)
        });
        Snapshot {
            ops: ops.to_vec(),
            events: Event::ALL
                .map(|event| (event.name(), self.count_of(event)))
                .to_vec(),
            bytes_read: self.0.bytes_read.load(Relaxed),
            bytes_written: self.0.bytes_written.load(Relaxed),
        }
    }

    pub fn requests(&self, op: Op) -> u64 {
        self.0.ops[op as usize].requests.load(Relaxed)
    }

    pub fn count_of(&self, event: Event) -> u64 {
        self.0.events[event as usize].load(Relaxed)
    }

    pub(crate) fn count(&self, event: Event) {
        self.0.events[event as usize].fetch_add(1, Relaxed);
    }

    fn record(&self, op: Op, started: Instant, failed: bool) {
        let counters = &self.0.ops[op as usize];
        let micros = started.elapsed().as_micros() as u64;
        let bucket = (u64::BITS - micros.leading_zeros()).min(LATENCY_BUCKETS as u32 - 1);
        counters.requests.fetch_add(1, Relaxed);
        counters.failures.fetch_add(u64::from(failed), Relaxed);
        counters.micros.fetch_add(micros, Relaxed);
        counters.latency[bucket as usize].fetch_add(1, Relaxed);
    }

    async fn time<T>(&self, op: Op, request: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let answer = request.await;
        // "Not there" and "already there" are answers.
        self.record(
            op,
            started,
            answer.as_ref().is_err_and(|e| Failure::of(e) != Failure::Answer),
        );
        answer
    }

    fn read(&self, bytes: u64) {
        self.0.bytes_read.fetch_add(bytes, Relaxed);
    }

    fn written(&self, bytes: usize) {
        self.0.bytes_written.fetch_add(bytes as u64, Relaxed);
    }
}

#[derive(Debug)]
pub struct MetricsStore {
    inner: Arc<dyn ObjectStore>,
    metrics: Metrics,
}

impl MetricsStore {
    pub fn new(inner: Arc<dyn ObjectStore>, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    /// A LIST is one request however long; its latency is that of the first object.
    fn timed_list(
        &self,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let metrics = self.metrics.clone();
        let first = async move {
            let started = Instant::now();
            // Fused: an empty listing has ended with its first answer.
            let (first, rest) = list.fuse().into_future().await;
            metrics.record(Op::List, started, matches!(first, Some(Err(_))));
            stream::iter(first).chain(rest)
        };
        stream::once(first).flatten().boxed()
    }
}

impl fmt::Display for MetricsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for MetricsStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.metrics.written(payload.content_length());
        self.metrics
            .time(Op::Put, self.inner.put_opts(location, payload, opts))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self
            .metrics
            .time(Op::Put, self.inner.put_multipart_opts(location, opts))
            .await?;
        Ok(Box::new(MetricsUpload {
            inner: upload,
            metrics: self.metrics.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { Op::Head } else { Op::Get };
        let found = self
            .metrics
            .time(op, self.inner.get_opts(location, options))
            .await?;
        if op == Op::Head {
            return Ok(found);
        }
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let (extensions, metrics) = (found.extensions.clone(), self.metrics.clone());
        let counted = found.into_stream().inspect(move |chunk| {
            if let Ok(bytes) = chunk {
                metrics.read(bytes.len() as u64);
            }
        });
        Ok(GetResult {
            payload: GetResultPayload::Stream(counted.boxed()),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = self
            .metrics
            .time(Op::Get, self.inner.get_ranges(location, ranges))
            .await?;
        self.metrics
            .read(read.iter().map(|bytes| bytes.len() as u64).sum());
        Ok(read)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let metrics = self.metrics.clone();
        let mut last = Instant::now();
        self.inner
            .delete_stream(locations)
            .inspect(move |deleted| {
                metrics.record(Op::Delete, last, deleted.is_err());
                last = Instant::now();
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.timed_list(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.timed_list(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.metrics
            .time(Op::List, self.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.metrics
            .time(Op::Put, self.inner.copy_opts(from, to, options))
            .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.metrics
            .time(Op::Put, self.inner.rename_opts(from, to, options))
            .await
    }
}

#[derive(Debug)]
struct MetricsUpload {
    inner: Box<dyn MultipartUpload>,
    metrics: Metrics,
}

#[async_trait]
impl MultipartUpload for MetricsUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let metrics = self.metrics.clone();
        metrics.written(data.content_length());
        let part = self.inner.put_part(data);
        Box::pin(async move { metrics.time(Op::Put, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.metrics.time(Op::Put, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn requests_bytes_and_failures_are_counted_by_kind() {
        let metrics = Metrics::default();
        let store = MetricsStore::new(Arc::new(InMemory::new()), metrics.clone());
        let path = Path::from("a/b");
        store.put(&path, vec![7; 100].into()).await.unwrap();
        store.get(&path).await.unwrap().bytes().await.unwrap();
        store.get_range(&path, 0..10).await.unwrap();
        store.head(&path).await.unwrap();
        store.head(&Path::from("none")).await.unwrap_err();
        store.list(None).for_each(|_| async {}).await;
        store.delete(&path).await.unwrap();
        let snapshot = metrics.snapshot();
        let requests: Vec<_> = snapshot
            .ops
            .iter()
            .map(|(name, op)| (*name, op.requests, op.failures))
            .collect();
        assert_eq!(
            requests,
            [
                ("get", 2, 0),
                ("head", 2, 0),
                ("put", 1, 0),
                ("list", 1, 0),
                ("delete", 1, 0)
            ],
            "a missing object is an answer, not a failure"
        );
        assert_eq!((snapshot.bytes_written, snapshot.bytes_read), (100, 110));
    }

    #[tokio::test(start_paused = true)]
    async fn the_quantile_is_the_bound_of_its_bucket() {
        let metrics = Metrics::default();
        for millis in [1, 1, 1, 100] {
            metrics
                .time(Op::Put, async {
                    tokio::time::advance(Duration::from_millis(millis)).await;
                    Ok(())
                })
                .await
                .unwrap();
        }
        let put = metrics.snapshot().ops[Op::Put as usize].1.clone();
        assert_eq!(put.quantile(0.5), Duration::from_micros(1 << 10));
        assert_eq!(put.quantile(1.0), Duration::from_micros(1 << 17));
        assert_eq!(OpSnapshot::default().quantile(0.99), Duration::ZERO);
    }
}
