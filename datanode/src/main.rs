//! `rhumb`: the data node and its command line.

mod cli;
mod memory;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Two providers are in the tree; rustls refuses to guess.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return cli::fail("the TLS provider was installed twice");
    }
    let command = cli::Cli::parse();
    cli::start_logging();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run(command)),
        Err(e) => cli::fail(&format!("no runtime: {e}")),
    }
}
