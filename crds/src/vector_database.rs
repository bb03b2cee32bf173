//! `VectorDatabase`: what a user asks for.  The operator never writes its spec.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::opaque::Opaque;

/// A database: a prefix of a bucket, and the data nodes that serve it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rhumb.dev",
    version = "v1alpha1",
    kind = "VectorDatabase",
    plural = "vectordatabases",
    shortname = "vdb",
    category = "rhumb",
    namespaced,
    status = "VectorDatabaseStatus",
    derive = "PartialEq",
    doc = "A vector database: a prefix of a bucket, and the data nodes that serve it.",
    scale(
        spec_replicas_path = ".spec.dataNodes.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(name = "Shards", type_ = "string", json_path = ".status.shardsLed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.objectStore.bucket", priority = 1),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name becomes the name of a Service: at most 40 of a-z, 0-9 and -, starting with a letter"),
)]
#[serde(rename_all = "camelCase")]
pub struct VectorDatabaseSpec {
    /// The data nodes' image. Without it, the operator's default at the time the database
    /// was first rolled out; a newer operator does not change it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Where everything that must last is.
    pub object_store: ObjectStore,
    #[serde(default)]
    pub data_nodes: DataNodes,
    #[serde(default)]
    pub sharding: Sharding,
    /// How fast a lost leader is replaced. Shorter means more writes to the API server.
    #[serde(default)]
    pub lease: LeaseTiming,
    #[serde(default)]
    pub network_policy: ClientAccess,
    #[serde(default)]
    pub security: Security,
    /// While true the operator changes nothing but status. Data nodes go on serving.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// The bucket and how to reach it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("self.bucket == oldSelf.bucket && (has(self.prefix) ? self.prefix : '') == (has(oldSelf.prefix) ? oldSelf.prefix : '')")
        .message("bucket and prefix name the data and cannot be changed: create another VectorDatabase"),
    validation = kube::core::Rule::new("!(has(self.credentials) && has(self.workloadIdentity))")
        .message("give credentials or workloadIdentity, not both"),
)]
pub struct ObjectStore {
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// The database's folder in the bucket, without slashes at its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
    )]
    pub prefix: Option<String>,
    /// `us-east-1` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// For stores other than AWS, like `https://s3.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 256), regex(pattern = r"^https?://[^/ ]+$"))]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Credentials that the cloud gives to the data nodes' service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<WorkloadIdentity>,
}

/// Static keys from a Secret in the database's namespace. When the Secret changes, the data
/// nodes are rolled onto it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    pub secret_ref: CredentialsSecret,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSecret {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[serde(default = "access_key_id")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_id_key: String,
    #[serde(default = "secret_access_key")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_access_key_key: String,
}

fn access_key_id() -> String {
    "access-key-id".into()
}

fn secret_access_key() -> String {
    "secret-access-key".into()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity {
    /// Put on the data nodes' service account, like `eks.amazonaws.com/role-arn`.
    #[schemars(extend("maxProperties" = 16))]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// The pods that serve. They own nothing: any of them may be lost at any time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataNodes {
    /// 0 hibernates the database: nothing runs, nothing is lost. Autoscalers write it
    /// through the scale subresource; leave it out of Git then.
    #[serde(default = "two")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    #[serde(default)]
    pub cache: Cache,
    /// Whether two data nodes may run on one machine.
    #[serde(default)]
    pub anti_affinity: AntiAffinity,
    /// Time to hand over shards and finish requests after SIGTERM.
    #[serde(default = "thirty")]
    #[schemars(range(min = 10, max = 3600))]
    pub termination_grace_period_seconds: i64,
    /// How many data nodes a drain may take away at once.
    #[serde(default)]
    pub disruption_budget: DisruptionBudget,
    /// A pod template that is merged over the generated one: objects by key, `containers`,
    /// `volumes` and other lists with names by name. The container is called `rhumb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<Opaque>,
}

impl Default for DataNodes {
    fn default() -> Self {
        Self {
            replicas: two(),
            resources: None,
            cache: Cache::default(),
            anti_affinity: AntiAffinity::default(),
            termination_grace_period_seconds: thirty(),
            disruption_budget: DisruptionBudget::default(),
            pod_overrides: None,
        }
    }
}

fn two() -> i32 {
    2
}

fn thirty() -> i64 {
    30
}

/// Blocks of the bucket on local disk. It may vanish at any time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    #[serde(default = "cache_size")]
    #[schemars(schema_with = "quantity")]
    pub size: Quantity,
    /// With it the cache is a generic ephemeral volume of this class, else an emptyDir.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            size: cache_size(),
            storage_class_name: None,
        }
    }
}

