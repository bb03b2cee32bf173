//! How many times a cold query has to wait for the store.
//!
//! Requests are held back until none has come for a while, and then let go together: what
//! was asked at once is one wave, and what waited for an answer is in a later one.  So the
//! waves are the round trips that depend on each other, however slow this machine is.

mod fixture;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fixture::{Store, doc, field, name, schema};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;
use rhumb_core::query::{Consistency, Leg, Query, VectorLeg};
use rhumb_core::write::Write;
use rhumb_core::{DocId, Vector};
use rhumb_engine::Collection;
use rhumb_seams::Rand;
use tokio::time::Instant;

/// Longer than what a query computes between requests that it makes together.
const QUIET: Duration = Duration::from_millis(150);
const DIM: usize = 96;
const ROWS: u64 = 6_000;

#[derive(Clone, Debug, Default)]
struct Waves(Arc<Mutex<Sea>>);

#[derive(Debug, Default)]
struct Sea {
    held: bool,
    /// The wave that is gathering, and when its last request came.
    gathering: Option<(u64, Instant)>,
    waves: u64,
    log: Vec<String>,
}

impl Waves {
    fn hold(&self) {
        *self.0.lock() = Sea {
            held: true,
            ..Sea::default()
        };
    }

    /// Waves since `hold`, and what was asked in them.
    fn count(&self) -> (u64, Vec<String>) {
        let sea = self.0.lock();
        (sea.waves, sea.log.clone())
    }

    async fn pass(&self, what: &str, path: &str) {
        let mine = {
            let mut sea = self.0.lock();
            if !sea.held {
                return;
            }
            let wave = match sea.gathering {
                Some((wave, _)) => wave,
                None => {
                    sea.waves += 1;
                    sea.waves
                }
            };
            sea.gathering = Some((wave, Instant::now()));
            sea.log.push(format!("{wave}: {what} {path}"));
            wave
        };
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut sea = self.0.lock();
            match sea.gathering {
                Some((wave, last)) if wave == mine && last.elapsed() < QUIET => {}
                Some((wave, _)) if wave == mine => {
                    sea.gathering = None;
                    return;
                }
                _ => return,
            }
        }
    }
}

#[derive(Debug)]
struct Held {
    inner: Arc<dyn ObjectStore>,
    waves: Waves,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Held {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.waves.pass("GET", location.as_ref()).await;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.waves.pass("GET ranges", location.as_ref()).await;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, waves, prefix) = (self.inner.clone(), self.waves.clone(), prefix.cloned());
        futures::stream::once(async move {
            waves
                .pass("LIST", prefix.as_ref().map_or("", |prefix| prefix.as_ref()))
                .await;
            inner.list(prefix.as_ref())
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.waves.pass("LIST", "").await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

fn vector(rand: &Rand) -> Vec<f32> {
    (0..DIM).map(|_| rand.unit() as f32 - 0.5).collect()
}

async fn fill(collection: &Collection, rand: &Rand) {
    for first in (0..ROWS).step_by(1_000) {
        let rows = first..(first + 1_000).min(ROWS);
        let write = Write {
            upsert: rows
                .map(|n| {
                    (
                        DocId::from(format!("doc-{n}").as_str()),
                        doc(n as i64, "n", &vector(rand)),
                    )
                })
                .collect(),
            ..Write::default()
        };
        collection.write(write).await.expect("written");
    }
    collection.optimize().await.expect("optimized");
}

/// Of a partition that was opened, one more question than it can answer from what opening read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_query_waits_for_the_store_three_times_at_most() {
    let waves = Waves::default();
    let mut store = Store::memory();
    store.objects = Arc::new(Held {
        inner: store.objects.clone(),
        waves: waves.clone(),
    });
    let rand = Rand::from_seed(5);
    let first = store.open("writer").await;
    first
        .create_collection(&name(), schema(DIM as u32), 1, None)
        .await
        .expect("created");
    fill(&first.collection(&name()).await.expect("there"), &rand).await;
    first.close().await;

    let second = store.open("reader").await;
    let collection = second.collection(&name()).await.expect("there");
    let stats = collection.stats().await.expect("opens the partition");
    assert_eq!((stats.rows, stats.unindexed_rows), (ROWS, 0));
    waves.hold();
    let reading = collection
        .read(Consistency::Strong, &[])
        .await
        .expect("a reading");
    let query = Query {
        legs: vec![Leg::Vector(VectorLeg {
            field: field("embedding"),
            value: Vector::F32(vector(&rand).into()),
        })],
        ..Query::default()
    };
    let (hits, _) = reading.query(&query, None).await.expect("hits");
    let (waves, log) = waves.count();
    assert_eq!(hits.into_flat().len(), query.k);
    assert!(waves <= 3, "{waves} round trips: {log:#?}");
    assert!(waves > 0, "nothing was cold");
}
