//! What an operator may set about identities and TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use rhumb_auth::jwt::{Issuer, Jwks};
use rhumb_auth::{Name, Pace};
use serde::Deserialize;

use super::{Source, first};
use crate::guard::{IssuerSettings, KeysFrom, safe};

const DEFAULT_HOME: &str = "./rhumb-home";
const DEFAULT_AUDIT_DAYS: u32 = 90;
const DEFAULT_ROLES_CLAIM: &str = "roles";

/// The options that one source names: `[security]` of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecuritySource {
    pub home: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Clients with a certificate of this authority are the users it names.
    pub tls_client_ca: Option<PathBuf>,
    /// TLS 1.2 besides 1.3.
    pub tls12: Option<bool>,
    /// A file with a key that is made an admin's at each start; it is not made when missing.
    pub admin_key_file: Option<PathBuf>,
    /// Whether the audit records reads of documents as well.
    pub audit_reads: Option<bool>,
    pub audit_days: Option<u32>,
    /// Of identities that have none of their own.
    pub pace: Option<Pace>,
    pub issuers: Vec<IssuerSource>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSource {
    /// As it stands in `iss`.
    pub issuer: String,
    pub audiences: Vec<String>,
    pub jwks_file: Option<PathBuf>,
    pub jwks_url: Option<String>,
    pub roles_claim: Option<String>,
    /// From a value of that claim to a role.
    #[serde(default)]
    pub roles: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub everybody: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Guarded {
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    /// Where they are made when they are missing; `None` when they are somebody else's.
    pub makes_tls: Option<PathBuf>,
    /// For the certificate that is made.
    pub names: Vec<String>,
    pub tls_client_ca: Option<PathBuf>,
    pub tls12: bool,
    pub admin_key: PathBuf,
    pub makes_admin_key: bool,
    /// What clients on this machine trust.
    pub ca: Option<PathBuf>,
    pub home: PathBuf,
    pub audit_reads: bool,
    pub audit_days: u32,
    pub pace: Pace,
    pub issuers: Vec<IssuerSettings>,
}

impl Guarded {
    pub(super) fn from_sources(sources: &[Source], listen: SocketAddr) -> Result<Self, String> {
        let home = first(sources, |s| s.security.home.clone()).unwrap_or_else(|| DEFAULT_HOME.into());
        let tls = home.join("tls");
        let cert = first(sources, |s| s.security.tls_cert.clone());
        let key = first(sources, |s| s.security.tls_key.clone());
        let (tls_cert, tls_key, makes_tls) = match (cert, key) {
            (Some(cert), Some(key)) => (cert, key, None),
            (None, None) => (tls.join("server.crt"), tls.join("server.key"), Some(tls.clone())),
            _ => return Err("tls-cert and tls-key go together: name both, or neither".to_owned()),
        };
        let given = first(sources, |s| s.security.admin_key_file.clone());
        let audit_days = first(sources, |s| s.security.audit_days).unwrap_or(DEFAULT_AUDIT_DAYS);
        if !(1..=3_650).contains(&audit_days) {
            return Err("security.audit_days is from 1 to 3650".to_owned());
        }
        let issuers = sources
            .iter()
            .flat_map(|s| &s.security.issuers)
            .map(IssuerSource::parse);
        Ok(Self {
            tls_cert,
            tls_key,
            ca: makes_tls.as_ref().map(|tls| tls.join("ca.crt")),
            makes_tls,
            names: names(listen),
            tls_client_ca: first(sources, |s| s.security.tls_client_ca.clone()),
            tls12: first(sources, |s| s.security.tls12).unwrap_or_default(),
            makes_admin_key: given.is_none(),
            admin_key: given.unwrap_or_else(|| home.join("admin.key")),
            home,
            audit_reads: first(sources, |s| s.security.audit_reads).unwrap_or_default(),
            audit_days,
            pace: first(sources, |s| s.security.pace).unwrap_or_default(),
            issuers: issuers.collect::<Result<_, _>>()?,
        })
    }
}

/// What clients may call this server.
fn names(listen: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    if !listen.ip().is_unspecified() && !listen.ip().is_loopback() {
        names.push(listen.ip().to_string());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    match host.trim() {
        "" | "localhost" => {}
        host if host.bytes().all(plain) => names.push(host.to_owned()),
        _ => {}
    }
    names
}

impl IssuerSource {
    fn parse(&self) -> Result<IssuerSettings, String> {
        let wrong = |what: &str| format!("security.issuers `{}`: {what}", self.issuer);
        if self.audiences.is_empty() {
            return Err(wrong("audiences must name who the tokens are for"));
        }
        let keys = match (&self.jwks_file, &self.jwks_url) {
            (Some(_), Some(_)) => return Err(wrong("jwks_file and jwks_url do not go together")),
            (Some(file), None) => KeysFrom::File(file.clone()),
            (None, Some(url)) => {
                safe(url).map_err(|why| wrong(&why))?;
                KeysFrom::Url(url.clone())
            }
            (None, None) => {
                safe(&self.issuer).map_err(|why| wrong(&why))?;
                KeysFrom::Discovery
            }
        };
        let names = |roles: &[String]| -> Result<Vec<Name>, String> {
            let parsed = roles.iter().map(|role| {
                Name::parse(role).ok_or_else(|| wrong(&format!("`{role}` cannot be the name of a role")))
            });
            parsed.collect()
        };
        let roles = self
            .roles
            .iter()
            .map(|(value, roles)| Ok((value.clone(), names(roles)?)));
        Ok(IssuerSettings {
            issuer: Issuer {
                name: self.issuer.clone(),
                audiences: self.audiences.clone(),
                roles_claim: self
                    .roles_claim
                    .clone()
                    .unwrap_or_else(|| DEFAULT_ROLES_CLAIM.to_owned()),
                roles: roles.collect::<Result<_, String>>()?,
                everybody: names(&self.everybody)?,
                keys: Jwks::default(),
            },
            keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn guarded(text: &str) -> Result<Guarded, String> {
        let source: Source = toml::from_str(text).expect("valid toml");
        let settings = Settings::from_sources(&[source]).map_err(|e| e.to_string())?;
        Ok(settings.guarded.expect("guarded by default").as_ref().clone())
    }

    #[test]
    fn by_default_everything_is_made_in_the_home() {
        let found = guarded("").expect("valid");
        assert_eq!(found.admin_key, PathBuf::from("./rhumb-home/admin.key"));
        assert_eq!(found.tls_cert, PathBuf::from("./rhumb-home/tls/server.crt"));
        assert!(found.makes_admin_key && found.makes_tls.is_some());
    }

    #[test]
    fn what_is_somebody_elses_is_not_made() {
        let text = "[security]\ntls_cert = \"/c\"\ntls_key = \"/k\"\nadmin_key_file = \"/a\"";
        let found = guarded(text).expect("valid");
        assert_eq!((found.tls_key, found.admin_key), ("/k".into(), "/a".into()));
        assert!(!found.makes_admin_key && found.makes_tls.is_none());
        assert!(guarded("[security]\ntls_cert = \"/c\"").is_err());
    }

    #[test]
    fn an_issuer_is_checked_before_anything_starts() {
        let issuer = |more: &str| {
            guarded(&format!(
                "[[security.issuers]]\nissuer = \"https://id.example\"\n{more}"
            ))
        };
        assert!(issuer("audiences = [\"rhumb\"]").is_ok());
        assert!(issuer("audiences = []").is_err());
        assert!(issuer("audiences = [\"a\"]\njwks_url = \"http://id.example/k\"").is_err());
        assert!(issuer("audiences = [\"a\"]\njwks_file = \"/j\"\njwks_url = \"https://x\"").is_err());
        assert!(issuer("audiences = [\"a\"]\neverybody = [\"a b\"]").is_err());
    }
}
