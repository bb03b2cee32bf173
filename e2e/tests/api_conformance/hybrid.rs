//! Several legs, fused; groups; re-ranking.  Compared with the same rules over the answers
//! of single legs, and with the arithmetic.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::compare::{close, plain};
use rhumb_e2e::data::vector;
use rhumb_e2e::{Suite, seed};
use serde_json::{Value, json};

use crate::query;

const ROWS: u64 = 400;
const DIM: usize = 8;

#[tokio::test]
async fn legs_are_fused_grouped_and_reranked() {
    let t = Suite::start("hybrid").await;
    let seed = seed();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    fill(&t, &mut rng).await;
    legs_are_fused_by_the_rules(&t, &mut rng).await;
    ties_of_a_fusion_go_to_the_smaller_id(&t).await;
    groups_hold_the_best_of_each_value(&t, &mut rng).await;
    rerank_follows_its_functions(&t).await;
    explain_shows_each_leg(&t).await;
    requests_are_checked(&t).await;
    t.finish().await;
}

async fn fill(t: &Suite, rng: &mut StdRng) {
    let fields = json!({"embedding": {"type": "vector", "dim": DIM}, "other": {"type": "vector", "dim": DIM, "metric": "l2"},
        "terms": "sparse_vector", "gloss": "text", "doc": "string", "n": "int", "price": "float", "at": "timestamp", "tags": ["string"]});
    t.create("mixed", json!({"fields": fields, "partitions": 2}))
        .await;
    let rows: Vec<Value> = (0..ROWS)
        .map(|id| {
            let mut row = json!({
                "id": id, "embedding": vector(rng, DIM), "other": vector(rng, DIM), "gloss": "a small boat",
                "terms": {"indices": [id % 7, 100 + id % 50], "values": [0.5 + (id % 3) as f32, 1.5]},
                "n": id as i64 - 200, "price": id as f64 / 4.0, "at": format!("2026-01-{:02}T00:00:00Z", 1 + id % 28),
            });
            // Every ninth belongs to no document.
            if id % 9 != 0 {
                row["doc"] = json!(format!("doc-{}", id % 40));
            }
            row
        })
        .collect();
    t.write("mixed", json!({"upsert": rows[..300]})).await;
    t.client().optimize("mixed").await.expect("optimize works");
    t.write("mixed", json!({"upsert": rows[300..], "delete": [3, 301]}))
        .await;
}

/// Ids and scores, best first.
async fn ranking(t: &Suite, body: &Value) -> Vec<(u64, f64)> {
    let answer = t
        .client()
        .post(&query("mixed"), body)
        .send()
        .await
        .expect("an answer");
    let hits = answer.json()["hits"].as_array().cloned().unwrap_or_default();
    hits.iter()
        .map(|hit| {
            (
                hit["id"].as_u64().unwrap_or(u64::MAX),
                hit["score"].as_f64().unwrap_or(f64::NAN),
            )
        })
        .collect()
}

fn agree(answer: &Value, expected: &[(u64, f64)]) -> Result<(), String> {
    let hits = answer["hits"].as_array().cloned().unwrap_or_default();
    if hits.len() != expected.len() {
        return Err(format!("{} hits, expected {}", hits.len(), expected.len()));
    }
    for (at, (hit, (id, score))) in hits.iter().zip(expected).enumerate() {
        let found = hit["score"].as_f64().unwrap_or(f64::NAN);
        let tied = expected.iter().filter(|(_, other)| close(*other, *score)).count() > 1;
        if !close(found, *score) || (hit["id"].as_u64() != Some(*id) && !tied) {
            return Err(format!("{hit} at {at}, where {id} with {score} should be"));
        }
    }
    Ok(())
}

