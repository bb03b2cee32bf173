//! Collections and their fields.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectionDefinition {
    /// Names to types; may be empty.  An attribute that is not declared gets its type from
    /// the first document that has it; vectors must be declared.
    #[serde(default)]
    pub fields: BTreeMap<String, FieldDef>,
    /// Fixed for the life of the collection; 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub partitions: Option<u32>,
    /// Left out, a new collection has none, and one that is there keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// How much a collection may hold; what is left out has no bound.  What is there already
/// stays, and can be overwritten and deleted; only new rows are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// As `bytes` of the collection counts them: rows that are not in the base table yet
    /// are not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// New fields, and settings of fields that are there (`index` of a vector).  A field keeps
/// its type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectionPatch {
    #[serde(default)]
    pub fields: BTreeMap<String, FieldDef>,
    /// In place of the one that is there; `{}` takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// A type: its name, a list with one name in it, or an object with settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FieldDef {
    Name(ScalarName),
    List([ScalarName; 1]),
    Object(FieldObject),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScalarName {
    String,
    Int,
    Float,
    Bool,
    /// RFC 3339 outside; returned in UTC with milliseconds.
    Timestamp,
    /// Any JSON value; not in lists.
    Json,
    /// A string for full text; not in lists.
    Text,
    /// Indices and values, compared by dot product; must be declared; not in lists.
    SparseVector,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FieldObject {
    Vector {
        #[schemars(range(min = 1))]
        dim: u32,
        /// Of `cosine` (default), `dot`, `l2`; `hamming` goes with element `binary` alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metric: Option<MetricName>,
        /// `f32` when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        element: Option<ElementName>,
        /// `auto` when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<IndexName>,
    },
    Text {
        /// `english` when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
    },
    String,
    Int,
    Float,
    Bool,
    Timestamp,
    Json,
    SparseVector,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricName {
    Cosine,
    Dot,
    L2,
    Hamming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ElementName {
    F32,
    F16,
    Int8,
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IndexName {
    Auto,
    Flat,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CollectionInfo {
    pub name: String,
    /// A ULID; another one after the collection was deleted and created again.
    pub id: String,
    pub created_at: String,
    /// Declared and inferred fields, settings spelled out.
    pub fields: BTreeMap<String, FieldDef>,
    pub partitions: u32,
    /// `rows` and `bytes` of the collection are what is used of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// Left out in lists: they would open every collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexInfo {
    pub state: IndexState,
    /// Rows that are served, but not yet from the base table and a sealed segment.
    pub unindexed_rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IndexState {
    Ready,
    Building,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CollectionList {
    /// In the order of their names.
    pub collections: Vec<CollectionInfo>,
    /// Not there on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimizeRequest {
    /// `true` (the default): the answer comes when every row acknowledged before is in the
    /// base table and indexed.  `false`: the work begins, the answer comes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OptimizeAnswer {
    pub state: IndexState,
    pub unindexed_rows: u64,
    pub took_ms: u64,
}
