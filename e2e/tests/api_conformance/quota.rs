//! A collection's quota.

use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{collection, document, documents};

#[tokio::test]
async fn quotas_are_kept() {
    let t = Suite::start("quota").await;
    for partitions in [1, 4] {
        a_full_collection_takes_no_new_rows(&t, partitions).await;
        a_quota_is_changed(&t, partitions).await;
        other_verbs_are_held_to_it(&t, partitions).await;
    }
    bytes_are_bounded(&t).await;
    an_import_stops(&t).await;
    what_is_wrong_is_named(&t).await;
    a_restart_changes_nothing(&t).await;
    t.finish().await;
}

fn name(what: &str, partitions: u32) -> String {
    format!("{what}-{partitions}")
}

fn upsert(ids: std::ops::Range<u32>) -> Value {
    let rows: Vec<Value> = ids.map(|n| json!({"id": format!("{n:03}"), "n": n})).collect();
    json!({ "upsert": rows })
}

async fn of(t: &Suite, name: &str, partitions: u32, quota: Value) {
    let definition = json!({"fields": {"n": "int"}, "partitions": partitions, "quota": quota});
    t.create(name, definition).await;
}

async fn is_full(t: &Suite, name: &str, write: Value, field: &str) {
    t.case(format!("{name} is full"))
        .post(&documents(name), write)
        .await
        .refused(422, "quota_exceeded")
        .field(field)
        .hint_names(field);
}

async fn has_rows(t: &Suite, name: &str, rows: u32) {
    t.case(format!("{name} has {rows} rows"))
        .get(&collection(name))
        .await
        .at("/rows", rows);
}

async fn a_full_collection_takes_no_new_rows(t: &Suite, partitions: u32) {
    let name = name("full", partitions);
    of(t, &name, partitions, json!({"rows": 10})).await;
    is_full(t, &name, upsert(0..11), "quota.rows").await;
    has_rows(t, &name, 0).await;
    t.case("nothing of it is there")
        .get(&documents(&name))
        .await
        .at("/documents", json!([]));
    t.write(&name, upsert(0..10)).await;
    is_full(t, &name, upsert(9..11), "quota.rows").await;
    t.case("what is there is overwritten")
        .post(&documents(&name), upsert(0..10))
        .await
        .status(200)
        .at("/upserted", 10);
    t.write(&name, json!({"patch": [{"id": "001", "n": 100}]})).await;
    t.write(&name, json!({"delete_by_filter": {"n": 100}})).await;
    t.write(&name, upsert(10..11)).await;
    is_full(t, &name, upsert(1..2), "quota.rows").await;
    has_rows(t, &name, 10).await;
}

async fn a_quota_is_changed(t: &Suite, partitions: u32) {
    let name = name("changed", partitions);
    let path = collection(&name);
    of(t, &name, partitions, json!({"rows": 10, "bytes": 1_000_000})).await;
    t.write(&name, upsert(0..10)).await;
    t.case("it is shown, and how much is used")
        .get(&path)
        .await
        .at("/quota", json!({"rows": 10, "bytes": 1_000_000}))
        .at("/rows", 10);
    t.case("in lists too")
        .get(&format!("/v1/collections?prefix={name}"))
        .await
        .at("/collections/0/quota/rows", 10);
    let definition = |quota: Value| {
        let mut definition = json!({"fields": {"n": "int"}, "partitions": partitions});
        definition["quota"] = quota;
        definition
    };
    t.case("raised by a repeated PUT")
        .put(&path, definition(json!({"rows": 12})))
        .await
        .status(200)
        .at("/quota", json!({"rows": 12}));
    t.write(&name, upsert(10..12)).await;
    is_full(t, &name, upsert(12..13), "quota.rows").await;
    t.case("a PUT without one leaves it")
        .put(&path, definition(Value::Null))
        .await
        .status(200)
        .at("/quota/rows", 12);
    t.case("lowered below what is there")
        .patch(&path, json!({"quota": {"rows": 5}}))
        .await
        .status(200)
        .at("/rows", 12)
        .at("/quota/rows", 5);
    is_full(t, &name, upsert(12..13), "quota.rows").await;
    t.write(&name, upsert(0..12)).await;
    t.write(&name, json!({"delete": ["000"]})).await;
    is_full(t, &name, upsert(0..1), "quota.rows").await;
    t.case("another definition is another collection, whatever its quota")
        .put(
            &path,
            json!({"fields": {}, "partitions": partitions, "quota": {"rows": 100}}),
        )
        .await
        .refused(409, "collection_exists");
    is_full(t, &name, upsert(0..1), "quota.rows").await;
    t.case("taken away")
        .patch(&path, json!({"quota": {}}))
        .await
        .status(200)
        .lacks("/quota");
    t.write(&name, upsert(0..50)).await;
}

