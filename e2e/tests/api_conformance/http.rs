//! HTTP itself: methods, types, paths, parameters, errors, health, status, metrics.

use reqwest::Method;
use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{collection, document, documents};

/// Every route of the contract with the methods it takes.
pub const ROUTES: [(&str, &[&str]); 17] = [
    ("/v1/collections", &["GET"]),
    ("/v1/collections/{collection}", &["DELETE", "GET", "PATCH", "PUT"]),
    ("/v1/collections/{collection}/optimize", &["POST"]),
    ("/v1/collections/{collection}/erase", &["POST"]),
    ("/v1/collections/{collection}/documents", &["GET", "POST"]),
    (
        "/v1/collections/{collection}/documents/{id}",
        &["DELETE", "GET", "PATCH", "PUT"],
    ),
    ("/v1/collections/{collection}/documents/get", &["POST"]),
    ("/v1/collections/{collection}/import", &["POST"]),
    ("/v1/collections/{collection}/export", &["GET"]),
    ("/v1/collections/{collection}/query", &["POST"]),
    ("/v1/collections/{collection}/recall", &["POST"]),
    ("/v1/collections/{collection}/aggregate", &["POST"]),
    ("/healthz", &["GET"]),
    ("/readyz", &["GET"]),
    ("/metrics", &["GET"]),
    ("/v1/status", &["GET"]),
    ("/openapi.json", &["GET"]),
];

#[tokio::test]
async fn http_is_spoken_properly() {
    let t = Suite::start("http").await;
    t.create(
        "h",
        json!({"fields": {"n": "int", "v": {"type": "vector", "dim": 2}}}),
    )
    .await;
    t.write("h", json!({"upsert": [{"id": "a", "n": 1, "v": [1, 0]}]}))
        .await;
    wrong_methods_are_answered_with_the_right_ones(&t).await;
    a_large_body_does_not_drown_the_refusal(&t).await;
    unknown_paths_are_not_found(&t).await;
    content_types_are_checked(&t).await;
    bodies_may_be_compressed(&t).await;
    parameters_are_checked(&t).await;
    health_and_status_answer(&t).await;
    metrics_are_prometheus_text(&t).await;
    sessions_are_carried(&t).await;
    t.finish().await;
}

/// Whoever is refused before the body was read still gets the answer, not a broken
/// connection.
async fn a_large_body_does_not_drown_the_refusal(t: &Suite) {
    let large = json!({"upsert": [{"id": "x", "text": "x".repeat(24 << 20)}]});
    for (path, status, code) in [
        ("/healthz", 405, "method_not_allowed"),
        ("/v1/nowhere", 404, "not_found"),
        ("/v1/collections/absent/documents", 404, "collection_not_found"),
    ] {
        t.case(format!("24 MiB to {path}"))
            .post(path, large.clone())
            .await
            .refused(status, code);
    }
}

async fn wrong_methods_are_answered_with_the_right_ones(t: &Suite) {
    for (route, allowed) in ROUTES {
        let path = route.replace("{collection}", "h").replace("{id}", "a");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"] {
            // A document may have the id `get`.
            let is_document = route.ends_with("/get") && method != "PROPFIND";
            if allowed.contains(&method) || is_document {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            t.case(format!("{method} {path}"))
                .to(method, &path)
                .await
                .status(405)
                .header("allow", |value| {
                    allowed.iter().all(|method| value.contains(method))
                });
        }
        if allowed.contains(&"GET") && !route.ends_with("export") {
            t.case(format!("HEAD {path}"))
                .to(Method::HEAD, &path)
                .await
                .status(200);
        }
        t.case(format!("OPTIONS {path}"))
            .to(Method::OPTIONS, &path)
            .await
            .status_in(&[200, 204, 405]);
    }
}

async fn unknown_paths_are_not_found(t: &Suite) {
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/collections",
        "/v1/collection",
        "/v1/collections/h/",
        "/v1/collections/h/nope",
        "/v1/collections/h/documents/a/b",
        "/v1/collections/h/query/x",
        "/V1/collections",
        "/healthz/",
        "/.well-known",
        "/favicon.ico",
        "/%2e%2e/etc/passwd",
        "/v1/collections/h/documents/",
    ] {
        t.case(format!("GET {path}")).get(path).await.status(404);
        t.case(format!("POST {path}"))
            .post(path, json!({}))
            .await
            .status_in(&[404, 405]);
    }
}

async fn content_types_are_checked(t: &Suite) {
    let path = documents("h");
    for content_type in [
        "text/csv",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/vnd.apache.parquet",
    ] {
        t.case(format!("JSON as {content_type}"))
            .to(Method::POST, &path)
            .body("{\"upsert\": [{\"id\": \"ct\"}]}", content_type)
            .await
            .status(415);
    }
    t.case("nothing of it was written")
        .get(&document("h", "ct"))
        .await
        .status(404);
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/json;charset=UTF-8",
    ] {
        t.case(format!("JSON as {content_type}"))
            .to(Method::POST, &path)
            .body("{\"upsert\": [{\"id\": \"json\"}]}", content_type)
            .await
            .status(200);
    }
    t.case("an answer is JSON")
        .get(&collection("h"))
        .await
        .header("content-type", |value| value.starts_with("application/json"));
    t.case("whatever is asked for")
        .get(&collection("h"))
        .header("accept", "text/html")
        .await
        .status_in(&[200, 406]);
    t.case("a byte order mark")
        .to(Method::POST, &path)
        .body("\u{feff}{\"upsert\": [{\"id\": \"bom\"}]}", "application/json")
        .await
        .status_in(&[200, 400]);
    t.case("not UTF-8")
        .to(Method::POST, &path)
        .body(&b"{\"upsert\": [{\"id\": \"\xff\xfe\"}]}"[..], "application/json")
        .await
        .status(400);
}

