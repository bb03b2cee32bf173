//! Databases that are deleted, made again, and live beside each other.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use rhumb_crds::conditions;
use rhumb_e2e::Client;
use serde_json::json;

use crate::harness::cluster::{OPERATOR, OPERATOR_NAMESPACE};
use crate::harness::scenario::scenario;
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, rows};

async fn fill(client: &Client) {
    client
        .create("c", &json!({"fields": {"n": "int"}, "partitions": 4}))
        .await
        .expect("created");
    rows::fill(client, "c").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_deleted_and_made_again_finds_its_data() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "again", async |scenario| {
        let database = scenario.database("one").await;
        let before = database.ready().await.status.expect("a status").database_uid;
        fill(&database.client().await).await;
        database.delete().await;
        database.apply().await;
        let after = database.ready().await.status.expect("a status").database_uid;
        assert_eq!(before, after, "another database lies in the bucket");
        rows::assert_full(&database, "c").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_alone_brings_everything_back() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "nothing-left", async |scenario| {
        let database = scenario.database("one").await;
        database.ready().await;
        fill(&database.client().await).await;
        let operators = cluster.kubectl(&[
            "delete",
            "pods",
            "-n",
            OPERATOR_NAMESPACE,
            "--all",
            "--grace-period=0",
            "--force",
            "--wait=false",
        ]);
        operators.await.expect("deleted");
        database.remove_all().await;
        database.delete().await;
        let deployments: Api<Deployment> = cluster.namespaced(OPERATOR_NAMESPACE);
        database.apply().await;
        database.ready().await;
        rows::assert_full(&database, "c").await;
        let operator = deployments.get(OPERATOR).await.expect("there").status;
        assert_eq!(operator.and_then(|status| status.replicas), Some(2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_name_over_the_same_prefix_finds_the_same_data() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "renamed", async |scenario| {
        let first = scenario.database("one").await;
        first.ready().await;
        fill(&first.client().await).await;
        let prefix = first.manifest["spec"]["objectStore"]["prefix"].clone();
        first.delete().await;
        let second = scenario
            .unborn("two")
            .await
            .with("spec.objectStore.prefix", prefix);
        second.apply().await;
        second.ready().await;
        rows::assert_full(&second, "c").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_in_one_namespace_share_nothing() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "neighbours", async |scenario| {
        let (one, two) = (scenario.database("one").await, scenario.database("two").await);
        let first = one.ready().await.status.expect("a status");
        let second = two.ready().await.status.expect("a status");
        assert_ne!(first.database_uid, second.database_uid);
        fill(&one.client().await).await;
        let empty = two.client().await.get("/v1/collections").send().await;
        assert_eq!(empty.expect("an answer").json()["collections"], json!([]));
        one.delete().await;
        two.says(conditions::READY, "True", "Serving").await;
        expect_eq(two.pods().await.expect("pods").len(), 2).expect("its pods stay");
    })
    .await;
}

/// `make cluster` promises that this file applies as it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_sample_becomes_ready_as_it_stands() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "sample", async |scenario| {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/samples/small.yaml");
        cluster
            .kubectl_says(&["apply", "-n", &scenario.namespace, "-f", sample])
            .await
            .expect("applied");
        let mut small = Database::new(&cluster, &scenario.namespace, "small").await;
        small.manifest["spec"]["sharding"]["count"] = json!(4);
        small.ready().await;
        let found = small.client().await.get("/readyz").send().await;
        assert_eq!(found.expect("an answer").status, 200);
        small.delete().await;
    })
    .await;
}
