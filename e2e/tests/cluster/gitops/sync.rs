//! What is in Git comes to be, and then there is peace.

use std::time::Duration;

use futures::future::join_all;
use kube::Api;
use rhumb_crds::{Collection, conditions};
use serde_json::{Value, json};

use super::application::Seen;
use super::{Application, cluster_with_argo, under_argo, words};
use crate::harness::machine::for_a_while;
use crate::harness::pulse::Pulse;
use crate::harness::scenario::{Scenario, scenario};
use crate::harness::{Database, rows};

/// The operator looks at everything at least once in it; Argo CD every five seconds.
const PEACE: Duration = Duration::from_secs(70);
const COMPARED: usize = 8;

/// The ways in which people let Argo CD apply and compare.
fn ways() -> [(&'static str, Value); 3] {
    let apply = json!({ "syncPolicy": { "syncOptions": ["ServerSideApply=true"] } });
    let annotations = json!({ "argocd.argoproj.io/compare-options": "ServerSideDiff=true" });
    [
        ("client", json!({})),
        ("server", json!({ "spec": apply })),
        (
            "both",
            json!({ "spec": apply, "metadata": { "annotations": annotations } }),
        ),
    ]
}

/// Lists, quantities as people write them, and what is passed through: where diffs hide.
async fn detailed<'a>(scenario: &Scenario<'a>, name: &str) -> Database<'a> {
    let spread = json!({
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": { "rhumb.dev/database": name } }
    });
    let container = json!({ "name": "rhumb", "env": [{ "name": "RHUMB_LOG", "value": "info" }] });
    let overrides = json!({ "spec": { "topologySpreadConstraints": [spread], "containers": [container] } });
    let resources =
        json!({ "requests": { "cpu": "0.05", "memory": "0.125Gi" }, "limits": { "memory": "1024Mi" } });
    let clients = json!([{ "podSelector": {} }, { "namespaceSelector": {} }]);
    let database = scenario.unborn(name).await;
    database
        .with("spec.dataNodes.replicas", 1.into())
        .with("spec.dataNodes.resources", resources)
        .with("spec.dataNodes.podOverrides", overrides)
        .with("spec.dataNodes.disruptionBudget", json!({ "maxUnavailable": 1 }))
        .with("spec.networkPolicy", json!({ "clients": clients }))
        .with("metadata.labels", json!({ "team": "search" }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_git_is_healthy_when_it_is_ready_and_never_differs_again() {
    let Some(cluster) = cluster_with_argo().await else {
        return;
    };
    scenario(&cluster, "argo-sync", async |scenario| {
        join_all(ways().map(|(way, more)| syncs_once(scenario, way, more))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_wave_waits_until_the_database_is_ready() {
    under_argo("argo-wave", async |scenario, application| {
        let database = scenario.unborn("one").await;
        let mut words = words(json!({}));
        words["metadata"]["annotations"] = json!({ "argocd.argoproj.io/sync-wave": "1" });
        let revision = application
            .commit(&[("database", Some(&database.manifest)), ("words", Some(&words))])
            .await;
        application.healthy_at(&revision).await;
        let ready = database.condition(conditions::READY).await.expect("a condition");
        let collections: Api<Collection> = scenario.cluster.namespaced(&scenario.namespace);
        let words = collections.get("words").await.expect("there");
        let made = words.metadata.creation_timestamp.expect("a time");
        assert!(made.0 >= ready.last_transition_time.0, "{made:?}, {ready:?}");
    })
    .await;
}

async fn syncs_once(scenario: &Scenario<'_>, way: &str, more: Value) {
    let application = Application::start(scenario, &format!("-{way}"), more).await;
    application
        .watched(async || {
            let database = detailed(scenario, way).await;
            let mut words = words(json!({ "v": { "type": "vector", "dim": 4 } }));
            words["metadata"]["name"] = format!("words-{way}").into();
            words["spec"]["name"] = "words".into();
            words["spec"]["databaseRef"]["name"] = way.into();
            let revision = application
                .commit(&[("database", Some(&database.manifest)), ("words", Some(&words))])
                .await;
            let synced = application.healthy_at(&revision).await;
            database.is_ready().await.expect("what is Healthy is Ready");
            assert_progressed(&application, &revision);

            let client = database.client().await;
            rows::fill(&client, "words").await;
            let pulse = Pulse::start(&client, "pulse").await;
            for_a_while(PEACE).await;
            drop(pulse);
            assert_peace(&application, &synced);
        })
        .await;
}

fn assert_progressed(application: &Application, revision: &str) {
    let seen = application.seen();
    let told: Vec<&str> = seen
        .iter()
        .filter(|seen| seen.revision == revision)
        .map(|seen| seen.health.as_str())
        .collect();
    let healthy = told
        .iter()
        .position(|health| *health == "Healthy")
        .expect("it is Healthy");
    assert!(told[..healthy].contains(&"Progressing"), "{told:?}");
    assert!(
        told[healthy..].iter().all(|health| *health == "Healthy"),
        "{told:?}"
    );
    assert!(!told.contains(&"Degraded"), "{told:?}");
}

/// Nothing but the time of the last comparison changed since.
fn assert_peace(application: &Application, synced: &Seen) {
    let since = application.since(synced);
    assert!(since.len() >= COMPARED, "compared {} times only", since.len());
    for seen in since {
        let mut as_synced = seen.clone();
        as_synced.compared.clone_from(&synced.compared);
        assert_eq!(as_synced, *synced);
    }
}
