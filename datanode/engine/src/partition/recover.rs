//! Opening a partition: claim, fence, read the tail, rebuild the view (P14).
//!
//! The order matters: the epoch is ours and the log is fenced before anything is read that
//! an answer may rest on.  Recovery never repairs by guessing: what breaks an invariant
//! stops here with `Corrupt`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use parking_lot::{Mutex, RwLock};
use rhumb_core::ids::IdKind;
use rhumb_core::{DocId, Held, Position, Seq, Slot};
use rhumb_seams::{CancellationToken, OnExit};
use rhumb_store::log::{
    Barrier, Claim, Log, PartitionFolder, Record, Replay, Takeover, takeover, takeover_if_free,
};
use rhumb_view::{Keys, Segment, View};
use tokio::sync::{mpsc, watch};

use crate::base::{self, Base, FragmentInfo};
use crate::entry::LogEntry;
use crate::env::Env;
use crate::error::EngineError;
use crate::idem;
use crate::lead::Lead;
use crate::partition::index::Indexer;
use crate::partition::maintain::Maintenance;
use crate::partition::memtable::Memtable;
use crate::partition::pace::Pace;
use crate::partition::writer::Writer;
use crate::partition::{Partition, QUEUE, Shared, Whose};
use crate::rows;
use crate::schema_cell::SchemaCell;
use crate::tally::Share;
use crate::view_files::ViewFiles;

/// Flush jobs waiting for maintenance; the memtable budget stops writers long before.
const FLUSH_QUEUE: usize = 64;

impl Partition {
    pub async fn open(
        env: Arc<Env>,
        lead: Lead,
        schema: Arc<SchemaCell>,
        share: Share,
        whose: Whose,
    ) -> Result<Self, EngineError> {
        let index = share.index();
        let started = tokio::time::Instant::now();
        let place = PartitionFolder::new(&env.bucket, &schema.entry().id, index);
        let Takeover {
            log,
            claim,
            barrier,
            mut tail,
            tail_slots,
        } = match whose {
            Whose::Anybodys => takeover(&place, &env.holder).await?,
            Whose::Nobodys => takeover_if_free(&place, &env.holder).await?,
        };
        let state = claim.state().clone();
        let folder = format!("c/{}/p{index}", schema.entry().id);
        let name = format!("{}/p{index}", schema.entry().name);
        let base = match state.base {
            Some(version) => Some(Base::open(&env.lance, &table_url(&env, &folder), version).await?),
            None => None,
        };
        let view = View::new();
        if let Some(base) = &base {
            for fragment in base.fragments().await? {
                load_segment(&view, base, &fragment, schema.schema().id_kind).await?;
            }
        }
        let mut idempotency = saved_keys(&env, &folder, &state.idem).await?;
        let mut memtable = Memtable::new(state.applied);
        let entries = tail.len();
        while let Some(record) = next_record(&mut tail, &barrier).await? {
            let position = Position {
                epoch: record.trailer.epoch,
                slot: record.trailer.slot,
            };
            let entry = LogEntry::decode(&record.body, &schema.schema(), position)?;
            memtable.replay(&entry, record.body.len());
            view.apply(&super::writer::changes(entry.rows));
            entry.idempotency.into_iter().for_each(|e| idempotency.insert(e));
        }
        // Fences count too: a tail of nothing else must not grow with every restart.
        memtable.entries = memtable.entries.max(tail_slots.saturating_sub(1));
        env.memtables.add(memtable.bytes);
        let held = Held {
            rows: view.snapshot().live_rows(),
            bytes: base.as_ref().map_or(0, Base::bytes),
        };
        share.opened(held);
        tracing::info!(
            partition = name,
            epoch = claim.epoch().0,
            entries,
            rows = held.rows,
            took_ms = started.elapsed().as_millis() as u64,
            "partition opened"
        );
        let position = Position {
            epoch: claim.epoch(),
            slot: log.tip(),
        };
        let shared = Arc::new(Shared::new(
            env,
            (lead, schema, share),
            (folder, name),
            (view, base),
            (position, state.applied),
        ));
        Ok(Self::start(shared, log, claim, barrier, idempotency, memtable))
    }

