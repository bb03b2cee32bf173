//! One document at a time: PUT, PATCH, DELETE, GET, their conditions, and get-many.

use reqwest::Method;
use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{document, documents};

#[tokio::test]
async fn single_documents_are_put_patched_deleted_and_got() {
    let t = Suite::start("documents").await;
    t.create(
        "d",
        json!({"fields": {"n": "int", "s": "string", "v": {"type": "vector", "dim": 2}}}),
    )
    .await;
    put_replaces(&t).await;
    patch_merges(&t).await;
    delete_is_final(&t).await;
    etags_guard(&t).await;
    stale_etags_are_refused(&t).await;
    versions_only_grow(&t).await;
    reads_take_their_options(&t).await;
    get_many_keeps_the_order(&t).await;
    unknown_things_are_told_apart(&t).await;
    t.finish().await;
}

async fn put_replaces(t: &Suite) {
    let path = document("d", "n1");
    let first = t
        .case("a new document")
        .put(&path, json!({"n": 1, "s": "one", "v": [1, 0]}))
        .await
        .status(201)
        .at("/id", "n1")
        .check("a version", |answer| answer["version"].is_u64())
        .header("rhumb-session", |token| !token.is_empty())
        .json();
    t.case("GET")
        .get(&path)
        .await
        .status(200)
        .at("/id", "n1")
        .at("/version", first["version"].clone())
        .at("/document", json!({"n": 1, "s": "one", "v": [1.0, 0.0]}))
        .header("etag", |etag| etag == format!("\"{}\"", first["version"]));
    t.case("the same id again")
        .put(&path, json!({"id": "n1", "s": "two"}))
        .await
        .status(200)
        .at("/id", "n1")
        .header("etag", |etag| etag.starts_with('"'));
    t.case("what is not in the body is gone")
        .get(&path)
        .await
        .at("/document", json!({"s": "two"}));
    t.case("an empty document")
        .put(&path, json!({}))
        .await
        .status(200);
    t.case("is a document")
        .get(&path)
        .await
        .status(200)
        .at("/document", json!({}));
    t.case("another id in the body")
        .put(&path, json!({"id": "n2"}))
        .await
        .status(422);
    t.case("a bad value")
        .put(&path, json!({"n": "x"}))
        .await
        .refused(422, "type_mismatch")
        .field("n");
    t.case("a bad vector")
        .put(&path, json!({"v": [1]}))
        .await
        .refused(422, "dimension_mismatch")
        .field("v");
    for body in [json!([]), json!("x"), json!(7), Value::Null] {
        t.case(format!("the body {body}"))
            .put(&path, body)
            .await
            .status(400);
    }
    t.case("after all this it is as it was")
        .get(&path)
        .await
        .at("/document", json!({}));
}

async fn patch_merges(t: &Suite) {
    let path = document("d", "p");
    t.case("PATCH of an absent document")
        .patch(&path, json!({"n": 1}))
        .await
        .refused(404, "document_not_found");
    t.case("creates nothing")
        .get(&path)
        .await
        .refused(404, "document_not_found");
    let new = t
        .case("new")
        .put(&path, json!({"n": 1, "s": "a", "v": [0, 1]}))
        .await
        .status(201)
        .json();
    t.case("one member")
        .patch(&path, json!({"n": 2}))
        .await
        .status(200)
        .at("/id", "p")
        .check("a higher version", |now| {
            now["version"].as_u64() > new["version"].as_u64()
        });
    t.case("the others stay")
        .get(&path)
        .await
        .at("/document", json!({"n": 2, "s": "a", "v": [0.0, 1.0]}));
    t.case("null removes")
        .patch(&path, json!({"s": null, "v": null}))
        .await
        .status(200);
    t.case("what was null is missing")
        .get(&path)
        .await
        .at("/document", json!({"n": 2}));
    t.case("null of what is missing")
        .patch(&path, json!({"s": null}))
        .await
        .status(200);
    t.case("a new attribute")
        .patch(&path, json!({"extra": {"deep": [1]}}))
        .await
        .status(200);
    t.case("is there")
        .get(&path)
        .await
        .at("/document", json!({"n": 2, "extra": {"deep": [1]}}));
    t.case("objects are replaced, not merged")
        .patch(&path, json!({"extra": {"other": 1}}))
        .await
        .status(200);
    t.case("by the new one")
        .get(&path)
        .await
        .at("/document/extra", json!({"other": 1}));
    t.case("a bad value")
        .patch(&path, json!({"n": 1.5}))
        .await
        .refused(422, "type_mismatch");
    t.case("not an object")
        .patch(&path, json!(["n"]))
        .await
        .status(400);
    t.case("nothing").patch(&path, json!({})).await.status(200);
}

