//! What is said and made of a database that asks for keys, and of one that does not.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use rhumb_crds::{Collection, conditions, names};
use serde_json::json;

use crate::harness::database::{READY, SOON};
use crate::harness::scenario::{Scenario, scenario, with_secured_database};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, wait_for};

/// A database that runs nothing has its Secrets all the same.
async fn asleep<'a>(scenario: &Scenario<'a>) -> Database<'a> {
    scenario
        .unborn("one")
        .await
        .with("spec.dataNodes.replicas", json!(0))
}

#[tokio::test]
async fn a_secured_database_says_where_its_keys_are() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let status = database.ready().await.status.expect("a status");
        let endpoint = format!("https://secured.{}.svc:7480", database.namespace);
        assert_eq!(status.endpoints.rest, Some(endpoint));
        let message = database.says(conditions::SECURED, "True", "KeysAndTLS").await;
        assert!(
            message.contains("secured-admin") && message.contains("secured-ca"),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_open_database_warns_whoever_looks() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "open", async |scenario| {
        let database = asleep(scenario).await;
        database.apply().await;
        database.says(conditions::SECURED, "False", "Open").await;
        let events = [
            "get",
            "events",
            "-n",
            &database.namespace,
            "--field-selector",
            "reason=Open",
        ];
        let events = [&events[..], &["-o", "jsonpath={.items[*].type}"]].concat();
        wait_for("a warning", SOON, async || {
            expect_eq(cluster.kubectl_says(&events).await?.as_str(), "Warning")
        })
        .await;
        let secrets: Api<Secret> = cluster.namespaced(&database.namespace);
        let admin = secrets.get_opt(&names::admin("one")).await.expect("an answer");
        assert!(admin.is_none(), "a key that opens nothing");
    })
    .await;
}

#[tokio::test]
async fn a_database_that_says_nothing_of_keys_gets_one_and_keeps_it() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "default", async |scenario| {
        let mut database = asleep(scenario).await;
        database.manifest["spec"]
            .as_object_mut()
            .expect("a spec")
            .remove("security");
        database.apply().await;
        database.says(conditions::SECURED, "True", "KeysAndTLS").await;
        let first = wait_for("a key", SOON, async || database.admin_key().await).await;
        // A change of nothing but metadata makes the operator look once more.
        let label = Patch::Merge(json!({ "metadata": { "labels": { "looked": "at" } } }));
        let patched = database.api().patch("one", &PatchParams::default(), &label).await;
        patched.expect("labelled");
        database.says(conditions::READY, "False", "Hibernated").await;
        assert_eq!(database.admin_key().await.expect("a key"), first);
        database.delete().await;
        let secrets: Api<Secret> = cluster.namespaced(&database.namespace);
        wait_for("the key goes with the database", READY, async || {
            expect_eq(secrets.get_opt(&names::admin("one")).await?.is_none(), true)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_key_that_somebody_put_there_is_theirs() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "own-key", async |scenario| {
        let secret = |value: &str| {
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": names::admin("one"), "namespace": scenario.namespace },
                "stringData": { names::ADMIN_KEY: value }
            })
        };
        cluster.apply(&secret("hunter2")).await.expect("a Secret");
        let database = scenario.unborn("one").await.secured();
        database.apply().await;
        let message = database
            .says(conditions::SECRETS_RESOLVED, "False", "SecretMissing")
            .await;
        assert!(
            message.contains("one-admin") && !message.contains("hunter2"),
            "{message}"
        );
        let own = format!("rhk_ours_{}", "A".repeat(43));
        cluster.apply(&secret(&own)).await.expect("a Secret");
        database.ready().await;
        assert_eq!(database.admin_key().await.expect("a key"), own);
        let who = database
            .client()
            .await
            .get("/v1/whoami")
            .send()
            .await
            .expect("an answer");
        assert_eq!(who.json()["subject"], "key:ours", "{who}");
        let secrets: Api<Secret> = cluster.namespaced(&database.namespace);
        let kept = secrets.get(&names::admin("one")).await.expect("theirs");
        assert!(kept.owner_references().is_empty(), "the operator took it");
    })
    .await;
}

#[tokio::test]
async fn collections_of_a_secured_database_are_made_too() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let name = format!("declared-{:06x}", rand::random_range(0..0x100_0000));
        let object = json!({
            "apiVersion": "rhumb.dev/v1alpha1", "kind": "Collection",
            "metadata": { "name": name, "namespace": database.namespace },
            "spec": {
                "databaseRef": { "name": "secured" }, "fields": { "n": { "type": "int" } }, "reclaimPolicy": "Delete"
            }
        });
        cluster.apply(&object).await.expect("accepted");
        let collections: Api<Collection> = cluster.namespaced(&database.namespace);
        wait_for("the collection is Ready", READY, async || {
            let status = collections.get(&name).await?.status.unwrap_or_default();
            anyhow::ensure!(conditions::is_true(&status.conditions, conditions::READY), "{:?}", status.conditions);
            Ok(())
        })
        .await;
        let path = format!("/v1/collections/{name}");
        let found = database.client().await.get(&path).send().await.expect("an answer");
        assert_eq!(found.status, 200, "{found}");
        let deleted = collections.delete(&name, &DeleteParams::default()).await;
        deleted.expect("deleted");
        wait_for("it is gone", SOON, async || {
            expect_eq(collections.get_opt(&name).await?.is_none(), true)
        })
        .await;
        let found = database.client().await.get(&path).send().await.expect("an answer");
        assert_eq!(found.status, 404, "{found}");
    })
    .await;
}
