//! `POST …/erase`: deletes for good, and says what it did.

use rhumb_e2e::Suite;
use serde_json::json;

use crate::{collection, document, documents};

#[tokio::test]
async fn erasing_deletes_and_certifies() {
    let t = Suite::start("erase").await;
    let path = format!("{}/erase", collection("e"));
    t.create(
        "e",
        json!({"fields": {"v": {"type": "vector", "dim": 2}, "n": "int"}}),
    )
    .await;
    let rows: Vec<_> = (0..10)
        .map(|n| json!({"id": format!("{n}"), "n": n, "v": [n, 1]}))
        .collect();
    t.write("e", json!({"upsert": rows})).await;
    let first = t
        .case("a page of a scan")
        .get(&format!("{}?limit=3", documents("e")))
        .await
        .json();
    t.case("by id and by filter")
        .post(
            &path,
            json!({"ids": ["3", "nobody"], "filter": {"n": {"$gte": 8}}}),
        )
        .await
        .status(200)
        .at("/deleted", 3)
        .at("/complete", true)
        .at("/collection", "e")
        .at("/partitions/0/rows_read", 7)
        .at("/partitions/0/rows_found", 0)
        .check("an id each", |found| {
            found["ids"].as_array().is_some_and(|ids| ids.len() == 4)
        })
        .check("no id in the clear", |found| {
            !found["ids"].to_string().contains("nobody")
        });
    t.case("what was erased is not there")
        .get(&document("e", "3"))
        .await
        .refused(404, "document_not_found");
    t.case("what was not is")
        .get(&document("e", "4"))
        .await
        .at("/document/n", 4);
    let cursor = first["cursor"].as_str().expect("a cursor");
    t.case("a snapshot of before has ended")
        .get(&format!("{}?cursor={cursor}", documents("e")))
        .await
        .refused(410, "cursor_expired");
    t.case("with no body: what was deleted before, and no more")
        .post(&path, json!({}))
        .await
        .at("/deleted", 0)
        .at("/complete", true);
    t.case("an unknown member")
        .post(&path, json!({"id": ["3"]}))
        .await
        .refused(422, "unknown_field")
        .hint_names("ids");
    t.case("an unknown field in the filter")
        .post(&path, json!({"filter": {"m": 1}}))
        .await
        .refused(422, "unknown_field");
    t.case("ids that are no list")
        .post(&path, json!({"ids": "3"}))
        .await
        .status_in(&[400, 422]);
    t.case("of an unknown collection")
        .post(&format!("{}/erase", collection("nope")), json!({}))
        .await
        .refused(404, "collection_not_found");
    t.case("nothing else is gone")
        .get(&collection("e"))
        .await
        .at("/rows", 7);
    t.finish().await;
}
