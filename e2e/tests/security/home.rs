//! A server with keys and TLS, and clients of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::{Certificate, Method};
use rhumb_e2e::TempDir;
use rhumb_e2e::process::{Process, Signal, free_port};
use rhumb_e2e::server::rhumb_binary;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Guarded {
    pub dir: TempDir,
    pub port: u16,
    pub process: Process,
    config: Option<String>,
    http: reqwest::Client,
}

/// A status and a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub status: u16,
    pub body: Value,
    pub challenge: Option<String>,
    /// Seconds.
    pub retry_after: Option<u64>,
}

impl Told {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.body
    }
}

impl Guarded {
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, None).await
    }

    pub async fn start_with(name: &str, config: Option<String>) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = TempDir::new(name).expect("a folder");
        let port = free_port().expect("a port");
        if let Some(config) = &config {
            std::fs::write(dir.path().join("rhumb.toml"), config).expect("written");
        }
        let process = spawn(&dir, port, config.is_some());
        let mut server = Self {
            dir,
            port,
            process,
            config,
            http: reqwest::Client::new(),
        };
        server.ready().await;
        server
    }

    async fn ready(&mut self) {
        let begin = Instant::now();
        loop {
            let ended = self.process.ended().expect("a child");
            assert!(ended.is_none(), "it ended: {}", self.process.log());
            if let Ok(pem) = std::fs::read(self.dir.path().join("home/tls/ca.crt"))
                && let Ok(authority) = Certificate::from_pem(&pem)
            {
                self.http = client()
                    .add_root_certificate(authority)
                    .build()
                    .expect("a client");
                let answer = self.http.get(self.url("/readyz")).send().await;
                if answer.is_ok_and(|answer| answer.status() == 200) {
                    return;
                }
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "it is not ready: {}",
                self.process.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.process = spawn(&self.dir, self.port, self.config.is_some());
        self.ready().await;
    }

    pub async fn stop(&mut self) {
        self.process.signal(Signal::TERM).expect("signalled");
        self.process.end_within(PATIENCE).await.expect("it ends");
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join("home").join(name)
    }

    pub fn admin_key(&self) -> String {
        let key = std::fs::read_to_string(self.home("admin.key")).expect("made at the first start");
        key.trim().to_owned()
    }

    /// With these credentials, or none.
    pub async fn ask(&self, key: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Told {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, self.url(path));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let challenge = header("www-authenticate").map(str::to_owned);
        let retry_after = header("retry-after").and_then(|seconds| seconds.parse().ok());
        let bytes = answer.bytes().await.unwrap_or_default();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Told {
            status,
            body,
            challenge,
            retry_after,
        }
    }

    pub async fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let key = self.admin_key();
        self.ask(Some(&key), method, path, body).await.ok()
    }

    /// A key with these roles; `more` goes into the request.
    pub async fn key(&self, roles: &[&str], more: Value) -> (String, String) {
        let mut body = json!({"name": "test", "roles": roles});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let made = self.admin("POST", "/v1/keys", Some(&body)).await;
        let text = |name: &str| made[name].as_str().expect(name).to_owned();
        (text("id"), text("key"))
    }

    pub async fn role(&self, name: &str, grants: Value) {
        let body = json!({"grants": grants});
        self.admin("PUT", &format!("/v1/roles/{name}"), Some(&body)).await;
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }
}

pub fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .no_proxy()
}

fn spawn(dir: &TempDir, port: u16, has_config: bool) -> Process {
    let mut command = Command::new(rhumb_binary().expect("a binary"));
    let at = |name: &str| dir.path().join(name).display().to_string();
    command
        .args(["serve", "--store", &format!("file://{}", at("store"))])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--home", &at("home"), "--cache-dir", &at("cache")])
        .current_dir(dir.path());
    if has_config {
        command.args(["--config", &at("rhumb.toml")]);
    }
    Process::spawn(command, &dir.path().join("log")).expect("spawned")
}
