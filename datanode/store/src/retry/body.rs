//! Reading whole what the store declared.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Error as OsError, GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, Result,
};

use super::attempts::Attempts;
use super::{EndedEarly, Shared};
use crate::failure::Failure;

/// Bodies up to this size are read before the caller sees the answer, so that a broken one
/// is fetched anew as a whole, also when the object has been replaced meanwhile.
const READ_AHEAD: u64 = 1 << 20;

pub(super) async fn get(shared: &Arc<Shared>, location: &Path, options: GetOptions) -> Result<GetResult> {
    if options.head {
        return shared
            .idempotent(0, || shared.inner.get_opts(location, options.clone()))
            .await;
    }
    let request = || async {
        let found = shared.inner.get_opts(location, options.clone()).await?;
        let length = found.range.end - found.range.start;
        if length > READ_AHEAD {
            return Ok(found);
        }
        let (mut answer, body) = split(found);
        let whole = collect(body, length).await?;
        answer.payload = GetResultPayload::Stream(stream::once(async move { Ok(whole) }).boxed());
        Ok(answer)
    };
    let found = shared.idempotent(READ_AHEAD, request).await?;
    if found.range.end - found.range.start <= READ_AHEAD {
        return Ok(found);
    }
    let (mut answer, body) = split(found);
    let rest = Rest {
        shared: shared.clone(),
        location: location.clone(),
        etag: answer.meta.e_tag.clone(),
        options,
        range: answer.range.clone(),
        open: Some(body),
    };
    answer.payload = GetResultPayload::Stream(rest.into_stream());
    Ok(answer)
}

/// The answer without its body, and the body.
fn split(found: GetResult) -> (GetResult, BoxStream<'static, Result<Bytes>>) {
    let answer = GetResult {
        payload: GetResultPayload::Stream(stream::empty().boxed()),
        meta: found.meta.clone(),
        range: found.range.clone(),
        attributes: found.attributes.clone(),
        extensions: found.extensions.clone(),
    };
    (answer, found.into_stream())
}

async fn collect(body: BoxStream<'static, Result<Bytes>>, length: u64) -> Result<Bytes> {
    let chunks: Vec<Bytes> = body.try_collect().await?;
    let got: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    if got != length {
        return Err(EndedEarly {
            missing: length.saturating_sub(got),
        }
        .into());
    }
    Ok(match <[Bytes; 1]>::try_from(chunks) {
        Ok([whole]) => whole,
        Err(chunks) => chunks.concat().into(),
    })
}

/// What is left of a large body.
struct Rest {
    shared: Arc<Shared>,
    location: Path,
    etag: Option<String>,
    options: GetOptions,
    range: Range<u64>,
    open: Option<BoxStream<'static, Result<Bytes>>>,
}

impl Rest {
    fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut rest| async move {
            if rest.range.is_empty() {
                return Ok(None);
            }
            let chunk = rest.next_chunk().await?;
            Ok::<_, OsError>(Some((chunk, rest)))
        })
        .boxed()
    }

    async fn next_chunk(&mut self) -> Result<Bytes> {
        let shared = self.shared.clone();
        let mut attempts = Attempts::new(&shared);
        loop {
            let error = match self.step().await {
                Ok(chunk) => return Ok(chunk),
                Err(error) => error,
            };
            self.open = None;
            let failure = Failure::of(&error);
            if failure == Failure::Answer || !attempts.again(failure).await {
                return Err(error);
            }
        }
    }

    async fn step(&mut self) -> Result<Bytes> {
        if self.open.is_none() {
            let body = self.shared.timed(0, self.reopened()).await?;
            self.open = Some(body);
        }
        let missing = self.range.end - self.range.start;
        let next = self.open.as_mut().map(TryStreamExt::try_next);
        let chunk = match next {
            Some(next) => self.shared.timed(0, next).await?,
            None => None,
        };
        let chunk = chunk.ok_or(EndedEarly { missing })?;
        if chunk.len() as u64 > missing {
            return Err(EndedEarly { missing: 0 }.into());
        }
        self.range.start += chunk.len() as u64;
        Ok(chunk)
    }

    /// The same version or none: a body must not be sewn together from two.
    fn reopened(&self) -> impl Future<Output = Result<BoxStream<'static, Result<Bytes>>>> + use<> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.range.clone())),
            if_match: self.etag.clone(),
            ..self.options.clone()
        };
        let (shared, location) = (self.shared.clone(), self.location.clone());
        async move { Ok(shared.inner.get_opts(&location, options).await?.into_stream()) }
    }
}
