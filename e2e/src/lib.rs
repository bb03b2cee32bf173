//! Black-box checks of the real `rhumb` binary.
//!
//! Everything here knows the server only as `api.md` describes it: a process with flags,
//! signals and exit statuses, and an HTTP API.  Nothing is mocked.  Servers are started
//! on free ports over temporary folders or over a real S3 server process, they are killed,
//! stopped and cut off, and what they answered is judged afterwards.
//!
//! - [`server`], [`s3`], [`proxy`]: the processes, and the broken network between them.
//! - [`client`], [`raw`]: well-behaved and ill-behaved callers.
//! - [`suite`]: many small cases against one server, each failure with its exchange.
//! - [`workload`], [`history`], [`linear`]: what concurrent clients did and saw, and whether
//!   one order explains it.
//!
//! When a check fails its panic names the request, the answer, and the folder that holds
//! the server's log; the folder of a failed run is kept.
#![allow(
    clippy::disallowed_methods,
    reason = "a black box lives in real time, with real chance and real processes: nothing here is simulated"
)]

pub mod client;
pub mod compare;
pub mod data;
pub mod history;
pub mod http1;
pub mod linear;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod rules;
pub mod s3;
pub mod server;
pub mod suite;
pub mod temp;
pub mod workload;

pub use client::{Answer, Client, Request, Secured};
pub use proxy::{FaultProxy, Faults, Outage};
pub use s3::S3Server;
pub use server::{Server, Spec, Store};
pub use suite::Suite;
pub use temp::TempDir;

/// The seed of this run: `RHUMB_SEED`, or a fresh one.  Printed by whoever draws from it,
/// so that the choices of a red run can be made again (the interleaving cannot).
pub fn seed() -> u64 {
    match std::env::var("RHUMB_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed,
        None => rand::random_range(0..1_000_000_000),
    }
}

/// A number from the environment, for the size of a run.
pub fn env_number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
