//! A multipart upload into one temp file: parts are written where they belong, in any
//! order, and `complete` is the same durable publication as a plain PUT.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{MultipartUpload, PutMode, PutPayload, PutResult, Result, UploadPart};

use super::folder::{Folder, Target};
use super::problem::{FileProblem, io_problem};
use super::temp::TempFile;
use crate::blocking;
use crate::put_id::PutId;

#[derive(Debug)]
pub(super) struct FileUpload {
    folder: Arc<Folder>,
    /// `None` once completed or aborted.  Dropping it removes the file.
    temp: Option<Arc<TempFile>>,
    target: Target,
    put_id: Option<PutId>,
    next_offset: u64,
    written: Arc<AtomicU64>,
}

impl FileUpload {
    pub(super) fn new(folder: Arc<Folder>, temp: TempFile, target: Target, put_id: Option<PutId>) -> Self {
        let temp = Some(Arc::new(temp));
        Self {
            folder,
            temp,
            target,
            put_id,
            next_offset: 0,
            written: Arc::default(),
        }
    }
}

#[async_trait]
impl MultipartUpload for FileUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut offset = self.next_offset;
        self.next_offset += data.content_length() as u64;
        let Some(temp) = self.temp.clone() else {
            return async { Err(FileProblem::PartMissing.into()) }.boxed();
        };
        let written = self.written.clone();
        blocking::run(move || {
            for chunk in &data {
                temp.file
                    .write_all_at(chunk, offset)
                    .map_err(|source| io_problem("write part", source))?;
                offset += chunk.len() as u64;
            }
            written.fetch_add(data.content_length() as u64, Ordering::Release);
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        // A part still being written holds the file, a failed one never counted itself.
        let whole = self.written.load(Ordering::Acquire) == self.next_offset;
        let temp = self.temp.take().filter(|_| whole).and_then(Arc::into_inner);
        let Some(temp) = temp else {
            return Err(FileProblem::PartMissing.into());
        };
        let (folder, target, put_id) = (self.folder.clone(), self.target.clone(), self.put_id.take());
        blocking::run(move || folder.publish(temp, &target, &PutMode::Overwrite, put_id)).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.temp = None;
        Ok(())
    }
}
