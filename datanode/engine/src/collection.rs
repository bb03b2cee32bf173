//! One collection: schema, partitions, writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::try_join_all;
use parking_lot::Mutex;
use rhumb_core::query::Consistency;
use rhumb_core::write::{Counts, Write};
use rhumb_core::{Code, FieldName, FieldType, Position, Quota, Schema};
use rhumb_store::StoreError;
use rhumb_store::catalog::{Catalog, CatalogEntry};
use rhumb_store::crypt::KeyProblem;
use tokio::time::Instant;

use crate::database::{OpenStats, Sharing};
use crate::env::Env;
use crate::error::EngineError;
use crate::following::Following;
use crate::judge::growth_at_most;
use crate::lead::Lead;
use crate::partition::writer::Applied;
use crate::partition::{Partition, Whose};
use crate::reading::Reading;
use crate::schema_cell::SchemaCell;
use crate::spread::{combine, home, split, weight};
use crate::tally::{Room, Tally};

pub struct Collection {
    env: Arc<Env>,
    lead: Lead,
    schema: Arc<SchemaCell>,
    tally: Arc<Tally>,
    /// One cell per partition; the lock serialises opening and closing.
    cells: Vec<Arc<Cell>>,
    used: Mutex<Instant>,
    /// Its name means another one by now, or none: only followers learn it so late.
    gone: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Cell {
    open: Mutex<Option<Arc<Partition>>>,
    changing: tokio::sync::Mutex<()>,
}

impl Cell {
    /// The open partition, unless it has to be opened anew.
    fn sound(&self) -> Option<Arc<Partition>> {
        self.open.lock().as_ref().filter(|p| !p.is_unsound()).cloned()
    }

    /// False, and nothing changed, when something else than `old` is open.
    pub(crate) fn replace(&self, old: &Arc<Partition>, new: Arc<Partition>) -> bool {
        let mut open = self.open.lock();
        let is_open = open.as_ref().is_some_and(|now| Arc::ptr_eq(now, old));
        if is_open {
            *open = Some(new);
        }
        is_open
    }
}

/// An acknowledged write.
#[derive(Clone, Debug)]
pub struct Written {
    pub counts: Counts,
    /// Where it stands in each partition it touched; session tokens are made of these.
    pub positions: Vec<(u32, Position)>,
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub rows: u64,
    pub bytes: u64,
    /// Rows that are not in the base table and a sealed segment yet.
    pub unindexed_rows: u64,
    pub positions: Vec<(u32, Position)>,
}

impl Collection {
    pub(crate) fn new(env: Arc<Env>, catalog: Catalog, lead: Lead, entry: CatalogEntry) -> Self {
        let cells = (0..entry.partitions.max(1)).map(|_| Arc::default()).collect();
        let limits = env.settings.limits.clone();
        Self {
            env,
            tally: Tally::of(entry.partitions.max(1)),
            schema: Arc::new(SchemaCell::new(catalog, lead.clone(), entry, limits)),
            lead,
            cells,
            used: Mutex::new(Instant::now()),
            gone: AtomicBool::new(false),
        }
    }

    pub(crate) fn lead(&self) -> &Lead {
        &self.lead
    }

    pub fn entry(&self) -> Arc<CatalogEntry> {
        self.schema.entry()
    }

    /// The schema to type requests under.
    pub fn schema(&self) -> Arc<Schema> {
        self.schema.schema()
    }

    /// Splits by partition, judges, logs, shows, answers.  Not cancelled when the caller
    /// goes away.  `SchemaMoved` asks the caller to type the request again.
    pub async fn write(&self, write: Write) -> Result<Written, EngineError> {
        if self.cells.len() == 1 {
            return combine(vec![(0, self.write_part(0, write, Room::Unasked).await)]);
        }
        let home = write
            .idempotency
            .as_ref()
            .map(|i| home(&i.key, self.cells.len() as u32));
        let mut parts = split(write, home, self.cells.len() as u32);
        let room = self.prepare(&parts).await?;
        let mut answers = Vec::with_capacity(parts.len());
        // The key's home first: it knows whether this is another request under an old key,
        // and then no partition may apply anything.
        if let Some(at) = parts.iter().position(|(index, _)| Some(*index) == home) {
            let (index, part) = parts.swap_remove(at);
            let applied = self.write_part(index, part, room.clone()).await?;
            answers.push((index, Ok(applied)));
        }
        let writes = parts.into_iter().map(|(index, part)| {
            let room = room.clone();
            async move { (index, self.write_part(index, part, room).await) }
        });
        answers.extend(futures::future::join_all(writes).await);
        answers.sort_by_key(|(index, _)| *index);
        combine(answers)
    }

