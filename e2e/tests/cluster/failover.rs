//! How long a change of leaders is felt: from the fault to the first acknowledged write.
//!
//! Runs only when `RHUMB_E2E_ROUNDS` says how often; the figures go to standard error.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::machine::Restored;
use crate::harness::pulse::Pulse;
use crate::harness::scenario::scenario;
use crate::harness::{Cluster, Database, objects};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Fault {
    HandOver,
    Kill,
    NodeLoss,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: `make e2e-failover`"]
async fn failover_times() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    let rounds = rhumb_e2e::env_number("RHUMB_E2E_ROUNDS", 10);
    scenario(&cluster, "failover", async |scenario| {
        // One shard: whoever leads, leads all.
        let database = scenario.unborn("one").await.with("spec.sharding.count", json!(1));
        database.apply().await;
        database.ready().await;
        let pulse = Pulse::start(&database.client().await, "pulse").await;
        for fault in [Fault::HandOver, Fault::Kill, Fault::NodeLoss] {
            let mut times = Vec::new();
            for _ in 0..rounds {
                times.push(round(&cluster, &database, &pulse, fault).await);
            }
            times.sort();
            let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
            eprintln!(
                "failover {fault:?}: {rounds} rounds, p50 {:.2?}, p99 {:.2?}, longest {:.2?}",
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    })
    .await;
}

/// The longest silence that began with the fault.
async fn round(cluster: &Cluster, database: &Database<'_>, pulse: &Pulse, fault: Fault) -> Duration {
    database.ready().await;
    let leader = database.busiest().await;
    let begin = Instant::now();
    let mended: Option<Restored> = match fault {
        Fault::HandOver => {
            database.dismiss(&leader).await;
            None
        }
        Fault::Kill => {
            cluster.machine().kill(&leader).expect("killed");
            None
        }
        Fault::NodeLoss => {
            let node = objects::node(&leader).expect("it runs");
            Some(cluster.machine().lose_node(&node).expect("lost"))
        }
    };
    pulse.steady_since(Instant::now(), PATIENCE).await;
    wait_for_another(database, &objects::uid(&leader), fault).await;
    pulse.steady_since(Instant::now(), PATIENCE).await;
    drop(mended);
    pulse.longest_silence(begin)
}

/// A hand-over begins when the kubelet has heard of it: acknowledgements before that say
/// nothing.
async fn wait_for_another(database: &Database<'_>, uid: &str, fault: Fault) {
    if matches!(fault, Fault::Kill) {
        // The same pod may lead again.
        return;
    }
    crate::harness::wait_for("another pod leads", PATIENCE, async || {
        let leaders = database.leaders().await?;
        anyhow::ensure!(
            leaders.iter().all(|leader| objects::uid(leader) != uid),
            "not yet"
        );
        Ok(())
    })
    .await;
}
