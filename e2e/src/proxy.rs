//! A broken network between the server and its bucket.
//!
//! An HTTP proxy that passes requests on byte for byte (so signatures stay valid) and, by
//! chance or by order, loses requests or answers, sends a PUT twice (at once, or again
//! long after), delays, answers 503 without asking, answers 500 although it was applied,
//! cuts or flips what was read, or is away altogether.  Faults can be changed while it
//! runs, and each one that struck is counted, so that a test can tell it really ran.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::http1::{Message, read_request, read_response};

/// Shares of requests that each fault strikes, 0 to 1.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The connection ends before anything was passed on.
    pub lose_request: f64,
    /// Passed on and applied; the connection ends instead of the answer.
    pub lose_response: f64,
    /// A PUT is sent twice; the second answer is what comes back.
    pub duplicate: f64,
    /// A PUT is sent again up to `late_by` after it was answered.
    pub duplicate_late: f64,
    pub late_by: Duration,
    pub delay: f64,
    pub delay_by: Duration,
    /// 503 SlowDown, nothing passed on.
    pub slow_down: f64,
    /// 500 InternalError, although the request was applied.
    pub fail_after: f64,
    /// An object that is read ends early, with its length announced in full.
    pub truncate: f64,
    /// An object that is read is shorter and the announced length agrees: only a checksum
    /// can tell.
    pub shorten: f64,
    /// One bit of an object that is read is another.
    pub flip: f64,
    pub outage: Option<Outage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Connections end at once.
    Refuse,
    /// Connections are taken and nothing is ever answered.
    Hang,
}

#[derive(Debug)]
pub struct FaultProxy {
    address: String,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    faults: watch::Sender<Faults>,
    chance: Mutex<StdRng>,
    hits: Mutex<BTreeMap<&'static str, u64>>,
}

impl FaultProxy {
    /// Passes everything on until told otherwise.
    pub async fn start(upstream: &str, seed: u64) -> Result<Self> {
        Self::start_at("127.0.0.1", upstream, seed).await
    }

    /// On another address of this machine.
    pub async fn start_at(host: &str, upstream: &str, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            faults: watch::Sender::new(Faults::default()),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            hits: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, faults: Faults) {
        self.shared.faults.send_replace(faults);
    }

    pub fn calm(&self) {
        self.set(Faults::default());
    }

    /// How often each fault struck so far.
    pub fn hits(&self) -> BTreeMap<&'static str, u64> {
        self.shared
            .hits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task: no connection outlives the proxy.
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                // An error is a connection that ended, which is what this file is for.
                let _ = serve(stream, &shared).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    let mut upstream = Upstream {
        address: shared.upstream.clone(),
        connection: None,
    };
    let mut faults = shared.faults.subscribe();
    loop {
        let request = tokio::select! {
            biased;
            () = outage(&mut faults, shared) => return Ok(()),
            request = read_request(&mut reading) => request?,
        };
        let Some(request) = request else { return Ok(()) };
        if shared.faults.borrow().outage.is_some() {
            outage(&mut faults, shared).await;
            return Ok(());
        }
        match shared.answer(&request, &mut upstream).await? {
            Reply::Whole(message) => writing.write_all(&message.bytes()).await?,
            Reply::Cut(bytes) => {
                writing.write_all(&bytes).await?;
                return Ok(());
            }
            Reply::Nothing => return Ok(()),
        }
    }
}

