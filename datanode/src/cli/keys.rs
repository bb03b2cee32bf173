//! `rhumb keys`: the keys of an encrypted database.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use rhumb_node::{KeySource, KeyText, MasterKey};

use super::fail;

/// The master key itself, for where there are no files; a flag would show it to everybody.
const KEY_VARIABLE: &str = "RHUMB_ENCRYPTION_KEY";

/// Where the master key comes from.  Without any of it the database is not encrypted.
#[derive(clap::Args)]
pub struct KeyArgs {
    /// Master keys of 32 bytes in hex or base64, one per line: the first wraps, all unwrap.
    #[arg(long, env = "RHUMB_ENCRYPTION_KEY_FILE")]
    encryption_key_file: Option<PathBuf>,
    /// A program that wraps and unwraps data keys; started as `PROGRAM wrap` and `PROGRAM unwrap`.
    #[arg(long, env = "RHUMB_ENCRYPTION_KEY_COMMAND")]
    encryption_key_command: Option<PathBuf>,
}

impl KeyArgs {
    pub fn source(self) -> KeySource {
        KeySource {
            file: self.encryption_key_file,
            command: self.encryption_key_command,
            key: std::env::var(KEY_VARIABLE).ok().map(KeyText),
        }
    }
}

#[derive(clap::Args)]
pub struct Args {
    /// file:///path or s3://bucket/prefix
    #[arg(long, env = "RHUMB_STORE", global = true, default_value = rhumb_node::DEFAULT_STORE)]
    store: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Wrap every data key by the first key of the file.  No data is rewritten; servers that
    /// hold both keys run on.
    Rotate {
        #[command(flatten)]
        from: KeyArgs,
        /// Take the new master key from this file.
        #[arg(long, conflicts_with = "to_command")]
        to_file: Option<PathBuf>,
        /// Have the data keys wrapped by this program from now on.
        #[arg(long)]
        to_command: Option<PathBuf>,
    },
    /// Seal what is written from now on by new data keys.
    Renew {
        #[command(flatten)]
        key: KeyArgs,
    },
}

pub async fn run(args: Args) -> ExitCode {
    let url = match args.store.parse() {
        Ok(url) => url,
        Err(e) => return fail(&format!("store: {e}")),
    };
    let done = match args.what {
        What::Rotate {
            from,
            to_file,
            to_command,
        } => {
            let to = KeySource {
                file: to_file,
                command: to_command,
                key: None,
            };
            let keys = required(from.source()).and_then(|from| Ok((to.master_key().map_err(told)?, from)));
            match keys {
                Ok((to, from)) => {
                    let to = to.unwrap_or_else(|| from.clone());
                    let changed = rhumb_node::rotate_keys(&url, from, &to).await;
                    changed.map(|n| format!("{n} key sets are wrapped by master key {}", to.name()))
                }
                Err(e) => return fail(&e),
            }
        }
        What::Renew { key } => match required(key.source()) {
            Ok(key) => {
                let renewed = rhumb_node::renew_keys(&url, key).await;
                renewed.map(|n| format!("{n} new data keys"))
            }
            Err(e) => return fail(&e),
        },
    };
    match done {
        Ok(words) => {
            eprintln!("{words}");
            ExitCode::SUCCESS
        }
        Err(e) => fail(&e.to_string()),
    }
}

fn required(source: KeySource) -> Result<Arc<MasterKey>, String> {
    let key = source.master_key().map_err(told)?;
    key.ok_or_else(|| {
        "name the master key: --encryption-key-file, --encryption-key-command or RHUMB_ENCRYPTION_KEY".into()
    })
}

fn told(error: rhumb_node::SettingsError) -> String {
    error.to_string()
}
