//! Sparse vectors: how they are declared, sent and kept, and what a sparse leg finds,
//! compared with the arithmetic itself.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rhumb_e2e::compare::close;
use rhumb_e2e::data::b64_bytes;
use rhumb_e2e::{Suite, seed};
use serde_json::{Value, json};

use crate::{collection, document, documents, query};

type Sparse = BTreeMap<u32, f32>;

#[tokio::test]
async fn sparse_vectors_are_kept_and_found() {
    let t = Suite::start("sparse").await;
    let seed = seed();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    they_are_declared(&t).await;
    they_come_back_as_they_were(&t).await;
    wrong_ones_are_refused(&t).await;
    queries_have_forms(&t).await;
    for partitions in [1, 3] {
        hits_are_those_of_brute_force(&t, &mut rng, partitions).await;
    }
    t.finish().await;
}

async fn they_are_declared(t: &Suite) {
    for (n, definition) in [json!("sparse_vector"), json!({"type": "sparse_vector"})]
        .into_iter()
        .enumerate()
    {
        let name = format!("declared-{n}");
        let path = collection(&name);
        t.create(&name, json!({"fields": {"terms": definition}})).await;
        t.case("the same definition in the other form")
            .put(&path, json!({"fields": {"terms": "sparse_vector"}}))
            .await
            .status(200);
        t.case("the field is shown")
            .get(&path)
            .await
            .at("/fields/terms", json!("sparse_vector"));
    }
    t.case("a setting it does not have")
        .put(
            &collection("declared-2"),
            json!({"fields": {"terms": {"type": "sparse_vector", "dim": 3}}}),
        )
        .await
        .refused(422, "unknown_field")
        .field("fields.terms.dim");
    t.case("no list of them")
        .put(
            &collection("declared-2"),
            json!({"fields": {"terms": ["sparse_vector"]}}),
        )
        .await
        .refused(422, "invalid_value");
    t.case("an undeclared one is json")
        .post(
            &documents("declared-0"),
            json!({"upsert": [{"id": "a", "other": {"indices": [1], "values": [1]}}]}),
        )
        .await
        .status(200);
    t.case("which the collection shows")
        .get(&collection("declared-0"))
        .await
        .at("/fields/other", json!("json"));
}

fn pairs(elements: &[(u32, f32)]) -> String {
    let bytes: Vec<u8> = elements
        .iter()
        .flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()].concat())
        .collect();
    b64_bytes(&bytes)
}

async fn they_come_back_as_they_were(t: &Suite) {
    t.create("kept", json!({"fields": {"terms": "sparse_vector"}}))
        .await;
    let shown = json!({"indices": [2, 9, 4_294_967_295_u32], "values": [-1.5, 0.1, 3.0]});
    let base64 = pairs(&[(9, 0.1), (2, -1.5), (u32::MAX, 3.0), (5, 0.0)]);
    let forms = [
        json!({"indices": [9, 2, 4_294_967_295_u32], "values": [0.1, -1.5, 3]}),
        json!({"values": [3, 0, -1.5, 0.1], "indices": [4_294_967_295_u32, 7, 2, 9]}),
        json!(base64),
    ];
    for (n, form) in forms.iter().enumerate() {
        let id = format!("put-{n}");
        t.case(format!("PUT {form}"))
            .put(&document("kept", &id), json!({"terms": form}))
            .await
            .status(201);
    }
    let upserts: Vec<Value> = (0..3)
        .map(|n| json!({"id": format!("up-{n}"), "terms": forms[n]}))
        .collect();
    t.write("kept", json!({"upsert": upserts})).await;
    let ids = ["col-0", "col-1", "col-2"];
    t.write("kept", json!({"upsert_columns": {"id": ids, "terms": forms}}))
        .await;
    t.write("kept", json!({"upsert": [{"id": "patched"}, {"id": "removed", "terms": forms[0]}, {"id": "empty", "terms": {"indices": [], "values": []}}]}))
        .await;
    t.case("PATCH sets one")
        .patch(&document("kept", "patched"), json!({"terms": forms[0]}))
        .await
        .status(200);
    t.case("PATCH removes one")
        .patch(&document("kept", "removed"), json!({"terms": null}))
        .await
        .status(200);
    for settled in [false, true] {
        if settled {
            t.client().optimize("kept").await.expect("optimize works");
        }
        for id in [
            "put-0", "put-1", "put-2", "up-0", "up-1", "up-2", "col-0", "col-1", "col-2", "patched",
        ] {
            t.case(format!("{id}, settled {settled}"))
                .get(&document("kept", id))
                .await
                .at("/document", json!({"terms": shown}));
        }
        t.case(format!("removed, settled {settled}"))
            .get(&document("kept", "removed"))
            .await
            .at("/document", json!({}));
        t.case(format!("empty, settled {settled}"))
            .get(&document("kept", "empty"))
            .await
            .at("/document", json!({"terms": {"indices": [], "values": []}}));
        t.case(format!("$exists, settled {settled}"))
            .get(&format!(
                "{}?filter={}",
                documents("kept"),
                "%7B%22terms%22:%7B%22$exists%22:false%7D%7D"
            ))
            .await
            .ids("/documents", &["removed"]);
    }
    t.restart().await;
    t.case("after a restart")
        .get(&document("kept", "put-2"))
        .await
        .at("/document", json!({"terms": shown}));
}

