//! One run: a world, its inhabitants and its weather, all from one seed.

use std::sync::Arc;
use std::time::Duration;

use rhumb_core::CollectionId;
use rhumb_seams::{Clock, Ids, Rand, Tasks};
use rhumb_store::StoreError;
use rhumb_store::crypt::MasterKey;
use rhumb_store::deviation;
use rhumb_store::log::takeover;

use crate::base::Op;
use crate::history::{History, Summary};
use crate::nemesis::{self, Temper, Victim};
use crate::network::{LATEST, Line, Weather};
use crate::node::{Habits, Node, recover};
use crate::sabotage::Sabotage;
use crate::trace::Trace;
use crate::world::World;

/// When every world begins.
const STARTED_MS: i64 = 1_800_000_000_000;

/// What a seed does not decide.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    pub sabotage: Option<Sabotage>,
    /// Keep every line of the trace.
    pub keep_trace: bool,
    /// Client-side encryption.  The store itself then sees nothing that it could watch.
    pub encrypted: bool,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    /// Empty when everything can be explained.
    pub violations: Vec<String>,
    pub summary: Summary,
    /// Of every request and every answer, in order.
    pub trace_hash: u64,
    pub requests: u64,
    /// Of the storm alone: the two months that `judge` lets pass do not count.
    pub simulated: Duration,
    pub trace: Vec<String>,
}

/// The parts of a world, for scenarios that are written out.
pub struct Simulation {
    pub world: World,
    pub history: History,
    pub rand: Rand,
    pub clock: Clock,
    pub collection: CollectionId,
    pub tasks: Tasks,
    trace: Trace,
    sabotage: Option<Sabotage>,
    master_key: Option<Arc<MasterKey>>,
}

impl Simulation {
    /// Call it inside a paused current-thread runtime.
    pub fn new(seed: u64, plan: Plan) -> Self {
        let rand = Rand::from_seed(seed);
        let clock = Clock::starting_at(STARTED_MS);
        let trace = Trace::new(plan.keep_trace);
        let id = Ids::new(clock.clone(), rand.clone()).ulid();
        let collection = CollectionId::parse(&id).expect("a ULID names a collection");
        Self {
            world: World::new(clock.clone(), trace.clone()),
            history: History::new(trace.clone()),
            rand,
            clock,
            collection,
            tasks: Tasks::new(),
            trace,
            sabotage: plan.sabotage,
            master_key: plan.encrypted.then(master_key),
        }
    }

    /// A server that is not running yet.
    pub fn node(&self, name: &str, habits: Habits) -> Node {
        Node {
            name: name.into(),
            world: self.world.clone(),
            line: Line::new(name, &self.rand),
            history: self.history.clone(),
            habits,
            collection: self.collection.clone(),
            clock: self.clock.clone(),
            rand: Rand::from_seed(self.rand.u64()),
            sabotage: self.sabotage,
            master_key: self.master_key.clone(),
        }
    }

    /// Takes the partition over in calm weather and says what is in it.
    pub async fn recover(&self, name: &str) -> Result<Vec<Op>, StoreError> {
        let mut habits = Habits::random(&self.rand);
        habits.retry = Default::default();
        let node = self.node(name, habits);
        let folder = node.folder().await;
        let began = self.history.read_began();
        let mut held = takeover(&folder, name).await?;
        let ops = recover(&folder, held.claim.state(), &mut held.tail).await?;
        self.history.read_ended(name, began, ops.clone());
        Ok(ops)
    }

    /// Recovers, lets every request that is still under way arrive, and recovers again:
    /// the fence of the first recovery must have decided what is in the log for ever.
    pub async fn judge(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut recovered = Vec::new();
        for name in ["first recovery", "second recovery"] {
            match self.recover(name).await {
                Ok(ops) => recovered = ops,
                Err(e) => found.push(format!("{name}: {e}")),
            }
            tokio::time::sleep(LATEST + Duration::from_secs(3_600)).await;
        }
        found.extend(self.history.check(&recovered));
        if self.sabotage.is_none() && self.master_key.is_none() {
            // A sabotaged run has to be seen by what clients see, and what is sealed can be
            // seen by nobody else.
            found.extend(self.world.violations());
        }
        found
    }

    pub async fn report(&self, seed: u64) -> Report {
        let simulated = Duration::from_millis((self.clock.unix_ms() - STARTED_MS).max(0) as u64);
        let violations = self.judge().await;
        Report {
            seed,
            violations,
            summary: self.history.summary(),
            trace_hash: self.trace.hash(),
            requests: self.world.requests(),
            simulated,
            trace: self.trace.take_lines(),
        }
    }
}

fn master_key() -> Arc<MasterKey> {
    let text = format!("{}00", "5a".repeat(31));
    Arc::new(MasterKey::parse(&text).expect("32 bytes in hex are a key"))
}

/// Runs a seed to its end.  The runtime is its own: current thread, paused clock.
pub fn run_seed(seed: u64, plan: Plan) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the machine");
    runtime.block_on(async {
        let simulation = Simulation::new(seed, plan);
        {
            let _broken = deviation::deviate(plan.sabotage.and_then(Sabotage::deviation));
            storm(&simulation).await;
        }
        simulation.report(seed).await
    })
}

/// Some nodes, some readers, and trouble.
async fn storm(simulation: &Simulation) {
    let rand = &simulation.rand;
    let temper = Temper::random(rand);
    let (leaders, readers) = (2 + rand.below(3), rand.below(3));
    let mut victims = Vec::new();
    for n in 0..leaders + readers {
        let mut habits = Habits::random(rand);
        habits.damage = temper.damage;
        habits.mixed = readers > 0;
        let reads_only = n >= leaders;
        let name: Arc<str> = format!("{}{n}", if reads_only { "reader" } else { "node" }).into();
        let node = simulation.node(&name, habits);
        node.line.set(if rand.below(2) == 0 {
            Weather::calm()
        } else {
            nemesis::weather(temper, rand)
        });
        victims.push(Victim::start(node, reads_only, &simulation.tasks));
    }
    let long = Duration::from_millis(5_000 + rand.below(60_000));
    nemesis::strike(&mut victims, temper, long, rand, &simulation.tasks).await;
    // The zombies wake up and learn where they are.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for victim in &victims {
        victim.process.kill();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
}
