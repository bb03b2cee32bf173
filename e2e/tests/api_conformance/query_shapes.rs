//! The query request: its short and long forms, its limits, its refusals, what comes back.

use rhumb_e2e::Suite;
use rhumb_e2e::data::b64;
use serde_json::{Value, json};

use crate::{collection, document, documents, query};

#[tokio::test]
async fn queries_have_forms_limits_and_options() {
    let t = Suite::start("query_shapes").await;
    t.create(
        "one",
        json!({"fields": {"embedding": {"type": "vector", "dim": 3}, "pos": "string", "n": "int"}}),
    )
    .await;
    let rows = json!([
        {"id": "x", "embedding": [1, 0, 0], "pos": "n", "n": 1},
        {"id": "y", "embedding": [0, 1, 0], "pos": "v", "n": 2},
        {"id": "z", "embedding": [0, 0, 1], "n": 3},
        {"id": "xy", "embedding": [1, 1, 0], "pos": "n", "n": 4},
        {"id": "none", "pos": "n"},
    ]);
    t.write("one", json!({"upsert": rows})).await;
    vectors_come_in_many_forms(&t).await;
    k_has_a_range(&t).await;
    include_chooses_the_attributes(&t).await;
    accuracy_is_a_choice(&t).await;
    options_are_checked(&t).await;
    two_vector_fields_must_be_told_apart(&t).await;
    batches_answer_in_order(&t).await;
    writes_are_seen_at_once(&t).await;
    a_timeout_cancels(&t).await;
    t.finish().await;
}

async fn vectors_come_in_many_forms(t: &Suite) {
    let wire = b64(&[1.0, 0.0, 0.0]);
    for vector in [
        json!([1, 0, 0]),
        json!(wire),
        json!({"value": [1.0, 0, 0]}),
        json!({"value": wire}),
        json!({"field": "embedding", "value": [1, 0, 0]}),
        json!({"field": "embedding", "value": wire}),
    ] {
        t.case(format!("the vector {vector}"))
            .post(&query("one"), json!({"vector": vector, "k": 2}))
            .await
            .status(200)
            .ids("/hits", &["x", "xy"])
            .near("/hits/0/score", 1.0)
            .near("/hits/1/score", 0.5_f64.sqrt())
            .lacks("/hits/0/document")
            .check("took_ms", |answer| {
                answer["took_ms"].as_f64().is_some_and(|ms| ms >= 0.0)
            })
            .header("server-timing", |value| value.contains("dur="));
    }
    let beyond: Value = serde_json::from_str("[1e39, 0, 0]").expect("JSON");
    for (vector, code) in [
        (json!([1, 0]), "dimension_mismatch"),
        (json!([]), "dimension_mismatch"),
        (json!(b64(&[1.0])), "dimension_mismatch"),
        (
            json!({"field": "embedding", "value": [1, 0, 0, 0]}),
            "dimension_mismatch",
        ),
        (json!(b64(&[f32::NAN, 0.0, 0.0])), "not_finite"),
        (beyond, "not_finite"),
        (json!({"field": "embeding", "value": [1, 0, 0]}), "unknown_field"),
    ] {
        t.case(format!("the vector {vector}"))
            .post(&query("one"), json!({"vector": vector}))
            .await
            .refused(422, code)
            .check("the field is named", |p| {
                p["field"].as_str().is_some_and(|f| f.starts_with("vector"))
            });
    }
    for vector in [
        json!("x"),
        json!("b64:*"),
        json!(7),
        json!(null),
        json!(["a", "b", "c"]),
        json!({}),
        json!({"value": 7}),
    ] {
        t.case(format!("the vector {vector}"))
            .post(&query("one"), json!({"vector": vector}))
            .await
            .status_in(&[400, 422]);
    }
    t.case("a field that is no vector")
        .post(
            &query("one"),
            json!({"vector": {"field": "pos", "value": [1, 0, 0]}}),
        )
        .await
        .status(422);
}

async fn k_has_a_range(t: &Suite) {
    let with = |k: Value| json!({"vector": [1, 0, 0], "k": k});
    let hits = |n: usize| move |answer: &Value| answer["hits"].as_array().is_some_and(|h| h.len() == n);
    t.case("ten by default")
        .post(&query("one"), json!({"vector": [1, 0, 0]}))
        .await
        .check("all four", hits(4));
    t.case("k 1")
        .post(&query("one"), with(json!(1)))
        .await
        .check("one", hits(1));
    t.case("k 10,000")
        .post(&query("one"), with(json!(10_000)))
        .await
        .status(200)
        .check("those with a vector", hits(4));
    for k in [json!(0), json!(10_001), json!(1_000_000_000)] {
        t.case(format!("k {k}"))
            .post(&query("one"), with(k))
            .await
            .refused(422, "k_out_of_range")
            .field("k");
    }
    let huge: Value = serde_json::from_str("99999999999999999999").expect("JSON");
    for k in [json!(-1), json!(1.5), json!("10"), json!([10]), json!(true), huge] {
        t.case(format!("k {k}"))
            .post(&query("one"), with(k))
            .await
            .status_in(&[400, 422]);
    }
    t.create("eleven", json!({"fields": {"v": {"type": "vector", "dim": 1}}}))
        .await;
    let rows: Vec<Value> = (0..11).map(|n| json!({"id": n, "v": [1]})).collect();
    t.write("eleven", json!({"upsert": rows})).await;
    t.case("the default is ten")
        .post(&query("eleven"), json!({"vector": [1]}))
        .await
        .check("ten", hits(10));
}

