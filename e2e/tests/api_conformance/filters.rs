//! Every operator, in both syntaxes, wherever a filter is taken: scan, query, aggregate.

use rhumb_e2e::Suite;
use rhumb_e2e::client::escape;
use serde_json::{Value, json};

use crate::{collection, documents, query};

#[tokio::test]
async fn filters_select_the_same_rows_in_every_place_and_syntax() {
    let t = Suite::start("filters").await;
    for partitions in [1, 2] {
        let name = format!("f{partitions}");
        load(&t, &name, partitions).await;
        for settled in [false, true] {
            if settled {
                t.client().optimize(&name).await.expect("optimize works");
            }
            for (filter, sql, expected) in table() {
                selects(&t, &name, &filter, sql, expected).await;
            }
        }
    }
    wrong_filters_are_refused(&t).await;
    large_filters_are_bounded(&t).await;
    t.finish().await;
}

async fn load(t: &Suite, name: &str, partitions: u32) {
    let fields = json!({"v": {"type": "vector", "dim": 1, "metric": "dot"}, "pos": "string", "lex": "int", "price": "float", "live": "bool",
        "at": "timestamp", "tags": ["string"], "nums": ["int"], "extra": "json"});
    t.create(name, json!({"fields": fields, "partitions": partitions}))
        .await;
    let rows = json!([
        {"id": "a", "pos": "n", "lex": 3, "price": 1.5, "live": true, "at": "2024-01-01T00:00:00Z", "tags": ["x", "y"], "nums": [1, 2],
            "extra": {"color": "red", "size": {"w": 10}, "on": true}},
        {"id": "b", "pos": "v", "lex": 9, "price": -2.25, "live": false, "at": "2023-06-01T12:30:00Z", "tags": ["y"], "nums": [3],
            "extra": {"color": "blue", "size": {"w": 20}, "on": false}},
        {"id": "c", "pos": "n", "lex": -4, "price": 10, "tags": [], "extra": {"color": "red"}},
        {"id": "d", "pos": "adj", "lex": 0, "live": true, "at": "2025-12-31T23:59:59.999Z", "tags": ["x", "z", "it's"], "nums": [1, 3]},
        {"id": "e", "pos": "N", "price": 0, "extra": {"color": "Red", "n": 1.5}},
        {"id": "f", "lex": 3, "pos": "noun", "tags": ["xx"]},
        {"id": "g", "pos": "a*b", "lex": 40, "price": 1e10},
        {"id": "h", "pos": "it's", "lex": 3, "live": false},
        {"id": "i"},
        {"id": "j", "pos": "", "lex": 1000000, "extra": {}},
    ]);
    let mut rows = rows;
    for row in rows.as_array_mut().into_iter().flatten() {
        row["v"] = json!([1]);
    }
    t.write(name, json!({"upsert": rows})).await;
}

