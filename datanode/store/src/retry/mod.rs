//! Repeating requests until they are answered, without ever mistaking the echo of an own
//! write for somebody else's.
//!
//! Every conditional PUT carries a put-id.  When the store says "already there" or
//! "changed", the object is asked whose it is: ours means an earlier attempt landed (its
//! answer was lost) or the network doubled the request.  When the budget is spent after an
//! attempt that may have been applied, the error says so (`is_ambiguous`); any other error
//! means that nothing was written.
//!
//! Reads are checked against the length the store declared; a body that breaks or ends
//! early is read again from where it ended.

mod attempts;
mod body;
#[cfg(test)]
mod tests;
mod upload;
mod write;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error as OsError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result,
};
use rhumb_seams::{Ids, Rand};

pub use crate::failure::is_ambiguous;
use crate::failure::{Ambiguous, Failure};
use crate::metrics::{Event, Metrics};
use attempts::Attempts;

/// How long and how often.  The defaults suit a store across a network.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub attempts: u32,
    /// No attempt starts later than this after the first.
    pub budget: Duration,
    /// For a request without much of a body; one with gets more, by `SLOWEST`.
    pub attempt_timeout: Duration,
    pub first_wait: Duration,
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 12,
            budget: Duration::from_secs(20),
            attempt_timeout: Duration::from_secs(10),
            first_wait: Duration::from_millis(20),
            longest_wait: Duration::from_secs(2),
        }
    }
}

/// Bytes per second below which a transfer counts as stuck.
const SLOWEST: u64 = 1 << 20;

/// Paths deleted by one call: what S3 takes.
const DELETE_STEP: usize = 1_000;

#[derive(Clone, Debug)]
pub struct RetryStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    metrics: Metrics,
    rand: Rand,
    ids: Ids,
}

impl RetryStore {
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        policy: RetryPolicy,
        metrics: Metrics,
        rand: Rand,
        ids: Ids,
    ) -> Self {
        Self(Arc::new(Shared {
            inner,
            policy,
            metrics,
            rand,
            ids,
        }))
    }
}

impl Shared {
    /// One attempt, bounded in time.  Giving up on it cancels nothing at the store: a
    /// write given up on may land later.
    async fn timed<T>(&self, bytes: u64, request: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.policy.attempt_timeout + Duration::from_secs(bytes / SLOWEST);
        tokio::time::timeout(limit, request)
            .await
            .unwrap_or_else(|_| Err(TimedOut(limit).into()))
    }

