//! `rhumb audit verify`: is the audit in a store whole?

use std::process::ExitCode;

use super::fail;
use super::keys::KeyArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Every chain, line by line.
    Verify {
        /// file:///path, s3://bucket/prefix or memory://
        #[arg(long, env = "RHUMB_STORE")]
        store: String,
        #[command(flatten)]
        encryption: KeyArgs,
    },
}

pub async fn run(args: Args) -> ExitCode {
    let Command::Verify { store, encryption } = args.command;
    let url = match store.parse() {
        Ok(url) => url,
        Err(e) => return fail(&format!("store: {e}")),
    };
    let master_key = match encryption.source().master_key() {
        Ok(key) => key,
        Err(e) => return fail(&e.to_string()),
    };
    let chains = match rhumb_node::verify_audit(&url, master_key).await {
        Ok(chains) => chains,
        Err(e) => return fail(&e.to_string()),
    };
    if chains.is_empty() {
        return fail("no audit is there: the store or its prefix is another one, or the audit was deleted");
    }
    let mut whole = true;
    for (name, verdict) in &chains {
        match verdict {
            Ok(found) if found.ended => eprintln!("ok    {name}  {} records, ended", found.records),
            Ok(found) => eprintln!(
                "open  {name}  {} records; its process runs, was killed, or its end was taken away",
                found.records
            ),
            Err(broken) => {
                whole = false;
                eprintln!("FAIL  {name}  {broken}");
            }
        }
    }
    match whole {
        true => ExitCode::SUCCESS,
        false => fail("the audit was changed"),
    }
}
