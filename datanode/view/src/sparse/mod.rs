//! Sparse vectors: inverted lists, and exact best dot products through them.
//!
//! A hit shares at least one index with the query; its score is the dot product, summed in
//! f64 in the order of the indices and rounded once, so a row has the same score whether
//! it is fresh or sealed.  Nothing is approximate: lists are skipped only where even their
//! greatest values could not lift a row to the k-th best.

mod best;
mod index;
mod search;

pub use self::index::{SparseIndex, SparseIndexBuilder};
pub use self::search::{SparseFound, SparseSpec};
