//! Reading immutable objects once: blocks in RAM, and below it on a local disk.
//!
//! Only names that the constructor's predicate calls immutable are cached; everything else
//! passes through.  A block that is missing is fetched once however many ask for it.  The
//! cache is never a reason for an error: a disk that is full, broken or read-only turns
//! its tier off with one warning, and a block that is not what was put there is fetched
//! again.  Answers from the cache carry size, ETag and time of the object, but not its
//! attributes.

mod disk;
mod disk_block;
mod flight;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as OsError, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result,
};

use crate::crypt::Keyring;
use crate::metrics::{Event, Metrics};
use disk::{DiskScope, DiskTier};
use flight::{Flights, Seat};

/// Fetched by one request at most.
const RUN_BYTES: u64 = 8 << 20;

/// Requests that one read may have under way.
const RUNS_AT_ONCE: usize = 8;

/// Objects whose size and ETag are remembered.
const MAX_OBJECTS: u64 = 100_000;

/// What a block costs beyond its bytes.
const BLOCK_OVERHEAD: usize = 128;

#[derive(Clone, Debug)]
pub struct CacheOptions {
    pub ram_bytes: u64,
    /// Folder and bound.
    pub disk: Option<(PathBuf, u64)>,
    pub block_bytes: u64,
    /// Of the database: its blocks are never taken for another's.
    pub uid: String,
    pub immutable: fn(&Path) -> bool,
    /// Seals the blocks on disk, when what lies in the bucket is sealed.
    pub(crate) sealing: Option<Keyring>,
}

#[derive(Clone, Debug)]
pub struct ReadCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn ObjectStore>,
    immutable: fn(&Path) -> bool,
    block_bytes: u64,
    /// A read larger than this passes by, or it would push everything else out.
    largest: u64,
    objects: moka::sync::Cache<Path, Arc<Object>>,
    ram: moka::sync::Cache<BlockKey, Bytes>,
    disk: Option<Arc<DiskTier>>,
    flights: Flights<BlockKey, Bytes>,
    next_object: AtomicU64,
    metrics: Metrics,
}

#[derive(Debug)]
struct Object {
    number: u64,
    location: Path,
    meta: OnceLock<ObjectMeta>,
    learning: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct BlockKey {
    object: u64,
    block: u64,
}

impl ReadCache {
    pub async fn open(inner: Arc<dyn ObjectStore>, options: CacheOptions, metrics: Metrics) -> Self {
        let disk = match options.disk {
            Some((folder, bytes)) => {
                let scope = DiskScope {
                    uid: options.uid,
                    block_bytes: options.block_bytes,
                    sealing: options.sealing,
                };
                DiskTier::open(folder, bytes, scope, &metrics).await
            }
            None => None,
        };
        let weigh = |_: &BlockKey, block: &Bytes| (block.len() + BLOCK_OVERHEAD) as u32;
        Self(Arc::new(Shared {
            inner,
            immutable: options.immutable,
            block_bytes: options.block_bytes,
            largest: options.ram_bytes / 4,
            objects: moka::sync::Cache::new(MAX_OBJECTS),
            ram: moka::sync::Cache::builder()
                .weigher(weigh)
                .max_capacity(options.ram_bytes)
                .build(),
            disk: disk.map(Arc::new),
            flights: Flights::default(),
            next_object: AtomicU64::new(0),
            metrics,
        }))
    }

    fn forget(&self, location: &Path) {
        if (self.0.immutable)(location) {
            self.0.objects.invalidate(location);
        }
    }
}

impl Shared {
    fn object(&self, location: &Path) -> Arc<Object> {
        if let Some(known) = self.objects.get(location) {
            return known;
        }
        self.objects.get_with_by_ref(location, || {
            Arc::new(Object {
                number: self.next_object.fetch_add(1, Ordering::Relaxed),
                location: location.clone(),
                meta: OnceLock::new(),
                learning: tokio::sync::Mutex::new(()),
            })
        })
    }

    /// Size and ETag: known, or on disk with a block wanted, or from the answer that brings
    /// the first of them.
    async fn learn(&self, object: &Object, wanted: Option<Range<u64>>) -> Result<ObjectMeta> {
        if let Some(meta) = object.meta.get() {
            return Ok(meta.clone());
        }
        let _one_at_a_time = object.learning.lock().await;
        if let Some(meta) = object.meta.get() {
            return Ok(meta.clone());
        }
        let Some(wanted) = wanted.filter(|range| !range.is_empty()) else {
            let found = self
                .inner
                .get_opts(&object.location, GetOptions::new().with_head(true))
                .await?;
            return Ok(object.meta.get_or_init(|| found.meta).clone());
        };
        let first = wanted.start / self.block_bytes;
        let last = ((wanted.end - 1) / self.block_bytes).min(first + self.run_blocks() - 1);
        if let Some(disk) = &self.disk {
            let found = disk.read(&object.location, (first..=last).collect()).await;
            for (block, (meta, bytes)) in found {
                self.read_disk(object, block, bytes);
                object.meta.get_or_init(|| meta);
            }
        }
        if object.meta.get().is_none() {
            self.fetch(object, first, last).await?;
        }
        object
            .meta
            .get()
            .cloned()
            .ok_or_else(|| changed(&object.location))
    }

