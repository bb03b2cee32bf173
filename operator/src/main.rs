//! `rhumb-operator`.

use std::process::ExitCode;

use clap::Parser;
use rhumb_operator::args::Args;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter =
        EnvFilter::try_from_env("RHUMB_LOG").unwrap_or_else(|_| EnvFilter::new("warn,rhumb_operator=info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    // Two providers are in the tree; rustls refuses to guess.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        tracing::error!("the TLS provider was installed twice");
        return ExitCode::FAILURE;
    }
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    runtime
        .block_on(rhumb_operator::run(args))
        .unwrap_or_else(|error| {
            tracing::error!(%error, "cannot start");
            ExitCode::FAILURE
        })
}