async fn include_chooses_the_attributes(t: &Suite) {
    let with = |include: Value| json!({"vector": [1, 0, 0], "k": 1, "include": include});
    let path = query("one");
    t.case("include false")
        .post(&path, with(json!(false)))
        .await
        .status(200)
        .lacks("/hits/0/document");
    t.case("include true").post(&path, with(json!(true))).await.at(
        "/hits/0/document",
        json!({"embedding": [1.0, 0.0, 0.0], "pos": "n", "n": 1}),
    );
    t.case("include two")
        .post(&path, with(json!(["pos", "n"])))
        .await
        .at("/hits/0/document", json!({"pos": "n", "n": 1}));
    t.case("include one")
        .post(&path, with(json!(["n"])))
        .await
        .at("/hits/0/document", json!({"n": 1}));
    t.case("include a vector")
        .post(&path, with(json!(["embedding"])))
        .await
        .at("/hits/0/document", json!({"embedding": [1.0, 0.0, 0.0]}));
    t.case("include a missing attribute")
        .post(&path, json!({"vector": [0, 0, 1], "k": 1, "include": ["pos"]}))
        .await
        .ids("/hits", &["z"])
        .at("/hits/0/document", json!({}));
    t.case("include an unknown field")
        .post(&path, with(json!(["poss"])))
        .await
        .refused(422, "unknown_field")
        .hint_names("pos");
    for include in [json!("pos"), json!(7), json!([7]), json!({"pos": true})] {
        t.case(format!("include {include}"))
            .post(&path, with(include))
            .await
            .status_in(&[400, 422]);
    }
}

async fn accuracy_is_a_choice(t: &Suite) {
    let path = query("one");
    for (member, value) in [
        ("recall", json!(0.95)),
        ("recall", json!(1)),
        ("recall", json!(1.0)),
        ("recall", json!(0.5)),
        ("effort", json!(1)),
        ("effort", json!(32)),
        ("effort", json!(1000)),
        ("exact", json!(true)),
        ("exact", json!(false)),
    ] {
        t.case(format!("{member} {value}"))
            .post(&path, json!({"vector": [1, 0, 0], "k": 2, member: value}))
            .await
            .status(200)
            .ids("/hits", &["x", "xy"]);
    }
    for (member, value) in [
        ("recall", json!(0)),
        ("recall", json!(-0.1)),
        ("recall", json!(1.1)),
        ("recall", json!("high")),
        ("effort", json!(0)),
        ("effort", json!(1001)),
        ("effort", json!(-1)),
        ("effort", json!(1.5)),
        ("exact", json!("yes")),
        ("exact", json!(1)),
    ] {
        t.case(format!("{member} {value}"))
            .post(&path, json!({"vector": [1, 0, 0], member: value}))
            .await
            .status_in(&[422, 400]);
    }
    t.case("two at once")
        .post(&path, json!({"vector": [1, 0, 0], "exact": true, "effort": 5}))
        .await
        .status_in(&[200, 400, 422]);
}

