//! Leases and Shards under other people's hands.  They say who should lead; who can write
//! is decided in the bucket.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use rhumb_crds::names;
use serde_json::{Value, json};

use super::UNPLANNED;
use crate::harness::database::READY;
use crate::harness::storm::{storm, with_storm_database};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, wait_for};

/// Every Lease is held by a pod that exists, and each holder says so itself.
async fn all_led(database: &Database<'_>) {
    wait_for("every shard is led again", READY, async || {
        database.leaders().await.map(drop)
    })
    .await;
}

async fn edit(database: &Database<'_>, spec: Value) {
    let leases: Api<Lease> = database.lease_api();
    for index in 0..database.shard_count() {
        let name = names::shard(&database.name, index);
        // Data nodes write it too: the last word may be theirs, which is their right.
        let patch = Patch::Merge(json!({ "spec": spec }));
        leases
            .patch(&name, &PatchParams::default(), &patch)
            .await
            .expect("edited");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_are_deleted_come_back() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "lease-deleted", async || {
            for index in 0..database.shard_count() {
                let name = names::shard(&database.name, index);
                database
                    .lease_api()
                    .delete(&name, &DeleteParams::default())
                    .await
                    .expect("deleted");
            }
            all_led(database).await;
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_given_to_a_stranger_are_taken_back() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "lease-stranger", async || {
            edit(database, json!({ "holderIdentity": "stranger_0000_0000" })).await;
            all_led(database).await;
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_are_emptied_are_taken_at_once() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "lease-emptied", async || {
            edit(database, json!({ "holderIdentity": "" })).await;
            all_led(database).await;
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_time_in_a_lease_is_believed() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "lease-future", async || {
            let future =
                json!({ "holderIdentity": "stranger_0000_0000", "renewTime": "2099-01-01T00:00:00.000000Z" });
            edit(database, future).await;
            all_led(database).await;
            // And one that expired long ago, while its holder lives.
            edit(database, json!({ "renewTime": "1999-01-01T00:00:00.000000Z" })).await;
        })
        .await
        .silent_at_most(UNPLANNED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_are_deleted_come_back_with_their_leases() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "shard-deleted", async || {
            let deleted = database
                .shard_api()
                .delete_collection(&DeleteParams::default(), &Default::default())
                .await;
            deleted.expect("deleted");
            all_led(database).await;
            database.ready().await;
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_placement_that_was_edited_is_put_right() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "placement", async || {
            let shards = database.shard_api();
            let name = names::shard(&database.name, 0);
            let nobody = Patch::Merge(json!({ "spec": { "nodes": ["nobody"] } }));
            shards
                .patch(&name, &PatchParams::default(), &nobody)
                .await
                .expect("edited");
            wait_for("pods are placed", READY, async || {
                let placed = shards.get(&name).await?.spec.nodes;
                expect_eq(placed.contains(&"nobody".to_owned()), false)
            })
            .await;
        })
        .await
        .silent_at_most(UNPLANNED);
        database.ready().await;
    })
    .await;
}