    /// What would make one partition refuse while another applies is found out before any
    /// of them is asked.
    async fn prepare(&self, parts: &[(u32, Write)]) -> Result<Room, EngineError> {
        let Some((_, any)) = parts.first() else {
            return Err(EngineError::Bug("a write without partitions".into()));
        };
        if let Some(filter) = &any.delete_by_filter {
            let matched = self
                .indexes()
                .map(|index| async move { self.partition(index).await?.shared.matching(filter).await });
            try_join_all(matched).await?;
        }
        let room = self.room(parts).await?;
        if !any.new_fields.is_empty() && !matches!(room, Room::Full(_)) {
            self.schema.extend(&any.new_fields).await?;
        }
        Ok(room)
    }

    /// Room for all rows that a write adds, where there is a quota.
    async fn room(&self, parts: &[(u32, Write)]) -> Result<Room, EngineError> {
        let quota = self.schema.quota()?;
        if quota.is_boundless() || parts.iter().all(|(_, part)| part.upsert.is_empty()) {
            return Ok(Room::Unasked);
        }
        let unknown = self.tally.unknown();
        try_join_all(unknown.into_iter().map(|index| self.partition(index))).await?;
        let mut more = 0;
        for (index, part) in parts {
            let partition = self.partition(*index).await?;
            more += growth_at_most(part, |id| partition.shared.view.lookup(id).is_some());
        }
        Ok(self.tally.keep(more, &quota))
    }

    async fn write_part(&self, index: u32, write: Write, room: Room) -> Result<Applied, EngineError> {
        let bytes = weight(&write);
        self.partition(index).await?.write(write, bytes, room).await
    }

    /// Adds declared fields, and sets the quota if there is one.  Another type for a field is
    /// `Code::TypeMismatch`.
    pub async fn declare(
        &self,
        fields: &BTreeMap<FieldName, FieldType>,
        quota: Option<Quota>,
    ) -> Result<(), EngineError> {
        self.schema.declare(fields, quota).await
    }

    /// One snapshot per partition.  `session` are positions the snapshot must include.
    pub async fn read(
        &self,
        consistency: Consistency,
        session: &[(u32, Position)],
    ) -> Result<Reading, EngineError> {
        if self.lead.is_following() && consistency != Consistency::Eventual {
            return Err(EngineError::NotLeading);
        }
        let parts = self.indexes().map(|index| async move {
            let partition = self.partition(index).await?;
            let pinned = partition.pin();
            // After the pin: who led then knew of every write acknowledged before (P14).
            if self.asks_bucket(consistency) {
                partition.verify().await?;
            }
            let wanted = session
                .iter()
                .find(|(part, _)| *part == index)
                .map(|(_, position)| *position);
            if wanted.is_some_and(|wanted| wanted > pinned.position) {
                return Err(EngineError::Unavailable(
                    "this server has not seen what the session token has seen".into(),
                ));
            }
            Ok((partition, pinned))
        });
        let opened = try_join_all(parts).await?;
        // After the pins: a snapshot never shows a field that this schema does not have.
        Ok(Reading::new(self.schema(), opened))
    }

    /// Whether the snapshot just taken counts only once the bucket confirms who leads.
    fn asks_bucket(&self, consistency: Consistency) -> bool {
        match (consistency, self.env.settings.sharing) {
            (Consistency::Verified, _) => true,
            (Consistency::Session | Consistency::Eventual, _) => false,
            (Consistency::Strong, Sharing::Locked) => false,
            (Consistency::Strong, Sharing::LastComer) => true,
            (Consistency::Strong, Sharing::Terms) => !self.lead.is_certain(),
        }
    }

    pub(crate) fn add_open_stats(&self, stats: &mut OpenStats) {
        for partition in self.open_partitions() {
            let pinned = partition.pin();
            stats.partitions += 1;
            stats.rows += pinned.snapshot.live_rows();
            stats.bytes += pinned.base.as_ref().map_or(0, |b| b.bytes());
            stats.epoch = stats.epoch.max(pinned.position.epoch.0);
            stats.position += pinned.position.slot.0;
        }
    }

    pub async fn stats(&self) -> Result<Stats, EngineError> {
        let mut stats = Stats::default();
        for index in self.indexes() {
            let pinned = self.partition(index).await?.pin();
            stats.rows += pinned.snapshot.live_rows();
            stats.unindexed_rows += pinned.snapshot.fresh_rows();
            stats.bytes += pinned.base.as_ref().map_or(0, |b| b.bytes());
            stats.positions.push((index, pinned.position));
        }
        Ok(stats)
    }

    /// Returns when every row acknowledged before the call is in the base table and in a
    /// sealed segment.
    pub async fn optimize(&self) -> Result<(), EngineError> {
        try_join_all(
            self.indexes()
                .map(|index| async move { self.partition(index).await?.optimize().await }),
        )
        .await?;
        Ok(())
    }

    pub(crate) fn indexes(&self) -> std::ops::Range<u32> {
        0..self.cells.len() as u32
    }

