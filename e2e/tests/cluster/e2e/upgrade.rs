//! The operator itself is changed.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rhumb_crds::conditions;
use serde_json::{Value, json};

use super::PLANNED;
use crate::harness::cluster::{OPERATOR, OPERATOR_NAMESPACE};
use crate::harness::database::{READY, SOON};
use crate::harness::scenario::scenario;
use crate::harness::storm::{storm, with_storm_database};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, wait_for};

async fn set_default_image(cluster: &Cluster, image: &str) {
    let operators: Api<Deployment> = cluster.namespaced(OPERATOR_NAMESPACE);
    let patch = json!({ "spec": { "template": { "spec": { "containers": [{
        "name": "operator", "env": [{ "name": "RHUMB_DATA_NODE_IMAGE", "value": image }]
    }] } } } });
    operators
        .patch(OPERATOR, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .expect("patched");
    wait_for("the new operator runs", READY, async || {
        let operator = operators.get(OPERATOR).await?;
        let status = operator.status.unwrap_or_default();
        expect_eq(status.observed_generation, operator.metadata.generation)?;
        expect_eq(status.updated_replicas, Some(2))?;
        expect_eq(status.replicas, Some(2))?;
        expect_eq(status.available_replicas, Some(2))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_with_another_image_restarts_no_data_node() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "upgrade", async |scenario| {
        let mut database = scenario.unborn("one").await;
        let image = database.manifest["spec"]["image"].clone();
        let image = image.as_str().expect("an image").to_owned();
        // Without an image of its own it has the operator's at the time.
        database.manifest["spec"]["image"] = Value::Null;
        database.apply().await;
        database.ready().await;
        let before = database.pod_uids().await;
        set_default_image(&cluster, &format!("docker.io/library/{image}")).await;
        database
            .says(conditions::UPDATE_PENDING, "True", "OperatorUpgraded")
            .await;
        assert_eq!(database.pod_uids().await, before);
        let status = database.ready().await.status.expect("a status");
        assert_eq!(status.image.as_ref(), Some(&image));
        // Asked for, it takes the new one.
        database.restart().await;
        wait_for("every pod is new", READY, async || {
            database.is_ready().await?;
            let after = database.pod_uids().await;
            expect_eq(after.iter().any(|uid| before.contains(uid)), false)
        })
        .await;
        database.says_nothing(conditions::UPDATE_PENDING).await;
        set_default_image(&cluster, &image).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_is_replaced_is_not_noticed() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let before = database.pod_uids().await;
        storm(database, "replaced", async || {
            let restart = [
                "rollout",
                "restart",
                "deployment/rhumb-operator",
                "-n",
                OPERATOR_NAMESPACE,
            ];
            cluster.kubectl_says(&restart).await.expect("restarted");
            let done = [
                "rollout",
                "status",
                "deployment/rhumb-operator",
                "-n",
                OPERATOR_NAMESPACE,
                "--timeout=90s",
            ];
            cluster.kubectl_says(&done).await.expect("rolled out");
        })
        .await
        .silent_at_most(PLANNED);
        assert_eq!(database.pod_uids().await, before);
        wait_for("it acts", SOON, async || database.is_ready().await).await;
    })
    .await;
}
