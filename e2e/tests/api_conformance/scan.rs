//! The ordered scan: order, bounds, pages, and the one snapshot behind them.

use rhumb_e2e::Suite;
use rhumb_e2e::client::escape;
use rhumb_e2e::compare::ids_at;
use rhumb_e2e::suite::Seen;
use serde_json::{Value, json};

use crate::documents;

#[tokio::test]
async fn scans_are_ordered_bounded_and_paged_over_one_snapshot() {
    let t = Suite::start("scan").await;
    order_is_by_id(&t).await;
    bounds_hold(&t).await;
    order_by_puts_missing_last(&t).await;
    pages_have_limits(&t).await;
    filters_and_projections_apply(&t).await;
    pages_are_one_snapshot(&t).await;
    cursors_are_checked(&t).await;
    a_cursor_ends_with_the_process(&t).await;
    t.finish().await;
}

async fn scan<'a>(t: &'a Suite, collection: &str, query: &str) -> Seen<'a> {
    t.case(format!("{collection}?{query}"))
        .get(&format!("{}?{query}", documents(collection)))
        .await
}

async fn order_is_by_id(t: &Suite) {
    t.create("texts", json!({"fields": {}})).await;
    let ids = ["b", "a", "Z", "é", "aa", "10", "9", "~", "😀", "B", "ab", "a-"];
    let rows: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
    t.write("texts", json!({"upsert": rows})).await;
    let sorted = ["10", "9", "B", "Z", "a", "a-", "aa", "ab", "b", "~", "é", "😀"];
    scan(t, "texts", "")
        .await
        .status(200)
        .ids("/documents", &sorted)
        .lacks("/cursor");

    t.create("numbers", json!({"fields": {}})).await;
    let rows: Vec<Value> = [100_u64, 9, 10, 1, u64::MAX, 0]
        .iter()
        .map(|id| json!({"id": id}))
        .collect();
    t.write("numbers", json!({"upsert": rows})).await;
    scan(t, "numbers", "").await.ids(
        "/documents",
        &["0", "1", "9", "10", "100", "18446744073709551615"],
    );
    scan(t, "numbers", "start=9&end=100")
        .await
        .ids("/documents", &["9", "10"]);
    scan(t, "numbers", "start=x").await.status_in(&[400, 422]);

    t.create("empty", json!({"fields": {}})).await;
    scan(t, "empty", "")
        .await
        .status(200)
        .at("/documents", json!([]))
        .lacks("/cursor");
    scan(t, "nope", "").await.refused(404, "collection_not_found");
}

async fn bounds_hold(t: &Suite) {
    scan(t, "texts", "start=a")
        .await
        .ids("/documents", &["a", "a-", "aa", "ab", "b", "~", "é", "😀"]);
    scan(t, "texts", "start=a&end=ab")
        .await
        .ids("/documents", &["a", "a-", "aa"]);
    scan(t, "texts", "end=B").await.ids("/documents", &["10", "9"]);
    scan(t, "texts", "start=a0&end=b")
        .await
        .ids("/documents", &["aa", "ab"]);
    scan(t, "texts", "start=b&end=a")
        .await
        .status(200)
        .at("/documents", json!([]));
    scan(t, "texts", "start=a&end=a")
        .await
        .at("/documents", json!([]));
    scan(t, "texts", "prefix=a")
        .await
        .ids("/documents", &["a", "a-", "aa", "ab"]);
    scan(t, "texts", "prefix=a&start=aa")
        .await
        .ids("/documents", &["aa", "ab"]);
    scan(t, "texts", "prefix=a&end=aa")
        .await
        .ids("/documents", &["a", "a-"]);
    scan(t, "texts", "prefix=zz").await.at("/documents", json!([]));
    scan(t, "texts", &format!("prefix={}", escape("é")))
        .await
        .ids("/documents", &["é"]);
    scan(t, "texts", &format!("start={}", escape("é")))
        .await
        .ids("/documents", &["é", "😀"]);
    scan(t, "texts", "end=b&prefix=a&limit=2")
        .await
        .ids("/documents", &["a", "a-"])
        .has("/cursor");
}

