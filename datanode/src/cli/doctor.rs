//! `rhumb doctor`: can this store be trusted?

use std::process::ExitCode;

use super::fail;
use super::keys::KeyArgs;

#[derive(clap::Args)]
pub struct Args {
    /// file:///path, s3://bucket/prefix or memory://
    #[arg(long, env = "RHUMB_STORE")]
    store: String,
    #[command(flatten)]
    encryption: KeyArgs,
}

pub async fn run(args: Args) -> ExitCode {
    let url = match args.store.parse() {
        Ok(url) => url,
        Err(e) => return fail(&format!("store: {e}")),
    };
    let master_key = match args.encryption.source().master_key() {
        Ok(key) => key,
        Err(e) => return fail(&e.to_string()),
    };
    let rhumb_node::Diagnosis { checks, encryption } = match rhumb_node::doctor(&url, master_key).await {
        Ok(found) => found,
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
    match encryption {
        Some(found) => eprintln!(
            "encrypted: {}, data keys wrapped by master key {}",
            found.cipher, found.master_key
        ),
        None => eprintln!("not encrypted by us"),
    }
    match checks.iter().all(|check| check.ok()) {
        true => ExitCode::SUCCESS,
        false => fail("this store must not hold a database"),
    }
}
