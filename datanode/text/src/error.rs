//! What can go wrong: a client's mistake, damaged bytes, or a bug.

use rhumb_core::Problem;

#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The query or the schema asks for what there is not.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The bytes are not a whole split: to be rebuilt from the base.
    #[error("a text split is damaged: {0}")]
    Corrupt(String),
    /// More than a split or a group of fresh rows can hold.
    #[error("a text index holds at most {0} rows")]
    TooManyRows(u32),
    /// tantivy refused what it must accept.
    #[error("text index: {0}")]
    Bug(String),
}

impl From<tantivy::TantivyError> for TextError {
    fn from(e: tantivy::TantivyError) -> Self {
        Self::Bug(e.to_string())
    }
}

impl From<std::io::Error> for TextError {
    fn from(e: std::io::Error) -> Self {
        Self::Corrupt(e.to_string())
    }
}
