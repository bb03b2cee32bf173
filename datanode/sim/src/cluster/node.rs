//! One pod: a container that may be started, killed, paused and started again, and in it
//! the real electors, reporters and watches, with a model of the engine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rhumb_cluster::{Clients, Cluster, Identity, Leader, Settings, Timing};
use rhumb_seams::{Clock, Rand, Term};
use tokio::sync::{mpsc, oneshot};

use super::engine::Engine;
use super::line::ApiLine;
use super::sabotage::Sabotage;
use super::simulation::ClusterSim;
use crate::process::Process;

pub const DATABASE: &str = "words";
pub const NAMESPACE: &str = "prod";
pub const BUCKET_UID: &str = "bucket";
pub const TIMING: Timing = Timing {
    duration: Duration::from_secs(4),
    renew_deadline: Duration::from_millis(2_500),
    retry: Duration::from_millis(800),
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

pub(super) enum Call {
    Client {
        slot: u32,
        kind: Kind,
        served: oneshot::Sender<bool>,
    },
    Drain,
}

pub struct Pod {
    pub name: String,
    pub uid: String,
    pub line: ApiLine,
    engine: Arc<Engine>,
    boots: u32,
    running: Option<Running>,
    is_leaving: bool,
}

struct Running {
    process: Process,
    cluster: Cluster,
    calls: mpsc::UnboundedSender<Call>,
    is_paused: bool,
    drained: Arc<Mutex<bool>>,
}

impl Pod {
    pub(super) fn new(sim: &ClusterSim, number: u32) -> Self {
        let name = format!("pod-{number}");
        Self {
            line: sim.line(&name),
            engine: Arc::new(sim.engine(&name)),
            uid: format!("uid-{number}"),
            name,
            boots: 0,
            running: None,
            is_leaving: false,
        }
    }

    /// A new process in the same container; an old one is dead before it.
    pub fn start(&mut self, sim: &ClusterSim) {
        self.kill();
        self.boots += 1;
        self.engine = Arc::new(sim.engine(&self.name));
        let me = match sim.sabotage {
            Some(Sabotage::OnePod) => identity("pod", "uid", &format!("{}-{}", self.name, self.boots)),
            _ => identity(&self.name, &self.uid, &self.boots.to_string()),
        };
        sim.trace.note(format_args!("{me} starts"));
        // No two machines agree on the time of day.
        let clock = Clock::starting_at(1_800_000_000_000 + sim.rand.below(1_000_000_000) as i64);
        let clients = Clients {
            watching: self.line.client(),
            writing: self.line.client(),
        };
        let world = (clock, Rand::from_seed(sim.rand.u64()));
        let settings = settings(sim, &self.name, &self.uid);
        let (cluster, loops) = Cluster::prepare(
            &settings,
            me,
            BUCKET_UID.into(),
            self.engine.clone(),
            clients,
            world,
        );
        let (calls, queue) = mpsc::unbounded_channel();
        let drained = Arc::new(Mutex::new(false));
        let served = serve(queue, cluster.clone(), self.engine.clone(), drained.clone());
        let loops = join_all(loops.into_iter().map(|one| one.work));
        let work = async move {
            // Neither ends before the process does.
            futures::join!(loops, served);
        };
        self.running = Some(Running {
            process: Process::start(&sim.tasks, work),
            cluster,
            calls,
            is_paused: false,
            drained,
        });
    }

    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.process.kill();
        }
    }

    /// SIGSTOP: its requests under way go on without it, and so does time.
    pub fn pause(&mut self) {
        if let Some(running) = &mut self.running {
            running.is_paused = true;
            running.process.pause();
        }
    }

    pub fn resume(&mut self) {
        if let Some(running) = &mut self.running {
            running.is_paused = false;
            running.process.resume();
        }
    }

    /// SIGTERM: hands over what it leads; it is killed later.
    pub fn drain(&mut self) {
        self.is_leaving = true;
        self.send(Call::Drain);
    }

    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    pub fn is_drained(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| *running.drained.lock())
    }

    /// Of its newest process.
    pub fn identity(&self) -> String {
        identity(&self.name, &self.uid, &self.boots.to_string()).to_string()
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// As probes would find it.
    pub fn answers(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.is_paused)
    }

    pub fn leader(&self, slot: u32) -> Option<Leader> {
        Some(self.running.as_ref()?.cluster.board.leader(slot))
    }

    /// The term under which its process leads `slot`.
    pub fn term(&self, slot: u32) -> Option<Term> {
        match self.leader(slot)? {
            Leader::Me(term) if !term.has_ended() => Some(term),
            Leader::Me(_) | Leader::Peer { .. } | Leader::Nobody => None,
        }
    }

    /// What a client sends here; `None` when nobody listens.
    pub(super) fn call(&self, slot: u32, kind: Kind) -> Option<oneshot::Receiver<bool>> {
        let (served, answer) = oneshot::channel();
        self.send(Call::Client { slot, kind, served }).then_some(answer)
    }

    fn send(&self, call: Call) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.calls.send(call).is_ok())
    }
}

fn identity(pod: &str, uid: &str, boot: &str) -> Identity {
    Identity {
        pod: pod.into(),
        uid: uid.into(),
        boot: boot.into(),
    }
}

fn settings(sim: &ClusterSim, pod: &str, uid: &str) -> Settings {
    let mut timing = TIMING;
    match sim.sabotage {
        Some(Sabotage::Impatience) => timing.duration = Duration::from_secs(1),
        Some(Sabotage::LazyRenewal) => timing.retry = Duration::from_secs(10),
        _ => {}
    }
    Settings {
        database: DATABASE.into(),
        namespace: NAMESPACE.into(),
        pod: pod.into(),
        pod_uid: uid.into(),
        pod_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        shards: sim.slots,
        peer_listen: SocketAddr::from(([0, 0, 0, 0], 7481)),
        peer_name: "words-nodes.prod.svc".into(),
        tls_dir: "/nowhere".into(),
        timing,
    }
}

/// Serves until the process ends.
async fn serve(
    mut queue: mpsc::UnboundedReceiver<Call>,
    cluster: Cluster,
    engine: Arc<Engine>,
    drained: Arc<Mutex<bool>>,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let call = tokio::select! {
            biased;
            call = queue.recv() => call,
            Some(()) = under_way.next() => continue,
        };
        // The sender lives as long as the process.
        let Some(call) = call else { return };
        let (cluster, engine, drained) = (&cluster, &engine, &drained);
        under_way.push(async move {
            match call {
                Call::Client { slot, kind, served } => {
                    let was_served = answer(cluster, engine, slot, kind).await;
                    // The client may have given up.
                    let _ = served.send(was_served);
                }
                Call::Drain => {
                    cluster.drain().await;
                    *drained.lock() = true;
                }
            }
        });
    }
}

async fn answer(cluster: &Cluster, engine: &Engine, slot: u32, kind: Kind) -> bool {
    let Leader::Me(term) = cluster.board.leader(slot) else {
        return false;
    };
    match kind {
        Kind::Read => engine.read(slot, &term).await.is_ok(),
        Kind::Write => engine.write(slot, &term).await.is_ok(),
    }
}
