//! What every part of an open database shares.

use rhumb_seams::{CancellationToken, Clock, Ids, Tasks};
use rhumb_store::Bucket;
use rhumb_view::ViewError;
use tokio::sync::Semaphore;

use crate::budget::{MemtableBudget, SegmentParts};
use crate::database::Settings;
use crate::error::EngineError;
use crate::lance_store::LanceEnv;
use crate::lead::Lead;
use crate::pinned::bug;
use crate::sole_writer::SoleWriter;

pub struct Env {
    pub bucket: Bucket,
    pub lance: LanceEnv,
    pub settings: Settings,
    /// Names this process in STATE.
    pub holder: String,
    pub clock: Clock,
    pub ids: Ids,
    pub tasks: Tasks,
    /// Cancelled when another server took something of ours over (I2).  In a cluster a
    /// fence ends a term instead.
    pub fenced: CancellationToken,
    /// Where other servers can reach the bucket.
    pub sole_writer: Option<SoleWriter>,
    pub memtables: MemtableBudget,
    pub parts: SegmentParts,
    /// Flushes and merges running at once: they are CPU- and disk-bound.
    pub heavy: Semaphore,
}

impl Env {
    /// Another process leads what `lead` covered: nothing of it is served any more.
    pub fn fence(&self, lead: &Lead) {
        match lead {
            Lead::Alone => self.fenced.cancel(),
            Lead::Term { term, .. } => term.fence(),
            Lead::Following => {}
        }
    }

    /// What takes longer than a request may wait for its thread.
    pub async fn quietly<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let done = self.tasks.compute_quietly(name, work).await;
        done.ok_or_else(|| EngineError::Bug(format!("{name}: the work panicked")))?
            .map_err(bug)
    }

    /// Memtable bytes at which one partition freezes.
    pub fn freeze_bytes(&self) -> usize {
        (self.settings.memory_limit / 16).clamp(4 << 20, 64 << 20)
    }
}
