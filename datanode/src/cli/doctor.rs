//! `rhumb doctor`: can this store be trusted?

use std::process::ExitCode;

use super::fail;

#[derive(clap::Args)]
pub struct Args {
    /// file:///path, s3://bucket/prefix or memory://
    #[arg(long, env = "RHUMB_STORE")]
    store: String,
}

pub async fn run(args: Args) -> ExitCode {
    let url = match args.store.parse() {
        Ok(url) => url,
        Err(e) => return fail(&format!("store: {e}")),
    };
    let checks = match rhumb_node::doctor(&url).await {
        Ok(checks) => checks,
        Err(e) => return fail(&e.to_string()),
    };
    for check in &checks {
        let sign = if check.ok() { "ok  " } else { "FAIL" };
        eprintln!(
            "{sign} {:<28} {:>9.1?}  {}",
            check.name,
            check.took,
            check.detail()
        );
    }
    match checks.iter().all(|check| check.ok()) {
        true => ExitCode::SUCCESS,
        false => fail("this store must not hold a database"),
    }
}
