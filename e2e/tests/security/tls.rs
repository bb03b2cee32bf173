//! The door itself: TLS, and nothing else.

use std::time::{Duration, Instant};

use reqwest::Certificate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::home::{Guarded, client};

#[tokio::test]
async fn plain_http_is_refused_in_plain_words() {
    let server = Guarded::start("plain").await;
    let key = server.admin_key();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .expect("connected");
    let request = format!("GET /v1/whoami HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    // The server closes; what it said before counts.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("HTTPS") && !answer.contains("subject"),
        "{answer}"
    );
    let ended = server.ask(Some(&key), "GET", "/v1/whoami", None).await;
    assert_eq!(ended.status, 200);
}

#[tokio::test]
async fn old_protocols_and_strangers_authorities_are_refused() {
    let server = Guarded::start("protocols").await;
    let pem = std::fs::read(server.home("tls/ca.crt")).expect("an authority");
    let authority = Certificate::from_pem(&pem).expect("a certificate");
    let old = client()
        .add_root_certificate(authority)
        .max_tls_version(reqwest::tls::Version::TLS_1_2)
        .build()
        .expect("a client");
    assert!(
        old.get(server.url("/healthz")).send().await.is_err(),
        "TLS 1.2 is off by default"
    );
    let strange = client().build().expect("a client");
    assert!(
        strange.get(server.url("/healthz")).send().await.is_err(),
        "nobody else vouches for it"
    );
}

#[tokio::test]
async fn a_new_certificate_is_used_without_dropping_a_connection() {
    let server = Guarded::start("reload").await;
    let key = server.admin_key();
    let expiry = |text: &str| -> f64 {
        let line = text
            .lines()
            .find(|line| line.starts_with("rhumb_certificate_expiry"));
        let value = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
        value.expect("the metric")
    };
    let metrics = || async {
        let told = server.ask(Some(&key), "GET", "/metrics", None).await;
        told.body.as_str().expect("text").to_owned()
    };
    let before = expiry(&metrics().await);
    assert!(before > 1.7e9, "{before}");
    let first = std::fs::read(server.home("tls/server.crt")).expect("made");
    // Gone, it is made anew by the same authority.
    std::fs::remove_file(server.home("tls/server.crt")).expect("removed");
    let begin = Instant::now();
    loop {
        // Over the connection that is open.
        assert_eq!(
            server.ask(Some(&key), "GET", "/v1/whoami", None).await.status,
            200
        );
        match std::fs::read(server.home("tls/server.crt")) {
            Ok(now) if now != first => break,
            _ => {}
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "it is not renewed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let pem = std::fs::read(server.home("tls/ca.crt")).expect("an authority");
    let fresh = client()
        .add_root_certificate(Certificate::from_pem(&pem).expect("a certificate"))
        .build()
        .expect("a client");
    let answer = fresh
        .get(server.url("/healthz"))
        .send()
        .await
        .expect("the same authority");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn whoever_is_silent_at_the_door_is_sent_away_and_harms_nobody() {
    let server = Guarded::start("silent").await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(
            TcpStream::connect(("127.0.0.1", server.port))
                .await
                .expect("connected"),
        );
    }
    for garbage in [&b"\x16\x03\x01\xff\xff"[..], b"\0\0\0\0", b"GET", &[0x16; 4096]] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port))
            .await
            .expect("connected");
        // It may hang up in the middle.
        let _ = stream.write_all(garbage).await;
    }
    assert_eq!(server.ask(None, "GET", "/healthz", None).await.status, 200);
    let begin = Instant::now();
    let mut first = idle.swap_remove(0);
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), first.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still open after {:?}", begin.elapsed());
    assert!(!server.process.log().contains("panicked"));
}
