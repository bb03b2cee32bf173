//! Reads of one snapshot per partition.

mod documents;
mod legs;
mod rank;
mod scan;
mod sparse;
mod text;
mod vector;

use std::sync::Arc;
use std::time::Duration;

use rhumb_core::aggregate::{Groups, Plan};
use rhumb_core::query::{Hits, Query, Touched};
use rhumb_core::{FieldName, Filter, Position, Schema};
use rhumb_view::RowMask;
use tokio::time::Instant;

pub use self::scan::{Page, PageStart, Scan, ScanSnapshot};
use crate::error::EngineError;
use crate::partition::Partition;
use crate::pinned::Pinned;

/// One snapshot per partition; every answer comes from it, however long it is kept.
#[derive(Clone)]
pub struct Reading {
    schema: Arc<Schema>,
    parts: Vec<Pinned>,
    /// Kept open for as long as the reading lives.
    partitions: Vec<Arc<Partition>>,
}

impl Reading {
    pub(crate) fn new(schema: Arc<Schema>, opened: Vec<(Arc<Partition>, Pinned)>) -> Self {
        let (partitions, parts) = opened.into_iter().unzip();
        Self {
            schema,
            parts,
            partitions,
        }
    }

    /// What the snapshot includes, for session tokens.
    pub fn positions(&self) -> Vec<(u32, Position)> {
        (0..).zip(self.parts.iter().map(|p| p.position)).collect()
    }

    /// `EngineError::Timeout` when `timeout` passes; the work stops then.
    pub async fn query(
        &self,
        query: &Query,
        timeout: Option<Duration>,
    ) -> Result<(Hits, Touched), EngineError> {
        let deadline = timeout.map(|t| Instant::now() + t);
        // Boxed: the futures below it are many layers deep.
        let work = Box::pin(self.answer(query, deadline));
        match deadline {
            None => work.await,
            Some(at) => tokio::time::timeout_at(at, work)
                .await
                .map_err(|_| EngineError::Timeout)?,
        }
    }

    /// The groups as JSON, in a stable order.
    pub async fn aggregate(
        &self,
        filter: Option<&Filter>,
        plan: &Plan,
    ) -> Result<Vec<serde_json::Value>, EngineError> {
        let masks = self.masks(filter).await?;
        let fields: Vec<FieldName> = plan.fields().into_iter().cloned().collect();
        let mut groups = Groups::new(plan);
        for (part, mask) in self.parts.iter().zip(&masks) {
            let _held = part.load_columns(&fields).await?;
            groups.merge(
                part.snapshot
                    .aggregate(plan, mask.as_ref())
                    .map_err(lost_column)?,
            )?;
        }
        Ok(groups.into_json())
    }

    /// Rows that match, for limits and messages.
    pub async fn count(&self, filter: Option<&Filter>) -> Result<u64, EngineError> {
        match filter {
            None => Ok(self.parts.iter().map(|p| p.snapshot.live_rows()).sum()),
            Some(_) => Ok(self
                .masks(filter)
                .await?
                .iter()
                .flatten()
                .map(RowMask::count)
                .sum()),
        }
    }
}

fn lost_column(e: rhumb_view::ViewError) -> EngineError {
    EngineError::Busy(format!("memory is tight: {e}"))
}
