//! Checksums for the files that Lance writes, which carry none of their own: a flipped bit
//! in a page would be a wrong answer, or the end of the process in a decoder.
//!
//! Next to a table `…/table/x` the store keeps `…/sums/x.crc`: a crc32 per 16 KiB, written
//! right after the file and outside the table folder, so Lance and its tools never see it.
//! Reads fetch whole blocks and check them; a block that fails is fetched again, and after
//! `READS` failures the read fails as damaged.  A file without checksums, written by
//! somebody else or in the moment of a crash, is read as it is.

mod digest;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as OsError, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use crate::damaged::{Damaged, is_damaged};
use crate::metrics::{Event, Metrics};
use digest::{Digest, Sums};

/// Damage on the way is gone the next time; damage at rest stays.
const READS: u32 = 3;

/// Read and checked at once; larger reads go in steps of this.
const STEP: u64 = 8 << 20;

/// For the checksums of 64 GiB of files.
const RAM_BYTES: u64 = 16 << 20;

/// Checksums deleted at the same time.
const DELETES_AT_ONCE: usize = 16;

#[derive(Clone, Debug)]
pub struct SumStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn ObjectStore>,
    metrics: Metrics,
    /// `None`: the file has no checksums.
    known: moka::future::Cache<Path, Option<Arc<Sums>>>,
}

/// Where the checksums of a file are; `None` for a file that gets none.  Lance's files are
/// never written twice under one name, which is what makes two objects out of one safe.
fn sums_path(location: &Path) -> Option<Path> {
    const KINDS: [&str; 4] = ["data/", "_deletions/", "_indices/", "_versions/"];
    let (partition, file) = location.as_ref().split_once("/table/")?;
    let covered = KINDS.iter().any(|kind| file.starts_with(kind));
    covered
        .then(|| Path::parse(format!("{partition}/sums/{file}.crc")).ok())
        .flatten()
}

impl SumStore {
    pub fn new(inner: Arc<dyn ObjectStore>, metrics: Metrics) -> Self {
        let weigh =
            |_: &Path, sums: &Option<Arc<Sums>>| sums.as_ref().map_or(64, |sums| sums.weight()) as u32;
        let known = moka::future::Cache::builder()
            .weigher(weigh)
            .max_capacity(RAM_BYTES)
            .build();
        Self(Arc::new(Shared {
            inner,
            metrics,
            known,
        }))
    }
}

impl Shared {
    async fn sums(&self, location: &Path) -> Result<Option<Arc<Sums>>> {
        let Some(at) = sums_path(location) else {
            return Ok(None);
        };
        let fetched = self.known.try_get_with_by_ref(location, self.fetch(&at));
        fetched.await.map_err(|e| OsError::Generic {
            store: "sums",
            source: Box::new(e),
        })
    }

    async fn fetch(&self, at: &Path) -> Result<Option<Arc<Sums>>> {
        for _ in 0..READS {
            let bytes = match self.inner.get(at).await {
                Ok(found) => found.bytes().await?,
                Err(OsError::NotFound { .. }) => return Ok(None),
                Err(e) => return Err(e),
            };
            if let Some(sums) = Sums::decode(&bytes) {
                return Ok(Some(Arc::new(sums)));
            }
            self.metrics.count(Event::Damaged);
        }
        // Removing the object makes the file readable again, unchecked.
        Err(Damaged::at(at, "these checksums are not what was written"))
    }

    /// A read under the checksums known, and under fresh ones when those do not hold: the
    /// name may have been deleted and written anew elsewhere (a stalled committer of Lance
    /// does that to `_versions/`).
    async fn checked<T, Fut>(&self, location: &Path, read: impl Fn(Option<Arc<Sums>>) -> Fut) -> Result<T>
    where
        Fut: Future<Output = Result<T>>,
    {
        let known = self.sums(location).await?;
        match read(known.clone()).await {
            Err(error) if is_damaged(&error) => {
                self.known.invalidate(location).await;
                let fresh = self.sums(location).await?;
                if fresh == known {
                    Err(error)
                } else {
                    read(fresh).await
                }
            }
            answer => answer,
        }
    }

