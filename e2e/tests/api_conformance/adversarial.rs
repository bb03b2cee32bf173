//! Bytes that no HTTP library would send.  A server may refuse or hang up; it may not
//! answer 5xx, hang for ever, or fall.

use std::time::Duration;

use rhumb_e2e::Suite;
use rhumb_e2e::raw::{Reaction, request, send};
use rhumb_e2e::suite::eventually;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::{collection, document, documents};

const PATIENCE: Duration = Duration::from_secs(10);
const JSON: &str = "Content-Type: application/json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bytes_do_no_harm() {
    let t = Suite::start("adversarial").await;
    t.create("x", json!({"fields": {"v": {"type": "vector", "dim": 2}}}))
        .await;
    paths_are_taken_as_they_are(&t).await;
    lengths_may_lie(&t).await;
    chunks_may_be_broken(&t).await;
    heads_may_be_broken(&t).await;
    json_may_be_deep_long_or_strange(&t).await;
    clients_may_leave_at_any_time(&t).await;
    many_connections_may_idle(&t).await;
    t.finish().await;
}

/// Answered below 500, or closed.
async fn survives(t: &Suite, name: &str, wire: &[u8]) {
    let reaction = send(t.client().address(), wire, true, PATIENCE).await;
    let harmless = match &reaction {
        Ok(Reaction::Answered(message)) => message
            .status()
            .is_some_and(|status| status < 500 || status == 501 || status == 505),
        Ok(Reaction::Closed) => true,
        Ok(Reaction::Silent) | Err(_) => false,
    };
    t.check(name, harmless, || format!("{reaction:?}"));
    let alive = t
        .client()
        .get("/healthz")
        .send()
        .await
        .is_ok_and(|answer| answer.status == 200);
    t.check("the server lives on", alive, || name.to_owned());
}

async fn paths_are_taken_as_they_are(t: &Suite) {
    let paths: [&[u8]; 22] = [
        b"/v1/collections/..",
        b"/v1/collections/../../etc/passwd",
        b"/v1/collections/%2e%2e/documents",
        b"/v1/collections/x/documents/..",
        b"/v1/collections/x/documents/%2e%2e",
        b"/v1/collections/x/documents/%00",
        b"/v1/collections/x/documents/%",
        b"/v1/collections/x/documents/%f",
        b"/v1/collections/x/documents/%zz",
        b"/v1/collections/x/documents/%ff",
        b"/v1/collections/x/documents/%c0%80",
        b"/v1/collections/x/documents/%u0041",
        b"/v1/collections/x/documents/\xc3\xa9",
        b"/v1/collections/x/documents/\xff",
        b"//v1//collections",
        b"*",
        b"http://elsewhere/v1/collections",
        b"/v1/collections/x/documents?%ff=%fe",
        b"/v1/collections/x/documents?&&&==&",
        b"/v1/collections/x/documents?filter=%00",
        b"/\\..\\..",
        b"/v1/collections/x/documents/a#b",
    ];
    for path in paths {
        for method in ["GET", "DELETE", "PUT"] {
            let name = format!("{method} {}", String::from_utf8_lossy(path));
            survives(t, &name, &request(method, path, &[JSON], b"{}")).await;
        }
    }
    let long = format!("/v1/collections/x/documents/{}", "a".repeat(100_000));
    survives(
        t,
        "a path of 100,000 bytes",
        &request("GET", long.as_bytes(), &[], b""),
    )
    .await;
    t.create("untouched", json!({"fields": {}})).await;
    t.write(
        "untouched",
        json!({"upsert": [{"id": ".."}, {"id": "."}, {"id": "a"}]}),
    )
    .await;
    t.case("dots are ids")
        .get(&documents("untouched"))
        .await
        .ids("/documents", &[".", "..", "a"]);
}

async fn lengths_may_lie(t: &Suite) {
    // Not `x`: whether the PUTs above landed before their clients left is a race.
    t.create("lengths", json!({"fields": {}})).await;
    let path = documents("lengths");
    let head = |length: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: {length}\r\n\r\n")
    };
    for length in [
        "-1",
        "x",
        "",
        "1e3",
        "0x10",
        "99999999999999999999",
        "10, 20",
        "+5",
        "5 5",
    ] {
        survives(
            t,
            &format!("Content-Length: {length}"),
            format!("{}{{}}", head(length)).as_bytes(),
        )
        .await;
    }
    survives(
        t,
        "a body shorter than it says",
        format!("{}{{\"upsert\":", head("1000")).as_bytes(),
    )
    .await;
    survives(
        t,
        "a body longer than it says",
        format!("{}{{\"upsert\": []}}", head("2")).as_bytes(),
    )
    .await;
    survives(
        t,
        "no length",
        format!("POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}\r\n\r\n{{}}").as_bytes(),
    )
    .await;
    let two = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}x"
    );
    survives(t, "two lengths", two.as_bytes()).await;
    let both = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}"
    );
    survives(t, "a length and chunks", both.as_bytes()).await;
    t.case("nothing of these was written")
        .get(&path)
        .await
        .at("/documents", json!([]));
}

