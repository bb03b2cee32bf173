//! Collections: their definition, its checks, its growth.

use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{collection, document, documents};

#[tokio::test]
async fn collections_are_defined_described_changed_and_deleted() {
    let t = Suite::start("collections").await;
    a_definition_is_created_once(&t).await;
    definitions_are_checked(&t).await;
    names_are_checked(&t).await;
    a_description_has_all_members(&t).await;
    a_definition_can_grow(&t).await;
    t.finish().await;
}

fn wordnet() -> Value {
    json!({
        "fields": {
            "embedding": {"type": "vector", "dim": 384, "metric": "cosine"},
            "gloss": {"type": "text", "language": "english"},
            "pos": "string", "lex": "int", "tags": ["string"], "price": "float",
            "live": "bool", "at": "timestamp", "extra": "json"
        },
        "partitions": 1
    })
}

async fn a_definition_is_created_once(t: &Suite) {
    let path = collection("wordnet");
    t.case("the contract's example is created")
        .put(&path, wordnet())
        .await
        .status(201);
    t.case("the same definition again")
        .put(&path, wordnet())
        .await
        .status(200);

    let mut spelled_out = wordnet();
    spelled_out["fields"]["embedding"]["element"] = json!("f32");
    spelled_out["fields"]["embedding"]["index"] = json!("auto");
    t.case("defaults spelled out")
        .put(&path, spelled_out.clone())
        .await
        .status(200);
    spelled_out["fields"]["embedding"]
        .as_object_mut()
        .expect("an object")
        .remove("metric");
    spelled_out
        .as_object_mut()
        .expect("an object")
        .remove("partitions");
    t.case("defaults left out")
        .put(&path, spelled_out)
        .await
        .status(200);

    let changes = [
        ("/fields", "pos", json!("int")),
        ("/fields", "tags", json!(["int"])),
        ("/fields/embedding", "dim", json!(383)),
        ("/fields/embedding", "metric", json!("l2")),
        ("/fields/embedding", "index", json!("flat")),
        ("", "partitions", json!(2)),
    ];
    for (parent, member, value) in changes {
        let mut other = wordnet();
        other.pointer_mut(parent).expect("in the definition")[member] = value;
        t.case(format!("another {member}"))
            .put(&path, other)
            .await
            .refused(409, "collection_exists");
    }
    let mut fewer = wordnet();
    fewer["fields"].as_object_mut().expect("an object").remove("pos");
    t.case("a field less")
        .put(&path, fewer)
        .await
        .refused(409, "collection_exists");
    let mut more = wordnet();
    more["fields"]["another"] = json!("int");
    t.case("a field more")
        .put(&path, more)
        .await
        .refused(409, "collection_exists");

    t.case("no fields at all")
        .put(&collection("empty"), json!({"fields": {}}))
        .await
        .status(201);
    t.case("no fields again")
        .put(&collection("empty"), json!({"fields": {}}))
        .await
        .status(200);
    t.write("empty", json!({"upsert": [{"id": "a", "n": 1}]})).await;
    t.case("inferred fields do not make it another definition")
        .put(&collection("empty"), json!({"fields": {}}))
        .await
        .status(200);
}

