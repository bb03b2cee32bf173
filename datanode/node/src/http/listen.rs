//! Sockets: HTTP/1.1 and h2c on one port, against clients that are slow, many or gone; and
//! HTTP/2 under mutual TLS on another, for the other data nodes.
//!
//! A connection that sends no whole request head within 30 seconds is closed; at most
//! `MOST` are open, others wait in the kernel's queue.  Stopping lets requests that run
//! finish, up to a deadline, and closes idle connections at once.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rhumb_cluster::Tls;
use rhumb_seams::{OnExit, Tasks};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::App;
use super::forward::Arrival;

const HEAD_TIME: Duration = Duration::from_secs(30);
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
const MOST: usize = 10_000;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// Between tries when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How long requests that run may go on once the server stops.
const FAREWELL: Duration = Duration::from_secs(10);

pub struct Listener {
    socket: TcpListener,
    pub address: SocketAddr,
}

impl Listener {
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }
}

/// Accepts until `app.tasks` is told to stop.
pub fn listen(listener: Listener, app: Arc<App>) {
    let tasks = app.tasks.clone();
    let router = super::router(app.clone(), Arrival::Client);
    tasks.spawn("accept", OnExit::Stop, accept(listener.socket, router, None, app));
}

/// As `listen`, for whoever has a certificate of this database.
pub fn listen_to_peers(listener: Listener, tls: Tls, app: Arc<App>) {
    let tasks = app.tasks.clone();
    let router = super::router(app.clone(), Arrival::Peer);
    tasks.spawn(
        "accept peers",
        OnExit::Stop,
        accept(listener.socket, router, Some(tls), app),
    );
}

async fn accept(socket: TcpListener, router: Router, tls: Option<Tls>, app: Arc<App>) {
    let places = Arc::new(Semaphore::new(MOST));
    let stopping = app.tasks.stopping().clone();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, tls, app) = (router.clone(), tls.clone(), app.clone());
                let tasks = app.tasks.clone();
                tasks.spawn("connection", OnExit::Fine, async move {
                    app.metrics.connections.fetch_add(1, Ordering::Relaxed);
                    greet(stream, router, tls, &app.tasks).await;
                    app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn greet(stream: TcpStream, router: Router, tls: Option<Tls>, tasks: &Tasks) {
    // Answers are written whole; waiting for more to send only delays them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else {
        return serve(stream, router, tasks).await;
    };
    let handshake = TlsAcceptor::from(tls.server()).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(stream)) => serve(stream, router, tasks).await,
        Ok(Err(error)) => tracing::debug!(%error, "a stranger at the peers' port"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve<S>(stream: S, router: Router, tasks: &Tasks)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let asked = asked.clone();
        hyper::service::service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            router.clone().oneshot(request.map(axum::body::Body::new))
        })
    };
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let silent = silent(asked);
    tokio::select! {
        ended = connection.as_mut() => return report(ended),
        () = silent => return,
        () = tasks.stopping().cancelled() => connection.as_mut().graceful_shutdown(),
    }
    if tokio::time::timeout(FAREWELL, connection).await.is_err() {
        tracing::warn!("a request was cut off: it ran on after the server was told to stop");
    }
}

/// Ends when the first request has not come in time.  Until then hyper only looks at which
/// protocol it will be, without a clock.
async fn silent(asked: Arc<AtomicBool>) {
    tokio::time::sleep(HEAD_TIME).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(128)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .adaptive_window(true)
        .keep_alive_interval(HEAD_TIME)
        .keep_alive_timeout(HEAD_TIME);
    builder
}

fn report(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        // A client that leaves, sends garbage or stalls: its own affair.
        tracing::debug!(%error, "a connection ended early");
    }
}
