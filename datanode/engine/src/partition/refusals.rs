//! What a partition refuses of a write, in the words of the API.

use rhumb_core::problem::shorten;
use rhumb_core::{Code, DocId, Problem};

use crate::error::EngineError;

/// The same words whether the document would leave the scope or would replace one outside.
pub fn outside(id: &DocId) -> Problem {
    let id = shorten(&id.to_string());
    Problem::new(
        Code::Forbidden,
        format!("document '{id}' is, or would be, outside the rows these credentials may write; nothing was written"),
    )
    .hint("write documents that match the row filter of your role, under ids of your own")
}

pub fn document_too_large(id: &DocId, limit: usize) -> Problem {
    Problem::new(
        Code::LimitExceeded,
        format!(
            "with this patch the document '{}' would take more than {limit} bytes",
            shorten(&id.to_string())
        ),
    )
    .field("patch")
}

/// How many documents a filter may touch at once (P23).
pub fn too_many(matched: u64, limit: usize) -> EngineError {
    EngineError::Refused(
        Problem::new(
            Code::LimitExceeded,
            format!("the filter matches {matched} documents, {limit} is the limit"),
        )
        .field("delete_by_filter")
        .hint("narrow the filter and repeat the request"),
    )
}
