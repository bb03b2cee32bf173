//! Ways that are cut while everybody lives.

use rhumb_crds::names;

use super::{LONGER_THAN_A_LEASE, UNPLANNED};
use crate::harness::machine::for_a_while;
use crate::harness::storm::{storm, with_storm_database};
use crate::harness::{Cluster, objects};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_the_api_server_does_no_harm() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "no-api", async || {
            let cut = cluster.machine().cut_from_api(&leader).expect("cut");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(cut);
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_the_bucket_acknowledges_nothing_that_is_not_there() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "no-bucket", async || {
            let cut = cluster.machine().cut_from_s3(&leader).expect("cut");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(cut);
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_and_comes_back_does_no_harm() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "cut-off", async || {
            let cut = cluster.machine().cut_pod(&leader).expect("cut");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(cut);
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_cannot_reach_each_other_say_so_and_recover() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "no-peers", async || {
            let port = u16::try_from(names::PEER_PORT).expect("a port");
            let cut = cluster.machine().cut_between_pods(port).expect("cut");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(cut);
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_the_cluster_is_cut_off_and_comes_back() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let node = objects::node(&database.busiest().await).expect("it runs");
        storm(database, "partition", async || {
            let cut = cluster.machine().cut_node(&node).expect("cut");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(cut);
        })
        .await
        .silent_at_most(UNPLANNED);
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_needs_names_once_it_serves() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "no-names", async || {
            let away = cluster.machine().without("coredns").expect("stopped");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(away);
        })
        .await;
        let uids = database.pod_uids().await;
        assert!(uids.contains(&objects::uid(&leader)));
    })
    .await;
}