async fn delete_is_final(t: &Suite) {
    let path = document("d", "gone");
    t.case("new").put(&path, json!({"n": 1})).await.status(201);
    t.case("DELETE").delete(&path).await.status(204);
    t.case("GET").get(&path).await.refused(404, "document_not_found");
    t.case("a second DELETE").delete(&path).await.status(204);
    t.case("of what never was")
        .delete(&document("d", "never"))
        .await
        .status(204);
    t.case("PATCH does not bring it back")
        .patch(&path, json!({"n": 2}))
        .await
        .status(404);
    t.case("PUT makes a new one")
        .put(&path, json!({"s": "new"}))
        .await
        .status(201);
    t.case("with nothing of the old")
        .get(&path)
        .await
        .at("/document", json!({"s": "new"}));
}

async fn etags_guard(t: &Suite) {
    let path = document("d", "e");
    let absent = "\"1\"";
    t.case("PUT If-Match of an absent id")
        .put(&path, json!({}))
        .header("if-match", absent)
        .await
        .status(412);
    t.case("PATCH If-Match of an absent id")
        .patch(&path, json!({}))
        .header("if-match", absent)
        .await
        .status_in(&[412, 404]);
    t.case("DELETE If-Match of an absent id")
        .delete(&path)
        .header("if-match", absent)
        .await
        .status(412);
    t.case("PUT If-Match: * of an absent id")
        .put(&path, json!({}))
        .header("if-match", "*")
        .await
        .status(412);
    t.case("none of these created it").get(&path).await.status(404);
    t.case("PUT If-None-Match: * of an absent id")
        .put(&path, json!({"n": 1}))
        .header("if-none-match", "*")
        .await
        .status(201);
    t.case("PUT If-None-Match: * of a present id")
        .put(&path, json!({"n": 2}))
        .header("if-none-match", "*")
        .await
        .status(412);
}

async fn stale_etags_are_refused(t: &Suite) {
    let path = document("d", "e");
    let etag = t
        .case("its ETag")
        .get(&path)
        .await
        .at("/document/n", 1)
        .header_value("etag");
    t.case("PUT with the right ETag")
        .put(&path, json!({"n": 3}))
        .header("if-match", &etag)
        .await
        .status(200);
    t.case("PUT with a stale ETag")
        .put(&path, json!({"n": 4}))
        .header("if-match", &etag)
        .await
        .status(412);
    t.case("PATCH with a stale ETag")
        .patch(&path, json!({"n": 4}))
        .header("if-match", &etag)
        .await
        .status(412);
    t.case("DELETE with a stale ETag")
        .delete(&path)
        .header("if-match", &etag)
        .await
        .status(412);
    let etag = t
        .case("only one applied")
        .get(&path)
        .await
        .at("/document/n", 3)
        .header_value("etag");
    t.case("PATCH with the right ETag")
        .patch(&path, json!({"n": 5}))
        .header("if-match", &etag)
        .await
        .status(200);
    t.case("PUT If-Match: * of a present id")
        .put(&path, json!({"n": 6}))
        .header("if-match", "*")
        .await
        .status(200);
    for garbage in [
        "x",
        "",
        "\"",
        "\"x\"",
        "\"-1\"",
        "\"99999999999999999999999\"",
        "1",
    ] {
        t.case(format!("If-Match: {garbage:?}"))
            .put(&path, json!({"n": 7}))
            .header("if-match", garbage)
            .await
            .status_in(&[400, 412, 422]);
    }
    let etag = t
        .case("none of these applied")
        .get(&path)
        .await
        .at("/document/n", 6)
        .header_value("etag");
    t.case("DELETE with the right ETag")
        .delete(&path)
        .header("if-match", &etag)
        .await
        .status(204);
    t.case("and it is gone").get(&path).await.status(404);
}

async fn versions_only_grow(t: &Suite) {
    let path = document("d", "v");
    let mut versions = Vec::new();
    for round in 0..4 {
        let put = t
            .case(format!("PUT {round}"))
            .put(&path, json!({"n": round}))
            .await
            .json();
        versions.push(put["version"].as_u64().unwrap_or_default());
        let patch = t
            .case(format!("PATCH {round}"))
            .patch(&path, json!({"s": "x"}))
            .await
            .json();
        versions.push(patch["version"].as_u64().unwrap_or_default());
        t.write("d", json!({"upsert": [{"id": "v", "n": 100 + round}]}))
            .await;
        let got = t.case(format!("GET {round}")).get(&path).await.json();
        versions.push(got["version"].as_u64().unwrap_or_default());
        t.case(format!("DELETE {round}")).delete(&path).await.status(204);
    }
    let grow = versions.windows(2).all(|pair| pair[0] < pair[1]);
    t.check("versions grow over delete and re-creation", grow, || {
        format!("{versions:?}")
    });
}