    /// Repeats what may be done twice.
    async fn idempotent<T, Fut>(&self, bytes: u64, request: impl Fn() -> Fut) -> Result<T>
    where
        Fut: Future<Output = Result<T>>,
    {
        let mut attempts = Attempts::new(self);
        loop {
            let error = match self.timed(bytes, request()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let failure = Failure::of(&error);
            if failure == Failure::Answer || !attempts.again(failure).await {
                return Err(error);
            }
        }
    }

    /// Repeats only what certainly had no effect.
    async fn at_most_once<T, Fut>(&self, request: impl Fn() -> Fut) -> Result<T>
    where
        Fut: Future<Output = Result<T>>,
    {
        let mut attempts = Attempts::new(self);
        loop {
            let error = match request().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let failure = Failure::of(&error);
            if failure.may_have_applied() {
                return Err(self.unknown(attempts.made(), error));
            }
            if failure == Failure::Answer || !attempts.again(failure).await {
                return Err(error);
            }
        }
    }

    fn unknown(&self, attempts: u32, last: OsError) -> OsError {
        self.metrics.count(Event::Unknown);
        Ambiguous { attempts, last }.into()
    }

    /// Deletes the batch; results in its order.
    async fn delete(&self, batch: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let mut attempts = Attempts::new(self);
        let mut results = batch;
        // Positions of what is still to be deleted.
        let mut left: Vec<usize> = (0..results.len()).filter(|i| results[*i].is_ok()).collect();
        let mut worst = Vec::new();
        loop {
            let paths: Vec<Path> = left
                .iter()
                .filter_map(|i| results[*i].as_ref().ok().cloned())
                .collect();
            let asked = stream::iter(paths.into_iter().map(Ok)).boxed();
            let deleting = self.inner.delete_stream(asked).collect::<Vec<_>>();
            let answers = self
                .timed(0, async { Ok(deleting.await) })
                .await
                .unwrap_or_else(|e| vec![Err(e)]);
            // A store may answer a whole batch with one error.
            let one_for_all = answers.len() != left.len();
            let mut failed = Vec::new();
            worst.clear();
            for (n, position) in left.iter().enumerate() {
                match answers.get(n) {
                    Some(Ok(_) | Err(OsError::NotFound { .. })) if !one_for_all => {}
                    _ => failed.push(*position),
                }
            }
            worst.extend(answers.into_iter().filter_map(Result::err));
            left = failed;
            let failure = worst
                .first()
                .map_or(Failure::Ambiguous { again: true }, Failure::of);
            if left.is_empty() || !attempts.again(failure).await {
                break;
            }
        }
        for position in left {
            results[position] = Err(worst.pop().unwrap_or_else(|| TimedOut(self.policy.budget).into()));
        }
        results
    }
}

impl fmt::Display for RetryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retry({})", self.0.inner)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct TimedOut(Duration);

impl From<TimedOut> for OsError {
    fn from(source: TimedOut) -> Self {
        Self::Generic {
            store: "retry",
            source: Box::new(source),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the body ended {missing} bytes early")]
struct EndedEarly {
    missing: u64,
}

impl From<EndedEarly> for OsError {
    fn from(source: EndedEarly) -> Self {
        Self::Generic {
            store: "retry",
            source: Box::new(source),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for RetryStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if opts.mode != PutMode::Overwrite {
            return self.0.put_conditional(location, payload, opts).await;
        }
        let bytes = payload.content_length() as u64;
        self.0
            .idempotent(bytes, || {
                self.0.inner.put_opts(location, payload.clone(), opts.clone())
            })
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        upload::start(&self.0, location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        body::get(&self.0, location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let wanted = ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        let request = || async {
            let read = self.0.inner.get_ranges(location, ranges).await?;
            let got: u64 = read.iter().map(|bytes| bytes.len() as u64).sum();
            if got == wanted {
                return Ok(read);
            }
            // Short: either the store broke off, or the caller asked beyond the end.
            let size = self.0.inner.head(location).await?.size;
            if ranges.iter().any(|r| r.end > size) {
                Ok(read)
            } else {
                Err(EndedEarly {
                    missing: wanted - got,
                }
                .into())
            }
        };
        self.0.idempotent(wanted, request).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let shared = self.0.clone();
        locations
            .ready_chunks(DELETE_STEP)
            .then(move |batch| {
                let shared = shared.clone();
                async move { shared.delete(batch).await }
            })
            .flat_map(stream::iter)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        list_from(self.0.clone(), prefix.cloned(), None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        list_from(self.0.clone(), prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0
            .idempotent(0, || self.0.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if options.mode == CopyMode::Create {
            return self
                .0
                .at_most_once(|| self.0.inner.copy_opts(from, to, options.clone()))
                .await;
        }
        // No time limit by attempt: a copy takes as long as the object is large.
        let mut attempts = Attempts::new(&self.0);
        loop {
            match self.0.inner.copy_opts(from, to, options.clone()).await {
                Ok(()) => return Ok(()),
                Err(e) if Failure::of(&e) == Failure::Answer || !attempts.again(Failure::of(&e)).await => {
                    return Err(e);
                }
                Err(_) => {}
            }
        }
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0
            .at_most_once(|| self.0.inner.rename_opts(from, to, options.clone()))
            .await
    }
}

/// A listing that goes on behind the last object seen when it breaks.  All our stores list
/// in order of path; S3 Express, which does not, fails certification.
fn list_from(
    shared: Arc<Shared>,
    prefix: Option<Path>,
    after: Option<Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let open = None::<BoxStream<'static, Result<ObjectMeta>>>;
    stream::try_unfold(
        (shared, prefix, after, open),
        |(shared, prefix, mut after, mut open)| async move {
            let mut attempts = Attempts::new(&shared);
            loop {
                let listing = open.get_or_insert_with(|| match &after {
                    Some(after) => shared.inner.list_with_offset(prefix.as_ref(), after),
                    None => shared.inner.list(prefix.as_ref()),
                });
                match shared.timed(0, listing.try_next()).await {
                    Ok(None) => return Ok(None),
                    Ok(Some(meta)) => {
                        after = Some(meta.location.clone());
                        return Ok(Some((meta, (shared, prefix, after, open))));
                    }
                    Err(e) if attempts.again(Failure::of(&e)).await => open = None,
                    Err(e) => return Err(e),
                }
            }
        },
    )
    .boxed()
}