async fn wrong_ones_are_refused(t: &Suite) {
    let path = documents("kept");
    let beyond: Value = serde_json::from_str("[1e39]").expect("JSON");
    for (value, code, place) in [
        (json!({"indices": [1, 1], "values": [1, 2]}), "invalid_value", ""),
        (
            json!({"indices": [1], "values": [1, 2]}),
            "invalid_value",
            ".values",
        ),
        (
            json!({"indices": [-1], "values": [1]}),
            "invalid_value",
            ".indices[0]",
        ),
        (
            json!({"indices": [4_294_967_296_u64], "values": [1]}),
            "invalid_value",
            ".indices[0]",
        ),
        (
            json!({"indices": [1.5], "values": [1]}),
            "invalid_value",
            ".indices[0]",
        ),
        (
            json!({"indices": [1], "values": ["1"]}),
            "type_mismatch",
            ".values[0]",
        ),
        (
            json!({"indices": [1], "values": beyond}),
            "not_finite",
            ".values[0]",
        ),
        (json!({"indices": [1]}), "type_mismatch", ".values"),
        (
            json!({"indices": [1], "values": [1], "dim": 3}),
            "unknown_field",
            ".dim",
        ),
        (json!([1, 2]), "type_mismatch", ""),
        (json!(7), "type_mismatch", ""),
        (json!("x"), "type_mismatch", ""),
        (json!("b64:AAAA"), "invalid_value", ""),
        (json!(pairs(&[(1, f32::NAN)])), "not_finite", ""),
    ] {
        t.case(format!("the sparse vector {value}"))
            .post(&path, json!({"upsert": [{"id": "bad", "terms": value}]}))
            .await
            .refused(422, code)
            .field(&format!("upsert[0].terms{place}"));
    }
    let many: Vec<u32> = (0..16_385).collect();
    t.case("more elements than allowed")
        .post(
            &path,
            json!({"upsert": [{"id": "bad", "terms": {"indices": many, "values": many}}]}),
        )
        .await
        .refused(422, "limit_exceeded");
    t.case("sorted by one")
        .get(&format!("{path}?order_by=terms"))
        .await
        .refused(422, "type_mismatch");
    t.case("compared in a filter")
        .post(
            &query("kept"),
            json!({"sparse": {"indices": [2], "values": [1]}, "filter": {"terms": {"$gt": 3}}}),
        )
        .await
        .refused(422, "type_mismatch");
}

async fn queries_have_forms(t: &Suite) {
    let path = query("kept");
    for leg in [
        json!({"indices": [9], "values": [10]}),
        json!({"value": {"indices": [9], "values": [10]}}),
        json!({"field": "terms", "value": {"indices": [9, 3], "values": [10, 5]}}),
        json!(pairs(&[(9, 10.0)])),
    ] {
        for body in [
            json!({"sparse": leg, "k": 2}),
            json!({"legs": [{"sparse": leg}], "k": 2}),
        ] {
            t.case(format!("the query {body}"))
                .post(&path, body)
                .await
                .status(200)
                .ids("/hits", &["col-0", "col-1"])
                .near("/hits/0/score", 1.0)
                .lacks("/hits/0/document");
        }
    }
    t.case("nothing in common")
        .post(&path, json!({"sparse": {"indices": [77], "values": [1]}}))
        .await
        .status(200)
        .at("/hits", json!([]));
    t.case("with its document")
        .post(
            &path,
            json!({"sparse": {"indices": [9], "values": [1]}, "k": 1, "include": true}),
        )
        .await
        .at("/hits/0/document/terms/indices", json!([2, 9, 4_294_967_295_u32]));
    for (leg, status, code, field) in [
        (
            json!({"indices": [], "values": []}),
            422,
            "invalid_value",
            "sparse",
        ),
        (
            json!({"indices": [1], "values": [0]}),
            422,
            "invalid_value",
            "sparse",
        ),
        (
            json!({"indices": [1, 1], "values": [1, 1]}),
            422,
            "invalid_value",
            "sparse",
        ),
        (json!({"field": "terms"}), 400, "malformed", "sparse.value"),
        (
            json!({"field": "term", "value": {"indices": [1], "values": [1]}}),
            422,
            "unknown_field",
            "sparse.field",
        ),
        (
            json!({"feild": "terms", "value": 3}),
            422,
            "unknown_field",
            "sparse.feild",
        ),
        (json!(7), 422, "type_mismatch", "sparse"),
    ] {
        t.case(format!("the leg {leg}"))
            .post(&path, json!({"sparse": leg}))
            .await
            .refused(status, code)
            .field(field);
    }
    t.create("dense", json!({"fields": {"v": {"type": "vector", "dim": 2}}}))
        .await;
    t.case("no sparse field at all")
        .post(
            &query("dense"),
            json!({"sparse": {"indices": [1], "values": [1]}}),
        )
        .await
        .refused(422, "invalid_value")
        .field("sparse");
    t.case("a field of another type")
        .post(
            &query("dense"),
            json!({"sparse": {"field": "v", "value": {"indices": [1], "values": [1]}}}),
        )
        .await
        .refused(422, "type_mismatch")
        .field("sparse.field");
    let two = json!({"fields": {"a": "sparse_vector", "b": "sparse_vector"}});
    t.create("two-sparse", two).await;
    t.case("which of two")
        .post(
            &query("two-sparse"),
            json!({"sparse": {"indices": [1], "values": [1]}}),
        )
        .await
        .refused(422, "invalid_value")
        .field("sparse.field")
        .hint_names("a, b");
}