async fn legs_are_fused_by_the_rules(t: &Suite, rng: &mut StdRng) {
    let legs = [
        json!({"vector": {"field": "embedding", "value": vector(rng, DIM)}}),
        json!({"sparse": {"indices": [2, 110], "values": [1, 2]}}),
        json!({"vector": {"field": "other", "value": vector(rng, DIM)}}),
    ];
    for filter in [json!({}), json!({"n": {"$gt": 50}})] {
        let mut singles = Vec::new();
        for leg in &legs {
            let mut body = leg.clone();
            body["k"] = json!(100);
            body["exact"] = json!(true);
            if filter != json!({}) {
                body["filter"] = filter.clone();
            }
            singles.push(ranking(t, &body).await);
        }
        for (fuse, weights) in [
            (json!(null), [1.0, 1.0, 1.0]),
            (json!({"method": "rrf"}), [1.0, 1.0, 1.0]),
            (
                json!({"method": "rrf", "k": 1, "weights": [1, 0.5, 3]}),
                [1.0, 0.5, 3.0],
            ),
            (json!({"method": "score"}), [1.0, 1.0, 1.0]),
            (
                json!({"method": "score", "weights": [2, 0, 0.25]}),
                [2.0, 0.0, 0.25],
            ),
        ] {
            let expected = fused(&singles, &fuse, weights);
            let mut body = json!({"legs": legs, "k": 20, "exact": true});
            if !fuse.is_null() {
                body["fuse"] = fuse.clone();
            }
            if filter != json!({}) {
                body["filter"] = filter.clone();
            }
            t.case(format!("three legs, {fuse}, filter {filter}"))
                .post(&query("mixed"), body)
                .await
                .status(200)
                .holds(|answer| agree(&answer.json(), &expected[..20]));
        }
    }
    let value = vector(rng, DIM);
    let general = json!({"legs": [{"vector": {"field": "embedding", "value": value}}, {"sparse": {"indices": [2], "values": [1]}}],
        "fuse": {"weights": [1, 2]}});
    let expected = ranking(t, &general).await;
    t.case("the short form is the general form in the order vector, sparse")
        .post(
            &query("mixed"),
            json!({"sparse": {"indices": [2], "values": [1]}, "vector": {"field": "embedding", "value": value}, "fuse": {"weights": [1, 2]}}),
        )
        .await
        .holds(|answer| agree(&answer.json(), &expected));
}

/// The rules as the documentation has them.
fn fused(singles: &[Vec<(u64, f64)>], fuse: &Value, weights: [f64; 3]) -> Vec<(u64, f64)> {
    let k = fuse["k"].as_f64().unwrap_or(60.0);
    let mut sums: BTreeMap<u64, f64> = BTreeMap::new();
    for (single, weight) in singles.iter().zip(weights) {
        let (Some(best), Some(worst)) = (single.first(), single.last()) else {
            continue;
        };
        if weight == 0.0 {
            continue;
        }
        for (at, (id, score)) in single.iter().enumerate() {
            let part = match fuse["method"].as_str() {
                Some("score") if best.1 > worst.1 => (score - worst.1) / (best.1 - worst.1),
                Some("score") => 1.0,
                _ => 1.0 / (k + at as f64 + 1.0),
            };
            *sums.entry(*id).or_default() += weight * part;
        }
    }
    let mut all: Vec<(u64, f64)> = sums.into_iter().collect();
    all.sort_by(|a, b| (b.1 as f32).total_cmp(&(a.1 as f32)).then(a.0.cmp(&b.0)));
    all
}

async fn ties_of_a_fusion_go_to_the_smaller_id(t: &Suite) {
    t.create(
        "tied",
        json!({"fields": {"v": {"type": "vector", "dim": 2}, "s": "sparse_vector"}, "partitions": 2}),
    )
    .await;
    let rows: Vec<Value> = ["d", "b", "a", "c"]
        .iter()
        .map(|id| json!({"id": id, "v": [1, 0], "s": {"indices": [1], "values": [1]}}))
        .collect();
    t.write("tied", json!({"upsert": rows})).await;
    for method in ["rrf", "score"] {
        for k in [1, 3, 10] {
            t.case(format!("{method}, k {k}"))
                .post(
                    &query("tied"),
                    json!({"vector": [1, 0], "sparse": {"indices": [1], "values": [1]}, "fuse": {"method": method}, "k": k}),
                )
                .await
                .ids("/hits", &["a", "b", "c", "d"][..k.min(4)]);
        }
    }
}

