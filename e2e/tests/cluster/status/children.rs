//! The objects that make a database run.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use rhumb_crds::{conditions, names};
use serde_json::json;

use crate::harness::database::{READY, SOON};
use crate::harness::scenario::{Scenario, scenario};
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, wait_for};

/// A database that runs nothing has all its children but pods.
async fn asleep<'a>(scenario: &Scenario<'a>) -> Database<'a> {
    let database = scenario
        .unborn("one")
        .await
        .with("spec.dataNodes.replicas", json!(0));
    database.apply().await;
    database.says(conditions::READY, "False", "Hibernated").await;
    let deployments: Api<Deployment> = scenario.cluster.namespaced(&scenario.namespace);
    wait_for("the Deployment", SOON, async || {
        Ok(deployments.get("one").await?)
    })
    .await;
    database
}

#[tokio::test]
async fn all_children_are_there_and_go_with_the_database() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "children", async |scenario| {
        let database = asleep(scenario).await;
        let listed = async || {
            let kinds = "deployments,services,poddisruptionbudgets,networkpolicies,serviceaccounts,roles,rolebindings,shards,leases,secrets";
            let label = "rhumb.dev/database=one";
            let list = ["get", kinds, "-n", &database.namespace, "-l", label, "-o", "name"];
            let said = cluster.kubectl_says(&list).await?;
            Ok::<BTreeSet<String>, anyhow::Error>(said.lines().map(str::to_owned).collect())
        };
        let expected = [
            "deployment.apps/one",
            "lease.coordination.k8s.io/one-shard-0",
            "lease.coordination.k8s.io/one-shard-1",
            "networkpolicy.networking.k8s.io/one",
            "poddisruptionbudget.policy/one",
            "role.rbac.authorization.k8s.io/one-node",
            "rolebinding.rbac.authorization.k8s.io/one-node",
            "secret/one-ca",
            "secret/one-ca-key",
            "secret/one-node-tls",
            "service/one",
            "service/one-nodes",
            "serviceaccount/one-node",
            "shard.rhumb.dev/one-shard-0",
            "shard.rhumb.dev/one-shard-1",
        ];
        let expected: BTreeSet<String> = expected.map(str::to_owned).into();
        wait_for("all children", SOON, async || expect_eq(listed().await?, expected.clone())).await;
        database.delete().await;
        wait_for("no child is left", READY, async || expect_eq(listed().await?, BTreeSet::new())).await;
    })
    .await;
}

