//! Element types of vectors: f16, int8 and binary, in both wire forms.

use rhumb_e2e::Suite;
use rhumb_e2e::data::{b64, b64_bytes};
use serde_json::{Value, json};

use crate::{document, documents, query};

#[tokio::test]
async fn vectors_have_elements() {
    let t = Suite::start("vectors").await;
    int8_holds_small_integers(&t).await;
    binary_holds_bits(&t).await;
    f16_rounds(&t).await;
    f32_takes_both_forms(&t).await;
    t.finish().await;
}

async fn int8_holds_small_integers(t: &Suite) {
    for metric in ["cosine", "dot", "l2"] {
        let name = format!("int8-{metric}");
        t.create(
            &name,
            json!({"fields": {"v": {"type": "vector", "dim": 3, "element": "int8", "metric": metric}}}),
        )
        .await;
        let rows = json!([{"id": "a", "v": [127, -128, 0]}, {"id": "b", "v": [1, 2, 3]}, {"id": "c", "v": [-1, -2, -3]}, {"id": "z", "v": [0, 0, 0]}]);
        t.write(&name, json!({"upsert": rows})).await;
        t.case("integers come back")
            .get(&document(&name, "a"))
            .await
            .at("/document/v", json!([127, -128, 0]));
        for settled in [false, true] {
            if settled {
                t.client().optimize(&name).await.expect("optimize works");
            }
            let (best, score) = match metric {
                "cosine" => ("b", 1.0),
                "dot" => ("b", 14.0),
                _ => ("b", 0.0),
            };
            t.case(format!("{metric}, settled {settled}"))
                .post(&query(&name), json!({"vector": [1, 2, 3], "k": 4, "exact": true}))
                .await
                .status(200)
                .at("/hits/0/id", best)
                .near("/hits/0/score", score)
                .check("all four", |a| a["hits"].as_array().is_some_and(|h| h.len() == 4));
        }
    }
    let path = documents("int8-dot");
    for vector in [
        json!([128, 0, 0]),
        json!([-129, 0, 0]),
        json!([0.5, 0, 0]),
        json!([1, 2]),
        json!(["1", 2, 3]),
        json!([1e9, 0, 0]),
    ] {
        t.case(format!("{vector} in int8"))
            .post(&path, json!({"upsert": [{"id": "x", "v": vector}]}))
            .await
            .status(422)
            .check("the field is named", |p| {
                p["field"].as_str().is_some_and(|f| f.starts_with("upsert[0].v"))
            });
    }
    t.case("scores of int8 are exact integers")
        .post(
            &query("int8-dot"),
            json!({"vector": [127, -128, 127], "k": 1, "exact": true}),
        )
        .await
        .ids("/hits", &["a"])
        .near("/hits/0/score", f64::from(127 * 127 + 128 * 128));
}

