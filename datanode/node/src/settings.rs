//! What an operator may set, parsed once into valid types.
//!
//! A [`Source`] is what one place says: a TOML file, or flags and environment together
//! (the command line fills one).  [`Settings::from_sources`] takes the first source that
//! names an option, then the default.  Nothing after this file sees an unparsed value.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::Limits;
use rhumb_core::problem::did_you_mean;
use rhumb_store::StoreUrl;
use rhumb_store::crypt::{KeyProblem, MasterKey};
use serde::Deserialize;

use crate::byte_size::ByteSize;
use crate::memory;

mod security;

pub use security::{Guarded, SecuritySource};

pub const DEFAULT_STORE: &str = "file://./rhumb-data";
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7480";
const DEFAULT_CACHE_DIR: &str = "./rhumb-cache";
const DEFAULT_CACHE_SIZE: ByteSize = ByteSize(10 << 30);
/// Less leaves no room for one large request beside a view.
const LEAST_MEMORY: ByteSize = ByteSize(128 << 20);
/// A key management service answers in less than a second, or is away.
const KEY_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Settings {
    pub store: StoreUrl,
    pub listen: SocketAddr,
    pub dev: bool,
    /// Identities and TLS; `None` when somebody said that there shall be none.
    pub guarded: Option<Arc<Guarded>>,
    pub memory_limit: ByteSize,
    pub cache_dir: PathBuf,
    pub cache_size: ByteSize,
    pub limits: Limits,
    /// Of an encrypted database.
    pub master_key: Option<Arc<MasterKey>>,
    /// This node's place in a cluster; the operator sets it.
    pub cluster: Option<rhumb_cluster::Settings>,
}

/// The options that one source names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    pub store: Option<String>,
    pub listen: Option<String>,
    pub dev: Option<bool>,
    /// Plain HTTP without keys for whoever can reach the address.
    pub unsafe_public: Option<bool>,
    pub memory_limit: Option<ByteSize>,
    pub cache_dir: Option<PathBuf>,
    pub cache_size: Option<ByteSize>,
    pub encryption_key_file: Option<PathBuf>,
    pub encryption_key_command: Option<PathBuf>,
    /// From the environment alone: a configuration file is no place for a key.
    #[serde(skip)]
    pub encryption_key: Option<KeyText>,
    /// By the names of [`Limits`]; sizes may have units.
    pub limits: BTreeMap<String, ByteSize>,
    pub security: SecuritySource,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Toml { path: PathBuf, source: toml::de::Error },
    #[error("store: {0}")]
    Store(#[from] rhumb_store::url::UrlProblem),
    #[error("listen: `{0}` is not an address; write host:port, like {DEFAULT_LISTEN}")]
    Listen(String),
    #[error("dev: --dev is plain HTTP without keys, for loopback alone; {0} is not loopback")]
    DevPublic(SocketAddr),
    #[error("memory-limit: {0} is too little; the least is {LEAST_MEMORY}")]
    Memory(ByteSize),
    #[error("limits: there is no limit `{name}`; {hint}")]
    UnknownLimit { name: String, hint: String },
    #[error("limits: {0}")]
    Limit(serde_json::Error),
    #[error("limits: {name} must be at least 1")]
    ZeroLimit { name: String },
    #[error("{0}")]
    Security(String),
    #[error(
        "encryption: several master keys are named; name one of --encryption-key-file, --encryption-key-command \
         and RHUMB_ENCRYPTION_KEY"
    )]
    SeveralKeys,
    #[error("encryption: {0}")]
    Key(#[from] KeyProblem),
}

/// Where the master key of an encrypted database comes from: one of these, or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeySource {
    pub file: Option<PathBuf>,
    pub command: Option<PathBuf>,
    pub key: Option<KeyText>,
}

/// A key in the clear, which no `Debug` shows.
#[derive(Clone, PartialEq)]
pub struct KeyText(pub String);

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText")
    }
}

impl KeySource {
    /// What `source` says, unless that is nothing.
    fn named(source: &Source) -> Option<Self> {
        let named = Self {
            file: source.encryption_key_file.clone(),
            command: source.encryption_key_command.clone(),
            key: source.encryption_key.clone(),
        };
        Some(named).filter(|named| *named != Self::default())
    }

