//! Processes of data nodes that die, stop and wake.

use std::time::Duration;

use kube::ResourceExt;
use rhumb_e2e::Client;
use serde_json::json;

use super::{LONGER_THAN_A_LEASE, UNPLANNED};
use crate::harness::database::READY;
use crate::harness::machine::for_a_while;
use crate::harness::scenario::scenario;
use crate::harness::storm::{storm, with_storm_database};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, objects, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_costs_seconds_and_no_row() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "killed", async || {
            cluster.machine().kill(&leader).expect("killed");
        })
        .await
        .silent_at_most(UNPLANNED);
        let name = leader.name_any();
        wait_for("the kubelet started it again", READY, async || {
            let pod = database.pod_api().get(&name).await?;
            expect_eq(objects::restarts(&pod) > objects::restarts(&leader), true)
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_data_nodes_are_killed_at_once() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let pods = database.ready_pods().await.expect("pods");
        storm(database, "all-killed", async || {
            for pod in &pods {
                cluster.machine().kill(pod).expect("killed");
            }
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_killed_one_after_the_other() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "flapping", async || {
            for _ in 0..3 {
                let leader = database.busiest().await;
                // It may be the one whose container the kubelet holds back just now.
                if cluster.machine().kill(&leader).is_err() {
                    continue;
                }
                for_a_while(Duration::from_secs(3)).await;
            }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_and_wakes_does_no_harm() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "woken", async || {
            let frozen = cluster.machine().freeze(&leader).expect("stopped");
            wait_for("others lead", READY, async || {
                let leaders = database.leaders().await?;
                let still = leaders.iter().any(|l| objects::uid(l) == objects::uid(&leader));
                expect_eq(still, false)
            })
            .await;
            // It wakes up with requests in its hands and the belief that it leads.
            drop(frozen);
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_shorter_than_a_lease_are_survived() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "hiccups", async || {
            for _ in 0..4 {
                let frozen = cluster.machine().freeze(&leader).expect("stopped");
                for_a_while(Duration::from_millis(1_200)).await;
                drop(frozen);
                for_a_while(Duration::from_millis(800)).await;
            }
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_stops_is_not_waited_for() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leaders = database.leaders().await.expect("leaders");
        let leads = |pod: &k8s_openapi::api::core::v1::Pod| {
            leaders.iter().any(|l| objects::uid(l) == objects::uid(pod))
        };
        let pods = database.ready_pods().await.expect("pods");
        let follower = pods
            .iter()
            .find(|pod| !leads(pod))
            .expect("two shards leave one of three pods without");
        // Until its probe fails the Service goes on sending to it: that third of the
        // requests waits, and is sent again elsewhere.
        storm(database, "follower", async || {
            let frozen = cluster.machine().freeze(follower).expect("stopped");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(frozen);
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_deleted_without_grace_is_replaced() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "forced", async || {
            database.remove(&leader).await;
        })
        .await
        .silent_at_most(UNPLANNED);
        let uids = database.pod_uids().await;
        assert!(!uids.contains(&objects::uid(&leader)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pods_are_deleted_without_grace() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "all-forced", async || {
            database.remove_all().await;
        })
        .await;
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_while_it_hands_over_is_replaced() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "mid-hand-over", async || {
            database.dismiss(&leader).await;
            for_a_while(Duration::from_millis(150)).await;
            // It may have gone by itself.
            let _ = cluster.machine().kill(&leader);
        })
        .await
        .silent_at_most(UNPLANNED);
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_in_a_hurry_keep_no_partition_from_opening() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let client = database.client().await;
        let name = format!("hurry-{:06x}", rand::random_range(0..0x100_0000));
        client
            .create(&name, &json!({"fields": {"n": "int"}, "partitions": 2}))
            .await
            .expect("created");
        let rows: Vec<_> = (0..500).map(|n| json!({"id": format!("r{n}"), "n": n})).collect();
        client
            .write(&name, &json!({"upsert": rows}))
            .await
            .expect("written");
        for pod in database.ready_pods().await.expect("pods") {
            cluster.machine().kill(&pod).expect("killed");
        }
        // Shorter than it takes to open what was just left: each goes away before the answer.
        let hurried = Client::impatient(client.base(), Duration::from_millis(150)).expect("a client");
        let path = format!("/v1/collections/{name}/documents?limit=1");
        wait_for("one of them is answered", READY, async || {
            let answer = hurried.get(&path).send().await?;
            expect_eq(answer.status, 200)
        })
        .await;
        client
            .delete(&format!("/v1/collections/{name}"))
            .send()
            .await
            .expect("an answer");
    })
    .await;
}

/// What is read with `eventual` needs no leader: a follower answers what it has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eventual_reads_go_on_while_the_leader_stands_still() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    scenario(&cluster, "eventual", async |scenario| {
        let database = scenario.unborn("one").await.with("spec.sharding.count", json!(1));
        database.apply().await;
        database.ready().await;
        let leader = database.busiest().await;
        let writer = database.client_of(&leader).await;
        let put = writer.put("/v1/collections/late", &json!({"fields": {"n": "int"}}));
        put.send().await.expect("an answer").expect(201).expect("created");
        let body = json!({"upsert": [{"id": "a", "n": 7}]});
        let written = writer.post("/v1/collections/late/documents", &body);
        written
            .send()
            .await
            .expect("an answer")
            .expect(200)
            .expect("written");
        let pods = database.ready_pods().await.expect("pods");
        let follower = pods.iter().find(|pod| objects::uid(pod) != objects::uid(&leader));
        let reader = database.client_of(follower.expect("another pod")).await;
        // Nobody that waits for a leader answers in this time.
        let reader = reader.within(Duration::from_secs(1)).expect("a client");
        let read = async || {
            let read = reader.get("/v1/collections/late/documents/a?consistency=eventual");
            let answer = read.send().await?;
            expect_eq(
                (answer.status, answer.json()["document"]["n"].clone()),
                (200, json!(7)),
            )
        };
        wait_for("the follower has seen it", READY, read).await;
        let frozen = cluster.machine().freeze(&leader).expect("stopped");
        for _ in 0..20 {
            read().await.expect("no leader is needed");
            for_a_while(Duration::from_millis(50)).await;
        }
        drop(frozen);
    })
    .await;
}