    async fn store(&self, location: &Path, at: &Path, sums: Sums) -> Result<()> {
        let written = self.inner.put(at, sums.encode().into()).await;
        if written.is_ok() {
            self.known.insert(location.clone(), Some(Arc::new(sums))).await;
        }
        written.map(|_| ())
    }

    /// Whole blocks, checked.
    async fn read(
        &self,
        location: &Path,
        options: &GetOptions,
        blocks: Range<u64>,
        sums: &Sums,
    ) -> Result<GetResult> {
        for _ in 0..READS {
            let options = GetOptions {
                range: Some(GetRange::Bounded(blocks.clone())),
                ..options.clone()
            };
            let found = self.inner.get_opts(location, options).await?;
            let (meta, attributes, extensions) = (
                found.meta.clone(),
                found.attributes.clone(),
                found.extensions.clone(),
            );
            let bytes = found.bytes().await?;
            if meta.size == sums.size && sums.hold(blocks.start, &bytes) {
                let payload = GetResultPayload::Stream(once(bytes));
                return Ok(GetResult {
                    payload,
                    meta,
                    range: blocks,
                    attributes,
                    extensions,
                });
            }
            self.metrics.count(Event::Damaged);
        }
        Err(damaged(location))
    }

    async fn get(
        self: &Arc<Self>,
        location: &Path,
        options: GetOptions,
        sums: Arc<Sums>,
    ) -> Result<GetResult> {
        let Some(range) = resolve(options.range.as_ref(), sums.size) else {
            return self.inner.get_opts(location, options).await;
        };
        let blocks = sums.around(&range);
        let first = blocks.start..blocks.end.min(blocks.start + STEP);
        let found = self.read(location, &options, first.clone(), &sums).await?;
        let (meta, attributes, extensions) = (
            found.meta.clone(),
            found.attributes.clone(),
            found.extensions.clone(),
        );
        let head = found.bytes().await?;
        let wanted = range.clone();
        let rest = self
            .clone()
            .rest(location.clone(), meta.e_tag.clone(), first.end..blocks.end, sums);
        let parts = stream::once(async move { Ok((first.start, head)) }).chain(rest);
        let body = parts
            .map_ok(move |(at, bytes)| within(at, &bytes, &wanted))
            .boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    /// What follows the first step of a large read: the same version of the file.
    fn rest(
        self: Arc<Self>,
        location: Path,
        etag: Option<String>,
        blocks: Range<u64>,
        sums: Arc<Sums>,
    ) -> BoxStream<'static, Result<(u64, Bytes)>> {
        let options = GetOptions {
            if_match: etag,
            ..GetOptions::new()
        };
        stream::try_unfold((self, blocks), move |(shared, blocks)| {
            let (location, options, sums) = (location.clone(), options.clone(), sums.clone());
            async move {
                if blocks.is_empty() {
                    return Ok(None);
                }
                let step = blocks.start..blocks.end.min(blocks.start + STEP);
                let bytes = shared
                    .read(&location, &options, step.clone(), &sums)
                    .await?
                    .bytes()
                    .await?;
                Ok(Some(((step.start, bytes), (shared, step.end..blocks.end))))
            }
        })
        .boxed()
    }

    async fn ranges(&self, location: &Path, ranges: &[Range<u64>], sums: &Sums) -> Result<Vec<Bytes>> {
        if ranges
            .iter()
            .any(|range| range.start >= range.end || range.end > sums.size)
        {
            return self.inner.get_ranges(location, ranges).await;
        }
        let blocks: Vec<Range<u64>> = ranges.iter().map(|range| sums.around(range)).collect();
        for _ in 0..READS {
            let read = self.inner.get_ranges(location, &blocks).await?;
            let whole = |(at, bytes): (&Range<u64>, &Bytes)| {
                bytes.len() as u64 == at.end - at.start && sums.hold(at.start, bytes)
            };
            if read.len() == blocks.len() && blocks.iter().zip(&read).all(whole) {
                let parts = blocks.iter().zip(&read).zip(ranges);
                return Ok(parts
                    .map(|((at, bytes), range)| within(at.start, bytes, range))
                    .collect());
            }
            self.metrics.count(Event::Damaged);
        }
        Err(damaged(location))
    }
}