    /// Opens it when it is not.
    pub(crate) async fn partition(&self, index: u32) -> Result<Arc<Partition>, EngineError> {
        *self.used.lock() = Instant::now();
        self.lead.check()?;
        let cell = &self.cells[index as usize];
        if let Some(open) = cell.sound() {
            return Ok(open);
        }
        // A task of its own, to its end: callers that give up early must neither leave a
        // half-made claim nor throw an opened partition away, or it would never stay open.
        let opening = Opening {
            env: self.env.clone(),
            lead: self.lead.clone(),
            schema: self.schema.clone(),
            cell: cell.clone(),
            tally: self.tally.clone(),
            index,
        };
        let tasks = &self.env.tasks;
        let task = tasks.spawn("partition open", rhumb_seams::OnExit::Fine, opening.run());
        let opened = task
            .await
            .map_err(|e| EngineError::Bug(format!("opening panicked: {e}")))?;
        if let Err(EngineError::Refused(problem)) = &opened
            && problem.code == Code::CollectionNotFound
        {
            self.gone.store(true, Ordering::Relaxed);
        }
        opened
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(crate) fn open_partitions(&self) -> Vec<Arc<Partition>> {
        self.cells
            .iter()
            .filter_map(|cell| cell.open.lock().clone())
            .collect()
    }

    pub(crate) fn last_used(&self) -> Instant {
        *self.used.lock()
    }

    /// Closes what nobody uses; returns how many.
    pub(crate) async fn close_idle(&self) -> usize {
        let mut closed = 0;
        for cell in &self.cells {
            let _changing = cell.changing.lock().await;
            let idle = {
                let mut open = cell.open.lock();
                // Taken out under the lock, so that nobody is handed one that is closing.
                match open.as_ref() {
                    Some(p) if Arc::strong_count(p) == 1 && p.is_idle() => open.take(),
                    _ => None,
                }
            };
            if let Some(partition) = idle {
                partition.close().await;
                closed += 1;
            }
        }
        closed
    }

    pub(crate) async fn close(&self) {
        for cell in &self.cells {
            let _changing = cell.changing.lock().await;
            let open = cell.open.lock().take();
            if let Some(partition) = open {
                partition.close().await;
            }
        }
    }

    /// Opens each partition if need be, stops it and seals it for good.
    pub(crate) async fn seal(&self) -> Result<(), EngineError> {
        for index in self.indexes() {
            match self.partition(index).await {
                Ok(partition) => partition.seal().await?,
                // Sealed by an earlier attempt, which may have got as far as its keys.
                Err(EngineError::Store(
                    StoreError::Sealed { .. } | StoreError::Key(KeyProblem::Destroyed { .. }),
                )) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// What it takes to open a partition.
struct Opening {
    env: Arc<Env>,
    lead: Lead,
    schema: Arc<SchemaCell>,
    cell: Arc<Cell>,
    tally: Arc<Tally>,
    index: u32,
}

impl Opening {
    async fn run(self) -> Result<Arc<Partition>, EngineError> {
        let cell = self.cell.clone();
        let _changing = cell.changing.lock().await;
        if let Some(open) = cell.sound() {
            return Ok(open);
        }
        let unsound = cell.open.lock().take();
        if let Some(unsound) = unsound {
            unsound.close().await;
        }
        self.check().await?;
        if self.lead.is_following() {
            let following = Following {
                env: self.env,
                schema: self.schema,
                tally: self.tally,
                index: self.index,
                cell: cell.clone(),
            };
            let partition = following.open().await?;
            *cell.open.lock() = Some(partition.clone());
            return Ok(partition);
        }
        let was_certain = self.lead.is_certain();
        let whose = match was_certain {
            true => Whose::Anybodys,
            // A stalled process must not take anything from whoever replaced it (P16).
            false => Whose::Nobodys,
        };
        let opened = Partition::open(
            self.env.clone(),
            self.lead.clone(),
            self.schema,
            self.tally.share(self.index),
            whose,
        )
        .await;
        if opened.as_ref().is_err_and(EngineError::is_fenced) {
            self.env.fence(&self.lead);
        }
        let partition = Arc::new(opened?);
        // The claim may have come after a stall, over the head of a successor that trusts its
        // Lease: nothing may be acknowledged then that the successor does not see.
        if was_certain && !self.lead.is_certain() {
            partition.close().await;
            self.lead.check()?;
            return Err(EngineError::Unavailable(
                "this node cannot tell whether it still leads the collection".into(),
            ));
        }
        *cell.open.lock() = Some(partition.clone());
        // Whoever ends the term closes what is open then; this may have come after.
        if self.lead.is_over() {
            let late = cell.open.lock().take();
            if let Some(late) = late {
                late.close().await;
            }
            return Err(EngineError::NotLeading);
        }
        Ok(partition)
    }

    async fn check(&self) -> Result<(), EngineError> {
        self.lead.check()?;
        if self.env.fenced.is_cancelled() {
            return Err(EngineError::Fenced);
        }
        if let Some(sole_writer) = &self.env.sole_writer {
            let checked = sole_writer.check().await;
            if checked.as_ref().is_err_and(EngineError::is_fenced) {
                self.env.fenced.cancel();
            }
            checked?;
        }
        Ok(())
    }
}
