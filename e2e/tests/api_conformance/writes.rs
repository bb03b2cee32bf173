//! The write request: what it does, in which order, what it counts, what it refuses.

use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{collection, document, documents};

#[tokio::test]
async fn writes_apply_in_order_or_not_at_all() {
    let t = Suite::start("writes").await;
    counts_tell_what_happened(&t).await;
    one_request_has_one_order(&t).await;
    requests_have_a_shape(&t).await;
    several_partitions_answer_as_one(&t).await;
    one_document_of_several_partitions(&t).await;
    t.finish().await;
}

/// A condition of a single-document verb holds for the document alone, whatever other
/// partition has to remember the request's key.
async fn one_document_of_several_partitions(t: &Suite) {
    t.create("spread", json!({"fields": {"n": "int"}, "partitions": 4}))
        .await;
    for id in 0..12 {
        let path = document("spread", &format!("d{id}"));
        for (key, status) in [("create", 201), ("again", 412)] {
            t.case(format!("{key} d{id}"))
                .put(&path, json!({"n": id}))
                .header("if-none-match", "*")
                .header("idempotency-key", &format!("{key}-{id}"))
                .await
                .status(status);
        }
        t.case("a refused patch of an absent document")
            .patch(&document("spread", &format!("absent{id}")), json!({"n": 1}))
            .header("idempotency-key", &format!("patch-{id}"))
            .await
            .refused(404, "document_not_found");
    }
    t.case("new fields in every partition at once")
        .post(
            &documents("spread"),
            json!({"upsert": (0..40).map(|n| json!({"id": format!("d{n}"), "fresh": n, "n": n})).collect::<Vec<_>>()}),
        )
        .await
        .status(200)
        .at("/upserted", 40);
}

async fn counts_tell_what_happened(t: &Suite) {
    t.create("counts", json!({"fields": {"n": "int"}})).await;
    let path = documents("counts");
    let three = json!({"upsert": [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}]});
    t.case("three new documents")
        .post(&path, three.clone())
        .await
        .status(200)
        .at("/upserted", 3)
        .at("/patched", 0)
        .at("/deleted", 0)
        .at("/skipped", 0)
        .check("a position", |answer| {
            answer["position"].as_str().is_some_and(|p| !p.is_empty())
        })
        .header("rhumb-session", |token| !token.is_empty());
    t.case("the same three again")
        .post(&path, three)
        .await
        .status(200)
        .at("/upserted", 3)
        .at("/skipped", 0);
    t.case("a patch, of which one is absent")
        .post(
            &path,
            json!({"patch": [{"id": "a", "n": 10}, {"id": "nope", "n": 1}]}),
        )
        .await
        .status(200)
        .at("/patched", 1)
        .at("/skipped", 1);
    t.case("the absent one stays absent")
        .get(&document("counts", "nope"))
        .await
        .refused(404, "document_not_found");
    t.case("deleted counts what existed")
        .post(&path, json!({"delete": ["a", "nope", "a"]}))
        .await
        .status(200)
        .at("/deleted", 1);
    t.case("by filter")
        .post(&path, json!({"delete_by_filter": {"n": {"$gte": 2}}}))
        .await
        .status(200)
        .at("/deleted", 2);
    t.case("nothing is left")
        .get(&path)
        .await
        .at("/documents", json!([]));
    t.case("by a filter that matches nothing")
        .post(&path, json!({"delete_by_filter": {"n": 1}}))
        .await
        .status(200)
        .at("/deleted", 0);
    t.case("by a filter as text")
        .post(&path, json!({"delete_by_filter": "n = 1"}))
        .await
        .status(200)
        .at("/deleted", 0);
    t.case("empty lists")
        .post(&path, json!({"upsert": [], "patch": [], "delete": []}))
        .await
        .status(200);
}

async fn one_request_has_one_order(t: &Suite) {
    t.create("order", json!({"fields": {"n": "int", "m": "int"}}))
        .await;
    let path = documents("order");
    t.write(
        "order",
        json!({"upsert": [{"id": "a", "n": 1, "m": 1}, {"id": "b", "n": 1}]}),
    )
    .await;
    // As text: the order of the members must not matter.
    let all_four = r#"{"patch": [{"id": "a", "m": 3}], "upsert": [{"id": "a", "n": 2}],
        "delete": ["a", "b"], "delete_by_filter": {"n": 1}}"#;
    t.case("delete_by_filter, delete, upsert, patch of one id")
        .to(reqwest::Method::POST, &path)
        .body(all_four, "application/json")
        .await
        .status(200)
        .at("/deleted", 2)
        .at("/upserted", 1)
        .at("/patched", 1)
        .at("/skipped", 0);
    t.case("all four took effect")
        .get(&document("order", "a"))
        .await
        .at("/document", json!({"n": 2, "m": 3}));
    t.case("the other is deleted")
        .get(&document("order", "b"))
        .await
        .status(404);
    t.case("a filter sees what was there before the upsert")
        .post(
            &path,
            json!({"upsert": [{"id": "c", "n": 5}], "delete_by_filter": {"n": 5}}),
        )
        .await
        .at("/deleted", 0)
        .at("/upserted", 1);
    t.case("so the upsert survives")
        .get(&document("order", "c"))
        .await
        .status(200);
    t.case("a patch finds what was upserted before it")
        .post(
            &path,
            json!({"upsert": [{"id": "d"}], "patch": [{"id": "d", "n": 9}]}),
        )
        .await
        .at("/patched", 1);
    t.case("and changes it")
        .get(&document("order", "d"))
        .await
        .at("/document", json!({"n": 9}));
    t.case("one id twice in upsert")
        .post(
            &path,
            json!({"upsert": [{"id": "x", "n": 1}, {"id": "y"}, {"id": "x", "n": 2}]}),
        )
        .await
        .refused(422, "duplicate_id")
        .check("the field names the second", |p| {
            p["field"].as_str().is_some_and(|f| f.contains("upsert[2]"))
        });
    t.case("and nothing is written")
        .get(&document("order", "y"))
        .await
        .status(404);
}

