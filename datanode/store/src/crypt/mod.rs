//! Encryption on our side of the bucket: what the store, its operator or a thief of its disks
//! sees of a database is sizes, times and object names.
//!
//! Every object is sealed (`format.rs`) by the data key of its collection, the data keys are
//! wrapped by the master key (`keyring.rs`, `master.rs`).  In the clear lie only
//! `identity.json`, which says that the database is encrypted, the wrapped keys, and what
//! certification tries out.
//!
//! The layer sits right above the retries, so an attempt that is repeated is the same
//! bytes, and below the cache, so RAM holds plaintext; the disk tier seals its blocks itself.
//! It stands in for the checksums of `sums`: a chunk that was changed, moved or cut off
//! does not open.  What does not open is fetched again, damage on the way is gone then, and
//! after `READS` tries the read fails as damaged.  When a key cannot be had, a write fails
//! before anything is sent.
//!
//! Cost: 16 bytes per 16 KiB and 80 per object, and on the first ranged read of an object a
//! request for its end, where its footer is, as `sums` has one for its checksums.

mod block;
mod command;
mod format;
mod keyring;
mod master;
mod problem;
mod read;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error as OsError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, RenameTargetMode, Result,
};

use crate::StoreError;
use crate::metrics::Metrics;
use crate::put_id::PutId;
pub(crate) use block::BlockKeys;
use format::{DataKey, Place, Purpose, Sealer};
pub(crate) use keyring::{Keyring, Scope};
pub use master::MasterKey;
pub use problem::KeyProblem;
use read::Known;
use upload::SealedUpload;

/// What `identity.json` calls this format.
pub(crate) const CIPHER: &str = "aes-256-gcm/hkdf-sha256/16k";

/// Names the layer in an error that carries a `StoreError`.
pub(crate) const LAYER: &str = "crypt";

/// The folder of the wrapped data keys.
const KEYS: &str = "keys";

/// Objects whose keys are kept ready, at about 1 KiB each.
const MOST_KNOWN: u64 = 32_768;

/// What lies in the clear: nothing a user wrote.
fn is_plain(relative: &str) -> bool {
    relative == "identity.json" || relative.starts_with("keys/") || relative.starts_with(".probe/")
}

#[derive(Clone, Debug)]
pub(crate) struct CryptStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn ObjectStore>,
    keyring: Keyring,
    known: moka::sync::Cache<Path, Arc<Known>>,
    metrics: Metrics,
}

impl CryptStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, keyring: Keyring, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            inner,
            keyring,
            known: moka::sync::Cache::new(MOST_KNOWN),
            metrics,
        }))
    }

    /// Drops every key that was made ready for an object.
    pub(crate) fn forget_all(&self) {
        self.0.known.invalidate_all();
    }

    fn is_plain(&self, location: &Path) -> bool {
        is_plain(self.0.keyring.relative(location))
    }
}

impl Shared {
    fn place<'a>(&'a self, location: &'a Path) -> Place<'a> {
        Place {
            purpose: Purpose::Object,
            uid: self.keyring.uid(),
            path: self.keyring.relative(location),
        }
    }

    async fn newest_key(&self, location: &Path) -> Result<Arc<DataKey>> {
        let scope = self.keyring.scope_of(location);
        self.keyring.newest(&scope).await.map_err(as_os_error)
    }

    /// A listing shows the size of what can be read.  An object that none of us wrote keeps
    /// its own: reading it says what is wrong with it.
    fn with_body_size(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if !is_plain(self.keyring.relative(&meta.location)) {
            meta.size = format::body_size(meta.size).unwrap_or(meta.size);
        }
        meta
    }

    fn listed(
        self: &Arc<Self>,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let shared = self.clone();
        listing.map_ok(move |meta| shared.with_body_size(meta)).boxed()
    }
}

/// Through the trait and back: `StoreError::from` takes it out again.
fn as_os_error(error: StoreError) -> OsError {
    OsError::Generic {
        store: LAYER,
        source: Box::new(error),
    }
}

impl fmt::Display for CryptStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crypt({})", self.0.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for CryptStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if self.is_plain(location) {
            return self.0.inner.put_opts(location, payload, opts).await;
        }
        let key = self.0.newest_key(location).await?;
        let place = self.0.place(location);
        let salt = match PutId::of(&opts.attributes) {
            Some(id) => key.salt_of(id.as_str(), &place, &payload),
            None => DataKey::random_salt(),
        };
        let sealed = format::seal(&key, salt, &place, &payload);
        self.0.known.invalidate(location);
        self.0.inner.put_opts(location, sealed.into(), opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if self.is_plain(location) {
            return self.0.inner.put_multipart_opts(location, opts).await;
        }
        let key = self.0.newest_key(location).await?;
        let sealer = Sealer::new(&key, DataKey::random_salt(), &self.0.place(location));
        self.0.known.invalidate(location);
        let inner = self.0.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(SealedUpload::new(inner, sealer)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.is_plain(location) {
            return self.0.inner.get_opts(location, options).await;
        }
        if options.head {
            return self.0.head(location, options).await;
        }
        self.0.get(location, &options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if self.is_plain(location) {
            return self.0.inner.get_ranges(location, ranges).await;
        }
        self.0.ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let shared = self.0.clone();
        let forgetting = locations.inspect_ok(move |location| shared.known.invalidate(location));
        self.0.inner.delete_stream(forgetting.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.listed(self.0.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.listed(self.0.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.0.inner.list_with_delimiter(prefix).await?;
        let objects = listed.objects.into_iter();
        listed.objects = objects.map(|meta| self.0.with_body_size(meta)).collect();
        Ok(listed)
    }

    /// Through this process: what is sealed opens only where it was written.
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let body = self.get(from).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put_opts(to, body.into(), mode.into()).await.map(drop)
    }

    /// Not atomic, as on every object store: a crash in between leaves both names.
    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let mode = match options.target_mode {
            RenameTargetMode::Overwrite => CopyMode::Overwrite,
            RenameTargetMode::Create => CopyMode::Create,
        };
        self.copy_opts(from, to, CopyOptions::new().with_mode(mode))
            .await?;
        self.delete(from).await
    }
}