fn cache_size() -> Quantity {
    Quantity("10Gi".into())
}

/// Units that the data node's own `--cache-size` knows, so that one text serves both.
fn quantity(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "maxLength": 16, "pattern": "^[1-9][0-9]*(Ki|Mi|Gi|Ti)$" })
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AntiAffinity {
    /// Another machine when there is one.
    #[default]
    Preferred,
    /// A pod without a machine of its own waits.
    Required,
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub max_unavailable: i32,
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self {
            max_unavailable: one(),
        }
    }
}

fn one() -> i32 {
    1
}

/// How leadership is spread over the data nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sharding {
    /// Slots of leadership. Fixed for the life of the database; collections are spread over
    /// them.
    #[serde(default = "shard_count")]
    #[schemars(range(min = 1, max = 64))]
    #[x_kube(validation = kube::core::Rule::new("self == oldSelf").message("the number of shards cannot be changed"))]
    pub count: u32,
    /// Data nodes that keep each shard warm beside its leader.
    #[serde(default = "followers")]
    #[schemars(range(min = 0, max = 8))]
    pub followers: u32,
}

impl Default for Sharding {
    fn default() -> Self {
        Self {
            count: shard_count(),
            followers: followers(),
        }
    }
}

fn shard_count() -> u32 {
    4
}

fn followers() -> u32 {
    1
}

/// Timing of the shards' Leases. A leader that cannot renew for `durationSeconds` is
/// replaced; the bucket, not the Lease, keeps writes safe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("self.durationSeconds * 1000 > self.renewDeadlineMilliseconds && self.renewDeadlineMilliseconds * 5 > self.retryPeriodMilliseconds * 6")
        .message("durationSeconds must be longer than renewDeadlineMilliseconds, and that longer than 1.2 times retryPeriodMilliseconds"),
)]
pub struct LeaseTiming {
    #[serde(default = "lease_duration")]
    #[schemars(range(min = 2, max = 300))]
    pub duration_seconds: i32,
    #[serde(default = "renew_deadline")]
    #[schemars(range(min = 500, max = 300_000))]
    pub renew_deadline_milliseconds: i32,
    #[serde(default = "retry_period")]
    #[schemars(range(min = 100, max = 60_000))]
    pub retry_period_milliseconds: i32,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            duration_seconds: lease_duration(),
            renew_deadline_milliseconds: renew_deadline(),
            retry_period_milliseconds: retry_period(),
        }
    }
}

fn lease_duration() -> i32 {
    4
}

fn renew_deadline() -> i32 {
    2500
}

fn retry_period() -> i32 {
    800
}

/// A NetworkPolicy around the data nodes: the peer port for themselves alone, the client
/// port for whom `clients` names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientAccess {
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Every pod of the namespace when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub clients: Option<Vec<NetworkPolicyPeer>>,
}

impl Default for ClientAccess {
    fn default() -> Self {
        Self {
            enabled: yes(),
            clients: None,
        }
    }
}

fn yes() -> bool {
    true
}

/// What clients of the REST API must show, and how they are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// `Secured`: HTTPS, and nothing is answered without a key, a session or a token; the
    /// operator makes the admin key (Secret `<name>-admin`) and the certificate (trust Secret
    /// `<name>-ca`). `Open`: plain HTTP for whoever reaches the Service, for laptops and tests.
    #[serde(default)]
    pub clients: Clients,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Clients {
    #[default]
    Secured,
    Open,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VectorDatabaseStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
    /// Data nodes that exist; for the scale subresource.
    #[serde(default)]
    pub replicas: i32,
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the data nodes; for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Ready and wanted data nodes, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
    /// Shards with a leader and all shards, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards_led: Option<String>,
    /// The image that the data nodes are rolled onto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Where clients of the cluster find the database.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// The uid in the bucket's `identity.json`, once a data node has reported it. Another
    /// one is refused from then on.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "databaseUID")]
    pub database_uid: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The URL of the REST API: `https` once every data node asks for keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<String>,
}