async fn groups_hold_the_best_of_each_value(t: &Suite, rng: &mut StdRng) {
    for (k, size, filter) in [
        (5, 3, None),
        (3, 1, None),
        (100, 2, None),
        (4, 20, Some(json!({"n": {"$lt": 0}}))),
    ] {
        let target = vector(rng, DIM);
        let mut all = json!({"vector": {"field": "embedding", "value": target}, "k": 10_000, "exact": true, "include": ["doc"]});
        let mut body = json!({"vector": {"field": "embedding", "value": target}, "k": k, "exact": true,
            "group_by": {"field": "doc", "size": size}, "include": ["doc"]});
        if let Some(filter) = filter {
            all["filter"] = filter.clone();
            body["filter"] = filter;
        }
        let answer = t
            .client()
            .post(&query("mixed"), &all)
            .send()
            .await
            .expect("an answer");
        let hits = answer.json()["hits"].as_array().cloned().unwrap_or_default();
        let expected = grouped(&hits, k, size);
        t.case(format!("{k} groups of {size}"))
            .post(&query("mixed"), body)
            .await
            .status(200)
            .lacks("/hits")
            .holds(|answer| same_groups(&answer.json()["groups"], &expected));
    }
    t.case("by an integer, two legs")
        .post(
            &query("mixed"),
            json!({"vector": {"field": "embedding", "value": vector(rng, DIM)}, "sparse": {"indices": [2], "values": [1]},
                "group_by": "n", "k": 2}),
        )
        .await
        .status(200)
        .check("each value has one document", |answer| {
            let groups = answer["groups"].as_array().cloned().unwrap_or_default();
            groups.len() == 2
                && groups
                    .iter()
                    .all(|group| group["value"].is_i64() && group["hits"].as_array().is_some_and(|hits| hits.len() == 1))
        });
    t.case("nothing to group")
        .post(
            &query("mixed"),
            json!({"vector": {"field": "embedding", "value": vector(rng, DIM)}, "group_by": "doc", "filter": "n > 5000"}),
        )
        .await
        .at("/groups", json!([]));
}

/// (value, ids), by the rules.
fn grouped(hits: &[Value], k: usize, size: usize) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for hit in hits {
        let Some(value) = hit["document"]["doc"].as_str() else {
            continue;
        };
        let is_full = groups.len() >= k;
        match groups.iter_mut().find(|(known, _)| known == value) {
            Some((_, ids)) if ids.len() < size => ids.push(plain(&hit["id"])),
            Some(_) => {}
            None if !is_full => groups.push((value.to_owned(), vec![plain(&hit["id"])])),
            None => {}
        }
    }
    groups
}

fn same_groups(answer: &Value, expected: &[(String, Vec<String>)]) -> Result<(), String> {
    let groups = answer.as_array().cloned().unwrap_or_default();
    let found: Vec<(String, Vec<String>)> = groups
        .iter()
        .map(|group| {
            let hits = group["hits"].as_array().cloned().unwrap_or_default();
            (
                plain(&group["value"]),
                hits.iter().map(|hit| plain(&hit["id"])).collect(),
            )
        })
        .collect();
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} instead of {expected:?}")),
    }
}