    /// Reads the file, if it is one; starts no command.
    pub fn master_key(&self) -> Result<Option<Arc<MasterKey>>, SettingsError> {
        let key = match (&self.file, &self.command, &self.key) {
            (None, None, None) => return Ok(None),
            (Some(file), None, None) => MasterKey::from_file(file)?,
            (None, Some(program), None) => MasterKey::from_command(program.clone(), KEY_COMMAND_TIMEOUT),
            (None, None, Some(KeyText(text))) => MasterKey::parse(text)?,
            _ => return Err(SettingsError::SeveralKeys),
        };
        Ok(Some(Arc::new(key)))
    }
}

impl Source {
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| SettingsError::Toml {
            path: path.to_owned(),
            source,
        })
    }
}

impl Settings {
    /// Earlier sources win.
    pub fn from_sources(sources: &[Source]) -> Result<Self, SettingsError> {
        let store = first(sources, |s| s.store.as_deref())
            .unwrap_or(DEFAULT_STORE)
            .parse()?;
        let dev = first(sources, |s| s.dev).unwrap_or_default();
        let public = first(sources, |s| s.unsafe_public).unwrap_or_default();
        let listen = address(first(sources, |s| s.listen.as_deref()).unwrap_or(DEFAULT_LISTEN))?;
        if dev && !listen.ip().is_loopback() {
            return Err(SettingsError::DevPublic(listen));
        }
        let guarded = match dev || public {
            true => None,
            false => Some(Arc::new(
                Guarded::from_sources(sources, listen).map_err(SettingsError::Security)?,
            )),
        };
        let memory_limit = first(sources, |s| s.memory_limit).unwrap_or_else(memory::default_limit);
        if memory_limit < LEAST_MEMORY {
            return Err(SettingsError::Memory(memory_limit));
        }
        let cache_dir = first(sources, |s| s.cache_dir.clone()).unwrap_or_else(|| DEFAULT_CACHE_DIR.into());
        let cache_size = first(sources, |s| s.cache_size).unwrap_or(DEFAULT_CACHE_SIZE);
        let limits = limits(sources)?;
        let encryption = sources.iter().find_map(KeySource::named).unwrap_or_default();
        Ok(Self {
            store,
            listen,
            dev,
            guarded,
            memory_limit,
            cache_dir,
            cache_size,
            limits,
            master_key: encryption.master_key()?,
            cluster: None,
        })
    }
}

fn first<'a, T>(sources: &'a [Source], pick: impl Fn(&'a Source) -> Option<T>) -> Option<T> {
    sources.iter().find_map(pick)
}

fn address(text: &str) -> Result<SocketAddr, SettingsError> {
    let refused = || SettingsError::Listen(text.to_owned());
    text.to_socket_addrs()
        .map_err(|_| refused())?
        .next()
        .ok_or_else(refused)
}

