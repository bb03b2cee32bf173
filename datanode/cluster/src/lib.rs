//! The data node in a cluster: which slots it leads, who leads the others, and how requests
//! get there.
//!
//! A database has a fixed number of slots; `slot_of` says which one a collection belongs
//! to.  Each slot has a Shard, by which the operator says who should lead it, and a Lease,
//! by which the data nodes agree on who does.  Nothing here makes writes safe: that is the
//! epoch in the bucket.  What a term of leadership is worth to readers, `rhumb_seams::Term`
//! says.
//!
//! `rules` is pure; an `Elector` per slot carries them out; `status` reports to the Shards;
//! `peers` and `tls` are the wires between data nodes.

mod board;
mod elector;
mod follow;
mod lease;
mod peers;
mod placement;
mod rules;
mod settings;
mod slots;
mod status;
#[cfg(test)]
mod testing;
mod tls;

pub use board::{Board, Leader};
pub use peers::{Body, PeerError, Peers};
pub use rules::{Identity, Timing};
pub use settings::{Settings, SettingsError};
pub use slots::slot_of;
pub use tls::{Tls, TlsError};

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use rhumb_crds::Shard;
use rhumb_seams::{CancellationToken, Clock, OnExit, Rand, Tasks};
use tokio::sync::watch;

use elector::Elector;
use follow::{Slots, follow};
use placement::Placement;
use status::Reporter;

/// What is led: the engine, seen from the election.
pub trait Led: Send + Sync {
    /// Makes the next leader's start cheap, while this one goes on serving.
    fn flush(&self, slot: u32) -> BoxFuture<'_, ()>;
    /// The term has ended: returns when nothing of it is under way.
    fn settle(&self, slot: u32) -> BoxFuture<'_, ()>;
    fn report(&self, slot: u32) -> Report;
    /// Whether the bucket can be reached.
    fn store(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// What a slot holds, of the partitions that are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub epoch: u64,
    pub position: u64,
    pub partitions: u64,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("kubernetes: {0}")]
    Config(#[from] kube::config::InClusterError),
    #[error("kubernetes: {0}")]
    Client(#[from] kube::Error),
}

/// This process's part in the cluster.  Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub board: Board,
    pod: String,
    shards: Arc<Slots<Shard>>,
    drain: CancellationToken,
    drained: watch::Receiver<u32>,
}

/// What the world gives.
pub struct World {
    pub clock: Clock,
    pub rand: Rand,
    pub tasks: Tasks,
}

/// Longer than a watch lasts, so that only a dead connection is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// How the API server is reached.
pub struct Clients {
    pub watching: Client,
    /// Repeats nothing by itself: a renewal that is retried for minutes is a lease that is
    /// lost.
    pub writing: Client,
}

/// Work of a member that goes on as long as its process does.
pub struct Loop {
    pub name: &'static str,
    pub work: BoxFuture<'static, ()>,
}

impl Cluster {
    /// Joins the cluster this pod runs in.
    pub fn join(
        settings: &Settings,
        me: Identity,
        bucket_uid: String,
        led: Arc<dyn Led>,
        world: World,
    ) -> Result<Self, ClusterError> {
        let mut strict = Config::incluster()?;
        // The client would go on for minutes, with ever longer pauses; whoever asks here knows
        // better when to ask again.
        strict.default_retry = false;
        let mut patient = strict.clone();
        patient.read_timeout = Some(SILENCE);
        let clients = Clients {
            watching: Client::try_from(patient)?,
            writing: Client::try_from(strict)?,
        };
        let World { clock, rand, tasks } = world;
        let (cluster, loops) = Self::prepare(settings, me, bucket_uid, led, clients, (clock, rand));
        for Loop { name, work } in loops {
            let stopping = tasks.stopping().clone();
            tasks.spawn(name, OnExit::Stop, async move {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => {}
                    () = work => {}
                }
            });
        }
        Ok(cluster)
    }

    /// A member and its loops, none of which runs yet: the simulator runs them itself.
    pub fn prepare(
        settings: &Settings,
        me: Identity,
        bucket_uid: String,
        led: Arc<dyn Led>,
        clients: Clients,
        (clock, rand): (Clock, Rand),
    ) -> (Self, Vec<Loop>) {
        let (database, namespace) = (&settings.database, &settings.namespace);
        let board = Board::new(settings.shards);
        let drain = CancellationToken::new();
        let (drained, count) = watch::channel(0);
        let leases = Arc::new(Slots::<Lease>::new(settings.shards));
        let shards = Arc::new(Slots::<Shard>::new(settings.shards));
        let placements = shards.clone();
        let mut loops = Vec::new();
        for slot in 0..settings.shards {
            let elector = Elector {
                slot,
                database: database.clone(),
                me: me.clone(),
                address: settings.peer_address(),
                timing: settings.timing,
                bucket_uid: bucket_uid.clone(),
                leases: Api::namespaced(clients.writing.clone(), namespace),
                clock: clock.clone(),
                rand: rand.clone(),
                board: board.clone(),
                led: led.clone(),
                seen: leases.subscribe(slot),
                shard: shards.subscribe(slot),
                drain: drain.clone(),
                drained: drained.clone(),
            };
            loops.push(Loop::new("elector", elector.run()));
            let reporter = Reporter {
                slot,
                database: database.clone(),
                me: me.clone(),
                bucket_uid: bucket_uid.clone(),
                shards: Api::namespaced(clients.writing.clone(), namespace),
                shard: shards.subscribe(slot),
                leader: board.subscribe(slot),
                led: led.clone(),
                clock: clock.clone(),
            };
            loops.push(Loop::new("status", reporter.run()));
        }
        let api = Api::namespaced(clients.watching.clone(), namespace);
        loops.push(Loop::new(
            "lease watch",
            follow(api, database.clone(), leases, rand.clone()),
        ));
        let api = Api::namespaced(clients.watching, namespace);
        loops.push(Loop::new(
            "shard watch",
            follow(api, database.clone(), shards, rand),
        ));
        let cluster = Self {
            board,
            pod: me.pod,
            shards: placements,
            drain,
            drained: count,
        };
        (cluster, loops)
    }

    /// Whether this pod is to lead the slot or to keep it warm.
    pub fn is_listed(&self, slot: u32) -> bool {
        let shard = self.shards.subscribe(slot);
        Placement::read(&shard.borrow(), &self.pod).is_listed
    }

    /// Hands every slot over and leads nothing any more; returns when that is done.
    pub async fn drain(&self) {
        self.drain.cancel();
        let mut drained = self.drained.clone();
        let slots = self.board.slots();
        // An error means that the electors have ended: nothing is left to hand over.
        let _ = drained.wait_for(|count| *count >= slots).await;
    }
}

impl Loop {
    fn new(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            name,
            work: Box::pin(work),
        }
    }
}
