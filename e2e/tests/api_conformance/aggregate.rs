//! Aggregate and recall.

use rhumb_e2e::Suite;
use rhumb_e2e::compare::{close, plain};
use serde_json::{Value, json};

use crate::{collection, documents};

#[tokio::test]
async fn aggregates_group_and_recall_measures() {
    let t = Suite::start("aggregate").await;
    for partitions in [1, 3] {
        let name = format!("a{partitions}");
        let fields = json!({"pos": "string", "lex": "int", "price": "float", "live": "bool", "at": "timestamp", "v": {"type": "vector", "dim": 2}});
        t.create(&name, json!({"fields": fields, "partitions": partitions}))
            .await;
        t.write(&name, json!({"upsert": [
            {"id": "a", "pos": "n", "lex": 1, "price": 1.5, "live": true, "at": "2024-01-01T00:00:00Z", "v": [1, 0]},
            {"id": "b", "pos": "n", "lex": 2, "live": false, "v": [0, 1]},
            {"id": "c", "pos": "v", "lex": -7, "price": 4, "live": true, "at": "2020-01-01T00:00:00Z"},
            {"id": "d", "lex": 10, "price": -1},
            {"id": "e", "pos": "n"},
            {"id": "gone", "pos": "n", "lex": 1000},
        ]})).await;
        t.write(&name, json!({"delete": ["gone"]})).await;
        for settled in [false, true] {
            if settled {
                t.client().optimize(&name).await.expect("optimize works");
            }
            groups_are_counted(&t, &name).await;
        }
    }
    requests_are_checked(&t).await;
    recall_is_measured(&t).await;
    t.finish().await;
}

fn path(name: &str) -> String {
    format!("{}/aggregate", collection(name))
}

/// The group whose `by` is this.
fn group<'a>(answer: &'a Value, by: &Value) -> Option<&'a Value> {
    answer["groups"]
        .as_array()?
        .iter()
        .find(|group| group["by"] == *by)
}

