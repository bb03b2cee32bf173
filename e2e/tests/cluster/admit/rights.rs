//! Who may do what, as the API server itself judges it.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Api;
use kube::api::PostParams;
use rhumb_crds::names;
use serde_json::json;

use crate::harness::Cluster;
use crate::harness::cluster::OPERATOR_NAMESPACE;
use crate::harness::scenario::{scenario, with_shared_database};
use crate::harness::wait_for;

struct Account<'a> {
    cluster: &'a Cluster,
    user: String,
}

impl Account<'_> {
    /// `resource` is `group/resource[/subresource]`.
    async fn may(&self, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let mut parts = resource.split('/');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (group, kind, subresource) = (next(), next(), next());
        let review = json!({ "metadata": {}, "spec": { "user": self.user, "resourceAttributes": {
            "verb": verb, "group": group, "resource": kind, "subresource": subresource,
            "namespace": namespace, "name": name
        } } });
        let review: SubjectAccessReview = serde_json::from_value(review).expect("a review");
        let reviews: Api<SubjectAccessReview> = self.cluster.all();
        let answer = reviews.create(&PostParams::default(), &review).await;
        let status = answer.expect("an answer").status.expect("a judgement");
        assert!(status.evaluation_error.is_none(), "{status:?}");
        status.allowed
    }
}

#[tokio::test]
async fn the_operator_reads_no_list_of_secrets_and_touches_no_foreign_kind() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:rhumb-operator");
    let operator = Account {
        cluster: &cluster,
        user,
    };
    assert!(operator.may("get", "/secrets", "default", "any").await);
    for (verb, resource) in [
        ("list", "/secrets"),
        ("watch", "/secrets"),
        ("delete", "/secrets"),
        ("delete", "/pods"),
        ("create", "/pods"),
        ("create", "/pods/exec"),
        ("delete", "apps/deployments"),
        ("update", "rhumb.dev/vectordatabases"),
        ("patch", "rhumb.dev/vectordatabases"),
        ("delete", "rhumb.dev/vectordatabases"),
        ("delete", "/namespaces"),
        ("create", "rbac.authorization.k8s.io/clusterroles"),
    ] {
        assert!(
            !operator.may(verb, resource, "default", "").await,
            "it may {verb} {resource}"
        );
    }
}

#[tokio::test]
async fn a_data_node_has_its_own_shards_and_leases_and_nothing_else() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    scenario(&cluster, "rights", async |scenario| {
        let database = scenario
            .unborn("one")
            .await
            .with("spec.dataNodes.replicas", json!(0));
        database.apply().await;
        let here = &database.namespace;
        let user = format!("system:serviceaccount:{here}:{}", names::account("one"));
        let node = Account {
            cluster: &cluster,
            user,
        };
        let lease = names::shard("one", 0);
        wait_for("its rights", crate::harness::database::SOON, async || {
            let may = node
                .may("update", "coordination.k8s.io/leases", here, &lease)
                .await;
            crate::harness::wait::expect_eq(may, true)
        })
        .await;
        assert!(node.may("patch", "rhumb.dev/shards/status", here, &lease).await);
        assert!(node.may("watch", "rhumb.dev/shards", here, "").await);
        let other = names::shard("two", 0);
        for (verb, resource, namespace, name) in [
            (
                "update",
                "coordination.k8s.io/leases",
                here.as_str(),
                other.as_str(),
            ),
            ("patch", "coordination.k8s.io/leases", here, &lease),
            ("delete", "coordination.k8s.io/leases", here, &lease),
            ("patch", "rhumb.dev/shards/status", here, &other),
            ("patch", "rhumb.dev/shards", here, &lease),
            ("get", "/secrets", here, "s3-credentials"),
            ("list", "/pods", here, ""),
            ("patch", "rhumb.dev/vectordatabases/status", here, "one"),
            ("update", "coordination.k8s.io/leases", "default", &lease),
            ("watch", "rhumb.dev/shards", "default", ""),
        ] {
            let may = node.may(verb, resource, namespace, name).await;
            assert!(!may, "it may {verb} {resource} {namespace}/{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn pods_pass_the_strictest_profile() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    // Its namespace enforces `restricted`: that pods are there is the proof.
    with_shared_database(&cluster, async |database| {
        for pod in database.ready_pods().await.expect("pods are listed") {
            let spec = pod.spec.expect("a spec");
            assert_eq!(spec.security_context.and_then(|c| c.run_as_non_root), Some(true));
            let own = spec.containers[0].security_context.clone().expect("a context");
            assert_eq!(own.read_only_root_filesystem, Some(true));
            assert_eq!(own.allow_privilege_escalation, Some(false));
        }
    })
    .await;
}
