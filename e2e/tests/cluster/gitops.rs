//! What docs/gitops.md promises, held against a real Argo CD: `make e2e-argocd` starts one
//! beside the cluster, and without it these scenarios skip themselves.

mod actions;
mod application;
mod commits;
mod drift;
mod sync;

use serde_json::{Value, json};

use crate::harness::scenario::Scenario;
use crate::harness::{Cluster, Database};

pub use application::{Application, under_argo};

async fn cluster_with_argo() -> Option<Cluster> {
    let cluster = Cluster::connect_with_machine().await?;
    if !cluster.machine().repositories().is_dir() {
        eprintln!("E2E SKIPPED: there is no Argo CD; `make e2e-argocd` starts one and runs this");
        return None;
    }
    Some(cluster)
}

/// A collection of database `one` with field `n`, and what `fields` has more.
fn words(fields: Value) -> Value {
    let mut collection = json!({
        "apiVersion": "rhumb.dev/v1alpha1", "kind": "Collection", "metadata": { "name": "words" },
        "spec": { "databaseRef": { "name": "one" }, "fields": { "n": { "type": "int" } } }
    });
    for (name, field) in fields.as_object().into_iter().flatten() {
        collection["spec"]["fields"][name] = field.clone();
    }
    collection
}

/// Database `one` and its collection are in Git, and everywhere.
async fn a_team<'a>(scenario: &Scenario<'a>, application: &Application, nodes: u32) -> Database<'a> {
    let database = scenario.unborn("one").await;
    let database = database.with("spec.dataNodes.replicas", nodes.into());
    let words = words(json!({}));
    let revision = application
        .commit(&[("database", Some(&database.manifest)), ("words", Some(&words))])
        .await;
    application.healthy_at(&revision).await;
    database.is_ready().await.expect("what is Healthy is Ready");
    database
}
