//! One scenario: a namespace of its own, with the bucket's keys in it, that goes away when
//! all went well and is shown when it did not.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use serde_json::json;

use super::{Cluster, Database, dump};

const SHARED: &str = "e2e-shared";
const SECURED: &str = "e2e-secured";

pub struct Scenario<'a> {
    pub cluster: &'a Cluster,
    pub namespace: String,
}

/// Runs `body` in a new namespace.  Pods in it must be content with the strictest profile.
pub async fn scenario(cluster: &Cluster, name: &str, body: impl AsyncFnOnce(&Scenario<'_>)) {
    let namespace = format!("e2e-{name}-{:06x}", rand::random_range(0..0x100_0000));
    let scenario = Scenario { cluster, namespace };
    prepare(cluster, &scenario.namespace).await;
    watched(cluster, &scenario.namespace, async || body(&scenario).await).await;
    if std::env::var_os("RHUMB_KEEP").is_none() {
        let namespaces = cluster.all::<Namespace>();
        let deleted = namespaces
            .delete(&scenario.namespace, &DeleteParams::default())
            .await;
        deleted.expect("the namespace can be deleted");
    }
}

/// Shows the namespace when `body` panics, and keeps it.
pub async fn watched(cluster: &Cluster, namespace: &str, body: impl AsyncFnOnce()) {
    if let Err(panic) = AssertUnwindSafe(body()).catch_unwind().await {
        dump::namespace(cluster, namespace).await;
        eprintln!("namespace {namespace} is kept");
        resume_unwind(panic);
    }
}

/// The database that scenarios share which change nothing but collections of their own: two
/// data nodes, four shards.
pub async fn with_shared_database(cluster: &Cluster, body: impl AsyncFnOnce(&Database<'_>)) {
    prepare(cluster, SHARED).await;
    watched(cluster, SHARED, async || {
        let database = Database::new(cluster, SHARED, "shared").await;
        let database = database.with("spec.sharding.count", 4.into());
        database.apply().await;
        database.ready().await;
        database.settled().await;
        body(&database).await;
    })
    .await;
}

/// The same for scenarios about keys and TLS: two data nodes, two shards.
pub async fn with_secured_database(cluster: &Cluster, body: impl AsyncFnOnce(&Database<'_>)) {
    prepare(cluster, SECURED).await;
    watched(cluster, SECURED, async || {
        let database = Database::new(cluster, SECURED, "secured").await.secured();
        database.apply().await;
        database.ready().await;
        database.settled().await;
        body(&database).await;
    })
    .await;
}

/// The namespace and its Secret, new or again.
pub async fn prepare(cluster: &Cluster, namespace: &str) {
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted", "rhumb.dev/e2e": "true" });
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace, "labels": labels } });
    cluster.apply(&object).await.expect("a namespace");
    let (access, secret) = cluster.s3_keys().await.expect("the bucket's keys");
    put_keys(cluster, namespace, &access, &secret).await;
}

pub async fn put_keys(cluster: &Cluster, namespace: &str, access: &str, secret: &str) {
    let keys = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s3-credentials", "namespace": namespace },
        "stringData": { "access-key-id": access, "secret-access-key": secret }
    });
    cluster.apply(&keys).await.expect("a Secret");
}

impl<'a> Scenario<'a> {
    /// A database that is asked for and not waited for.
    pub async fn database(&self, name: &str) -> Database<'a> {
        let database = self.unborn(name).await;
        database.apply().await;
        database
    }

    /// One that exists on paper only.
    pub async fn unborn(&self, name: &str) -> Database<'a> {
        Database::new(self.cluster, &self.namespace, name).await
    }
}
