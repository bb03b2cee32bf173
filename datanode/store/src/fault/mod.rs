//! A store that misbehaves on demand, the way real ones do: it fails before or after doing
//! what was asked, holds a write back and applies it late, doubles it, throttles, cuts
//! bodies, flips bits, lists what was there a while ago, goes away.
//!
//! It lies directly on the backend, under Lance as under our own objects.  Which request
//! is hit is decided by rules and by `Rand` alone, so a seeded run repeats.  A late write
//! is applied by the requests that come after it: nothing runs in the background.

mod rules;
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
    CopyOptions, Error as OsError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};

use crate::metrics::Op;
use crate::s3::HttpStatus;
use rules::Verdict;
pub use rules::{Fault, Faults, Rule, RuleProblem};

#[derive(Clone, Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
}

#[derive(Debug, thiserror::Error)]
#[error("injected fault: {0}")]
struct Injected(&'static str);

fn injected(what: &'static str) -> OsError {
    OsError::Generic {
        store: "fault",
        source: Box::new(Injected(what)),
    }
}

impl FaultStore {
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// What shall happen to a request.  Ends it at once when it is not to reach the store.
    async fn meet(&self, op: Op, path: &Path) -> Result<Option<Fault>> {
        for held in self.faults.due() {
            // Its answer went to nobody; a condition that no longer holds makes it void.
            let _ = self
                .inner
                .put_opts(&held.location, held.payload, held.options)
                .await;
        }
        let Verdict { delay, fault } = self.faults.judge(op, path.as_ref());
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        match fault {
            Some(Fault::FailBefore) => Err(injected("failed before it was applied")),
            Some(Fault::Outage) => Err(injected("the store is away")),
            Some(Fault::Throttle) => Err(HttpStatus::slow_down().into()),
            Some(Fault::Panic) => panic!("injected: a mistake below {path}"),
            other => Ok(other),
        }
    }

    async fn write<T>(&self, path: &Path, request: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.meet(Op::Put, path).await?;
        let answer = request.await;
        if fault == Some(Fault::LoseAnswer) {
            Err(injected("the answer was lost"))
        } else {
            answer
        }
    }

    async fn listing(
        &self,
        prefix: Option<&Path>,
        after: Option<Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let at = prefix.cloned().unwrap_or_default();
        let fault = match self.meet(Op::List, &at).await {
            Ok(fault) => fault,
            Err(e) => return stream::once(async { Err(e) }).boxed(),
        };
        let listing = match &after {
            Some(after) => self.inner.list_with_offset(prefix, after),
            None => self.inner.list(prefix),
        };
        match fault {
            Some(Fault::LoseAnswer) => stream::once(async { Err(injected("the answer was lost")) }).boxed(),
            Some(Fault::Truncate) => {
                let broken = stream::once(async { Err(injected("the listing broke off")) });
                listing.take(1).chain(broken).boxed()
            }
            Some(Fault::StaleList) => match self.faults.earlier_listing(&at) {
                Some(earlier) => {
                    let behind = earlier
                        .into_iter()
                        .filter(move |m| after.as_ref().is_none_or(|a| m.location > *a));
                    stream::iter(behind.map(Ok)).boxed()
                }
                None => listing,
            },
            _ => self.remembered(at, after.is_none(), listing),
        }
    }

    /// Keeps a copy of a whole listing, for `StaleList` to serve later.
    fn remembered(
        &self,
        prefix: Path,
        whole: bool,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        if !whole || !self.faults.wants_listings() {
            return listing;
        }
        let faults = self.faults.clone();
        stream::once(async move {
            let all: Vec<ObjectMeta> = listing.try_collect().await?;
            faults.remember_listing(prefix, all.clone());
            Ok::<_, OsError>(stream::iter(all).map(Ok))
        })
        .try_flatten()
        .boxed()
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = self.meet(Op::Put, location).await?;
        match fault {
            Some(Fault::Hold { requests }) => {
                self.faults.hold(requests, location, payload, opts);
                return Err(injected("held back"));
            }
            Some(Fault::Duplicate { requests }) => {
                self.faults
                    .hold(requests, location, payload.clone(), opts.clone());
            }
            _ => {}
        }
        let answer = self.inner.put_opts(location, payload, opts).await;
        if fault == Some(Fault::LoseAnswer) {
            Err(injected("the answer was lost"))
        } else {
            answer
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self
            .write(location, self.inner.put_multipart_opts(location, opts))
            .await?;
        Ok(Box::new(FaultUpload {
            inner,
            store: self.clone(),
            location: location.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let fault = self.meet(if head { Op::Head } else { Op::Get }, location).await?;
        let found = self.inner.get_opts(location, options).await?;
        if fault == Some(Fault::LoseAnswer) {
            return Err(injected("the answer was lost"));
        }
        if head || !matches!(fault, Some(Fault::Truncate | Fault::FlipBit)) {
            return Ok(found);
        }
        let (meta, range) = (found.meta.clone(), found.range.clone());
        let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
        let spoiled = self.faults.spoil(fault, found.bytes().await?);
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(spoiled) }).boxed());
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes,
            extensions,
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.meet(Op::Get, location).await?;
        let mut read = self.inner.get_ranges(location, ranges).await?;
        if fault == Some(Fault::LoseAnswer) {
            return Err(injected("the answer was lost"));
        }
        if let Some(last) = read.pop() {
            read.push(self.faults.spoil(fault, last));
        }
        Ok(read)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let fault = store.meet(Op::Delete, &location).await?;
                    let one = stream::once(async move { Ok(location) }).boxed();
                    let mut answers = store.inner.delete_stream(one);
                    let answer = answers.next().await.unwrap_or_else(|| Err(injected("no answer")));
                    if fault == Some(Fault::LoseAnswer) {
                        Err(injected("the answer was lost"))
                    } else {
                        answer
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        stream::once(async move { store.listing(prefix.as_ref(), None).await })
            .flatten()
            .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix, offset) = (self.clone(), prefix.cloned(), offset.clone());
        stream::once(async move { store.listing(prefix.as_ref(), Some(offset)).await })
            .flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.meet(Op::List, prefix.unwrap_or(&Path::default())).await?;
        let answer = self.inner.list_with_delimiter(prefix).await;
        if fault == Some(Fault::LoseAnswer) {
            Err(injected("the answer was lost"))
        } else {
            answer
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.write(to, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.write(to, self.inner.rename_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultStore,
    location: Path,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, location, part) = (
            self.store.clone(),
            self.location.clone(),
            self.inner.put_part(data),
        );
        Box::pin(async move { store.write(&location, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.write(&self.location, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
