//! The bucket, or the way to it, is broken.

use std::time::Duration;

use rhumb_crds::conditions;
use rhumb_e2e::{FaultProxy, Faults, Outage};
use serde_json::json;

use crate::harness::machine::{ADDRESS, S3_PORT, for_a_while};
use crate::harness::scenario::scenario;
use crate::harness::storm::{storm, with_storm_database};
use crate::harness::{Cluster, Database};

const LONG: Duration = Duration::from_secs(8);

/// A database of its own that sees the bucket through `proxy`.
async fn behind_a_proxy(name: &str, body: impl AsyncFnOnce(&Database<'_>, &FaultProxy)) {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    let upstream = format!("{ADDRESS}:{S3_PORT}");
    let proxy = FaultProxy::start_at(ADDRESS, &upstream, rhumb_e2e::seed())
        .await
        .expect("a proxy");
    scenario(&cluster, name, async |scenario| {
        let database = scenario.unborn("one").await;
        let database = database.with("spec.objectStore.endpoint", json!(proxy.endpoint()));
        database.apply().await;
        database.ready().await;
        body(&database, &proxy).await;
    })
    .await;
}

async fn storm_with(database: &Database<'_>, proxy: &FaultProxy, name: &str, faults: Faults) {
    storm(database, name, async || {
        proxy.set(faults);
        for_a_while(LONG).await;
        proxy.calm();
    })
    .await;
    assert!(!proxy.hits().is_empty(), "no fault struck");
    eprintln!("{name}: {:?}", proxy.hits());
    database.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_bucket_is_waited_for() {
    behind_a_proxy("slow", async |database, proxy| {
        let faults = Faults {
            delay: 1.0,
            delay_by: Duration::from_millis(600),
            ..Faults::default()
        };
        storm_with(database, proxy, "slow", faults).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_asks_for_less_is_survived() {
    behind_a_proxy("throttled", async |database, proxy| {
        let faults = Faults {
            slow_down: 0.5,
            ..Faults::default()
        };
        storm_with(database, proxy, "throttled", faults).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_doubled_and_late_requests_are_survived() {
    behind_a_proxy("lossy", async |database, proxy| {
        let faults = Faults {
            lose_request: 0.05,
            lose_response: 0.05,
            duplicate: 0.05,
            duplicate_late: 0.05,
            late_by: Duration::from_secs(3),
            fail_after: 0.05,
            ..Faults::default()
        };
        storm_with(database, proxy, "lossy", faults).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_reads_are_noticed() {
    behind_a_proxy("damaged", async |database, proxy| {
        let faults = Faults {
            truncate: 0.2,
            shorten: 0.2,
            flip: 0.2,
            ..Faults::default()
        };
        storm(database, "damaged", async || {
            proxy.set(faults);
            // What is served lies in memory: only whoever takes over reads.
            database.remove(&database.busiest().await).await;
            for_a_while(LONG).await;
            proxy.calm();
        })
        .await;
        eprintln!("damaged: {:?}", proxy.hits());
        assert!(!proxy.hits().is_empty(), "no fault struck");
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_refuses_everybody_is_told_and_comes_back() {
    behind_a_proxy("refusing", async |database, proxy| {
        storm(database, "refusing", async || {
            proxy.set(Faults {
                outage: Some(Outage::Refuse),
                ..Faults::default()
            });
            let told = database
                .says(conditions::OBJECT_STORE_REACHABLE, "False", "Unreachable")
                .await;
            eprintln!("told: {told}");
            proxy.calm();
        })
        .await;
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_hangs_for_everybody_comes_back() {
    behind_a_proxy("hanging", async |database, proxy| {
        let faults = Faults {
            outage: Some(Outage::Hang),
            ..Faults::default()
        };
        storm_with(database, proxy, "hanging", faults).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_server_that_is_killed_comes_back() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let before = database.pod_uids().await;
        storm(database, "s3-killed", async || {
            for _ in 0..2 {
                cluster.machine().kill_part("s3").expect("killed and started");
                for_a_while(Duration::from_secs(2)).await;
            }
        })
        .await;
        assert_eq!(database.pod_uids().await, before);
        database.ready().await;
    })
    .await;
}
