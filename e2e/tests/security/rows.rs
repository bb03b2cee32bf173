//! Row-level security: what a row filter hides is not there, by no route.

use serde_json::{Value, json};

use crate::home::{Guarded, Told};

const C: &str = "/v1/collections/docs";

/// A collection of two tenants, and a key of the first.
async fn two_tenants(name: &str) -> (Guarded, String) {
    let server = Guarded::start(name).await;
    let fields = json!({"fields": {"v": {"type": "vector", "dim": 2}, "tenant": "string", "n": "int"}});
    server.admin("PUT", C, Some(&fields)).await;
    let documents: Vec<Value> = (0..40)
        .map(|n| {
            let tenant = if n % 2 == 0 { "x" } else { "y" };
            json!({"id": format!("{tenant}{n}"), "v": [1.0, n], "tenant": tenant, "n": n})
        })
        .collect();
    server
        .admin(
            "POST",
            &format!("{C}/documents"),
            Some(&json!({"upsert": documents})),
        )
        .await;
    let operations = json!(["read", "write"]);
    let grants =
        json!([{"collections": "docs", "operations": operations, "row_filter": {"tenant": "$claims.org"}}]);
    server.role("tenant", grants).await;
    let (_, key) = server.key(&["tenant"], json!({"claims": {"org": "x"}})).await;
    (server, key)
}

fn is_own(value: &Value) -> bool {
    !value.to_string().contains("\"y")
}

#[tokio::test]
async fn reads_show_rows_of_the_filter_alone() {
    let (server, key) = two_tenants("rows-read").await;
    let ask = |method: &'static str, path: &'static str, body: Value| {
        let (server, key) = (&server, &key);
        async move {
            let path = format!("{C}{path}");
            let body = (!body.is_null()).then_some(body);
            server.ask(Some(key), method, &path, body.as_ref()).await
        }
    };
    let hits = ask(
        "POST",
        "/query",
        json!({"vector": [1, 1], "k": 100, "include": true, "explain": true, "exact": true}),
    )
    .await
    .ok();
    assert_eq!(hits["hits"].as_array().map(Vec::len), Some(20));
    assert!(is_own(&hits), "{hits}");
    assert_eq!(hits["explain"]["rows_scanned"], 0, "{hits}");
    // A filter of one's own narrows, and cannot widen.
    for filter in [
        json!({"tenant": "y"}),
        json!("tenant = 'y' OR true = true"),
        json!({"$not": {"tenant": "x"}}),
    ] {
        let told = ask("POST", "/query", json!({"vector": [1, 1], "filter": filter})).await;
        assert!(told.status == 422 || told.body["hits"] == json!([]), "{told:?}");
    }
    let batch = ask(
        "POST",
        "/query",
        json!({"queries": [{"vector": [1, 1], "k": 50}, {"vector": [0, 1], "k": 50}]}),
    )
    .await
    .ok();
    for result in batch["results"].as_array().expect("two") {
        assert_eq!(result["hits"].as_array().map(Vec::len), Some(20));
    }
    let scanned = ask("GET", "/documents?limit=100", Value::Null).await.ok();
    assert_eq!(scanned["documents"].as_array().map(Vec::len), Some(20));
    assert!(is_own(&scanned));
    let got = ask(
        "POST",
        "/documents/get",
        json!({"ids": ["x0", "y1", "nowhere"], "include": ["n"]}),
    )
    .await
    .ok();
    assert_eq!(got["documents"][0]["document"], json!({"n": 0}));
    assert_eq!(
        (&got["documents"][1], &got["documents"][2]),
        (&Value::Null, &Value::Null)
    );
    let groups = ask(
        "POST",
        "/aggregate",
        json!({"by": ["tenant"], "metrics": {"n": {"count": true}}}),
    )
    .await
    .ok();
    assert_eq!(groups["groups"], json!([{"by": {"tenant": "x"}, "n": 20}]));
    let exported = ask("GET", "/export", Value::Null).await;
    let Value::String(lines) = &exported.body else {
        panic!("{exported:?}")
    };
    assert_eq!(lines.lines().count(), 20);
    assert!(!lines.contains("\"y"));
    let info = ask("GET", "", Value::Null).await.ok();
    assert_eq!((&info["rows"], &info["bytes"]), (&json!(20), &json!(0)));
    let recall = ask("POST", "/recall", json!({"queries": 100})).await.ok();
    assert!(recall["queries"].as_u64().is_some_and(|n| n <= 20), "{recall}");
}

