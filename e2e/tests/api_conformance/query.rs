//! What a query finds: compared with the arithmetic itself, for each metric, before and
//! after the rows settle, with filters, ties, zeros and extremes.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rhumb_e2e::compare::{close, plain};
use rhumb_e2e::data::{b64, cosine, dot, minus_l2, vector};
use rhumb_e2e::{Suite, seed};
use serde_json::{Value, json};

use crate::query;

const DIM: usize = 24;
const ROWS: usize = 600;

type Score = fn(&[f32], &[f32]) -> f64;

const METRICS: [(&str, Score); 3] = [("cosine", cosine), ("dot", dot), ("l2", minus_l2)];

#[tokio::test]
async fn queries_find_what_the_arithmetic_says() {
    let t = Suite::start("query").await;
    let seed = seed();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for partitions in [1, 3] {
        every_metric_agrees_with_brute_force(&t, &mut rng, partitions).await;
    }
    ties_go_to_the_smaller_id(&t).await;
    zero_vectors_score_zero(&t).await;
    scores_are_finite_whatever_the_vectors(&t).await;
    t.finish().await;
}

struct Row {
    vectors: BTreeMap<&'static str, Vec<f32>>,
    group: u64,
}

async fn every_metric_agrees_with_brute_force(t: &Suite, rng: &mut StdRng, partitions: u32) {
    let name = format!("metrics-{partitions}");
    let fields: BTreeMap<&str, Value> = METRICS
        .iter()
        .map(|(metric, _)| (*metric, json!({"type": "vector", "dim": DIM, "metric": metric})))
        .collect();
    t.create(&name, json!({"fields": fields, "partitions": partitions}))
        .await;
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    for step in 0..4 {
        let changed = change_some(rng, &mut rows, step);
        t.write(&name, changed).await;
        if step == 1 {
            t.client().optimize(&name).await.expect("optimize works");
        }
        compare(t, rng, &name, &rows).await;
    }
    t.client().optimize(&name).await.expect("optimize works");
    compare(t, rng, &name, &rows).await;
}

/// Upserts, deletes and vectorless documents; returns the write that does it.
fn change_some(rng: &mut StdRng, rows: &mut BTreeMap<u64, Row>, step: usize) -> Value {
    let mut upsert = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..ROWS / (step + 1) {
        let id = rng.random_range(0..ROWS as u64 * 2);
        if !seen.insert(id) {
            continue;
        }
        let mut row = Row {
            vectors: BTreeMap::new(),
            group: rng.random_range(0..10),
        };
        let mut document = json!({"id": id, "group": row.group});
        for (metric, _) in METRICS {
            if rng.random_bool(0.95) {
                let values = vector(rng, DIM);
                document[metric] = if rng.random_bool(0.5) {
                    json!(b64(&values))
                } else {
                    json!(values)
                };
                row.vectors.insert(metric, values);
            }
        }
        upsert.push(document);
        rows.insert(id, row);
    }
    let delete: Vec<u64> = rows
        .keys()
        .copied()
        .filter(|id| !seen.contains(id) && rng.random_bool(0.2))
        .collect();
    rows.retain(|id, _| !delete.contains(id));
    json!({"upsert": upsert, "delete": delete})
}

async fn compare(t: &Suite, rng: &mut StdRng, name: &str, rows: &BTreeMap<u64, Row>) {
    for (metric, score) in METRICS {
        for (k, group, exact) in [
            (10, None, true),
            (10, None, false),
            (50, Some(3), true),
            (7, Some(5), false),
            (10_000, None, true),
        ] {
            let target = vector(rng, DIM);
            let expected = brute_force(rows, metric, score, &target, k, group);
            let mut body = json!({"vector": {"field": metric, "value": target}, "k": k});
            if exact {
                body["exact"] = json!(true);
            }
            if let Some(group) = group {
                body["filter"] = json!({"group": group});
            }
            t.case(format!("{name} {metric} k {k} group {group:?} exact {exact}"))
                .post(&query(name), body)
                .await
                .status(200)
                .holds(|answer| agree(&answer.json(), &expected, exact));
        }
    }
}

fn brute_force(
    rows: &BTreeMap<u64, Row>,
    metric: &str,
    score: Score,
    target: &[f32],
    k: usize,
    group: Option<u64>,
) -> Vec<(u64, f64)> {
    let mut all: Vec<(u64, f64)> = rows
        .iter()
        .filter(|(_, row)| group.is_none_or(|group| row.group == group))
        .filter_map(|(id, row)| Some((*id, score(row.vectors.get(metric)?, target))))
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

/// Scores must agree place by place.  Ids must too where no neighbour is as good within
/// the precision of f32; an approximate answer may miss a few.
fn agree(answer: &Value, expected: &[(u64, f64)], exact: bool) -> Result<(), String> {
    let hits = answer["hits"].as_array().cloned().unwrap_or_default();
    if hits.len() != expected.len() {
        return Err(format!("{} hits, expected {}", hits.len(), expected.len()));
    }
    let found: BTreeMap<u64, f64> = hits
        .iter()
        .map(|hit| {
            (
                hit["id"].as_u64().unwrap_or(u64::MAX),
                hit["score"].as_f64().unwrap_or(f64::NAN),
            )
        })
        .collect();
    let falls = hits
        .windows(2)
        .all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64());
    if !falls {
        return Err("scores are not in falling order".to_owned());
    }
    let last = expected.last().map_or(f64::NEG_INFINITY, |(_, score)| *score);
    let certain = expected.iter().filter(|(_, score)| !close(*score, last));
    let missing: Vec<u64> = certain
        .filter(|(id, _)| !found.contains_key(id))
        .map(|(id, _)| *id)
        .collect();
    let allowed = if exact { 0 } else { expected.len() / 10 };
    if missing.len() > allowed {
        return Err(format!("missing {missing:?}"));
    }
    let truth: BTreeMap<u64, f64> = expected.iter().copied().collect();
    let wrong = found
        .iter()
        .find(|(id, score)| truth.get(id).is_some_and(|truth| !close(*truth, **score)));
    match wrong {
        Some((id, score)) => Err(format!("the score of {id} is {score}, should be {}", truth[id])),
        None => Ok(()),
    }
}

