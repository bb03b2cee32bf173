//! Locks that are put in, and changed, while a database lives.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use rhumb_crds::{conditions, names};
use rhumb_e2e::Client;
use serde_json::json;

use crate::harness::database::SOON;
use crate::harness::scenario::scenario;
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, wait_for};

/// The operator's look, the kubelet's, the nodes', and the minute that the old key has left.
const REPLACED: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_database_is_closed_by_one_field() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "closed", async |scenario| {
        let mut database = scenario.database("one").await;
        database.ready().await;
        let open = database.client().await;
        open.create("c", &json!({"fields": {"n": "int"}}))
            .await
            .expect("created");
        open.write("c", &json!({"upsert": [{"id": "a", "n": 1}]}))
            .await
            .expect("written");

        database.change("spec.security.clients", json!("Secured")).await;
        database.says(conditions::SECURED, "True", "KeysAndTLS").await;
        let status = database.ready().await.status.expect("a status");
        assert!(
            status
                .endpoints
                .rest
                .is_some_and(|url| url.starts_with("https://"))
        );
        assert_eq!(
            open.get("/v1/collections/c")
                .send()
                .await
                .expect("a sentence")
                .status,
            400
        );
        let rows = wait_for("the rows are there", SOON, async || {
            database.client().await.scan("c", "").await
        })
        .await;
        assert_eq!(rows.len(), 1);
    })
    .await;
}

/// Also what to do about a key that leaked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_admin_key_is_replaced_and_ends_without_a_restart() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "new-key", async |scenario| {
        let database = scenario.unborn("one").await.secured();
        database.apply().await;
        database.ready().await;
        let pods = database.pod_uids().await;
        let (before, leaked) = (
            database.clients().await,
            database.admin_key().await.expect("a key"),
        );
        let secrets: Api<Secret> = cluster.namespaced(&database.namespace);
        let deleted = secrets
            .delete(&names::admin("one"), &DeleteParams::default())
            .await;
        deleted.expect("deleted");
        let status =
            async |client: &Client| Ok::<_, anyhow::Error>(client.get("/v1/whoami").send().await?.status);
        wait_for(
            "the new key holds and the old one does not",
            REPLACED,
            async || {
                expect_eq(database.admin_key().await? == leaked, false)?;
                for client in database.clients().await {
                    expect_eq(status(&client).await?, 200)?;
                }
                for client in &before {
                    expect_eq(status(client).await?, 401)?;
                }
                Ok(())
            },
        )
        .await;
        assert_eq!(database.pod_uids().await, pods);
    })
    .await;
}
