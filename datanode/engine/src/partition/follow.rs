//! A partition that another node leads, as far as it can be seen from the bucket: its base,
//! and the log behind it as it grows.
//!
//! Nothing is claimed and nothing written.  What stands in the log is shown in its order, so
//! that every snapshot is one the leader had; what the leader has acknowledged since the last
//! look is not in it.  The base never changes under it: another one is another `Partition`,
//! made from what the two have in common.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rhumb_core::{Held, Position};
use rhumb_seams::CancellationToken;
use rhumb_store::log::{Follower, PartitionFolder, Record, read_verified};
use rhumb_store::state::Status;
use rhumb_view::{Segment, View};
use tokio::sync::mpsc;

use super::index::Indexer;
use super::recover::{load_segment, table_url};
use super::{Partition, QUEUE, Shared};
use crate::base::{Base, FragmentInfo};
use crate::entry::LogEntry;
use crate::env::Env;
use crate::error::EngineError;
use crate::lead::Lead;
use crate::pinned::{Pinned, bug};
use crate::rows;
use crate::schema_cell::SchemaCell;
use crate::tally::Share;

impl Partition {
    /// As the bucket has it now, and who reads on from there.  `before` is the same partition
    /// as it was followed so far.
    pub async fn follow(
        env: Arc<Env>,
        schema: Arc<SchemaCell>,
        share: Share,
        before: Option<&Partition>,
    ) -> Result<(Self, Follower), EngineError> {
        schema.refresh().await?;
        let index = share.index();
        let place = PartitionFolder::new(&env.bucket, &schema.entry().id, index);
        let (state, tail, follower) = match read_verified(&place).await? {
            Some(reading) => (Some(reading.state), reading.tail, reading.follower),
            None => (None, Vec::new(), Follower::of_nothing(&place)),
        };
        if state.as_ref().is_some_and(|state| state.status == Status::Sealed) {
            return Err(EngineError::NotLeading);
        }
        let folder = format!("c/{}/p{index}", schema.entry().id);
        let name = format!("{}/p{index}", schema.entry().name);
        let base = match state.as_ref().and_then(|state| state.base) {
            Some(version) => Some(Base::open(&env.lance, &table_url(&env, &folder), version).await?),
            None => None,
        };
        let view = View::new();
        let known = before.map(Partition::pin);
        if let Some(base) = &base {
            for fragment in base.fragments().await? {
                match known.as_ref().and_then(|known| same(known, base, &fragment)) {
                    Some(segment) => {
                        view.add_segment(segment, &fragment.dead).map_err(bug)?;
                    }
                    None => load_segment(&view, base, &fragment, schema.schema().id_kind).await?,
                }
            }
        }
        share.opened(Held {
            rows: view.snapshot().live_rows(),
            bytes: base.as_ref().map_or(0, Base::bytes),
        });
        let position = state.map_or_else(Position::default, |state| Position {
            epoch: state.epoch,
            slot: state.applied,
        });
        let shared = Shared::new(
            env,
            (Lead::Following, schema, share),
            (folder, name),
            (view, base),
            (position, position.slot),
        );
        let partition = Self::without_tasks(Arc::new(shared));
        partition.take_in(tail).await?;
        let indexer = Indexer::new(partition.shared.clone(), partition.closing.clone());
        let grid = |field: &str| before.and_then(|before| before.shared.view.grid(field));
        indexer.take_over(grid).await?;
        Ok((partition, follower))
    }

    fn without_tasks(shared: Arc<Shared>) -> Self {
        // Nobody receives: whoever asks for a write is told who may.
        let (requests, _) = mpsc::channel(QUEUE);
        let closing = CancellationToken::new();
        Self {
            shared,
            barrier: None,
            requests,
            tasks: Mutex::new(None),
            _closing_guard: closing.clone().drop_guard(),
            closing,
        }
    }

    /// Shows what the leader has logged.
    pub async fn take_in(&self, records: Vec<Record>) -> Result<(), EngineError> {
        for record in records {
            let schema = &self.shared.schema;
            if LogEntry::is_ahead_of(&record.body, &schema.schema())? {
                schema.refresh().await?;
            }
            let position = Position {
                epoch: record.trailer.epoch,
                slot: record.trailer.slot,
            };
            let entry = LogEntry::decode(&record.body, &schema.schema(), position)?;
            self.shared.show(entry.rows, position);
        }
        Ok(())
    }

    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Nobody follows the leader any more: what this shows would only grow old.
    pub fn give_up(&self) {
        self.shared.unsound.store(true, Ordering::SeqCst);
    }
}

/// The segment of a fragment, if it was known before.  Numbers of fragments can come again
/// after a restored version; names of files never do.
fn same(known: &Pinned, base: &Base, fragment: &FragmentInfo) -> Option<Arc<Segment>> {
    let file = |base: &Base| base.column_file(fragment.id, rows::ID).map(|(path, _, _)| path);
    let before = known.base.as_ref().and_then(file)?;
    let mut segments = known.snapshot.segments().iter();
    let sealed = segments.find(|sealed| sealed.segment().fragment() == fragment.id)?;
    let is_same = file(base) == Some(before) && sealed.segment().len() == fragment.physical_rows;
    is_same.then(|| sealed.segment().clone())
}
