//! TLS towards clients: certificates from files, read again when they change.
//!
//! A standalone server makes its own authority and certificate in its home at the first
//! start and renews the certificate before it expires; elsewhere the files are somebody
//! else's.  Connections that are open keep what they were opened with.

mod expiry;
mod home;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rhumb_seams::Clock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use crate::settings::Guarded;
pub use home::HomeError;

const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("tls: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Cheap to clone; all clones use the newest files.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    settings: Guarded,
    clock: Clock,
    now: RwLock<Loaded>,
}

struct Loaded {
    files: Vec<Vec<u8>>,
    config: Arc<ServerConfig>,
    expires_ms: Option<i64>,
}

impl ServerTls {
    pub fn load(settings: &Guarded, clock: &Clock) -> Result<Self, ServerTlsError> {
        if let Some(home) = &settings.makes_tls {
            home::ensure(home, &settings.names, clock.unix_ms())?;
        }
        let files = read(settings)?;
        let now = build(settings, files)?;
        Ok(Self(Arc::new(Inner {
            settings: settings.clone(),
            clock: clock.clone(),
            now: RwLock::new(now),
        })))
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.now.read().config.clone()
    }

    /// When the certificate in use is no longer valid, in seconds since 1970.
    pub fn expires_s(&self) -> Option<f64> {
        self.0.now.read().expires_ms.map(|ms| ms as f64 / 1e3)
    }

    /// Follows the files, for ever.  Files that cannot be used leave what is in use.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.reload() {
                Ok(true) => tracing::info!("a new certificate is in use"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the new certificate cannot be used"),
            }
        }
    }

    fn reload(&self) -> Result<bool, ServerTlsError> {
        let settings = &self.0.settings;
        if let Some(home) = &settings.makes_tls {
            home::ensure(home, &settings.names, self.0.clock.unix_ms())?;
        }
        let files = read(settings)?;
        if self.0.now.read().files == files {
            return Ok(false);
        }
        let new = build(settings, files)?;
        *self.0.now.write() = new;
        Ok(true)
    }
}

/// Certificate, key and, if clients may have certificates, their authority.
fn paths(settings: &Guarded) -> Vec<&PathBuf> {
    [&settings.tls_cert, &settings.tls_key]
        .into_iter()
        .chain(&settings.tls_client_ca)
        .collect()
}

fn read(settings: &Guarded) -> Result<Vec<Vec<u8>>, ServerTlsError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|e| ServerTlsError::File {
            path: path.clone(),
            reason: e.to_string(),
        })
    };
    paths(settings).into_iter().map(read).collect()
}

fn build(settings: &Guarded, files: Vec<Vec<u8>>) -> Result<Loaded, ServerTlsError> {
    let wrong = |path: &PathBuf, reason: String| ServerTlsError::File {
        path: path.clone(),
        reason,
    };
    let chain = certificates(&files[0]).map_err(|reason| wrong(&settings.tls_cert, reason))?;
    let key =
        PrivateKeyDer::from_pem_slice(&files[1]).map_err(|e| wrong(&settings.tls_key, e.to_string()))?;
    let expires_ms = chain.first().and_then(|leaf| expiry::not_after_ms(leaf));
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.tls12 {
        true => &[&TLS13, &TLS12],
        false => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let builder = match (&settings.tls_client_ca, files.get(2)) {
        (Some(path), Some(bytes)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(bytes).map_err(|reason| wrong(path, reason))? {
                roots.add(authority)?;
            }
            // A key or a token will do as well: whoever has a certificate shows it.
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
            builder.with_client_cert_verifier(verifier.build()?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Loaded {
        files,
        config: Arc::new(config),
        expires_ms,
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(parsed) if !parsed.is_empty() => Ok(parsed),
        Ok(_) => Err("there is no certificate in it".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// The user whom a client's certificate names: its first DNS name.
pub fn name_in(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    parsed.valid_dns_names().next().map(str::to_owned)
}

#[cfg(test)]
mod tests;