    fn start(
        shared: Arc<Shared>,
        log: Log,
        claim: Claim,
        barrier: Barrier,
        idempotency: idem::Index,
        memtable: Memtable,
    ) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (hand_over, jobs) = mpsc::channel(FLUSH_QUEUE);
        let writer = Writer {
            shared: shared.clone(),
            next_seq: log.next_seq(),
            log,
            requests: queue,
            jobs: hand_over,
            idempotency,
            memtable,
            pace: Pace::default(),
        };
        let closing = CancellationToken::new();
        let maintenance = Maintenance::new(shared.clone(), claim, jobs, closing.clone());
        let indexer = Indexer::new(shared.clone(), closing.clone());
        let tasks = &shared.env.tasks;
        let writer = tasks.spawn("partition writer", OnExit::Fine, writer.run());
        let maintenance = tasks.spawn("partition maintenance", OnExit::Fine, maintenance.run());
        tasks.spawn("partition indexer", OnExit::Fine, indexer.run());
        Self {
            shared,
            barrier: Some(barrier),
            requests,
            tasks: Mutex::new(Some((writer, maintenance))),
            _closing_guard: closing.clone().drop_guard(),
            closing,
        }
    }
}

/// Whether an error of the tail is to be believed, the barrier says: a newer holder's GC
/// makes holes.
async fn next_record(tail: &mut Replay, barrier: &Barrier) -> Result<Option<Record>, EngineError> {
    match tail.next().await {
        Ok(record) => Ok(record),
        Err(suspicion) => Err(barrier.confirm(suspicion).await.into()),
    }
}

impl Shared {
    pub(super) fn new(
        env: Arc<Env>,
        (lead, schema, share): (Lead, Arc<SchemaCell>, Share),
        (folder, name): (String, String),
        (view, base): (View, Option<Base>),
        (position, applied): (Position, Slot),
    ) -> Self {
        Self {
            files: Arc::new(ViewFiles::new(env.bucket.clone(), &folder)),
            raws: Arc::default(),
            index_due: Arc::default(),
            index_asked: AtomicU64::new(0),
            indexed: watch::Sender::new(0),
            shown: AtomicUsize::new(0),
            name,
            folder,
            env,
            lead,
            schema,
            share,
            view,
            base: RwLock::new(base),
            position: watch::Sender::new(position),
            applied: AtomicU64::new(applied.0),
            halted: Mutex::new(None),
            unsound: AtomicBool::new(false),
        }
    }
}

pub fn table_url(env: &Env, folder: &str) -> String {
    env.lance.url(&format!("{folder}/table"))
}

/// Keys and versions of a fragment's rows; dead rows get a filler that nobody looks up.
pub(super) async fn load_segment(
    view: &View,
    base: &Base,
    fragment: &FragmentInfo,
    id_kind: Option<IdKind>,
) -> Result<(), EngineError> {
    let filler = match id_kind {
        Some(IdKind::Num) => DocId::Num(0),
        _ => DocId::from(""),
    };
    let mut keys = Keys::builder();
    let mut seqs = Vec::with_capacity(fragment.physical_rows as usize);
    base.scan(fragment.id, &base::with_keys([]), |offsets, batch| {
        let ids = rows::decode_ids(&batch)?;
        for ((offset, id), seq) in offsets.iter().zip(&ids).zip(rows::decode_seqs(&batch)?) {
            while seqs.len() < *offset as usize {
                keys.push(&filler).map_err(corrupt)?;
                seqs.push(Seq(0));
            }
            keys.push(id).map_err(corrupt)?;
            seqs.push(seq);
        }
        Ok(())
    })
    .await?;
    while seqs.len() < fragment.physical_rows as usize {
        keys.push(&filler).map_err(corrupt)?;
        seqs.push(Seq(0));
    }
    let segment = Segment::new(fragment.id, keys.finish(), seqs).map_err(corrupt)?;
    view.add_segment(segment, &fragment.dead).map_err(corrupt)?;
    Ok(())
}

async fn saved_keys(
    env: &Env,
    folder: &str,
    files: &[rhumb_store::state::IdemFile],
) -> Result<idem::Index, EngineError> {
    let mut index = idem::Index::default();
    for file in files {
        let path = env.bucket.path(&format!("{folder}/idem/{}", file.name));
        let (bytes, _) = env
            .bucket
            .get(&path)
            .await?
            .ok_or_else(|| EngineError::Corrupt(format!("{path} is named by STATE and missing")))?;
        if !file.is_of(&bytes) {
            return Err(EngineError::Corrupt(format!("{path} is damaged")));
        }
        idem::from_json(&bytes)?
            .into_iter()
            .for_each(|entry| index.insert(entry));
    }
    index.expire(env.clock.unix_ms());
    Ok(index)
}

fn corrupt(e: rhumb_view::ViewError) -> EngineError {
    EngineError::Corrupt(e.to_string())
}
