//! Requests to other data nodes: one HTTP/2 connection to each, under mutual TLS.
//!
//! A failure says whether the request may have reached the peer, since only then does it
//! matter whether repeating it is safe.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rhumb_seams::{OnExit, Tasks};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tls::Tls;

pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A peer that is there answers a SYN and a handshake at once.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// A peer whose machine is gone is noticed by silence.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIME: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Nothing of it left this process; here it is back.
    #[error("the peer cannot be reached: {reason}")]
    Unsent {
        request: Box<Request<Body>>,
        reason: String,
    },
    /// It may have been received, and even served.
    #[error("the connection to the peer broke: {0}")]
    Broken(hyper::Error),
}

/// Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Peers {
    tls: Tls,
    tasks: Tasks,
    connections: Arc<Mutex<BTreeMap<SocketAddr, SendRequest<Body>>>>,
}

impl Peers {
    pub fn new(tls: Tls, tasks: Tasks) -> Self {
        Self {
            tls,
            tasks,
            connections: Arc::default(),
        }
    }

    pub async fn send(
        &self,
        to: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, PeerError> {
        // The second time over a new connection: an old one may have died unnoticed.
        for _ in 0..2 {
            let mut connection = match self.connection(to).await {
                Ok(connection) => connection,
                Err(e) => {
                    return Err(PeerError::Unsent {
                        request: Box::new(request),
                        reason: e.to_string(),
                    });
                }
            };
            let mut failure = match connection.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            self.forget(to, &connection);
            match failure.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(PeerError::Broken(failure.into_error())),
            }
        }
        Err(PeerError::Unsent {
            request: Box::new(request),
            reason: "the connection closes as soon as it is made".into(),
        })
    }

    async fn connection(&self, to: SocketAddr) -> io::Result<SendRequest<Body>> {
        let known = self
            .connections
            .lock()
            .get(&to)
            .filter(|c| !c.is_closed())
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = timeout(CONNECT_TIME, self.connect(to))
            .await
            .map_err(io::Error::other)??;
        // Of two that were made at once, both serve; one is kept.
        self.connections.lock().insert(to, made.clone());
        Ok(made)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<SendRequest<Body>> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(self.tls.client());
        let stream = connector.connect(self.tls.peer_name(), stream).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIME)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let stopping = self.tasks.stopping().clone();
        self.tasks.spawn("peer connection", OnExit::Fine, async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, %to, "the connection to a peer ended");
                },
                () = stopping.cancelled() => {}
            }
        });
        Ok(sender)
    }

    fn forget(&self, to: SocketAddr, used: &SendRequest<Body>) {
        let mut connections = self.connections.lock();
        // A later one may be sound.
        if used.is_closed() || connections.get(&to).is_some_and(SendRequest::is_closed) {
            connections.retain(|_, c| !c.is_closed());
        }
    }
}

#[cfg(test)]
mod tests;
