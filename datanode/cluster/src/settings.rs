//! What the operator tells a data node about its place in the cluster: `RHUMB_CLUSTER_*`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::rules::Timing;

#[derive(Clone, Debug)]
pub struct Settings {
    pub database: String,
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    pub pod_ip: IpAddr,
    pub shards: u32,
    pub peer_listen: SocketAddr,
    /// The name in every peer's certificate.
    pub peer_name: String,
    pub tls_dir: PathBuf,
    pub timing: Timing,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{0} is not set; a data node in a cluster is started by the operator")]
    Missing(String),
    #[error("{name}: `{value}` is not {wanted}")]
    Invalid {
        name: String,
        value: String,
        wanted: &'static str,
    },
    #[error("RHUMB_CLUSTER_LEASE_*: the duration must exceed the renew deadline, and that the retry period")]
    Timing,
}

const PREFIX: &str = "RHUMB_CLUSTER_";

impl Settings {
    /// `None` when nothing says that there is a cluster.
    pub fn from_vars(vars: impl Iterator<Item = (String, String)>) -> Result<Option<Self>, SettingsError> {
        let vars: BTreeMap<String, String> = vars.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        if vars.is_empty() {
            return Ok(None);
        }
        Self::parse(&Vars(vars)).map(Some)
    }

    fn parse(vars: &Vars) -> Result<Self, SettingsError> {
        let millis = |name| -> Result<Duration, SettingsError> {
            Ok(Duration::from_millis(
                vars.parsed(name, "a number of milliseconds")?,
            ))
        };
        let timing = Timing {
            duration: millis("LEASE_DURATION_MS")?,
            renew_deadline: millis("LEASE_RENEW_DEADLINE_MS")?,
            retry: millis("LEASE_RETRY_MS")?,
        };
        let in_order = timing.duration > timing.renew_deadline && timing.renew_deadline > timing.retry;
        if !in_order || timing.retry.is_zero() {
            return Err(SettingsError::Timing);
        }
        let shards: u32 = vars.parsed("SHARDS", "a number from 1 to 64")?;
        if !(1..=64).contains(&shards) {
            return Err(vars.invalid("SHARDS", "a number from 1 to 64"));
        }
        Ok(Self {
            database: vars.text("DATABASE")?,
            namespace: vars.text("NAMESPACE")?,
            pod: vars.text("POD")?,
            pod_uid: vars.text("POD_UID")?,
            pod_ip: vars.parsed("POD_IP", "an IP address")?,
            shards,
            peer_listen: vars.parsed("PEER_LISTEN", "an address and a port")?,
            peer_name: vars.text("PEER_NAME")?,
            tls_dir: vars.text("TLS_DIR")?.into(),
            timing,
        })
    }

    /// Where peers reach this node.
    pub fn peer_address(&self) -> SocketAddr {
        SocketAddr::new(self.pod_ip, self.peer_listen.port())
    }
}

struct Vars(BTreeMap<String, String>);

impl Vars {
    fn text(&self, name: &str) -> Result<String, SettingsError> {
        let name = format!("{PREFIX}{name}");
        match self.0.get(&name).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value.clone()),
            None => Err(SettingsError::Missing(name)),
        }
    }

    fn parsed<T: FromStr>(&self, name: &str, wanted: &'static str) -> Result<T, SettingsError> {
        self.text(name)?.parse().map_err(|_| self.invalid(name, wanted))
    }

    fn invalid(&self, name: &str, wanted: &'static str) -> SettingsError {
        SettingsError::Invalid {
            name: format!("{PREFIX}{name}"),
            value: self.text(name).unwrap_or_default(),
            wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> BTreeMap<String, String> {
        let all = [
            ("DATABASE", "words"),
            ("NAMESPACE", "prod"),
            ("POD", "words-7d-x"),
            ("POD_UID", "6c"),
            ("POD_IP", "10.244.1.5"),
            ("SHARDS", "4"),
            ("PEER_LISTEN", "0.0.0.0:7481"),
            ("PEER_NAME", "words-nodes.prod.svc"),
            ("TLS_DIR", "/etc/rhumb/tls"),
            ("LEASE_DURATION_MS", "4000"),
            ("LEASE_RENEW_DEADLINE_MS", "2500"),
            ("LEASE_RETRY_MS", "800"),
        ];
        let named = |(name, value): (&str, &str)| (format!("{PREFIX}{name}"), value.to_owned());
        all.into_iter().map(named).collect()
    }

    fn refused(name: &str, value: &str) -> String {
        let mut vars = vars();
        vars.insert(format!("{PREFIX}{name}"), value.into());
        let parsed = Settings::from_vars(vars.into_iter());
        parsed.expect_err("it must be refused").to_string()
    }

    #[test]
    fn what_the_operator_sets_is_understood() {
        let settings = Settings::from_vars(vars().into_iter())
            .expect("valid")
            .expect("a cluster");
        assert_eq!(settings.peer_address().to_string(), "10.244.1.5:7481");
        assert_eq!((settings.shards, settings.pod_uid.as_str()), (4, "6c"));
    }

    #[test]
    fn without_any_of_them_there_is_no_cluster() {
        let others = [("RHUMB_STORE".to_owned(), "memory://".to_owned())];
        let parsed = Settings::from_vars(others.into_iter()).expect("valid");
        assert!(parsed.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refused("POD_IP", "here").contains("RHUMB_CLUSTER_POD_IP"));
        assert!(refused("SHARDS", "65").contains("1 to 64"));
        assert!(refused("POD", "").contains("RHUMB_CLUSTER_POD is not set"));
        assert!(refused("LEASE_RETRY_MS", "2500").contains("renew deadline"));
        assert!(refused("LEASE_DURATION_MS", "2500").contains("renew deadline"));
    }
}
