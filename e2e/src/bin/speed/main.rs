//! The judged figures of writing, as ratios within one run (times on a shared machine mean
//! little by themselves).
//!
//! `speed [latency] [connections] [batches] [memory]`, all by default.  The store is a
//! folder under the temporary directory, which must be on the disk that is meant.
//! `RHUMB_SPEED_ROWS` sizes the memory test (1,000,000).
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: real time, real chance, and a report on standard output"
)]

mod batches;
mod latency;
mod memory;

use anyhow::Result;
use rhumb_e2e::{Server, Spec, Store, TempDir};

#[tokio::main]
async fn main() -> Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    if wanted("latency") {
        latency::single_upsert_against_own_create().await?;
    }
    if wanted("connections") {
        latency::eight_connections_against_one().await?;
    }
    if wanted("batches") {
        batches::rows_per_second().await?;
    }
    if wanted("memory") {
        memory::resident_while_streaming().await?;
    }
    Ok(())
}

/// A fresh server over a folder; the home lives as long as the caller keeps it.
async fn server(name: &str, memory_limit: Option<&str>) -> Result<(TempDir, Server)> {
    let home = TempDir::new(name)?;
    let mut spec = Spec::new(Store::Folder(home.folder("store")?), home.path())?;
    spec.memory_limit = memory_limit.map(str::to_owned);
    let server = Server::start(spec).await?;
    Ok((home, server))
}
