//! The process: health and status.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    pub status: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    pub version: String,
    /// Host, process and start of this server, as other servers see it in the store.
    pub holder: String,
    pub store: String,
    /// The random name of the database in the bucket.
    pub database: String,
    pub started_at: String,
    pub uptime_s: u64,
    pub memory_limit_bytes: u64,
    pub resident_bytes: u64,
    pub limits: Limits,
    /// What `/metrics` shows of the engine.
    pub engine: BTreeMap<String, f64>,
}

/// The limits this server was started with, by name.
pub type Limits = BTreeMap<String, u64>;
