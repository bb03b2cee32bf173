//! Machines, and what runs on them besides us.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt};

use super::UNPLANNED;
use crate::harness::database::READY;
use crate::harness::machine::for_a_while;
use crate::harness::storm::{storm, with_storm_database};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, objects, wait_for};

use std::time::Duration;

async fn wait_for_node(cluster: &Cluster, node: &str, ready: &str) {
    let nodes: Api<Node> = cluster.all();
    wait_for("the node is seen as it is", READY, async || {
        let status = nodes.get(node).await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let found = conditions.iter().find(|c| c.type_ == "Ready");
        let found = found.map(|c| c.status.clone()).unwrap_or_default();
        expect_eq(found == ready || ready == "False" && found == "Unknown", true)
    })
    .await;
}

fn on<'a>(pods: &'a [Pod], node: &str) -> Vec<&'a Pod> {
    let there = |pod: &&Pod| objects::node(pod).is_ok_and(|found| found == node);
    pods.iter().filter(there).collect()
}

async fn pods(database: &Database<'_>) -> Vec<Pod> {
    database.pods().await.expect("pods are listed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_lost_and_its_pods_are_replaced() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let node = objects::node(&database.busiest().await).expect("it runs");
        let before = pods(database).await;
        let lost: Vec<String> = on(&before, &node).iter().map(|pod| pod.name_any()).collect();
        storm(database, "lost", async || {
            let gone = cluster.machine().lose_node(&node).expect("lost");
            wait_for_node(&cluster, &node, "False").await;
            wait_for("the others are as many", READY, async || {
                let ready = database.ready_pods().await?;
                expect_eq(ready.len(), 3)?;
                expect_eq(on(&ready, &node).len(), 0)
            })
            .await;
            drop(gone);
        })
        .await;
        wait_for_node(&cluster, &node, "True").await;
        wait_for("what was lost is forgotten", READY, async || {
            let names: Vec<String> = database.pods().await?.iter().map(ResourceExt::name_any).collect();
            expect_eq(names.iter().any(|name| lost.contains(name)), false)
        })
        .await;
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_lost_for_moments_costs_seconds() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let node = objects::node(&database.busiest().await).expect("it runs");
        storm(database, "reboot", async || {
            let gone = cluster.machine().lose_node(&node).expect("lost");
            for_a_while(Duration::from_secs(3)).await;
            drop(gone);
        })
        .await
        .silent_at_most(UNPLANNED);
        wait_for_node(&cluster, &node, "True").await;
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_and_a_containerd_that_die_are_not_noticed() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let node = objects::node(&database.busiest().await).expect("it runs");
        let before = database.pod_uids().await;
        storm(database, "kubelet", async || {
            for part in ["kubelet", "containerd"] {
                cluster
                    .machine()
                    .kill_part(&format!("{node}-{part}"))
                    .expect("killed and started");
            }
            wait_for_node(&cluster, &node, "True").await;
        })
        .await
        .silent_at_most(super::super::e2e::PLANNED);
        assert_eq!(database.pod_uids().await, before);
    })
    .await;
}