    fn read_disk(&self, object: &Object, block: u64, bytes: Bytes) {
        self.metrics.count(Event::CacheDisk);
        self.ram.insert(
            BlockKey {
                object: object.number,
                block,
            },
            bytes,
        );
    }

    fn run_blocks(&self) -> u64 {
        (RUN_BYTES / self.block_bytes).max(1)
    }

    /// The blocks, which lie within the object, by number.
    async fn blocks(&self, object: &Object, mut wanted: Vec<u64>) -> Result<BTreeMap<u64, Bytes>> {
        let mut have = BTreeMap::new();
        while !wanted.is_empty() {
            let mut leading = Vec::new();
            let mut waiting = Vec::new();
            for block in wanted.drain(..) {
                let key = BlockKey {
                    object: object.number,
                    block,
                };
                if let Some(bytes) = self.ram.get(&key) {
                    self.metrics.count(Event::CacheRam);
                    have.insert(block, bytes);
                    continue;
                }
                match self.flights.board(key) {
                    // The one before may have landed between the look and the boarding.
                    Seat::Lead(lead) => match self.ram.get(&key) {
                        Some(bytes) => {
                            lead.land(bytes.clone());
                            have.insert(block, bytes);
                        }
                        None => leading.push((block, lead)),
                    },
                    Seat::Wait(wait) => waiting.push((block, wait)),
                }
            }
            let led = self
                .bring(object, leading.iter().map(|(block, _)| *block).collect())
                .await?;
            for (block, lead) in leading {
                match led.get(&block) {
                    Some(bytes) => lead.land(bytes.clone()),
                    None => return Err(changed(&object.location)),
                }
            }
            have.extend(led);
            for (block, wait) in waiting {
                match wait.landed().await {
                    Some(bytes) => drop(have.insert(block, bytes)),
                    // Its leader failed or went away: our turn.
                    None => wanted.push(block),
                }
            }
        }
        Ok(have)
    }

    /// From disk what is there, the rest from the store in as few requests as it takes.
    async fn bring(&self, object: &Object, wanted: Vec<u64>) -> Result<BTreeMap<u64, Bytes>> {
        let mut have = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(have);
        }
        if let Some(disk) = &self.disk {
            for (block, (_, bytes)) in disk.read(&object.location, wanted.clone()).await {
                self.read_disk(object, block, bytes.clone());
                have.insert(block, bytes);
            }
        }
        let mut missing = wanted;
        missing.retain(|block| !have.contains_key(block));
        let runs = runs(&missing, self.run_blocks());
        let fetches = runs
            .into_iter()
            .map(|(first, last)| self.fetch(object, first, last));
        let fetched: Vec<_> = stream::iter(fetches).buffered(RUNS_AT_ONCE).try_collect().await?;
        have.extend(fetched.into_iter().flatten());
        Ok(have)
    }

    /// One request for blocks `first..=last`, cut off at the end of the object.
    async fn fetch(&self, object: &Object, first: u64, last: u64) -> Result<Vec<(u64, Bytes)>> {
        let end = (last + 1) * self.block_bytes;
        let end = object.meta.get().map_or(end, |meta| meta.size.min(end));
        let range = first * self.block_bytes..end;
        let options = GetOptions::new().with_range(Some(range.clone()));
        let found = self.inner.get_opts(&object.location, options).await?;
        let meta = object.meta.get_or_init(|| found.meta.clone()).clone();
        if found.meta.size != meta.size || found.meta.e_tag != meta.e_tag {
            self.objects.invalidate(&object.location);
            return Err(changed(&object.location));
        }
        let bytes = found.bytes().await?;
        if bytes.len() as u64 != meta.size.min(range.end) - range.start {
            return Err(changed(&object.location));
        }
        let several = bytes.len() as u64 > self.block_bytes;
        let blocks: Vec<(u64, Bytes)> = (first..)
            .zip(bytes.chunks(self.block_bytes as usize))
            // Copied apart, or one block would keep the whole run in memory.
            .map(|(block, part)| {
                (
                    block,
                    if several {
                        Bytes::copy_from_slice(part)
                    } else {
                        bytes.clone()
                    },
                )
            })
            .collect();
        for (block, bytes) in &blocks {
            self.metrics.count(Event::CacheMiss);
            self.ram.insert(
                BlockKey {
                    object: object.number,
                    block: *block,
                },
                bytes.clone(),
            );
        }
        if let Some(disk) = &self.disk {
            disk.write(&meta, blocks.clone()).await;
        }
        Ok(blocks)
    }

    fn block_numbers(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.block_bytes..range.end.div_ceil(self.block_bytes)
    }