async fn binary_holds_bits(t: &Suite) {
    t.create(
        "bits",
        json!({"fields": {"v": {"type": "vector", "dim": 12, "element": "binary"}}}),
    )
    .await;
    let bits = |text: &str| -> Value { text.bytes().map(|b| json!(u8::from(b == b'1'))).collect() };
    t.write("bits", json!({"upsert": [
        {"id": "a", "v": bits("111100001111")}, {"id": "b", "v": bits("111100001110")}, {"id": "c", "v": bits("000011110000")},
        // The same bits as `a`, packed: most significant first, the tail zero.
        {"id": "d", "v": b64_bytes(&[0b1111_0000, 0b1111_0000])},
    ]})).await;
    t.case("bits come back")
        .get(&document("bits", "a"))
        .await
        .at("/document/v", bits("111100001111"));
    t.case("packed bits come back")
        .get(&document("bits", "d"))
        .await
        .at("/document/v", bits("111100001111"));
    for settled in [false, true] {
        if settled {
            t.client().optimize("bits").await.expect("optimize works");
        }
        for target in [
            bits("111100001111"),
            json!(b64_bytes(&[0b1111_0000, 0b1111_0000])),
        ] {
            t.case(format!("hamming, settled {settled}"))
                .post(&query("bits"), json!({"vector": target}))
                .await
                .status(200)
                .ids("/hits", &["a", "d", "b", "c"])
                .near("/hits/0/score", 0.0)
                .near("/hits/1/score", 0.0)
                .near("/hits/2/score", -1.0)
                .near("/hits/3/score", -12.0);
        }
    }
    for vector in [
        bits("1111"),
        json!([0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        json!(b64_bytes(&[1])),
        json!(b64_bytes(&[1, 2, 3])),
        json!(vec![0.5; 12]),
        json!(vec![-1; 12]),
    ] {
        t.case(format!("{vector} as bits"))
            .post(&documents("bits"), json!({"upsert": [{"id": "x", "v": vector}]}))
            .await
            .status(422);
        t.case(format!("{vector} as a query of bits"))
            .post(&query("bits"), json!({"vector": vector}))
            .await
            .status(422);
    }
    t.case("bits beyond the last dimension")
        .post(
            &documents("bits"),
            json!({"upsert": [{"id": "x", "v": b64_bytes(&[0xff, 0xff])}]}),
        )
        .await
        .status_in(&[200, 422]);
    t.case("do not count")
        .post(
            &query("bits"),
            json!({"vector": bits("111111111111"), "k": 1, "filter": {"id": "a"}}),
        )
        .await
        .near("/hits/0/score", -4.0);
}

async fn f16_rounds(t: &Suite) {
    t.create(
        "halves",
        json!({"fields": {"v": {"type": "vector", "dim": 3, "element": "f16", "metric": "dot"}}}),
    )
    .await;
    t.write(
        "halves",
        json!({"upsert": [{"id": "a", "v": [0.5, -2, 1024]}, {"id": "b", "v": [0.1, 0, 0]}]}),
    )
    .await;
    t.case("what f16 can hold comes back")
        .get(&document("halves", "a"))
        .await
        .at("/document/v", json!([0.5, -2.0, 1024.0]));
    t.case("the rest is rounded")
        .get(&document("halves", "b"))
        .await
        .check("near 0.1", |answer| {
            answer["document"]["v"][0]
                .as_f64()
                .is_some_and(|x| (x - 0.1).abs() < 1e-4)
        });
    t.case("beyond f16")
        .post(
            &documents("halves"),
            json!({"upsert": [{"id": "x", "v": [1e6, 0, 0]}]}),
        )
        .await
        .refused(422, "not_finite");
    t.case("scores")
        .post(&query("halves"), json!({"vector": [2, 0, 0], "exact": true}))
        .await
        .ids("/hits", &["a", "b"])
        .near("/hits/0/score", 1.0)
        .check("about 0.2", |a| {
            a["hits"][1]["score"]
                .as_f64()
                .is_some_and(|s| (s - 0.2).abs() < 1e-3)
        });
}

async fn f32_takes_both_forms(t: &Suite) {
    t.create("floats", json!({"fields": {"v": {"type": "vector", "dim": 4}}}))
        .await;
    let values = [0.1_f32, -3.4e38, 1.5e-42, 0.0];
    t.write(
        "floats",
        json!({"upsert": [{"id": "array", "v": values}, {"id": "b64", "v": b64(&values)}]}),
    )
    .await;
    for id in ["array", "b64"] {
        t.case(format!("{id} comes back to the last bit"))
            .get(&document("floats", id))
            .await
            .check("bits", |answer| {
                let found = answer["document"]["v"].as_array().cloned().unwrap_or_default();
                let found: Vec<u32> = found
                    .iter()
                    .map(|x| (x.as_f64().unwrap_or(f64::NAN) as f32).to_bits())
                    .collect();
                found == values.map(f32::to_bits)
            });
    }
    t.case("without padding")
        .post(
            &documents("floats"),
            json!({"upsert": [{"id": "x", "v": "b64:AACAPwAAgD8AAIA/AACAPw"}]}),
        )
        .await
        .status_in(&[200, 422]);
}
