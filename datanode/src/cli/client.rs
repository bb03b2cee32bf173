//! What the commands that speak to a server share: the connection, its errors, and
//! printing.
//!
//! A refusal is told in the server's own words.  429 means that nothing was applied, so it
//! is asked again a few times, after as long as the server says; nothing else is.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

const CONNECT: Duration = Duration::from_secs(5);
const TRIES: u32 = 5;
const LONGEST_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0:?} is not the address of a server, such as http://127.0.0.1:7480")]
    Address(String),
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("{}", refusal(.0))]
    Refused(Box<rhumb_api::Problem>),
    /// Not a problem document: a proxy, or no Rhumb at all.
    #[error("the server answered {0}: {1}")]
    Answered(StatusCode, String),
    #[error("what the server answered is not understood: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("{0}")]
    Usage(String),
    #[error("a client ended before its time: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("{0}")]
    Print(std::io::Error),
}

#[derive(clap::Args)]
pub struct Server {
    /// The server.
    #[arg(long, env = "RHUMB_URL", default_value = "http://127.0.0.1:7480")]
    url: String,
    /// An API key or a token.
    #[arg(long, env = "RHUMB_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A PEM file with the authority of the server's certificate, such as rhumb-home/tls/ca.crt.
    #[arg(long, env = "RHUMB_CA")]
    ca: Option<PathBuf>,
}

pub struct Client {
    http: reqwest::Client,
    base: Url,
}

impl Client {
    pub fn new(server: &Server) -> Result<Self, CliError> {
        let wrong = || CliError::Address(server.url.clone());
        let base: Url = server.url.parse().map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong());
        }
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT);
        if let Some(path) = &server.ca {
            let pem = std::fs::read(path).map_err(|source| CliError::File {
                path: path.clone(),
                source,
            })?;
            http = http.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&pem)?);
        }
        if let Some(key) = &server.key {
            let plainly = base.scheme() == "http" && !is_loopback(&base);
            if plainly {
                return Err(CliError::Usage(format!(
                    "{base}: a key is not sent over plain HTTP; use https://"
                )));
            }
            http = http.default_headers(bearer(key)?);
        }
        Ok(Self {
            http: http.build()?,
            base,
        })
    }

    /// A request to `/v1/collections/{collection}/{path…}`.
    pub fn request(&self, method: Method, collection: &str, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .extend(["v1", "collections", collection])
                .extend(path);
        }
        self.http.request(method, url)
    }

    pub async fn get<T: DeserializeOwned>(&self, collection: &str, path: &[&str]) -> Result<T, CliError> {
        read(send(self.request(Method::GET, collection, path)).await?).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        collection: &str,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        read(send(self.request(Method::POST, collection, path).json(body)).await?).await
    }
}

fn bearer(key: &str) -> Result<HeaderMap, CliError> {
    let unusable = |_| CliError::Usage("--key holds more than visible ASCII".into());
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim())).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}

/// Sends it, and makes everything but success an error.
pub async fn send(request: RequestBuilder) -> Result<Response, CliError> {
    for _ in 1..TRIES {
        // A body that streams cannot be sent twice.
        let Some(again) = request.try_clone() else { break };
        let response = again.send().await?;
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            return succeeded(response).await;
        }
        tokio::time::sleep(retry_after(&response)).await;
    }
    succeeded(request.send().await?).await
}

async fn succeeded(response: Response) -> Result<Response, CliError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await?;
    Err(match serde_json::from_str(&body) {
        Ok(problem) => CliError::Refused(Box::new(problem)),
        Err(_) => CliError::Answered(status, plain(&body, 200)),
    })
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, CliError> {
    Ok(serde_json::from_slice(&response.bytes().await?)?)
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST_WAIT)
}

/// reqwest says why only in its sources.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

pub fn refusal(problem: &rhumb_api::Problem) -> String {
    let place = problem
        .field
        .as_ref()
        .map(|field| format!("{field}: "))
        .unwrap_or_default();
    let hint = problem
        .hint
        .as_ref()
        .map(|hint| format!("\n       {hint}"))
        .unwrap_or_default();
    format!(
        "{place}{} ({} {}){hint}",
        problem.detail, problem.status, problem.code
    )
}

/// A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), CliError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::Print(e)),
        _ => Ok(()),
    }
}

pub fn exit(result: Result<ExitCode, CliError>) -> ExitCode {
    result.unwrap_or_else(|e| super::fail(&e.to_string()))
}

/// On one line, cut, and without what a terminal would obey.
pub fn plain(text: &str, longest: usize) -> String {
    let mut out: String = text
        .chars()
        .take(longest)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(longest).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn text_for_a_terminal_is_cut_and_carries_no_escapes() {
        assert_eq!(plain("a\u{1b}[2J\nb", 20), "a [2J b");
        assert_eq!(plain("abcdef", 4), "abc…");
        assert_eq!(plain("äöüß", 4), "äöüß");
    }

    #[test]
    fn a_path_is_put_behind_the_address_and_encoded() {
        let client = Client::new(&Server {
            url: "http://h/db/".into(),
            key: None,
            ca: None,
        })
        .expect("an address");
        let request = client
            .request(Method::GET, "c", &["documents", "a/b ?"])
            .build()
            .expect("valid");
        assert_eq!(
            request.url().as_str(),
            "http://h/db/v1/collections/c/documents/a%2Fb%20%3F"
        );
        assert!(
            Client::new(&Server {
                url: "localhost:7480".into(),
                key: None,
                ca: None,
            })
            .is_err()
        );
    }

    #[test]
    fn a_key_is_not_sent_in_the_open() {
        let to = |url: &str| {
            Client::new(&Server {
                url: url.into(),
                key: Some("rhk_a_b".into()),
                ca: None,
            })
        };
        assert!(to("http://db.example:7480").is_err());
        assert!(to("http://127.0.0.1:7480").is_ok());
        assert!(to("https://db.example:7480").is_ok());
    }
}
