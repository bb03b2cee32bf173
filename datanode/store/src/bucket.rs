//! The one path to the bucket: a certified store, the identity of the database in it, and
//! the few calls the protocol is written with.
//!
//! What is stacked, from the caller down: `cache → sums → retry → metrics → faults →
//! backend`, and in an encrypted database `crypt` instead of `sums`.  The cache is on top so
//! that a hit costs nothing and a block enters it only whole and checked.  Encryption is
//! above the retries, so that a repeated write is the same bytes.  Metrics lie below the retries so that they
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
use rhumb_core::CollectionId;
use rhumb_seams::{Clock, Ids, Rand};

use crate::cache::{CacheOptions, ReadCache};
use crate::certify::{self, Check};
use crate::crypt::{CIPHER, CryptStore, Keyring, MasterKey, Scope};
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
    /// The master key of an encrypted database.  A new database is encrypted when it is
    /// given; an existing one must be what this says.
    pub master_key: Option<Arc<MasterKey>>,
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
            master_key: None,
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
    /// Below the encryption too: what certification tries out.
    bare: Arc<dyn ObjectStore>,
    sealing: Option<Sealing>,
    prefix: Path,
    identity: Identity,
    metrics: Metrics,
    ids: Ids,
    /// Where the objects lie as files.
    folder: Option<PathBuf>,
}

/// What an encrypted database is sealed with.
#[derive(Debug)]
struct Sealing {
    keyring: Keyring,
    store: CryptStore,
}

/// What `rhumb doctor` says of an encrypted database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    pub cipher: &'static str,
    /// The names of the master keys at hand, the one that wraps first.
    pub master_key: String,
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
        // Faults must meet every read, and ciphertext is of no use.
        let bare_files = options.faults.is_none() && options.master_key.is_none();
        let folder = match place {
            Place::Folder(folder) if bare_files => Some(folder),
            _ => None,
        };
        let faulty: Arc<dyn ObjectStore> = match &options.faults {
            Some(faults) => Arc::new(FaultStore::new(backend, faults.clone())),
            None => backend,
        };
        let measured = Arc::new(MetricsStore::new(faulty, metrics.clone()));
        let bare: Arc<dyn ObjectStore> = Arc::new(RetryStore::new(
            measured,
            options.retry.clone(),
            metrics.clone(),
            rand,
            ids.clone(),
        ));
        if options.certify {
            certify::require(&certify::run(&bare, &prefix, &ids).await)?;
        }
        let encrypted = options.master_key.is_some();
        let identity = identity::read_or_mint(&bare, &prefix, &ids, encrypted).await?;
        let plain = Inner {
            store: bare.clone(),
            direct: bare.clone(),
            bare,
            sealing: None,
            prefix,
            identity,
            metrics,
            ids,
            folder,
        };
        plain.stacked(options, local).await
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

    /// `None` when what lies in the bucket is in the clear.
    pub fn encryption(&self) -> Option<Encryption> {
        self.0.sealing.as_ref().map(|sealing| Encryption {
            cipher: CIPHER,
            master_key: sealing.keyring.master().name(),
        })
    }

    /// Destroys the data keys of a collection that is deleted: what they sealed cannot be
    /// read again, here at once, by other processes within the hour.  Repeating it is fine;
    /// without encryption there is nothing to do.
    pub async fn destroy_keys(&self, collection: &CollectionId) -> Result<()> {
        let Some(Sealing { keyring, store }) = &self.0.sealing else {
            return Ok(());
        };
        let destroyed = keyring.destroy(collection).await;
        store.forget_all();
        destroyed
    }

    /// Makes a new data key for what is written from now on, of a collection or, with
    /// `None`, of everything that belongs to none.  What was sealed before stays readable.
    pub async fn renew_keys(&self, collection: Option<&CollectionId>) -> Result<()> {
        let scope = collection.map_or(Scope::Root, |id| Scope::Collection(id.clone()));
        match &self.0.sealing {
            Some(sealing) => sealing.keyring.renew(&scope).await,
            None => Ok(()),
        }
    }

    /// Wraps every data key by the first key of `to` and says how many key sets changed.
    /// The bucket must have been opened with a master key that unwraps them.
    pub async fn rewrap_keys(&self, to: &MasterKey) -> Result<usize> {
        match &self.0.sealing {
            Some(sealing) => sealing.keyring.rewrap(to).await,
            None => Ok(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn keyring(&self) -> Option<Keyring> {
        let sealing = self.0.sealing.as_ref();
        sealing.map(|sealing| sealing.keyring.clone())
    }

    pub fn mint_put_id(&self) -> PutId {
        PutId::mint(&self.0.ids)
    }

    /// The checks of `rhumb doctor`, run now.
    pub async fn certify(&self) -> Vec<Check> {
        certify::run(&self.0.bare, &self.0.prefix, &self.0.ids).await
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

impl Inner {
    /// With the layers above the retries.
    async fn stacked(mut self, options: BucketOptions, local: bool) -> Result<Bucket> {
        let checked: Arc<dyn ObjectStore> = match options.master_key {
            Some(master) => {
                let plain = Bucket(Arc::new(self.plain()));
                let keyring = Keyring::open(plain, master).await?;
                let store = CryptStore::new(self.bare.clone(), keyring.clone(), self.metrics.clone());
                self.direct = Arc::new(store.clone());
                self.sealing = Some(Sealing { keyring, store });
                self.direct.clone()
            }
            None => Arc::new(SumStore::new(self.bare.clone(), self.metrics.clone())),
        };
        self.store = if options.ram_cache_bytes == 0 {
            checked
        } else {
            let cache = CacheOptions {
                ram_bytes: options.ram_cache_bytes,
                disk: options.disk_cache.filter(|_| !local),
                // Below a local store lies the page cache: a miss is cheap and should
                // drag in little.  A request to S3 costs the same for 1 and for 128 KiB.
                block_bytes: if local { 16 << 10 } else { 128 << 10 },
                uid: self.identity.uid.clone(),
                immutable: is_immutable,
                sealing: self.sealing.as_ref().map(|sealing| sealing.keyring.clone()),
            };
            Arc::new(ReadCache::open(checked, cache, self.metrics.clone()).await)
        };
        Ok(Bucket(Arc::new(self)))
    }

    /// The same bucket without encryption, where the data keys lie.
    fn plain(&self) -> Self {
        Self {
            store: self.bare.clone(),
            direct: self.bare.clone(),
            bare: self.bare.clone(),
            sealing: None,
            prefix: self.prefix.clone(),
            identity: self.identity.clone(),
            metrics: self.metrics.clone(),
            ids: self.ids.clone(),
            folder: None,
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
