//! What people change by hand.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{a_team, under_argo};
use crate::harness::database::READY;
use crate::harness::wait::expect_eq;
use crate::harness::{rows, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_is_edited_by_hand_follows_git_again() {
    under_argo("argo-drift", async |scenario, application| {
        let database = a_team(scenario, application, 2).await;
        let before = application.now().await.expect("there");
        let edit = Patch::Merge(json!({ "spec": { "dataNodes": { "replicas": 1 } } }));
        let edited = database.api().patch("one", &PatchParams::default(), &edit).await;
        let edited = edited.expect("edited").metadata.generation;
        wait_for("Git's word holds", READY, async || {
            let database = database.api().get("one").await?;
            expect_eq(database.metadata.generation > edited, true)?;
            expect_eq(database.spec.data_nodes.replicas, 2)
        })
        .await;
        database.ready().await;
        application.becomes("Healthy").await;
        let now = application.now().await.expect("there");
        assert_eq!((now.sync.as_str(), now.phase.as_str()), ("Synced", "Succeeded"));
        assert_ne!(now.finished, before.finished, "nothing was synced");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_are_the_operators_and_no_business_of_argo_cd() {
    under_argo("argo-children", async |scenario, application| {
        let database = a_team(scenario, application, 2).await;
        let synced = application.now().await.expect("there");
        let deployments: Api<Deployment> = scenario.cluster.namespaced(&scenario.namespace);
        let all = deployments.list(&ListParams::default()).await.expect("listed");
        let edit = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
        for deployment in &all {
            let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
            assert!(
                !annotations.keys().any(|key| key.contains("argoproj")),
                "{annotations:?}"
            );
            let name = deployment.metadata.name.as_deref().expect("a name");
            let edited = deployments.patch(name, &PatchParams::default(), &edit).await;
            edited.expect("edited");
        }
        assert_eq!(all.items.len(), 1);
        let services: Api<Service> = scenario.cluster.namespaced(&scenario.namespace);
        let deleted = services.delete("one", &DeleteParams::default()).await;
        deleted.expect("deleted");
        database.ready().await;
        wait_for("all is as before", READY, async || {
            let all = deployments.list(&ListParams::default()).await?;
            expect_eq(all.items[0].spec.replicas, Some(2))?;
            expect_eq(database.ready_pods().await?.len(), 2)?;
            database.address().await.map(drop)
        })
        .await;
        application.becomes("Healthy").await;
        application.assert_left_alone_since(&synced);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_deleted_by_hand_is_made_again_with_its_data() {
    under_argo("argo-deleted", async |scenario, application| {
        let database = a_team(scenario, application, 1).await;
        rows::fill(&database.client().await, "words").await;
        let before = database.ready().await;
        let deleted = database.api().delete("one", &DeleteParams::default()).await;
        deleted.expect("deleted");
        wait_for("another one is there", READY, async || {
            let now = database.is_ready().await?;
            expect_eq(now.metadata.uid == before.metadata.uid, false)?;
            let uid = |database: &rhumb_crds::VectorDatabase| database.status.clone()?.database_uid;
            expect_eq(uid(&now), uid(&before))
        })
        .await;
        application.becomes("Healthy").await;
        rows::assert_full(&database, "words").await;
    })
    .await;
}
