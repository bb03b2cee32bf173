//! A write as the leader of a partition judges it: typed, checked against a schema, not
//! yet against the documents it meets.

use crate::filter::Filter;
use crate::ids::{DocId, FieldName, Seq};
use crate::schema::NewFields;
use crate::value::{Document, Value};

/// Applied in this order: `delete_by_filter`, `delete`, `upsert`, `patch`.
#[derive(Clone, Debug, Default)]
pub struct Write {
    pub delete_by_filter: Option<Filter>,
    pub delete: Vec<DocId>,
    pub upsert: Vec<(DocId, Document)>,
    pub patch: Vec<Patch>,
    pub condition: Option<Condition>,
    /// What this write adds to the schema when it applies.
    pub new_fields: NewFields,
    pub idempotency: Option<Idempotency>,
    /// A document that would be skipped makes the whole write a refusal: the counts come
    /// back, nothing is applied, and the idempotency key is not remembered.
    pub all_or_nothing: bool,
    /// The rows whoever writes may know of.  A document outside is as if absent, except that
    /// it cannot be overwritten; one that would be written outside is refused.
    pub scope: Option<Filter>,
}

#[derive(Clone, Debug)]
pub struct Patch {
    pub id: DocId,
    /// `None` removes the field.
    pub set: Vec<(FieldName, Option<Value>)>,
}

/// Judged per document, against the document as the write order shows it (P4).
#[derive(Clone, Debug)]
pub enum Condition {
    /// `true`: only when no document has this id; `false`: only when one has.
    Absent(bool),
    Version(Seq),
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// Of the request's decoded body and target, so that another request under the same
    /// key is told apart.
    pub body_hash: u64,
}

/// What one partition answers.  Kept with its idempotency key, so a retry gets it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    pub upserted: u64,
    pub patched: u64,
    /// Documents that existed.
    pub deleted: u64,
    pub skipped: u64,
    /// Version of the last document written, for the single-document verbs.
    pub version: Option<Seq>,
    /// True when that document did not exist before.
    pub created: bool,
}