/// The filter as JSON, the same in SQL where SQL can say it, and the ids it selects.
#[rustfmt::skip]
fn table() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (json!({}), "", "abcdefghij"),
        (json!({"pos": "n"}), "pos = 'n'", "ac"),
        (json!({"pos": {"$eq": "n"}}), "pos = 'n'", "ac"),
        (json!({"pos": ""}), "pos = ''", "j"),
        (json!({"pos": "it's"}), "pos = 'it''s'", "h"),
        (json!({"lex": 3}), "lex = 3", "afh"),
        (json!({"lex": -4}), "lex = -4", "c"),
        (json!({"price": 10}), "price = 10", "c"),
        (json!({"price": 1e10}), "price = 1e10", "g"),
        (json!({"price": -2.25}), "price = -2.25", "b"),
        (json!({"live": true}), "live = true", "ad"),
        (json!({"live": false}), "live = FALSE", "bh"),
        (json!({"at": "2023-06-01T14:30:00+02:00"}), "at = '2023-06-01T14:30:00+02:00'", "b"),
        (json!({"id": "d"}), "id = 'd'", "d"),
        (json!({"id": {"$in": ["a", "zz", "j"]}}), "id IN ('a', 'zz', 'j')", "aj"),
        (json!({"id": {"$gte": "h"}}), "id >= 'h'", "hij"),
        // Ordering.
        (json!({"lex": {"$gt": 3}}), "lex > 3", "bgj"),
        (json!({"lex": {"$gte": 3}}), "lex >= 3", "abfghj"),
        (json!({"lex": {"$lt": 0}}), "lex < 0", "c"),
        (json!({"lex": {"$lte": 0}}), "lex <= 0", "cd"),
        (json!({"lex": {"$gte": 3, "$lt": 9}}), "lex >= 3 AND lex < 9", "afh"),
        (json!({"price": {"$gt": 0}}), "price > 0", "acg"),
        (json!({"price": {"$gte": 0, "$lte": 1.5}}), "price >= 0 AND price <= 1.5", "ae"),
        (json!({"pos": {"$gt": "n"}}), "pos > 'n'", "bf"),
        (json!({"pos": {"$lt": "a"}}), "pos < 'a'", "ej"),
        (json!({"at": {"$gte": "2024-01-01T00:00:00Z"}}), "at >= '2024-01-01T00:00:00Z'", "ad"),
        (json!({"at": {"$lt": "2024-01-01T00:00:00Z"}}), "at < '2024-01-01T00:00:00Z'", "b"),
        (json!({"lex": {"$gt": 5, "$lt": 5}}), "lex > 5 AND lex < 5", ""),
        // What a missing attribute matches.
        (json!({"pos": {"$ne": "n"}}), "pos != 'n'", "bdefghij"),
        (json!({"lex": {"$ne": 3}}), "lex != 3", "bcdegij"),
        (json!({"live": {"$ne": true}}), "live != true", "bcefghij"),
        (json!({"lex": {"$nin": [3, 9]}}), "NOT lex IN (3, 9)", "cdegij"),
        (json!({"lex": {"$nin": []}}), "", "abcdefghij"),
        (json!({"lex": {"$exists": true}}), "lex IS NOT NULL", "abcdfghj"),
        (json!({"lex": {"$exists": false}}), "lex IS NULL", "ei"),
        (json!({"tags": {"$exists": false}}), "tags IS NULL", "eghij"),
        (json!({"$not": {"pos": "n"}}), "NOT pos = 'n'", "bdefghij"),
        (json!({"$not": {"lex": {"$gt": 3}}}), "NOT lex > 3", "acdefhi"),
        (json!({"$not": {"lex": {"$exists": true}}}), "NOT lex IS NOT NULL", "ei"),
        (json!({"$not": {"$not": {"pos": "n"}}}), "NOT NOT pos = 'n'", "ac"),
        // Lists of operands.
        (json!({"pos": {"$in": ["n", "v"]}}), "pos IN ('n','v')", "abc"),
        (json!({"lex": {"$in": [3, 40]}}), "lex in (3, 40)", "afgh"),
        (json!({"lex": {"$in": []}}), "", ""),
        (json!({"price": {"$in": [0, 1.5]}}), "price IN (0, 1.5)", "ae"),
        (json!({"live": {"$in": [true]}}), "live IN (true)", "ad"),
        // Lists of values.
        (json!({"tags": {"$contains": "x"}}), "tags HAS 'x'", "ad"),
        (json!({"tags": {"$contains": "it's"}}), "tags HAS 'it''s'", "d"),
        (json!({"nums": {"$contains": 3}}), "nums HAS 3", "bd"),
        (json!({"tags": {"$contains_any": ["y", "z"]}}), "tags HAS 'y' OR tags HAS 'z'", "abd"),
        (json!({"tags": {"$contains_all": ["x", "y"]}}), "tags HAS 'x' AND tags HAS 'y'", "a"),
        (json!({"nums": {"$contains_any": [2, 3]}}), "nums HAS 2 OR nums HAS 3", "abd"),
        (json!({"nums": {"$contains_all": [1, 3]}}), "nums HAS 1 AND nums HAS 3", "d"),
        (json!({"tags": {"$contains_any": []}}), "", ""),
        (json!({"$not": {"tags": {"$contains": "x"}}}), "NOT tags HAS 'x'", "bcefghij"),
        // Patterns.
        (json!({"pos": {"$prefix": "n"}}), "pos LIKE 'n%'", "acf"),
        (json!({"pos": {"$prefix": ""}}), "pos LIKE '%'", "abcdefghj"),
        (json!({"pos": {"$glob": "n*"}}), "pos LIKE 'n%'", "acf"),
        (json!({"pos": {"$glob": "?"}}), "pos LIKE '_'", "abce"),
        (json!({"pos": {"$glob": "*o*n"}}), "pos LIKE '%o%n'", "f"),
        (json!({"pos": {"$glob": "n"}}), "pos LIKE 'n'", "ac"),
        (json!({"pos": {"$glob": "*"}}), "pos LIKE '%'", "abcdefghj"),
        (json!({"pos": {"$glob": "a?j"}}), "pos LIKE 'a_j'", "d"),
        (json!({"pos": {"$glob": "a.j"}}), "pos LIKE 'a.j'", ""),
        (json!({"pos": {"$regex": "^n$"}}), "", "ac"),
        (json!({"pos": {"$regex": "o"}}), "", "f"),
        (json!({"pos": {"$regex": "(?i)^N$"}}), "", "ace"),
        (json!({"pos": {"$regex": "^(n|v)$"}}), "", "abc"),
        (json!({"pos": {"$regex": "a\\*b"}}), "", "g"),
        (json!({"id": {"$prefix": "a"}}), "id LIKE 'a%'", "a"),
        // Into json.
        (json!({"extra.color": "red"}), "extra.color = 'red'", "ac"),
        (json!({"extra.size.w": {"$gt": 10}}), "extra.size.w > 10", "b"),
        (json!({"extra.size.w": {"$gte": 10}}), "extra.size.w >= 10", "ab"),
        (json!({"extra.on": true}), "extra.on = true", "a"),
        (json!({"extra.n": 1.5}), "extra.n = 1.5", "e"),
        (json!({"extra.color": {"$ne": "red"}}), "extra.color != 'red'", "bdefghij"),
        (json!({"extra.color": {"$in": ["red", "blue"]}}), "extra.color IN ('red', 'blue')", "abc"),
        (json!({"extra.color": {"$exists": true}}), "extra.color IS NOT NULL", "abce"),
        (json!({"extra.nope.deeper": {"$exists": true}}), "extra.nope.deeper IS NOT NULL", ""),
        (json!({"extra.nope": 1}), "extra.nope = 1", ""),
        (json!({"extra.color": {"$prefix": "r"}}), "extra.color LIKE 'r%'", "ac"),
        (json!({"extra": {"$exists": true}}), "extra IS NOT NULL", "abcej"),
        // Together.
        (json!({"pos": "n", "lex": 3}), "pos = 'n' AND lex = 3", "a"),
        (json!({"$and": [{"pos": "n"}, {"price": {"$gt": 5}}]}), "pos = 'n' AND price > 5", "c"),
        (json!({"$or": [{"pos": "v"}, {"lex": 0}]}), "pos = 'v' OR lex = 0", "bd"),
        (json!({"$or": [{"pos": "v"}, {"$and": [{"lex": 3}, {"live": false}]}]}), "pos = 'v' OR lex = 3 AND live = false", "bh"),
        (json!({"$and": [{"$or": [{"pos": "v"}, {"lex": 3}]}, {"live": false}]}), "(pos = 'v' OR lex = 3) AND live = false", "bh"),
        (json!({"$or": [{"$and": [{"$not": {"pos": "n"}}, {"lex": 3}]}, {"id": "a"}]}), "NOT pos = 'n' AND lex = 3 OR id = 'a'", "afh"),
        (json!({"$not": {"$or": [{"pos": "n"}, {"lex": 3}]}}), "NOT (pos = 'n' OR lex = 3)", "bdegij"),
        (json!({"$and": [{"lex": {"$gte": 3}}, {"pos": {"$in": ["n", "v"]}}, {"$not": {"tags": {"$contains": "z"}}}]}),
            "lex >= 3 AND pos IN ('n','v') AND NOT tags HAS 'z'", "ab"),
        (json!({"pos": "n", "$or": [{"lex": 3}, {"lex": -4}], "price": {"$gt": 2}}), "pos = 'n' AND (lex = 3 OR lex = -4) AND price > 2", "c"),
        (json!({"$and": [{"$and": [{"$and": [{"pos": "n"}]}]}]}), "((((pos = 'n'))))", "ac"),
        (json!({"$or": [{"pos": "n"}]}), "pos='n'or pos  =\n'n'", "ac"),
        (json!({"lex": 3, "live": {"$exists": true}}), "lex = 3 And live Is Not Null", "ah"),
    ]
}

