//! Fixtures of the conformance suite: temp folders and a real S3 server.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rhumb_seams::{Clock, Ids, Rand};

pub struct TempFolder(PathBuf);

impl TempFolder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rhumb-conformance-{}", ids().ulid()));
        std::fs::create_dir_all(&path).expect("a temp folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // What stays is in the temp folder of the machine.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn ids() -> Ids {
    Ids::new(Clock::system(), Rand::from_entropy())
}

/// A versitygw process over a temp folder, with one bucket.
pub struct S3Server {
    process: Child,
    address: SocketAddr,
    _root: TempFolder,
}

impl S3Server {
    pub const BUCKET: &str = "conformance";

    /// `None`, said loudly, when this machine has no Go to build the server with.
    pub async fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/s3-server.sh");
        let built = Command::new(script)
            .stderr(Stdio::inherit())
            .output()
            .expect("the script runs");
        if built.status.code() == Some(3) {
            eprintln!(
                "\n*** SKIPPED: no Go toolchain, so nothing here was tested against a real S3 server ***\n"
            );
            return None;
        }
        assert!(
            built.status.success(),
            "the S3 server could not be built: {}",
            built.status
        );
        let binary = String::from_utf8(built.stdout).expect("a path");

        let root = TempFolder::new();
        std::fs::create_dir(root.path().join(Self::BUCKET)).expect("a bucket");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let process = Command::new(binary.trim())
            .args([
                "--access",
                "test",
                "--secret",
                "testtest",
                "--port",
                &address.to_string(),
                "--quiet",
                "--keep-alive",
                "posix",
            ])
            .arg(root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the S3 server starts");
        let server = Self {
            process,
            address,
            _root: root,
        };
        server.wait_until_it_listens().await;
        Some(server)
    }

    async fn wait_until_it_listens(&self) {
        let mut tries = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..500 {
            tries.tick().await;
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
        }
        panic!("the S3 server did not listen on {}", self.address);
    }

    pub fn variables(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "test".into()),
            ("AWS_SECRET_ACCESS_KEY", "testtest".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have died by itself; its folder goes either way.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
