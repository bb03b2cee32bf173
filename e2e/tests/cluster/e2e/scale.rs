//! More data nodes, fewer, none.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use rhumb_crds::conditions;
use serde_json::json;

use super::PLANNED;
use crate::harness::database::READY;
use crate::harness::scenario::scenario;
use crate::harness::storm::storm;
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_becomes_four_and_then_two_under_load() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "scale", async |scenario| {
        let one = scenario
            .unborn("one")
            .await
            .with("spec.dataNodes.replicas", json!(1));
        let mut database = one.with("spec.sharding.count", json!(4));
        database.apply().await;
        database.ready().await;
        let service = database.client().await;
        // The storm borrows the database; what is applied in it goes by the API.
        let api = database.api();
        let scale = async |replicas: i32| {
            let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
            api.patch_scale("one", &PatchParams::default(), &patch)
                .await
                .expect("scaled");
            wait_for("all nodes serve and share the shards", READY, async || {
                database.is_ready().await?;
                let wanted = usize::try_from(replicas)?;
                expect_eq(database.ready_pods().await?.len(), wanted)?;
                let mut leaders: Vec<String> = database
                    .leaders()
                    .await?
                    .iter()
                    .map(ResourceExt::name_any)
                    .collect();
                leaders.sort();
                leaders.dedup();
                expect_eq(leaders.len(), wanted)
            })
            .await;
        };
        storm(&database, "scale", async || {
            scale(4).await;
            scale(2).await;
        })
        .await
        .silent_at_most(PLANNED);
        drop(service);
        database.change("spec.dataNodes.replicas", json!(2)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_sleeps_and_wakes_with_all_its_data() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "sleep", async |scenario| {
        let mut database = scenario.database("one").await;
        let before = database.ready().await.status.expect("a status").database_uid;
        let client = database.client().await;
        client
            .create("c", &json!({"fields": {"n": "int"}}))
            .await
            .expect("created");
        client
            .write("c", &json!({"upsert": [{"id": "kept", "n": 1}]}))
            .await
            .expect("written");
        database.change("spec.dataNodes.replicas", json!(0)).await;
        database.says(conditions::READY, "False", "Hibernated").await;
        wait_for("no pod is left", READY, async || {
            expect_eq(database.pods().await?.len(), 0)
        })
        .await;
        database.change("spec.dataNodes.replicas", json!(2)).await;
        let after = database.ready().await.status.expect("a status").database_uid;
        assert_eq!(before, after);
        let kept = client.get("/v1/collections/c/documents/kept").send().await;
        assert_eq!(kept.expect("an answer").status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_come_and_go_without_a_restart() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "followers", async |scenario| {
        let mut database = scenario.database("one").await;
        database.ready().await;
        let pods = database.pod_uids().await;
        for followers in [0, 1] {
            database.change("spec.sharding.followers", json!(followers)).await;
            wait_for("the placement follows", READY, async || {
                for shard in database
                    .shard_api()
                    .list(&kube::api::ListParams::default())
                    .await?
                {
                    expect_eq(shard.spec.nodes.len(), followers + 1)?;
                }
                Ok(())
            })
            .await;
            database.ready().await;
        }
        assert_eq!(database.pod_uids().await, pods);
    })
    .await;
}
