//! Issuers of tokens and their public keys: read from a file, or fetched from the address
//! that the configuration names, never from one that a request names.
//!
//! Keys are fetched when they are first needed, again after ten minutes, and at once when a
//! token names one that is not known, but at most every 30 seconds.  When the issuer cannot
//! be reached, its last keys serve for a day.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Url;
use rhumb_auth::jwt::{self, Issuer, Jwks, JwtDenied, Vouched};
use serde::Deserialize;
use tokio::time::Instant;

const FRESH: Duration = Duration::from_secs(10 * 60);
const AT_MOST_EVERY: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const FETCH: Duration = Duration::from_secs(5);
const LONGEST_DOCUMENT: usize = 256 << 10;

/// An issuer as it is configured.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// Its keys are put in when they are known.
    pub issuer: Issuer,
    pub keys: KeysFrom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFrom {
    File(PathBuf),
    Url(String),
    /// `<issuer>/.well-known/openid-configuration`
    Discovery,
}

pub struct Issuers {
    all: Vec<Source>,
    http: Option<reqwest::Client>,
}

struct Source {
    settings: IssuerSettings,
    known: Mutex<Known>,
    /// One fetch at a time; whoever has no keys yet waits for it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    issuer: Option<Arc<Issuer>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl Issuers {
    pub fn new(all: Vec<IssuerSettings>) -> Result<Self, String> {
        let remote = all.iter().any(|source| !matches!(source.keys, KeysFrom::File(_)));
        let client = || {
            reqwest::Client::builder()
                .timeout(FETCH)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|e| e.to_string())
        };
        let http = remote.then(client).transpose()?;
        let sources = all.into_iter().map(|settings| Source {
            settings,
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        });
        Ok(Self {
            all: sources.collect(),
            http,
        })
    }

    pub async fn verify(&self, token: &str, now_ms: i64) -> Result<Vouched, JwtDenied> {
        let name = jwt::issuer_of(token)?;
        let source = self.all.iter().find(|source| source.settings.issuer.name == name);
        let source = source.ok_or(JwtDenied::Issuer)?;
        let issuer = self.keys(source, FRESH).await.ok_or(JwtDenied::Key)?;
        match jwt::verify(token, [issuer.as_ref()], now_ms) {
            // The issuer may have rotated its keys.
            Err(JwtDenied::Key) => {
                let newer = self.keys(source, AT_MOST_EVERY).await.ok_or(JwtDenied::Key)?;
                jwt::verify(token, [newer.as_ref()], now_ms)
            }
            verdict => verdict,
        }
    }

    /// The issuer with keys that are not older than `age`, if that can be had.
    async fn keys(&self, source: &Source, age: Duration) -> Option<Arc<Issuer>> {
        let is_younger = |at: Option<Instant>, than: Duration| at.is_some_and(|at| at.elapsed() < than);
        let is_due =
            |known: &Known| !is_younger(known.fetched, age) && !is_younger(known.tried, AT_MOST_EVERY);
        let must_wait = {
            let known = source.known.lock();
            is_due(&known) || known.issuer.is_none()
        };
        // An issuer that hangs holds up those who look for new keys, and nobody who has them.
        if must_wait {
            let _one = source.fetching.lock().await;
            let is_mine = {
                let mut known = source.known.lock();
                let is_mine = is_due(&known);
                if is_mine {
                    known.tried = Some(Instant::now());
                }
                is_mine
            };
            if is_mine {
                self.refresh(source).await;
            }
        }
        let known = source.known.lock();
        known
            .issuer
            .clone()
            .filter(|_| is_younger(known.fetched, LONGEST))
    }

    async fn refresh(&self, source: &Source) {
        let fetched = self.fetch(&source.settings).await;
        let mut known = source.known.lock();
        match fetched {
            Ok(keys) => {
                let issuer = Issuer {
                    keys,
                    ..source.settings.issuer.clone()
                };
                known.issuer = Some(Arc::new(issuer));
                known.fetched = Some(Instant::now());
            }
            Err(reason) => {
                tracing::warn!(
                    issuer = source.settings.issuer.name,
                    reason,
                    "an issuer's keys cannot be had"
                );
            }
        }
    }

    async fn fetch(&self, settings: &IssuerSettings) -> Result<Jwks, String> {
        let document = match &settings.keys {
            KeysFrom::File(path) => tokio::fs::read(path).await.map_err(|e| e.to_string())?,
            KeysFrom::Url(url) => self.get(url).await?,
            KeysFrom::Discovery => {
                let base = settings.issuer.name.trim_end_matches('/');
                let found = self
                    .get(&format!("{base}/.well-known/openid-configuration"))
                    .await?;
                let found: Discovered = serde_json::from_slice(&found).map_err(|e| e.to_string())?;
                if found.issuer != settings.issuer.name {
                    return Err("the discovery document names another issuer".to_owned());
                }
                self.get(&found.jwks_uri).await?
            }
        };
        Jwks::parse(&document).map_err(|e| e.to_string())
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let url = safe(url)?;
        let http = self.http.as_ref().ok_or("there is no client")?;
        let mut answer = http.get(url).send().await.map_err(|e| e.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("the answer is {}", answer.status()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| e.to_string())? {
            if document.len() + chunk.len() > LONGEST_DOCUMENT {
                return Err("the document is larger than 256 KiB".to_owned());
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// Keys that came over plain HTTP are anybody's; on loopback that is nobody else's.
pub fn safe(url: &str) -> Result<Url, String> {
    let url: Url = url.parse().map_err(|_| format!("`{url}` is not an address"))?;
    let loopback = match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => Err(format!("{url} is not https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_over_https_alone_except_on_loopback() {
        for good in [
            "https://id.example/jwks",
            "http://127.0.0.1:8080/k",
            "http://localhost/k",
            "http://[::1]/k",
        ] {
            assert!(safe(good).is_ok(), "{good}");
        }
        for bad in [
            "http://id.example/jwks",
            "file:///etc/passwd",
            "http://127.0.0.1.evil.example/",
            "gopher://x",
            "jwks",
        ] {
            assert!(safe(bad).is_err(), "{bad}");
        }
    }
}
