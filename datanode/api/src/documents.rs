//! Documents: writing, getting, scanning, importing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::query::FilterSchema;

/// A document: its `id` and its attributes, flat.
pub type Document = Map<String, Value>;

/// Parts are applied in this order: `delete_by_filter`, `delete`, `upsert` (or
/// `upsert_columns`), `patch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteRequest {
    /// Whole documents, each with its `id`; no id twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upsert: Vec<Document>,
    /// The same in columns: `id` and attributes as lists of one length, `null` for
    /// missing; a vector column may be `"b64:…"` of rows × dim little-endian numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upsert_columns: Option<Document>,
    /// Documents with an `id` and the attributes to set; `null` removes one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patch: Vec<Document>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Id>")]
    pub delete: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FilterSchema>")]
    pub delete_by_filter: Option<Value>,
    /// Judged for each document; one for which it does not hold is counted in `skipped`.
    #[serde(default, rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

/// An id: a string of 1 to 512 bytes or an unsigned 64-bit integer.  A collection keeps
/// the kind it saw first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Id {
    Text(String),
    Number(u64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// `true`: only when there is no such document; `false`: only when there is.
    Absent(bool),
    /// Only when the stored document has this version.
    Version(u64),
    /// Only when the stored document matches.
    Filter(#[schemars(with = "FilterSchema")] Value),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WriteAnswer {
    pub upserted: u64,
    pub patched: u64,
    /// Documents that existed.
    pub deleted: u64,
    /// Documents whose condition did not hold, and patches of absent documents.
    pub skipped: u64,
    pub position: String,
}

/// The answer to `PUT` and `PATCH` of one document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Patched {
    #[schemars(with = "Id")]
    pub id: Value,
    pub version: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OneDocument {
    #[schemars(with = "Id")]
    pub id: Value,
    /// Also the `ETag`, in quotes; never used again for another content.
    pub version: u64,
    pub document: Document,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetDocuments {
    #[schemars(with = "Vec<Id>")]
    pub ids: Vec<Value>,
    /// Everything when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Include>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<crate::Consistency>,
}

/// `true`: everything; `false`: nothing but ids; or the names of attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Include {
    All(bool),
    Names(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GotDocuments {
    /// In the order of `ids`; `null` where there is no such document.
    pub documents: Vec<Option<OneDocument>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DocumentList {
    pub documents: Vec<OneDocument>,
    /// Not there on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A line of an import's answer while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImportProgress {
    /// Rows written so far.
    pub rows: u64,
    /// Bytes read so far.
    pub bytes: u64,
    pub rows_per_s: f64,
    pub position: String,
}

/// The last line of an import's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImportDone {
    /// `false` when the import stopped early: `error` says why, and what `rows` counts is
    /// written.
    pub done: bool,
    pub rows: u64,
    pub failed: u64,
    /// The first 100 rows that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ImportFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::Problem>,
    pub bytes: u64,
    pub took_ms: u64,
    pub position: String,
    /// What other answers carry in the header `Rhumb-Session`.
    pub session: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImportFailure {
    /// From 1; the number of the row where the format has no lines.
    pub line: u64,
    pub error: String,
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartialOutcome {
    pub partition: u32,
    pub outcome: PartitionOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionOutcome {
    Applied,
    NotApplied,
    Unknown,
}