async fn reads_take_their_options(t: &Suite) {
    let path = document("d", "r");
    let token = t
        .case("new")
        .put(&path, json!({"n": 1, "s": "a"}))
        .await
        .status(201)
        .header_value("rhumb-session");
    for level in ["strong", "verified", "session", "eventual"] {
        t.case(format!("consistency={level}"))
            .get(&format!("{path}?consistency={level}"))
            .header("rhumb-session", &token)
            .await
            .status(200)
            .at("/document/n", 1);
    }
    t.case("consistency=wrong")
        .get(&format!("{path}?consistency=wrong"))
        .await
        .status_in(&[400, 422]);
    t.case("an unknown parameter")
        .get(&format!("{path}?consistencyy=strong"))
        .await
        .status_in(&[400, 422]);
    t.case("a session token of nobody")
        .get(&path)
        .header("rhumb-session", "garbage")
        .await
        .status_in(&[200, 400, 422]);
    t.case("HEAD")
        .to(Method::HEAD, &path)
        .await
        .status(200)
        .header("etag", |etag| etag.starts_with('"'));
    t.case("HEAD of an absent document")
        .to(Method::HEAD, &document("d", "absent"))
        .await
        .status(404);
    t.case("include")
        .get(&format!("{path}?include=s"))
        .await
        .status(200)
        .at("/document", json!({"s": "a"}));
}

async fn get_many_keeps_the_order(t: &Suite) {
    let rows: Vec<Value> = (0..5)
        .map(|n| json!({"id": format!("m{n}"), "n": n, "s": "x", "v": [n, 1]}))
        .collect();
    t.write("d", json!({"upsert": rows})).await;
    let path = format!("{}/get", documents("d"));
    t.case("some present, some not, one twice")
        .post(&path, json!({"ids": ["m3", "nope", "m1", "m3"]}))
        .await
        .status(200)
        .at("/documents/0/id", "m3")
        .at(
            "/documents/0/document",
            json!({"n": 3, "s": "x", "v": [3.0, 1.0]}),
        )
        .check("a version", |answer| answer["documents"][0]["version"].is_u64())
        .at("/documents/1", Value::Null)
        .at("/documents/2/id", "m1")
        .at("/documents/3/id", "m3")
        .check("as many as asked for", |answer| {
            answer["documents"].as_array().is_some_and(|d| d.len() == 4)
        });
    t.case("include")
        .post(&path, json!({"ids": ["m2"], "include": ["s"]}))
        .await
        .at("/documents/0/document", json!({"s": "x"}));
    t.case("include of what is missing in it")
        .post(&path, json!({"ids": ["n1"], "include": ["s"]}))
        .await
        .at("/documents/0/document", json!({}));
    t.case("include an unknown field")
        .post(&path, json!({"ids": ["m2"], "include": ["ss"]}))
        .await
        .refused(422, "unknown_field");
    t.case("no ids")
        .post(&path, json!({"ids": []}))
        .await
        .status(200)
        .at("/documents", json!([]));
    t.case("without ids")
        .post(&path, json!({}))
        .await
        .status_in(&[400, 422]);
    t.case("one id, no list")
        .post(&path, json!({"ids": "m1"}))
        .await
        .status_in(&[400, 422]);
    t.case("an unknown member")
        .post(&path, json!({"ids": [], "inclde": []}))
        .await
        .refused(422, "unknown_field");
    t.case("ids of another kind")
        .post(&path, json!({"ids": [7]}))
        .await
        .status_in(&[200, 422]);
    t.case("ids of no kind")
        .post(&path, json!({"ids": [null, {}]}))
        .await
        .status_in(&[400, 422]);
    for level in ["strong", "verified", "session", "eventual"] {
        t.case(format!("consistency {level}"))
            .post(&path, json!({"ids": ["m0"], "consistency": level}))
            .await
            .status(200)
            .at("/documents/0/id", "m0");
    }
}

async fn unknown_things_are_told_apart(t: &Suite) {
    t.case("a document of no collection")
        .get(&document("nope", "a"))
        .await
        .refused(404, "collection_not_found");
    t.case("PUT to no collection")
        .put(&document("nope", "a"), json!({}))
        .await
        .refused(404, "collection_not_found");
    t.case("PATCH to no collection")
        .patch(&document("nope", "a"), json!({}))
        .await
        .refused(404, "collection_not_found");
    t.case("DELETE from no collection")
        .delete(&document("nope", "a"))
        .await
        .refused(404, "collection_not_found");
    t.case("get-many of no collection")
        .post(&format!("{}/get", documents("nope")), json!({"ids": ["a"]}))
        .await
        .refused(404, "collection_not_found");
    t.case("an id beyond the limit")
        .get(&document("d", &"x".repeat(513)))
        .await
        .status_in(&[404, 422]);
    t.case("PUT of an id beyond the limit")
        .put(&document("d", &"x".repeat(513)), json!({}))
        .await
        .status(422);
}