async fn definitions_are_checked(t: &Suite) {
    let path = collection("refused");
    let field = |definition: Value| json!({"fields": {"f": definition}});
    let wrong_values = [
        ("an unknown type", field(json!("strin"))),
        ("an unknown long type", field(json!({"type": "vectr", "dim": 3}))),
        ("dim 0", field(json!({"type": "vector", "dim": 0}))),
        ("a huge dim", field(json!({"type": "vector", "dim": 1_000_000}))),
        (
            "an unknown metric",
            field(json!({"type": "vector", "dim": 3, "metric": "euclid"})),
        ),
        (
            "an unknown element",
            field(json!({"type": "vector", "dim": 3, "element": "f64"})),
        ),
        (
            "an unknown index",
            field(json!({"type": "vector", "dim": 3, "index": "hnsw"})),
        ),
        (
            "hamming of floats",
            field(json!({"type": "vector", "dim": 3, "metric": "hamming"})),
        ),
        (
            "cosine of bits",
            field(json!({"type": "vector", "dim": 8, "element": "binary", "metric": "cosine"})),
        ),
        ("a list of vectors", field(json!(["vector"]))),
        ("partitions 0", json!({"fields": {}, "partitions": 0})),
        (
            "a million partitions",
            json!({"fields": {}, "partitions": 1_000_000}),
        ),
    ];
    for (name, definition) in wrong_values {
        t.case(name).put(&path, definition).await.status_in(&[422, 400]);
    }
    let wrong_shapes = [
        ("a vector without dim", field(json!({"type": "vector"}))),
        ("a list of two types", field(json!(["string", "int"]))),
        ("a list of nothing", field(json!([]))),
        ("a number for a type", field(json!(7))),
        ("null for a type", field(Value::Null)),
        ("dim as text", field(json!({"type": "vector", "dim": "3"}))),
        ("a negative dim", field(json!({"type": "vector", "dim": -3}))),
        ("fields as a list", json!({"fields": ["a"]})),
        ("partitions as text", json!({"fields": {}, "partitions": "two"})),
        ("negative partitions", json!({"fields": {}, "partitions": -1})),
        ("half a partition", json!({"fields": {}, "partitions": 1.5})),
        ("a list for a definition", json!([])),
        ("a text for a definition", json!("fields")),
    ];
    for (name, definition) in wrong_shapes {
        t.case(name).put(&path, definition).await.status_in(&[400, 422]);
    }
    t.case("an unknown member of a definition")
        .put(&path, json!({"fielsd": {}}))
        .await
        .refused(422, "unknown_field")
        .hint_names("fields");
    t.case("an unknown member of a field")
        .put(&path, field(json!({"type": "vector", "dims": 3})))
        .await
        .refused(422, "unknown_field")
        .hint_names("dim");
    t.case("a refused definition creates nothing")
        .get(&path)
        .await
        .refused(404, "collection_not_found");
    t.case("no body at all")
        .body("", "application/json")
        .to(reqwest::Method::PUT, &path)
        .await
        .status(400);

    let fine = [
        (
            "c-binary",
            json!({"v": {"type": "vector", "dim": 12, "element": "binary"}}),
        ),
        (
            "c-hamming",
            json!({"v": {"type": "vector", "dim": 8, "element": "binary", "metric": "hamming"}}),
        ),
        (
            "c-int8",
            json!({"v": {"type": "vector", "dim": 3, "element": "int8", "metric": "dot"}}),
        ),
        (
            "c-f16",
            json!({"v": {"type": "vector", "dim": 3, "element": "f16", "metric": "l2"}}),
        ),
        (
            "c-flat",
            json!({"v": {"type": "vector", "dim": 1, "index": "flat"}}),
        ),
        (
            "c-lists",
            json!({"a": ["string"], "b": ["int"], "c": ["float"], "d": ["bool"]}),
        ),
        (
            "c-two",
            json!({"v": {"type": "vector", "dim": 3}, "w": {"type": "vector", "dim": 4}}),
        ),
    ];
    for (name, fields) in fine {
        t.case(format!("{fields} is fine"))
            .put(&collection(name), json!({"fields": fields}))
            .await
            .status(201);
    }
    let four = json!({"fields": {}, "partitions": 4});
    t.case("four partitions")
        .put(&collection("c-four"), four)
        .await
        .status(201);
    t.case("and they are shown")
        .get(&collection("c-four"))
        .await
        .status(200)
        .at("/partitions", 4);
}

async fn names_are_checked(t: &Suite) {
    let empty = || json!({"fields": {}});
    for name in ["a", "0", "a-b_c", "0-", &"x".repeat(128)] {
        t.case(format!("the name {name}"))
            .put(&collection(name), empty())
            .await
            .status(201);
        t.case(format!("{name} is found"))
            .get(&collection(name))
            .await
            .status(200)
            .at("/name", name);
    }
    for name in [
        "Big",
        "-x",
        "_x",
        "a.b",
        "a%20b",
        "%C3%BC",
        "a%2Fb",
        "a%00",
        "a%0A",
        &"x".repeat(129),
    ] {
        t.case(format!("the name {name}"))
            .put(&collection(name), empty())
            .await
            .status_in(&[422, 400]);
        t.case(format!("{name} is not there"))
            .get(&collection(name))
            .await
            .status_in(&[404, 422, 400]);
    }
    let long = "f".repeat(64);
    for field in [
        "a",
        "_",
        "_x",
        "A9_",
        "Id",
        "document",
        "version",
        "_seq",
        "f_seq",
        "_rowid",
        "_rowaddr",
        "_score",
        "_distance",
        "_deleted",
        long.as_str(),
    ] {
        let name = format!("f-{}", field.to_lowercase());
        let definition = json!({"fields": {field: "int"}});
        t.case(format!("the field {field}"))
            .put(&collection(&name), definition)
            .await
            .status(201);
        t.write(&name, json!({"upsert": [{"id": "x", field: 7}]})).await;
        t.case(format!("{field} is kept"))
            .get(&document(&name, "x"))
            .await
            .status(200)
            .at(&format!("/document/{field}"), 7);
        t.client().optimize(&name).await.expect("optimize works");
        t.case(format!("{field} is kept in the table"))
            .get(&format!("{}?filter={field}%3D7", documents(&name)))
            .await
            .status(200)
            .at(&format!("/documents/0/document/{field}"), 7);
    }
    names_that_look_alike_stay_apart(t).await;
    let too_long = "f".repeat(65);
    for field in ["", "1a", "a-b", "a.b", "a b", "ü", "$a", "id", too_long.as_str()] {
        let definition = json!({"fields": {field: "int"}});
        t.case(format!("the field '{field}'"))
            .put(&collection("refused"), definition)
            .await
            .status(422);
    }
}

