//! Erasing documents for good, and what is told of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::documents::Id;
use crate::query::FilterSchema;

/// What is to be erased.  With neither: what was deleted or overwritten before, and no more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// Also of documents that were deleted before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Id>")]
    pub ids: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FilterSchema>")]
    pub filter: Option<Value>,
}

/// Says what was done, and what reading through the rest showed.  It names no document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErasureCertificate {
    pub id: String,
    pub collection: String,
    pub collection_id: String,
    pub begun_at: String,
    pub done_at: String,
    /// Documents that were there and are not.
    pub deleted: u64,
    /// Of each id that was meant, the SHA-256 of the certificate's id, a line feed and the id.
    pub ids: Vec<String>,
    pub partitions: Vec<PartitionErasure>,
    /// Nothing was found again, and nothing is left that nobody can account for.
    pub complete: bool,
    pub position: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartitionErasure {
    pub partition: u32,
    /// Objects that are gone from the bucket.
    pub removed: Vec<ErasedObject>,
    /// Objects that are there, new ones among them.
    pub left: Vec<LeftObject>,
    /// Rows of the table that were read to look for the ids.
    pub rows_read: u64,
    /// Those with one of the ids: written again meanwhile.
    pub rows_found: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErasedObject {
    pub object: String,
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LeftObject {
    #[serde(flatten)]
    pub object: ErasedObject,
    pub holds: ObjectHolds,
    /// Written since the erasure began.
    pub new: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectHolds {
    /// Documents that readers see.
    Rows,
    /// What was made from them: words, codes of vectors, lists and their centres.
    Derived,
    /// Writes that came since.
    Log,
    /// Idempotency keys of the last 24 hours.
    Keys,
    /// File names, numbers, checksums.
    Bookkeeping,
    /// Nothing of ours.
    Unknown,
}
