//! Reconciles over an API server in memory.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use rhumb_crds::{Shard, VectorDatabase, conditions};
use rhumb_seams::Clock;
use serde_json::{Value, json};

use super::*;
use crate::context::{Context, Settings};
use rhumb_fake_api::FakeApi;

mod rollout;
mod running;
mod security;
mod tls;

const RHUMB: &str = "/apis/rhumb.dev/v1alpha1/namespaces/prod";
const APPS: &str = "/apis/apps/v1/namespaces/prod";
const CORE: &str = "/api/v1/namespaces/prod";

/// One database, `words` in `prod`, and the operator that looks after it.
struct World {
    api: FakeApi,
    context: Arc<Context>,
}

impl World {
    /// A database that lacks nothing, before its first reconcile.
    fn new() -> Self {
        let api = FakeApi::default();
        api.put(
            &format!("{RHUMB}/vectordatabases/words"),
            json!({
                "apiVersion": "rhumb.dev/v1alpha1", "kind": "VectorDatabase",
                "metadata": { "name": "words", "labels": { "app.kubernetes.io/instance": "argo" } },
                "spec": {
                    "objectStore": {
                        "bucket": "vectors", "prefix": "a/b", "endpoint": "http://s3:9000",
                        "credentials": { "secretRef": { "name": "keys" } }
                    },
                    "dataNodes": { "replicas": 2 },
                    "sharding": { "count": 4 }
                }
            }),
        );
        let world = Self::with_operator(api, "rhumb:1");
        world.set_keys("secret");
        world
    }

    fn with_operator(api: FakeApi, image: &str) -> Self {
        let settings = Settings {
            namespace: "rhumb-system".into(),
            data_node_image: image.into(),
            pull_policy: Some("IfNotPresent".into()),
        };
        let clock = Clock::starting_at(1_800_000_000_000);
        let context = Context::new(api.client(), settings, reqwest::Client::new(), clock);
        Self {
            api,
            context: Arc::new(context),
        }
    }

    fn set_keys(&self, secret: &str) {
        let keys = json!({ "access-key-id": "id", "secret-access-key": secret });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" }, "stringData": keys });
        self.api.put(&format!("{CORE}/secrets/keys"), secret);
    }

    async fn reconcile(&self) {
        let db = serde_json::from_value(self.get("VectorDatabase")).expect("a database");
        reconcile(Arc::new(db), self.context.clone())
            .await
            .expect("it reconciles");
    }

    /// Until there is nothing more to write.
    async fn settle(&self) {
        for _ in 0..20 {
            self.api.take_writes();
            self.reconcile().await;
            if self.api.take_writes().is_empty() {
                return;
            }
        }
        panic!("it writes for ever: {:?}", self.api.take_writes());
    }

    fn get(&self, kind: &str) -> Value {
        self.find(kind).unwrap_or_else(|| panic!("no {kind}"))
    }

    fn find(&self, kind: &str) -> Option<Value> {
        let folder = match kind {
            "VectorDatabase" => format!("{RHUMB}/vectordatabases"),
            "Deployment" => format!("{APPS}/deployments"),
            "Service" => format!("{CORE}/services"),
            "NetworkPolicy" => "/apis/networking.k8s.io/v1/namespaces/prod/networkpolicies".into(),
            other => panic!("where are {other}s?"),
        };
        self.api.get(&format!("{folder}/words"))
    }

    fn edit_spec(&self, edit: impl FnOnce(&mut Value)) {
        self.api.edit(&format!("{RHUMB}/vectordatabases/words"), |db| {
            edit(&mut db["spec"])
        });
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let db: VectorDatabase = serde_json::from_value(self.get("VectorDatabase")).expect("a database");
        let status = db.status.expect("a status");
        let found = conditions::find(&status.conditions, kind);
        found.map_or(Default::default(), |c| {
            (c.status.clone(), c.reason.clone(), c.message.clone())
        })
    }

