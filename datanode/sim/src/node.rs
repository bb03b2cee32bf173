//! A server that wants to lead the one partition: takes it over, appends for its clients,
//! checkpoints, collects, answers strong reads, hands back or is fenced, and starts again.
//!
//! Appending, maintenance and reading run side by side as in the engine; what they share
//! is the view.  Everything durable goes through the real `rhumb-store`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, select_all};
use object_store::path::Path;
use parking_lot::Mutex;
use rhumb_core::{CollectionId, Epoch, Seq, Slot};
use rhumb_seams::{Clock, Ids, Rand};
use rhumb_store::cas::Cas;
use rhumb_store::crypt::MasterKey;
use rhumb_store::deviation::Deviation;
use rhumb_store::log::{AppendError, Barrier, Claim, Log, PartitionFolder, Pending, takeover};
use rhumb_store::retry::RetryPolicy;
use rhumb_store::state::State;
use rhumb_store::{Bucket, BucketOptions, ErrorKind, StoreError};

use crate::base::{self, Op};
use crate::history::History;
use crate::network::Line;
use crate::sabotage::Sabotage;
use crate::world::World;

/// How a node behaves; drawn per node.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Longest pause between two group commits.
    pub think: Duration,
    /// Most operations of one group commit.
    pub group: u64,
    /// Longest pause between two checkpoints, and between two strong reads.
    pub checkpoint: Duration,
    pub read: Duration,
    /// Longest pause before it contends again.
    pub contend: Duration,
    /// Times it repeats a PUT of unknown outcome before it steps down.
    pub patience: u32,
    /// Chance to hand back after a group commit.
    pub hand_back: f64,
    pub retry: RetryPolicy,
    /// Others read the bucket meanwhile, so a strong read waits for records on their way.
    pub mixed: bool,
    /// Reads may be damaged often enough that giving up as corrupt is right.
    pub damage: bool,
}

impl Habits {
    pub fn random(rand: &Rand) -> Self {
        let up_to = |ms: u64| Duration::from_millis(1 + rand.below(ms));
        Self {
            think: up_to(400),
            group: 1 + rand.below(4),
            checkpoint: up_to(3_000),
            read: up_to(1_000),
            contend: up_to([1_000, 5_000, 30_000][rand.below(3) as usize]),
            patience: rand.below(6) as u32,
            hand_back: if rand.below(3) == 0 { 0.05 } else { 0.0 },
            retry: RetryPolicy {
                attempts: 1 + rand.below(4) as u32,
                budget: up_to(4_000),
                attempt_timeout: Duration::from_millis(200) + up_to(2_000),
                first_wait: Duration::from_millis(5),
                longest_wait: Duration::from_millis(200),
            },
            mixed: false,
            damage: false,
        }
    }
}

/// Cheap to clone; every clone is the same server after another restart.
#[derive(Clone)]
pub struct Node {
    pub name: Arc<str>,
    pub world: World,
    pub line: Line,
    pub history: History,
    pub habits: Habits,
    pub collection: CollectionId,
    pub clock: Clock,
    pub rand: Rand,
    pub sabotage: Option<Sabotage>,
    pub master_key: Option<Arc<MasterKey>>,
}

/// What a leader knows: every operation of the partition, and up to which slot.
struct View {
    ops: Vec<Op>,
    tip: Slot,
}

/// Why a term as leader ended.
enum End {
    HandBack,
    StepDown,
    Failed(StoreError),
}

type Shared = Arc<Mutex<View>>;

impl Node {
    /// Runs until it is killed.
    pub async fn run(self) {
        let folder = self.folder().await;
        loop {
            self.sleep(self.habits.contend).await;
            if let Err(e) = self.lead(&folder).await {
                self.note(&e, "leading");
            }
        }
    }

    pub(crate) async fn folder(&self) -> PartitionFolder {
        loop {
            match self.open().await {
                Ok(bucket) => return PartitionFolder::new(&bucket, &self.collection, 0),
                Err(e) => self.note(&e, "opening the bucket"),
            }
            self.sleep(Duration::from_secs(1)).await;
        }
    }

    async fn open(&self) -> Result<Bucket, StoreError> {
        let options = BucketOptions {
            ram_cache_bytes: 0,
            retry: self.habits.retry.clone(),
            certify: false,
            master_key: self.master_key.clone(),
            ..BucketOptions::default()
        };
        let rand = Rand::from_seed(self.rand.u64());
        let ids = Ids::new(self.clock.clone(), rand.clone());
        Bucket::open_with(
            self.world.store(self.line.clone()),
            Path::default(),
            options,
            rand,
            ids,
        )
        .await
    }

