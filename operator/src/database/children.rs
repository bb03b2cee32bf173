//! The objects that make a database run, as server-side apply wants them: only what we
//! mean, nothing that the API server fills in.

use rhumb_crds::names;
use rhumb_crds::shard::Shard;
use rhumb_crds::vector_database::{AntiAffinity, VectorDatabase};
use serde_json::{Value, json};

use super::pod::{self, Rollout};
use crate::cluster::{self, APPLIED};

/// Everything but Shards, Leases and Secrets.
pub fn fixed(db: &VectorDatabase, operator_namespace: &str, open: bool) -> Vec<Value> {
    let mut all = vec![
        account(db),
        role(db),
        role_binding(db),
        client_service(db, open),
        peer_service(db),
        disruption_budget(db),
    ];
    if db.spec.network_policy.enabled {
        all.push(network_policy(db, operator_namespace));
    }
    all.into_iter().map(stamped).collect()
}

pub fn deployment(db: &VectorDatabase, rollout: &Rollout) -> Value {
    let name = name(db);
    let nodes = &db.spec.data_nodes;
    let mut deployment = object(db, "apps/v1", "Deployment", name);
    deployment["metadata"]["annotations"] = json!({
        pod::INPUTS: rollout.inputs,
        pod::REVISION: rollout.revision(),
        pod::TEMPLATE: rollout.template.to_string(),
    });
    // With a machine per pod there may be none for a surge pod: it would wait for ever.
    let (surge, unavailable) = match nodes.anti_affinity {
        AntiAffinity::Required => (0, 1),
        AntiAffinity::Preferred | AntiAffinity::None => (1, 0),
    };
    deployment["spec"] = json!({
        "replicas": nodes.replicas,
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": 600,
        "selector": { "matchLabels": pod::selector(name) },
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
        "template": rollout.template,
    });
    stamped(deployment)
}

pub fn shard(db: &VectorDatabase, index: u32, nodes: &[String], uid: Option<&str>) -> Value {
    let name = name(db);
    let mut shard = object(db, "rhumb.dev/v1alpha1", "Shard", &names::shard(name, index));
    shard["metadata"]["labels"][names::SHARD] = index.to_string().into();
    shard["spec"] = json!({ "databaseRef": { "name": name }, "index": index, "nodes": nodes });
    if let Some(uid) = uid {
        shard["spec"]["databaseUID"] = uid.into();
    }
    shard
}

/// Only its place in the world: who holds it is the data nodes' business.
pub fn lease(shard: &Shard) -> Option<Value> {
    let metadata = &shard.metadata;
    let (name, uid) = (metadata.name.as_deref()?, metadata.uid.as_deref()?);
    Some(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": metadata.namespace,
            "labels": metadata.labels,
            "ownerReferences": [{
                "apiVersion": "rhumb.dev/v1alpha1", "kind": "Shard", "name": name, "uid": uid, "controller": true
            }]
        }
    }))
}

/// A Secret of ours, with the moment after which it is made anew.
pub fn secret(db: &VectorDatabase, name: &str, kind: &str, annotations: Value, data: Value) -> Value {
    let mut secret = object(db, "v1", "Secret", name);
    secret["metadata"]["annotations"] = annotations;
    secret["type"] = kind.into();
    secret["stringData"] = data;
    secret
}

fn name(db: &VectorDatabase) -> &str {
    db.metadata.name.as_deref().unwrap_or_default()
}

/// Labels and annotations of the database are not copied: GitOps tools track by them.
fn object(db: &VectorDatabase, api_version: &str, kind: &str, object_name: &str) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": object_name,
            "namespace": db.metadata.namespace,
            "labels": pod::labels(name(db)),
            "ownerReferences": [{
                "apiVersion": "rhumb.dev/v1alpha1", "kind": "VectorDatabase", "name": name(db),
                "uid": db.metadata.uid, "controller": true
            }]
        }
    })
}

/// Marked with its own hash: what we no longer want differs even where a comparison of
/// what we do want would find nothing.
fn stamped(mut object: Value) -> Value {
    let hash = pod::fingerprint(&object);
    cluster::annotate(&mut object, APPLIED, &hash);
    object
}

