//! A real S3 server (versitygw over a folder) as a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{POLL, Process, free_port};
use crate::server::Store;

pub const ACCESS_KEY: &str = "rhumb-e2e";
pub const SECRET_KEY: &str = "rhumb-e2e-secret";
pub const REGION: &str = "us-east-1";
const BUCKET: &str = "rhumb";

#[derive(Debug)]
pub struct S3Server {
    process: Process,
    port: u16,
}

impl S3Server {
    /// Ready to serve the bucket when this returns; objects and log live in `home`.
    pub async fn start(home: &Path) -> Result<Self> {
        let port = free_port()?;
        let objects = home.join("s3");
        // With the posix backend a bucket is a folder.
        std::fs::create_dir_all(objects.join(BUCKET))?;
        let mut command = Command::new(versitygw_binary()?);
        command
            .args(["--port", &format!("127.0.0.1:{port}")])
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION])
            .arg("posix")
            .arg(&objects);
        let mut server = Self {
            process: Process::spawn(command, &home.join("s3.log"))?,
            port,
        };
        server.listening_within(Duration::from_secs(20)).await?;
        Ok(server)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn store(&self, prefix: &str) -> Store {
        store_at(&format!("http://{}", self.address()), prefix)
    }

    async fn listening_within(&mut self, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        while tokio::net::TcpStream::connect(self.address()).await.is_err() {
            if self.process.ended()?.is_some() || begin.elapsed() > patience {
                bail!("the S3 server does not listen:\n{}", self.process.log());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// The bucket as seen through another address, which is a proxy's.
pub fn store_at(endpoint: &str, prefix: &str) -> Store {
    Store::S3 {
        endpoint: endpoint.to_owned(),
        bucket: BUCKET.to_owned(),
        prefix: prefix.to_owned(),
    }
}

/// `VERSITYGW_BIN`, or what `scripts/s3-server.sh` prints, which builds it when missing.
fn versitygw_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VERSITYGW_BIN") {
        return Ok(path.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/s3-server.sh");
    let output = Command::new(&script)
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8(output.stdout)?;
    let path = text.lines().last().context("the script printed nothing")?.trim();
    Ok(path.into())
}