/// Returns when a connection has to end because of an outage.
async fn outage(faults: &mut watch::Receiver<Faults>, shared: &Shared) {
    loop {
        let now = faults.borrow_and_update().outage;
        match now {
            Some(Outage::Refuse) => return shared.hit("outage"),
            Some(Outage::Hang) => {
                shared.hit("outage");
                // Whatever was waiting is lost once the network is back.
                while faults.borrow_and_update().outage == Some(Outage::Hang) {
                    if faults.changed().await.is_err() {
                        return;
                    }
                }
                return;
            }
            None => {}
        }
        if faults.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

enum Reply {
    Whole(Message),
    /// Some bytes, then the end of the connection.
    Cut(Vec<u8>),
    Nothing,
}

impl Shared {
    async fn answer(self: &Arc<Self>, request: &Message, upstream: &mut Upstream) -> io::Result<Reply> {
        let faults = self.faults.borrow().clone();
        if self.strikes("delay", faults.delay) {
            tokio::time::sleep(self.up_to(faults.delay_by)).await;
        }
        if self.strikes("lose_request", faults.lose_request) {
            return Ok(Reply::Nothing);
        }
        if self.strikes("slow_down", faults.slow_down) {
            return Ok(Reply::Whole(s3_error(503, "SlowDown", &request.method())));
        }
        let mut response = upstream.exchange(request).await?;
        if request.method() == "PUT" {
            if self.strikes("duplicate", faults.duplicate) {
                response = upstream.exchange(request).await?;
            }
            if self.strikes("duplicate_late", faults.duplicate_late) {
                self.send_again(request.clone(), self.up_to(faults.late_by));
            }
        }
        if self.strikes("lose_response", faults.lose_response) {
            return Ok(Reply::Nothing);
        }
        if self.strikes("fail_after", faults.fail_after) {
            return Ok(Reply::Whole(s3_error(500, "InternalError", &request.method())));
        }
        Ok(self.damaged(&faults, request, response))
    }

    /// Only objects are damaged: a broken listing is broken XML, which decides nothing.
    fn damaged(&self, faults: &Faults, request: &Message, mut response: Message) -> Reply {
        let target = request.target();
        let is_object = request.method() == "GET"
            && !target.contains("list-type")
            && matches!(response.status(), Some(200 | 206))
            && response.header("content-length").is_some()
            && !response.body.is_empty();
        if !is_object {
            return Reply::Whole(response);
        }
        if self.strikes("flip", faults.flip) {
            let at = self.below(response.body.len());
            response.body[at] ^= 1 << self.below(8);
        }
        if self.strikes("shorten", faults.shorten) {
            let length = self.below(response.body.len());
            let body = response.body[..length].to_vec();
            return Reply::Whole(response.with_body(body));
        }
        if self.strikes("truncate", faults.truncate) {
            let length = response.head.len() + self.below(response.body.len());
            return Reply::Cut(response.bytes()[..length].to_vec());
        }
        Reply::Whole(response)
    }

    /// The PUT that a router kept for a while and then delivered once more.
    fn send_again(self: &Arc<Self>, request: Message, after: Duration) {
        let address = self.upstream.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut upstream = Upstream {
                address,
                connection: None,
            };
            // Nobody waits for this answer.
            let _ = upstream.exchange(&request).await;
        });
    }

    fn strikes(&self, name: &'static str, share: f64) -> bool {
        let struck = share > 0.0 && self.chance().random_bool(share.min(1.0));
        if struck {
            self.hit(name);
        }
        struck
    }

    fn hit(&self, name: &'static str) {
        *self
            .hits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_default() += 1;
    }

    fn up_to(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.chance().random_range(0.0..=1.0))
    }

    fn below(&self, end: usize) -> usize {
        self.chance().random_range(0..end)
    }

    fn chance(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection to the real server per client connection, opened when needed.
struct Upstream {
    address: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Upstream {
    async fn exchange(&mut self, request: &Message) -> io::Result<Message> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        connection.get_mut().write_all(&request.bytes()).await?;
        let response = read_response(&mut connection, request.method() == "HEAD").await?;
        let closes = response
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes {
            self.connection = Some(connection);
        }
        Ok(response)
    }
}

fn s3_error(status: u16, code: &str, method: &str) -> Message {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>");
    let body = if method == "HEAD" { String::new() } else { body };
    let head = format!("HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n\r\n");
    Message {
        head: head.into_bytes(),
        body: Vec::new(),
    }
    .with_body(body.into_bytes())
}

#[cfg(test)]
mod tests;