async fn selects(t: &Suite, name: &str, filter: &Value, sql: &str, expected: &str) {
    let ids: Vec<String> = expected.chars().map(String::from).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut forms = vec![filter.clone()];
    if !sql.is_empty() {
        forms.push(json!(sql));
    }
    for form in forms {
        let text = form.as_str().map_or_else(|| form.to_string(), str::to_owned);
        t.case(format!("{name} scan {text}"))
            .get(&format!("{}?filter={}", documents(name), escape(&text)))
            .await
            .status(200)
            .ids("/documents", &ids);
        t.case(format!("{name} query {text}"))
            .post(&query(name), json!({"vector": [1], "k": 100, "filter": form}))
            .await
            .status(200)
            .ids("/hits", &ids);
        t.case(format!("{name} count {text}"))
            .post(
                &format!("{}/aggregate", collection(name)),
                json!({"filter": form, "metrics": {"n": {"count": true}}}),
            )
            .await
            .status(200)
            .check("the count", |answer| {
                answer["groups"][0]["n"].as_u64().unwrap_or(0) == ids.len() as u64
            });
        t.case(format!("{name} if {text}"))
            .post(
                &documents(name),
                json!({"patch": [{"id": "a"}, {"id": "e"}, {"id": "i"}], "if": {"filter": form}}),
            )
            .await
            .status(200)
            .at(
                "/patched",
                ["a", "e", "i"].iter().filter(|id| ids.contains(id)).count(),
            );
    }
}

