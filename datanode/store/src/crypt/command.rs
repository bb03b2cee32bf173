//! A master key that stays in a key management service: an executable of the operator's
//! choice wraps and unwraps data keys.
//!
//! It is started as `<program> wrap` or `<program> unwrap`, with no shell and no further
//! argument, gets one JSON object on stdin and answers with one on stdout:
//!
//! ```text
//! wrap    {"version":1,"context":{"database":…,"scope":…,"key":…},"plaintext":"<base64>"}
//!         {"wrapped":"<text>"}
//! unwrap  {"version":1,"context":{…},"wrapped":"<text>"}
//!         {"plaintext":"<base64>"}
//! ```
//!
//! The service should bind the context (AWS KMS calls it encryption context).  A program
//! that fails, hangs or talks nonsense is an error of kind `Retry`; what it says on stderr
//! is repeated in the error, what it says on stdout never.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use zeroize::{Zeroize, Zeroizing};

use super::master::{Context, Wrapped};
use super::problem::KeyProblem;

/// An answer is a few hundred bytes.
const MOST_BYTES: u64 = 64 << 10;
/// Of stderr, in an error.
const MOST_WORDS: usize = 500;
const VERSION: u32 = 1;

#[derive(Debug)]
pub struct KeyCommand {
    program: PathBuf,
    timeout: Duration,
}

#[derive(Serialize)]
struct Request<'a> {
    version: u32,
    context: &'a Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapped: Option<&'a str>,
}

#[derive(Deserialize)]
struct WrapAnswer {
    wrapped: String,
}

#[derive(Deserialize)]
struct UnwrapAnswer {
    plaintext: String,
}

impl KeyCommand {
    pub(super) fn new(program: PathBuf, timeout: Duration) -> Self {
        Self { program, timeout }
    }

    pub(super) async fn wrap(&self, secret: &[u8; 32], context: &Context<'_>) -> Result<Wrapped, KeyProblem> {
        let plaintext = Zeroizing::new(BASE64.encode(secret));
        let request = Request {
            version: VERSION,
            context,
            plaintext: Some(plaintext.as_str()),
            wrapped: None,
        };
        let answer: WrapAnswer = self.call("wrap", &request).await?;
        // An echo would put the data key into the bucket in the clear.
        if answer.wrapped.is_empty() || answer.wrapped.contains(plaintext.trim_end_matches('=')) {
            return Err(self.failed("wrap", "it answered with the key that it was to wrap"));
        }
        Ok(Wrapped {
            master: self.to_string(),
            bytes: answer.wrapped,
        })
    }

    pub(super) async fn unwrap(
        &self,
        wrapped: &Wrapped,
        context: &Context<'_>,
    ) -> Result<Zeroizing<[u8; 32]>, KeyProblem> {
        let request = Request {
            version: VERSION,
            context,
            plaintext: None,
            wrapped: Some(&wrapped.bytes),
        };
        let mut answer: UnwrapAnswer = self.call("unwrap", &request).await?;
        let decoded = BASE64.decode(&answer.plaintext).map(Zeroizing::new);
        answer.plaintext.zeroize();
        let secret = decoded
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        secret
            .map(Zeroizing::new)
            .ok_or_else(|| self.failed("unwrap", "the answer is not 32 bytes in base64"))
    }

    async fn call<T: DeserializeOwned>(&self, verb: &str, request: &Request<'_>) -> Result<T, KeyProblem> {
        let asked = serde_json::to_vec(request).map_err(|e| self.failed(verb, &e.to_string()))?;
        let asked = Zeroizing::new(asked);
        let answer = tokio::time::timeout(self.timeout, self.run(verb, &asked))
            .await
            .map_err(|_| self.failed(verb, &format!("no answer within {:?}", self.timeout)))??;
        // Where serde says what it found, it may repeat a key.
        serde_json::from_slice(&answer).map_err(|_| self.failed(verb, "the answer is not the JSON asked for"))
    }

    /// Dropped, it takes the process with it.
    async fn run(&self, verb: &str, asked: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyProblem> {
        let failed = |e: std::io::Error| self.failed(verb, &e.to_string());
        let mut process = tokio::process::Command::new(&self.program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let asking = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its question fails by its answer.
                let _ = stdin.write_all(asked).await;
            }
        };
        let ((), answer, words) = tokio::join!(asking, read(stdout), read(stderr));
        let status = process.wait().await.map_err(failed)?;
        if status.success() {
            return answer.map_err(failed);
        }
        let words = words.map_err(failed)?;
        let words: String = String::from_utf8_lossy(&words)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MOST_WORDS)
            .collect();
        Err(self.failed(verb, &format!("{status}: {}", words.trim())))
    }

    fn failed(&self, verb: &str, how: &str) -> KeyProblem {
        KeyProblem::Command(format!("`{} {verb}`: {how}", self.program.display()))
    }
}

impl fmt::Display for KeyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {}", self.program.display())
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    if let Some(from) = from {
        from.take(MOST_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
