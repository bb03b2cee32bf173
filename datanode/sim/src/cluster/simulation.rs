//! One cluster from one seed: pods, their API server, their bucket, clients, an operator,
//! and somebody who watches.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rhumb_cluster::Leader;
use rhumb_crds::Shard;
use rhumb_fake_api::FakeApi;
use rhumb_seams::{OnExit, Rand, Tasks};
use tokio::time::{Instant, sleep, timeout};

use super::bucket::Bucket;
use super::engine::Engine;
use super::line::{ApiLine, ApiWeather};
use super::node::{Kind, Pod};
use super::operator;
use super::sabotage::Sabotage;
use crate::history::History;
use crate::trace::Trace;

/// Longer than the operator and the status of Shards take to answer each other.
const STILL: Duration = Duration::from_secs(3);

/// What a seed does not decide.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterPlan {
    pub sabotage: Option<Sabotage>,
    /// Keep every line of the trace.
    pub keep_trace: bool,
}

/// Cheap to clone; all clones are one cluster.
#[derive(Clone)]
pub struct ClusterSim {
    pub slots: u32,
    pub api: FakeApi,
    pub pods: Arc<Mutex<Vec<Pod>>>,
    pub operator_is_up: Arc<Mutex<bool>>,
    /// The operator wants nothing moved.
    pub(super) is_placed: Arc<Mutex<bool>>,
    pub rand: Rand,
    pub tasks: Tasks,
    pub(super) trace: Trace,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) bucket: Bucket,
    histories: Vec<History>,
    violations: Arc<Mutex<Vec<String>>>,
    pods_made: Arc<Mutex<u32>>,
    clients_may_call: Arc<Mutex<bool>>,
}

impl ClusterSim {
    /// Call it inside a paused current-thread runtime.
    pub fn new(seed: u64, slots: u32, plan: ClusterPlan) -> Self {
        let rand = Rand::from_seed(seed);
        let trace = Trace::new(plan.keep_trace);
        Self {
            slots,
            api: FakeApi::default(),
            pods: Arc::default(),
            operator_is_up: Arc::new(Mutex::new(true)),
            is_placed: Arc::default(),
            tasks: Tasks::new(),
            sabotage: plan.sabotage,
            bucket: Bucket::new(slots, &rand, plan.sabotage),
            histories: (0..slots).map(|_| History::new(trace.clone())).collect(),
            violations: Arc::default(),
            pods_made: Arc::default(),
            clients_may_call: Arc::new(Mutex::new(true)),
            trace,
            rand,
        }
    }

    /// Everything begins to run.
    pub fn start(&self, pods: u32, clients: u32) {
        operator::make(self);
        for _ in 0..pods {
            self.add_pod();
        }
        self.spawn("operator", Box::pin(operator::run(self.clone())));
        self.spawn("watchman", Box::pin(self.clone().watch()));
        for _ in 0..clients {
            self.spawn("client", Box::pin(self.clone().use_it()));
        }
    }

    fn spawn(&self, name: &'static str, work: BoxFuture<'static, ()>) {
        self.tasks.spawn(name, OnExit::Fine, work);
    }

    /// A pod that was never there before.
    pub fn add_pod(&self) {
        let number = {
            let mut made = self.pods_made.lock();
            *made += 1;
            *made
        };
        let mut pod = Pod::new(self, number);
        pod.start(self);
        self.pods.lock().push(pod);
    }

    pub(super) fn line(&self, name: &str) -> ApiLine {
        ApiLine::new(
            name,
            self.api.clone(),
            &self.rand,
            self.tasks.clone(),
            self.trace.clone(),
            self.sabotage,
        )
    }

    pub(super) fn engine(&self, name: &str) -> Engine {
        Engine {
            name: name.into(),
            bucket: self.bucket.clone(),
            histories: self.histories.clone(),
            rand: Rand::from_seed(self.rand.u64()),
            sabotage: self.sabotage,
            slots: (0..self.slots).map(|_| Default::default()).collect(),
        }
    }

    pub fn violation(&self, what: String) {
        self.trace.note(format_args!("violation {what}"));
        self.violations.lock().push(what);
    }

    pub fn has_violations(&self) -> bool {
        !self.violations.lock().is_empty()
    }

    /// At most one term of a slot is certain, at any time.
    async fn watch(self) {
        loop {
            sleep(Duration::from_millis(10)).await;
            for slot in 0..self.slots {
                let certain = self.pods_where(|pod| pod.term(slot).is_some_and(|term| term.is_certain()));
                if certain.len() > 1 {
                    self.violation(format!("slot {slot}: {certain:?} are certain at once"));
                    return;
                }
            }
        }
    }

    async fn use_it(self) {
        loop {
            sleep(Duration::from_millis(20 + self.rand.below(300))).await;
            if !*self.clients_may_call.lock() {
                return;
            }
            let slot = self.rand.below(u64::from(self.slots)) as u32;
            let kind = if self.rand.below(2) == 0 {
                Kind::Read
            } else {
                Kind::Write
            };
            let answer = {
                let pods = self.pods.lock();
                let leaders: Vec<&Pod> = pods.iter().filter(|pod| pod.term(slot).is_some()).collect();
                let pod = match leaders.is_empty() {
                    true => pods.get(self.rand.below(pods.len().max(1) as u64) as usize),
                    false => Some(leaders[self.rand.below(leaders.len() as u64) as usize]),
                };
                pod.and_then(|pod| pod.call(slot, kind))
            };
            if let Some(answer) = answer {
                // Served, refused or given up: the histories know.
                let _ = timeout(Duration::from_secs(3), answer).await;
            }
        }
    }