fn account(db: &VectorDatabase) -> Value {
    let mut account = object(db, "v1", "ServiceAccount", &names::account(name(db)));
    if let Some(identity) = &db.spec.object_store.workload_identity {
        account["metadata"]["annotations"] = json!(identity.service_account_annotations);
    }
    account
}

/// What a data node may do: watch placement and Leases, hold its Leases, report.
fn role(db: &VectorDatabase) -> Value {
    let name = name(db);
    let shards: Vec<String> = (0..db.spec.sharding.count)
        .map(|i| names::shard(name, i))
        .collect();
    let mut role = object(db, "rbac.authorization.k8s.io/v1", "Role", &names::account(name));
    role["rules"] = json!([
        { "apiGroups": ["rhumb.dev"], "resources": ["shards"], "verbs": ["list", "watch"] },
        { "apiGroups": ["rhumb.dev"], "resources": ["shards/status"], "resourceNames": shards, "verbs": ["patch"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch", "create"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": shards, "verbs": ["update"] }
    ]);
    role
}

fn role_binding(db: &VectorDatabase) -> Value {
    let account = names::account(name(db));
    let mut binding = object(db, "rbac.authorization.k8s.io/v1", "RoleBinding", &account);
    binding["roleRef"] = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account });
    binding["subjects"] =
        json!([{ "kind": "ServiceAccount", "name": account, "namespace": db.metadata.namespace }]);
    binding
}

fn client_service(db: &VectorDatabase, open: bool) -> Value {
    let mut service = object(db, "v1", "Service", name(db));
    // For gateways and meshes, which must not speak plainly to who does not.
    let protocol = if open { "http" } else { "https" };
    service["spec"] = json!({
        "selector": pod::selector(name(db)),
        "ports": [{ "name": "rest", "port": names::CLIENT_PORT, "targetPort": "rest", "protocol": "TCP", "appProtocol": protocol }]
    });
    service
}

fn peer_service(db: &VectorDatabase) -> Value {
    let mut service = object(db, "v1", "Service", &names::peers(name(db)));
    service["spec"] = json!({
        "clusterIP": "None",
        // Nodes talk to each other before they are ready for clients.
        "publishNotReadyAddresses": true,
        "selector": pod::selector(name(db)),
        "ports": [
            { "name": "rest", "port": names::CLIENT_PORT, "targetPort": "rest", "protocol": "TCP" },
            { "name": "peer", "port": names::PEER_PORT, "targetPort": "peer", "protocol": "TCP" }
        ]
    });
    service
}

fn disruption_budget(db: &VectorDatabase) -> Value {
    let mut budget = object(db, "policy/v1", "PodDisruptionBudget", name(db));
    budget["spec"] = json!({
        "maxUnavailable": db.spec.data_nodes.disruption_budget.max_unavailable,
        // A pod that is not ready protects nothing and must not block a drain.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": { "matchLabels": pod::selector(name(db)) }
    });
    budget
}

fn network_policy(db: &VectorDatabase, operator_namespace: &str) -> Value {
    let mut policy = object(db, "networking.k8s.io/v1", "NetworkPolicy", name(db));
    let own = json!({ "podSelector": { "matchLabels": pod::selector(name(db)) } });
    let operator = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": operator_namespace } },
        "podSelector": { "matchLabels": { "app.kubernetes.io/name": "rhumb-operator" } }
    });
    let mut clients = match &db.spec.network_policy.clients {
        Some(clients) => clients.iter().map(|client| json!(client)).collect(),
        None => vec![json!({ "podSelector": {} })],
    };
    clients.extend([own.clone(), operator]);
    policy["spec"] = json!({
        "podSelector": { "matchLabels": pod::selector(name(db)) },
        "policyTypes": ["Ingress"],
        "ingress": [
            { "from": clients, "ports": [{ "port": names::CLIENT_PORT, "protocol": "TCP" }] },
            { "from": [own], "ports": [{ "port": names::PEER_PORT, "protocol": "TCP" }] }
        ]
    });
    policy
}
