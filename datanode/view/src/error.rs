//! What can go wrong: a caller that broke a rule, something not loaded yet, or a search
//! that was called off.

use rhumb_core::{DocId, FieldName, Problem};
use rhumb_text::TextError;

use crate::rows::{RowRef, SegmentId};

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ViewError {
    /// Two live rows carry one id: the base is damaged, or a segment was added twice.
    #[error("id {id} is live in {first:?} and in {second:?}")]
    DuplicateKey {
        id: DocId,
        first: RowRef,
        second: RowRef,
    },
    #[error("a segment holds either numbers or strings as ids, not both")]
    MixedIdKinds,
    #[error("a segment holds at most 4,294,967,294 rows")]
    TooManyRows,
    #[error("{what}: {found} rows where the segment has {expected}")]
    RowCount {
        what: &'static str,
        expected: u64,
        found: u64,
    },
    #[error("segment {0} is not in the view")]
    UnknownSegment(SegmentId),
    #[error("row {ordinal} of the new segment is {found}, the row it replaces is {expected}")]
    KeyMismatch {
        ordinal: u32,
        expected: DocId,
        found: DocId,
    },
    /// Frozen groups leave in the order they were made: a younger one may have killed
    /// rows of an older one, and their place in the base must be known first.
    #[error("fresh group {0} is not the oldest frozen one")]
    NotOldestFrozen(SegmentId),
    /// A replacement must carry every live row of what it replaces.
    #[error("{0} live rows have no place in the replacement")]
    LostRows(u64),
    #[error("the mapping names {0:?} twice, or names a row outside the replaced segments")]
    BadMapping(RowRef),
    #[error("'{field}' of fragment {fragment} is not loaded")]
    NotLoaded { fragment: u64, field: FieldName },
    #[error("the text index of fragment {0} is not loaded")]
    NoTextIndex(u64),
    #[error("the search was cancelled")]
    Cancelled,
    /// A vector that does not have the field's shape.
    #[error("a vector of another shape than the field's")]
    VectorShape,
    #[error("a value of another type than its column")]
    ValueType,
    /// A file of the view that is not as it was written; it can be built again.
    #[error("the {what} file is damaged or of another version; build it again")]
    Damaged { what: &'static str },
    /// Lists of one grid met another grid, or a field of another type.
    #[error("lists belong to another grid")]
    OtherGrid,
    #[error("row {0:?} was not scored")]
    Unscored(RowRef),
    /// An aggregate with more groups than an answer may have, or a text query that cannot be asked.
    #[error(transparent)]
    Refused(#[from] Problem),
    #[error("{0}")]
    Text(String),
}

impl From<TextError> for ViewError {
    fn from(e: TextError) -> Self {
        match e {
            TextError::Refused(problem) => Self::Refused(problem),
            TextError::Corrupt(_) | TextError::TooManyRows(_) | TextError::Bug(_) => {
                Self::Text(e.to_string())
            }
        }
    }
}
