//! Every limit a request can meet, in one place, with its default and its reason.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Decoded request body.
    pub body_bytes: usize,
    /// Documents in one write request.
    pub batch_rows: usize,
    /// Largest vector.
    pub dims: u32,
    /// Elements of a sparse vector, in a document and in a query.
    pub sparse_elements: usize,
    /// Hits of one query; of a grouped one over all its groups.
    pub k: usize,
    /// Legs of one query.
    pub legs: usize,
    /// Bytes of the text that a text leg searches for.
    pub text_bytes: usize,
    /// Functions of one re-rank.
    pub rerank_functions: usize,
    /// Hits that one query may re-rank, and look through for groups.
    pub candidates: usize,
    /// Queries in one batch.
    pub queries: usize,
    /// Leaves of a filter, list items included.
    pub filter_clauses: usize,
    pub filter_depth: usize,
    pub id_bytes: usize,
    /// Fields of one collection.
    pub fields: usize,
    /// Bytes of one document's stored values.
    pub document_bytes: usize,
    /// Documents that one `delete_by_filter` may touch (P23).
    pub by_filter_rows: usize,
    /// Queries running at once; more wait, then get 429.
    pub concurrent_queries: usize,
    /// Rows per second of one import; 0 is unlimited.
    pub import_rows_per_s: usize,
    /// Open scan cursors of the whole process (P10).
    pub cursors: usize,
    /// Documents on a page of a scan.
    pub page_rows: usize,
    /// Partitions of a collection.
    pub partitions: u32,
    /// Idempotency keys remembered per partition; over it new keys get 429 (P5).
    pub idempotency_keys: usize,
    /// Longest a query may ask to run.
    pub timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 256 << 20,
            batch_rows: 100_000,
            dims: 8_192,
            sparse_elements: 16_384,
            k: 10_000,
            legs: 8,
            text_bytes: 4 << 10,
            rerank_functions: 16,
            candidates: 10_000,
            queries: 256,
            filter_clauses: 4_096,
            filter_depth: 32,
            id_bytes: 512,
            fields: 1_024,
            document_bytes: 8 << 20,
            by_filter_rows: 100_000,
            concurrent_queries: 256,
            import_rows_per_s: 0,
            cursors: 256,
            page_rows: 10_000,
            partitions: 64,
            idempotency_keys: 1_000_000,
            timeout_ms: 60_000,
        }
    }
}
