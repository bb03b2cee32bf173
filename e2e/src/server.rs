//! One `rhumb serve` process: how it is started, waited for, hurt and examined.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::client::Client;
use crate::process::{POLL, Process, Signal, free_port};
use crate::s3;

/// Start-up includes certification of the store and, after a kill, recovery.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `--store` names.
#[derive(Clone, Debug)]
pub enum Store {
    Folder(PathBuf),
    Memory,
    /// `endpoint` is an S3 server's or a [`crate::FaultProxy`]'s.
    S3 {
        endpoint: String,
        bucket: String,
        prefix: String,
    },
}

impl Store {
    pub fn url(&self) -> String {
        match self {
            Self::Folder(path) => format!("file://{}", path.display()),
            Self::Memory => "memory://".to_owned(),
            Self::S3 { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}"),
        }
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Folder(_) | Self::Memory => Vec::new(),
            Self::S3 { endpoint, .. } => vec![
                ("AWS_ENDPOINT_URL", endpoint.clone()),
                ("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY.to_owned()),
                ("AWS_REGION", s3::REGION.to_owned()),
                ("AWS_ALLOW_HTTP", "true".to_owned()),
            ],
        }
    }
}

/// How to start a server; a restart uses the same one again.
#[derive(Clone, Debug)]
pub struct Spec {
    pub store: Store,
    pub port: u16,
    pub cache_dir: PathBuf,
    pub log: PathBuf,
    pub memory_limit: Option<String>,
    pub more_args: Vec<String>,
}

impl Spec {
    /// Cache and log live in `home`; the port is free now and stays the same over
    /// restarts, so that clients need not learn a new address.
    pub fn new(store: Store, home: &Path) -> Result<Self> {
        let port = free_port()?;
        Ok(Self {
            store,
            port,
            cache_dir: home.join(format!("cache-{port}")),
            log: home.join(format!("rhumb-{port}.log")),
            memory_limit: None,
            more_args: Vec::new(),
        })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(rhumb_binary()?);
        command
            .args(["serve", "--dev", "--store", &self.store.url()])
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--cache-dir")
            .arg(&self.cache_dir);
        if let Some(limit) = &self.memory_limit {
            command.args(["--memory-limit", limit]);
        }
        command.args(&self.more_args);
        // What this machine has configured must not reach the server under test.
        for name in [
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command.envs(self.store.env());
        command.env("RUST_BACKTRACE", "1");
        Ok(command)
    }
}

#[derive(Debug)]
pub struct Server {
    spec: Spec,
    process: Process,
    client: Client,
}

impl Server {
    /// Spawned and ready.
    pub async fn start(spec: Spec) -> Result<Self> {
        let mut server = Self::spawn(spec)?;
        server.ready_within(PATIENCE).await?;
        Ok(server)
    }

    /// Spawned only: whoever calls this expects something else than readiness, or times it.
    pub fn spawn(spec: Spec) -> Result<Self> {
        let process = Process::spawn(spec.command()?, &spec.log)?;
        let client = Client::new(&spec.url())?;
        Ok(Self {
            spec,
            process,
            client,
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// How long it took until `/readyz` answered 200; an exit meanwhile is an error.
    pub async fn ready_within(&mut self, patience: Duration) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.ended()? {
                bail!(
                    "the server ended with {status} before it was ready:\n{}",
                    self.log_tail()
                );
            }
            if let Ok(answer) = self
                .client
                .get("/readyz")
                .timeout(Duration::from_secs(2))
                .send()
                .await
                && answer.status == 200
            {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > patience {
                bail!("the server is not ready after {patience:?}:\n{}", self.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, then a clean end.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.end_within(Duration::from_secs(30)).await
    }

    pub fn freeze(&mut self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    pub fn thaw(&mut self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// A new process over the same store, cache and port.  The old one must have ended.
    pub fn respawn(&mut self) -> Result<()> {
        self.process = Process::spawn(self.spec.command()?, &self.spec.log)?;
        Ok(())
    }

    pub async fn restart(&mut self) -> Result<Duration> {
        self.respawn()?;
        self.ready_within(PATIENCE).await
    }

    pub fn log_tail(&self) -> String {
        let log = self.process.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(40);
        format!(
            "--- {} ---\n{}",
            self.spec.log.display(),
            lines[from..].join("\n")
        )
    }
}

/// `RHUMB_BIN`, or the binary beside the running test (`target/<profile>/rhumb`).
pub fn rhumb_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RHUMB_BIN") {
        let path = PathBuf::from(path);
        return path
            .exists()
            .then_some(path.clone())
            .with_context(|| format!("RHUMB_BIN names {}, which does not exist", path.display()));
    }
    let me = std::env::current_exe()?;
    me.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("rhumb"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no `rhumb` binary near {}: build it, or set RHUMB_BIN",
                me.display()
            )
        })
}
