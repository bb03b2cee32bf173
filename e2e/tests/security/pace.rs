//! How much a key may ask for.

use serde_json::{Value, json};

use crate::home::Guarded;

const DOCUMENTS: &str = "/v1/collections/c/documents";

async fn with_rows(name: &str, rows: usize) -> Guarded {
    let server = Guarded::start(name).await;
    server
        .admin("PUT", "/v1/collections/c", Some(&json!({"fields": {"n": "int"}})))
        .await;
    server.admin("POST", DOCUMENTS, Some(&upsert(rows))).await;
    server
}

fn upsert(rows: usize) -> Value {
    let rows: Vec<Value> = (0..rows)
        .map(|n| json!({"id": format!("{n:04}"), "n": n}))
        .collect();
    json!({ "upsert": rows })
}

#[tokio::test]
async fn a_keys_pace_is_kept() {
    let server = Guarded::start("pace").await;
    let (_, key) = server
        .key(&["reader"], json!({"limits": {"requests_per_s": 5}}))
        .await;
    let mut refused = 0;
    for _ in 0..20 {
        let told = server.ask(Some(&key), "GET", "/v1/whoami", None).await;
        refused += usize::from(told.status == 429);
    }
    assert!(refused >= 5, "{refused} of 20 were too many");
    let admin = server.admin_key();
    let other = server.ask(Some(&admin), "GET", "/v1/whoami", None).await;
    assert_eq!(other.status, 200, "others are not slowed");
}

/// Each way of moving rows leaves a debt that the next request of the same key meets.
#[tokio::test]
async fn rows_are_paid_for_before_the_next_request() {
    let server = with_rows("pace-rows", 60).await;
    let ids: Vec<String> = (0..60).map(|n| format!("{n:04}")).collect();
    let ways = [
        ("POST", DOCUMENTS.to_owned(), Some(upsert(60))),
        (
            "POST",
            DOCUMENTS.to_owned(),
            Some(json!({"patch": [{"id": "0001", "n": 7}], "delete": ids[2..].to_vec()})),
        ),
        ("POST", DOCUMENTS.to_owned(), Some(upsert(60))),
        ("GET", format!("{DOCUMENTS}?limit=60"), None),
        ("POST", format!("{DOCUMENTS}/get"), Some(json!({ "ids": ids }))),
        ("GET", "/v1/collections/c/export".to_owned(), None),
    ];
    for (method, path, body) in &ways {
        let limits = json!({"limits": {"rows_per_s": 2}});
        let (_, key) = server.key(&["editor"], limits).await;
        let first = server.ask(Some(&key), method, path, body.as_ref()).await;
        assert_eq!(first.status, 200, "{method} {path}: {first:?}");
        let next = server.ask(Some(&key), "GET", "/v1/whoami", None).await;
        assert_eq!(
            (next.status, next.code()),
            (429, "too_many_requests"),
            "{method} {path}"
        );
        let detail = next.body["detail"].as_str().expect("words");
        assert!(detail.contains("2 rows_per_s"), "{detail}");
        let wait = next.retry_after.expect("when to come back");
        assert!(
            (20..=30).contains(&wait),
            "{method} {path}: {wait} s for some 60 rows at 2 per second"
        );
    }
    let (_, key) = server
        .key(&["editor"], json!({"limits": {"rows_per_s": 2}}))
        .await;
    for _ in 0..5 {
        let told = server.ask(Some(&key), "GET", "/v1/collections/c", None).await;
        assert_eq!(told.status, 200, "what moves no rows costs none");
    }
}

#[tokio::test]
async fn hits_and_imported_rows_are_rows_too() {
    let server = Guarded::start("pace-hits").await;
    let fields = json!({"fields": {"v": {"type": "vector", "dim": 2}}});
    server.admin("PUT", "/v1/collections/c", Some(&fields)).await;
    let limits = json!({"limits": {"rows_per_s": 2}});
    let lines: String = (0..60)
        .map(|n| format!("{}\n", json!({"id": n, "v": [n, 1]})))
        .collect();
    let (_, importer) = server.key(&["editor"], limits.clone()).await;
    let import = server
        .http()
        .post(server.url("/v1/collections/c/import"))
        .bearer_auth(&importer)
        .header("content-type", "application/x-ndjson")
        .body(lines);
    let told = import
        .send()
        .await
        .expect("an answer")
        .text()
        .await
        .expect("lines");
    assert!(told.contains("\"rows\":60"), "{told}");
    let one = json!({"vector": [1, 0], "k": 30});
    let (_, asker) = server.key(&["reader"], limits).await;
    let batch = json!({"queries": [one, one]});
    let found = server
        .ask(Some(&asker), "POST", "/v1/collections/c/query", Some(&batch))
        .await;
    assert_eq!(found.status, 200, "{found:?}");
    for key in [importer, asker] {
        let next = server.ask(Some(&key), "GET", "/v1/whoami", None).await;
        assert_eq!(next.status, 429, "{next:?}");
        let wait = next.retry_after.expect("when to come back");
        assert!((25..=30).contains(&wait), "{wait} s for 60 rows at 2 per second");
    }
}

#[tokio::test]
async fn time_of_the_server_is_paid_for_before_the_next_request() {
    let server = with_rows("pace-time", 1_000).await;
    let (_, key) = server
        .key(&["reader"], json!({"limits": {"server_ms_per_s": 1}}))
        .await;
    let scan = format!("{DOCUMENTS}?limit=1000");
    for asked in 1.. {
        let told = server.ask(Some(&key), "GET", &scan, None).await;
        if told.status == 429 {
            let detail = told.body["detail"].as_str().expect("words");
            assert!(detail.contains("1 server_ms_per_s"), "{detail}");
            assert!(told.retry_after.is_some());
            break;
        }
        assert!(
            asked < 100,
            "a hundred scans of a thousand rows took no millisecond"
        );
    }
    let (_, free) = server
        .key(&["reader"], json!({"limits": {"server_ms_per_s": 100_000}}))
        .await;
    let told = server.ask(Some(&free), "GET", &scan, None).await;
    assert_eq!(told.status, 200, "others are not slowed");
}

#[tokio::test]
async fn the_pace_of_the_configuration_holds_for_whoever_has_none() {
    let config = "[security]\npace = { rows_per_s = 3 }\n".to_owned();
    let server = Guarded::start_with("pace-default", Some(config)).await;
    let key = server.admin_key();
    let ask = async |method: &str, path: &str, body: Option<Value>| {
        server.ask(Some(&key), method, path, body.as_ref()).await.status
    };
    assert_eq!(
        ask("PUT", "/v1/collections/c", Some(json!({"fields": {}}))).await,
        201
    );
    assert_eq!(ask("POST", DOCUMENTS, Some(upsert(60))).await, 200);
    assert_eq!(ask("GET", "/v1/whoami", None).await, 429);
}