async fn wrong_filters_are_refused(t: &Suite) {
    let unknown = [
        (json!({"lexx": 3}), "lexx = 3", "lex"),
        (
            json!({"$and": [{"pos": "n"}, {"prise": 1}]}),
            "pos = 'n' AND prise = 1",
            "price",
        ),
        (
            json!({"$not": {"taggs": {"$exists": true}}}),
            "NOT taggs IS NULL",
            "tags",
        ),
    ];
    for (filter, sql, meant) in unknown {
        for form in [filter, json!(sql)] {
            t.case(format!("an unknown field: {form}"))
                .post(&query("f1"), json!({"vector": [1], "filter": form}))
                .await
                .refused(422, "unknown_field")
                .hint_names(meant)
                .check("the field is named", |p| p["field"].is_string());
        }
    }
    let values = [
        json!({"lex": "three"}),
        json!({"lex": true}),
        json!({"pos": 3}),
        json!({"live": 1}),
        json!({"at": "soon"}),
        json!({"price": "1"}),
        json!({"lex": {"$gt": "3"}}),
        json!({"lex": {"$in": [1, "2"]}}),
        json!({"tags": {"$contains": 1}}),
        json!({"lex": {"$contains": 1}}),
        json!({"lex": {"$prefix": "3"}}),
        json!({"lex": {"$regex": "3"}}),
        json!({"v": 1}),
        json!({"v": {"$gt": 1}}),
        json!({"pos": {"$regex": "("}}),
        json!({"pos": {"$regex": "(?=x)"}}),
        json!({"pos": {"$regex": "(a)\\1"}}),
        json!({"pos.x": "n"}),
        json!({"id": 7}),
        json!({"pos": {"$regex": 3}}),
        json!({"pos": {"$exists": "yes"}}),
        json!({"lex": {"$in": 3}}),
    ];
    for filter in values {
        t.case(format!("a wrong value: {filter}"))
            .post(&query("f1"), json!({"vector": [1], "filter": filter}))
            .await
            .status_in(&[422, 400]);
    }
    let shapes = [
        json!([]),
        json!(7),
        json!(true),
        json!({"$and": {}}),
        json!({"$or": "x"}),
        json!({"$not": []}),
        json!({"$and": [7]}),
        json!({"lex": {"$gtt": 3}}),
        json!({"$xor": []}),
        json!({"lex": {"gt": 3}}),
        json!({"pos": {"$in": [["n"]]}}),
        json!({"pos": ["n"]}),
        json!({"": 1}),
        json!({"a-b": 1}),
        json!({".extra": 1}),
    ];
    for filter in shapes {
        t.case(format!("a wrong shape: {filter}"))
            .post(&query("f1"), json!({"vector": [1], "filter": filter}))
            .await
            .status_in(&[400, 422]);
    }
    for sql in [
        "lex",
        "lex =",
        "= 3",
        "lex = 3 AND",
        "AND lex = 3",
        "lex == 3 3",
        "(lex = 3",
        "lex = 3)",
        "lex = 'a",
        "lex IN ()",
        "lex IN 3",
        "NOT",
        "lex = 3; DROP TABLE x",
        "lex => 3",
        "pos LIKE 3",
        "lex IS",
        "lex IS NOT",
        "\"lex\" = 3 OR",
        "lex = 3 -- x",
        "tags HAS",
        "1 = 1",
        "\u{0}",
        "pos = \u{201c}n\u{201d}",
        "lex = 1e400",
        "lex = 0x10",
        "lex BETWEEN 1 AND 2",
    ] {
        t.case(format!("wrong SQL: {sql}"))
            .post(&query("f1"), json!({"vector": [1], "filter": sql}))
            .await
            .status_in(&[422, 400]);
    }
    t.case("SQL of nothing")
        .post(&query("f1"), json!({"vector": [1], "filter": ""}))
        .await
        .status_in(&[200, 400, 422]);
    t.case("null")
        .post(&query("f1"), json!({"vector": [1], "filter": null}))
        .await
        .status_in(&[200, 400, 422]);
}

