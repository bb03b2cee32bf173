//! Files of documents, as strangers send them: NDJSON, CSV, Arrow IPC and Parquet, cut
//! into [`Chunk`]s, and what becomes of a chunk under a schema.
//!
//! Nothing here waits, and nothing trusts a length, an offset or a type it is told: every
//! one is held against a limit first.  `tests/mutations.rs` keeps it so.

mod chunk;
mod columns;
mod csv;
pub mod foreign;
mod frames;
mod lines;
mod parquet;
mod splitter;

pub use chunk::{Chunk, Failure, Rows, Typed, typed};
pub use parquet::Parquet;
pub use splitter::Splitter;
