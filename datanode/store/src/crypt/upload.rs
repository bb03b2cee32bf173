//! Multipart uploads.  Parts are cut anew along whole chunks; as a part never shrinks below
//! the chunks it held, the least size that S3 asks of one is kept.  The rest and the footer
//! are one part more, sent when the upload ends.

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::format::Sealer;

#[derive(Debug)]
pub(super) struct SealedUpload {
    inner: Box<dyn MultipartUpload>,
    /// Gone once the last part was made.
    sealer: Option<Sealer>,
}

impl SealedUpload {
    pub(super) fn new(inner: Box<dyn MultipartUpload>, sealer: Sealer) -> Self {
        Self {
            inner,
            sealer: Some(sealer),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the upload was ended before")]
struct Ended;

impl From<Ended> for object_store::Error {
    fn from(source: Ended) -> Self {
        Self::Generic {
            store: super::LAYER,
            source: Box::new(source),
        }
    }
}

#[async_trait]
impl MultipartUpload for SealedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some(sealer) = &mut self.sealer else {
            return futures::future::ready(Err(Ended.into())).boxed();
        };
        sealer.reserve(data.content_length() as u64);
        data.iter().for_each(|piece| sealer.update(piece));
        let sealed = sealer.take();
        if sealed.is_empty() {
            return futures::future::ready(Ok(())).boxed();
        }
        self.inner.put_part(sealed.into())
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let sealer = self.sealer.take().ok_or(Ended)?;
        self.inner.put_part(sealer.finish().into()).await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