fn like_absent(hidden: &Told, absent: &Told) {
    let plain = |told: &Told| {
        let text = told.body.to_string().replace("y1", "@").replace("z9", "@");
        let mut body: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(members) = body.as_object_mut() {
            for name in ["request_id", "position", "took_ms"] {
                members.remove(name);
            }
        }
        (told.status, body)
    };
    assert_eq!(plain(hidden), plain(absent));
}

#[tokio::test]
async fn a_hidden_document_answers_like_an_absent_one() {
    let (server, key) = two_tenants("rows-oracle").await;
    for (method, body) in [("GET", None), ("PATCH", Some(json!({"n": 7}))), ("DELETE", None)] {
        let ask = |id: &str| {
            let (server, key, body) = (&server, &key, &body);
            let path = format!("{C}/documents/{id}");
            async move { server.ask(Some(key), method, &path, body.as_ref()).await }
        };
        like_absent(&ask("y1").await, &ask("z9").await);
    }
    for write in [
        json!({"delete": ["y1"]}),
        json!({"patch": [{"id": "y1", "n": 7}]}),
        json!({"delete": ["y1"], "if": {"absent": false}}),
        json!({"delete_by_filter": {"id": "y1"}}),
        json!({"upsert": [{"id": "y1", "tenant": "x"}], "if": {"absent": false}}),
    ] {
        let path = format!("{C}/documents");
        let hidden = server.ask(Some(&key), "POST", &path, Some(&write)).await;
        let other: Value = serde_json::from_str(&write.to_string().replace("y1", "z9")).expect("json");
        like_absent(
            &hidden,
            &server.ask(Some(&key), "POST", &path, Some(&other)).await,
        );
    }
    for header in ["if-match", "if-none-match"] {
        let ask = |id: &'static str| {
            let request = server.http().get(server.url(&format!("{C}/documents/{id}")));
            let request = request.bearer_auth(&key).header(header, "\"1\"");
            async move { request.send().await.expect("an answer").status() }
        };
        assert_eq!(ask("y1").await, ask("z9").await, "{header}");
    }
    let there = server.admin("GET", &format!("{C}/documents/y1"), None).await;
    assert_eq!(there["document"]["n"], 1, "it is untouched");
}

#[tokio::test]
async fn nothing_is_written_outside_the_filter_or_over_it() {
    let (server, key) = two_tenants("rows-write").await;
    let path = format!("{C}/documents");
    let write = |body: Value| {
        let (server, key, path) = (&server, &key, &path);
        async move { server.ask(Some(key), "POST", path, Some(&body)).await }
    };
    for refused in [
        json!({"upsert": [{"id": "new", "tenant": "y"}]}),
        json!({"upsert": [{"id": "new"}]}),
        json!({"upsert": [{"id": "x0", "tenant": "x"}, {"id": "new", "tenant": "y"}]}),
        json!({"upsert": [{"id": "y1", "tenant": "x"}]}),
        json!({"patch": [{"id": "x0", "tenant": "y"}]}),
        json!({"patch": [{"id": "x0", "tenant": null}]}),
        json!({"upsert_columns": {"id": ["new"], "tenant": ["y"]}}),
    ] {
        let told = write(refused.clone()).await;
        assert_eq!(
            (told.status, told.code()),
            (403, "forbidden"),
            "{refused}: {told:?}"
        );
    }
    let put = server
        .ask(
            Some(&key),
            "PUT",
            &format!("{C}/documents/y1"),
            Some(&json!({"tenant": "x"})),
        )
        .await;
    assert_eq!(put.status, 403);
    write(json!({"upsert": [{"id": "new", "tenant": "x"}], "patch": [{"id": "x0", "n": 99}]}))
        .await
        .ok();
    let gone = write(json!({"delete_by_filter": {"n": {"$gte": 0}}})).await.ok();
    assert_eq!(gone["deleted"], 20, "its own");
    let left = server.admin("GET", C, None).await;
    assert_eq!(left["rows"], 21, "the twenty of the other, and the new one");
}