async fn options_are_checked(t: &Suite) {
    let path = query("one");
    let with = |member: &str, value: Value| json!({"vector": [1, 0, 0], "k": 1, member: value});
    for level in ["strong", "verified", "session", "eventual"] {
        t.case(format!("consistency {level}"))
            .post(&path, with("consistency", json!(level)))
            .await
            .status(200);
        t.case(format!("?consistency={level}"))
            .post(
                &format!("{path}?consistency={level}"),
                json!({"vector": [1, 0, 0]}),
            )
            .await
            .status(200);
    }
    t.case("no such consistency")
        .post(&path, with("consistency", json!("weak")))
        .await
        .status_in(&[400, 422]);
    t.case("no such ?consistency")
        .post(&format!("{path}?consistency=weak"), json!({"vector": [1, 0, 0]}))
        .await
        .status_in(&[400, 422]);
    t.case("explain")
        .post(&path, with("explain", json!(true)))
        .await
        .status(200)
        .check("it explains", |answer| {
            answer
                .as_object()
                .is_some_and(|members| members.keys().any(|key| key != "hits" && key != "took_ms"))
        });
    t.case("no explain")
        .post(&path, with("explain", json!(false)))
        .await
        .check("it does not", |answer| {
            answer
                .as_object()
                .is_some_and(|members| members.keys().all(|key| key == "hits" || key == "took_ms"))
        });
    t.case("a long timeout")
        .post(&path, with("timeout_ms", json!(60_000)))
        .await
        .status(200);
    for timeout in [json!(-1), json!("1s"), json!(1.5)] {
        t.case(format!("timeout_ms {timeout}"))
            .post(&path, with("timeout_ms", timeout))
            .await
            .status_in(&[400, 422]);
    }
    for (typo, meant) in [
        ("vectr", "vector"),
        ("fliter", "filter"),
        ("inclde", "include"),
        ("timeout", "timeout_ms"),
        ("K", "k"),
    ] {
        t.case(format!("{typo} for {meant}"))
            .post(&path, json!({"vector": [1, 0, 0], typo: 1}))
            .await
            .refused(422, "unknown_field")
            .hint_names(meant);
    }
    t.case("an unknown parameter")
        .post(&format!("{path}?kk=1"), json!({"vector": [1, 0, 0]}))
        .await
        .status_in(&[400, 422]);
    t.case("no leg at all")
        .post(&path, json!({}))
        .await
        .status_in(&[400, 422]);
    t.case("only a filter")
        .post(&path, json!({"filter": {"pos": "n"}}))
        .await
        .status_in(&[400, 422]);
    for body in [
        "",
        "[]",
        "7",
        "{\"vector\": [1, 0, 0]",
        "{\"vector\": [1, 0, NaN]}",
        "{\"vector\": [1, 0, 0,]}",
    ] {
        t.case(format!("the body {body:?}"))
            .to(reqwest::Method::POST, &path)
            .body(body, "application/json")
            .await
            .status(400);
    }
    t.case("nowhere")
        .post(&query("nope"), json!({"vector": [1, 0, 0]}))
        .await
        .refused(404, "collection_not_found");
}

async fn two_vector_fields_must_be_told_apart(t: &Suite) {
    t.create(
        "two",
        json!({"fields": {"v": {"type": "vector", "dim": 2}, "w": {"type": "vector", "dim": 3}}}),
    )
    .await;
    t.write(
        "two",
        json!({"upsert": [{"id": "a", "v": [1, 0]}, {"id": "b", "w": [1, 0, 0]}]}),
    )
    .await;
    t.case("no field named")
        .post(&query("two"), json!({"vector": [1, 0]}))
        .await
        .status(422);
    t.case("no field named in the long form")
        .post(&query("two"), json!({"vector": {"value": [1, 0]}}))
        .await
        .status(422);
    t.case("v")
        .post(&query("two"), json!({"vector": {"field": "v", "value": [1, 0]}}))
        .await
        .ids("/hits", &["a"]);
    t.case("w")
        .post(
            &query("two"),
            json!({"vector": {"field": "w", "value": [1, 0, 0]}}),
        )
        .await
        .ids("/hits", &["b"]);
    t.create("zero", json!({"fields": {}})).await;
    t.case("no vector field")
        .post(&query("zero"), json!({"vector": [1, 0]}))
        .await
        .status(422);
    t.create("bare", json!({"fields": {"v": {"type": "vector", "dim": 2}}}))
        .await;
    t.case("no documents")
        .post(&query("bare"), json!({"vector": [1, 0]}))
        .await
        .status(200)
        .at("/hits", json!([]));
}