async fn names_that_look_alike_stay_apart(t: &Suite) {
    t.create("alike", json!({"fields": {}})).await;
    let fields = ["_seq", "f_seq", "ff_seq", "seq", "Seq", "SEQ"];
    let mut row = json!({"id": "x"});
    for (n, field) in fields.iter().enumerate() {
        row[field] = json!(n);
    }
    t.write("alike", json!({"upsert": [row.clone()]})).await;
    t.client().optimize("alike").await.expect("optimize works");
    row.as_object_mut().expect("an object").remove("id");
    t.case("no two fields share a column")
        .get(&document("alike", "x"))
        .await
        .at("/document", row);
}

async fn a_description_has_all_members(t: &Suite) {
    let seen = t
        .case("a description")
        .get(&collection("wordnet"))
        .await
        .status(200);
    seen.at("/name", "wordnet")
        .at("/partitions", 1)
        .at("/rows", 0)
        .at("/fields/embedding/dim", 384)
        .has("/fields/pos")
        .has("/fields/extra")
        .check("id is a text", |c| {
            c["id"].as_str().is_some_and(|id| !id.is_empty())
        })
        .check("created_at is RFC 3339 in UTC", |c| {
            is_timestamp(&c["created_at"])
        })
        .check("bytes is a number", |c| c["bytes"].is_u64())
        .check("index.state is known", |c| {
            matches!(c["index"]["state"].as_str(), Some("ready" | "building"))
        })
        .check("unindexed_rows is a number", |c| {
            c["index"]["unindexed_rows"].is_u64()
        })
        .has("/position");

    t.write(
        "wordnet",
        json!({"upsert": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}),
    )
    .await;
    t.case("rows are counted")
        .get(&collection("wordnet"))
        .await
        .at("/rows", 3);
    t.write("wordnet", json!({"upsert": [{"id": "a"}], "delete": ["b"]}))
        .await;
    t.case("rows are live rows")
        .get(&collection("wordnet"))
        .await
        .at("/rows", 2);
    t.case("HEAD of a collection")
        .to(reqwest::Method::HEAD, &collection("wordnet"))
        .await
        .status(200);
    t.case("an unknown collection")
        .get(&collection("nope"))
        .await
        .refused(404, "collection_not_found");
}

fn is_timestamp(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T')
}

async fn a_definition_can_grow(t: &Suite) {
    let path = collection("grows");
    t.create("grows", json!({"fields": {"a": "int"}})).await;
    t.write("grows", json!({"upsert": [{"id": "x", "a": 1}]})).await;
    let added = json!({"fields": {"b": "string", "v": {"type": "vector", "dim": 2}}});
    t.case("fields are added")
        .patch(&path, added.clone())
        .await
        .status(200);
    t.case("adding them again changes nothing")
        .patch(&path, added)
        .await
        .status(200);
    t.case("they are shown")
        .get(&path)
        .await
        .has("/fields/a")
        .has("/fields/b")
        .at("/fields/v/dim", 2);
    t.write(
        "grows",
        json!({"upsert": [{"id": "y", "b": "text", "v": [1, 0]}]}),
    )
    .await;
    t.case("a document has the new field")
        .get(&document("grows", "y"))
        .await
        .at("/document/v", json!([1.0, 0.0]));
    t.case("an old one is unchanged")
        .get(&document("grows", "x"))
        .await
        .at("/document", json!({"a": 1}));
    for (name, fields) in [
        ("another type", json!({"a": "string"})),
        ("another list type", json!({"a": ["int"]})),
        ("another dim", json!({"v": {"type": "vector", "dim": 3}})),
        (
            "another metric",
            json!({"v": {"type": "vector", "dim": 2, "metric": "l2"}}),
        ),
        (
            "a good field beside a bad one",
            json!({"c": "int", "a": "string"}),
        ),
    ] {
        t.case(name)
            .patch(&path, json!({"fields": fields}))
            .await
            .status(422);
    }
    t.case("a refused change changes nothing")
        .get(&path)
        .await
        .at("/fields/v/dim", 2)
        .check("no field came of a refusal", |c| c["fields"]["c"].is_null());
    t.case("how a vector is indexed may change")
        .patch(
            &path,
            json!({"fields": {"v": {"type": "vector", "dim": 2, "index": "flat"}}}),
        )
        .await
        .status(200)
        .at("/fields/v/index", "flat");
    t.case("and change back")
        .patch(&path, json!({"fields": {"v": {"type": "vector", "dim": 2}}}))
        .await
        .status(200)
        .at("/fields/v/index", "auto");
    t.case("an unknown member")
        .patch(&path, json!({"feilds": {}}))
        .await
        .refused(422, "unknown_field");
    t.case("a list").patch(&path, json!([])).await.status(400);
    t.case("nothing")
        .patch(&path, json!({}))
        .await
        .status_in(&[200, 400, 422]);
    t.case("of an unknown collection")
        .patch(&collection("nope"), json!({"fields": {"a": "int"}}))
        .await
        .refused(404, "collection_not_found");
    let grown = json!({"fields": {"a": "int", "b": "string", "v": {"type": "vector", "dim": 2}}});
    t.case("the grown definition is the definition")
        .put(&path, grown)
        .await
        .status(200);
}
