//! A read as the engine executes it: typed and within limits.

use std::time::Duration;

use crate::filter::Filter;
use crate::ids::{DocId, FieldName, Seq};
use crate::value::{Document, Vector};

#[derive(Clone, Debug)]
pub struct Query {
    pub vector: Option<VectorLeg>,
    pub k: usize,
    pub filter: Option<Filter>,
    pub include: Include,
    pub accuracy: Accuracy,
}

#[derive(Clone, Debug)]
pub struct VectorLeg {
    pub field: FieldName,
    /// In the field's element type, except that an f32 query may meet an int8 field.
    pub value: Vector,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accuracy {
    Recall(f32),
    /// 1–1,000, more is more work.
    Effort(u32),
    Exact,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Include {
    Nothing,
    Everything,
    Fields(Vec<FieldName>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    #[default]
    Strong,
    Verified,
    Session,
    Eventual,
}

#[derive(Clone, Debug)]
pub struct Hit {
    pub id: DocId,
    pub score: f32,
    pub document: Option<Document>,
}

/// What a query touched, for `explain`.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    pub rows_scanned: u64,
    pub rows_rescored: u64,
    pub segments: u64,
    pub fresh_rows: u64,
    pub filter_survivors: Option<u64>,
    pub plan: Duration,
    pub search: Duration,
    pub fetch: Duration,
}

/// A stored document and its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub id: DocId,
    pub version: Seq,
    pub document: Document,
}
