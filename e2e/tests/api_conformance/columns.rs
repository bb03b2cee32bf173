//! The column form of a write: the same documents, turned on their side.

use rhumb_e2e::Suite;
use rhumb_e2e::data::b64;
use serde_json::{Value, json};

use crate::{collection, document, documents};

#[tokio::test]
async fn columns_write_the_same_documents() {
    let t = Suite::start("columns").await;
    let fields = json!({"embedding": {"type": "vector", "dim": 2}, "pos": "string", "n": "int", "tags": ["string"], "at": "timestamp"});
    t.create("c", json!({"fields": fields.clone()})).await;
    t.create("r", json!({"fields": fields})).await;
    rows_and_columns_are_the_same(&t).await;
    numbers_and_partitions_work_too(&t).await;
    columns_must_agree(&t).await;
    columns_go_with_the_rest(&t).await;
    t.finish().await;
}

async fn rows_and_columns_are_the_same(t: &Suite) {
    let columns = json!({"upsert_columns": {
        "id": ["a", "b", "c"],
        "embedding": b64(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        "pos": ["n", null, "v"],
        "n": [1, 2, null],
        "tags": [["x"], [], null],
        "at": ["2024-01-01T00:00:00Z", null, "2024-01-01T01:00:00+01:00"],
        "fresh": [0.5, 1, null],
    }});
    t.case("columns")
        .post(&documents("c"), columns)
        .await
        .status(200)
        .at("/upserted", 3)
        .at("/skipped", 0);
    let rows = json!({"upsert": [
        {"id": "a", "embedding": [1, 2], "pos": "n", "n": 1, "tags": ["x"], "at": "2024-01-01T00:00:00Z", "fresh": 0.5},
        {"id": "b", "embedding": [3, 4], "n": 2, "tags": [], "fresh": 1},
        {"id": "c", "embedding": [5, 6], "pos": "v", "at": "2024-01-01T00:00:00Z"},
    ]});
    t.case("rows")
        .post(&documents("r"), rows)
        .await
        .status(200)
        .at("/upserted", 3);
    for id in ["a", "b", "c"] {
        let row = t.case("the row").get(&document("r", id)).await.status(200).json();
        t.case(format!("{id} is the same"))
            .get(&document("c", id))
            .await
            .at("/document", row["document"].clone());
    }
    let nested = json!({"upsert_columns": {"id": ["a"], "embedding": [[7, 8]]}});
    t.case("a column of arrays")
        .post(&documents("c"), nested)
        .await
        .status(200);
    t.case("is a column of vectors")
        .get(&document("c", "a"))
        .await
        .at("/document", json!({"embedding": [7.0, 8.0]}));
    let each = json!({"upsert_columns": {"id": ["a", "b"], "embedding": [b64(&[1.0, 1.0]), null]}});
    t.case("a column of b64 texts")
        .post(&documents("c"), each)
        .await
        .status(200);
    t.case("with nulls")
        .get(&document("c", "b"))
        .await
        .at("/document", json!({}));
    t.case("ids alone")
        .post(&documents("c"), json!({"upsert_columns": {"id": ["only"]}}))
        .await
        .status(200)
        .at("/upserted", 1);
    t.case("no rows")
        .post(&documents("c"), json!({"upsert_columns": {"id": []}}))
        .await
        .status(200)
        .at("/upserted", 0);
}

async fn numbers_and_partitions_work_too(t: &Suite) {
    t.create(
        "n",
        json!({"fields": {"v": {"type": "vector", "dim": 3, "metric": "l2"}}, "partitions": 3}),
    )
    .await;
    let count = 1_000_u64;
    let vectors: Vec<f32> = (0..count).flat_map(|n| [n as f32, 0.0, 1.0]).collect();
    let ids: Vec<u64> = (0..count).collect();
    t.case("a thousand rows")
        .post(
            &documents("n"),
            json!({"upsert_columns": {"id": ids, "v": b64(&vectors)}}),
        )
        .await
        .status(200)
        .at("/upserted", count);
    for id in [0, 1, 499, 999] {
        t.case(format!("row {id}"))
            .get(&document("n", &id.to_string()))
            .await
            .at("/document/v", json!([f64::from(id), 0.0, 1.0]));
    }
    t.case("and a query")
        .post(&crate::query("n"), json!({"vector": [500, 0, 1], "k": 3}))
        .await
        .ids("/hits", &["500", "499", "501"]);
    let int8: Vec<u8> = vec![1, 255, 0, 127, 128, 0];
    t.create(
        "i8",
        json!({"fields": {"v": {"type": "vector", "dim": 3, "element": "int8"}}}),
    )
    .await;
    t.case("bytes for int8")
        .post(
            &documents("i8"),
            json!({"upsert_columns": {"id": ["a", "b"], "v": rhumb_e2e::data::b64_bytes(&int8)}}),
        )
        .await
        .status_in(&[200, 422]);
}

async fn columns_must_agree(t: &Suite) {
    let path = documents("c");
    let with = |columns: Value| json!({"upsert_columns": columns});
    for (name, columns, code) in [
        ("a column too short", json!({"id": ["p", "q"], "pos": ["n"]}), ""),
        ("a column too long", json!({"id": ["p"], "pos": ["n", "v"]}), ""),
        (
            "vectors for half the rows",
            json!({"id": ["p", "q"], "embedding": b64(&[1.0, 2.0])}),
            "",
        ),
        (
            "half a vector",
            json!({"id": ["p"], "embedding": b64(&[1.0])}),
            "",
        ),
        (
            "NaN",
            json!({"id": ["p"], "embedding": b64(&[1.0, f32::NAN])}),
            "not_finite",
        ),
        ("one id twice", json!({"id": ["p", "p"]}), "duplicate_id"),
        (
            "a misfit",
            json!({"id": ["p", "q"], "n": [1, "x"]}),
            "type_mismatch",
        ),
        (
            "a misfit of an inferred column",
            json!({"id": ["p", "q"], "m": [1, "x"]}),
            "type_mismatch",
        ),
        ("a bad name", json!({"id": ["p"], "a-b": [1]}), ""),
        ("an empty id", json!({"id": ["p", ""]}), ""),
        ("a number among texts", json!({"id": ["p", 7]}), ""),
    ] {
        let seen = t.case(name).post(&path, with(columns)).await.status_in(&[422]);
        if !code.is_empty() {
            seen.at("/code", code);
        }
    }
    for columns in [
        json!({"pos": ["n"]}),
        json!({"id": "p"}),
        json!({"id": ["p"], "pos": "n"}),
        json!([]),
        json!({"id": {"a": 1}}),
        json!({"id": [["p"]]}),
    ] {
        t.case(format!("the columns {columns}"))
            .post(&path, with(columns))
            .await
            .status_in(&[400, 422]);
    }
    t.case("none of these was written")
        .get(&format!("{path}?start=p&end=q"))
        .await
        .at("/documents", json!([]));
    t.case("nor was a type fixed")
        .get(&collection("c"))
        .await
        .lacks("/fields/m");
}

async fn columns_go_with_the_rest(t: &Suite) {
    t.case("columns, a delete and a patch in one request")
        .post(&documents("c"), json!({"upsert_columns": {"id": ["x", "y"], "n": [1, 2]}, "delete": ["only"], "patch": [{"id": "x", "n": 10}]}))
        .await
        .status(200)
        .at("/upserted", 2)
        .at("/deleted", 1)
        .at("/patched", 1);
    t.case("in order")
        .get(&document("c", "x"))
        .await
        .at("/document", json!({"n": 10}));
    t.case("under a condition")
        .post(
            &documents("c"),
            json!({"upsert_columns": {"id": ["x", "z"], "n": [5, 5]}, "if": {"absent": true}}),
        )
        .await
        .at("/upserted", 1)
        .at("/skipped", 1);
    t.case("rows and columns of one id")
        .post(
            &documents("c"),
            json!({"upsert": [{"id": "w"}], "upsert_columns": {"id": ["w"]}}),
        )
        .await
        .status_in(&[422, 400]);
}