async fn groups_are_counted(t: &Suite, name: &str) {
    let all = json!({"n": {"count": true}, "s": {"sum": "lex"}, "a": {"avg": "lex"}, "lo": {"min": "lex"}, "hi": {"max": "lex"}, "p": {"avg": "price"}});
    let has = |by: Value, expected: Value| {
        move |answer: &Value| {
            group(answer, &by).is_some_and(|group| {
                expected
                    .as_object()
                    .into_iter()
                    .flatten()
                    .all(|(key, value)| match value.as_f64() {
                        Some(number) => group[key].as_f64().is_some_and(|found| close(found, number)),
                        None => group[key] == *value,
                    })
            })
        }
    };
    t.case("by one field")
        .post(&path(name), json!({"by": ["pos"], "metrics": all}))
        .await
        .status(200)
        .check("three groups", |answer| {
            answer["groups"].as_array().is_some_and(|g| g.len() == 3)
        })
        .check(
            "n",
            has(
                json!({"pos": "n"}),
                json!({"n": 3, "s": 3, "a": 1.5, "lo": 1, "hi": 2, "p": 1.5}),
            ),
        )
        .check(
            "v",
            has(
                json!({"pos": "v"}),
                json!({"n": 1, "s": -7, "a": -7, "lo": -7, "hi": -7, "p": 4}),
            ),
        )
        .check(
            "missing is a group",
            has(
                json!({"pos": null}),
                json!({"n": 1, "s": 10, "lo": 10, "hi": 10, "p": -1}),
            ),
        );
    t.case("by two fields")
        .post(
            &path(name),
            json!({"by": ["pos", "live"], "metrics": {"n": {"count": true}}}),
        )
        .await
        .status(200)
        .check("five groups", |answer| {
            answer["groups"].as_array().is_some_and(|g| g.len() == 5)
        })
        .check("n, true", has(json!({"pos": "n", "live": true}), json!({"n": 1})))
        .check(
            "n, missing",
            has(json!({"pos": "n", "live": null}), json!({"n": 1})),
        )
        .check(
            "missing, missing",
            has(json!({"pos": null, "live": null}), json!({"n": 1})),
        );
    t.case("of everything")
        .post(&path(name), json!({"metrics": all}))
        .await
        .status(200)
        .check("one group", |answer| {
            answer["groups"].as_array().is_some_and(|g| g.len() == 1)
        })
        .at("/groups/0/n", 5)
        .at("/groups/0/s", 6)
        .near("/groups/0/a", 1.5)
        .near("/groups/0/p", 1.5);
    t.case("under a filter")
        .post(
            &path(name),
            json!({"filter": {"lex": {"$gt": 0}}, "by": ["pos"], "metrics": {"n": {"count": true}}}),
        )
        .await
        .check("n", has(json!({"pos": "n"}), json!({"n": 2})))
        .check("no v", |answer| group(answer, &json!({"pos": "v"})).is_none());
    t.case("by a number")
        .post(
            &path(name),
            json!({"by": ["lex"], "metrics": {"n": {"count": true}}}),
        )
        .await
        .check("each by itself", |answer| {
            answer["groups"].as_array().is_some_and(|g| g.len() == 5)
        })
        .check("-7", has(json!({"lex": -7}), json!({"n": 1})));
    t.case("min and max of a time")
        .post(
            &path(name),
            json!({"metrics": {"first": {"min": "at"}, "last": {"max": "at"}}}),
        )
        .await
        .status_in(&[200, 422])
        .check("as timestamps", |answer| {
            answer["code"].is_string()
                || (answer["groups"][0]["first"] == "2020-01-01T00:00:00.000Z"
                    && answer["groups"][0]["last"] == "2024-01-01T00:00:00.000Z")
        });
    t.case("a metric over nothing")
        .post(
            &path(name),
            json!({"filter": {"pos": "zzz"}, "metrics": {"n": {"count": true}, "p": {"avg": "price"}}}),
        )
        .await
        .status(200)
        .check("no number from nothing", |answer| {
            answer["groups"][0]["p"].is_null()
        });
    t.case("a group without values")
        .post(&path(name), json!({"filter": {"id": "e"}, "by": ["pos"], "metrics": {"p": {"min": "price"}, "s": {"sum": "price"}}}))
        .await
        .check("its minimum is null", |answer| group(answer, &json!({"pos": "n"})).is_some_and(|g| g["p"].is_null()));
    for level in ["strong", "verified", "session", "eventual"] {
        t.case(format!("consistency {level}"))
            .post(
                &path(name),
                json!({"metrics": {"n": {"count": true}}, "consistency": level}),
            )
            .await
            .at("/groups/0/n", 5);
    }
}

async fn requests_are_checked(t: &Suite) {
    let count = || json!({"n": {"count": true}});
    for (body, code) in [
        (json!({"by": ["poss"], "metrics": count()}), "unknown_field"),
        (json!({"metrics": {"p": {"avg": "prce"}}}), "unknown_field"),
        (json!({"filter": {"lx": 1}, "metrics": count()}), "unknown_field"),
        (json!({"metrics": {"p": {"average": "price"}}}), "unknown_field"),
        (json!({"metric": count()}), "unknown_field"),
        (json!({"metrics": {"p": {"avg": "pos"}}}), "type_mismatch"),
        (json!({"metrics": {"p": {"sum": "live"}}}), "type_mismatch"),
    ] {
        t.case(format!("{body}"))
            .post(&path("a1"), body)
            .await
            .refused(422, code);
    }
    for body in [
        json!([]),
        json!({"metrics": []}),
        json!({"metrics": {"n": "count"}}),
        json!({"metrics": {"n": {}}}),
        json!({"metrics": {"p": {"avg": 7}}}),
        json!({"by": "pos", "metrics": count()}),
        json!({"by": [7], "metrics": count()}),
        json!({"metrics": {"n": {"count": "yes"}}}),
        json!({"metrics": {"p": {"avg": "price", "sum": "price"}}}),
        json!({"by": ["v"], "metrics": count()}),
        json!({"metrics": {"p": {"avg": "v"}}}),
    ] {
        t.case(format!("{body}"))
            .post(&path("a1"), body)
            .await
            .status_in(&[400, 422]);
    }
    t.case("of no collection")
        .post(&path("nope"), json!({"metrics": count()}))
        .await
        .refused(404, "collection_not_found");
    t.create("none", json!({"fields": {"pos": "string"}})).await;
    t.case("of no documents")
        .post(&path("none"), json!({"by": ["pos"], "metrics": count()}))
        .await
        .status(200)
        .at("/groups", json!([]));
    t.create("sums", json!({"fields": {"i": "int", "f": "float"}}))
        .await;
    let rows: Vec<Value> = (0..10)
        .map(|n| json!({"id": n, "i": i64::MAX, "f": 1.7e308}))
        .collect();
    t.write("sums", json!({"upsert": rows})).await;
    t.case("sums beyond every number")
        .post(
            &path("sums"),
            json!({"metrics": {"i": {"sum": "i"}, "f": {"sum": "f"}, "a": {"avg": "i"}, "b": {"avg": "f"}}}),
        )
        .await
        .status_in(&[200, 422]);
}

