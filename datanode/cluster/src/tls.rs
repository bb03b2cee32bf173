//! Mutual TLS between the data nodes of one database.
//!
//! Whoever has a certificate of the database's own authority is a data node; nobody else
//! gets further than the handshake.  The files are renewed in place: they are read again
//! when they change, and new connections use them at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The kubelet takes up to a minute to refresh the files; looking costs three reads.
const LOOK_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("tls: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("`{0}` is not a name that a certificate can have")]
    Name(String),
}

/// Cheap to clone; all clones use the newest files.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    name: ServerName<'static>,
    now: RwLock<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    files: Vec<Vec<u8>>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    /// `name` is in the certificate of every peer.
    pub fn load(dir: &Path, name: &str) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let files = read(dir)?;
        let now = build(dir, files)?;
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            name,
            now: RwLock::new(now),
        })))
    }

    pub fn client(&self) -> Arc<ClientConfig> {
        self.0.now.read().client.clone()
    }

    pub fn server(&self) -> Arc<ServerConfig> {
        self.0.now.read().server.clone()
    }

    pub fn peer_name(&self) -> ServerName<'static> {
        self.0.name.clone()
    }

    /// Follows the files, for ever.  Files that cannot be used leave what is in use.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.reload() {
                Ok(true) => tracing::info!("new certificates are in use"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the new certificates cannot be used"),
            }
        }
    }

    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let files = read(&self.0.dir)?;
        if self.0.now.read().files == files {
            return Ok(false);
        }
        let new = build(&self.0.dir, files)?;
        *self.0.now.write() = new;
        Ok(true)
    }
}

const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// The contents of `FILES`.
fn read(dir: &Path) -> Result<Vec<Vec<u8>>, TlsError> {
    let read = |name| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|e| TlsError::File {
            path,
            reason: e.to_string(),
        })
    };
    FILES.into_iter().map(read).collect()
}

fn build(dir: &Path, files: Vec<Vec<u8>>) -> Result<Loaded, TlsError> {
    let wrong = |name: &str, reason: String| TlsError::File {
        path: dir.join(name),
        reason,
    };
    let certificates = |name: &str, bytes: &[u8]| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        let parsed = parsed.map_err(|e| wrong(name, e.to_string()))?;
        match parsed.is_empty() {
            true => Err(wrong(name, "there is no certificate in it".into())),
            false => Ok(parsed),
        }
    };
    let chain = certificates(FILES[0], &files[0])?;
    let key = || PrivateKeyDer::from_pem_slice(&files[1]).map_err(|e| wrong(FILES[1], e.to_string()));
    let mut roots = RootCertStore::empty();
    for authority in certificates(FILES[2], &files[2])? {
        roots.add(authority)?;
    }
    let roots = Arc::new(roots);
    let verifier = WebPkiServerVerifier::builder(roots.clone()).build()?;
    let mut client = ClientConfig::builder()
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain.clone(), key()?)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    let mut server = ServerConfig::builder()
        .with_client_cert_verifier(WebPkiClientVerifier::builder(roots).build()?)
        .with_single_cert(chain, key()?)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Loaded {
        files,
        client: Arc::new(client),
        server: Arc::new(server),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Authority, Files, PEER_NAME};

    #[test]
    fn files_that_cannot_be_used_leave_what_is_in_use() {
        let authority = Authority::new();
        let files = Files::new(&authority, &authority);
        let tls = files.load();
        let before = tls.client();
        files.write("tls.key", "half a k");
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&before, &tls.client()));
        files.renew(&authority, &authority);
        assert!(tls.reload().expect("sound"));
        assert!(!Arc::ptr_eq(&before, &tls.client()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file() {
        let authority = Authority::new();
        let files = Files::new(&authority, &authority);
        let refused = || match Tls::load(files.path(), PEER_NAME) {
            Ok(_) => panic!("it must be refused"),
            Err(error) => error.to_string(),
        };
        files.write("ca.crt", "");
        assert!(refused().contains("ca.crt"), "{}", refused());
        files.renew(&authority, &authority);
        std::fs::remove_file(files.path().join("tls.crt")).expect("removed");
        assert!(refused().contains("tls.crt"), "{}", refused());
    }
}