fn damaged(location: &Path) -> OsError {
    Damaged::at(location, "it does not match its checksums")
}

fn once(bytes: Bytes) -> BoxStream<'static, Result<Bytes>> {
    stream::once(async move { Ok(bytes) }).boxed()
}

/// The part of `bytes`, which start at `at`, that lies in `range`.
fn within(at: u64, bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let from = (range.start.saturating_sub(at) as usize).min(bytes.len());
    let to = (range.end.saturating_sub(at) as usize).min(bytes.len());
    bytes.slice(from..to.max(from))
}

/// `None` for a range that does not lie in the file: the store is asked, for its error.
fn resolve(range: Option<&GetRange>, size: u64) -> Option<Range<u64>> {
    let resolved = match range {
        None => 0..size,
        Some(GetRange::Bounded(bounds)) => bounds.start..bounds.end.min(size),
        Some(GetRange::Offset(start)) => *start..size,
        Some(GetRange::Suffix(length)) => size.saturating_sub(*length)..size,
    };
    (resolved.start < resolved.end).then_some(resolved)
}

impl fmt::Display for SumStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sums({})", self.0.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for SumStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let Some(at) = sums_path(location) else {
            return self.0.inner.put_opts(location, payload, opts).await;
        };
        let mut digest = Digest::default();
        payload.iter().for_each(|piece| digest.update(piece));
        let replaces = opts.mode == PutMode::Overwrite;
        let put = self.0.inner.put_opts(location, payload, opts).await?;
        match self.0.store(location, &at, digest.finish()).await {
            Err(e) if replaces => return Err(e),
            // The file has landed, and an error would deny that.
            Err(error) => tracing::warn!(%error, %location, "written without checksums"),
            Ok(()) => {}
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.0.inner.put_multipart_opts(location, opts).await?;
        let Some(at) = sums_path(location) else {
            return Ok(inner);
        };
        let (shared, location) = (self.0.clone(), location.clone());
        Ok(Box::new(SumUpload {
            inner,
            shared,
            location,
            at,
            digest: Digest::default(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head || sums_path(location).is_none() {
            return self.0.inner.get_opts(location, options).await;
        }
        let read = |sums: Option<Arc<Sums>>| {
            let options = options.clone();
            async move {
                match sums {
                    Some(sums) => self.0.get(location, options, sums).await,
                    None => self.0.inner.get_opts(location, options).await,
                }
            }
        };
        self.0.checked(location, read).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = |sums: Option<Arc<Sums>>| async move {
            match sums {
                Some(sums) => self.0.ranges(location, ranges, &sums).await,
                None => self.0.inner.get_ranges(location, ranges).await,
            }
        };
        self.0.checked(location, read).await
    }

    /// The checksums go after the file.  What is left of them by a crash in between lies
    /// under the collection and goes with it.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let shared = self.0.clone();
        self.0
            .inner
            .delete_stream(locations)
            .map(move |deleted| {
                let shared = shared.clone();
                async move {
                    if let Ok(location) = &deleted
                        && let Some(at) = sums_path(location)
                    {
                        shared.known.invalidate(location).await;
                        if let Err(error) = shared.inner.delete(&at).await {
                            tracing::debug!(%error, %at, "checksums stay behind");
                        }
                    }
                    deleted
                }
            })
            .buffered(DELETES_AT_ONCE)
            .boxed()
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
        self.uncheck(to).await?;
        self.0.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.uncheck(to).await?;
        self.0.inner.rename_opts(from, to, options).await
    }
}

impl SumStore {
    /// Before a file comes to `location` by a way that shows us no bytes.
    async fn uncheck(&self, location: &Path) -> Result<()> {
        if let Some(at) = sums_path(location) {
            self.0.inner.delete(&at).await?;
            self.0.known.invalidate(location).await;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SumUpload {
    inner: Box<dyn MultipartUpload>,
    shared: Arc<Shared>,
    location: Path,
    at: Path,
    digest: Digest,
}

#[async_trait]
impl MultipartUpload for SumUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        data.iter().for_each(|piece| self.digest.update(piece));
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.inner.complete().await?;
        let sums = std::mem::take(&mut self.digest).finish();
        self.shared.store(&self.location, &self.at, sums).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