async fn large_filters_are_bounded(t: &Suite) {
    let mut deep = json!({"pos": "n"});
    for _ in 0..1_000 {
        deep = json!({"$not": deep});
    }
    let wide = json!({"$or": vec![json!({"lex": 3}); 100_000]});
    let long = json!({"lex": {"$in": (0..1_000_000).collect::<Vec<_>>()}});
    for (name, filter) in [
        ("a thousand levels", deep),
        ("100,000 clauses", wide),
        ("a million items", long),
    ] {
        t.case(name)
            .post(&query("f1"), json!({"vector": [1], "filter": filter}))
            .await
            .status_in(&[422, 400]);
    }
    let sql_deep = format!("{}lex = 3{}", "(".repeat(10_000), ")".repeat(10_000));
    let sql_not = format!("{}lex = 3", "NOT ".repeat(10_000));
    let sql_wide = vec!["lex = 3"; 100_000].join(" OR ");
    for (name, sql) in [
        ("10,000 parentheses", sql_deep),
        ("10,000 NOT", sql_not),
        ("100,000 ORs", sql_wide),
    ] {
        t.case(name)
            .post(&query("f1"), json!({"vector": [1], "filter": sql}))
            .await
            .status_in(&[422, 400]);
    }
    for (name, pattern) in [
        ("a pattern of repetitions", "(a{1000}){1000}".to_owned()),
        ("a slow pattern elsewhere", "(a+)+$".to_owned()),
        ("a long pattern", "a".repeat(1_000_000)),
        (
            "a deep pattern",
            format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000)),
        ),
    ] {
        t.case(name)
            .post(
                &query("f1"),
                json!({"vector": [1], "filter": {"pos": {"$regex": pattern}}}),
            )
            .await
            .status_in(&[200, 422, 400]);
    }
    let stars = format!("{}b", "*a".repeat(2_000));
    t.write(
        "f1",
        json!({"upsert": [{"id": "long", "pos": "a".repeat(5_000)}]}),
    )
    .await;
    t.case("a slow glob")
        .post(
            &query("f1"),
            json!({"vector": [1], "filter": {"pos": {"$glob": stars}}}),
        )
        .await
        .status_in(&[200, 422]);
    t.case("a hundred items are fine")
        .post(
            &query("f1"),
            json!({"vector": [1], "filter": {"lex": {"$in": (0..100).collect::<Vec<_>>()}}}),
        )
        .await
        .status(200)
        .ids("/hits", &["a", "b", "d", "f", "g", "h"]);
}