#[tokio::test]
async fn an_import_writes_the_rows_of_the_filter_and_counts_the_others_as_failed() {
    let (server, key) = two_tenants("rows-import").await;
    let lines = "{\"id\":\"a1\",\"tenant\":\"x\"}\n{\"id\":\"a2\",\"tenant\":\"y\"}\n{\"id\":\"a3\",\"tenant\":\"x\"}\n";
    let answer = server
        .http()
        .post(server.url(&format!("{C}/import")))
        .bearer_auth(&key)
        .header("content-type", "application/x-ndjson")
        .body(lines)
        .send()
        .await
        .expect("an answer");
    let text = answer.text().await.expect("lines");
    let last: Value = serde_json::from_str(text.lines().last().expect("a last line")).expect("json");
    assert_eq!((&last["rows"], &last["failed"]), (&json!(2), &json!(1)), "{text}");
}

#[tokio::test]
async fn cursors_and_idempotency_keys_are_ones_own() {
    let (server, key) = two_tenants("rows-cursor").await;
    let first = server.admin("GET", &format!("{C}/documents?limit=3"), None).await;
    let cursor = first["cursor"].as_str().expect("more");
    let told = server
        .ask(
            Some(&key),
            "GET",
            &format!("{C}/documents?limit=3&cursor={cursor}"),
            None,
        )
        .await;
    assert_eq!((told.status, told.code()), (400, "bad_cursor"), "{told:?}");
    let admin = server.admin_key();
    let write = |key: &str, id: &str| {
        let request = server
            .http()
            .post(server.url(&format!("{C}/documents")))
            .bearer_auth(key);
        let request = request.header("idempotency-key", "k1");
        let body = json!({"upsert": [{"id": id, "tenant": "x"}]});
        async move { request.json(&body).send().await.expect("an answer").status() }
    };
    assert_eq!(write(&admin, "i1").await, 200);
    // Another body under the same key of somebody else: no mismatch, no answer of theirs.
    assert_eq!(write(&key, "i2").await, 200);
    assert_eq!(write(&key, "i3").await, 422);
}

#[tokio::test]
async fn a_quota_is_set_by_whoever_may_know_of_every_row() {
    let (server, _) = two_tenants("rows-quota").await;
    let grants = json!([{"collections": "*", "operations": ["read", "write", "schema"], "row_filter": {"tenant": "x"}}]);
    server.role("schemer", grants).await;
    let (_, key) = server.key(&["schemer"], json!({})).await;
    let quota = json!({"quota": {"rows": 1}});
    for (method, path) in [("PATCH", C), ("PUT", "/v1/collections/own")] {
        let told = server.ask(Some(&key), method, path, Some(&quota)).await;
        assert_eq!((told.status, told.code()), (403, "forbidden"), "{told:?}");
        assert_eq!(told.body["field"], "quota");
    }
    server.admin("PATCH", C, Some(&quota)).await;
    let (path, body) = (
        format!("{C}/documents"),
        json!({"upsert": [{"id": "x99", "tenant": "x"}]}),
    );
    let told = server.ask(Some(&key), "POST", &path, Some(&body)).await;
    assert_eq!((told.status, told.code()), (422, "quota_exceeded"), "{told:?}");
    assert!(
        !told.body.to_string().contains("40"),
        "how many there are is not said: {told:?}"
    );
}
