//! Erasing documents for good: out of the log, the table's files and old versions, the view
//! files and caches, and not only out of sight (`docs/rfcs/0009-erasure.md`).
//!
//! 1. The objects that are there are listed.
//! 2. A delete is written like any other.
//! 3. Every fragment with a dead row is rewritten without it: that covers earlier versions of
//!    a document and documents deleted before, whose rows lie in the files all the same.
//! 4. Readers of older snapshots are ended.
//! 5. Whatever no reader of today needs is deleted, and the rest is looked through.
//!
//! A crash leaves a part of it done; asking again does the rest.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use rhumb_core::DocId;
use rhumb_core::write::Write;

use crate::collection::{Collection, Written};
use crate::error::EngineError;
use crate::partition::purge::Purged;
use crate::remains::{Holds, Object, Objects, holds};

/// For requests that are being answered from a snapshot of before.
const READERS: Duration = Duration::from_secs(1);

/// What an erasure did.
#[derive(Clone, Debug)]
pub struct Erasure {
    pub written: Written,
    /// All ids that were looked for.
    pub ids: Vec<DocId>,
    pub partitions: Vec<PartitionErasure>,
}

#[derive(Clone, Debug)]
pub struct PartitionErasure {
    pub partition: u32,
    /// There before, and gone now.
    pub removed: Objects,
    pub left: Vec<Left>,
    pub purged: Purged,
}

/// An object that is there after an erasure.
#[derive(Clone, Debug)]
pub struct Left {
    pub name: String,
    pub object: Object,
    pub holds: Holds,
    /// It was there before.
    pub is_old: bool,
}

impl Collection {
    /// Deletes as `write` says, and leaves nothing of what is deleted in the bucket.
    /// `end_readers` lets go of snapshots that somebody holds.
    pub fn erase<'a>(
        &'a self,
        write: Write,
        end_readers: impl FnOnce() + Send + 'a,
    ) -> BoxFuture<'a, Result<Erasure, EngineError>> {
        self.erased(write, end_readers).boxed()
    }

    async fn erased(&self, write: Write, end_readers: impl FnOnce()) -> Result<Erasure, EngineError> {
        let before = self.objects().await?;
        let ids = self.meant(&write).await?;
        let written = self.write(write).await?;
        try_join_all(self.indexes().map(|n| async move {
            let partition = self.partition(n).await?;
            partition.rewrite_dead().await
        }))
        .await?;
        end_readers();
        tokio::time::sleep(READERS).await;
        let wanted: Arc<HashSet<DocId>> = Arc::new(ids.iter().cloned().collect());
        let purged = try_join_all(self.indexes().map(|n| {
            let wanted = wanted.clone();
            async move { self.partition(n).await?.purge(wanted).await }
        }))
        .await?;
        let after = self.objects().await?;
        let told = before.into_iter().zip(after).zip(purged);
        let partitions = self.indexes().zip(told);
        Ok(Erasure {
            written,
            ids,
            partitions: partitions
                .map(|(partition, ((before, after), purged))| {
                    let (removed, left) = compared(before, after);
                    PartitionErasure {
                        partition,
                        removed,
                        left,
                        purged,
                    }
                })
                .collect(),
        })
    }

    /// The ids a delete names, and those its filter means now.
    async fn meant(&self, write: &Write) -> Result<Vec<DocId>, EngineError> {
        let mut ids = write.delete.clone();
        if let Some(filter) = &write.delete_by_filter {
            let found = self
                .indexes()
                .map(|n| async move { self.partition(n).await?.shared.matching_ids(filter).await });
            ids.extend(try_join_all(found).await?.into_iter().flatten());
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    async fn objects(&self) -> Result<Vec<Objects>, EngineError> {
        try_join_all(
            self.indexes()
                .map(|n| async move { self.partition(n).await?.shared.objects().await }),
        )
        .await
    }
}

/// What is gone, and what is left.
fn compared(mut before: Objects, after: Objects) -> (Objects, Vec<Left>) {
    let left = after.into_iter().map(|(name, object)| Left {
        holds: holds(&name),
        // A name that is used again and again, as the state's is, says nothing.
        is_old: before.remove(&name).is_some_and(|old| old.etag == object.etag),
        name,
        object,
    });
    let left = left.collect();
    (before, left)
}
