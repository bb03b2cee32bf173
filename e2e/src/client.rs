//! A plain HTTP caller.  It retries nothing and hides nothing: what came back, or that
//! nothing did, is the finding.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Method};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Long for a machine that is there; one that is not never answers.
const CONNECT: Duration = Duration::from_secs(2);
/// Of a request or an answer in a report.
const SHOWN: usize = 1_500;

#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    timeout: Duration,
    secured: Option<Secured>,
}

/// What it takes to speak to a server that speaks TLS and asks for keys.
#[derive(Clone)]
pub struct Secured {
    /// PEM of the authorities that may vouch for it, and nobody else.
    pub ca: Vec<u8>,
    /// Its name, and where it really is.
    pub name: String,
    pub at: SocketAddr,
    pub key: Option<String>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A report is no place for the key.
        write!(f, "Secured({} at {})", self.name, self.at)
    }
}

impl Client {
    pub fn new(base: &str) -> Result<Self> {
        Self::impatient(base, TIMEOUT)
    }

    /// One that takes no answer for a lost one after `timeout`.
    pub fn impatient(base: &str, timeout: Duration) -> Result<Self> {
        Self::build(base, timeout, None)
    }

    pub fn secured(secured: Secured, timeout: Duration) -> Result<Self> {
        let base = format!("https://{}:{}", secured.name, secured.at.port());
        Self::build(&base, timeout, Some(secured))
    }

    fn build(base: &str, timeout: Duration, secured: Option<Secured>) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT.min(timeout))
            .timeout(timeout);
        if let Some(secured) = &secured {
            builder = builder
                .tls_certs_only(Certificate::from_pem_bundle(&secured.ca)?)
                .tls_info(true)
                .resolve(&secured.name, secured.at);
        }
        Ok(Self {
            http: builder.build()?,
            base: base.to_owned(),
            timeout,
            secured,
        })
    }

    /// The same connections' settings, but none of the connections.
    pub fn fresh(&self) -> Result<Self> {
        self.within(self.timeout)
    }

    /// As `fresh`, with another patience.
    pub fn within(&self, timeout: Duration) -> Result<Self> {
        Self::build(&self.base, timeout, self.secured.clone())
    }

    /// As patient as `new` makes them.
    pub fn patient(&self) -> Result<Self> {
        self.within(TIMEOUT)
    }

    /// As `fresh`, for whoever has this key, or none.
    pub fn with_key(&self, key: Option<&str>) -> Result<Self> {
        let secured = self.secured.clone().map(|secured| Secured {
            key: key.map(str::to_owned),
            ..secured
        });
        Self::build(&self.base, self.timeout, secured)
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// `host:port`, for raw connections.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub fn request(&self, method: Method, path: &str) -> Request {
        let mut builder = self.http.request(method.clone(), format!("{}{path}", self.base));
        if let Some(key) = self.secured.as_ref().and_then(|secured| secured.key.as_ref()) {
            builder = builder.bearer_auth(key);
        }
        Request {
            builder,
            label: format!("{method} {path}"),
            longest: self.timeout,
        }
    }

    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: &Value) -> Request {
        self.request(Method::POST, path).json(body)
    }

    pub fn put(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PUT, path).json(body)
    }

    pub fn patch(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PATCH, path).json(body)
    }

    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    /// Creates a collection that must not exist yet.
    pub async fn create(&self, collection: &str, definition: &Value) -> Result<()> {
        let answer = self
            .put(&format!("/v1/collections/{collection}"), definition)
            .send()
            .await?;
        answer.expect(201).map(drop)
    }

    /// One write request that must succeed; returns its answer.
    pub async fn write(&self, collection: &str, body: &Value) -> Result<Value> {
        let path = format!("/v1/collections/{collection}/documents");
        Ok(self.post(&path, body).send().await?.expect(200)?.json())
    }

    /// Every page of a scan, joined.  `query` has no leading `?` and may be empty.
    pub async fn scan(&self, collection: &str, query: &str) -> Result<Vec<Value>> {
        let mut documents = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut path = format!("/v1/collections/{collection}/documents?{query}");
            if let Some(cursor) = &cursor {
                path = format!("{path}&cursor={}", escape(cursor));
            }
            let page = self.get(&path).send().await?.expect(200)?.json();
            documents.extend(
                page["documents"]
                    .as_array()
                    .context("no documents")?
                    .iter()
                    .cloned(),
            );
            cursor = page["cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return Ok(documents);
            }
        }
    }

    /// Waits until everything written is in the base table.
    pub async fn optimize(&self, collection: &str) -> Result<()> {
        let path = format!("/v1/collections/{collection}/optimize");
        self.post(&path, &json!({"wait": true}))
            .send()
            .await?
            .expect(200)
            .map(drop)
    }
}