async fn other_verbs_are_held_to_it(t: &Suite, partitions: u32) {
    let name = name("verbs", partitions);
    of(t, &name, partitions, json!({"rows": 1})).await;
    t.case("the first")
        .put(&document(&name, "a"), json!({"n": 1}))
        .await
        .status(201);
    t.case("the second")
        .put(&document(&name, "b"), json!({"n": 1}))
        .await
        .refused(422, "quota_exceeded");
    t.case("the first again")
        .put(&document(&name, "a"), json!({"n": 2}))
        .await
        .status(200);
    t.case("under a key")
        .post(&documents(&name), json!({"upsert": [{"id": "c"}, {"id": "d"}]}))
        .header("idempotency-key", "k")
        .await
        .refused(422, "quota_exceeded");
    t.case("deleted").delete(&document(&name, "a")).await.status(204);
    t.case("the second again")
        .put(&document(&name, "b"), json!({"n": 1}))
        .await
        .status(201);
    has_rows(t, &name, 1).await;
}

async fn bytes_are_bounded(t: &Suite) {
    of(t, "bytes", 1, json!({"bytes": 1})).await;
    t.write("bytes", upsert(0..5)).await;
    t.case("into the base")
        .post(&format!("{}/optimize", collection("bytes")), json!({}))
        .await
        .status(200);
    t.case("they are counted")
        .get(&collection("bytes"))
        .await
        .check("some", |info| info["bytes"].as_u64() > Some(1));
    is_full(t, "bytes", upsert(5..6), "quota.bytes").await;
    t.write("bytes", upsert(0..5)).await;
    t.write("bytes", json!({"delete": ["000"]})).await;
}

async fn an_import_stops(t: &Suite) {
    of(t, "imported", 1, json!({"rows": 10})).await;
    let lines: String = (0..11)
        .map(|n| format!("{}\n", json!({"id": n.to_string()})))
        .collect();
    let seen = t
        .case("more than fits")
        .to(
            reqwest::Method::POST,
            &format!("{}/import", collection("imported")),
        )
        .body(lines, "application/x-ndjson")
        .await
        .status(200);
    let last = seen.lines().pop().unwrap_or_default();
    let told = last["done"] == false && last["error"]["code"] == "quota_exceeded" && last["rows"] == 0;
    t.check("its last line says why", told, || last.to_string());
    has_rows(t, "imported", 0).await;
}

async fn what_is_wrong_is_named(t: &Suite) {
    for (quota, status, code, field) in [
        (json!(7), 400, "malformed", "quota"),
        (json!({"rows": -1}), 422, "invalid_value", "quota.rows"),
        (json!({"bytes": "1 GiB"}), 400, "malformed", "quota.bytes"),
        (json!({"row": 1}), 422, "unknown_field", "quota.row"),
    ] {
        t.case(format!("a quota of {quota}"))
            .put(&collection("wrong"), json!({"quota": quota}))
            .await
            .refused(status, code)
            .field(field);
    }
    t.case("and nothing was made")
        .get(&collection("wrong"))
        .await
        .refused(404, "collection_not_found");
}

async fn a_restart_changes_nothing(t: &Suite) {
    t.restart().await;
    for partitions in [1, 4] {
        let name = name("full", partitions);
        t.case("it is still there")
            .get(&collection(&name))
            .await
            .at("/quota/rows", 10)
            .at("/rows", 10);
        is_full(t, &name, upsert(1..2), "quota.rows").await;
        t.write(&name, json!({"delete": ["002"]})).await;
        t.write(&name, upsert(1..2)).await;
    }
}
