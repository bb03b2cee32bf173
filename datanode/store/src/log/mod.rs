//! The log of one partition: who may write it, what it holds, and how it is taken over.
//!
//! Objects, in the partition's folder: `state.json`, changed by compare-and-swap, and
//! `wal/<slot>.arrow`, dense from 1, each created once.  `docs/protocol/` has the protocol
//! step by step with its invariants M1–M15; the names here are the same.
//!
//! - `takeover` claims the next epoch, fences the log and returns what the claim is worth
//!   as three owners: a `Log` for the one task that appends, a `Claim` for the one task
//!   that maintains the state, a `Barrier` for everybody who reads.
//! - Whatever another holder may have caused (a missing slot, a broken chain) is a
//!   suspicion only: the state is read again first, and when the epoch is no longer ours
//!   the answer is `Fenced`, not `Corrupt`.
//! - `read_verified` and `Tail` read without claiming anything.
//!
//! When the store fails, every call returns an error of kind `Retry` and leaves nothing
//! that the same call, or the next takeover, does not put right.

mod append;
mod chain;
mod claim;
mod collect;
mod follow;
mod record;
mod tail;
mod takeover;

#[cfg(test)]
#[allow(clippy::duplicate_mod, reason = "the same suite, over an encrypted bucket")]
#[path = "tests.rs"]
mod sealed_tests;
#[cfg(test)]
mod tests;

pub use append::{AppendError, Log, Pending};
pub use claim::{Barrier, Claim};
pub use follow::{Follower, News, Reading, read_verified};
pub use record::{Kind, Record, TRAILER_LEN, Trailer};
pub use tail::{Replay, Tail};
pub use takeover::{Takeover, takeover, takeover_if_free};

use futures::TryStreamExt;
use object_store::path::Path;
use rhumb_core::{CollectionId, Slot};
use xxhash_rust::xxh3::xxh3_64;

use crate::cas::{Cas, Versioned};
use crate::state::State;
use crate::{Bucket, StoreError};

/// Where a partition lives.  Cheap to clone.
#[derive(Clone, Debug)]
pub struct PartitionFolder {
    bucket: Bucket,
    /// Relative to the bucket's prefix, so that a copied database keeps its identity.
    relative: String,
    id: u64,
}

impl PartitionFolder {
    pub fn new(bucket: &Bucket, collection: &CollectionId, partition: u32) -> Self {
        let relative = format!("c/{collection}/p{partition}");
        let id = xxh3_64(relative.as_bytes());
        Self {
            bucket: bucket.clone(),
            relative,
            id,
        }
    }

    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The whole path of something in the folder: `table`, `idem/…`.
    pub fn path(&self, inside: &str) -> Path {
        self.bucket.path(&format!("{}/{inside}", self.relative))
    }

    pub fn state_path(&self) -> Path {
        self.path("state.json")
    }

    /// `None` for a partition that was never written.  Its state is its first object: where
    /// there are others the state was lost, and to start anew would be to forget them.
    async fn state(&self, cas: &Cas<State>) -> crate::Result<Option<Versioned<State>>> {
        if let Some(state) = cas.load().await? {
            return Ok(Some(state));
        }
        let Some(other) = self
            .bucket
            .list(&self.bucket.path(&self.relative))
            .try_next()
            .await?
        else {
            return Ok(None);
        };
        // Whoever wrote it may have begun after we looked.
        match cas.load().await? {
            Some(state) => Ok(Some(state)),
            None => Err(StoreError::Corrupt {
                path: self.state_path(),
                reason: format!("it is gone, but {} is there", other.location),
            }),
        }
    }

    /// Twenty digits hold every u64, so the names sort like the numbers.
    pub fn slot_path(&self, slot: Slot) -> Path {
        self.path(&format!("wal/{:020}.arrow", slot.0))
    }

    /// The slot that an object's path names, if it is one of ours.
    fn slot_of(path: &Path) -> Option<Slot> {
        let digits = path.filename()?.strip_suffix(".arrow")?;
        let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok().map(Slot)).flatten()
    }

    /// Hash of the folder's name; every record carries it.
    fn id(&self) -> u64 {
        self.id
    }
}