async fn bodies_may_be_compressed(t: &Suite) {
    use std::io::Write;
    let path = documents("h");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"{\"upsert\": [{\"id\": \"zipped\", \"n\": 5}]}")
        .expect("in memory");
    let zipped = gzip.finish().expect("in memory");
    t.case("a body in gzip")
        .to(Method::POST, &path)
        .header("content-encoding", "gzip")
        .body(zipped.clone(), "application/json")
        .await
        .status(200)
        .at("/upserted", 1);
    t.case("was understood")
        .get(&document("h", "zipped"))
        .await
        .at("/document/n", 5);
    t.case("half of it")
        .to(Method::POST, &path)
        .header("content-encoding", "gzip")
        .body(zipped[..zipped.len() / 2].to_vec(), "application/json")
        .await
        .status(400);
    t.case("no gzip at all")
        .to(Method::POST, &path)
        .header("content-encoding", "gzip")
        .body("{\"upsert\": []}", "application/json")
        .await
        .status(400);
    t.case("an unknown encoding")
        .to(Method::POST, &path)
        .header("content-encoding", "rot13")
        .body("{\"upsert\": []}", "application/json")
        .await
        .status_in(&[415, 400]);
}

async fn parameters_are_checked(t: &Suite) {
    for (path, name) in [
        (collection("h"), "a collection"),
        (documents("h"), "a scan"),
        (document("h", "a"), "a document"),
        ("/v1/collections".into(), "the list"),
        (format!("{}/export", collection("h")), "an export"),
    ] {
        t.case(format!("{name} with an unknown parameter"))
            .get(&format!("{path}?nonsense=1"))
            .await
            .status_in(&[422, 400]);
    }
    t.case("a parameter that is no UTF-8")
        .get(&format!("{}?start=%ff", documents("h")))
        .await
        .status_in(&[400, 422]);
    t.case("a broken escape")
        .get(&format!("{}?start=%zz", documents("h")))
        .await
        .status_in(&[200, 400, 422]);
    t.case("an id that is no UTF-8")
        .get(&format!("{}/%ff%fe", documents("h")))
        .await
        .status_in(&[400, 404, 422]);
    t.case("a very long parameter")
        .get(&format!("{}?prefix={}", documents("h"), "x".repeat(20_000)))
        .await
        .status_in(&[200, 400, 414, 422, 431]);
}

async fn health_and_status_answer(t: &Suite) {
    t.case("healthz").get("/healthz").await.status(200);
    t.case("readyz").get("/readyz").await.status(200);
    t.case("status")
        .get("/v1/status")
        .await
        .status(200)
        .check("is an object", Value::is_object);
}

/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
async fn metrics_are_prometheus_text(t: &Suite) {
    let seen = t
        .case("metrics")
        .get("/metrics")
        .await
        .status(200)
        .header("content-type", |value| value.starts_with("text/plain"));
    let text = String::from_utf8(seen.bytes().to_vec()).unwrap_or_default();
    let mut typed = std::collections::BTreeMap::new();
    let mut samples = 0;
    let mut series = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name, rest) = (
                words.next(),
                words.next().unwrap_or_default(),
                words.next().unwrap_or_default(),
            );
            if word == Some("TYPE") {
                let known = ["counter", "gauge", "histogram", "summary", "untyped"].contains(&rest);
                t.check("a known type", known, || line.to_owned());
                let first = typed.insert(name.to_owned(), rest.to_owned()).is_none();
                t.check("one TYPE per name", first, || line.to_owned());
            }
            continue;
        }
        samples += 1;
        let Some((name, value)) = line.rsplit_once(' ') else {
            t.check("a sample has a value", false, || line.to_owned());
            continue;
        };
        let number = value.parse::<f64>().is_ok();
        let base = name.split('{').next().unwrap_or_default();
        let legal =
            base.starts_with("rhumb_") && base.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let closed = name.contains('{') == name.ends_with('}');
        t.check("a sample is well-formed", number && legal && closed, || {
            line.to_owned()
        });
        t.check("a series appears once", series.insert(name.to_owned()), || {
            line.to_owned()
        });
        let family = ["_bucket", "_sum", "_count", ""]
            .iter()
            .find_map(|suffix| typed.get(base.strip_suffix(suffix)?));
        t.check("a sample has a TYPE", family.is_some(), || line.to_owned());
    }
    t.check("there are samples", samples > 5, || text.clone());
    t.check("the text ends with a line end", text.ends_with('\n'), || {
        text.clone()
    });
}

async fn sessions_are_carried(t: &Suite) {
    let written = t
        .case("a write")
        .post(&documents("h"), json!({"upsert": [{"id": "s", "n": 1}]}))
        .await;
    let token = written
        .header("rhumb-session", |token| {
            token.bytes().all(|b| b.is_ascii_graphic())
        })
        .header_value("rhumb-session");
    for level in ["session", "strong", "verified", "eventual"] {
        t.case(format!("its token with {level}"))
            .get(&format!("{}?consistency={level}", document("h", "s")))
            .header("rhumb-session", &token)
            .await
            .status(200)
            .at("/document/n", 1);
    }
    for token in ["x", "", "0", &"x".repeat(5_000)] {
        t.case("a token of nobody")
            .get(&format!("{}?consistency=session", document("h", "s")))
            .header("rhumb-session", token)
            .await
            .status_in(&[200, 400, 422, 431]);
    }
}