async fn ties_go_to_the_smaller_id(t: &Suite) {
    for metric in ["cosine", "dot", "l2"] {
        let name = format!("ties-{metric}");
        t.create(
            &name,
            json!({"fields": {"v": {"type": "vector", "dim": 2, "metric": metric}}, "partitions": 2}),
        )
        .await;
        let ids = ["b", "a", "é", "10", "9", "Z"];
        for part in ids.chunks(2) {
            let rows: Vec<Value> = part.iter().map(|id| json!({"id": id, "v": [1, 0]})).collect();
            t.write(&name, json!({"upsert": rows})).await;
        }
        let sorted = ["10", "9", "Z", "a", "b", "é"];
        for k in [1, 3, 6, 10] {
            for exact in [true, false] {
                t.case(format!("{metric} ties, k {k}, exact {exact}"))
                    .post(&query(&name), json!({"vector": [1, 0], "k": k, "exact": exact}))
                    .await
                    .ids("/hits", &sorted[..k.min(6)]);
            }
        }
        t.client().optimize(&name).await.expect("optimize works");
        t.write(
            &name,
            json!({"upsert": [{"id": "0", "v": [1, 0]}, {"id": "zz", "v": [1, 0]}]}),
        )
        .await;
        t.case(format!("{metric} ties between settled and fresh rows"))
            .post(&query(&name), json!({"vector": [1, 0], "k": 8}))
            .await
            .ids("/hits", &["0", "10", "9", "Z", "a", "b", "zz", "é"]);
    }
    t.create("ties-n", json!({"fields": {"v": {"type": "vector", "dim": 1}}}))
        .await;
    let rows: Vec<Value> = [100, 9, 10, 1]
        .iter()
        .map(|id| json!({"id": id, "v": [1]}))
        .collect();
    t.write("ties-n", json!({"upsert": rows})).await;
    t.case("numbers tie by value")
        .post(&query("ties-n"), json!({"vector": [1]}))
        .await
        .ids("/hits", &["1", "9", "10", "100"]);
}

async fn zero_vectors_score_zero(t: &Suite) {
    t.create("zeros", json!({"fields": {"v": {"type": "vector", "dim": 2}}}))
        .await;
    t.write(
        "zeros",
        json!({"upsert": [{"id": "p", "v": [1, 0]}, {"id": "z", "v": [0, 0]}, {"id": "n", "v": [-1, 0]}]}),
    )
    .await;
    t.case("a zero vector lies between")
        .post(&query("zeros"), json!({"vector": [1, 0]}))
        .await
        .ids("/hits", &["p", "z", "n"])
        .near("/hits/0/score", 1.0)
        .near("/hits/1/score", 0.0)
        .near("/hits/2/score", -1.0);
    t.case("a zero query finds all alike")
        .post(&query("zeros"), json!({"vector": [0, 0]}))
        .await
        .ids("/hits", &["n", "p", "z"])
        .near("/hits/0/score", 0.0)
        .near("/hits/2/score", 0.0);
}

async fn scores_are_finite_whatever_the_vectors(t: &Suite) {
    let extremes: [[f32; 2]; 7] = [
        [3e38, 3e38],
        [-3e38, 3e38],
        [1e-45, 0.0],
        [0.0, -1e-40],
        [f32::MIN_POSITIVE, 1.0],
        [1e20, -1e20],
        [-0.0, 0.0],
    ];
    for metric in ["cosine", "dot", "l2"] {
        let name = format!("extreme-{metric}");
        t.create(
            &name,
            json!({"fields": {"v": {"type": "vector", "dim": 2, "metric": metric}}}),
        )
        .await;
        let rows: Vec<Value> = extremes
            .iter()
            .enumerate()
            .map(|(n, v)| json!({"id": n, "v": b64(v)}))
            .collect();
        t.write(&name, json!({"upsert": rows})).await;
        for settled in [false, true] {
            if settled {
                t.client().optimize(&name).await.expect("optimize works");
            }
            for target in extremes {
                for exact in [true, false] {
                    t.case(format!(
                        "{metric} of {target:?}, settled {settled}, exact {exact}"
                    ))
                    .post(&query(&name), json!({"vector": b64(&target), "exact": exact}))
                    .await
                    .status(200)
                    .holds(|answer| all_finite(&answer.json()));
                }
            }
        }
    }
    t.case("a huge vector is like itself")
        .post(
            &query("extreme-cosine"),
            json!({"vector": b64(&extremes[0]), "k": 1}),
        )
        .await
        .near("/hits/0/score", 1.0);
}

/// NaN and infinity are no JSON: a server that lets one through writes null.
fn all_finite(answer: &Value) -> Result<(), String> {
    let hits = answer["hits"].as_array().cloned().unwrap_or_default();
    if hits.len() != 7 {
        return Err(format!("{} of 7 hits", hits.len()));
    }
    let odd = hits
        .iter()
        .find(|hit| hit["score"].as_f64().is_none_or(|score| !score.is_finite()));
    odd.map_or(Ok(()), |hit| {
        Err(format!("the score of {} is {}", plain(&hit["id"]), hit["score"]))
    })
}
