//! Sockets: HTTP/1.1 and HTTP/2 on one port, under TLS unless somebody said otherwise,
//! against clients that are slow, many or gone; and HTTP/2 under mutual TLS on another, for
//! the other data nodes.
//!
//! A connection that sends no whole request head within 30 seconds is closed; at most
//! `MOST` are open, others wait in the kernel's queue.  Stopping lets requests that run
//! finish, up to a deadline, and closes idle connections at once.

use std::net::{IpAddr, SocketAddr};
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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::App;
use super::access::Wire;
use super::forward::Arrival;
use crate::tls::{self, ServerTls};

const HEAD_TIME: Duration = Duration::from_secs(30);
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
const MOST: usize = 10_000;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// Between tries when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Of somebody who speaks plainly where TLS is spoken.
const MOST_READS: usize = 16;
/// Of a request's head: a row filter travels in one between nodes.
const HEADERS: u32 = 64 << 10;
/// Of an HTTP/1 connection: a head with the longest path, and of bodies a piece.
const HEADS: usize = 128 << 10;
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
    let door = app.tls.clone().map_or(Door::Plain, Door::Clients);
    tasks.spawn("accept", OnExit::Stop, accept(listener.socket, router, door, app));
}

/// As `listen`, for whoever has a certificate of this database.
pub fn listen_to_peers(listener: Listener, tls: Tls, app: Arc<App>) {
    let tasks = app.tasks.clone();
    let router = super::router(app.clone(), Arrival::Peer);
    tasks.spawn(
        "accept peers",
        OnExit::Stop,
        accept(listener.socket, router, Door::Peers(tls), app),
    );
}

/// What stands between the socket and HTTP.
#[derive(Clone)]
enum Door {
    Plain,
    Clients(ServerTls),
    Peers(Tls),
}

async fn accept(socket: TcpListener, router: Router, door: Door, app: Arc<App>) {
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
            Ok((stream, from)) => {
                let (router, door, app) = (router.clone(), door.clone(), app.clone());
                let tasks = app.tasks.clone();
                tasks.spawn("connection", OnExit::Fine, async move {
                    app.metrics.connections.fetch_add(1, Ordering::Relaxed);
                    greet(stream, from.ip(), router, door, &app.tasks).await;
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

async fn greet(stream: TcpStream, address: IpAddr, router: Router, door: Door, tasks: &Tasks) {
    // Answers are written whole; waiting for more to send only delays them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut wire = Wire {
        address,
        certificate: None,
    };
    let config = match door {
        Door::Plain => return serve(stream, wire, router, tasks).await,
        Door::Peers(tls) => tls.server(),
        Door::Clients(tls) => {
            if tokio::time::timeout(HANDSHAKE_TIME, speaks_plainly(&stream)).await != Ok(false) {
                return turn_away(stream).await;
            }
            tls.config()
        }
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(stream)) => {
            let shown = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first());
            wire.certificate = shown.and_then(tls::name_in).map(Into::into);
            serve(stream, wire, router, tasks).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// TLS begins with the byte 22; HTTP with a letter.
async fn speaks_plainly(stream: &TcpStream) -> bool {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) => first[0] != 22,
        // Gone, or silent: there is nobody to shake hands with.
        Ok(_) | Err(_) => true,
    }
}

/// Says in plain words that there are none here.
async fn turn_away(mut stream: TcpStream) {
    const BODY: &str = "{\"type\":\"urn:rhumb:problem:malformed\",\"title\":\"The request has not the shape this route takes\",\
        \"status\":400,\"detail\":\"this server speaks HTTPS only\",\"code\":\"malformed\",\
        \"hint\":\"use https://, and trust tls/ca.crt of the server's home or ca.crt of the Secret <database>-ca\",\"request_id\":\"-\"}\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let spoken = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // What was sent and not read would make the answer a reset.
        let mut rest = [0; 4 << 10];
        for _ in 0..MOST_READS {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Whoever is gone by then does not hear it.
    let _ = tokio::time::timeout(HANDSHAKE_TIME, spoken).await;
}

async fn serve<S>(stream: S, wire: Wire, router: Router, tasks: &Tasks)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let asked = asked.clone();
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(wire.clone());
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
        .max_buf_size(HEADS)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
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
