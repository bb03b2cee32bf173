//! The control plane is away, slow or half there.  Data nodes go on (P16).

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rhumb_crds::VectorDatabase;
use serde_json::json;

use super::{LONGER_THAN_A_LEASE, UNPLANNED};
use crate::e2e::PLANNED;
use crate::harness::cluster::{OPERATOR, OPERATOR_NAMESPACE};
use crate::harness::database::READY;
use crate::harness::machine::for_a_while;
use crate::harness::scenario::scenario;
use crate::harness::storm::{storm, with_storm_database};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, objects, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_go_on_without_an_api_server() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let before = database.pod_uids().await;
        storm(database, "no-api-server", async || {
            let away = cluster.machine().without("apiserver").expect("stopped");
            // Shorter than what makes the node controller give up on nodes it cannot hear.
            for_a_while(Duration::from_secs(12)).await;
            drop(away);
            wait_for("the API server answers", READY, async || {
                database.leaders().await.map(drop)
            })
            .await;
        })
        .await
        .silent_at_most(PLANNED);
        assert_eq!(database.pod_uids().await, before);
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_without_an_api_server_is_replaced_once_it_is_back() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "no-api-killed", async || {
            let pid = cluster.machine().pid(&leader).expect("it runs");
            let away = cluster.machine().without("apiserver").expect("stopped");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(away);
        })
        .await;
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_comes_and_goes_is_survived() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "api-flaps", async || {
            for _ in 0..3 {
                let away = cluster.machine().without("apiserver").expect("stopped");
                for_a_while(Duration::from_secs(2)).await;
                drop(away);
                for_a_while(Duration::from_secs(3)).await;
            }
        })
        .await
        .silent_at_most(PLANNED);
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_hangs_is_survived() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "etcd", async || {
            let hanging = cluster.machine().freeze_part("etcd").expect("stopped");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(hanging);
        })
        .await
        .silent_at_most(PLANNED);
        database.ready().await;
    })
    .await;
}

/// Both operators are away until the guard goes.
struct NoOperator<'a>(&'a Cluster);

impl<'a> NoOperator<'a> {
    async fn new(cluster: &'a Cluster) -> Self {
        let guard = Self(cluster);
        let operators: Api<Deployment> = cluster.namespaced(OPERATOR_NAMESPACE);
        let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
        operators
            .patch(OPERATOR, &PatchParams::default(), &none)
            .await
            .expect("scaled");
        wait_for("no operator runs", READY, async || {
            let status = operators.get(OPERATOR).await?.status;
            expect_eq(status.and_then(|status| status.replicas).unwrap_or(0), 0)
        })
        .await;
        guard
    }
}

impl Drop for NoOperator<'_> {
    fn drop(&mut self) {
        let scaled = std::process::Command::new("kubectl")
            .env("KUBECONFIG", self.0.kubeconfig())
            .args([
                "scale",
                "-n",
                OPERATOR_NAMESPACE,
                "deployment",
                OPERATOR,
                "--replicas=2",
            ])
            .output();
        if !scaled.is_ok_and(|output| output.status.success()) {
            eprintln!("NOT RESTORED: there is no operator");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_replaced_without_an_operator() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "no-operator", async || {
            let nobody = NoOperator::new(&cluster).await;
            cluster.machine().kill(&leader).expect("killed");
            for_a_while(LONGER_THAN_A_LEASE).await;
            database.leaders().await.expect("data nodes elect by themselves");
            drop(nobody);
        })
        .await
        .silent_at_most(UNPLANNED);
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_dies_in_a_rollout_is_replaced_by_the_other() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    scenario(&cluster, "mid-roll", async |scenario| {
        let database = scenario.database("one").await;
        database.ready().await;
        let before = database.pod_uids().await;
        storm(&database, "mid-roll", async || {
            scenario.unborn("one").await.restart().await;
            wait_for("the rollout began", READY, async || {
                let now = database.pods().await?.len();
                expect_eq(now > 2, true)
            })
            .await;
            cluster
                .machine()
                .kill(&acting_operator(&cluster).await)
                .expect("killed");
            wait_for("every pod is new", READY, async || {
                database.is_ready().await?;
                let after = database.pod_uids().await;
                expect_eq(after.iter().any(|uid| before.contains(uid)), false)
            })
            .await;
        })
        .await
        .silent_at_most(PLANNED);
    })
    .await;
}

async fn acting_operator(cluster: &Cluster) -> k8s_openapi::api::core::v1::Pod {
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = cluster.namespaced(OPERATOR_NAMESPACE);
    let lease = leases.get(OPERATOR).await.expect("a Lease");
    let holder = lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .expect("a holder");
    let name = holder.split('_').next().expect("a pod's name");
    let pods: Api<k8s_openapi::api::core::v1::Pod> = cluster.namespaced(OPERATOR_NAMESPACE);
    pods.get(name).await.expect("the pod that acts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_replaced_without_controllers_and_scheduler() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let leader = database.busiest().await;
        storm(database, "no-controllers", async || {
            let controllers = cluster.machine().without("controllers").expect("stopped");
            let scheduler = cluster.machine().without("scheduler").expect("stopped");
            database.remove(&leader).await;
            wait_for("others lead", READY, async || {
                let leaders = database.leaders().await?;
                let still = leaders.iter().any(|l| objects::uid(l) == objects::uid(&leader));
                expect_eq(still, false)
            })
            .await;
            drop((controllers, scheduler));
        })
        .await
        // Nobody takes the dead pod out of the Service meanwhile.
        .silent_at_most(UNPLANNED);
        database.ready().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_away_stops_no_traffic() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        storm(database, "no-proxy", async || {
            let away = cluster.machine().without("proxy").expect("stopped");
            for_a_while(LONGER_THAN_A_LEASE).await;
            drop(away);
        })
        .await
        .silent_at_most(PLANNED);
    })
    .await;
}

/// Nothing of what is said while the leader changes is a lie: a database that is Available
/// answers, at the latest a Lease later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_loses_all_pods_says_so_and_says_when_it_is_back() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_storm_database(&cluster, async |database| {
        let frozen: Vec<_> = database
            .ready_pods()
            .await
            .expect("pods")
            .iter()
            .map(|pod| cluster.machine().freeze(pod).expect("stopped"))
            .collect();
        database
            .says(rhumb_crds::conditions::AVAILABLE, "False", "NoDataNodeReady")
            .await;
        database
            .says(rhumb_crds::conditions::DEGRADED, "True", "NoDataNodeReady")
            .await;
        drop(frozen);
        back(database).await;
    })
    .await;
}

const SERVICE_RULES: Duration = Duration::from_secs(5);

async fn back(database: &Database<'_>) -> VectorDatabase {
    let ready = database.ready().await;
    let client = database.client().await;
    // The Service's rules on each node follow a moment after the pods' readiness.
    wait_for("an answer by the Service", SERVICE_RULES, async || {
        let answer = client.get("/v1/collections").send().await;
        let answer = answer.map_err(|none| anyhow::anyhow!("{none:?}"))?;
        expect_eq(answer.status, 200)
    })
    .await;
    ready
}
