//! What the command line does to a store without serving it.

use std::sync::Arc;

use rhumb_seams::{Clock, Ids, Rand};
use rhumb_store::bucket::Encryption;
use rhumb_store::catalog::Catalog;
use rhumb_store::certify::Check;
use rhumb_store::crypt::MasterKey;
use rhumb_store::{Bucket, BucketOptions, StoreError, StoreUrl};

use crate::guard::{self, AuditVerdict};

/// Collections whose keys are renewed between two looks at the catalog.
const PAGE: usize = 1_000;

/// What is known of a store once it was looked at.
pub struct Diagnosis {
    /// The checks that decide whether it can be trusted with data.
    pub checks: Vec<Check>,
    /// `None` when what lies there is in the clear.
    pub encryption: Option<Encryption>,
}

pub async fn doctor(store: &StoreUrl, master_key: Option<Arc<MasterKey>>) -> Result<Diagnosis, StoreError> {
    let bucket = open(store, master_key).await?;
    Ok(Diagnosis {
        checks: bucket.certify().await,
        encryption: bucket.encryption(),
    })
}

/// Wraps every data key by the first key of `to` and says how many key sets changed.
pub async fn rotate_keys(
    store: &StoreUrl,
    master_key: Arc<MasterKey>,
    to: &MasterKey,
) -> Result<usize, StoreError> {
    open(store, Some(master_key)).await?.rewrap_keys(to).await
}

/// Makes a new data key for every collection, and one for the rest, and says how many.
pub async fn renew_keys(store: &StoreUrl, master_key: Arc<MasterKey>) -> Result<usize, StoreError> {
    let bucket = open(store, Some(master_key)).await?;
    let catalog = Catalog::new(&bucket);
    bucket.renew_keys(None).await?;
    let (mut renewed, mut after) = (1, None);
    loop {
        let page = catalog.list("", after.as_ref(), PAGE).await?;
        for entry in &page {
            bucket.renew_keys(Some(&entry.id)).await?;
            renewed += 1;
        }
        match page.last() {
            Some(last) => after = Some(last.name.clone()),
            None => return Ok(renewed),
        }
    }
}

/// Every chain of the audit in a store, and what holding it against its hashes found.
pub async fn verify_audit(
    store: &StoreUrl,
    master_key: Option<Arc<MasterKey>>,
) -> Result<Vec<AuditVerdict>, StoreError> {
    let bucket = open(store, master_key).await?;
    guard::verify_audit(&bucket).await
}

async fn open(store: &StoreUrl, master_key: Option<Arc<MasterKey>>) -> Result<Bucket, StoreError> {
    let clock = Clock::system();
    let rand = Rand::from_entropy();
    let ids = Ids::new(clock.clone(), rand.clone());
    let options = BucketOptions {
        ram_cache_bytes: 0,
        disk_cache: None,
        certify: false,
        master_key,
        ..BucketOptions::default()
    };
    Bucket::open(store, options, clock, rand, ids).await
}
