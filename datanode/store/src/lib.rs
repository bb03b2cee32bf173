//! The only path to the bucket, for Lance and for our own objects, and the durable
//! protocol written over it.
//!
//! `Bucket` is the way in: it opens a store by URL, certifies it, knows the identity of
//! the database in it, and hands out one `ObjectStore` in which retries, checksums, metrics,
//! the read cache and (in tests) faults are already stacked.

mod blocking;
pub mod bucket;
pub mod cache;
pub mod cas;
pub mod catalog;
pub mod certify;
pub mod crypt;
mod damaged;
#[cfg(not(feature = "deviations"))]
mod deviation;
#[cfg(feature = "deviations")]
pub mod deviation;
mod error;
mod failure;
pub mod fault;
pub mod file;
pub mod identity;
pub mod local;
pub mod log;
pub mod metrics;
mod put_id;
pub mod retry;
mod s3;
pub mod state;
pub mod sums;
#[cfg(test)]
mod testing;
pub mod url;

pub use bucket::{Bucket, BucketOptions, Outcome, Tag};
pub use damaged::is_damaged;
pub use error::{ErrorKind, StoreError};
pub use put_id::PutId;
pub use url::StoreUrl;

pub type Result<T, E = StoreError> = std::result::Result<T, E>;
