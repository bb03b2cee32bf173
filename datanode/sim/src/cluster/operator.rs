//! The operator's part: the real placement, over what the API server and the pods show.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_crds::{Shard, names};
use rhumb_operator::placement::{Node, Slot, place};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::node::{DATABASE, NAMESPACE, Pod};
use super::simulation::ClusterSim;

const EVERY: Duration = Duration::from_millis(500);
const FOLLOWERS: usize = 1;

pub(super) fn shard_path(slot: u32) -> String {
    let name = names::shard(DATABASE, slot);
    format!("/apis/rhumb.dev/v1alpha1/namespaces/{NAMESPACE}/shards/{name}")
}

pub(super) fn lease_path(slot: u32) -> String {
    let name = names::shard(DATABASE, slot);
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{name}")
}

/// Shards without placement, and their Leases, which nobody holds.
pub(super) fn make(sim: &ClusterSim) {
    for slot in 0..sim.slots {
        let name = names::shard(DATABASE, slot);
        let labels = json!({ names::DATABASE: DATABASE, names::SHARD: slot.to_string() });
        sim.api.put(
            &shard_path(slot),
            json!({
                "apiVersion": "rhumb.dev/v1alpha1", "kind": "Shard",
                "metadata": { "name": name, "labels": labels },
                "spec": { "databaseRef": { "name": DATABASE }, "index": slot, "nodes": [] }
            }),
        );
        make_lease(sim, slot);
    }
}

/// As the operator makes it: only its place in the world.
pub(super) fn make_lease(sim: &ClusterSim, slot: u32) {
    let labels = json!({ names::DATABASE: DATABASE, names::SHARD: slot.to_string() });
    sim.api.put(
        &lease_path(slot),
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": names::shard(DATABASE, slot), "labels": labels }
        }),
    );
}

/// Places, for ever, while `sim.operator_is_up`.
pub(super) async fn run(sim: ClusterSim) {
    // Since when pods are silent, and for how long that is not believed.
    let mut silent: BTreeMap<String, (Instant, Duration)> = BTreeMap::new();
    loop {
        sleep(EVERY).await;
        let nodes: Vec<Node> = {
            let pods = sim.pods.lock();
            let mut node = |pod: &Pod| Node {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                usable: !pod.is_leaving() && seems_alive(&sim, pod, &mut silent),
                current: true,
            };
            pods.iter().map(&mut node).collect()
        };
        if *sim.operator_is_up.lock() {
            place_once(&sim, &nodes);
        }
    }
}

/// A probe that fails is believed only after a while.
fn seems_alive(sim: &ClusterSim, pod: &Pod, silent: &mut BTreeMap<String, (Instant, Duration)>) -> bool {
    if pod.answers() {
        silent.remove(&pod.name);
        return true;
    }
    let first = || {
        (
            Instant::now(),
            Duration::from_millis(1_000 + sim.rand.below(9_000)),
        )
    };
    let (since, patience) = *silent.entry(pod.name.clone()).or_insert_with(first);
    since.elapsed() < patience
}

fn place_once(sim: &ClusterSim, nodes: &[Node]) {
    let slots: Vec<Slot> = (0..sim.slots)
        .map(|slot| Slot::of(slot, shard(sim, slot).as_ref(), nodes))
        .collect();
    let placement = place(nodes, &slots, FOLLOWERS);
    let is_done = placement.expecting.is_empty();
    *sim.is_placed.lock() = is_done && slots.iter().map(|slot| &slot.nodes).eq(&placement.nodes);
    for (slot, members) in slots.iter().zip(placement.nodes) {
        if slot.nodes != members {
            sim.trace
                .note(format_args!("slot {} is placed on {members:?}", slot.index));
            prefer(sim, slot.index, &members);
        }
    }
}

/// Writes who should lead, first to last.
pub(super) fn prefer(sim: &ClusterSim, slot: u32, members: &[String]) {
    sim.api
        .edit(&shard_path(slot), |shard| shard["spec"]["nodes"] = json!(members));
}

pub(super) fn shard(sim: &ClusterSim, slot: u32) -> Option<Shard> {
    serde_json::from_value(sim.api.get(&shard_path(slot))?).ok()
}
