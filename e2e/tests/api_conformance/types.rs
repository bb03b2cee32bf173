//! Null and missing, inference, numbers, timestamps, lists and json.

use rand::Rng;
use rand::rngs::StdRng;
use rhumb_e2e::Suite;
use rhumb_e2e::client::escape;
use serde_json::{Value, json};

use crate::{collection, document, documents, query};

#[tokio::test]
async fn values_keep_their_type_and_their_absence() {
    let t = Suite::start("types").await;
    null_is_missing(&t).await;
    types_are_inferred_from_the_first_value(&t).await;
    a_refused_write_fixes_no_type(&t).await;
    timestamps_come_back_in_utc(&t).await;
    numbers_keep_their_value(&t).await;
    json_keeps_its_shape(&t).await;
    types_survive_settling_and_restart(&t).await;
    t.finish().await;
}

async fn null_is_missing(t: &Suite) {
    t.create(
        "nulls",
        json!({"fields": {"n": "int", "s": "string", "v": {"type": "vector", "dim": 2}, "l": ["int"]}}),
    )
    .await;
    t.write(
        "nulls",
        json!({"upsert": [
            {"id": "a", "n": null, "s": null, "v": null, "l": null},
            {"id": "b", "n": 1, "s": "x", "v": [1, 0], "l": [1]},
            {"id": "c"},
        ]}),
    )
    .await;
    t.case("null in an upsert is missing")
        .get(&document("nulls", "a"))
        .await
        .at("/document", json!({}));
    let filter = |text: &str| format!("{}?filter={}", documents("nulls"), escape(text));
    t.case("$exists false")
        .get(&filter(r#"{"n": {"$exists": false}}"#))
        .await
        .ids("/documents", &["a", "c"]);
    t.case("$exists true")
        .get(&filter(r#"{"s": {"$exists": true}}"#))
        .await
        .ids("/documents", &["b"]);
    t.case("a missing vector is no hit")
        .post(&query("nulls"), json!({"vector": [1, 0]}))
        .await
        .ids("/hits", &["b"]);
    t.write("nulls", json!({"upsert": [{"id": "b", "n": null, "s": "y"}]}))
        .await;
    t.case("an upsert replaces all")
        .get(&document("nulls", "b"))
        .await
        .at("/document", json!({"s": "y"}));
    t.write(
        "nulls",
        json!({"patch": [{"id": "b", "s": null, "n": 5, "v": [0, 1]}]}),
    )
    .await;
    t.case("null in a patch removes")
        .get(&document("nulls", "b"))
        .await
        .at("/document", json!({"n": 5, "v": [0.0, 1.0]}));
    t.write("nulls", json!({"upsert": [{"id": "d", "unseen": null}]}))
        .await;
    t.case("null gives no type")
        .get(&collection("nulls"))
        .await
        .lacks("/fields/unseen");
    t.write("nulls", json!({"upsert": [{"id": "e", "l": [1, 2]}]}))
        .await;
    t.case("null within a list")
        .post(
            &documents("nulls"),
            json!({"upsert": [{"id": "f", "l": [1, null]}]}),
        )
        .await
        .status_in(&[422, 200]);
}

async fn types_are_inferred_from_the_first_value(t: &Suite) {
    t.create("inferred", json!({"fields": {}})).await;
    t.write("inferred", json!({"upsert": [
        {"id": "a", "b": true, "i": 1, "f": 1.5, "s": "x", "lb": [true], "li": [1], "lf": [1.5], "ls": ["x"], "j": {"k": 1}},
    ]})).await;
    let shown = t
        .case("inferred fields are shown")
        .get(&collection("inferred"))
        .await
        .status(200);
    let fields = shown.json()["fields"].as_object().cloned().unwrap_or_default();
    let names = ["b", "f", "i", "j", "lb", "lf", "li", "ls", "s"];
    let all = names.iter().all(|name| fields.contains_key(*name));
    t.check("all nine", all && fields.len() == 9, || format!("{fields:?}"));
    let word = |field: &str, word: &str| {
        fields
            .get(field)
            .is_some_and(|value| value.to_string().contains(word))
    };
    for (field, expected) in [
        ("b", "bool"),
        ("i", "int"),
        ("f", "float"),
        ("s", "string"),
        ("li", "int"),
        ("ls", "string"),
        ("j", "json"),
    ] {
        t.check("the inferred type", word(field, expected), || {
            format!("{field}: {:?}", fields.get(field))
        });
    }
    let misfits = [
        ("b", json!(1)),
        ("i", json!(1.5)),
        ("i", json!("1")),
        ("f", json!("x")),
        ("s", json!(1)),
        ("lb", json!([1])),
        ("li", json!(["x"])),
        ("lf", json!(["x"])),
        ("ls", json!([1])),
        ("i", json!([1])),
        ("s", json!(["x"])),
    ];
    for (field, value) in misfits {
        t.case(format!("{value} for the inferred field {field}"))
            .post(
                &documents("inferred"),
                json!({"upsert": [{"id": "x", field: value}]}),
            )
            .await
            .refused(422, "type_mismatch");
    }
    t.write(
        "inferred",
        json!({"upsert": [{"id": "b", "f": 2, "lf": [1, 2], "i": -5}]}),
    )
    .await;
    t.case("an integer fits a float")
        .get(&document("inferred", "b"))
        .await
        .at("/document", json!({"f": 2.0, "lf": [1.0, 2.0], "i": -5}));
    t.case("within one request the first document decides")
        .post(
            &documents("inferred"),
            json!({"upsert": [{"id": "c", "new": 1}, {"id": "d", "new": "x"}]}),
        )
        .await
        .refused(422, "type_mismatch")
        .field("upsert[1].new");
    t.case("a patch infers too")
        .post(
            &documents("inferred"),
            json!({"patch": [{"id": "a", "patched": "text"}]}),
        )
        .await
        .status(200);
    t.case("and fixes the type")
        .post(
            &documents("inferred"),
            json!({"upsert": [{"id": "x", "patched": 1}]}),
        )
        .await
        .refused(422, "type_mismatch");
    t.case("a list of two kinds")
        .post(
            &documents("inferred"),
            json!({"upsert": [{"id": "x", "mixed": [1, "a"]}]}),
        )
        .await
        .status(422);
    t.case("an empty list")
        .post(
            &documents("inferred"),
            json!({"upsert": [{"id": "x", "nothing": []}]}),
        )
        .await
        .status_in(&[200, 422]);
}

async fn a_refused_write_fixes_no_type(t: &Suite) {
    t.create("unfixed", json!({"fields": {"n": "int"}})).await;
    t.case("refused because of n")
        .post(
            &documents("unfixed"),
            json!({"upsert": [{"id": "a", "fresh": 1}, {"id": "b", "n": "x"}]}),
        )
        .await
        .status(422);
    t.case("refused because of an id")
        .post(
            &documents("unfixed"),
            json!({"upsert": [{"id": 1, "fresh": 1}, {"id": "b"}]}),
        )
        .await
        .status(422);
    t.case("refused by a filter")
        .post(
            &documents("unfixed"),
            json!({"upsert": [{"id": "a", "fresh": 1}], "delete_by_filter": {"nope": 1}}),
        )
        .await
        .status(422);
    t.case("nothing was fixed")
        .get(&collection("unfixed"))
        .await
        .lacks("/fields/fresh");
    t.write("unfixed", json!({"upsert": [{"id": "a", "fresh": "a text now"}]}))
        .await;
    t.case("it is a text")
        .get(&document("unfixed", "a"))
        .await
        .at("/document/fresh", "a text now");
}

async fn timestamps_come_back_in_utc(t: &Suite) {
    t.create(
        "times",
        json!({"fields": {"at": "timestamp", "all": ["timestamp"]}}),
    )
    .await;
    for (given, kept) in [
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00.000Z"),
        ("2024-02-29T12:00:00.5Z", "2024-02-29T12:00:00.500Z"),
        ("2024-02-29T12:00:00.123456789Z", "2024-02-29T12:00:00.123Z"),
        ("2024-02-29T12:00:00+02:00", "2024-02-29T10:00:00.000Z"),
        ("2024-02-29T12:00:00-11:30", "2024-02-29T23:30:00.000Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ("2024-02-29t12:00:00z", "2024-02-29T12:00:00.000Z"),
    ] {
        t.write(
            "times",
            json!({"upsert": [{"id": "a", "at": given, "all": [given]}]}),
        )
        .await;
        t.case(format!("the timestamp {given}"))
            .get(&document("times", "a"))
            .await
            .at("/document", json!({"at": kept, "all": [kept]}));
    }
    for wrong in [
        "",
        "now",
        "2024-02-30T00:00:00Z",
        "2024-01-01T24:01:00Z",
        "2024-01-01T00:00:00",
        "20240101T000000Z",
        "-0001-01-01T00:00:00Z",
    ] {
        t.case(format!("the timestamp {wrong:?}"))
            .post(&documents("times"), json!({"upsert": [{"id": "a", "at": wrong}]}))
            .await
            .refused(422, "type_mismatch");
    }
    t.write("times", json!({"upsert": [
        {"id": "a", "at": "2024-01-01T00:00:00Z"}, {"id": "b", "at": "2024-01-01T01:00:00+02:00"}, {"id": "c", "at": "2024-01-01T00:00:00.001Z"},
    ]})).await;
    let filter = |text: &str| format!("{}?filter={}", documents("times"), escape(text));
    t.case("compared as times")
        .get(&filter(r#"{"at": {"$lt": "2024-01-01T00:00:00Z"}}"#))
        .await
        .ids("/documents", &["b"]);
    t.case("equal in another zone")
        .get(&filter(r#"{"at": "2024-01-01T01:00:00+01:00"}"#))
        .await
        .ids("/documents", &["a"]);
    t.case("in SQL")
        .get(&filter("at > '2024-01-01T00:00:00Z'"))
        .await
        .ids("/documents", &["c"]);
    t.case("not a time")
        .get(&filter(r#"{"at": {"$lt": "x"}}"#))
        .await
        .status(422);
}

async fn numbers_keep_their_value(t: &Suite) {
    t.create("numbers", json!({"fields": {"i": "int", "f": "float"}}))
        .await;
    for i in [0, -1, i64::MAX, i64::MIN, 9_007_199_254_740_993] {
        t.write("numbers", json!({"upsert": [{"id": "a", "i": i}]})).await;
        t.case(format!("the integer {i}"))
            .get(&document("numbers", "a"))
            .await
            .check("to the last digit", |answer| {
                answer["document"]["i"].as_i64() == Some(i)
            });
        t.case(format!("is found by {i}"))
            .get(&format!(
                "{}?filter={}",
                documents("numbers"),
                escape(&format!("{{\"i\": {i}}}"))
            ))
            .await
            .ids("/documents", &["a"]);
    }
    let mut rng: StdRng = rand::SeedableRng::seed_from_u64(5);
    let random = (0..200)
        .map(|_| f64::from_bits(rng.random()))
        .filter(|f| f.is_finite())
        .collect::<Vec<_>>();
    for f in [0.1, -0.5, 1e-300, 1.797e308, 5e-324, 1e15, 123456789.12345679]
        .into_iter()
        .chain(random)
    {
        // Rust writes the shortest text that reads back the same, and reads it exactly,
        // which serde_json does not promise.
        t.case(format!("the float {f:?} is written"))
            .to(reqwest::Method::POST, &documents("numbers"))
            .body(
                format!("{{\"upsert\": [{{\"id\": \"a\", \"f\": {f:?}}}]}}"),
                "application/json",
            )
            .await
            .status(200);
        t.case(format!("the float {f:?} comes back"))
            .get(&document("numbers", "a"))
            .await
            .holds(|answer| {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                let digits = text
                    .split("\"f\":")
                    .nth(1)
                    .and_then(|rest| rest.split('}').next());
                let found = digits.and_then(|digits| digits.trim().parse::<f64>().ok());
                let same = found.is_some_and(|found| found.to_bits() == f.to_bits());
                same.then_some(())
                    .ok_or_else(|| format!("{f:?} became {found:?}"))
            });
    }
    t.case("1e400 is no number")
        .to(reqwest::Method::POST, &documents("numbers"))
        .body(r#"{"upsert": [{"id": "a", "f": 1e400}]}"#, "application/json")
        .await
        .status_in(&[400, 422]);
    t.case("an integer beyond i64 in a float field")
        .to(reqwest::Method::POST, &documents("numbers"))
        .body(
            r#"{"upsert": [{"id": "a", "f": 18446744073709551615}]}"#,
            "application/json",
        )
        .await
        .status(200);
    t.case("is a float")
        .get(&document("numbers", "a"))
        .await
        .at("/document/f", 18446744073709551615.0);
}

async fn json_keeps_its_shape(t: &Suite) {
    t.create("jsons", json!({"fields": {"j": "json"}})).await;
    let deep: Value = (0..20).fold(json!("bottom"), |inner, n| json!({format!("level{n}"): [inner]}));
    for value in [
        json!({}),
        json!({"a": {"b": {"c": [1, 2.5, "x", null, true, {}]}}}),
        json!({"": 1}),
        json!({"$gt": 1}),
        json!({"a.b": 1}),
        json!({"ключ": "значение \u{1F600}"}),
        deep,
    ] {
        t.write("jsons", json!({"upsert": [{"id": "a", "j": value}]}))
            .await;
        t.case(format!("the json {value}"))
            .get(&document("jsons", "a"))
            .await
            .at("/document/j", value);
    }
    for value in [json!([1, {"a": 2}]), json!("text"), json!(1)] {
        t.case(format!("{value} for a json field"))
            .post(&documents("jsons"), json!({"upsert": [{"id": "b", "j": value}]}))
            .await
            .status_in(&[200, 422]);
    }
}

async fn types_survive_settling_and_restart(t: &Suite) {
    t.create(
        "kept",
        json!({"fields": {"at": "timestamp", "v": {"type": "vector", "dim": 2}, "tags": ["string"]}}),
    )
    .await;
    let row = json!({
        "at": "2024-01-01T00:00:00.000Z", "v": [0.5, -0.25], "tags": ["a", "", "é"], "i": i64::MIN, "f": 0.1, "b": false, "s": "\u{0}",
        "j": {"x": [null, 1.5]}, "empty": [], "ints": [1, -1],
    });
    let mut with_id = row.clone();
    with_id["id"] = json!("k");
    with_id.as_object_mut().expect("an object").remove("empty");
    let mut row = row;
    row.as_object_mut().expect("an object").remove("empty");
    t.write("kept", json!({"upsert": [with_id, {"id": "bare"}]}))
        .await;
    t.case("as written")
        .get(&document("kept", "k"))
        .await
        .at("/document", row.clone());
    t.client().optimize("kept").await.expect("optimize works");
    let seen = t
        .case("as settled")
        .get(&document("kept", "k"))
        .await
        .at("/document", row.clone())
        .json();
    if std::env::var("RHUMB_E2E_STORE").as_deref() == Ok("memory") {
        return;
    }
    t.restart().await;
    t.case("after a restart")
        .get(&document("kept", "k"))
        .await
        .at("/document", row.clone())
        .at("/version", seen["version"].clone());
    t.case("what was missing stays missing")
        .get(&document("kept", "bare"))
        .await
        .at("/document", json!({}));
    t.write("kept", json!({"patch": [{"id": "k", "f": 0.2}]})).await;
    row["f"] = json!(0.2);
    t.case("a patch over the settled row")
        .get(&document("kept", "k"))
        .await
        .at("/document", row);
}
