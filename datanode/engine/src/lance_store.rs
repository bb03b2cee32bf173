//! Lance on our own bucket: one `ObjectStoreProvider`, one registry, one bounded session.
//!
//! Whatever lies behind the bucket (S3, a folder, memory, the fault layer), Lance sees the
//! scheme `s3`: it maps to the commit handler that creates manifests by conditional PUT.
//! An unknown scheme would silently get one that overwrites.

use std::sync::Arc;

use async_trait::async_trait;
use lance::dataset::builder::DatasetBuilder;
use lance::session::Session;
use lance_io::object_store::{ObjectStore, ObjectStoreParams, ObjectStoreProvider, ObjectStoreRegistry};
use rhumb_store::Bucket;
use url::Url;

/// Lance's own caches hold metadata and index pages only; column data is cached by the
/// bucket's read cache.
const INDEX_CACHE_BYTES: usize = 16 << 20;

/// Everything a Lance call needs; cheap to clone, one per process.
#[derive(Clone)]
pub struct LanceEnv {
    bucket: Bucket,
    session: Arc<Session>,
}

impl LanceEnv {
    pub fn new(bucket: Bucket, metadata_cache_bytes: usize) -> Self {
        let registry = ObjectStoreRegistry::empty();
        registry.insert(
            "s3",
            Arc::new(BucketProvider {
                bucket: bucket.clone(),
            }),
        );
        let session = Session::new(INDEX_CACHE_BYTES, metadata_cache_bytes, Arc::new(registry));
        Self {
            bucket,
            session: Arc::new(session),
        }
    }

    pub fn session(&self) -> Arc<Session> {
        self.session.clone()
    }

    /// The URL under which Lance knows a folder of the bucket.
    pub fn url(&self, relative: &str) -> String {
        format!("s3://bucket/{}", self.bucket.path(relative))
    }

    pub fn dataset(&self, url: &str) -> DatasetBuilder {
        DatasetBuilder::from_uri(url).with_session(self.session.clone())
    }
}

struct BucketProvider {
    bucket: Bucket,
}

impl std::fmt::Debug for BucketProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BucketProvider")
    }
}

#[async_trait]
impl ObjectStoreProvider for BucketProvider {
    async fn new_store(&self, base: Url, params: &ObjectStoreParams) -> lance::Result<ObjectStore> {
        let constant_size_parts = false;
        let list_is_lexically_ordered = true;
        let io_parallelism = 16;
        // Retries are the bucket's business: it alone knows which PUT was whose.
        let download_retries = 0;
        Ok(ObjectStore::new(
            self.bucket.object_store(),
            base,
            None,
            params.object_store_wrapper.clone(),
            constant_size_parts,
            list_is_lexically_ordered,
            io_parallelism,
            download_retries,
            None,
        ))
    }
}
