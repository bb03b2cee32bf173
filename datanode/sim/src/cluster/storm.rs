//! A whole run: calm, a planned hand-over, a storm, calm again, a failover.

use std::time::Duration;

use rhumb_seams::Rand;
use tokio::time::{Instant, sleep};

use super::line::ApiWeather;
use super::node::{Pod, TIMING};
use super::simulation::{ClusterPlan, ClusterSim};
use super::{hand, operator};

/// From nothing at all: every Lease is waited out once, and then what the operator learns
/// of that moves leaders one at a time.
const BOOTSTRAP: Duration = Duration::from_secs(40);
/// After the last failure.  A watch may be silent for 30 s, and a hand may have written 20 s
/// into a Lease; balance moves one slot at a time.
const RECOVERY: Duration = Duration::from_secs(120);
/// A failover is as quick as promised only while watches work.
const SILENCE: Duration = Duration::from_secs(45);
/// From the change of `Shard.spec.nodes` to the new leader: a flush, a release, a takeover.
const HAND_OVER: Duration = Duration::from_millis(700);
/// Beyond the Lease: the last renewal's way to the others, their ranks, the takeover's way.
const FAILOVER: Duration = Duration::from_millis(1_200);

#[derive(Clone, Debug)]
pub struct ClusterReport {
    pub seed: u64,
    /// Empty when everything is as it should be.
    pub violations: Vec<String>,
    pub acknowledged: u64,
    pub reads: u64,
    pub epochs: u64,
    pub trace_hash: u64,
    pub trace: Vec<String>,
}

/// Runs a seed to its end.  The runtime is its own: current thread, paused clock.
pub fn run_cluster_seed(seed: u64, plan: ClusterPlan) -> ClusterReport {
    play(async {
        let sim = ClusterSim::new(seed, 2, plan);
        run(&sim).await;
        let violations = sim.judge().await;
        ClusterReport {
            seed,
            violations,
            acknowledged: sim.acknowledged(),
            reads: sim.reads(),
            epochs: sim.epochs(),
            trace_hash: sim.trace_hash(),
            trace: sim.take_trace(),
        }
    })
}

/// A world of its own for `story`.
pub fn play<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the machine");
    runtime.block_on(story)
}

async fn run(sim: &ClusterSim) {
    let pods = 2 + sim.rand.below(3) as u32;
    sim.start(pods, 3);
    settle(sim, BOOTSTRAP, "the start").await;
    sim.watch_calm(Duration::from_secs(12)).await;
    planned_hand_over(sim).await;
    if sim.has_violations() {
        return;
    }
    storm(sim, Duration::from_secs(20 + sim.rand.below(60))).await;
    sim.heal();
    // A watch that went silent is noticed by then.
    sleep(SILENCE).await;
    settle(sim, RECOVERY, "the storm").await;
    sim.watch_calm(Duration::from_secs(6)).await;
    failover(sim).await;
}

async fn settle(sim: &ClusterSim, within: Duration, what: &str) {
    if !sim.settles(within).await {
        let leading: Vec<_> = (0..sim.slots).map(|slot| sim.leader(slot)).collect();
        sim.violation(format!("not settled {within:?} after {what}: {leading:?} lead"));
    }
}

/// Another running pod is to lead; the operator leaves it at that.
async fn planned_hand_over(sim: &ClusterSim) {
    let (Some(from), Some(shard)) = (sim.leader(0), operator::shard(sim, 0)) else {
        return;
    };
    let warm = shard.status.into_iter().flat_map(|status| status.nodes);
    let to = warm
        .filter(|node| node.warm && node.pod != from)
        .map(|node| node.pod)
        .next();
    let Some(to) = to else {
        return sim.violation("no follower of slot 0 is warm".into());
    };
    *sim.operator_is_up.lock() = false;
    sim.trace
        .note(format_args!("slot 0 is to go from {from} to {to}"));
    operator::prefer(sim, 0, &[to.clone(), from]);
    let took = sim
        .until(HAND_OVER, |sim| sim.leader(0).as_ref() == Some(&to))
        .await;
    if took.is_none() {
        sim.violation(format!("a planned hand-over took longer than {HAND_OVER:?}"));
    }
    *sim.operator_is_up.lock() = true;
}

