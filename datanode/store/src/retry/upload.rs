//! Multipart uploads.  A part is repeated below us, at the provider, where it keeps its
//! number; the end of an upload is resolved by put-id like a conditional PUT.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::retry::{RetryContext, RetryPolicy};
use object_store::{
    GetOptions, MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::Shared;
use super::attempts::Attempts;
use crate::failure::Failure;
use crate::metrics::Event;
use crate::put_id::PutId;

pub(super) async fn start(
    shared: &Arc<Shared>,
    location: &Path,
    mut opts: PutMultipartOptions,
) -> Result<Box<dyn MultipartUpload>> {
    let id = PutId::of(&opts.attributes).unwrap_or_else(|| PutId::mint(&shared.ids));
    id.attach(&mut opts.attributes);
    let opts = opts.with_retry_policy(Arc::new(Parts(shared.clone())));
    let inner = shared
        .idempotent(0, || shared.inner.put_multipart_opts(location, opts.clone()))
        .await?;
    Ok(Box::new(Upload {
        shared: shared.clone(),
        inner,
        location: location.clone(),
        id,
    }))
}

#[derive(Debug)]
struct Parts(Arc<Shared>);

#[async_trait]
impl RetryPolicy for Parts {
    async fn retry(&self, context: RetryContext) -> bool {
        let mut attempts = Attempts::after(&self.0, context.attempt as u32, context.elapsed);
        attempts.again(Failure::Ambiguous { again: true }).await
    }
}

#[derive(Debug)]
struct Upload {
    shared: Arc<Shared>,
    inner: Box<dyn MultipartUpload>,
    location: Path,
    id: PutId,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    /// Not repeated: the provider has handed over its list of parts.  A caller that sees
    /// an error writes the object anew.
    async fn complete(&mut self) -> Result<PutResult> {
        let error = match self.inner.complete().await {
            Ok(put) => return Ok(put),
            Err(error) => error,
        };
        if Failure::of(&error) == Failure::Refused {
            return Err(error);
        }
        let head = || {
            self.shared
                .inner
                .get_opts(&self.location, GetOptions::new().with_head(true))
        };
        match self.shared.idempotent(0, head).await {
            Ok(found) if PutId::of(&found.attributes).as_ref() == Some(&self.id) => {
                self.shared.metrics.count(Event::Resolved);
                let (e_tag, version) = (found.meta.e_tag, found.meta.version);
                Ok(PutResult {
                    e_tag,
                    version,
                    extensions: Default::default(),
                })
            }
            _ if Failure::of(&error).may_have_applied() => Err(self.shared.unknown(1, error)),
            _ => Err(error),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
