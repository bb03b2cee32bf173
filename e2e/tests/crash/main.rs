//! Does anything acknowledged get lost?
//!
//! Concurrent clients write, patch, delete and read while the real server is killed,
//! frozen, cut off from its bucket, fed damaged reads and robbed of its cache.  Every
//! operation is recorded with what its client was told, and afterwards the whole history
//! has to make sense: one order per document explains all answers, batches are whole,
//! repeats happened once, versions only grew, and what was acknowledged is there.
//!
//! Sizes: `RHUMB_CRASH_ROUNDS`.  Choices: `RHUMB_SEED` (printed by each run).
#![allow(
    clippy::disallowed_methods,
    reason = "a black box lives in real time, with real chance and real processes: nothing here is simulated"
)]

mod cache_damage;
mod damaged_cache;
mod faulty_network;
mod kill_folder;
mod kill_s3;
mod outage;
mod rounds;
mod self_check;
mod verify;
mod zombie;
