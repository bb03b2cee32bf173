use std::convert::Infallible;

use http_body_util::{BodyExt, Full};
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use rhumb_seams::CancellationToken;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::testing::{Authority, Files, PEER_NAME};

/// A peer that answers, or one that dies in the middle of the first request.
#[derive(Clone, Copy)]
enum Manner {
    Answers,
    Dies,
}

async fn peer(tls: Tls, tasks: &Tasks, manner: Manner) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let connections = tasks.clone();
    tasks.spawn("accept", OnExit::Fine, async move {
        while let Ok((stream, _)) = socket.accept().await {
            let tls = tls.clone();
            connections.spawn("connection", OnExit::Fine, async move {
                let Ok(stream) = TlsAcceptor::from(tls.server()).accept(stream).await else {
                    return;
                };
                let dying = CancellationToken::new();
                let answer = service_fn(|request: Request<Incoming>| {
                    let dying = dying.clone();
                    async move {
                        if let Manner::Dies = manner {
                            dying.cancel();
                            std::future::pending::<()>().await;
                        }
                        let body = request.into_body().collect().await.expect("a body").to_bytes();
                        Ok::<_, Infallible>(Response::new(Full::new(body)))
                    }
                });
                let connection =
                    server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer);
                tokio::select! {
                    // How a connection ends is the client's to see.
                    _ = connection => {}
                    () = dying.cancelled() => {}
                }
            });
        }
    });
    address
}

fn request(body: &'static str) -> Request<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    Request::post(format!("https://{PEER_NAME}/words"))
        .body(Body::new(body))
        .expect("a request")
}

async fn text<B>(body: B) -> String
where
    B: hyper::body::Body,
    B::Error: std::fmt::Debug,
{
    let bytes = body.collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.into()).expect("text")
}

async fn echo(peers: &Peers, to: SocketAddr) -> Result<String, PeerError> {
    let response = peers.send(to, request("hello")).await?;
    Ok(text(response.into_body()).await)
}

#[tokio::test]
async fn a_peer_of_the_same_authority_answers_over_one_connection() {
    let (ours, tasks) = (Authority::new(), Tasks::new());
    let files = Files::new(&ours, &ours);
    let address = peer(files.load(), &tasks, Manner::Answers).await;
    let peers = Peers::new(files.load(), tasks);
    for _ in 0..3 {
        assert_eq!(echo(&peers, address).await.expect("an answer"), "hello");
    }
    assert_eq!(peers.connections.lock().len(), 1);
}

#[tokio::test]
async fn a_stranger_is_refused_on_either_side() {
    let (ours, other, tasks) = (Authority::new(), Authority::new(), Tasks::new());
    let (files, stranger) = (Files::new(&ours, &ours), Files::new(&other, &ours));
    let address = peer(files.load(), &tasks, Manner::Answers).await;
    // It believes us, and we do not believe it.
    let intruder = Peers::new(stranger.load(), tasks.clone());
    echo(&intruder, address)
        .await
        .expect_err("its certificate is another's");
    // Nor do we talk to whoever took a peer's address.
    let impostor = peer(stranger.load(), &tasks, Manner::Answers).await;
    let refused = echo(&Peers::new(files.load(), tasks), impostor).await;
    let refused = refused.expect_err("its certificate is another's");
    assert!(matches!(refused, PeerError::Unsent { .. }), "{refused}");
}

#[tokio::test]
async fn a_request_to_a_dead_port_comes_back_whole() {
    let (ours, tasks) = (Authority::new(), Tasks::new());
    let files = Files::new(&ours, &ours);
    let dead = {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        socket.local_addr().expect("an address")
    };
    let sent = Peers::new(files.load(), tasks)
        .send(dead, request("precious"))
        .await;
    let Err(PeerError::Unsent { request, .. }) = sent else {
        panic!("nobody listens there");
    };
    assert_eq!(text(request.into_body()).await, "precious");
}

#[tokio::test]
async fn a_peer_that_dies_over_a_request_may_have_served_it() {
    let (ours, tasks) = (Authority::new(), Tasks::new());
    let files = Files::new(&ours, &ours);
    let address = peer(files.load(), &tasks, Manner::Dies).await;
    let peers = Peers::new(files.load(), tasks.clone());
    let broken = echo(&peers, address).await.expect_err("it died");
    assert!(matches!(broken, PeerError::Broken(_)), "{broken}");
}

#[tokio::test]
async fn a_peer_that_restarted_is_reached_over_a_new_connection() {
    let (ours, tasks) = (Authority::new(), Tasks::new());
    let files = Files::new(&ours, &ours);
    let dying = peer(files.load(), &tasks, Manner::Dies).await;
    let living = peer(files.load(), &tasks, Manner::Answers).await;
    let peers = Peers::new(files.load(), tasks.clone());
    echo(&peers, dying).await.expect_err("it died");
    // The dead connection stands where one to a living peer belongs.
    let dead = peers.connections.lock().remove(&dying);
    peers.connections.lock().extend(dead.map(|dead| (living, dead)));
    assert_eq!(echo(&peers, living).await.expect("an answer"), "hello");
}

#[tokio::test]
async fn renewed_files_are_used_by_the_next_connection() {
    let (old, new, tasks) = (Authority::new(), Authority::new(), Tasks::new());
    let files = Files::new(&old, &old);
    let tls = files.load();
    let address = peer(tls.clone(), &tasks, Manner::Answers).await;
    let stale = Files::new(&old, &old).load();
    assert!(!tls.reload().expect("readable"), "nothing is new yet");
    files.renew(&new, &new);
    assert!(tls.reload().expect("sound"));
    let peers = Peers::new(tls, tasks.clone());
    assert_eq!(echo(&peers, address).await.expect("an answer"), "hello");
    let refused = echo(&Peers::new(stale, tasks), address).await;
    refused.expect_err("its authority is no longer believed");
}
