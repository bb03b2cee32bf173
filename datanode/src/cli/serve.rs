//! `rhumb serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use rhumb_node::{ByteSize, KeySource, Ready, SecuritySource, Settings, Source};

use super::fail;
use super::keys::KeyArgs;
use crate::memory::give_back_when_idle;

#[derive(clap::Args)]
pub struct Args {
    /// file:///path, s3://bucket/prefix or memory://
    #[arg(long, env = "RHUMB_STORE")]
    store: Option<String>,
    /// Address to serve on.
    #[arg(long, env = "RHUMB_LISTEN")]
    listen: Option<String>,
    /// Plain HTTP without keys, on loopback only.
    #[arg(long, env = "RHUMB_DEV", num_args = 0..=1, default_missing_value = "true")]
    dev: Option<bool>,
    /// Plain HTTP without keys for whoever can reach the address.
    #[arg(long, env = "RHUMB_UNSAFE_PUBLIC", num_args = 0..=1, default_missing_value = "true")]
    unsafe_public: Option<bool>,
    /// Memory for everything the server holds, such as 1GiB.
    #[arg(long, env = "RHUMB_MEMORY_LIMIT")]
    memory_limit: Option<ByteSize>,
    /// Where blocks of a remote store are cached.
    #[arg(long, env = "RHUMB_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
    #[arg(long, env = "RHUMB_CACHE_SIZE")]
    cache_size: Option<ByteSize>,
    /// Where the admin key and the certificates are made at the first start.
    #[arg(long, env = "RHUMB_HOME")]
    home: Option<PathBuf>,
    /// PEM files of a certificate and its key, instead of those made in the home.
    #[arg(long, env = "RHUMB_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    #[arg(long, env = "RHUMB_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Clients with a certificate of this authority are the users it names.
    #[arg(long, env = "RHUMB_TLS_CLIENT_CA")]
    tls_client_ca: Option<PathBuf>,
    /// A file with a key that is made an admin's at each start.
    #[arg(long, env = "RHUMB_ADMIN_KEY_FILE")]
    admin_key_file: Option<PathBuf>,
    #[command(flatten)]
    encryption: KeyArgs,
    /// A TOML file with the same names; flags and environment win.
    #[arg(long, env = "RHUMB_CONFIG")]
    config: Option<PathBuf>,
}

pub async fn run(args: Args) -> ExitCode {
    let settings = match settings(args) {
        Ok(settings) => settings,
        Err(e) => return fail(&e.to_string()),
    };
    let cluster = match rhumb_cluster::Settings::from_vars(std::env::vars()) {
        Ok(cluster) => cluster,
        Err(e) => return fail(&e.to_string()),
    };
    let settings = Settings { cluster, ..settings };
    let serving = rhumb_node::serve(settings, |ready| {
        give_back_when_idle();
        greet(ready);
    });
    match serving.await {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(e) => fail(&e.to_string()),
    }
}

fn settings(args: Args) -> Result<Settings, rhumb_node::SettingsError> {
    let KeySource { file, command, key } = args.encryption.source();
    let mut sources = vec![Source {
        store: args.store,
        listen: args.listen,
        dev: args.dev,
        unsafe_public: args.unsafe_public,
        memory_limit: args.memory_limit,
        cache_dir: args.cache_dir,
        cache_size: args.cache_size,
        security: SecuritySource {
            home: args.home,
            tls_cert: args.tls_cert,
            tls_key: args.tls_key,
            tls_client_ca: args.tls_client_ca,
            admin_key_file: args.admin_key_file,
            ..SecuritySource::default()
        },
        encryption_key_file: file,
        encryption_key_command: command,
        encryption_key: key,
        ..Source::default()
    }];
    if let Some(path) = &args.config {
        sources.push(Source::read(path)?);
    }
    Settings::from_sources(&sources)
}

fn greet(ready: Ready) {
    let address = ready.address;
    let Some(ca) = ready.tls else {
        eprintln!(
            "Rhumb serves on http://{address}\n\
             Try:  curl -X PUT http://{address}/v1/collections/hello -H 'Content-Type: application/json' \
             -d '{{\"fields\":{{\"v\":{{\"type\":\"vector\",\"dim\":2}}}}}}'"
        );
        return;
    };
    eprintln!("Rhumb serves on https://{address}");
    let trust = ca
        .map(|ca| format!(" --cacert {}", ca.display()))
        .unwrap_or_default();
    if let Some((path, key)) = ready.admin_key {
        eprintln!(
            "The admin key, shown this once and kept in {}:\n  {}",
            path.display(),
            key.reveal().as_str()
        );
    }
    eprintln!("Try:  curl{trust} -H \"Authorization: Bearer $RHUMB_KEY\" https://{address}/v1/whoami");
}