async fn batches_answer_in_order(t: &Suite) {
    let path = query("one");
    let one = |vector: Value, k: usize| json!({"vector": vector, "k": k});
    t.case("two queries")
        .post(
            &path,
            json!({"queries": [one(json!([0, 1, 0]), 1), one(json!([0, 0, 1]), 2)]}),
        )
        .await
        .status(200)
        .ids("/results/0/hits", &["y"])
        .check("the second has its own k", |a| {
            a["results"][1]["hits"].as_array().is_some_and(|h| h.len() == 2)
        })
        .at("/results/1/hits/0/id", "z");
    t.case("each with its options")
        .post(
            &path,
            json!({"queries": [
                {"vector": [1, 0, 0], "filter": {"pos": "v"}, "include": ["pos"]},
                {"vector": [1, 0, 0], "filter": "n = 4", "exact": true},
            ]}),
        )
        .await
        .at("/results/0/hits/0/document", json!({"pos": "v"}))
        .ids("/results/1/hits", &["xy"]);
    t.case("256")
        .post(&path, json!({"queries": vec![one(json!([1, 0, 0]), 1); 256]}))
        .await
        .status(200)
        .check("256", |a| a["results"].as_array().is_some_and(|r| r.len() == 256));
    t.case("257")
        .post(&path, json!({"queries": vec![one(json!([1, 0, 0]), 1); 257]}))
        .await
        .status(422);
    t.case("none")
        .post(&path, json!({"queries": []}))
        .await
        .status_in(&[200, 422]);
    t.case("one is bad")
        .post(
            &path,
            json!({"queries": [one(json!([1, 0, 0]), 1), one(json!([1, 0]), 1)]}),
        )
        .await
        .refused(422, "dimension_mismatch")
        .check("its index is in the field", |p| {
            p["field"]
                .as_str()
                .is_some_and(|f| f.starts_with("queries[1].vector"))
        });
    t.case("one has a bad k")
        .post(&path, json!({"queries": [one(json!([1, 0, 0]), 0)]}))
        .await
        .refused(422, "k_out_of_range")
        .field("queries[0].k");
    t.case("one has an unknown member")
        .post(&path, json!({"queries": [{"vector": [1, 0, 0], "kk": 1}]}))
        .await
        .refused(422, "unknown_field");
    for queries in [json!({}), json!("x"), json!([7]), json!([[]]), json!([null])] {
        t.case(format!("queries {queries}"))
            .post(&path, json!({"queries": queries}))
            .await
            .status_in(&[400, 422]);
    }
    t.case("a batch within a batch")
        .post(
            &path,
            json!({"queries": [{"queries": [one(json!([1, 0, 0]), 1)]}]}),
        )
        .await
        .status_in(&[400, 422]);
}

async fn writes_are_seen_at_once(t: &Suite) {
    t.create("fresh", json!({"fields": {"v": {"type": "vector", "dim": 2}}}))
        .await;
    let path = query("fresh");
    let ask = || json!({"vector": [1, 0], "k": 3, "include": ["n"]});
    for round in 0..3 {
        t.write(
            "fresh",
            json!({"upsert": [{"id": "a", "v": [1, 0.1], "n": round}, {"id": "b", "v": [0, 1], "n": 0}]}),
        )
        .await;
        t.case("an upsert is seen")
            .post(&path, ask())
            .await
            .ids("/hits", &["a", "b"])
            .at("/hits/0/document/n", round);
        t.write("fresh", json!({"patch": [{"id": "b", "v": [1, 0]}]}))
            .await;
        t.case("a changed vector is seen")
            .post(&path, ask())
            .await
            .ids("/hits", &["b", "a"]);
        t.write("fresh", json!({"patch": [{"id": "b", "n": 7}]})).await;
        t.case("a patch keeps the vector")
            .post(&path, ask())
            .await
            .ids("/hits", &["b", "a"])
            .at("/hits/0/document/n", 7);
        t.write("fresh", json!({"patch": [{"id": "b", "v": null}]})).await;
        t.case("a removed vector is no hit")
            .post(&path, ask())
            .await
            .ids("/hits", &["a"]);
        t.case("DELETE").delete(&document("fresh", "a")).await.status(204);
        t.case("a deleted document is no hit")
            .post(&path, ask())
            .await
            .ids("/hits", &[]);
        t.client().optimize("fresh").await.expect("optimize works");
        t.case("nor after optimize")
            .post(&path, ask())
            .await
            .ids("/hits", &[]);
    }
    let session = t
        .case("a write")
        .post(&documents("fresh"), json!({"upsert": [{"id": "c", "v": [1, 0]}]}))
        .await;
    let session = session.header_value("rhumb-session");
    t.case("a session reads its writes")
        .post(&path, json!({"vector": [1, 0], "consistency": "session"}))
        .header("rhumb-session", &session)
        .await
        .ids("/hits", &["c"]);
}

async fn a_timeout_cancels(t: &Suite) {
    t.create("big", json!({"fields": {"v": {"type": "vector", "dim": 256}}}))
        .await;
    let mut rng = rand::SeedableRng::seed_from_u64(1);
    for part in 0..4 {
        let rows: Vec<Value> = (0..2_000)
            .map(|n| json!({"id": part * 2_000 + n, "v": b64(&rhumb_e2e::data::vector(&mut rng, 256))}))
            .collect();
        t.write("big", json!({"upsert": rows})).await;
    }
    let one = json!({"vector": b64(&rhumb_e2e::data::vector(&mut rng, 256)), "k": 10, "exact": true, "timeout_ms": 1});
    t.case("a millisecond for 256 exact queries")
        .post(&query("big"), json!({"queries": vec![one; 256]}))
        .await
        .refused(504, "timeout");
    t.case("a millisecond at the top of a batch")
        .post(&query("big"), json!({"queries": [], "timeout_ms": 1}))
        .await
        .status_in(&[200, 422, 504]);
    t.case("the next one is served")
        .get(&collection("big"))
        .await
        .at("/rows", 8_000);
}
