//! Deleting log objects that the base has made redundant.
//!
//! Only DATA slots at or below the durable `applied` go, and never a FENCE: a zombie's PUT
//! into the slot of a deleted fence would succeed and be lost.  Which slots are fences the
//! state says; nothing is listed.  Progress is kept in memory and written with the next
//! checkpoint, so a crash only repeats deletions, and a zombie that goes on deleting
//! deletes nothing that anybody reads.

use futures::{StreamExt, TryStreamExt};
use rhumb_core::Slot;

use super::PartitionFolder;
use super::claim::Claim;
use super::record::{Kind, TRAILER_LEN};
use super::tail::read_slot;
use crate::Result;

/// Slots that stay behind `applied`, so that a follower one poll late need not re-read the
/// state.  Correctness does not rest on it.
pub const KEEP: u64 = 4;
/// Deletions on their way at once.
const AT_ONCE: usize = 8;

impl Claim {
    /// Slots that `collect` has still to go through.
    pub fn collectable(&self) -> u64 {
        self.state()
            .applied
            .0
            .saturating_sub(KEEP)
            .saturating_sub(self.collected.0)
    }

    /// Goes through up to `most` slots and says how many objects it deleted.  After an
    /// error the same slots are tried again.
    pub async fn collect(&mut self, most: u64) -> Result<usize> {
        self.collect_to(Slot(self.collected.0 + most.min(self.collectable())))
            .await
    }

    /// All that the base has, the last slots too, and what came back below.  One PUT, and a
    /// listing.
    pub async fn collect_all(&mut self) -> Result<usize> {
        let collected = self.collect_to(self.state().applied).await?;
        // The sweep goes as far as the durable state says.
        self.checkpoint(|_| Ok(())).await?;
        Ok(collected + self.sweep(usize::MAX).await?)
    }

    async fn collect_to(&mut self, last: Slot) -> Result<usize> {
        self.held.check()?;
        let from = self.collected.next();
        let fences = self.state().fences.clone();
        let folder = self.held.folder.clone();
        let doomed = (from.0..=last.0)
            .map(Slot)
            .filter(|slot| fences.binary_search(slot).is_err());
        // In order, so that what an error leaves undone starts right behind `collected`.
        let mut deletions = futures::stream::iter(doomed.map(|slot| delete(&folder, slot))).buffered(AT_ONCE);
        let mut deleted = 0;
        while let Some(slot) = deletions.try_next().await? {
            self.collected = slot;
            deleted += 1;
        }
        drop(deletions);
        self.collected = last;
        Ok(deleted)
    }

    /// Finds DATA objects that a delayed PUT brought back below the collected slots, or
    /// that GC had to skip, by listing up to `most` objects; says how many it deleted.
    /// They are never read: this saves space, no more.
    pub async fn sweep(&self, most: usize) -> Result<usize> {
        self.held.check()?;
        let folder = &self.held.folder;
        let mut listed = folder.bucket().list(&folder.path("wal")).take(most);
        let mut deleted = 0;
        while let Some(object) = listed.try_next().await? {
            let Some(slot) = PartitionFolder::slot_of(&object.location) else {
                continue;
            };
            // A fence is exactly a trailer.
            if slot > self.state().collected || object.size <= TRAILER_LEN as u64 {
                continue;
            }
            // The listing only nominates: the record itself says what it is.
            if read_slot(folder, slot)
                .await?
                .is_some_and(|found| found.trailer.kind == Kind::Data)
            {
                delete(folder, slot).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

async fn delete(folder: &PartitionFolder, slot: Slot) -> Result<Slot> {
    folder.bucket().delete(&folder.slot_path(slot)).await?;
    Ok(slot)
}
