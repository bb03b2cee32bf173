//! `Collection` objects.

use kube::Api;
use kube::api::DeleteParams;
use rhumb_crds::{Collection, conditions};
use rhumb_e2e::Client;
use serde_json::{Value, json};

use crate::harness::database::{READY, SOON};
use crate::harness::scenario::{scenario, with_shared_database};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, wait_for};

fn unique(name: &str) -> String {
    format!("{name}-{:06x}", rand::random_range(0..0x100_0000))
}

fn a_collection(namespace: &str, name: &str, database: &str, more: Value) -> Value {
    let mut spec = json!({ "databaseRef": { "name": database }, "fields": { "n": { "type": "int" } } });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({
        "apiVersion": "rhumb.dev/v1alpha1", "kind": "Collection",
        "metadata": { "name": name, "namespace": namespace }, "spec": spec
    })
}

async fn says(cluster: &Cluster, object: &Value, status: &str, reason: &str) -> String {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().expect("a namespace");
    let name = metadata["name"].as_str().expect("a name");
    let api: Api<Collection> = cluster.namespaced(namespace);
    let what = format!("collection {name} is {status} for {reason}");
    wait_for(&what, READY, async || {
        let found = api.get(name).await?.status.unwrap_or_default();
        let ready = conditions::find(&found.conditions, conditions::READY);
        let ready = ready.ok_or_else(|| anyhow::anyhow!("no Ready"))?;
        let so = ready.status == status && ready.reason == reason;
        anyhow::ensure!(so, "{} {}: {}", ready.status, ready.reason, ready.message);
        Ok(ready.message.clone())
    })
    .await
}

async fn delete(cluster: &Cluster, database: &Database<'_>, name: &str) {
    let api: Api<Collection> = cluster.namespaced(&database.namespace);
    api.delete(name, &DeleteParams::default()).await.expect("deleted");
    wait_for("the object is gone", SOON, async || {
        expect_eq(api.get_opt(name).await?.is_none(), true)
    })
    .await;
}

async fn exists(client: &Client, name: &str) -> bool {
    let path = format!("/v1/collections/{name}");
    let answer = wait_for("an answer", SOON, async || {
        let answer = client.get(&path).send().await?;
        anyhow::ensure!(matches!(answer.status, 200 | 404), "{answer}");
        Ok(answer)
    })
    .await;
    answer.status == 200
}

#[tokio::test]
async fn a_collection_waits_for_its_database() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "orphan", async |scenario| {
        let object = a_collection(&scenario.namespace, "words", "nowhere", json!({}));
        cluster.apply(&object).await.expect("accepted");
        let message = says(&cluster, &object, "False", "DatabaseMissing").await;
        assert!(message.contains("nowhere"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_collection_is_made_grows_and_is_kept() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let (name, client) = (unique("kept"), database.client().await);
        let mut object = a_collection(&database.namespace, &name, "shared", json!({}));
        cluster.apply(&object).await.expect("accepted");
        says(&cluster, &object, "True", "AsDeclared").await;
        client
            .write(&name, &json!({"upsert": [{"id": "a", "n": 1}]}))
            .await
            .expect("written");

        object["spec"]["fields"]["more"] = json!({ "type": "string" });
        cluster.apply(&object).await.expect("accepted");
        wait_for("the new field", SOON, async || {
            let info = client
                .get(&format!("/v1/collections/{name}"))
                .send()
                .await?
                .json();
            expect_eq(info["fields"]["more"].is_null(), false)
        })
        .await;
        delete(&cluster, database, &name).await;
        assert!(exists(&client, &name).await, "its documents went with it");
        client
            .delete(&format!("/v1/collections/{name}"))
            .send()
            .await
            .expect("an answer");
    })
    .await;
}

#[tokio::test]
async fn a_collection_that_reclaims_goes_with_its_documents() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let (name, client) = (unique("gone"), database.client().await);
        let reclaim = json!({ "reclaimPolicy": "Delete" });
        let object = a_collection(&database.namespace, &name, "shared", reclaim);
        cluster.apply(&object).await.expect("accepted");
        says(&cluster, &object, "True", "AsDeclared").await;
        assert!(exists(&client, &name).await);
        delete(&cluster, database, &name).await;
        assert!(!exists(&client, &name).await, "its documents are still there");
    })
    .await;
}

#[tokio::test]
async fn a_collection_that_contradicts_what_is_there_stalls() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let (name, client) = (unique("other"), database.client().await);
        client
            .create(&name, &json!({"fields": {"n": "string"}}))
            .await
            .expect("created");
        let object = a_collection(&database.namespace, &name, "shared", json!({}));
        cluster.apply(&object).await.expect("accepted");
        let api: Api<Collection> = cluster.namespaced(&database.namespace);
        let stalled = wait_for("it stalls", READY, async || {
            let status = api.get(&name).await?.status.unwrap_or_default();
            conditions::find(&status.conditions, conditions::STALLED)
                .cloned()
                .ok_or_else(|| anyhow::anyhow!("{:?}", status.conditions))
        })
        .await;
        assert!(stalled.message.contains('n'), "{}", stalled.message);
        delete(&cluster, database, &name).await;
        client
            .delete(&format!("/v1/collections/{name}"))
            .send()
            .await
            .expect("an answer");
    })
    .await;
}
