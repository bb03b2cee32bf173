//! Conditions of a write, judged for each document by itself.

use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{document, documents};

#[tokio::test]
async fn conditions_are_judged_per_document() {
    let t = Suite::start("conditions").await;
    absent_and_version_are_judged_per_document(&t).await;
    filters_are_judged_on_the_stored_document(&t).await;
    wrong_conditions_are_refused(&t).await;
    t.finish().await;
}

async fn absent_and_version_are_judged_per_document(t: &Suite) {
    t.create("if", json!({"fields": {"n": "int"}})).await;
    let path = documents("if");
    t.write("if", json!({"upsert": [{"id": "old", "n": 1}]})).await;
    let absent = json!({"upsert": [{"id": "old", "n": 2}, {"id": "new", "n": 2}], "if": {"absent": true}});
    t.case("absent")
        .post(&path, absent)
        .await
        .status(200)
        .at("/upserted", 1)
        .at("/skipped", 1);
    t.case("the old is as it was")
        .get(&document("if", "old"))
        .await
        .at("/document/n", 1);
    t.case("the new is there")
        .get(&document("if", "new"))
        .await
        .at("/document/n", 2);

    let version = t.case("a version").get(&document("if", "old")).await.json()["version"].clone();
    let at = |version: &Value, n: i64| json!({"upsert": [{"id": "old", "n": n}], "if": {"version": version}});
    t.case("the right version")
        .post(&path, at(&version, 3))
        .await
        .at("/upserted", 1)
        .at("/skipped", 0);
    t.case("the same version again")
        .post(&path, at(&version, 4))
        .await
        .at("/upserted", 0)
        .at("/skipped", 1);
    t.case("only the first applied")
        .get(&document("if", "old"))
        .await
        .at("/document/n", 3);
    t.case("a version of an absent document")
        .post(
            &path,
            json!({"upsert": [{"id": "nope", "n": 1}], "if": {"version": version}}),
        )
        .await
        .at("/skipped", 1);
}

async fn filters_are_judged_on_the_stored_document(t: &Suite) {
    let path = documents("if");
    let version = 1;
    let filter = |id: &str, n: i64| json!({"upsert": [{"id": id, "n": n}], "if": {"filter": {"n": 3}}});
    t.case("a filter that matches")
        .post(&path, filter("old", 5))
        .await
        .at("/upserted", 1);
    t.case("a filter that no longer matches")
        .post(&path, filter("old", 6))
        .await
        .at("/skipped", 1);
    t.case("a filter and no document")
        .post(&path, filter("nope", 6))
        .await
        .at("/skipped", 1);
    t.case("an absent document stays absent")
        .get(&document("if", "nope"))
        .await
        .status(404);

    t.case("a delete under a false condition")
        .post(&path, json!({"delete": ["old"], "if": {"version": version}}))
        .await
        .at("/deleted", 0)
        .at("/skipped", 1);
    t.case("a patch under a false condition")
        .post(
            &path,
            json!({"patch": [{"id": "old", "n": 0}], "if": {"filter": {"n": 77}}}),
        )
        .await
        .at("/patched", 0)
        .at("/skipped", 1);
    t.case("a patch under a true condition")
        .post(
            &path,
            json!({"patch": [{"id": "old", "n": 50}], "if": {"filter": "n = 5"}}),
        )
        .await
        .at("/patched", 1);
    t.case("a delete under a true condition")
        .post(&path, json!({"delete": ["old"], "if": {"filter": {"n": 50}}}))
        .await
        .at("/deleted", 1);
}

async fn wrong_conditions_are_refused(t: &Suite) {
    let path = documents("if");
    let body = |condition: Value| json!({"upsert": [{"id": "z"}], "if": condition});
    t.case("an unknown condition")
        .post(&path, body(json!({"abesnt": true})))
        .await
        .refused(422, "unknown_field");
    t.case("a condition on an unknown field")
        .post(&path, body(json!({"filter": {"m": 1}})))
        .await
        .refused(422, "unknown_field")
        .hint_names("n");
    t.case("a condition of no shape")
        .post(&path, body(json!("absent")))
        .await
        .status_in(&[400, 422]);
    t.case("nothing of these was written")
        .get(&document("if", "z"))
        .await
        .status(404);
}