async fn requests_have_a_shape(t: &Suite) {
    t.create("shape", json!({"fields": {"n": "int"}})).await;
    let path = documents("shape");
    for body in [
        "",
        "{",
        "[",
        "nope",
        "[]",
        "7",
        "\"x\"",
        "null",
        "{\"upsert\": }",
        "{} {}",
        "{\"upsert\": [{\"id\": \"a\"}]",
    ] {
        t.case(format!("the body {body:?}"))
            .to(reqwest::Method::POST, &path)
            .body(body, "application/json")
            .await
            .status(400);
    }
    for body in [
        json!({"upsert": {"id": "a"}}),
        json!({"upsert": "a"}),
        json!({"upsert": [7]}),
        json!({"upsert": [[]]}),
        json!({"upsert": [null]}),
        json!({"patch": {"id": "a"}}),
        json!({"patch": ["a"]}),
        json!({"delete": "a"}),
        json!({"delete": [["a"]]}),
        json!({"delete_by_filter": 7}),
        json!({"delete_by_filter": []}),
        json!({"if": []}),
    ] {
        t.case(format!("the body {body}"))
            .post(&path, body)
            .await
            .status_in(&[400, 422]);
    }
    for (typo, meant) in [
        ("upserts", "upsert"),
        ("pacth", "patch"),
        ("delet", "delete"),
        ("iff", "if"),
    ] {
        t.case(format!("{typo} for {meant}"))
            .post(&path, json!({typo: []}))
            .await
            .refused(422, "unknown_field")
            .hint_names(meant);
    }
    t.case("deleting by an unknown field")
        .post(&path, json!({"delete_by_filter": {"nn": 1}}))
        .await
        .refused(422, "unknown_field")
        .hint_names("n");
    t.case("nothing at all")
        .post(&path, json!({}))
        .await
        .status_in(&[200, 400, 422]);
    t.case("to nowhere")
        .post(&documents("nope"), json!({"upsert": []}))
        .await
        .refused(404, "collection_not_found");
    t.case("after all this nothing is there")
        .get(&path)
        .await
        .at("/documents", json!([]));
}

async fn several_partitions_answer_as_one(t: &Suite) {
    t.create(
        "parts",
        json!({"fields": {"n": "int", "v": {"type": "vector", "dim": 2, "metric": "dot"}}, "partitions": 5}),
    )
    .await;
    let rows: Vec<Value> = (0..200)
        .map(|n| json!({"id": format!("{n:03}"), "n": n, "v": [n, 1]}))
        .collect();
    t.case("one write over all partitions")
        .post(&documents("parts"), json!({"upsert": rows}))
        .await
        .status(200)
        .at("/upserted", 200)
        .has("/position");
    t.case("a delete over all partitions")
        .post(
            &documents("parts"),
            json!({"delete_by_filter": {"n": {"$lt": 100}}}),
        )
        .await
        .status(200)
        .at("/deleted", 100);
    t.case("rows over all partitions")
        .get(&collection("parts"))
        .await
        .at("/rows", 100);
    t.case("a scan merges them in order")
        .get(&format!("{}?limit=3", documents("parts")))
        .await
        .ids("/documents", &["100", "101", "102"]);
    t.case("an order over all of them")
        .get(&format!("{}?limit=2&order_by=-n", documents("parts")))
        .await
        .ids("/documents", &["199", "198"]);
    t.case("a query over all of them")
        .post(
            &crate::query("parts"),
            json!({"vector": [1, 0], "k": 3, "exact": true}),
        )
        .await
        .ids("/hits", &["199", "198", "197"]);
    t.case("an aggregate over all of them")
        .post(
            &format!("{}/aggregate", collection("parts")),
            json!({"metrics": {"n": {"count": true}, "s": {"sum": "n"}}}),
        )
        .await
        .at("/groups/0/n", 100)
        .at("/groups/0/s", (100..200).sum::<i32>());
    t.case("mixed verbs over all of them")
        .post(
            &documents("parts"),
            json!({"patch": [{"id": "150", "n": -1}, {"id": "000", "n": 1}], "delete": ["151", "000"]}),
        )
        .await
        .at("/patched", 1)
        .at("/skipped", 1)
        .at("/deleted", 1);
}