    async fn lead(&self, folder: &PartitionFolder) -> Result<(), StoreError> {
        let began = self.history.read_began();
        let mut held = takeover(folder, &self.name).await?;
        self.history.took_over();
        let recovered = recover(folder, held.claim.state(), &mut held.tail).await;
        let ops = match recovered {
            Ok(ops) => ops,
            Err(e) => return Err(held.barrier.confirm(e).await),
        };
        self.history.read_ended(&self.name, began, ops.clone());
        let view = Arc::new(Mutex::new(View {
            ops,
            tip: held.log.tip(),
        }));
        let works: [BoxFuture<'_, End>; 3] = [
            self.write(&mut held.log, &view).boxed(),
            self.maintain(folder, &mut held.claim, &view).boxed(),
            self.read(&held.barrier, &view).boxed(),
        ];
        let (end, _, others) = select_all(works).await;
        drop(others);
        match end {
            End::HandBack => {
                held.claim.release(held.log).await?;
                self.history.handed_back();
                Ok(())
            }
            End::StepDown => Ok(()),
            End::Failed(e) => Err(e),
        }
    }

    async fn write(&self, log: &mut Log, view: &Shared) -> End {
        let first_id = self.history.incarnation() << 32;
        let mut next_id = first_id;
        let mut next_seq = if self.sabotage == Some(Sabotage::ForgetVersions) {
            Seq(1)
        } else {
            log.next_seq()
        };
        loop {
            self.sleep(self.habits.think).await;
            let ops: Vec<Op> = (0..1 + self.rand.below(self.habits.group))
                .map(|n| Op {
                    id: next_id + n,
                    seq: Seq(next_seq.0 + n),
                })
                .collect();
            next_id += ops.len() as u64;
            next_seq = Seq(next_seq.0 + ops.len() as u64);
            self.history.invoked(&ops);
            let pending = match log.prepare(base::encode(&ops), next_seq.max(log.next_seq())) {
                Ok(pending) => pending,
                Err(e) => return self.stopped_by(e),
            };
            if self.sabotage == Some(Sabotage::AckBeforePut) {
                self.history.acked(&ops, None);
            }
            if let Some(end) = self.store(log, pending, &ops, view).await {
                return end;
            }
            if self.habits.hand_back > 0.0 && self.rand.unit() < self.habits.hand_back {
                return End::HandBack;
            }
        }
    }

    /// Puts a group commit until its outcome is known or patience ends.
    async fn store(&self, log: &mut Log, mut pending: Pending, ops: &[Op], view: &Shared) -> Option<End> {
        for _ in 0..=self.habits.patience {
            match log.put(&mut pending).await {
                Ok(position) => {
                    let mut view = view.lock();
                    view.ops.extend(ops);
                    view.tip = position.slot;
                    self.history.acked(ops, Some(position));
                    return None;
                }
                Err(AppendError::Unknown { .. }) => {}
                Err(AppendError::Refused(_)) if !pending.in_doubt() => {
                    return match log.take_back(pending) {
                        Ok(()) => {
                            self.history.refused(ops);
                            None
                        }
                        Err(_) => Some(self.broken("a refused record cannot be taken back")),
                    };
                }
                Err(e) => return Some(self.stopped_by(e)),
            }
            self.sleep(Duration::from_millis(300)).await;
        }
        if self.sabotage == Some(Sabotage::UnknownIsFailure) {
            self.history.refused(ops);
        }
        if self.sabotage == Some(Sabotage::Store(Deviation::HandBackInDoubt)) {
            return Some(End::HandBack);
        }
        Some(End::StepDown)
    }

    async fn maintain(&self, folder: &PartitionFolder, claim: &mut Claim, view: &Shared) -> End {
        loop {
            self.sleep(self.habits.checkpoint).await;
            let done = self.maintain_once(folder, claim, view).await;
            if let Err(e) = done
                && !matches!(e.kind(), ErrorKind::Retry | ErrorKind::Conflict)
            {
                return End::Failed(e);
            }
        }
    }

    async fn maintain_once(
        &self,
        folder: &PartitionFolder,
        claim: &mut Claim,
        view: &Shared,
    ) -> Result<(), StoreError> {
        let (ops, tip) = {
            let view = view.lock();
            (view.ops.clone(), view.tip)
        };
        if tip > claim.state().applied {
            self.checkpoint(folder, claim, &ops, tip).await?;
        }
        claim.collect(64).await?;
        if let Some(old) = claim.state().base.and_then(|base| base.checked_sub(2)) {
            base::delete(folder, old).await?;
        }
        if self.rand.below(8) == 0 {
            claim.sweep(200).await?;
        }
        self.collect_wrongly(folder, claim, tip).await
    }

    async fn checkpoint(
        &self,
        folder: &PartitionFolder,
        claim: &mut Claim,
        ops: &[Op],
        tip: Slot,
    ) -> Result<(), StoreError> {
        let newest = claim.state().base.unwrap_or(0);
        let edit = |state: &mut State, version| {
            state.applied = tip;
            state.base = Some(version);
            if let Some(last) = ops.last() {
                state.next_seq = state.next_seq.max(last.seq.next());
            }
            Ok(())
        };
        if self.sabotage == Some(Sabotage::StateBeforeBase) {
            claim.checkpoint(|state| edit(state, newest + 1)).await?;
            base::write(folder, newest, tip, ops).await?;
            return Ok(());
        }
        let Some(version) = base::write(folder, newest, tip, ops).await? else {
            return Ok(());
        };
        if self.sabotage == Some(Sabotage::BlindCheckpoint) {
            return overwrite_state(folder, claim.state(), tip, version).await;
        }
        claim.checkpoint(|state| edit(state, version)).await?;
        self.history.checkpointed();
        Ok(())
    }

