//! The engine: collections over a bucket.  The only crate that names Lance.
//!
//! A [`Database`] hands out [`Collection`]s; a collection is split into partitions; a
//! partition has one writer task that owns its log, its view and its base table.
//! Nothing acknowledged is ever lost: a write is answered when its log object is in the
//! bucket *and* the view shows it (I1), and a partition whose epoch was taken over stops
//! at once (I2).  `docs/protocol/` has the rules by number.

mod base;
mod budget;
mod collection;
mod database;
mod entry;
mod env;
mod erase;
mod error;
mod following;
mod idem;
mod judge;
mod lance_store;
mod lead;
mod partition;
mod parts;
mod pinned;
mod raw;
mod reading;
mod remains;
mod rows;
mod schema_cell;
mod scoring;
mod sole_writer;
mod spread;
mod tally;
mod view_files;

pub use collection::{Collection, Stats, Written};
pub use database::{Created, Database, OpenStats, Settings, Sharing, collection_not_found};
pub use erase::{Erasure, Left, PartitionErasure};
pub use error::{EngineError, Outcome, PartOutcome};
pub use reading::{Page, PageStart, Reading, Scan, ScanSnapshot};
pub use remains::{Holds, Object, Objects};
pub use rows::{Row, encode_table, table_schema};
pub use schema_cell::quota_of;