async fn order_by_puts_missing_last(t: &Suite) {
    t.create(
        "ordered",
        json!({"fields": {"lex": "int", "s": "string", "f": "float", "at": "timestamp", "b": "bool",
        "l": ["int"], "j": "json", "v": {"type": "vector", "dim": 1}}}),
    )
    .await;
    let rows = json!([
        {"id": "a", "lex": 2, "s": "y", "f": 0.5, "at": "2024-01-02T00:00:00Z", "b": true},
        {"id": "b", "lex": 1, "s": "x", "f": -1.5, "at": "2023-01-01T00:00:00+02:00", "b": false},
        {"id": "c", "lex": 2, "s": "é", "f": 10, "at": "2024-01-01T23:59:59.999Z"},
        {"id": "d"},
        {"id": "e", "lex": -3, "s": "Z", "f": 9, "at": "1969-12-31T00:00:00Z", "b": true},
        {"id": "f"},
    ]);
    t.write("ordered", json!({"upsert": rows})).await;
    scan(t, "ordered", "order_by=lex")
        .await
        .ids("/documents", &["e", "b", "a", "c", "d", "f"]);
    scan(t, "ordered", "order_by=-lex")
        .await
        .ids("/documents", &["a", "c", "b", "e", "d", "f"]);
    scan(t, "ordered", "order_by=s")
        .await
        .ids("/documents", &["e", "b", "a", "c", "d", "f"]);
    scan(t, "ordered", "order_by=-s")
        .await
        .ids("/documents", &["c", "a", "b", "e", "d", "f"]);
    scan(t, "ordered", "order_by=f")
        .await
        .ids("/documents", &["b", "a", "e", "c", "d", "f"]);
    scan(t, "ordered", "order_by=-f")
        .await
        .ids("/documents", &["c", "e", "a", "b", "d", "f"]);
    scan(t, "ordered", "order_by=at")
        .await
        .ids("/documents", &["e", "b", "c", "a", "d", "f"]);
    scan(t, "ordered", "order_by=-at")
        .await
        .ids("/documents", &["a", "c", "b", "e", "d", "f"]);
    scan(t, "ordered", "order_by=b")
        .await
        .ids("/documents", &["b", "a", "e", "c", "d", "f"]);
    scan(t, "ordered", "order_by=-b")
        .await
        .ids("/documents", &["a", "e", "b", "c", "d", "f"]);
    scan(t, "ordered", "order_by=lexx")
        .await
        .refused(422, "unknown_field")
        .hint_names("lex");
    scan(t, "ordered", "order_by=-lx")
        .await
        .refused(422, "unknown_field");
    for field in ["v", "l", "j"] {
        scan(t, "ordered", &format!("order_by={field}")).await.status(422);
    }
    scan(t, "ordered", "order_by=").await.status_in(&[200, 400, 422]);
    scan(t, "ordered", "order_by=id").await.status_in(&[200, 422]);
    for order in ["lex", "-lex", "-s", "f", "-b"] {
        let whole = scan(t, "ordered", &format!("order_by={order}")).await.json();
        let whole = ids_at(&whole, "/documents");
        let paged = all_pages(t, "ordered", &format!("order_by={order}&limit=1")).await;
        t.check("pages keep the order", ids_of(&paged) == whole, || {
            format!("{order}: {paged:?}")
        });
    }
    scan(t, "ordered", "order_by=lex&start=b&end=e")
        .await
        .ids("/documents", &["b", "c", "d"]);
}

