//! Authorities and certificate files for tests of the wires.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rhumb_seams::{Clock, Ids, Rand};

use crate::tls::Tls;

pub const PEER_NAME: &str = "words-nodes.prod.svc";

/// One database's own.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }
}

/// What is mounted into a pod; gone when dropped.
pub struct Files(PathBuf);

impl Files {
    /// Signed by `signer`; believes in `trusted`.
    pub fn new(signer: &Authority, trusted: &Authority) -> Self {
        let ids = Ids::new(Clock::starting_at(0), Rand::from_entropy());
        let dir = std::env::temp_dir().join(format!("rhumb-tls-{}", ids.ulid()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let files = Self(dir);
        files.renew(signer, trusted);
        files
    }

    pub fn renew(&self, signer: &Authority, trusted: &Authority) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![PEER_NAME.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &signer.issuer).expect("a certificate");
        self.write("tls.crt", &certificate.pem());
        self.write("tls.key", &key.serialize_pem());
        self.write("ca.crt", &trusted.pem);
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn load(&self) -> Tls {
        Tls::load(&self.0, PEER_NAME).expect("the files are sound")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left over lies in the machine's own folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