/// A leader dies, and no operator helps.
async fn failover(sim: &ClusterSim) {
    let Some(victim) = sim.leader(0) else { return };
    if sim.pods_where(Pod::answers).len() < 2 {
        return;
    }
    *sim.operator_is_up.lock() = false;
    sim.trace.note(format_args!("{victim} is killed"));
    sim.with_pod(&victim, Pod::kill);
    let within = TIMING.duration + FAILOVER;
    let is_led = |sim: &ClusterSim| (0..sim.slots).all(|slot| sim.leader(slot).is_some());
    match sim.until(within, is_led).await {
        None => sim.violation(format!("nobody took over within {within:?}")),
        // The dead pod is still first in the placement, and its entry still says warm.
        Some(_) => sim.watch_calm(Duration::from_secs(15)).await,
    }
}

/// How violent a storm is.
struct Temper {
    every: Duration,
    pause: Duration,
    hands: bool,
}

async fn storm(sim: &ClusterSim, long: Duration) {
    let rand = &sim.rand;
    let temper = Temper {
        every: Duration::from_millis([300, 1_500, 6_000][rand.below(3) as usize]),
        pause: Duration::from_millis([500, 6_000, 15_000][rand.below(3) as usize]),
        hands: rand.below(2) == 0,
    };
    sim.bucket.slow(true);
    let began = Instant::now();
    while began.elapsed() < long {
        sleep(temper.every.mul_f64(rand.unit())).await;
        strike(sim, &temper).await;
    }
}

async fn strike(sim: &ClusterSim, temper: &Temper) {
    let rand = &sim.rand;
    let names = sim.pods_where(|_| true);
    let name = names[rand.below(names.len() as u64) as usize].clone();
    let blow = rand.below(20);
    sim.trace.note(format_args!("blow {blow} on {name}"));
    match blow {
        0 | 1 => on(sim, &name, Pod::kill),
        2..=4 => on(sim, &name, |pod| pod.start(sim)),
        5 => replace(sim, &name),
        6 | 7 => {
            sim.with_pod(&name, Pod::pause);
            sleep(temper.pause.mul_f64(rand.unit())).await;
            sim.with_pod(&name, Pod::resume);
        }
        8 => on(sim, &name, Pod::pause),
        9 => on(sim, &name, Pod::resume),
        10 | 11 => on(sim, &name, |pod| pod.line.cut(!pod.line.is_cut())),
        12 => on(sim, &name, |pod| pod.line.set(ApiWeather::random(rand))),
        13 => on(sim, &name, |pod| pod.line.set(ApiWeather::calm())),
        14 => api_server(sim, rand.below(2) == 0),
        15 if temper.hands => hand::meddle(sim),
        16 => drain(sim, &name, temper.pause.mul_f64(rand.unit())).await,
        17 => {
            let mut up = sim.operator_is_up.lock();
            *up = !*up;
        }
        18 => prefer_anybody(sim, rand),
        _ => sim.api.forget_changes(),
    }
}

fn on(sim: &ClusterSim, name: &str, act: impl FnOnce(&mut Pod)) {
    sim.with_pod(name, act);
}

fn api_server(sim: &ClusterSim, down: bool) {
    sim.pods.lock().iter().for_each(|pod| pod.line.cut(down));
}

fn replace(sim: &ClusterSim, name: &str) {
    sim.with_pod(name, Pod::kill);
    sim.pods.lock().retain(|pod| pod.name != *name);
    sim.add_pod();
}

async fn drain(sim: &ClusterSim, name: &str, grace: Duration) {
    sim.with_pod(name, Pod::drain);
    sleep(grace).await;
    replace(sim, name);
}

fn prefer_anybody(sim: &ClusterSim, rand: &Rand) {
    let mut names = sim.pods_where(|_| true);
    let turn = rand.below(names.len() as u64) as usize;
    names.rotate_left(turn);
    names.truncate(2);
    operator::prefer(sim, rand.below(u64::from(sim.slots)) as u32, &names);
}