async fn recall_is_measured(t: &Suite) {
    let recall = |name: &str| format!("{}/recall", collection(name));
    t.create(
        "r",
        json!({"fields": {"v": {"type": "vector", "dim": 8}, "g": "int"}}),
    )
    .await;
    let mut rng = rand::SeedableRng::seed_from_u64(3);
    let rows: Vec<Value> = (0..500)
        .map(|n| json!({"id": n, "v": rhumb_e2e::data::vector(&mut rng, 8), "g": n % 5}))
        .collect();
    t.write("r", json!({"upsert": rows})).await;
    for (queries, k, filter) in [(50, 10, None), (5, 1, None), (20, 10, Some(json!({"g": 2})))] {
        let mut body = json!({"queries": queries, "k": k});
        if let Some(filter) = filter {
            body["filter"] = filter;
        }
        t.case(format!("recall {body}"))
            .post(&recall("r"), body)
            .await
            .status(200)
            .at("/queries", queries)
            .check("between 0.9 and 1", |answer| {
                answer["recall"]
                    .as_f64()
                    .is_some_and(|r| (0.9..=1.0).contains(&r))
            });
    }
    t.case("it says with what it asked, and how much a filter lets through")
        .post(&recall("r"), json!({"filter": {"g": 2}}))
        .await
        .at("/from", "stored")
        .near("/selectivity", 0.2)
        .at("/class", "10_to_50_percent");
    let shown = t
        .case("the last figures")
        .get("/metrics")
        .await
        .status(200)
        .bytes();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    for filter in ["none", "10_to_50_percent"] {
        let sample = format!("rhumb_recall{{collection=\"r\",filter=\"{filter}\"}} ");
        t.check("a figure is in the metrics", shown.contains(&sample), || {
            sample.clone()
        });
    }
    t.case("by default")
        .post(&recall("r"), json!({}))
        .await
        .status(200)
        .at("/from", "stored")
        .lacks("/selectivity")
        .lacks("/class")
        .has("/recall")
        .has("/queries");
    for body in [
        json!({"queries": -1}),
        json!({"queries": "x"}),
        json!({"k": 0}),
        json!({"k": 10_001}),
        json!({"kk": 1}),
        json!([]),
        json!({"filter": {"z": 1}}),
    ] {
        t.case(format!("recall {body}"))
            .post(&recall("r"), body)
            .await
            .status_in(&[400, 422]);
    }
    t.case("more queries than rows")
        .post(&recall("r"), json!({"queries": 100_000}))
        .await
        .status_in(&[200, 422]);
    t.create("empty", json!({"fields": {"v": {"type": "vector", "dim": 8}}}))
        .await;
    t.case("of no rows")
        .post(&recall("empty"), json!({"queries": 5}))
        .await
        .status_in(&[200, 422]);
    t.case("of no vectors")
        .post(&recall("none"), json!({"queries": 5}))
        .await
        .status_in(&[200, 422]);
    t.case("of no collection")
        .post(&recall("nope"), json!({}))
        .await
        .refused(404, "collection_not_found");
    t.case("documents are untouched")
        .get(&format!("{}?limit=1", documents("r")))
        .await
        .check("the first", |page| plain(&page["documents"][0]["id"]) == "0");
}
