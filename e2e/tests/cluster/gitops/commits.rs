//! What teams commit.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use super::{Application, a_team, cluster_with_argo, under_argo, words};
use crate::harness::database::{READY, SOON};
use crate::harness::scenario::scenario;
use crate::harness::wait::expect_eq;
use crate::harness::{rows, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_scales_a_database_and_adds_a_field() {
    under_argo("argo-commit", async |scenario, application| {
        let database = a_team(scenario, application, 1).await;
        let client = database.client().await;
        rows::fill(&client, "words").await;
        let two = scenario.unborn("one").await;
        let more = words(json!({ "more": { "type": "string" } }));
        let revision = application
            .commit(&[("database", Some(&two.manifest)), ("words", Some(&more))])
            .await;
        application.healthy_at(&revision).await;
        two.is_ready().await.expect("what is Healthy is Ready");
        assert_eq!(two.ready_pods().await.expect("pods").len(), 2);
        rows::assert_full(&two, "words").await;
        let info = client
            .get("/v1/collections/words")
            .send()
            .await
            .expect("an answer");
        assert!(!info.json()["fields"]["more"].is_null(), "{info}");
    })
    .await;
}

/// The API server refuses it: nothing is changed, and Git and cluster differ until somebody
/// reverts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_drops_a_field_fails_to_sync_and_says_why() {
    let Some(cluster) = cluster_with_argo().await else {
        return;
    };
    scenario(&cluster, "argo-lossy", async |scenario| {
        // While Argo CD tries a commit again it looks at no other one.
        let once = json!({ "spec": { "syncPolicy": { "retry": { "limit": 0 } } } });
        let application = Application::start(scenario, "", once).await;
        application
            .watched(async || {
                let database = a_team(scenario, &application, 1).await;
                rows::fill(&database.client().await, "words").await;
                let mut lossy = words(json!({ "other": { "type": "int" } }));
                lossy["spec"]["fields"]
                    .as_object_mut()
                    .expect("fields")
                    .remove("n");
                application.commit(&[("words", Some(&lossy))]).await;
                refused(
                    &application,
                    "a declared field cannot be removed: its data would be lost",
                )
                .await;
                let mut lossy = words(json!({}));
                lossy["spec"]["fields"]["n"] = json!({ "type": "string" });
                application.commit(&[("words", Some(&lossy))]).await;
                refused(&application, "a field keeps its type: add another field").await;
                let revision = application.revert(2).await;
                application.healthy_at(&revision).await;
                rows::assert_full(&database, "words").await;
            })
            .await;
    })
    .await;
}

async fn refused(application: &Application, why: &str) {
    wait_for("the sync fails", READY, async || {
        let seen = application.now().await?;
        anyhow::ensure!(seen.message.contains(why), "{}", seen.message);
        expect_eq((seen.phase.as_str(), seen.sync.as_str()), ("Failed", "OutOfSync"))?;
        // Nothing was changed: what there is, is well.
        expect_eq(seen.health.as_str(), "Healthy")
    })
    .await;
}

/// What only the database can know: the collection is there already, and another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_contradicts_what_is_there_is_degraded_until_the_revert() {
    under_argo("argo-degraded", async |scenario, application| {
        let database = a_team(scenario, application, 1).await;
        let client = database.client().await;
        let fields = json!({ "fields": { "n": "string" } });
        client.create("other", &fields).await.expect("created");
        let document = json!({ "upsert": [{ "id": "kept", "n": "one" }] });
        client.write("other", &document).await.expect("written");

        let mut other = words(json!({}));
        other["metadata"]["name"] = "other".into();
        application.commit(&[("other", Some(&other))]).await;
        application.becomes("Degraded").await;
        let (health, message) = application.shown("Collection", "other").await.expect("shown");
        assert_eq!(health, "Degraded");
        assert!(message.contains("field n has another type"), "{message}");
        let (health, _) = application.shown("VectorDatabase", "one").await.expect("shown");
        assert_eq!(health, "Healthy");

        let revision = application.revert(1).await;
        application.healthy_at(&revision).await;
        assert_eq!(client.scan("other", "").await.expect("a scan").len(), 1);
    })
    .await;
}

/// Only the database knows all languages: the API server lets the mistake and the revert pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_is_refused_goes_with_the_revert() {
    under_argo("argo-mistake", async |scenario, application| {
        let database = a_team(scenario, application, 1).await;
        rows::fill(&database.client().await, "words").await;
        let mistake = words(json!({ "t": { "type": "text", "language": "klingon" } }));
        application.commit(&[("words", Some(&mistake))]).await;
        application.becomes("Degraded").await;
        let (_, message) = application.shown("Collection", "words").await.expect("shown");
        assert!(message.contains("klingon"), "{message}");
        let revision = application.revert(1).await;
        application.healthy_at(&revision).await;
        rows::assert_full(&database, "words").await;
    })
    .await;
}

/// Data nodes are needed to delete documents: waves keep them until it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_later_wave_a_pruned_collection_takes_its_documents_before_the_database_goes() {
    under_argo("argo-waves", async |scenario, application| {
        let database = a_team(scenario, application, 1).await;
        rows::fill(&database.client().await, "words").await;
        let mut reclaimed = words(json!({}));
        reclaimed["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] = "1".into();
        reclaimed["spec"]["reclaimPolicy"] = "Delete".into();
        let revision = application.commit(&[("words", Some(&reclaimed))]).await;
        application.healthy_at(&revision).await;
        let revision = application.commit(&[("database", None), ("words", None)]).await;
        application.healthy_at(&revision).await;
        wait_for("the database is gone", READY, async || {
            expect_eq(database.api().get_opt("one").await?.is_none(), true)
        })
        .await;
        let revision = application.revert(1).await;
        application.healthy_at(&revision).await;
        let left = database.client().await.scan("words", "").await.expect("a scan");
        assert_eq!(left.len(), 0, "documents outlived their collection");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_pruned_comes_back_with_its_commit() {
    under_argo("argo-pruned", async |scenario, application| {
        let database = a_team(scenario, application, 2).await;
        rows::fill(&database.client().await, "words").await;
        let before = database.ready().await.status.expect("a status").database_uid;
        let revision = application.commit(&[("database", None), ("words", None)]).await;
        application.healthy_at(&revision).await;
        let all = ListParams::default();
        let (deployments, services): (Api<Deployment>, Api<Service>) = (
            scenario.cluster.namespaced(&scenario.namespace),
            scenario.cluster.namespaced(&scenario.namespace),
        );
        wait_for("the database and its children are gone", READY, async || {
            expect_eq(database.api().get_opt("one").await?.is_none(), true)?;
            expect_eq(database.pods().await?.len(), 0)?;
            expect_eq(deployments.list(&all).await?.items.len(), 0)?;
            expect_eq(services.list(&all).await?.items.len(), 0)?;
            expect_eq(database.shard_api().list(&all).await?.items.len(), 0)
        })
        .await;
        let revision = application.revert(1).await;
        application.healthy_at(&revision).await;
        let after = database.ready().await.status.expect("a status").database_uid;
        assert_eq!(before, after, "another database lies in the bucket");
        rows::assert_full(&database, "words").await;
        wait_for("nothing differs", SOON, async || {
            expect_eq(application.now().await?.sync.as_str(), "Synced")
        })
        .await;
    })
    .await;
}