async fn rerank_follows_its_functions(t: &Suite) {
    t.create(
        "ranked",
        json!({"fields": {"v": {"type": "vector", "dim": 1, "metric": "dot"}, "w": {"type": "vector", "dim": 1, "metric": "l2"},
            "stars": "int", "at": "timestamp", "kind": "string"}}),
    )
    .await;
    let rows = json!([
        {"id": "a", "v": [1], "w": [3], "stars": 0, "at": "2026-01-01T00:00:00Z", "kind": "x"},
        {"id": "b", "v": [1], "w": [3], "stars": 3, "at": "2026-01-08T00:00:00Z", "kind": "y"},
        {"id": "c", "v": [1], "w": [3], "stars": 8, "at": "2026-01-15T00:00:00Z", "kind": "x"},
        {"id": "d", "v": [1], "w": [3]},
    ]);
    t.write("ranked", json!({"upsert": rows})).await;
    let week = |curve: &str| json!({"decay": {"field": "at", "origin": "2026-01-15T00:00:00Z", "scale": "7d", "curve": curve}});
    for settled in [false, true] {
        if settled {
            t.client().optimize("ranked").await.expect("optimize works");
        }
        for (rerank, ids, scores) in [
            (
                json!({"functions": [week("gauss")]}),
                ["c", "d", "b", "a"],
                [1.0, 1.0, 0.5, 0.0625],
            ),
            (
                json!({"functions": [week("exp")]}),
                ["c", "d", "b", "a"],
                [1.0, 1.0, 0.5, 0.25],
            ),
            (
                json!({"functions": [week("linear")], "combine": "add"}),
                ["c", "b", "a", "d"],
                [2.0, 1.5, 1.0, 1.0],
            ),
            (
                json!({"functions": [{"value": {"field": "stars", "modifier": "log1p"}, "weight": 2}], "combine": "add"}),
                ["c", "b", "a", "d"],
                [1.0 + 2.0 * 9.0_f64.ln(), 1.0 + 2.0 * 4.0_f64.ln(), 1.0, 1.0],
            ),
            (
                json!({"functions": [{"filter": {"kind": "y"}, "weight": 3}]}),
                ["b", "a", "c", "d"],
                [3.0, 1.0, 1.0, 1.0],
            ),
            (
                json!({"functions": [{"filter": "kind = 'x'", "weight": 3}, {"value": "stars"}]}),
                ["c", "b", "d", "a"],
                [24.0, 3.0, 1.0, 1e-6],
            ),
        ] {
            t.case(format!("{rerank}, settled {settled}"))
                .post(
                    &query("ranked"),
                    json!({"vector": {"field": "v", "value": [1]}, "rerank": rerank}),
                )
                .await
                .status(200)
                .ids("/hits", &ids)
                .near("/hits/0/score", scores[0])
                .near("/hits/1/score", scores[1])
                .near("/hits/2/score", scores[2])
                .near("/hits/3/score", scores[3]);
        }
        t.case(format!("a boost lifts a negative score, settled {settled}"))
            .post(
                &query("ranked"),
                json!({"vector": {"field": "w", "value": [1]}, "rerank": {"functions": [{"filter": {"kind": "y"}, "weight": 2}]}}),
            )
            .await
            .ids("/hits", &["b", "a", "c", "d"])
            .near("/hits/0/score", -2.0)
            .near("/hits/1/score", -4.0);
    }
    t.case("now is the origin of a time when none is named")
        .post(
            &query("ranked"),
            json!({"vector": {"field": "v", "value": [1]}, "rerank": {"functions": [{"decay": {"field": "at", "scale": "1000d"}}], "combine": "add"}}),
        )
        .await
        .ids("/hits", &["c", "b", "a", "d"]);
}

async fn explain_shows_each_leg(t: &Suite) {
    t.case("two legs explained")
        .post(
            &query("mixed"),
            json!({"vector": {"field": "other", "value": [0, 0, 0, 0, 0, 0, 0, 1]}, "sparse": {"indices": [2], "values": [1]}, "explain": true}),
        )
        .await
        .status(200)
        .at("/explain/legs/0/leg", json!("vector"))
        .at("/explain/legs/0/fields", json!(["other"]))
        .at("/explain/legs/0/hits", json!(100))
        .at("/explain/legs/1/leg", json!("sparse"))
        .check("times and rows", |answer| {
            let legs = answer["explain"]["legs"].as_array().cloned().unwrap_or_default();
            legs.iter()
                .all(|leg| leg["took_ms"].as_f64().is_some_and(|ms| ms >= 0.0) && leg["rows_scanned"].as_u64() > Some(0))
        });
}