    /// What `Sabotage::CollectFences` and `CollectTooMuch` delete.
    async fn collect_wrongly(
        &self,
        folder: &PartitionFolder,
        claim: &Claim,
        tip: Slot,
    ) -> Result<(), StoreError> {
        let doomed: Vec<Slot> = match self.sabotage {
            Some(Sabotage::CollectFences) => claim.state().fences.clone(),
            Some(Sabotage::CollectTooMuch) => (claim.state().applied.0 + 1..=tip.0).map(Slot).collect(),
            _ => return Ok(()),
        };
        for slot in doomed {
            folder.bucket().delete(&folder.slot_path(slot)).await?;
        }
        Ok(())
    }

    async fn read(&self, barrier: &Barrier, view: &Shared) -> End {
        loop {
            self.sleep(self.habits.read).await;
            let began = self.history.read_began();
            // Before or after the barrier: either is right, so either is tried.
            let early = (self.rand.below(2) == 0).then(|| view.lock().ops.clone());
            let issued = barrier.issued();
            if self.sabotage != Some(Sabotage::NoBarrier) {
                match barrier.check().await {
                    Ok(()) => {}
                    Err(e) if e.kind() == ErrorKind::Retry => continue,
                    Err(e) => return End::Failed(e),
                }
            }
            let ops = if !self.habits.mixed || self.sabotage == Some(Sabotage::IgnoreIssued) {
                Some(early.unwrap_or_else(|| view.lock().ops.clone()))
            } else {
                shown(view, issued).await
            };
            if let Some(ops) = ops {
                self.history.read_ended(&self.name, began, ops);
            }
        }
    }

    fn stopped_by(&self, error: AppendError) -> End {
        match error {
            AppendError::Fenced { .. } => {
                self.history.was_fenced();
                End::StepDown
            }
            AppendError::Unknown { .. } => End::StepDown,
            AppendError::Broken { reason } => self.broken(&reason),
            AppendError::Refused(e) => End::Failed(e),
        }
    }

    fn broken(&self, reason: &str) -> End {
        self.history.violation(format!("{}: {reason}", self.name));
        End::StepDown
    }

    /// Tells what is part of life from what must not happen.
    pub(crate) fn note(&self, error: &StoreError, doing: &str) {
        match error.kind() {
            ErrorKind::Retry | ErrorKind::Conflict => {}
            ErrorKind::Fenced => self.history.was_fenced(),
            ErrorKind::Corrupt | ErrorKind::Invalid if self.habits.damage => {}
            ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Bug => {
                self.history
                    .violation(format!("{} while {doing}: {error}", self.name));
            }
        }
    }

    pub(crate) fn sleep(&self, longest: Duration) -> impl Future<Output = ()> + Send + 'static {
        tokio::time::sleep(longest.mul_f64(self.rand.unit()))
    }
}

/// The view once it has reached `slot`; `None` when that takes too long for a reader.
async fn shown(view: &Shared, slot: Slot) -> Option<Vec<Op>> {
    for _ in 0..400 {
        {
            let view = view.lock();
            if view.tip >= slot {
                return Some(view.ops.clone());
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

/// Everything that is durable, by the state and the tail above it.
pub(crate) async fn recover(
    folder: &PartitionFolder,
    state: &State,
    tail: &mut rhumb_store::log::Replay,
) -> Result<Vec<Op>, StoreError> {
    let mut ops = base_of(folder, state).await?;
    while let Some(record) = tail.next().await? {
        ops.extend(base::decode(&record.body));
    }
    Ok(ops)
}

pub(crate) async fn base_of(folder: &PartitionFolder, state: &State) -> Result<Vec<Op>, StoreError> {
    let Some(version) = state.base else {
        return Ok(Vec::new());
    };
    let corrupt = |reason: String| StoreError::Corrupt {
        path: folder.path("table"),
        reason,
    };
    match base::read(folder, version).await? {
        Some((applied, ops)) if applied == state.applied => Ok(ops),
        Some((applied, _)) => Err(corrupt(format!(
            "base {version} goes up to {applied}, the state says {}",
            state.applied
        ))),
        None => Err(corrupt(format!("base {version} is gone"))),
    }
}

/// A checkpoint that asks nobody: what is there loses, whoever wrote it.
async fn overwrite_state(
    folder: &PartitionFolder,
    ours: &State,
    tip: Slot,
    version: u64,
) -> Result<(), StoreError> {
    let cas = Cas::<State>::new(folder.bucket().clone(), folder.state_path());
    let Some(now) = cas.load().await? else {
        return Ok(());
    };
    let mut state = ours.clone();
    state.epoch = Epoch(now.value.epoch.0.max(ours.epoch.0));
    state.holder.clone_from(&now.value.holder);
    (state.applied, state.base) = (tip, Some(version));
    drop(cas.replace(&now, state).await?);
    Ok(())
}
