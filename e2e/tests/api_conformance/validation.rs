//! What a document may hold, and that one bad document refuses the whole request.

use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{document, documents};

#[tokio::test]
async fn documents_are_validated_before_anything_is_written() {
    let t = Suite::start("validation").await;
    a_bad_document_fails_the_whole_request(&t).await;
    values_must_fit_their_field(&t).await;
    t.finish().await;
}

async fn a_bad_document_fails_the_whole_request(t: &Suite) {
    t.create(
        "whole",
        json!({"fields": {"embedding": {"type": "vector", "dim": 3}, "n": "int"}}),
    )
    .await;
    let path = documents("whole");
    t.write("whole", json!({"upsert": [{"id": "old", "n": 1}]})).await;
    let batch = |bad: Value| json!({"delete": ["old"], "upsert": [{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d", "embedding": bad}]});
    let too_big: Value = serde_json::from_str("[1e39, 0, 0]").expect("JSON");
    let nan = rhumb_e2e::data::b64(&[f32::NAN, 0.0, 0.0]);
    let infinite = rhumb_e2e::data::b64(&[f32::NEG_INFINITY, 0.0, 0.0]);
    let cases = [
        ("two of three dimensions", json!([1, 2]), "dimension_mismatch"),
        (
            "four of three dimensions",
            json!([1, 2, 3, 4]),
            "dimension_mismatch",
        ),
        ("no dimensions", json!([]), "dimension_mismatch"),
        (
            "b64 of two",
            json!(rhumb_e2e::data::b64(&[1.0, 2.0])),
            "dimension_mismatch",
        ),
        ("NaN", json!(nan), "not_finite"),
        ("infinity", json!(infinite), "not_finite"),
        ("beyond f32", too_big, "not_finite"),
    ];
    for (name, vector, code) in cases {
        t.case(name)
            .post(&path, batch(vector))
            .await
            .refused(422, code)
            .field("upsert[3].embedding");
    }
    for vector in [
        json!("text"),
        json!(7),
        json!(true),
        json!({"x": 1}),
        json!(["a", "b", "c"]),
        json!([[1], [2], [3]]),
    ] {
        t.case(format!("{vector} for a vector"))
            .post(&path, batch(vector))
            .await
            .status(422)
            .field("upsert[3].embedding");
    }
    for vector in [
        json!("b64:"),
        json!("b64:!!!"),
        json!("b64:AAA"),
        json!("b64:AAAAAAAA AAAA"),
    ] {
        t.case(format!("{vector} for a vector"))
            .post(&path, batch(vector))
            .await
            .status(422)
            .field("upsert[3].embedding");
    }
    t.case("patches are checked too")
        .post(
            &path,
            json!({"upsert": [{"id": "a"}], "patch": [{"id": "old", "embedding": [1]}]}),
        )
        .await
        .refused(422, "dimension_mismatch")
        .field("patch[0].embedding");
    t.case("and deletes")
        .post(&path, json!({"upsert": [{"id": "a"}], "delete": ["old", ""]}))
        .await
        .status(422);
    t.case("after all this only the old document is there")
        .get(&path)
        .await
        .ids("/documents", &["old"]);
}

async fn values_must_fit_their_field(t: &Suite) {
    let fields = json!({"s": "string", "i": "int", "f": "float", "b": "bool", "t": "timestamp",
        "ls": ["string"], "li": ["int"], "g": {"type": "text"}, "j": "json"});
    t.create("typed", json!({"fields": fields})).await;
    let path = documents("typed");
    let big: Value = serde_json::from_str("9223372036854775808").expect("JSON");
    let misfits = [
        ("s", json!(1)),
        ("s", json!(true)),
        ("s", json!(["a"])),
        ("s", json!({"a": 1})),
        ("i", json!("1")),
        ("i", json!(1.5)),
        ("i", json!(true)),
        ("i", json!([1])),
        ("i", big),
        ("i", json!(1e30)),
        ("f", json!("1.5")),
        ("f", json!(false)),
        ("f", json!([1.5])),
        ("b", json!(0)),
        ("b", json!("true")),
        ("t", json!("yesterday")),
        ("t", json!("2024-13-01T00:00:00Z")),
        ("t", json!("2024-01-01")),
        ("t", json!(true)),
        ("ls", json!("a")),
        ("ls", json!([1])),
        ("ls", json!(["a", 1])),
        ("ls", json!([["a"]])),
        ("ls", json!({"a": 1})),
        ("li", json!([1.5])),
        ("li", json!(["1"])),
        ("g", json!(1)),
        ("g", json!(["a"])),
    ];
    for (field, value) in misfits {
        t.case(format!("{value} for the field {field}"))
            .post(&path, json!({"upsert": [{"id": "x", field: value}]}))
            .await
            .refused(422, "type_mismatch")
            .check("the field is named", |p| {
                p["field"]
                    .as_str()
                    .is_some_and(|f| f.starts_with(&format!("upsert[0].{field}")))
            });
    }
    let fits = [
        ("f", json!(3)),
        ("f", json!(-0.5)),
        ("i", json!(-9_223_372_036_854_775_808_i64)),
        ("i", json!(i64::MAX)),
        ("s", json!("")),
        ("ls", json!([])),
        ("li", json!([1, -2])),
        ("j", json!({"a": {"b": [1, "x", null]}})),
        ("g", json!("a text")),
        ("b", json!(false)),
        ("s", json!("nul \u{0} and \u{1F600}")),
    ];
    for (field, value) in fits {
        t.write("typed", json!({"upsert": [{"id": "x", field: value}]}))
            .await;
        t.case(format!("{value} comes back"))
            .get(&document("typed", "x"))
            .await
            .status(200)
            .at("/document", json!({field: value}));
    }
    t.case("a bad attribute name")
        .post(&path, json!({"upsert": [{"id": "x", "a-b": 1}]}))
        .await
        .status(422);
    t.case("an integer written as a float")
        .to(reqwest::Method::POST, &path)
        .body(r#"{"upsert": [{"id": "x", "i": 3.0}]}"#, "application/json")
        .await
        .status_in(&[200, 422]);
}