async fn chunks_may_be_broken(t: &Suite) {
    let path = documents("x");
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let good = r#"{"upsert": [{"id": "chunk"}]}"#;
    for (name, body) in [
        ("no last chunk", format!("{:x}\r\n{good}\r\n", good.len())),
        (
            "a chunk shorter than it says",
            format!("ff\r\n{good}\r\n0\r\n\r\n"),
        ),
        ("a chunk longer than it says", format!("5\r\n{good}\r\n0\r\n\r\n")),
        ("a size that is no number", format!("zz\r\n{good}\r\n0\r\n\r\n")),
        ("a negative size", format!("-5\r\n{good}\r\n0\r\n\r\n")),
        ("a size beyond all", format!("ffffffffffffffffff\r\n{good}")),
        ("an endless size line", "0".repeat(100_000)),
        ("an endless extension", format!("5;{}\r\n", "x".repeat(100_000))),
    ] {
        survives(t, name, format!("{head}{body}").as_bytes()).await;
    }
    t.case("a write whose end never came is no write")
        .get(&document("x", "chunk"))
        .await
        .status(404);
    let broken_import = format!(
        "POST {}/import HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\n{{\"id\": \"imported-before-cut\"\r\n",
        collection("x")
    );
    survives(t, "an import that ends in the middle", broken_import.as_bytes()).await;
    let mut dripped = TcpStream::connect(t.client().address())
        .await
        .expect("a connection");
    for byte in format!("{head}{:x}\r\n{good}\r\n0\r\n\r\n", good.len()).bytes() {
        dripped.write_all(&[byte]).await.expect("the server reads on");
    }
    let arrived = eventually(PATIENCE, || async {
        t.client()
            .get(&document("x", "chunk"))
            .send()
            .await
            .is_ok_and(|answer| answer.status == 200)
    });
    t.check("a body that drips in is a body", arrived.await, String::new);
}

async fn heads_may_be_broken(t: &Suite) {
    let many: String = (0..5_000).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = "x".repeat(1 << 20);
    for (name, wire) in [
        ("nothing", String::new()),
        ("a blank line", "\r\n".into()),
        ("garbage", "\u{1}\u{2}\u{3}garbage\r\n\r\n".into()),
        ("no version", "GET /healthz\r\n\r\n".into()),
        (
            "an odd version",
            "GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n".into(),
        ),
        (
            "an odd method",
            "G\u{0}T /healthz HTTP/1.1\r\nHost: x\r\n\r\n".into(),
        ),
        ("no host", "GET /healthz HTTP/1.1\r\n\r\n".into()),
        (
            "a header without a colon",
            "GET /healthz HTTP/1.1\r\nHost x\r\n\r\n".into(),
        ),
        (
            "a header with NUL",
            "GET /healthz HTTP/1.1\r\nHost: x\u{0}\r\n\r\n".into(),
        ),
        (
            "a folded header",
            "GET /healthz HTTP/1.1\r\nHost: x\r\n y\r\n\r\n".into(),
        ),
        (
            "thousands of headers",
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        ),
        (
            "a megabyte of header",
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        ),
        (
            "TLS to a plain port",
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".into(),
        ),
        (
            "HTTP/2 of a strange kind",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense".into(),
        ),
        (
            "an upgrade",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".into(),
        ),
        (
            "an expectation",
            format!(
                "POST {} HTTP/1.1\r\nHost: x\r\nExpect: the unexpected\r\nContent-Length: 2\r\n\r\n{{}}",
                documents("x")
            ),
        ),
    ] {
        survives(t, name, wire.as_bytes()).await;
    }
    for header in [
        "Idempotency-Key: \u{ff}\u{fe}",
        "If-Match: \u{80}",
        "Rhumb-Session: \u{ff}",
        "Content-Type: \u{ff}",
        "Content-Encoding: gzip, gzip, gzip",
        "Accept-Encoding: \u{ff}",
        "Authorization: Bearer \u{ff}",
        "Content-Type: application/json; charset=utf-16",
        "If-None-Match: \"a\", \"b\", *",
    ] {
        survives(
            t,
            header,
            &request("PUT", document("x", "h").as_bytes(), &[header], b"{}"),
        )
        .await;
    }
}