const ROWS: u64 = 900;

struct Row {
    terms: Option<Sparse>,
    group: u64,
}

/// A few common indices, many rare ones; some values negative.
fn random_sparse(rng: &mut StdRng) -> Sparse {
    let count = rng.random_range(1..12);
    (0..count)
        .map(|_| {
            let rare = rng.random_bool(0.4);
            let index = if rare {
                rng.random_range(0..5_000)
            } else {
                rng.random_range(0..30)
            };
            let size = rng.random_range(0.05..3.0_f32);
            (index, if rng.random_bool(0.15) { -size } else { size })
        })
        .collect()
}

fn wire(terms: &Sparse) -> Value {
    json!({"indices": terms.keys().collect::<Vec<_>>(), "values": terms.values().collect::<Vec<_>>()})
}

async fn hits_are_those_of_brute_force(t: &Suite, rng: &mut StdRng, partitions: u32) {
    let name = format!("sparse-{partitions}");
    t.create(
        &name,
        json!({"fields": {"terms": "sparse_vector", "group": "int"}, "partitions": partitions}),
    )
    .await;
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    for step in 0..3 {
        let mut upsert = BTreeMap::new();
        for _ in 0..ROWS / (step + 1) {
            let row = Row {
                terms: rng.random_bool(0.95).then(|| random_sparse(rng)),
                group: rng.random_range(0..10),
            };
            let id = rng.random_range(0..ROWS * 2);
            let mut sent = json!({"id": id, "group": row.group});
            if let Some(terms) = &row.terms {
                sent["terms"] = wire(terms);
            }
            upsert.insert(id, sent);
            rows.insert(id, row);
        }
        let delete: Vec<u64> = rows
            .keys()
            .copied()
            .filter(|id| !upsert.contains_key(id) && rng.random_bool(0.2))
            .collect();
        rows.retain(|id, _| !delete.contains(id));
        let upsert: Vec<Value> = upsert.into_values().collect();
        t.write(&name, json!({"upsert": upsert, "delete": delete})).await;
        if step == 1 {
            t.client().optimize(&name).await.expect("optimize works");
        }
        compare(t, rng, &name, &rows).await;
    }
    t.client().optimize(&name).await.expect("optimize works");
    compare(t, rng, &name, &rows).await;
}

async fn compare(t: &Suite, rng: &mut StdRng, name: &str, rows: &BTreeMap<u64, Row>) {
    for (k, group) in [(10, None), (50, Some(3)), (1, None), (10_000, None)] {
        let target = random_sparse(rng);
        let expected = brute_force(rows, &target, k, group);
        let mut body = json!({"sparse": wire(&target), "k": k});
        if let Some(group) = group {
            body["filter"] = json!({"group": group});
        }
        t.case(format!("{name} k {k} group {group:?}"))
            .post(&query(name), body)
            .await
            .status(200)
            .holds(|answer| agree(&answer.json(), &expected));
    }
}

fn brute_force(rows: &BTreeMap<u64, Row>, target: &Sparse, k: usize, group: Option<u64>) -> Vec<(u64, f64)> {
    let score = |terms: &Sparse| {
        let mut common = terms
            .iter()
            .filter_map(|(at, x)| Some((x, target.get(at)?)))
            .peekable();
        common.peek()?;
        Some(common.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>())
    };
    let mut all: Vec<(u64, f64)> = rows
        .iter()
        .filter(|(_, row)| group.is_none_or(|group| row.group == group))
        .filter_map(|(id, row)| Some((*id, score(row.terms.as_ref()?)?)))
        .collect();
    // As f32, so that ties are ties.
    all.sort_by(|a, b| (b.1 as f32).total_cmp(&(a.1 as f32)).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

fn agree(answer: &Value, expected: &[(u64, f64)]) -> Result<(), String> {
    let hits = answer["hits"].as_array().cloned().unwrap_or_default();
    if hits.len() != expected.len() {
        return Err(format!("{} hits, expected {}", hits.len(), expected.len()));
    }
    for (hit, (id, score)) in hits.iter().zip(expected) {
        let found = hit["score"].as_f64().unwrap_or(f64::NAN);
        if hit["id"].as_u64() != Some(*id) || !close(found, *score) {
            return Err(format!("{hit} where {id} with {score} should be"));
        }
    }
    Ok(())
}
