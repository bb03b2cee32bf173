//! Rules of `VectorDatabase`.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use rhumb_e2e::TempDir;
use serde_json::{Value, json};

use super::{a_database, assert_accepted, assert_each_refused, assert_refused};
use crate::harness::Cluster;
use crate::harness::scenario::prepare;

#[tokio::test]
async fn the_plainest_database_is_accepted_and_defaults_are_filled_in() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let stored = assert_accepted(&cluster, &a_database(&[])).await.data;
    let spec = &stored["spec"];
    assert_eq!(spec["dataNodes"]["replicas"], 2);
    assert_eq!(spec["dataNodes"]["antiAffinity"], "preferred");
    assert_eq!(spec["dataNodes"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["sharding"], json!({ "count": 4, "followers": 1 }));
    assert_eq!(spec["lease"]["durationSeconds"], 4);
    assert_eq!(spec["networkPolicy"]["enabled"], true);
    assert_eq!(spec["security"]["clients"], "Secured");
    assert_eq!(
        spec["objectStore"]["credentials"]["secretRef"]["accessKeyIdKey"],
        "access-key-id"
    );
}

#[tokio::test]
async fn clients_are_secured_or_open_and_nothing_between() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    assert_accepted(&cluster, &a_database(&[("spec.security.clients", json!("Open"))])).await;
    for clients in [json!("open"), json!("Everybody"), json!("")] {
        let object = a_database(&[("spec.security.clients", clients)]);
        assert_refused(&cluster, &object, &["spec.security.clients"]).await;
    }
}

#[tokio::test]
async fn a_name_that_no_service_can_have_is_refused() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    for name in ["1st", "a.b", &"x".repeat(41)] {
        assert_refused(
            &cluster,
            &a_database(&[("metadata.name", json!(name))]),
            &["name of a Service"],
        )
        .await;
    }
    assert_accepted(&cluster, &a_database(&[("metadata.name", json!("x".repeat(40)))])).await;
}

#[tokio::test]
async fn a_bucket_or_prefix_out_of_form_is_refused_by_its_name() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let cases = [
        ("spec.objectStore.bucket", json!("ab"), "spec.objectStore.bucket"),
        (
            "spec.objectStore.bucket",
            json!("Bucket"),
            "spec.objectStore.bucket",
        ),
        ("spec.objectStore.prefix", json!("/a"), "spec.objectStore.prefix"),
        ("spec.objectStore.prefix", json!("a/"), "spec.objectStore.prefix"),
        (
            "spec.objectStore.prefix",
            json!("a//b"),
            "spec.objectStore.prefix",
        ),
        (
            "spec.objectStore.prefix",
            json!("../up"),
            "spec.objectStore.prefix",
        ),
    ];
    assert_each_refused(&cluster, a_database, &cases).await;
}

#[tokio::test]
async fn an_endpoint_that_is_no_address_is_refused() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    for endpoint in [
        "s3.example.com",
        "ftp://s3.example.com",
        "http://s3/bucket",
        "http://a b",
    ] {
        let object = a_database(&[("spec.objectStore.endpoint", json!(endpoint))]);
        assert_refused(&cluster, &object, &["spec.objectStore.endpoint"]).await;
    }
}

#[tokio::test]
async fn a_database_without_a_bucket_is_refused() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let object = a_database(&[("spec", json!({ "objectStore": {} }))]);
    assert_refused(&cluster, &object, &["spec.objectStore.bucket", "Required"]).await;
    assert_refused(
        &cluster,
        &a_database(&[("spec", json!({}))]),
        &["spec.objectStore"],
    )
    .await;
}

#[tokio::test]
async fn credentials_come_from_one_place() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let identity = json!({ "serviceAccountAnnotations": { "a": "b" } });
    let both = a_database(&[("spec.objectStore.workloadIdentity", identity)]);
    assert_refused(&cluster, &both, &["spec.objectStore", "not both"]).await;
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_by_name() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let cases = [
        ("spec.dataNodes.replicas", json!(-1), "spec.dataNodes.replicas"),
        ("spec.dataNodes.replicas", json!(65), "spec.dataNodes.replicas"),
        (
            "spec.dataNodes.terminationGracePeriodSeconds",
            json!(9),
            "terminationGracePeriodSeconds",
        ),
        (
            "spec.dataNodes.disruptionBudget.maxUnavailable",
            json!(-1),
            "maxUnavailable",
        ),
        ("spec.sharding.count", json!(0), "spec.sharding.count"),
        ("spec.sharding.count", json!(65), "spec.sharding.count"),
        ("spec.sharding.followers", json!(9), "spec.sharding.followers"),
        (
            "spec.lease.durationSeconds",
            json!(1),
            "spec.lease.durationSeconds",
        ),
        (
            "spec.lease.retryPeriodMilliseconds",
            json!(50),
            "spec.lease.retryPeriodMilliseconds",
        ),
    ];
    assert_each_refused(&cluster, a_database, &cases).await;
}