async fn json_may_be_deep_long_or_strange(t: &Suite) {
    let path = documents("x");
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    for n in [65, 129, 1_000, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let body = format!(
                "{{\"upsert\": [{{\"id\": \"deep\", \"j\": {}}}]}}",
                deep(open, close, n)
            );
            t.case(format!("{n} levels of {open}"))
                .to(reqwest::Method::POST, &path)
                .body(body, "application/json")
                .await
                .status_in(&[200, 400, 422]);
        }
    }
    for n in [1_000, 1_000_000] {
        let unclosed = "[".repeat(n);
        t.case(format!("{n} open brackets"))
            .to(reqwest::Method::POST, &path)
            .body(unclosed, "application/json")
            .await
            .status(400);
    }
    for body in [
        r#"{"upsert": [], "upsert": [{"id": "dup"}]}"#,
        r#"{"upsert": [{"id": "dup", "id": "dup2"}]}"#,
        r#"{"upsert": [{"id": "dup", "n": 1, "n": 2}]}"#,
        r#"{"upsert": [{"id": "dup", "v": [1, 0], "v": [1]}]}"#,
    ] {
        t.case(format!("duplicate members: {body}"))
            .to(reqwest::Method::POST, &path)
            .body(body, "application/json")
            .await
            .status_in(&[200, 400, 422]);
    }
    for text in [
        r#""\ud800""#,
        r#""\udfff\ud800""#,
        r#""\u12""#,
        r#""\x41""#,
        "\"\u{1}\"",
        "\"\n\"",
    ] {
        let body = format!("{{\"upsert\": [{{\"id\": {text}}}]}}");
        t.case(format!("the text {text:?}"))
            .to(reqwest::Method::POST, &path)
            .body(body, "application/json")
            .await
            .status_in(&[400, 422]);
    }
    let digits = format!(
        "{{\"upsert\": [{{\"id\": \"digits\", \"n\": {}}}]}}",
        "9".repeat(100_000)
    );
    t.case("100,000 digits")
        .to(reqwest::Method::POST, &path)
        .body(digits, "application/json")
        .await
        .status_in(&[400, 422, 200]);
    let digits = format!(
        "{{\"upsert\": [{{\"id\": \"digits\", \"f\": 0.{}}}]}}",
        "3".repeat(100_000)
    );
    t.case("100,000 decimals")
        .to(reqwest::Method::POST, &path)
        .body(digits, "application/json")
        .await
        .status_in(&[400, 422, 200]);
}

async fn clients_may_leave_at_any_time(t: &Suite) {
    t.create("left", json!({"fields": {"v": {"type": "vector", "dim": 2}}}))
        .await;
    let rows: Vec<Value> = (0..5_000)
        .map(|n| json!({"id": n, "v": [n, 1], "pad": "x".repeat(200)}))
        .collect();
    t.write("left", json!({"upsert": rows})).await;
    let body = json!({"vector": [1, 0], "k": 5_000, "include": true}).to_string();
    let requests = [
        request("POST", crate::query("left").as_bytes(), &[JSON], body.as_bytes()),
        request(
            "GET",
            format!("{}?limit=10000", documents("left")).as_bytes(),
            &[],
            b"",
        ),
        request(
            "GET",
            format!("{}/export?format=ndjson", collection("left")).as_bytes(),
            &[],
            b"",
        ),
        request(
            "POST",
            documents("left").as_bytes(),
            &[JSON],
            br#"{"upsert": [{"id": 1}]}"#,
        ),
    ];
    for wire in requests.iter().cycle().take(80) {
        let mut stream = TcpStream::connect(t.client().address())
            .await
            .expect("a connection");
        // Asked, and gone before the answer.
        stream.write_all(wire).await.expect("sent");
        drop(stream);
    }
    t.case("the one that stays is served")
        .get(&format!("{}?limit=3", documents("left")))
        .await
        .ids("/documents", &["0", "1", "2"]);
}

async fn many_connections_may_idle(t: &Suite) {
    let mut idle = Vec::new();
    for n in 0..300 {
        let mut stream = TcpStream::connect(t.client().address())
            .await
            .expect("a connection");
        if n % 2 == 0 {
            stream
                .write_all(b"POST /v1/collections/x/documents HTTP/1.1\r\nHost: x\r\nContent-Le")
                .await
                .expect("sent");
        }
        idle.push(stream);
    }
    t.case("one more is served")
        .get(&collection("x"))
        .await
        .status(200);
    drop(idle);
}
