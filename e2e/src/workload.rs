//! Concurrent clients of one collection, what each was told, and the judgement of it all.
//!
//! They write, patch, delete and read while somebody else breaks what they talk to.  Every
//! operation is recorded, and afterwards the whole history has to make sense: one order per
//! document explains all answers, batches are whole, repeats happened once, versions only
//! grew, and what was acknowledged is there.

pub mod attempt;
pub mod audit;
mod groups;
mod keys;
mod ledger;
mod readers;
mod repeats;
pub mod verify;
mod world;

pub use world::{HOT_KEYS, World, document, hot_key};