async fn pages_have_limits(t: &Suite) {
    t.create("many", json!({"fields": {}})).await;
    let rows: Vec<Value> = (0..250)
        .map(|n| json!({"id": format!("{n:03}"), "n": n}))
        .collect();
    t.write("many", json!({"upsert": rows})).await;
    let count = |n: usize| move |page: &Value| page["documents"].as_array().is_some_and(|d| d.len() == n);
    scan(t, "many", "")
        .await
        .check("100 by default", count(100))
        .has("/cursor");
    scan(t, "many", "limit=250").await.check("all", count(250));
    scan(t, "many", "limit=10000")
        .await
        .status(200)
        .check("all", count(250))
        .lacks("/cursor");
    for limit in ["0", "10001", "-1", "x", "1.5", "99999999999999999999", ""] {
        scan(t, "many", &format!("limit={limit}"))
            .await
            .status_in(&[422, 400]);
    }
    for limit in [1, 7, 100, 125, 249, 251] {
        let paged = all_pages(t, "many", &format!("limit={limit}")).await;
        let complete = ids_of(&paged)
            .iter()
            .enumerate()
            .all(|(n, id)| *id == format!("{n:03}"));
        t.check("pages join to the whole", complete && paged.len() == 250, || {
            format!("limit {limit}")
        });
    }
    scan(t, "many", "limt=5").await.status_in(&[422, 400]);
    scan(t, "many", "limit=5&limit=6")
        .await
        .status_in(&[200, 400, 422]);
}

