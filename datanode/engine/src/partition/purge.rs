//! The last step of an erasure: no object of the partition is left that the state, its base
//! and its view do not need, and what is left is read through.
//!
//! Invariant: nothing that a successor needs is deleted, not even by a holder that was
//! replaced and does not know.  Objects are listed first; then the state is written anew by
//! compare-and-swap, which proves that no newer epoch had been claimed when they were
//! listed; only what was listed is deleted.  A successor starts from the base that the state
//! names, gives its files new random names, and writes table versions above the base's:
//! those below are never written again, and those above are left alone.

use std::collections::HashSet;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use rhumb_core::DocId;
use tokio::sync::oneshot;

use crate::base::Base;
use crate::error::EngineError;
use crate::partition::maintain::Maintenance;
use crate::remains::Remains;
use crate::rows;

pub struct PurgeJob {
    /// What must not be found.
    pub ids: Arc<HashSet<DocId>>,
    pub reply: oneshot::Sender<Result<Purged, EngineError>>,
}

/// What reading through the base showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub rows_read: u64,
    /// Rows under one of the ids: written again since they were erased.
    pub rows_found: u64,
}

impl Maintenance {
    /// False when there is no point in going on.
    pub(super) async fn purged(&mut self, job: PurgeJob) -> bool {
        let env = self.shared.env.clone();
        let Ok(_permit) = env.heavy.acquire().await else {
            return false;
        };
        let purged = self.purge(&job.ids).await;
        let is_lost = purged.as_ref().is_err_and(EngineError::is_fenced);
        if is_lost {
            self.shared.fence();
        }
        // Whoever asked may have gone; what was done stays done.
        let _ = job.reply.send(purged);
        !is_lost
    }

    async fn purge(&mut self, ids: &HashSet<DocId>) -> Result<Purged, EngineError> {
        self.claim.collect_all().await?;
        let base = self.shared.base.read().clone();
        if let Some(base) = &base {
            self.collect_view(base).await?;
        }
        let listed = self.shared.objects().await?;
        self.claim.checkpoint(|_| Ok(())).await?;
        let idem = self.claim.state().idem.iter().map(|file| file.name.clone());
        let remains = Remains::new(base.as_ref().map(Base::files), idem);
        for name in listed.keys().filter(|name| remains.is_garbage(name)) {
            self.delete(name).await?;
        }
        match &base {
            None => Ok(Purged::default()),
            Some(base) => look_through(base, ids).await,
        }
    }

    /// What Lance wrote goes through the store that Lance has: caches forget it, and its
    /// checksums go with it.
    async fn delete(&self, name: &str) -> Result<(), EngineError> {
        let bucket = &self.shared.env.bucket;
        let location = bucket.path(&format!("{}/{name}", self.shared.folder));
        if !name.starts_with("table/") {
            return Ok(bucket.delete(&location).await?);
        }
        match bucket.object_store().delete(&location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(EngineError::Unavailable(format!("{location}: {error}"))),
        }
    }
}

/// Reads the ids of every row that readers of the table can see.
async fn look_through(base: &Base, ids: &HashSet<DocId>) -> Result<Purged, EngineError> {
    let mut purged = Purged::default();
    for fragment in base.fragments().await? {
        base.scan(fragment.id, &[rows::ID.into()], |_, batch| {
            let read = rows::decode_ids(&batch)?;
            purged.rows_read += read.len() as u64;
            purged.rows_found += read.iter().filter(|id| ids.contains(id)).count() as u64;
            Ok(())
        })
        .await?;
    }
    Ok(purged)
}
