//! The command line: every subcommand is a client of the same API, except `serve`, which
//! is the server, and `doctor` and `keys`, which look at a store directly.

mod audit;
mod bench;
mod client;
mod doctor;
mod import;
mod keys;
mod query;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "rhumb", version, about = "The vector database that lives in a bucket")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a folder or a bucket.
    Serve(serve::Args),
    /// Check whether a store can be trusted with a database.
    Doctor(doctor::Args),
    /// Change the keys of an encrypted database.
    Keys(keys::Args),
    /// Stream a file into a collection.
    Import(import::Args),
    /// Ask a collection for the nearest documents.
    Query(query::Args),
    /// Hold the audit in a store against its hashes.
    Audit(audit::Args),
    /// Measure a server.
    Bench(bench::Args),
}

pub async fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(args) => serve::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Keys(args) => keys::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Query(args) => query::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Bench(args) => bench::run(args).await,
    }
}

/// `RHUMB_LOG` filters (`info`, `rhumb_engine=debug`); `RHUMB_LOG_FORMAT=json` for machines.
pub fn start_logging() {
    let filter = EnvFilter::try_from_env("RHUMB_LOG").unwrap_or_else(|_| {
        EnvFilter::new("warn,rhumb=info,rhumb_node=info,rhumb_engine=info,rhumb_store=info")
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::env::var("RHUMB_LOG_FORMAT").is_ok_and(|format| format == "json") {
        log.json().init();
    } else {
        log.init();
    }
}

pub fn fail(message: &str) -> ExitCode {
    eprintln!("rhumb: {message}");
    ExitCode::FAILURE
}
