//! The one path to the bucket: a certified store, the identity of the database in it, and
//! the few calls the protocol is written with.
//!
//! What is stacked, from the caller down: `cache → sums → retry → metrics → faults →
//! backend`.  The cache is on top so that a hit costs nothing and a block enters it only
//! whole and checked.  Metrics lie below the retries so that they
//! count requests as the store sees (and bills) them.  Faults lie directly on the backend:
//! everything above must survive them.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attributes, Error as OsError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    UpdateVersion,
};
use rhumb_seams::{Clock, Ids, Rand};

use crate::cache::{CacheOptions, ReadCache};
use crate::certify::{self, Check};
use crate::fault::{FaultStore, Faults};
use crate::file::FileStore;
use crate::identity::{self, Identity};
use crate::local::LocalFile;
use crate::metrics::{Metrics, MetricsStore};
use crate::put_id::PutId;
use crate::retry::{RetryPolicy, RetryStore, is_ambiguous};
use crate::sums::SumStore;
use crate::url::StoreUrl;
use crate::{Result, StoreError, s3};

/// Which version of an object was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub etag: String,
    /// Who wrote it, if it was written with a put-id and the store still knows.
    pub put_id: Option<PutId>,
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Durable, by this call or an earlier repetition of it.
    Landed(Tag),
    /// Somebody else's object is there.  Of a `replace` that had to be repeated this may
    /// also mean: ours landed and was replaced since.  Reading the object tells.
    Lost,
    /// The budget is spent and the write may have landed, or may land yet.  The same call
    /// with the same put-id may be repeated until it ends otherwise; nothing may be
    /// cleaned up meanwhile.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// 0 turns the cache off.
    pub ram_cache_bytes: u64,
    /// Folder and bound.  Not used for a local store, whose blocks are on a disk already.
    pub disk_cache: Option<(PathBuf, u64)>,
    pub faults: Option<Faults>,
    pub retry: RetryPolicy,
    /// `AWS_…` variables that go before those of the process.
    pub s3_overrides: Vec<(String, String)>,
    /// Refuse the store unless it passes every check.  Only tests of broken stores say no.
    pub certify: bool,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            ram_cache_bytes: 256 << 20,
            disk_cache: None,
            faults: None,
            retry: RetryPolicy::default(),
            s3_overrides: Vec::new(),
            certify: true,
        }
    }
}

/// Where a store keeps its objects.
#[derive(PartialEq)]
enum Place {
    Folder(PathBuf),
    Memory,
    Remote,
}

/// Cheap to clone.  The folder lock of a `file://` bucket is held until the last clone and
/// the last store handed out are gone.
#[derive(Clone, Debug)]
pub struct Bucket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    /// Below the cache and the checksums: for our own objects, which carry theirs.
    direct: Arc<dyn ObjectStore>,
    prefix: Path,
    identity: Identity,
    metrics: Metrics,
    ids: Ids,
    /// Where the objects lie as files.
    folder: Option<PathBuf>,
}

impl Bucket {
    /// Opens, certifies and identifies the store.  An error of kind `Retry` means that the
    /// store did not answer: the caller keeps trying.
    pub async fn open(
        url: &StoreUrl,
        options: BucketOptions,
        clock: Clock,
        rand: Rand,
        ids: Ids,
    ) -> Result<Self> {
        let (backend, prefix): (Arc<dyn ObjectStore>, Path) = match url {
            StoreUrl::File { folder } => (
                Arc::new(FileStore::open(folder.clone(), &clock).await?),
                Path::default(),
            ),
            StoreUrl::S3 { bucket, prefix } => (s3::connect(bucket, &options.s3_overrides)?, prefix.clone()),
            StoreUrl::Memory => (Arc::new(object_store::memory::InMemory::new()), Path::default()),
        };
        let place = match url {
            StoreUrl::File { folder } => Place::Folder(folder.clone()),
            StoreUrl::Memory => Place::Memory,
            StoreUrl::S3 { .. } => Place::Remote,
        };
        Self::assemble(backend, prefix, place, options, rand, ids).await
    }

    /// A bucket over a store that is already there: the simulator's, or a test's.
    pub async fn open_with(
        backend: Arc<dyn ObjectStore>,
        prefix: Path,
        options: BucketOptions,
        rand: Rand,
        ids: Ids,
    ) -> Result<Self> {
        Self::assemble(backend, prefix, Place::Memory, options, rand, ids).await
    }

    async fn assemble(
        backend: Arc<dyn ObjectStore>,
        prefix: Path,
        place: Place,
        options: BucketOptions,
        rand: Rand,
        ids: Ids,
    ) -> Result<Self> {
        let metrics = Metrics::default();
        let local = place != Place::Remote;
        // Faults must meet every read.
        let folder = match place {
            Place::Folder(folder) if options.faults.is_none() => Some(folder),
            _ => None,
        };
        let faulty: Arc<dyn ObjectStore> = match &options.faults {
            Some(faults) => Arc::new(FaultStore::new(backend, faults.clone())),
            None => backend,
        };
        let measured = Arc::new(MetricsStore::new(faulty, metrics.clone()));
        let direct: Arc<dyn ObjectStore> = Arc::new(RetryStore::new(
            measured,
            options.retry,
            metrics.clone(),
            rand,
            ids.clone(),
        ));
        if options.certify {
            certify::require(&certify::run(&direct, &prefix, &ids).await)?;
        }
        let identity = identity::read_or_mint(&direct, &prefix, &ids).await?;
        let checked: Arc<dyn ObjectStore> = Arc::new(SumStore::new(direct.clone(), metrics.clone()));
        let store = if options.ram_cache_bytes == 0 {
            checked
        } else {
            let cache = CacheOptions {
                ram_bytes: options.ram_cache_bytes,
                disk: options.disk_cache.filter(|_| !local),
                // Below a local store lies the page cache: a miss is cheap and should
                // drag in little.  A request to S3 costs the same for 1 and for 128 KiB.
                block_bytes: if local { 16 << 10 } else { 128 << 10 },
                uid: identity.uid.clone(),
                immutable: is_immutable,
            };
            Arc::new(ReadCache::open(checked, cache, metrics.clone()).await)
        };
        Ok(Self(Arc::new(Inner {
            store,
            direct,
            prefix,
            identity,
            metrics,
            ids,
            folder,
        })))
    }

