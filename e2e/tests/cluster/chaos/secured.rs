//! Faults of a database that asks for keys: whoever was let in stays so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rhumb_crds::names;
use rhumb_e2e::Client;
use serde_json::json;
use tokio::task::AbortHandle;

use super::UNPLANNED;
use crate::harness::scenario::with_secured_database;
use crate::harness::storm::storm;
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, wait_for};

/// The operator looks once a minute, the kubelet takes as long to refresh the files, and the
/// nodes look every few seconds.
const RENEWED: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_replaced_for_the_same_keys() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let key = database.admin_key().await.expect("a key");
        let leader = database.busiest().await;
        storm(database, "secured", async || {
            cluster.machine().kill(&leader).expect("killed");
        })
        .await
        .silent_at_most(UNPLANNED);
        assert_eq!(database.admin_key().await.expect("a key"), key);
        for client in database.clients().await {
            let who = client.get("/v1/whoami").send().await.expect("an answer");
            assert_eq!(who.status, 200, "{who}");
        }
    })
    .await;
}

/// What failed, of requests that do not stop until this goes.
struct Stream {
    failed: Arc<Mutex<Vec<String>>>,
    tasks: Vec<AbortHandle>,
}

impl Stream {
    /// Through `client`'s one connection, and through a new one each time.
    fn start(client: &Client, path: &str) -> Self {
        let failed: Arc<Mutex<Vec<String>>> = Arc::default();
        let tasks = [false, true].map(|anew| {
            let task = tokio::spawn(ask(client.clone(), anew, path.to_owned(), failed.clone()));
            task.abort_handle()
        });
        let tasks = tasks.into();
        Self { failed, tasks }
    }

    fn assert_nothing_failed(&self) {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            failed.is_empty(),
            "{} requests failed: {}",
            failed.len(),
            failed[0]
        );
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn ask(like: Client, anew: bool, path: String, failed: Arc<Mutex<Vec<String>>>) {
    let mut client = like.fresh().expect("a client");
    for n in 0_u64.. {
        if anew {
            client = like.fresh().expect("a client");
        }
        let row = json!({"upsert": [{"id": "row", "n": n}]});
        let why = match client.post(&path, &row).send().await {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(answer.to_string()),
            Err(error) => Some(error.to_string()),
        };
        failed.lock().unwrap_or_else(PoisonError::into_inner).extend(why);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What each pod shows to a client that comes now.
async fn shown(database: &Database<'_>) -> anyhow::Result<BTreeSet<Vec<u8>>> {
    let mut shown = BTreeSet::new();
    for client in database.clients().await {
        let answer = client.get("/healthz").send().await?;
        shown.extend(answer.certificate);
    }
    Ok(shown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_renewed_costs_no_request() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let client = database.client().await;
        let name = format!("renewed-{:06x}", rand::random_range(0..0x100_0000));
        client
            .create(&name, &json!({"fields": {"n": "int"}}))
            .await
            .expect("created");
        let pods = database.pod_uids().await;
        let before = shown(database).await.expect("answers");
        assert_eq!(before.len(), 1, "all pods show one certificate");
        let stream = Stream::start(&client, &format!("/v1/collections/{name}/documents"));

        // Due since long ago; a change of the database makes the operator look at once.
        let secrets: Api<Secret> = cluster.namespaced(&database.namespace);
        let due = Patch::Merge(
            json!({ "metadata": { "annotations": { "rhumb.dev/renew-after": "2026-01-01T00:00:00Z" } } }),
        );
        let secret = names::node_tls(&database.name);
        secrets
            .patch(&secret, &PatchParams::default(), &due)
            .await
            .expect("due");
        let label = Patch::Merge(json!({ "metadata": { "labels": { "renewed": name } } }));
        let looked = database
            .api()
            .patch(&database.name, &PatchParams::default(), &label)
            .await;
        looked.expect("labelled");
        wait_for("every pod shows a new certificate", RENEWED, async || {
            let now = shown(database).await?;
            expect_eq((now.len(), now.is_disjoint(&before)), (1, true))
        })
        .await;

        stream.assert_nothing_failed();
        drop(stream);
        assert_eq!(database.pod_uids().await, pods, "nothing restarts for it");
        let gone = client.delete(&format!("/v1/collections/{name}")).send().await;
        gone.expect("an answer");
    })
    .await;
}
