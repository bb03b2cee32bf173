//! What is said of a database that serves.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};
use rhumb_crds::{conditions, names};

use crate::harness::cluster::{OPERATOR, OPERATOR_NAMESPACE};
use crate::harness::database::SOON;
use crate::harness::scenario::with_shared_database;
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, objects, wait_for};

#[tokio::test]
async fn a_database_that_serves_says_so_in_every_condition() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let status = database.ready().await.status.expect("a status");
        for kind in [
            conditions::AVAILABLE,
            conditions::OBJECT_STORE_REACHABLE,
            conditions::SECRETS_RESOLVED,
            conditions::SHARDS_READY,
            conditions::TLS_READY,
        ] {
            assert!(
                conditions::is_true(&status.conditions, kind),
                "{kind}: {:?}",
                status.conditions
            );
        }
        // Those that are there only while something is the matter.
        for kind in [
            conditions::RECONCILING,
            conditions::STALLED,
            conditions::PAUSED,
            conditions::HIBERNATED,
        ] {
            assert!(
                conditions::find(&status.conditions, kind).is_none(),
                "{kind}: {:?}",
                status.conditions
            );
        }
        let degraded = conditions::find(&status.conditions, conditions::DEGRADED);
        assert_eq!(degraded.expect("always said").status, "False");
        assert_eq!(status.nodes.as_deref(), Some("2/2"));
        assert_eq!(status.shards_led.as_deref(), Some("4/4"));
        let endpoint = format!("http://shared.{}.svc:7480", database.namespace);
        assert_eq!(status.endpoints.rest, Some(endpoint));
        let secured = conditions::find(&status.conditions, conditions::SECURED);
        assert_eq!(secured.expect("always said").reason, "Open");
        assert!(status.database_uid.is_some_and(|uid| !uid.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn every_shard_is_led_by_a_pod_that_holds_its_lease() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        wait_for("Lease and Shard agree", SOON, async || {
            let leaders = database.leaders().await?;
            for (index, leader) in (0..).zip(&leaders) {
                let shard = database.shard_api().get(&names::shard("shared", index)).await?;
                let status = shard.status.unwrap_or_default();
                let said = status.leader.map(|l| (l.pod, l.pod_uid));
                expect_eq(said, Some((leader.name_any(), objects::uid(leader))))?;
                expect_eq(shard.spec.nodes.first().cloned(), Some(leader.name_any()))?;
                expect_eq(status.epoch.is_some_and(|epoch| epoch >= 0), true)?;
            }
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn leadership_is_spread_over_the_pods() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        wait_for("four shards are led by two pods, two each", SOON, async || {
            let mut leaders: Vec<String> = database
                .leaders()
                .await?
                .iter()
                .map(ResourceExt::name_any)
                .collect();
            leaders.sort();
            expect_eq(leaders[0] == leaders[1] && leaders[2] == leaders[3], true)?;
            expect_eq(leaders[1] == leaders[2], false)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn every_follower_is_warm_and_reports_for_itself() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        wait_for("both pods are warm for every shard", SOON, async || {
            let pods = database.ready_pods().await?;
            for index in 0..database.shard_count() {
                let shard = database.shard_api().get(&names::shard("shared", index)).await?;
                let status = shard.status.unwrap_or_default();
                for pod in &pods {
                    expect_eq(status.is_warm(&pod.name_any(), &objects::uid(pod)), true)?;
                }
            }
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_people_see_of_it_is_short_and_true() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let row = ["get", "vdb", "shared", "-n", &database.namespace, "--no-headers"];
        let row = cluster.kubectl_says(&row).await.expect("a row");
        let columns: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(&columns[..5], ["shared", "True", "Serving", "2/2", "4/4"]);
        let wait = ["wait", "--for=condition=Ready", "vdb/shared", "--timeout=10s"];
        cluster
            .kubectl_says(&[&wait[..], &["-n", &database.namespace]].concat())
            .await
            .expect("kubectl wait ends");
        let shards = cluster
            .kubectl_says(&["get", "shards", "-n", &database.namespace, "--no-headers"])
            .await;
        assert_eq!(shards.expect("rows").lines().count(), 4);
    })
    .await;
}

#[tokio::test]
async fn the_scale_subresource_knows_the_pods() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let scale = database.api().get_scale("shared").await.expect("a scale");
        assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(2));
        let status = scale.status.expect("a status");
        assert_eq!(status.replicas, 2);
        assert_eq!(status.selector.as_deref(), Some("rhumb.dev/database=shared"));
    })
    .await;
}

#[tokio::test]
async fn of_two_operators_one_acts_and_both_are_ready() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let leases: Api<Lease> = cluster.namespaced(OPERATOR_NAMESPACE);
    wait_for("an operator leads", SOON, async || {
        let lease = leases.get(OPERATOR).await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        expect_eq(holder.is_some_and(|holder| holder.starts_with(OPERATOR)), true)
    })
    .await;
    let pods = [
        "get",
        "pods",
        "-n",
        OPERATOR_NAMESPACE,
        "--no-headers",
        "-o",
        "custom-columns=R:.status.containerStatuses[0].ready",
    ];
    let ready = cluster.kubectl_says(&pods).await.expect("pods");
    assert_eq!(ready.lines().filter(|line| line.trim() == "true").count(), 2);
}