    fn assert_condition(&self, kind: &str, status: &str, reason: &str) {
        let found = self.condition(kind);
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (status, reason),
            "{kind}: {}",
            found.2
        );
    }

    fn shards(&self) -> Vec<Shard> {
        let paths = self.api.paths();
        let shards = paths
            .iter()
            .filter(|path| path.starts_with(&format!("{RHUMB}/shards/")));
        shards
            .map(|path| serde_json::from_value(self.api.get(path).expect("listed")).expect("a shard"))
            .collect()
    }

    fn add_pod(&self, name: &str) {
        let deployment = self.get("Deployment");
        let revision = deployment["metadata"]["annotations"][pod::REVISION].clone();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "rhumb.dev/database": "words" }, "annotations": { pod::REVISION: revision } },
            "spec": deployment["spec"]["template"]["spec"],
            "status": { "phase": "Running", "conditions": [{ "type": "ContainersReady", "status": "True" }] }
        });
        self.api.put(&format!("{CORE}/pods/{name}"), pod);
    }

    fn pod(&self, name: &str) -> Value {
        self.api.get(&format!("{CORE}/pods/{name}")).expect("the pod")
    }

    /// What kubelet and Deployment controller do about the gates.
    fn serve(&self, ready: i64) {
        for path in self.api.paths() {
            if path.starts_with(&format!("{CORE}/pods/")) {
                self.api.edit(&path, |pod| {
                    let all = pod["status"]["conditions"].as_array_mut().expect("conditions");
                    if all.iter().any(|c| c["type"] == "rhumb.dev/shards-warm")
                        && all.iter().all(|c| c["type"] != "Ready")
                    {
                        let since = "2026-01-01T00:00:00Z";
                        all.push(json!({ "type": "Ready", "status": "True", "lastTransitionTime": since }));
                    }
                });
            }
        }
        let generation = self.get("Deployment")["metadata"]["generation"].clone();
        self.api.edit(&format!("{APPS}/deployments/words"), |deployment| {
            deployment["status"] = json!({
                "observedGeneration": generation, "replicas": ready, "updatedReplicas": ready, "availableReplicas": ready
            });
        });
    }

    /// What data nodes do about placement: the first leads, the others are warm.
    fn lead(&self) {
        for shard in self.shards() {
            let name = shard.metadata.name.clone().expect("a name");
            let uid = |pod: &String| self.pod(pod)["metadata"]["uid"].clone();
            let nodes: Vec<Value> = shard
                .spec
                .nodes
                .iter()
                .map(|pod| json!({ "pod": pod, "podUID": uid(pod), "warm": true }))
                .collect();
            let first = shard.spec.nodes.first().expect("placed");
            let first_uid = uid(first);
            self.api.edit(&format!("{RHUMB}/shards/{name}"), |shard| {
                shard["status"] = json!({
                    "leader": { "pod": first, "podUID": first_uid }, "nodes": nodes, "databaseUID": "uid-of-bucket",
                    "conditions": [{
                        "type": "ObjectStoreReachable", "status": "True", "reason": "Reachable", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"
                    }]
                });
            });
        }
    }

    /// Two pods, every shard led, everything written.
    async fn serving() -> Self {
        let world = Self::new();
        world.run().await;
        world
    }

    async fn run(&self) {
        self.settle().await;
        self.add_pod("a");
        self.add_pod("b");
        self.settle().await;
        self.lead();
        self.settle().await;
        self.serve(2);
        self.settle().await;
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        let found = self.api.get(&format!("{CORE}/secrets/{name}"))?;
        Some(serde_json::from_value(found).expect("a Secret"))
    }

    /// Type and reason of each.
    fn events(&self) -> Vec<(String, String)> {
        let paths = self.api.paths();
        let events = paths.iter().filter(|path| path.contains("/events/"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events
            .map(|path| self.api.get(path).expect("listed"))
            .map(|event| (text(&event["type"]), text(&event["reason"])))
            .collect()
    }
}

#[tokio::test]
async fn a_new_database_gets_everything_it_needs() {
    let world = World::new();
    world.settle().await;
    let mut made = world.api.paths();
    made.retain(|path| !path.contains("/events"));
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/prod";
    let mut wanted: Vec<String> = (0..4)
        .flat_map(|n| {
            [
                format!("{RHUMB}/shards/words-shard-{n}"),
                format!("/apis/coordination.k8s.io/v1/namespaces/prod/leases/words-shard-{n}"),
            ]
        })
        .collect();
    wanted.extend([
        format!("{RHUMB}/vectordatabases/words"),
        format!("{APPS}/deployments/words"),
        format!("{CORE}/services/words"),
        format!("{CORE}/services/words-nodes"),
        format!("{CORE}/serviceaccounts/words-node"),
        format!("{CORE}/secrets/keys"),
        format!("{CORE}/secrets/words-admin"),
        format!("{CORE}/secrets/words-ca"),
        format!("{CORE}/secrets/words-ca-key"),
        format!("{CORE}/secrets/words-node-tls"),
        format!("{rbac}/roles/words-node"),
        format!("{rbac}/rolebindings/words-node"),
        "/apis/policy/v1/namespaces/prod/poddisruptionbudgets/words".into(),
        "/apis/networking.k8s.io/v1/namespaces/prod/networkpolicies/words".into(),
    ]);
    wanted.sort();
    assert_eq!(made, wanted);
}

/// Misspelt fields would be dropped by the typed round trip.
#[tokio::test]
async fn every_object_is_what_kubernetes_knows() {
    fn same<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) {
        let typed: T = serde_json::from_value(object.clone()).expect("of its kind");
        let back = json!(typed);
        assert!(
            crate::cluster::covered(object, &back),
            "{object:#}\n became \n{back:#}"
        );
    }
    let world = World::new();
    world.edit_spec(|spec| {
        spec["dataNodes"]["cache"] = json!({ "size": "5Gi", "storageClassName": "fast" });
        spec["dataNodes"]["antiAffinity"] = json!("required");
        spec["dataNodes"]["resources"] = json!({ "limits": { "memory": "2Gi" } });
    });
    world.settle().await;
    for path in world.api.paths() {
        let object = world.api.get(&path).expect("listed");
        match object["kind"].as_str().expect("a kind") {
            "Deployment" => same::<Deployment>(&object),
            "Service" => same::<Service>(&object),
            "ServiceAccount" => same::<ServiceAccount>(&object),
            "Role" => same::<Role>(&object),
            "RoleBinding" => same::<RoleBinding>(&object),
            "PodDisruptionBudget" => same::<PodDisruptionBudget>(&object),
            "NetworkPolicy" => same::<NetworkPolicy>(&object),
            "Secret" => same::<Secret>(&object),
            "Shard" => same::<Shard>(&object),
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_gitops_tools_track_by_is_not_copied_to_children() {
    let world = World::new();
    world.settle().await;
    let children = world
        .api
        .paths()
        .into_iter()
        .filter(|path| !path.ends_with("/vectordatabases/words"));
    for path in children {
        let object = world.api.get(&path).expect("listed");
        assert!(
            object["metadata"]["labels"]["app.kubernetes.io/instance"].is_null(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_spec_is_never_written() {
    let world = World::new();
    let before = world.get("VectorDatabase");
    world.settle().await;
    let after = world.get("VectorDatabase");
    assert_eq!(before["spec"], after["spec"]);
    assert_eq!(before["metadata"]["generation"], after["metadata"]["generation"]);
    assert_eq!(after["metadata"]["annotations"], Value::Null);
}

#[tokio::test]
async fn data_nodes_may_do_only_what_they_need() {
    let world = World::new();
    world.settle().await;
    let role = world
        .api
        .get("/apis/rbac.authorization.k8s.io/v1/namespaces/prod/roles/words-node")
        .expect("a role");
    let names = json!(["words-shard-0", "words-shard-1", "words-shard-2", "words-shard-3"]);
    assert_eq!(
        role["rules"],
        json!([
            { "apiGroups": ["rhumb.dev"], "resources": ["shards"], "verbs": ["list", "watch"] },
            { "apiGroups": ["rhumb.dev"], "resources": ["shards/status"], "resourceNames": names, "verbs": ["patch"] },
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch", "create"] },
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": names, "verbs": ["update"] }
        ])
    );
}

/// Nobody may grant what it has not: the API server would refuse the Role.
#[tokio::test]
async fn the_operator_holds_what_it_grants() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/install/operator.yaml");
    let text = std::fs::read_to_string(path).expect("the manifest");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let own = objects
        .iter()
        .find(|object| object["kind"] == "ClusterRole")
        .expect("a ClusterRole")["rules"]
        .clone();
    let has = |rule: &Value, key: &str, wanted: &Value| {
        rule[key].as_array().is_some_and(|all| {
            wanted
                .as_array()
                .is_some_and(|wanted| wanted.iter().all(|w| all.contains(w)))
        })
    };
    let world = World::new();
    world.settle().await;
    let role = "/apis/rbac.authorization.k8s.io/v1/namespaces/prod/roles/words-node";
    for granted in world.api.get(role).expect("a role")["rules"]
        .as_array()
        .expect("rules")
    {
        let held = own.as_array().expect("rules").iter().any(|rule| {
            has(rule, "apiGroups", &granted["apiGroups"])
                && has(rule, "resources", &granted["resources"])
                && has(rule, "verbs", &granted["verbs"])
        });
        assert!(held, "{granted}");
    }
}

#[tokio::test]
async fn pods_are_locked_down_and_told_where_their_database_is() {
    let world = World::new();
    world.settle().await;
    let spec = world.get("Deployment")["spec"]["template"]["spec"].clone();
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        container["securityContext"],
        json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } })
    );
    let env = |name: &str| {
        let all = container["env"].as_array().expect("an environment");
        all.iter()
            .find(|e| e["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .clone()
    };
    assert_eq!(env("RHUMB_STORE")["value"], "s3://vectors/a/b");
    assert_eq!(env("AWS_ENDPOINT_URL")["value"], "http://s3:9000");
    assert_eq!(
        env("AWS_SECRET_ACCESS_KEY")["valueFrom"]["secretKeyRef"],
        json!({ "name": "keys", "key": "secret-access-key" })
    );
    assert_eq!(env("RHUMB_CLUSTER_PEER_NAME")["value"], "words-nodes.prod.svc");
    assert_eq!(
        spec["readinessGates"],
        json!([{ "conditionType": "rhumb.dev/shards-warm" }])
    );
}
