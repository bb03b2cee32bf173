//! Ids: their kinds, their limits, and that odd ones come back unchanged.

use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{collection, document, documents};

#[tokio::test]
async fn ids_are_kept_as_given() {
    let t = Suite::start("ids").await;
    ids_are_texts_or_numbers(&t).await;
    odd_ids_come_back_unchanged(&t).await;
    t.finish().await;
}

async fn ids_are_texts_or_numbers(t: &Suite) {
    t.create("ids", json!({"fields": {}})).await;
    let path = documents("ids");
    let upsert = |id: Value| json!({"upsert": [{"id": id}]});
    let longest = "é".repeat(256);
    let too_long = format!("{longest}x");
    let beyond: Value = serde_json::from_str("18446744073709551616").expect("JSON");
    for id in [
        json!(""),
        json!(too_long),
        json!(-1),
        json!(1.5),
        json!(true),
        json!(null),
        json!([1]),
        json!({}),
        beyond,
    ] {
        t.case(format!(
            "{} as an id",
            id.to_string().chars().take(40).collect::<String>()
        ))
        .post(&path, upsert(id))
        .await
        .status_in(&[422, 400])
        .check("the field is named", |p| {
            p["field"].as_str().is_some_and(|f| f.contains("upsert[0]"))
        });
    }
    t.case("no id")
        .post(&path, json!({"upsert": [{"n": 1}]}))
        .await
        .status_in(&[422, 400]);
    t.case("a refused id fixes no kind")
        .post(&path, upsert(json!(longest)))
        .await
        .status(200);
    t.case("the longest id comes back")
        .get(&document("ids", &longest))
        .await
        .status(200)
        .at("/id", longest.as_str());
    t.case("a number among texts")
        .post(&path, upsert(json!(7)))
        .await
        .status(422);
    t.case("a text of digits among texts")
        .post(&path, upsert(json!("7")))
        .await
        .status(200);
    t.case("is a text")
        .get(&document("ids", "7"))
        .await
        .status(200)
        .at("/id", "7");
    t.case("deleting a number among texts")
        .post(&path, json!({"delete": [7]}))
        .await
        .status_in(&[200, 422]);

    t.create("numbers", json!({"fields": {}})).await;
    let path = documents("numbers");
    for id in [0_u64, 1, u64::from(u32::MAX), u64::MAX] {
        t.case(format!("the id {id}"))
            .post(&path, upsert(json!(id)))
            .await
            .status(200);
        t.case(format!("{id} comes back"))
            .get(&document("numbers", &id.to_string()))
            .await
            .status(200)
            .at("/id", id);
    }
    t.case("a text among numbers")
        .post(&path, upsert(json!("a")))
        .await
        .status(422);
    t.case("a text of digits among numbers")
        .post(&path, upsert(json!("7")))
        .await
        .status(422);
    t.case("a path that is no number")
        .get(&document("numbers", "x"))
        .await
        .status_in(&[404, 422, 400]);
    t.case("PUT of a path that is no number")
        .put(&document("numbers", "x"), json!({}))
        .await
        .status(422);
}

async fn odd_ids_come_back_unchanged(t: &Suite) {
    t.create("odd", json!({"fields": {}})).await;
    let uuid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    let odd = [
        uuid.to_owned(),
        uuid.to_uppercase(),
        uuid.replace('-', ""),
        format!("{{{uuid}}}"),
        format!("urn:uuid:{uuid}"),
        uuid.replace('f', "F"),
        "..".into(),
        "../../etc/passwd".into(),
        "a/b".into(),
        "a//b".into(),
        ".".into(),
        "a b".into(),
        "a+b".into(),
        "100%".into(),
        "%41".into(),
        "a?b=c&d#e".into(),
        "\u{0}".into(),
        "a\u{0}b".into(),
        "\n\r\t".into(),
        "é".into(),
        "e\u{301}".into(),
        "😀".into(),
        "\u{202e}rtl".into(),
        "\u{feff}bom".into(),
        "'quote\"".into(),
        "\\".into(),
        "null".into(),
        "0".into(),
        "00".into(),
        "-1".into(),
        "1e5".into(),
        " ".into(),
        " a".into(),
        "a ".into(),
        "get".into(),
    ];
    let rows: Vec<Value> = odd
        .iter()
        .enumerate()
        .map(|(n, id)| json!({"id": id, "n": n}))
        .collect();
    let count = odd.len();
    t.case("odd ids are all different")
        .post(&documents("odd"), json!({"upsert": rows}))
        .await
        .status(200)
        .at("/upserted", count);
    for (n, id) in odd.iter().enumerate() {
        // `.` and `..` are rewritten by every URL parser, escaped or not.
        if !matches!(id.as_str(), "." | "..") {
            t.case(format!("by path: {id:?}"))
                .get(&document("odd", id))
                .await
                .status(200)
                .at("/id", id.as_str())
                .at("/document/n", n);
        }
        t.case(format!("by list: {id:?}"))
            .post(&format!("{}/get", documents("odd")), json!({"ids": [id]}))
            .await
            .status(200)
            .at("/documents/0/id", id.as_str())
            .at("/documents/0/document/n", n);
    }
    let mut sorted: Vec<&str> = odd.iter().map(String::as_str).collect();
    sorted.sort_unstable_by_key(|id| id.as_bytes());
    t.case("a scan has them in byte order")
        .get(&documents("odd"))
        .await
        .ids("/documents", &sorted);
    t.case("settled")
        .post(&format!("{}/optimize", collection("odd")), json!({"wait": true}))
        .await
        .status(200);
    t.case("and still has them")
        .get(&documents("odd"))
        .await
        .ids("/documents", &sorted);
    let deleted = t.write("odd", json!({"delete": odd.as_slice()})).await;
    t.check("each is deleted once", deleted["deleted"] == json!(count), || {
        deleted.to_string()
    });
}