    /// Everything stacked.  Paths are whole: they start with `prefix()`.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        self.0.store.clone()
    }

    pub fn prefix(&self) -> &Path {
        &self.0.prefix
    }

    /// The path of one of our own names, such as `catalog/books.json`.
    pub fn path(&self, relative: &str) -> Path {
        under(&self.0.prefix, relative)
    }

    /// The object as a file, where objects are files.  What is read from it is not checked:
    /// see `local`.
    pub fn local_file(&self, path: &Path) -> Option<LocalFile> {
        LocalFile::open(&self.0.folder.as_ref()?.join(path.as_ref()))
    }

    /// The random name of the database in this bucket.
    pub fn uid(&self) -> &str {
        &self.0.identity.uid
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub fn mint_put_id(&self) -> PutId {
        PutId::mint(&self.0.ids)
    }

    /// The checks of `rhumb doctor`, run now.
    pub async fn certify(&self) -> Vec<Check> {
        certify::run(&self.0.direct, &self.0.prefix, &self.0.ids).await
    }

    /// The object, or `None` when there is none.  An immutable object may come from the
    /// cache, and then without its put-id.
    pub async fn get(&self, path: &Path) -> Result<Option<(Bytes, Tag)>> {
        read(&self.0.store, path).await
    }

    pub async fn get_uncached(&self, path: &Path) -> Result<Option<(Bytes, Tag)>> {
        read(&self.0.direct, path).await
    }

    /// Size and version without the bytes, never from the cache.
    pub async fn head(&self, path: &Path) -> Result<Option<(ObjectMeta, Tag)>> {
        let options = GetOptions::new().with_head(true);
        match self.0.direct.get_opts(path, options).await {
            Ok(found) => {
                let tag = tag_of(path, &found.meta, &found.attributes)?;
                Ok(Some((found.meta, tag)))
            }
            Err(OsError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes an object that must not exist yet.  An error means: nothing was written.
    pub async fn create(&self, path: &Path, body: Bytes, id: &PutId) -> Result<Outcome> {
        self.write(path, body, id, PutMode::Create).await
    }

    /// Writes an object that must still be the one that was seen.  An error means:
    /// nothing was written.
    pub async fn replace(&self, path: &Path, body: Bytes, id: &PutId, seen: &Tag) -> Result<Outcome> {
        let version = UpdateVersion {
            e_tag: Some(seen.etag.clone()),
            version: None,
        };
        self.write(path, body, id, PutMode::Update(version)).await
    }

    /// Ends well when the object is gone, whoever deleted it.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        match self.0.store.delete(path).await {
            Ok(()) | Err(OsError::NotFound { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Everything below `prefix`, in order of path.
    pub fn list(&self, prefix: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        Box::pin(self.0.direct.list(Some(prefix)).map_err(StoreError::from))
    }

    async fn write(&self, path: &Path, body: Bytes, id: &PutId, mode: PutMode) -> Result<Outcome> {
        let mut attributes = Attributes::new();
        id.attach(&mut attributes);
        let options = PutOptions {
            mode,
            attributes,
            ..PutOptions::default()
        };
        match self.0.store.put_opts(path, body.into(), options).await {
            Ok(put) => {
                let etag = put.e_tag.ok_or_else(|| no_etag(path))?;
                Ok(Outcome::Landed(Tag {
                    etag,
                    put_id: Some(id.clone()),
                }))
            }
            Err(OsError::AlreadyExists { .. } | OsError::Precondition { .. }) => Ok(Outcome::Lost),
            Err(e) if is_ambiguous(&e) => Ok(Outcome::Unknown),
            Err(e) => Err(e.into()),
        }
    }
}

/// What never changes once written, and so may be cached: Lance's files with a random
/// part in their name.  Not its `_versions/`, which are counted and can be written anew by
/// a stalled committer, and not our log, whose slots a zombie may fill again after GC.
fn is_immutable(path: &Path) -> bool {
    const FOLDERS: [&str; 4] = [
        "/table/data/",
        "/table/_deletions/",
        "/table/_indices/",
        "/table/_transactions/",
    ];
    FOLDERS.iter().any(|folder| path.as_ref().contains(folder))
}

/// `prefix/relative`, part by part: a prefix may hold characters that `Path::from` would
/// encode a second time.
pub(crate) fn under(prefix: &Path, relative: &str) -> Path {
    prefix.parts().chain(Path::from(relative).parts()).collect()
}

async fn read(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Option<(Bytes, Tag)>> {
    let found = match store.get(path).await {
        Ok(found) => found,
        Err(OsError::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let tag = tag_of(path, &found.meta, &found.attributes)?;
    Ok(Some((found.bytes().await?, tag)))
}

fn tag_of(path: &Path, meta: &ObjectMeta, attributes: &Attributes) -> Result<Tag> {
    let etag = meta.e_tag.clone().ok_or_else(|| no_etag(path))?;
    Ok(Tag {
        etag,
        put_id: PutId::of(attributes),
    })
}

fn no_etag(path: &Path) -> StoreError {
    StoreError::Unsafe {
        check: "etag",
        detail: format!("the store gave {path} no ETag"),
    }
}