async fn requests_are_checked(t: &Suite) {
    let leg = json!({"field": "embedding", "value": [1, 0, 0, 0, 0, 0, 0, 0]});
    let sparse = json!({"indices": [2], "values": [1]});
    for (member, value, status, code, field) in [
        ("legs", json!([]), 422, "invalid_value", "legs"),
        ("legs", json!({}), 400, "malformed", "legs"),
        ("legs", json!([{}]), 400, "malformed", "legs[0]"),
        (
            "legs",
            json!([{"vector": leg, "sparse": sparse}]),
            422,
            "invalid_value",
            "legs[0]",
        ),
        (
            "legs",
            json!([{"vektor": leg}]),
            422,
            "unknown_field",
            "legs[0].vektor",
        ),
        (
            "legs",
            json!([{"vector": leg}, {"vector": [1, 2]}]),
            422,
            "invalid_value",
            "legs[1].vector.field",
        ),
        (
            "legs",
            json!(vec![json!({"sparse": sparse}); 9]),
            422,
            "limit_exceeded",
            "legs",
        ),
        ("text", json!({"query": " "}), 422, "invalid_value", "text.query"),
        (
            "text",
            json!({"query": "a", "fields": ["doc"]}),
            422,
            "type_mismatch",
            "text.fields[0]",
        ),
        (
            "text",
            json!({"query": "a", "operator": "nor"}),
            422,
            "invalid_value",
            "text.operator",
        ),
        (
            "text",
            json!({"query": "a", "fuzzy": 3}),
            422,
            "invalid_value",
            "text.fuzzy",
        ),
        ("text", json!("x".repeat(5_000)), 422, "limit_exceeded", "text"),
    ] {
        t.case(format!("{member} {}", shortened(&value)))
            .post(&query("mixed"), json!({member: value}))
            .await
            .refused(status, code)
            .field(field);
    }
    t.case("legs and a leg in short form")
        .post(
            &query("mixed"),
            json!({"vector": leg, "legs": [{"sparse": sparse}]}),
        )
        .await
        .refused(422, "invalid_value")
        .field("legs");
    for (member, value, status, code, field) in [
        (
            "fuse",
            json!({"method": "sum"}),
            422,
            "invalid_value",
            "fuse.method",
        ),
        (
            "fuse",
            json!({"weights": [1]}),
            422,
            "invalid_value",
            "fuse.weights",
        ),
        (
            "fuse",
            json!({"weights": [1, -1]}),
            422,
            "invalid_value",
            "fuse.weights[1]",
        ),
        (
            "fuse",
            json!({"weights": [0, 0]}),
            422,
            "invalid_value",
            "fuse.weights",
        ),
        (
            "fuse",
            json!({"method": "score", "k": 3}),
            422,
            "invalid_value",
            "fuse.k",
        ),
        ("fuse", json!({"k": -1}), 422, "invalid_value", "fuse.k"),
        (
            "fuse",
            json!({"weight": [1, 1]}),
            422,
            "unknown_field",
            "fuse.weight",
        ),
        ("fuse", json!("rrf"), 400, "malformed", "fuse"),
        ("group_by", json!("tags"), 422, "type_mismatch", "group_by"),
        ("group_by", json!("embedding"), 422, "type_mismatch", "group_by"),
        ("group_by", json!("dok"), 422, "unknown_field", "group_by"),
        (
            "group_by",
            json!({"field": "doc", "size": 0}),
            422,
            "invalid_value",
            "group_by.size",
        ),
        (
            "group_by",
            json!({"field": "doc", "size": 1_001}),
            422,
            "limit_exceeded",
            "group_by.size",
        ),
        ("group_by", json!({"size": 3}), 400, "malformed", "group_by.field"),
        ("rerank", json!({}), 400, "malformed", "rerank.functions"),
        (
            "rerank",
            json!({"functions": [{"value": "doc"}]}),
            422,
            "type_mismatch",
            "rerank.functions[0].value",
        ),
        (
            "rerank",
            json!({"functions": [{"value": "n"}], "depth": 5}),
            422,
            "invalid_value",
            "rerank.depth",
        ),
        (
            "rerank",
            json!({"functions": [{"value": "n"}], "depth": 10_001}),
            422,
            "invalid_value",
            "rerank.depth",
        ),
        (
            "rerank",
            json!({"functions": [{"filter": {"m": 1}}]}),
            422,
            "unknown_field",
            "rerank.functions[0].filter.m",
        ),
        (
            "rerank",
            json!({"functions": [{"decay": {"field": "at", "scale": "7 days"}}]}),
            422,
            "type_mismatch",
            "rerank.functions[0].decay.scale",
        ),
        (
            "rerank",
            json!({"functions": vec![json!({"value": "n"}); 17]}),
            422,
            "limit_exceeded",
            "rerank.functions",
        ),
        ("highlight", json!(true), 422, "invalid_value", "highlight"),
    ] {
        t.case(format!("{member} {}", shortened(&value)))
            .post(
                &query("mixed"),
                json!({"vector": leg, "sparse": sparse, member: value}),
            )
            .await
            .refused(status, code)
            .field(field);
    }
    t.case("a fusion of one leg")
        .post(&query("mixed"), json!({"vector": leg, "fuse": {"method": "rrf"}}))
        .await
        .refused(422, "invalid_value")
        .field("fuse");
    t.case("a batch names its query")
        .post(
            &query("mixed"),
            json!({"queries": [{"vector": leg}, {"vector": leg, "fuse": {}}]}),
        )
        .await
        .refused(422, "invalid_value")
        .field("queries[1].fuse");
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}
