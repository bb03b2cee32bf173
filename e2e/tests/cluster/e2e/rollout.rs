//! Pods that are replaced because somebody asked for it.

use k8s_openapi::api::core::v1::Node;
use kube::api::EvictParams;
use kube::{Api, ResourceExt};
use rhumb_crds::conditions;
use serde_json::json;

use super::PLANNED;
use crate::harness::database::{READY, SOON};
use crate::harness::scenario::{put_keys, scenario};
use crate::harness::storm::{storm, with_storm_database};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, objects, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_replaces_every_pod() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "roll", async |scenario| {
        let database = scenario.database("one").await;
        database.ready().await;
        let before = database.pod_uids().await;
        storm(&database, "roll", async || {
            let mut rolled = scenario.unborn("one").await;
            rolled.restart().await;
            wait_for("every pod is new", READY, async || {
                database.is_ready().await?;
                let after = database.pod_uids().await;
                let kept: Vec<&String> = after.iter().filter(|uid| before.contains(uid)).collect();
                expect_eq(kept.len(), 0)?;
                expect_eq(after.len(), 2)
            })
            .await;
        })
        .await
        .silent_at_most(PLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_machine_per_pod_a_rollout_takes_one_away_first() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "apart", async |scenario| {
        let database = scenario.unborn("one").await;
        let mut database = database.with("spec.dataNodes.antiAffinity", json!("required"));
        database.apply().await;
        database.ready().await;
        let before = database.pod_uids().await;
        database.restart().await;
        wait_for("every pod is new", READY, async || {
            database.is_ready().await?;
            let after = database.pod_uids().await;
            expect_eq(after.iter().any(|uid| before.contains(uid)), false)
        })
        .await;
        let mut nodes: Vec<String> = database
            .pods()
            .await
            .expect("pods")
            .iter()
            .filter_map(|pod| objects::node(pod).ok())
            .collect();
        nodes.sort();
        nodes.dedup();
        assert_eq!(nodes.len(), 2, "both pods are on {nodes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_go_hands_over() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "hand-over", async || {
            let leader = database.busiest().await;
            database.dismiss(&leader).await;
            wait_for("another pod took its place", READY, async || {
                let uids = database.pod_uids().await;
                expect_eq(uids.contains(&objects::uid(&leader)), false)?;
                database.is_ready().await.map(drop)
            })
            .await;
        })
        .await
        .silent_at_most(PLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_lets_one_pod_be_evicted_at_a_time() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let pods = database.ready_pods().await.expect("pods");
        let api = database.pod_api();
        let evict = async |at: usize| {
            api.evict(&pods[at].name_any(), &EvictParams::default())
                .await
                .map(drop)
        };
        wait_for("the budget allows one", SOON, async || Ok(evict(0).await?)).await;
        match evict(1).await {
            Err(kube::Error::Api(status)) => assert_eq!(status.code, 429, "{status:?}"),
            other => panic!("a second pod is evicted at once: {other:?}"),
        }
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_under_load() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "drain", async || {
            let node = objects::node(&database.busiest().await).expect("it runs");
            let namespace = format!("--pod-selector=rhumb.dev/database={}", database.name);
            let drain = [
                "drain",
                &node,
                &namespace,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                "--timeout=100s",
            ];
            let drained = cluster.kubectl_says(&drain).await;
            let left = database
                .pods()
                .await
                .expect("pods")
                .iter()
                .filter(|pod| objects::node(pod).is_ok_and(|on| on == node))
                .count();
            cluster
                .kubectl_says(&["uncordon", &node])
                .await
                .expect("uncordoned");
            drained.expect("drained");
            assert_eq!(left, 0, "pods are left on {node}");
            database.ready().await;
        })
        .await
        .silent_at_most(PLANNED);
        let nodes: Api<Node> = cluster.all();
        for node in nodes.list(&Default::default()).await.expect("nodes") {
            assert_ne!(node.spec.and_then(|spec| spec.unschedulable), Some(true));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_keys_of_the_bucket_roll_the_pods_onto_them() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    scenario(&cluster, "rotate", async |scenario| {
        let database = scenario.database("one").await;
        database.ready().await;
        let before = database.pod_uids().await;
        storm(&database, "rotate", async || {
            // The second account of `up.sh`.
            put_keys(&cluster, &scenario.namespace, "rhumb-e2e-2", "rhumb-e2e-secret-2").await;
            // Secrets are looked at every minute.
            wait_for("every pod has the new keys", READY, async || {
                let after = database.pod_uids().await;
                expect_eq(after.iter().any(|uid| before.contains(uid)), false)?;
                database.is_ready().await.map(drop)
            })
            .await;
        })
        .await
        .silent_at_most(PLANNED);
        database.says(conditions::SECRETS_RESOLVED, "True", "Found").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_rollout_leaves_the_old_pods_serving() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "broken", async |scenario| {
        let database = scenario.database("one").await;
        database.ready().await;
        let before = database.pod_uids().await;
        storm(&database, "broken", async || {
            let broken = scenario.unborn("one").await;
            let mut broken = broken.with("spec.image", json!("rhumb:no-such-tag"));
            broken.apply().await;
            database.says(conditions::READY, "False", "PodsFailing").await;
            let now = database.pod_uids().await;
            assert!(
                before.iter().all(|uid| now.contains(uid)),
                "a serving pod was taken away"
            );
            let image = database.manifest["spec"]["image"].clone();
            broken.change("spec.image", image).await;
            database.ready().await;
        })
        .await
        .silent_at_most(PLANNED);
    })
    .await;
}
