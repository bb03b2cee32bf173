//! What is said of a database that cannot serve, and why.

use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use rhumb_crds::conditions;
use serde_json::json;

use crate::harness::database::{READY, SOON};
use crate::harness::scenario::{put_keys, scenario};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, wait_for};

#[tokio::test]
async fn a_missing_secret_is_named_and_waited_for() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "secret", async |scenario| {
        let secrets = cluster.namespaced::<Secret>(&scenario.namespace);
        secrets
            .delete("s3-credentials", &DeleteParams::default())
            .await
            .expect("deleted");
        let database = scenario.database("one").await;
        let message = database.says(conditions::READY, "False", "SecretMissing").await;
        assert!(message.contains("s3-credentials"), "{message}");
        assert_eq!(database.pods().await.expect("pods").len(), 0);
        let resolved = database
            .says(conditions::SECRETS_RESOLVED, "False", "SecretMissing")
            .await;
        assert_eq!(resolved, message);

        let (access, secret) = cluster.s3_keys().await.expect("keys");
        put_keys(&cluster, &scenario.namespace, &access, &secret).await;
        database.says(conditions::SECRETS_RESOLVED, "True", "Found").await;
        wait_for("pods", READY, async || expect_eq(database.pods().await?.len(), 2)).await;
    })
    .await;
}

#[tokio::test]
async fn a_secret_without_a_key_is_named_with_the_key() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "secret-key", async |scenario| {
        let key = "spec.objectStore.credentials.secretRef.accessKeyIdKey";
        let database = scenario.unborn("one").await.with(key, json!("elsewhere"));
        database.apply().await;
        let message = database.says(conditions::READY, "False", "SecretMissing").await;
        assert!(
            message.contains("s3-credentials") && message.contains("elsewhere"),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_database_of_no_replicas_is_hibernated_and_not_degraded() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "asleep", async |scenario| {
        let database = scenario
            .unborn("one")
            .await
            .with("spec.dataNodes.replicas", json!(0));
        database.apply().await;
        database.says(conditions::READY, "False", "Hibernated").await;
        database.says(conditions::HIBERNATED, "True", "NoDataNodes").await;
        database.says(conditions::DEGRADED, "False", "AsExpected").await;
        // GitOps tools would wait for ever.
        database.says_nothing(conditions::RECONCILING).await;
    })
    .await;
}

#[tokio::test]
async fn an_image_that_is_not_there_is_told_with_the_kubelets_words() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "image", async |scenario| {
        let database = scenario
            .unborn("one")
            .await
            .with("spec.image", json!("rhumb:no-such-tag"));
        database.apply().await;
        let message = database.says(conditions::READY, "False", "PodsFailing").await;
        assert!(message.contains("no-such-tag"), "{message}");
        database.says(conditions::DEGRADED, "True", "PodsFailing").await;
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_is_told_with_the_schedulers_words() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "huge", async |scenario| {
        let database = scenario.unborn("one").await.with(
            "spec.dataNodes.resources",
            json!({ "requests": { "cpu": "1000" } }),
        );
        database.apply().await;
        let message = database
            .says(conditions::READY, "False", "PodsUnschedulable")
            .await;
        assert!(message.contains("cpu"), "{message}");
        database
            .says(conditions::RECONCILING, "True", "PodsUnschedulable")
            .await;
    })
    .await;
}

#[tokio::test]
async fn overrides_that_kubernetes_refuses_stall_with_its_words() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "overrides", async |scenario| {
        let overrides =
            json!({ "spec": { "containers": [{ "name": "rhumb", "imagePullPolicy": "Sometimes" }] } });
        let mut database = scenario
            .unborn("one")
            .await
            .with("spec.dataNodes.podOverrides", overrides);
        database.apply().await;
        let message = database.says(conditions::STALLED, "True", "Refused").await;
        assert!(
            message.contains("Deployment one") && message.contains("Sometimes"),
            "{message}"
        );
        // Mended, it goes on.
        database.change("spec.dataNodes.podOverrides", json!({})).await;
        wait_for("pods", SOON, async || expect_eq(database.pods().await?.len(), 2)).await;
        database.says_nothing(conditions::STALLED).await;
    })
    .await;
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_told_with_the_data_nodes_last_words() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "bucket", async |scenario| {
        let database = scenario
            .unborn("one")
            .await
            .with("spec.objectStore.bucket", json!("no-such-bucket"));
        database.apply().await;
        let message = wait_for("it is told", READY, async || {
            let ready = database.condition(conditions::READY).await?;
            let told = matches!(ready.reason.as_str(), "PodsFailing" | "ObjectStoreUnreachable");
            anyhow::ensure!(told, "{}: {}", ready.reason, ready.message);
            Ok(ready.message)
        })
        .await;
        assert!(message.to_lowercase().contains("bucket"), "{message}");
    })
    .await;
}

#[tokio::test]
#[ignore = "a data node says so in its log alone and tries for ever: nothing reaches `status` but Starting"]
async fn keys_that_the_bucket_refuses_are_told() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "keys", async |scenario| {
        put_keys(&cluster, &scenario.namespace, "rhumb-e2e", "wrong").await;
        let database = scenario.database("one").await;
        let message = wait_for("it is told", READY, async || {
            let ready = database.condition(conditions::READY).await?;
            let told = matches!(ready.reason.as_str(), "PodsFailing" | "ObjectStoreUnreachable");
            anyhow::ensure!(told, "{}: {}", ready.reason, ready.message);
            Ok(ready.message)
        })
        .await;
        assert!(!message.contains("wrong"), "the key itself is told: {message}");
    })
    .await;
}
