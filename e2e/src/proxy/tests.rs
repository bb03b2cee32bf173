//! The proxy in front of a server that counts what it is sent.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::client::Client;
use crate::suite::eventually;
use serde_json::json;

struct Counting {
    address: String,
    requests: Arc<AtomicUsize>,
}

/// Answers every request with `0123456789`.
async fn counting_server() -> Counting {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Ok(Some(_)) = read_request(&mut stream).await {
                    seen.fetch_add(1, Ordering::SeqCst);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
                    if stream.get_mut().write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Counting { address, requests }
}

async fn proxied(faults: Faults) -> (Counting, FaultProxy, Client) {
    let server = counting_server().await;
    let proxy = FaultProxy::start(&server.address, 7).await.expect("a proxy");
    proxy.set(faults);
    let client = Client::new(&proxy.endpoint()).expect("a client");
    (server, proxy, client)
}

#[tokio::test]
async fn without_faults_everything_passes() {
    let (server, _proxy, client) = proxied(Faults::default()).await;
    for _ in 0..3 {
        let answer = client.put("/k", &json!({})).send().await.expect("an answer");
        assert_eq!((answer.status, answer.body.as_ref()), (200, &b"0123456789"[..]));
    }
    assert_eq!(server.requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_lost_response_was_applied_and_a_lost_request_was_not() {
    let (server, proxy, client) = proxied(Faults {
        lose_response: 1.0,
        ..Faults::default()
    })
    .await;
    let error = client
        .put("/k", &json!({}))
        .send()
        .await
        .expect_err("the answer is lost");
    assert!(error.sent);
    let applied = server.requests.load(Ordering::SeqCst);
    assert!(applied >= 1);

    proxy.set(Faults {
        lose_request: 1.0,
        ..Faults::default()
    });
    client
        .put("/k", &json!({}))
        .send()
        .await
        .expect_err("the request is lost");
    assert_eq!(server.requests.load(Ordering::SeqCst), applied);
    assert!(proxy.hits()["lose_response"] >= 1);
}

#[tokio::test]
async fn a_duplicate_is_sent_twice_now_or_later() {
    let (server, proxy, client) = proxied(Faults {
        duplicate: 1.0,
        ..Faults::default()
    })
    .await;
    assert_eq!(
        client
            .put("/k", &json!({}))
            .send()
            .await
            .expect("an answer")
            .status,
        200
    );
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);

    proxy.set(Faults {
        duplicate_late: 1.0,
        late_by: Duration::from_millis(20),
        ..Faults::default()
    });
    client.put("/k", &json!({})).send().await.expect("an answer");
    let late = eventually(Duration::from_secs(5), || async {
        server.requests.load(Ordering::SeqCst) == 4
    });
    assert!(late.await);
}

#[tokio::test]
async fn what_is_read_is_flipped_shortened_or_cut() {
    let (_server, proxy, client) = proxied(Faults {
        flip: 1.0,
        ..Faults::default()
    })
    .await;
    let flipped = client.get("/k").send().await.expect("an answer").body;
    let pairs = flipped.iter().zip(b"0123456789");
    assert_eq!(pairs.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>(), 1);

    proxy.set(Faults {
        shorten: 1.0,
        ..Faults::default()
    });
    assert!(client.get("/k").send().await.expect("an answer").body.len() < 10);

    proxy.set(Faults {
        truncate: 1.0,
        ..Faults::default()
    });
    client.get("/k").send().await.expect_err("the body ends early");
}

#[tokio::test]
async fn injected_errors_look_like_the_stores_own() {
    let (server, proxy, client) = proxied(Faults {
        slow_down: 1.0,
        ..Faults::default()
    })
    .await;
    assert_eq!(client.get("/k").send().await.expect("an answer").status, 503);
    assert_eq!(server.requests.load(Ordering::SeqCst), 0);

    proxy.set(Faults {
        fail_after: 1.0,
        ..Faults::default()
    });
    assert_eq!(client.get("/k").send().await.expect("an answer").status, 500);
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_outage_ends_connections_and_passes_when_it_is_over() {
    let (_server, proxy, client) = proxied(Faults::default()).await;
    client.get("/k").send().await.expect("an answer");
    proxy.set(Faults {
        outage: Some(Outage::Refuse),
        ..Faults::default()
    });
    client.get("/k").send().await.expect_err("away");

    proxy.set(Faults {
        outage: Some(Outage::Hang),
        ..Faults::default()
    });
    let hanging = client.get("/k").timeout(Duration::from_millis(50)).send().await;
    assert!(hanging.expect_err("nothing comes").sent);

    proxy.calm();
    assert_eq!(client.get("/k").send().await.expect("an answer").status, 200);
}