    /// One request to one pod: whether it was served.
    pub async fn call(&self, pod: &str, slot: u32, kind: Kind) -> bool {
        let answer = self.with_pod(pod, |pod| pod.call(slot, kind)).flatten();
        match answer {
            Some(answer) => timeout(Duration::from_secs(30), answer)
                .await
                .is_ok_and(|served| served == Ok(true)),
            None => false,
        }
    }

    /// Writes who should lead `slot`, first to last, as the operator does.
    pub fn prefer(&self, slot: u32, members: &[String]) {
        operator::prefer(self, slot, members);
    }

    /// Edits the Lease of `slot` by hand.
    pub fn edit_lease(&self, slot: u32, edit: impl FnOnce(&mut serde_json::Value)) {
        self.api.edit(&operator::lease_path(slot), edit);
    }

    pub fn edit_shard(&self, slot: u32, edit: impl FnOnce(&mut serde_json::Value)) {
        self.api.edit(&operator::shard_path(slot), edit);
    }

    pub fn shard(&self, slot: u32) -> Option<Shard> {
        operator::shard(self, slot)
    }

    pub fn delete_lease(&self, slot: u32) {
        self.api.remove(&operator::lease_path(slot));
    }

    pub fn pods_where(&self, is: impl Fn(&Pod) -> bool) -> Vec<String> {
        let pods = self.pods.lock();
        pods.iter()
            .filter(|pod| is(pod))
            .map(|pod| pod.name.clone())
            .collect()
    }

    /// Acts on the pod of that name, if it is still there.
    pub fn with_pod<T>(&self, name: &str, act: impl FnOnce(&mut Pod) -> T) -> Option<T> {
        let mut pods = self.pods.lock();
        pods.iter_mut().find(|pod| pod.name == name).map(act)
    }

    /// Who leads `slot`, when it is one pod and certain of it.
    pub fn leader(&self, slot: u32) -> Option<String> {
        let mut leading = self.pods_where(|pod| pod.term(slot).is_some());
        let certain = self.pods_where(|pod| pod.term(slot).is_some_and(|term| term.is_certain()));
        (leading.len() == 1 && leading == certain).then(|| leading.remove(0))
    }

    /// Every slot is led by the pod that should lead it, and everybody knows.
    pub fn is_settled(&self) -> bool {
        let is_led = |slot| {
            let Some(leader) = self.leader(slot) else {
                return false;
            };
            let preferred = operator::shard(self, slot).and_then(|shard| shard.spec.nodes.first().cloned());
            let strangers = self.pods_where(|pod| match pod.leader(slot) {
                None | Some(Leader::Me(_)) => false,
                Some(Leader::Nobody) => true,
                Some(Leader::Peer { pod, .. }) => pod != leader,
            });
            preferred.as_ref() == Some(&leader) && strangers.is_empty()
        };
        *self.is_placed.lock() && (0..self.slots).all(is_led)
    }

    /// How long until `is`, looked at every 10 ms; `None` when it was not `within` it.
    pub async fn until(&self, within: Duration, is: impl Fn(&Self) -> bool) -> Option<Duration> {
        let began = Instant::now();
        while began.elapsed() <= within {
            if is(self) {
                return Some(began.elapsed());
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Whether everything finds its place `within` that, and stays there for a while: what
    /// the operator sees makes it move slots once more.
    pub async fn settles(&self, within: Duration) -> bool {
        let began = Instant::now();
        while let Some(left) = within.checked_sub(began.elapsed()) {
            if self.until(left, Self::is_settled).await.is_none() {
                return false;
            }
            if self.until(STILL, |sim| !sim.is_settled()).await.is_none() {
                return true;
            }
        }
        false
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.trace.note(format_args!("everything heals"));
        self.bucket.slow(false);
        *self.operator_is_up.lock() = true;
        let mut pods = self.pods.lock();
        for pod in pods.iter_mut() {
            pod.line.set(ApiWeather::calm());
            pod.line.cut(false);
            pod.resume();
            if !pod.is_running() {
                pod.start(self);
            }
        }
    }

    /// While nothing fails, every slot's leader is one and certain of it.
    pub async fn watch_calm(&self, long: Duration) {
        let leaders: Vec<_> = (0..self.slots).map(|slot| self.leader(slot)).collect();
        let began = Instant::now();
        while began.elapsed() < long {
            sleep(Duration::from_millis(10)).await;
            for (slot, leader) in leaders.iter().enumerate() {
                let now = self.leader(slot as u32);
                if now.is_none() || now != *leader {
                    return self.violation(format!(
                        "slot {slot} was led by {leader:?} and is led by {now:?} though nothing failed"
                    ));
                }
            }
        }
    }

    /// Ends all use and says what cannot be explained.
    pub async fn judge(&self) -> Vec<String> {
        *self.clients_may_call.lock() = false;
        // Whatever is queued in some process is served or dropped by then.
        sleep(Duration::from_secs(10)).await;
        self.pods.lock().iter_mut().for_each(Pod::kill);
        sleep(Duration::from_secs(1)).await;
        let mut found = self.violations.lock().clone();
        for (slot, history) in (0..).zip(&self.histories) {
            let wrong = history.check(&self.bucket.log(slot));
            found.extend(wrong.into_iter().map(|what| format!("slot {slot}: {what}")));
        }
        found
    }

    pub fn acknowledged(&self) -> u64 {
        self.histories.iter().map(|history| history.summary().acked).sum()
    }

    pub fn reads(&self) -> u64 {
        self.histories.iter().map(|history| history.summary().reads).sum()
    }

    pub fn epochs(&self) -> u64 {
        (0..self.slots).map(|slot| self.bucket.epoch(slot)).sum()
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.trace.take_lines()
    }
}