#[tokio::test]
async fn a_cache_size_without_a_unit_is_refused() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    for size in ["10", "0Gi", "10G", "1.5Gi", "lots"] {
        let object = a_database(&[("spec.dataNodes.cache.size", json!(size))]);
        assert_refused(&cluster, &object, &["spec.dataNodes.cache.size"]).await;
    }
}

#[tokio::test]
async fn words_that_are_not_known_are_refused() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let affinity = a_database(&[("spec.dataNodes.antiAffinity", json!("sometimes"))]);
    assert_refused(&cluster, &affinity, &["spec.dataNodes.antiAffinity"]).await;
    // As people do it: server-side apply answers 500 to a name that the schema lacks.
    let field = a_database(&[("spec.dataNodes.replica", json!(3))]);
    let home = TempDir::new("unknown-field").expect("a folder");
    let file = home.path().join("database.json");
    std::fs::write(&file, field.to_string()).expect("written");
    let file = file.to_str().expect("a plain path");
    let answer = cluster
        .kubectl(&["apply", "--dry-run=server", "-f", file])
        .await
        .expect("it runs");
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(!answer.status.success(), "an unknown field is accepted");
    assert!(
        said.contains("unknown field \"spec.dataNodes.replica\""),
        "{said}"
    );
}

#[tokio::test]
async fn a_lease_outlasts_its_renewal_and_that_its_retry() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let lease = |duration: i64, renew: i64, retry: i64| {
        let lease = json!({ "durationSeconds": duration, "renewDeadlineMilliseconds": renew, "retryPeriodMilliseconds": retry });
        a_database(&[("spec.lease", lease)])
    };
    assert_accepted(&cluster, &lease(4, 2500, 800)).await;
    for object in [lease(2, 2500, 800), lease(4, 4000, 800), lease(4, 900, 800)] {
        assert_refused(&cluster, &object, &["spec.lease", "longer"]).await;
    }
    // One field alone is judged together with the defaults of the others.
    let alone = a_database(&[("spec.lease", json!({ "durationSeconds": 2 }))]);
    assert_refused(&cluster, &alone, &["spec.lease", "longer"]).await;
}

/// A stored object that runs nothing; `body` gets it.
async fn with_stored(cluster: &Cluster, name: &str, body: impl AsyncFnOnce(Value)) {
    let namespace = format!("e2e-{name}-{:06x}", rand::random_range(0..0x100_0000));
    prepare(cluster, &namespace).await;
    let object = a_database(&[
        ("metadata.namespace", json!(namespace)),
        ("spec.paused", json!(true)),
        ("spec.dataNodes.replicas", json!(0)),
        ("spec.objectStore.prefix", json!("a/b")),
    ]);
    cluster.apply(&object).await.expect("accepted");
    body(object).await;
    let namespaces = cluster.all::<Namespace>();
    namespaces
        .delete(&namespace, &DeleteParams::default())
        .await
        .expect("deleted");
}

fn but(object: &Value, path: &str, value: Value) -> Value {
    let mut object = object.clone();
    crate::harness::database::put(&mut object, path, value);
    object
}

#[tokio::test]
async fn what_names_the_data_cannot_change() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_stored(&cluster, "names", async |object| {
        for (path, value) in [
            ("spec.objectStore.bucket", "other"),
            ("spec.objectStore.prefix", "a/c"),
        ] {
            assert_refused(
                &cluster,
                &but(&object, path, json!(value)),
                &["spec.objectStore", "cannot be changed"],
            )
            .await;
        }
        let mut without = object.clone();
        without["spec"]["objectStore"]
            .as_object_mut()
            .expect("an object")
            .remove("prefix");
        assert_refused(&cluster, &without, &["cannot be changed"]).await;
        let moved = but(&object, "spec.objectStore.endpoint", json!("http://s3:9000"));
        assert_accepted(&cluster, &moved).await;
    })
    .await;
}

#[tokio::test]
async fn the_number_of_shards_is_for_life_and_that_of_followers_is_not() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_stored(&cluster, "shards", async |object| {
        let more = but(&object, "spec.sharding.count", json!(8));
        assert_refused(
            &cluster,
            &more,
            &["spec.sharding.count", "number of shards cannot be changed"],
        )
        .await;
        // The default, spelled out.
        assert_accepted(&cluster, &but(&object, "spec.sharding.count", json!(4))).await;
        assert_accepted(&cluster, &but(&object, "spec.sharding.followers", json!(2))).await;
        assert_accepted(&cluster, &but(&object, "spec.dataNodes.replicas", json!(3))).await;
    })
    .await;
}

#[tokio::test]
async fn every_sample_is_accepted_as_it_stands() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples");
    let mut tried = 0;
    for entry in std::fs::read_dir(samples).expect("samples") {
        let path = entry.expect("an entry").path();
        let path = path.to_str().expect("a plain path");
        // KEDA's own resource is not there.
        if path.ends_with("keda.yaml") {
            continue;
        }
        cluster
            .kubectl_says(&["apply", "--dry-run=server", "-f", path])
            .await
            .expect("accepted");
        tried += 1;
    }
    assert!(tried >= 6, "{tried} samples are not all of them");
}