/// The names are those of the struct, so that a new limit needs no line here.
fn limits(sources: &[Source]) -> Result<Limits, SettingsError> {
    let mut all = match serde_json::to_value(Limits::default()) {
        Ok(serde_json::Value::Object(map)) => map,
        Ok(_) => serde_json::Map::new(),
        Err(e) => return Err(SettingsError::Limit(e)),
    };
    for (name, value) in sources.iter().rev().flat_map(|source| &source.limits) {
        if !all.contains_key(name) {
            let hint = did_you_mean(name, all.keys().map(String::as_str));
            return Err(SettingsError::UnknownLimit {
                name: name.clone(),
                hint,
            });
        }
        // Only this one has a meaning for 0: no limit.
        if value.0 == 0 && name != "import_rows_per_s" {
            return Err(SettingsError::ZeroLimit { name: name.clone() });
        }
        all.insert(name.clone(), value.0.into());
    }
    serde_json::from_value(serde_json::Value::Object(all)).map_err(SettingsError::Limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Settings, SettingsError> {
        Settings::from_sources(&[toml::from_str(text).expect("valid toml")])
    }

    #[test]
    fn without_any_source_it_is_a_server_on_a_local_folder() {
        let settings = Settings::from_sources(&[]).expect("the defaults are valid");
        assert_eq!(settings.listen.to_string(), DEFAULT_LISTEN);
        assert!(matches!(settings.store, StoreUrl::File { .. }));
        assert_eq!(settings.limits, Limits::default());
    }

    #[test]
    fn earlier_sources_win_option_by_option() {
        let flags = Source {
            listen: Some("127.0.0.1:1".into()),
            ..Source::default()
        };
        let file = Source {
            listen: Some("127.0.0.1:2".into()),
            memory_limit: Some(ByteSize(1 << 30)),
            ..Source::default()
        };
        let settings = Settings::from_sources(&[flags, file]).expect("valid");
        assert_eq!(settings.listen.port(), 1);
        assert_eq!(settings.memory_limit, ByteSize(1 << 30));
    }

    #[test]
    fn every_limit_can_be_set_by_its_name_and_only_those() {
        let settings =
            parsed("[limits]\nbody_bytes = \"1MiB\"\nk = 50\nimport_rows_per_s = 0").expect("valid");
        assert_eq!((settings.limits.body_bytes, settings.limits.k), (1 << 20, 50));
        assert!(matches!(
            parsed("[limits]\nbody_byte = 1"),
            Err(SettingsError::UnknownLimit { hint, .. }) if hint.contains("body_bytes")
        ));
        assert!(matches!(
            parsed("[limits]\nk = 0"),
            Err(SettingsError::ZeroLimit { .. })
        ));
        assert!(matches!(
            parsed("[limits]\ndims = 99999999999"),
            Err(SettingsError::Limit(_))
        ));
    }

    #[test]
    fn strangers_are_kept_out_unless_somebody_says_otherwise() {
        let anywhere = parsed("listen = \"0.0.0.0:7480\"").expect("with keys and TLS");
        assert!(anywhere.guarded.is_some());
        let open = parsed("listen = \"0.0.0.0:7480\"\nunsafe_public = true").expect("said out loud");
        assert!(open.guarded.is_none());
        assert!(parsed("dev = true").expect("loopback").guarded.is_none());
        assert!(parsed("").expect("the default").guarded.is_some());
        assert!(matches!(
            parsed("listen = \"0.0.0.0:7480\"\nunsafe_public = true\ndev = true"),
            Err(SettingsError::DevPublic(_))
        ));
        assert!(parsed("listen = \"[::1]:7480\"\ndev = true").is_ok());
        assert!(matches!(
            parsed("listen = \"7480\""),
            Err(SettingsError::Listen(_))
        ));
    }

    #[test]
    fn one_master_key_is_taken_from_one_place_and_never_shown() {
        let key = "5a".repeat(31) + "00";
        let by_text = |text: &str| Source {
            encryption_key: Some(KeyText(text.to_owned())),
            ..Source::default()
        };
        let settings = Settings::from_sources(&[by_text(&key)]).expect("a key");
        assert!(settings.master_key.is_some() && !format!("{settings:?}").contains("5a5a"));
        let none = Settings::from_sources(&[]).expect("valid");
        assert!(none.master_key.is_none());
        assert!(matches!(
            Settings::from_sources(&[by_text("password")]),
            Err(SettingsError::Key(KeyProblem::Unusable(_)))
        ));
        let file = "encryption_key_file = \"/nowhere/at-all\"";
        assert!(
            matches!(parsed(file), Err(SettingsError::Key(e)) if e.to_string().contains("/nowhere/at-all"))
        );
        let both = format!("{file}\nencryption_key_command = \"/usr/bin/kms\"");
        assert!(matches!(parsed(&both), Err(SettingsError::SeveralKeys)));
        let flags_win = [by_text(&key), toml::from_str(file).expect("valid toml")];
        assert!(Settings::from_sources(&flags_win).is_ok());
        assert!(
            toml::from_str::<Source>("encryption_key = \"x\"").is_err(),
            "no key in a configuration file"
        );
    }

    #[test]
    fn an_option_that_does_not_exist_is_refused() {
        assert!(toml::from_str::<Source>("stroe = \"memory://\"").is_err());
        assert!(matches!(
            parsed("memory_limit = \"1MiB\""),
            Err(SettingsError::Memory(_))
        ));
    }
}
