//! Full text search over the rows of one partition's view.  No I/O, no clock, no async:
//! bytes in, bytes out.
//!
//! * A [`Split`] is the immutable text index of one segment: row `n` of the segment is
//!   document `n` of the split, for ever.  It never hears of deletions: the caller says
//!   which rows are allowed.
//! * A [`FreshText`] is the index of one group of fresh rows.  It only grows; a reader
//!   names how many rows its snapshot has and sees no later one.
//! * All parts of one search share one BM25 statistic and one arithmetic, in integers, so
//!   a row has the same score, to the bit, wherever it lives and whatever else is asked.
//!   Rows that died since their split was made still count in the statistic; fresh ones that
//!   died do not.
//! * Answers are exact: bounds only decide which rows cannot be hits.
//!
//! Of tantivy this crate uses files and codecs (dictionary, postings, positions), the
//! stemmers and the stop words; not its scorers, whose block maxima hold only under the
//! statistics that each of its segments was written with.
//!
//! Damaged bytes are [`TextError::Corrupt`], what a client got wrong is
//! [`TextError::Refused`].

mod analyze;
mod blob;
mod bm25;
mod cursor;
mod error;
mod evaluate;
mod expand;
mod fresh;
mod highlight;
mod phrase;
mod plan;
mod query;
mod search;
mod split;
mod split_builder;
mod top;

#[cfg(test)]
mod tests;

pub use analyze::{Analyzer, TextFields};
pub use error::TextError;
pub use fresh::FreshText;
pub use highlight::{Fragment, HighlightSpec, highlight};
pub use query::{Boosted, Operator, TextQuery};
pub use search::{Allowed, Index, Part, SearchSpec, TextHit, TextRow, matching, search};
pub use split::Split;
pub use split_builder::SplitBuilder;