pub struct Request {
    builder: reqwest::RequestBuilder,
    label: String,
    longest: Duration,
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.label = format!("{}\n  {name}: {value}", self.label);
        self.builder = self.builder.header(name, value);
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string(), "application/json")
    }

    pub fn body(mut self, body: impl Into<Bytes>, content_type: &str) -> Self {
        let body = body.into();
        self.label = format!("{}\n  ({content_type}) {}", self.label, shown(&body));
        self.builder = self.builder.header("content-type", content_type).body(body);
        self
    }

    /// A body that is produced while it is sent.
    pub fn stream<S>(mut self, body: S, content_type: &str) -> Self
    where
        S: futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    {
        self.label = format!("{}\n  ({content_type}) (a stream)", self.label);
        self.builder = self
            .builder
            .header("content-type", content_type)
            .body(reqwest::Body::wrap_stream(body));
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.builder = self.builder.timeout(timeout);
        self
    }

    /// The client's own time limit, or this one when it is shorter.
    pub fn at_most(self, timeout: Duration) -> Self {
        let longest = self.longest;
        self.timeout(timeout.min(longest))
    }

    pub async fn send(self) -> Result<Answer, NoAnswer> {
        let failed = |error: reqwest::Error| NoAnswer {
            sent: !error.is_connect() && !error.is_builder(),
            detail: format!("{error:?}"),
        };
        let response = self.builder.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let shown = response.extensions().get::<reqwest::tls::TlsInfo>();
        let certificate = shown.and_then(|tls| tls.peer_certificate().map(<[u8]>::to_vec));
        let body = response.bytes().await.map_err(failed)?;
        Ok(Answer {
            request: self.label,
            status,
            headers,
            body,
            certificate,
        })
    }
}

/// The connection failed or the time was up before an answer was complete.
#[derive(Clone, Debug)]
pub struct NoAnswer {
    /// False when the request certainly never left: no connection was made.
    pub sent: bool,
    pub detail: String,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no answer (request {}): {}",
            if self.sent { "sent" } else { "not sent" },
            self.detail
        )
    }
}

impl std::error::Error for NoAnswer {}

#[derive(Clone, Debug)]
pub struct Answer {
    /// What was asked, for reports.
    pub request: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What a secured server showed, as DER.
    pub certificate: Option<Vec<u8>>,
}

impl Answer {
    /// `Null` when the body is no JSON; whoever cares looks at the content type first.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The lines of an NDJSON body.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let text = std::str::from_utf8(&self.body)?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn expect(self, status: u16) -> Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        bail!("expected {status}\n{self}");
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n  -> {}", self.request, self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "     {name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        write!(f, "     {}", shown(&self.body))
    }
}

/// Percent-encodes everything that is not unreserved, so that any id fits a path or query.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub fn shown(body: &[u8]) -> String {
    let cut = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN {
        format!("… ({} bytes)", body.len())
    } else {
        String::new()
    };
    format!("{}{more}", String::from_utf8_lossy(cut))
}