    /// The part of `block` that lies in `range`.
    fn slice(&self, block: u64, bytes: &Bytes, range: &Range<u64>) -> Bytes {
        let base = block * self.block_bytes;
        let from = range.start.saturating_sub(base) as usize;
        let to = range.end.saturating_sub(base).min(bytes.len() as u64) as usize;
        bytes.slice(from.min(to)..to)
    }

    fn join(&self, have: &BTreeMap<u64, Bytes>, range: &Range<u64>) -> Bytes {
        let mut parts = have
            .range(self.block_numbers(range))
            .map(|(block, bytes)| self.slice(*block, bytes, range));
        let first = parts.next().unwrap_or_default();
        if first.len() as u64 == range.end - range.start {
            return first;
        }
        let mut joined = BytesMut::with_capacity((range.end - range.start) as usize);
        joined.extend_from_slice(&first);
        parts.for_each(|part| joined.extend_from_slice(&part));
        joined.freeze()
    }

    /// The body of a read, run by run.
    fn body(self: Arc<Self>, object: Arc<Object>, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold((self, object, range), |(shared, object, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let numbers = shared.block_numbers(&range);
            let numbers = numbers.start..numbers.end.min(numbers.start + shared.run_blocks());
            let run = range.start..range.end.min(numbers.end * shared.block_bytes);
            let have = shared.blocks(&object, numbers.collect()).await?;
            let parts: Vec<Result<Bytes>> = have
                .iter()
                .map(|(block, bytes)| Ok(shared.slice(*block, bytes, &run)))
                .collect();
            let rest = run.end..range.end;
            Ok::<_, OsError>(Some((stream::iter(parts), (shared, object, rest))))
        })
        .try_flatten()
        .boxed()
    }
}

/// The object is not what it was, or not there as a whole: names that never change do not.
fn changed(location: &Path) -> OsError {
    OsError::Generic {
        store: "cache",
        source: format!("{location} changed while it was read").into(),
    }
}

/// Ascending numbers as runs `first..=last` of at most `most` neighbours.
fn runs(blocks: &[u64], most: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &block in blocks {
        match runs.last_mut() {
            Some((first, last)) if *last + 1 == block && block - *first < most => *last = block,
            _ => runs.push((block, block)),
        }
    }
    runs
}

fn unconditional(options: &GetOptions) -> bool {
    options.if_match.is_none()
        && options.if_none_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none()
        && options.version.is_none()
}

/// `None` for a range that does not lie in the object: the store is asked, for its error.
fn resolve(range: Option<&GetRange>, size: u64) -> Option<Range<u64>> {
    let resolved = match range {
        None => return Some(0..size),
        Some(GetRange::Bounded(bounds)) => bounds.start..bounds.end.min(size),
        Some(GetRange::Offset(start)) => *start..size,
        Some(GetRange::Suffix(length)) => size.saturating_sub(*length)..size,
    };
    (resolved.start < resolved.end).then_some(resolved)
}

impl fmt::Display for ReadCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({})", self.0.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for ReadCache {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.forget(location);
        self.0.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.forget(location);
        self.0.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let shared = &self.0;
        if !(shared.immutable)(location) || !unconditional(&options) {
            return shared.inner.get_opts(location, options).await;
        }
        let object = shared.object(location);
        let wanted = match &options.range {
            Some(GetRange::Bounded(bounds)) if !options.head => Some(bounds.clone()),
            Some(_) | None => None,
        };
        let wanted = wanted.filter(|range| range.end.saturating_sub(range.start) <= shared.largest);
        let meta = shared.learn(&object, wanted).await?;
        let Some(range) = resolve(options.range.as_ref(), meta.size) else {
            return shared.inner.get_opts(location, options).await;
        };
        if !options.head && range.end - range.start > shared.largest {
            return shared.inner.get_opts(location, options).await;
        }
        let body = if options.head {
            stream::empty().boxed()
        } else {
            shared.clone().body(object, range.clone())
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let shared = &self.0;
        let total: u64 = ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        if !(shared.immutable)(location) || total > shared.largest {
            return shared.inner.get_ranges(location, ranges).await;
        }
        let object = shared.object(location);
        let meta = shared.learn(&object, ranges.first().cloned()).await?;
        if ranges
            .iter()
            .any(|range| range.start >= range.end || range.end > meta.size)
        {
            return shared.inner.get_ranges(location, ranges).await;
        }
        let mut wanted: Vec<u64> = ranges
            .iter()
            .flat_map(|range| shared.block_numbers(range))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let have = shared.blocks(&object, wanted).await?;
        Ok(ranges.iter().map(|range| shared.join(&have, range)).collect())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let cache = self.clone();
        let forgetting = locations.inspect_ok(move |location| cache.forget(location));
        self.0.inner.delete_stream(forgetting.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.forget(to);
        self.0.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.forget(from);
        self.forget(to);
        self.0.inner.rename_opts(from, to, options).await
    }
}
