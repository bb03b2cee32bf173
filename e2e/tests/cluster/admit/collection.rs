//! Rules of `Collection` and `Shard`.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use rhumb_crds::Collection;
use serde_json::{Value, json};

use super::{a_collection, assert_accepted, assert_refused};
use crate::harness::Cluster;
use crate::harness::database::put;
use crate::harness::scenario::prepare;

fn with_field(field: Value) -> Value {
    a_collection(&[("spec.fields.f", field)])
}

#[tokio::test]
async fn the_plainest_collection_is_accepted_and_kept_by_default() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let stored = assert_accepted(&cluster, &a_collection(&[])).await.data;
    assert_eq!(stored["spec"]["reclaimPolicy"], "Retain");
    assert_eq!(stored["spec"]["partitions"], 1);
}

#[tokio::test]
async fn a_vector_needs_its_dimension_and_nothing_else_has_one() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    assert_refused(
        &cluster,
        &with_field(json!({ "type": "vector" })),
        &["spec.fields", "needs dim"],
    )
    .await;
    assert_refused(
        &cluster,
        &with_field(json!({ "type": "int", "dim": 3 })),
        &["needs dim"],
    )
    .await;
    for dim in [0, 8193] {
        let object = with_field(json!({ "type": "vector", "dim": dim }));
        assert_refused(&cluster, &object, &["dim"]).await;
    }
}

#[tokio::test]
async fn settings_belong_to_their_types() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    for setting in ["metric", "element", "index"] {
        let word = json!({ "metric": "dot", "element": "int8", "index": "flat" })[setting].clone();
        let object = with_field(json!({ "type": "int", setting: word }));
        assert_refused(&cluster, &object, &["for vectors"]).await;
    }
    let language = with_field(json!({ "type": "int", "language": "english" }));
    assert_refused(&cluster, &language, &["for text"]).await;
}

#[tokio::test]
async fn there_are_no_lists_of_vectors_texts_or_json() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    for field in [
        json!({ "type": "vector", "dim": 2, "list": true }),
        json!({ "type": "text", "list": true }),
        json!({ "type": "json", "list": true }),
    ] {
        assert_refused(&cluster, &with_field(field), &["no lists"]).await;
    }
}

#[tokio::test]
async fn types_metrics_and_elements_are_the_known_ones() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    assert_refused(
        &cluster,
        &with_field(json!({ "type": "date" })),
        &["Unsupported value"],
    )
    .await;
    let metric = with_field(json!({ "type": "vector", "dim": 2, "metric": "manhattan" }));
    assert_refused(&cluster, &metric, &["metric", "Unsupported value"]).await;
    let policy = a_collection(&[("spec.reclaimPolicy", json!("Recycle"))]);
    assert_refused(&cluster, &policy, &["spec.reclaimPolicy"]).await;
}

#[tokio::test]
async fn names_and_partitions_have_their_form() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let upper = a_collection(&[("spec.name", json!("Words"))]);
    assert_refused(&cluster, &upper, &["spec.name"]).await;
    // The resource's own name would be the collection's.
    let dotted = a_collection(&[("metadata.name", json!("a.b"))]);
    assert_refused(&cluster, &dotted, &["set spec.name"]).await;
    for count in [0, 65] {
        let object = a_collection(&[("spec.partitions", json!(count))]);
        assert_refused(&cluster, &object, &["spec.partitions"]).await;
    }
}

async fn with_stored(cluster: &Cluster, name: &str, body: impl AsyncFnOnce(Value)) {
    let namespace = format!("e2e-{name}-{:06x}", rand::random_range(0..0x100_0000));
    prepare(cluster, &namespace).await;
    let object = a_collection(&[("metadata.namespace", json!(namespace))]);
    cluster.apply(&object).await.expect("accepted");
    // Without a database it would never take effect, and could be changed at will.
    let collections: Api<Collection> = cluster.namespaced(&namespace);
    let status = Patch::Merge(json!({ "status": { "id": "01ID" } }));
    let name = object["metadata"]["name"].as_str().expect("a name");
    collections
        .patch_status(name, &PatchParams::default(), &status)
        .await
        .expect("in effect");
    body(object).await;
    let namespaces = cluster.all::<Namespace>();
    namespaces
        .delete(&namespace, &DeleteParams::default())
        .await
        .expect("deleted");
}

fn but(object: &Value, path: &str, value: Value) -> Value {
    let mut object = object.clone();
    put(&mut object, path, value);
    object
}

#[tokio::test]
async fn a_schema_may_grow_and_never_lose() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_stored(&cluster, "schema", async |object| {
        let grown = but(&object, "spec.fields.new", json!({ "type": "int" }));
        assert_accepted(&cluster, &grown).await;
        let vector = json!({ "v": { "type": "vector", "dim": 3 } });
        let less = but(&object, "spec.fields", vector);
        assert_refused(&cluster, &less, &["spec.fields", "cannot be removed"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_field_keeps_its_type_and_a_vector_its_shape() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_stored(&cluster, "types", async |object| {
        let kind = but(&object, "spec.fields.tags.type", json!("int"));
        assert_refused(&cluster, &kind, &["keeps its type"]).await;
        let single = but(&object, "spec.fields.tags", json!({ "type": "string" }));
        assert_refused(&cluster, &single, &["keeps its type"]).await;
        let dim = but(&object, "spec.fields.v.dim", json!(4));
        assert_refused(&cluster, &dim, &["dim, metric and element"]).await;
        // The default spelled out is no change.
        let metric = but(&object, "spec.fields.v.metric", json!("cosine"));
        assert_accepted(&cluster, &metric).await;
        assert_accepted(&cluster, &but(&object, "spec.fields.v.index", json!("flat"))).await;
    })
    .await;
}

#[tokio::test]
async fn a_collection_stays_where_it_is() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_stored(&cluster, "stays", async |object| {
        let elsewhere = but(&object, "spec.databaseRef.name", json!("other"));
        assert_refused(&cluster, &elsewhere, &["another database"]).await;
        let renamed = but(&object, "spec.name", json!("other"));
        assert_refused(&cluster, &renamed, &["cannot be changed"]).await;
        let split = but(&object, "spec.partitions", json!(2));
        assert_refused(&cluster, &split, &["spec.partitions", "cannot be changed"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_shard_out_of_range_is_refused() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let shard = |index: i64| {
        json!({
            "apiVersion": "rhumb.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": "x-shard-0", "namespace": "default" },
            "spec": { "databaseRef": { "name": "x" }, "index": index }
        })
    };
    assert_accepted(&cluster, &shard(63)).await;
    for index in [-1, 64] {
        assert_refused(&cluster, &shard(index), &["spec.index"]).await;
    }
}