#[tokio::test]
async fn a_hand_edited_child_is_put_back() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "edited", async |scenario| {
        let database = asleep(scenario).await;
        let deployments: Api<Deployment> = cluster.namespaced(&database.namespace);
        let services: Api<Service> = cluster.namespaced(&database.namespace);
        let edit = Patch::Merge(json!({ "spec": { "revisionHistoryLimit": 7 } }));
        deployments
            .patch("one", &PatchParams::default(), &edit)
            .await
            .expect("edited");
        let edit = Patch::Merge(json!({ "spec": { "selector": { "rhumb.dev/database": "other" } } }));
        services
            .patch("one", &PatchParams::default(), &edit)
            .await
            .expect("edited");
        wait_for("all is put back", SOON, async || {
            let limit = deployments.get("one").await?.spec.revision_history_limit;
            expect_eq(limit, Some(3))?;
            let selector = services.get("one").await?.spec.and_then(|s| s.selector);
            expect_eq(
                selector.and_then(|s| s.get("rhumb.dev/database").cloned()),
                Some("one".to_owned()),
            )
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_deleted_child_is_made_anew() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "deleted", async |scenario| {
        let database = asleep(scenario).await;
        let services: Api<Service> = cluster.namespaced(&database.namespace);
        let before = services.get("one").await.expect("a Service").uid();
        services
            .delete("one", &DeleteParams::default())
            .await
            .expect("deleted");
        let shard = names::shard("one", 1);
        database
            .shard_api()
            .delete(&shard, &DeleteParams::default())
            .await
            .expect("deleted");
        wait_for("both are back", SOON, async || {
            let again = services.get("one").await?.uid();
            expect_eq(again == before, false)?;
            database.shard_api().get(&shard).await?;
            database.lease_api().get(&shard).await?;
            Ok(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_is_paused_is_left_alone_until_it_goes_on() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "paused", async |scenario| {
        let mut database = asleep(scenario).await;
        database.change("spec.paused", json!(true)).await;
        database.says(conditions::PAUSED, "True", "Paused").await;
        let services: Api<Service> = cluster.namespaced(&database.namespace);
        services
            .delete("one", &DeleteParams::default())
            .await
            .expect("deleted");
        // Status goes on: it is written for a spec whose change is not carried out.
        database.change("spec.sharding.followers", json!(2)).await;
        wait_for("the new spec is seen", SOON, async || {
            let seen = database.api().get("one").await?;
            let observed = seen.status.and_then(|status| status.observed_generation);
            expect_eq(observed, seen.metadata.generation)
        })
        .await;
        assert!(
            services.get_opt("one").await.expect("an answer").is_none(),
            "the Service is back although paused"
        );
        database.change("spec.paused", json!(false)).await;
        wait_for("the Service is back", SOON, async || {
            Ok(services.get("one").await?)
        })
        .await;
        database.says_nothing(conditions::PAUSED).await;
    })
    .await;
}

#[tokio::test]
async fn the_network_policy_follows_the_spec() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "policy", async |scenario| {
        let mut database = asleep(scenario).await;
        let policies: Api<NetworkPolicy> = cluster.namespaced(&database.namespace);
        wait_for("a policy", SOON, async || Ok(policies.get("one").await?)).await;
        database
            .change("spec.networkPolicy", json!({ "enabled": false }))
            .await;
        wait_for("no policy", SOON, async || {
            expect_eq(policies.get_opt("one").await?.is_none(), true)
        })
        .await;
        let only =
            json!({ "enabled": true, "clients": [{ "podSelector": { "matchLabels": { "app": "x" } } }] });
        database.change("spec.networkPolicy", only).await;
        wait_for("a policy that names the clients", SOON, async || {
            let policy = json!(policies.get("one").await?.spec);
            expect_eq(policy.to_string().contains("\"app\":\"x\""), true)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_key_of_the_authority_never_reaches_a_pod() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "authority", async |scenario| {
        let database = asleep(scenario).await;
        let secrets: Api<Secret> = cluster.namespaced(&database.namespace);
        let keys = async |name: String| {
            let data = secrets.get(&name).await.expect("a Secret").data;
            data.unwrap_or_default().into_keys().collect::<Vec<_>>()
        };
        assert_eq!(keys(names::ca("one")).await, ["ca.crt"]);
        assert_eq!(
            keys(names::node_tls("one")).await,
            ["ca.crt", "tls.crt", "tls.key"]
        );
        let deployments: Api<Deployment> = cluster.namespaced(&database.namespace);
        let template = json!(deployments.get("one").await.expect("there").spec);
        assert!(!template.to_string().contains(&names::ca_key("one")));
    })
    .await;
}

#[tokio::test]
async fn applying_the_same_again_changes_nothing() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "same", async |scenario| {
        let database = asleep(scenario).await;
        let deployments: Api<Deployment> = cluster.namespaced(&database.namespace);
        let versions = async || {
            let generation = deployments.get("one").await?.metadata.generation;
            let spec = database.api().get("one").await?;
            Ok::<_, anyhow::Error>((generation, spec.metadata.generation))
        };
        let before = versions().await.expect("there");
        database.apply().await;
        // A change of nothing but metadata makes the operator look once more.
        let label = Patch::Merge(json!({ "metadata": { "labels": { "looked": "at" } } }));
        database
            .api()
            .patch("one", &PatchParams::default(), &label)
            .await
            .expect("labelled");
        database.says(conditions::READY, "False", "Hibernated").await;
        assert_eq!(versions().await.expect("there"), before);
    })
    .await;
}
