//! `Shard`: a slot of leadership.  The operator writes its spec, data nodes its status:
//! each pod its own entry of `nodes`, the leader also `leader` and what follows from it,
//! every writer under a field manager of its own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::collection::DatabaseRef;

/// A slot of leadership and placement of one database. Made by the operator.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "rhumb.dev",
    version = "v1alpha1",
    kind = "Shard",
    category = "rhumb",
    namespaced,
    status = "ShardStatus",
    derive = "PartialEq",
    doc = "A slot of leadership and placement of one VectorDatabase. Made by the operator.",
    selectable = ".spec.databaseRef.name",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.databaseRef.name"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader.pod"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.rows"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Placement", type_ = "string", json_path = ".spec.nodes", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ShardSpec {
    pub database_ref: DatabaseRef,
    #[schemars(range(min = 0, max = 63))]
    pub index: u32,
    /// Names of pods: who should lead first, then who keeps warm. Data nodes contend in this
    /// order.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub nodes: Vec<String>,
    /// The uid that the bucket must have, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "databaseUID")]
    #[schemars(length(max = 64))]
    pub database_uid: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
    /// Who leads, as the leader itself reported after taking over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<ShardLeader>,
    /// The highest epoch among the shard's partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The last acknowledged log slot, summed over the shard's partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// The uid of the bucket's `identity.json` as the leader read it.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "databaseUID")]
    pub database_uid: Option<String>,
    /// What each pod says of itself.
    #[serde(default)]
    #[schemars(schema_with = "nodes_schema")]
    pub nodes: Vec<ShardNode>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardLeader {
    pub pod: String,
    #[serde(rename = "podUID")]
    pub pod_uid: String,
}

/// One pod's view of the shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardNode {
    pub pod: String,
    /// A pod of the same name but another uid is another pod.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Its view is close enough behind the leader's to take over at once.
    pub warm: bool,
    /// Seconds behind the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
}

fn nodes_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let items = generator.subschema_for::<ShardNode>();
    schemars::json_schema!({
        "type": "array",
        "maxItems": 128,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["pod"],
        "items": items
    })
}

impl ShardStatus {
    /// Only an entry of this very pod counts.
    pub fn is_warm(&self, pod: &str, pod_uid: &str) -> bool {
        self.nodes
            .iter()
            .any(|node| node.pod == pod && node.pod_uid == pod_uid && node.warm)
    }
}
