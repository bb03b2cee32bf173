//! A folder as an object store in which an acknowledged write survives a power cut.
//!
//! Every PUT is: write a file under `.tmp`, sync it, move it to its name in one step, sync
//! the folder it lies in.  So an object is whole or absent, `PutMode::Create` has exactly
//! one winner (the kernel's `RENAME_NOREPLACE`), and an answer means durable.
//! `PutMode::Update` compares the ETag under a lock in this process: a folder has exactly
//! one server, which holds `.lock` (`lock.rs`).
//!
//! When a folder fails to sync, nobody can say what of it is on the disk, and asking again
//! may get a false yes.  The store then refuses every further write until a restart has
//! read back what is really there; reads go on.

mod folder;
mod list;
mod lock;
mod problem;
mod put_ids;
mod temp;
#[cfg(test)]
mod tests;
mod tree;
mod upload;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    RenameTargetMode, Result,
};
use rhumb_seams::Clock;

use crate::blocking;
use folder::{Body, Folder, Target};
use list::Walk;
pub(crate) use problem::FileProblem;

/// Objects up to this size are read in the same hop that opens them; larger ones stream
/// in steps of this size.
const READ_STEP: u64 = 4 << 20;

/// Listing goes on in steps of this many objects, each one hop.
const LIST_STEP: usize = 1_000;

#[derive(Clone, Debug)]
pub struct FileStore {
    folder: Arc<Folder>,
}

impl FileStore {
    /// Creates the folder if need be, takes its lock and clears what a crash left in `.tmp`.
    pub async fn open(folder: PathBuf, clock: &Clock) -> crate::Result<Self> {
        let now_ms = clock.unix_ms();
        // The lock error is ours, not object_store's: it travels as the value.
        let opened = blocking::run(move || Ok(Folder::open(&folder, now_ms))).await?;
        Ok(Self {
            folder: Arc::new(opened?),
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = self.folder.clone();
        blocking::run(move || work(&folder)).await
    }
}

impl fmt::Display for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileStore({})", self.folder.path().display())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FileStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let target = Target::new(location)?;
        let put_id = put_ids::only_put_id(&opts.attributes, !opts.tags.encoded().is_empty())?;
        let put = self
            .run(move |folder| folder.put(&target, &payload, &opts.mode, put_id))
            .await;
        if self.folder.temps.is_short() {
            // Not the folder: its lock must go with its last user.
            let temps = Arc::downgrade(&self.folder.temps);
            blocking::start(move || temps.upgrade().iter().for_each(|temps| temps.refill()));
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = Target::new(location)?;
        let put_id = put_ids::only_put_id(&opts.attributes, !opts.tags.encoded().is_empty())?;
        let temp = self.run(|folder| folder.temp_file()).await?;
        Ok(Box::new(upload::FileUpload::new(
            self.folder.clone(),
            temp,
            target,
            put_id,
        )))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let target = Target::new(location)?;
        let found = self
            .run(move |folder| folder.get(&target, &options, READ_STEP))
            .await?;
        let payload = match found.body {
            Body::Whole(bytes) => stream::once(async move { Ok(bytes) }).boxed(),
            Body::Open(file) => read_steps(Arc::new(file), found.range.clone()),
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta: found.meta,
            range: found.range,
            attributes: found.attributes,
            extensions: Default::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let target = Target::new(location)?;
        let ranges = ranges.to_vec();
        self.run(move |folder| folder.get_ranges(&target, &ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        // What is ready is deleted together: one folder sync for all of it.
        locations
            .ready_chunks(LIST_STEP)
            .then(move |batch| {
                let store = store.clone();
                async move {
                    match store.run(move |folder| Ok(folder.delete(batch))).await {
                        Ok(deleted) => deleted,
                        Err(e) => vec![Err(e)],
                    }
                }
            })
            .flat_map(stream::iter)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        walk(Walk::new(self.folder.clone(), prefix, None))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        walk(Walk::new(self.folder.clone(), prefix, Some(offset)))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        self.run(move |folder| list::one_level(folder, &prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (from, to) = (Target::new(from)?, Target::new(to)?);
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.run(move |folder| folder.copy(&from, &to, &mode)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let (from, to) = (Target::new(from)?, Target::new(to)?);
        let keep_existing = options.target_mode == RenameTargetMode::Create;
        self.run(move |folder| folder.rename(&from, &to, keep_existing))
            .await
    }
}

/// The file stays whole while we read: objects are replaced by name, never written in
/// place, and an open file outlives its name.
fn read_steps(file: Arc<std::fs::File>, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold((file, range), |(file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let step = range.start..range.end.min(range.start + READ_STEP);
        let rest = step.end..range.end;
        let handle = file.clone();
        let bytes = blocking::run(move || Ok(folder::read_exact(&handle, step)?)).await?;
        Ok(Some((bytes, (file, rest))))
    })
    .boxed()
}

fn walk(walk: Result<Walk>) -> BoxStream<'static, Result<ObjectMeta>> {
    let walk = match walk {
        Ok(walk) => walk,
        Err(e) => return stream::once(async move { Err(e) }).boxed(),
    };
    stream::try_unfold(walk, |mut walk| async move {
        let (step, walk) = blocking::run(move || {
            let step = walk.next_step(LIST_STEP)?;
            Ok((step, walk))
        })
        .await?;
        Ok::<_, object_store::Error>((!step.is_empty()).then(|| (stream::iter(step).map(Ok), walk)))
    })
    .try_flatten()
    .boxed()
}
