//! Names of objects, labels and annotations in the cluster.  They are a contract: users,
//! dashboards and checks outside this tree rely on them.

/// On every object that belongs to a database; the value is the database's name.
pub const DATABASE: &str = "rhumb.dev/database";
/// On `Shard`s and Leases: the shard's index.
pub const SHARD: &str = "rhumb.dev/shard";
/// Readiness gate of data-node pods: every shard placed on the pod is warm there.
pub const SHARDS_WARM: &str = "rhumb.dev/shards-warm";
/// On a `VectorDatabase`: a new value rolls all data nodes, also onto what a newer operator
/// would run.
pub const RESTARTED_AT: &str = "rhumb.dev/restarted-at";
/// Finalizer of a `Collection` whose documents go with it.
pub const COLLECTION_FINALIZER: &str = "rhumb.dev/collection";

/// In the Secret [`admin`].
pub const ADMIN_KEY: &str = "api-key";
/// In the Secret [`ca`].
pub const CA_CERTIFICATE: &str = "ca.crt";

/// REST for clients.
pub const CLIENT_PORT: i32 = 7480;
/// Mutual TLS between data nodes.
pub const PEER_PORT: i32 = 7481;

/// The name of a `Shard` and of its Lease.
pub fn shard(database: &str, index: u32) -> String {
    format!("{database}-shard-{index}")
}

/// The headless Service of the data nodes, and the name in their certificate.
pub fn peers(database: &str) -> String {
    format!("{database}-nodes")
}

/// The service account of the data nodes, its Role and its RoleBinding.
pub fn account(database: &str) -> String {
    format!("{database}-node")
}

/// The first key, under [`ADMIN_KEY`]: made once, or put there by somebody else.
pub fn admin(database: &str) -> String {
    format!("{database}-admin")
}

/// Public: `ca.crt` for clients.
pub fn ca(database: &str) -> String {
    format!("{database}-ca")
}

/// The private key behind [`ca`]; only the operator reads it.
pub fn ca_key(database: &str) -> String {
    format!("{database}-ca-key")
}

/// Certificate and key of the data nodes, towards each other and towards clients.
pub fn node_tls(database: &str) -> String {
    format!("{database}-node-tls")
}