async fn filters_and_projections_apply(t: &Suite) {
    let even = escape(r#"{"lex": 2}"#);
    scan(t, "ordered", &format!("filter={even}"))
        .await
        .ids("/documents", &["a", "c"]);
    scan(t, "ordered", &format!("filter={}", escape("lex = 2 AND s = 'y'")))
        .await
        .ids("/documents", &["a"]);
    scan(
        t,
        "ordered",
        &format!("filter={}&order_by=-f", escape("lex >= 1")),
    )
    .await
    .ids("/documents", &["c", "a", "b"]);
    scan(t, "ordered", &format!("filter={}", escape("lexx = 2")))
        .await
        .refused(422, "unknown_field")
        .hint_names("lex");
    scan(t, "ordered", &format!("filter={}", escape("{\"lex\": }")))
        .await
        .status_in(&[400, 422]);
    scan(t, "ordered", &format!("filter={}", escape("lex = ")))
        .await
        .status_in(&[422, 400]);
    scan(t, "ordered", "include=lex,s")
        .await
        .at("/documents/0/document", json!({"lex": 2, "s": "y"}))
        .at("/documents/3/document", json!({}));
    scan(t, "ordered", "include=at")
        .await
        .at("/documents/1/document/at", "2022-12-31T22:00:00.000Z");
    scan(t, "ordered", "include=lexx")
        .await
        .refused(422, "unknown_field")
        .hint_names("lex");
    t.write(
        "ordered",
        json!({"upsert": [{"id": "g", "v": [0.5], "l": [1, 2], "j": {"a": 1}}]}),
    )
    .await;
    scan(t, "ordered", "start=g")
        .await
        .at(
            "/documents/0/document",
            json!({"v": [0.5], "l": [1, 2], "j": {"a": 1}}),
        )
        .check("a version", |page| page["documents"][0]["version"].is_u64());
    for level in ["strong", "verified", "session", "eventual"] {
        scan(t, "ordered", &format!("consistency={level}&limit=1"))
            .await
            .status(200);
    }
    scan(t, "ordered", "consistency=now").await.status_in(&[400, 422]);
}

/// What the first page saw is what all pages show, whatever is written in between.
async fn pages_are_one_snapshot(t: &Suite) {
    for (name, query) in [
        ("by-id", "limit=3"),
        ("by-n", "limit=3&order_by=-n"),
        ("by-filter", "limit=3&filter=n%20%3E%3D%200"),
    ] {
        t.create(name, json!({"fields": {"n": "int"}, "partitions": 2}))
            .await;
        let rows: Vec<Value> = (0..20)
            .map(|n| json!({"id": format!("{n:02}"), "n": n}))
            .collect();
        t.write(name, json!({"upsert": rows})).await;
        let before = scan(t, name, &query.replace("limit=3", "limit=100")).await.json();
        let first = scan(t, name, query).await.json();
        let mut seen = first["documents"].as_array().cloned().unwrap_or_default();
        let mut cursor = first["cursor"].as_str().map(str::to_owned);
        let mut round = 0;
        while let Some(at) = cursor {
            let changes = json!({
                "delete": [format!("{:02}", (round * 7) % 20)],
                "upsert": [{"id": format!("{:02}x", round * 3), "n": round}, {"id": format!("{:02}", 19 - round), "n": -round}],
            });
            t.write(name, changes).await;
            if round == 2 {
                t.client().optimize(name).await.expect("optimize works");
            }
            let page = scan(t, name, &format!("{query}&cursor={}", escape(&at)))
                .await
                .status(200)
                .json();
            seen.extend(page["documents"].as_array().cloned().unwrap_or_default());
            cursor = page["cursor"].as_str().map(str::to_owned);
            round += 1;
        }
        let same = Value::from(seen.clone()) == before["documents"];
        t.check("all pages show what the first one saw", same, || {
            format!("{name}: {seen:?}\nagainst {before}")
        });
        let now = scan(t, name, "limit=100").await.json();
        t.check(
            "a new scan sees the changes",
            ids_at(&now, "/documents").contains(&"00x".to_owned()),
            || now.to_string(),
        );
    }
}

async fn cursors_are_checked(t: &Suite) {
    let page = scan(t, "many", "limit=5").await.json();
    let cursor = page["cursor"].as_str().unwrap_or_default().to_owned();
    for bad in [
        "x",
        "AAAA",
        "%00",
        "null",
        &"a".repeat(5000),
        &cursor[..cursor.len() / 2],
        &format!("{cursor}x"),
    ] {
        scan(t, "many", &format!("limit=5&cursor={}", escape(bad)))
            .await
            .status(400);
    }
    scan(t, "numbers", &format!("limit=5&cursor={}", escape(&cursor)))
        .await
        .status(400);
    let next = scan(t, "many", &format!("limit=5&cursor={}", escape(&cursor)))
        .await
        .status(200);
    let next = next
        .ids("/documents", &["005", "006", "007", "008", "009"])
        .json();
    scan(t, "many", &format!("limit=5&cursor={}", escape(&cursor)))
        .await
        .status(200)
        .check("a page can be had again", |again| {
            ids_at(again, "/documents") == ids_at(&next, "/documents")
        });
    let other = scan(t, "many", "limit=2&start=200").await.json();
    let other = other["cursor"].as_str().unwrap_or_default().to_owned();
    scan(t, "many", &format!("limit=2&start=200&cursor={}", escape(&other)))
        .await
        .ids("/documents", &["202", "203"]);
}

async fn a_cursor_ends_with_the_process(t: &Suite) {
    let page = scan(t, "many", "limit=5").await.json();
    let cursor = escape(page["cursor"].as_str().unwrap_or_default());
    if std::env::var("RHUMB_E2E_STORE").as_deref() == Ok("memory") {
        // A restart would take the collection with it.
        return;
    }
    t.restart().await;
    scan(t, "many", &format!("limit=5&cursor={cursor}"))
        .await
        .refused(410, "cursor_expired");
    scan(t, "many", "limit=1")
        .await
        .status(200)
        .ids("/documents", &["000"]);
}

async fn all_pages(t: &Suite, collection: &str, query: &str) -> Vec<Value> {
    t.client()
        .scan(collection, query)
        .await
        .unwrap_or_else(|error| vec![json!(error.to_string())])
}

fn ids_of(documents: &[Value]) -> Vec<String> {
    ids_at(&Value::from(documents.to_vec()), "")
}
