//! Keeps partitions that others lead up to date, for readers that can do with what was true
//! a moment ago.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rhumb_seams::OnExit;
use rhumb_store::log::{Follower, News};
use tokio::time::Instant;

use crate::collection::Cell;
use crate::env::Env;
use crate::error::EngineError;
use crate::partition::Partition;
use crate::schema_cell::SchemaCell;
use crate::tally::Tally;

/// Each look costs a HEAD and a miss.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Whoever cannot look for so long leaves the answers to others.
const TOO_OLD: Duration = Duration::from_secs(10);

/// One partition of one collection.
#[derive(Clone)]
pub struct Following {
    pub env: Arc<Env>,
    pub schema: Arc<SchemaCell>,
    pub tally: Arc<Tally>,
    pub index: u32,
    pub cell: Arc<Cell>,
}

impl Following {
    /// Reads it as it is now and keeps it so until it is closed.
    pub async fn open(self) -> Result<Arc<Partition>, EngineError> {
        let (partition, follower) = self.read(None).await?;
        let tasks = self.env.tasks.clone();
        let kept = Arc::downgrade(&partition);
        tasks.spawn("partition follower", OnExit::Fine, self.keep_up(kept, follower));
        Ok(partition)
    }

    async fn read(&self, before: Option<&Partition>) -> Result<(Arc<Partition>, Follower), EngineError> {
        let share = self.tally.share(self.index);
        let (env, schema) = (self.env.clone(), self.schema.clone());
        let (partition, follower) = Partition::follow(env, schema, share, before).await?;
        Ok((Arc::new(partition), follower))
    }

    /// Holds the partition only while it looks: unused it is to be closed.
    async fn keep_up(self, mut kept: Weak<Partition>, mut follower: Follower) {
        let mut seen = Instant::now();
        loop {
            let Some(closing) = kept.upgrade().map(|partition| partition.closing().clone()) else {
                return;
            };
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let Some(partition) = kept.upgrade() else { return };
            match self.look(&partition, &mut follower).await {
                Ok(Looked::Same) => seen = Instant::now(),
                Ok(Looked::Anew(next)) => {
                    kept = Arc::downgrade(&next);
                    seen = Instant::now();
                }
                Ok(Looked::Ended) => return partition.give_up(),
                Err(error) if seen.elapsed() < TOO_OLD => {
                    tracing::debug!(%error, "a followed partition cannot be read");
                }
                Err(error) => {
                    tracing::warn!(%error, "a followed partition cannot be read: its leader answers");
                    return partition.give_up();
                }
            }
        }
    }

    async fn look(&self, partition: &Arc<Partition>, follower: &mut Follower) -> Result<Looked, EngineError> {
        match follower.news().await? {
            News::Records(records) => {
                partition.take_in(records).await?;
                Ok(Looked::Same)
            }
            News::Ended => Ok(Looked::Ended),
            News::Moved => {
                let (next, goes_on) = self.read(Some(partition)).await?;
                if !self.cell.replace(partition, next.clone()) {
                    return Ok(Looked::Ended);
                }
                *follower = goes_on;
                Ok(Looked::Anew(next))
            }
        }
    }
}

enum Looked {
    Same,
    /// On another base, which is another partition.
    Anew(Arc<Partition>),
    Ended,
}
