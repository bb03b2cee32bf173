//! Filters: each rule by itself, then random filters against a naive evaluator.

mod model;

use super::*;
use crate::fields;
use crate::ids::IdKind;
use crate::problem::Code;
use crate::typing::Typer;

const FIELDS: &str = r#"{"embedding": {"type": "vector", "dim": 2}, "gloss": "text", "pos": "string", "lex": "int",
    "price": "float", "live": "bool", "at": "timestamp", "tags": ["string"], "sizes": ["float"], "ranks": ["int"],
    "extra": "json", "has": "int"}"#;

fn schema() -> Schema {
    let limits = Limits::default();
    let fields = fields::parse(&parsed(FIELDS), &limits).expect("valid");
    let mut schema = Schema::default().declare(&fields, &limits).expect("new");
    schema.id_kind = Some(IdKind::Str);
    schema
}

fn parsed(text: &str) -> Json {
    Json::parse(text.as_bytes(), &Limits::default()).expect("json")
}

fn filter(text: &str) -> Result<Filter, Problem> {
    Filter::parse_param(text, &schema(), &Limits::default())
}

fn refused(text: &str) -> Problem {
    match filter(text) {
        Ok(filter) => panic!("{text} became {filter:?}"),
        Err(problem) => problem,
    }
}

fn refusal(text: &str) -> (Code, String) {
    let problem = refused(text);
    (problem.code, problem.field.unwrap_or_default())
}

fn typed(row: &str) -> (DocId, Document) {
    Typer::new(&schema(), &Limits::default())
        .row(parsed(row))
        .expect("it fits")
}

/// Whether the filter matches the document `{"id": "n1", <fields>}`.
fn matches(text: &str, fields: &str) -> bool {
    let comma = if fields.is_empty() { "" } else { ", " };
    let (id, document) = typed(&format!(r#"{{"id": "n1"{comma}{fields}}}"#));
    filter(text)
        .unwrap_or_else(|problem| panic!("{text}: {problem}"))
        .matches(&id, &document)
}

const FULL: &str = r#""embedding": [1, 2], "gloss": "a small boat", "pos": "n", "lex": 3, "price": 2.5, "live": true,
    "at": "2026-01-31T12:00:00Z", "tags": ["a", "b"], "sizes": [1, 2.5], "ranks": [1, 2],
    "extra": {"color": "red", "n": 3, "none": null, "list": ["x", 1], "deep": {"on": true}}"#;

#[test]
fn every_form_of_the_contract_finds_its_document() {
    for text in [
        "{}",
        r#"{"pos": "n"}"#,
        r#"{"lex": {"$gte": 3, "$lt": 9}}"#,
        r#"{"pos": {"$in": ["n", "v"]}}"#,
        r#"{"tags": {"$contains": "a"}}"#,
        r#"{"tags": {"$contains_any": ["z", "b"]}}"#,
        r#"{"tags": {"$contains_all": ["a", "b"]}}"#,
        r#"{"pos": {"$ne": "v"}}"#,
        r#"{"pos": {"$nin": ["v", "a"]}}"#,
        r#"{"pos": {"$eq": "n"}}"#,
        r#"{"lex": {"$exists": true}}"#,
        r#"{"gloss": {"$prefix": "a sm"}}"#,
        r#"{"gloss": {"$glob": "a*bo?t"}}"#,
        r#"{"gloss": {"$regex": "sm[aeiou]ll"}}"#,
        r#"{"$and": [{"pos": "n"}, {"lex": 3}]}"#,
        r#"{"$or": [{"pos": "v"}, {"lex": 3}]}"#,
        r#"{"$not": {"pos": "v"}}"#,
        r#"{"lex": {"$not": {"$gt": 3}}}"#,
        r#"{"extra.color": "red"}"#,
        r#"{"extra.deep.on": true, "extra.n": {"$lt": 3.5}}"#,
        r#"{"extra.list": {"$contains": 1}}"#,
        r#"{"extra.list.0": "x"}"#,
        r#"{"id": "n1"}"#,
        r#"{"id": {"$prefix": "n"}}"#,
        r#"{"at": {"$gt": "2026-01-31T11:59:59+00:00"}}"#,
        r#"{"at": "2026-01-31T13:00:00+01:00"}"#,
        "lex >= 3 AND pos IN ('n','v') AND NOT tags HAS 'x'",
        "lex>=3 and(pos='n')",
        "pos != 'v' And pos <> 'a'",
        "gloss LIKE '%small%'",
        "gloss not like 'the %'",
        "pos NOT IN ('v')",
        "tags NOT HAS 'x'",
        "has IS NULL and lex is not null",
        "live = TRUE",
        "price > -1.5e2",
        "extra.color = 'red' OR false_field = 1",
        "extra.list.0 = 'x'",
        r#"extra."color" = 'red'"#,
        "at < '2027-01-01T00:00:00Z'",
        "id = 'n1'",
        "NOT NOT pos = 'n'",
    ] {
        if text.contains("false_field") {
            assert_eq!(refusal(text).0, Code::UnknownField);
            continue;
        }
        assert!(matches(text, FULL), "{text}");
    }
}

#[test]
fn a_missing_attribute_matches_only_what_the_contract_says() {
    for text in [
        r#"{"lex": {"$exists": false}}"#,
        r#"{"lex": null}"#,
        r#"{"lex": {"$ne": 3}}"#,
        r#"{"lex": {"$nin": [3]}}"#,
        r#"{"lex": {"$not": {"$gt": 3}}}"#,
        r#"{"$not": {"lex": 3}}"#,
        r#"{"lex": {"$in": [3, null]}}"#,
        r#"{"extra.a": {"$ne": 1}}"#,
        "lex IS NULL",
        "lex != 3",
        "lex NOT IN (3)",
        "NOT lex > 3",
        "gloss NOT LIKE 'a%'",
    ] {
        assert!(matches(text, ""), "{text}");
    }
    for text in [
        r#"{"lex": 3}"#,
        r#"{"lex": {"$lt": 3}}"#,
        r#"{"lex": {"$exists": true}}"#,
        r#"{"lex": {"$ne": null}}"#,
        r#"{"lex": {"$in": [3]}}"#,
        r#"{"lex": {"$nin": [3, null]}}"#,
        r#"{"tags": {"$contains_all": []}}"#,
        r#"{"tags": []}"#,
        r#"{"gloss": {"$prefix": ""}}"#,
        r#"{"gloss": {"$regex": ""}}"#,
        r#"{"embedding": {"$exists": true}}"#,
        r#"{"extra.a": {"$gt": 0}}"#,
        "$not",
    ] {
        if text == "$not" {
            assert_eq!(refusal(text).0, Code::InvalidFilter);
            continue;
        }
        assert!(!matches(text, ""), "{text}");
    }
}

#[test]
fn null_inside_json_is_missing() {
    assert!(matches(r#"{"extra.none": {"$exists": false}}"#, FULL));
    assert!(matches(r#"{"extra.none": null}"#, FULL));
    assert!(!matches(r#"{"extra.none": {"$exists": true}}"#, FULL));
}

fn key(text: &str) -> FilterKey {
    filter(text)
        .unwrap_or_else(|problem| panic!("{text}: {problem}"))
        .key()
}

#[test]
fn filters_that_say_the_same_in_another_order_have_one_key() {
    for (one, other) in [
        (r#"{"lex": 3, "pos": "n"}"#, r#"{"pos": "n", "lex": 3}"#),
        (r#"{"lex": 3, "pos": "n"}"#, "pos = 'n' AND lex = 3"),
        (
            r#"{"$and": [{"lex": 3}, {"$and": [{"pos": "n"}, {"lex": 3}]}]}"#,
            r#"{"pos": "n", "lex": 3}"#,
        ),
        (
            r#"{"$or": [{"lex": 3}, {"lex": 4}]}"#,
            r#"{"$or": [{"lex": 4}, {"lex": 3}, {"lex": 4}]}"#,
        ),
        (r#"{"$not": {"$not": {"lex": 3}}}"#, r#"{"lex": 3}"#),
        (r#"{"lex": {"$in": [4, 3, 4]}}"#, r#"{"lex": {"$in": [3, 4]}}"#),
    ] {
        assert_eq!(key(one), key(other), "{one} and {other}");
    }
}

#[test]
fn filters_that_differ_in_anything_have_two_keys() {
    let texts = [
        "{}",
        r#"{"$not": {}}"#,
        r#"{"lex": 3}"#,
        r#"{"lex": 4}"#,
        r#"{"lex": {"$ne": 3}}"#,
        r#"{"$not": {"lex": 3}}"#,
        r#"{"lex": {"$lt": 3}}"#,
        r#"{"lex": {"$lte": 3}}"#,
        r#"{"lex": {"$gt": 3}}"#,
        r#"{"lex": {"$gte": 3}}"#,
        r#"{"lex": {"$in": [3]}}"#,
        r#"{"lex": {"$nin": [3]}}"#,
        r#"{"lex": {"$in": []}}"#,
        r#"{"lex": null}"#,
        r#"{"lex": {"$exists": true}}"#,
        r#"{"price": 3}"#,
        r#"{"has": 3}"#,
        r#"{"pos": "3"}"#,
        r#"{"pos": {"$prefix": "3"}}"#,
        r#"{"pos": {"$regex": "3"}}"#,
        r#"{"pos": {"$in": ["a", "b"]}}"#,
        r#"{"pos": {"$in": ["ab", ""]}}"#,
        r#"{"pos": {"$in": ["a,b"]}}"#,
        r#"{"tags": {"$contains_any": ["a", "b"]}}"#,
        r#"{"tags": {"$contains_all": ["a", "b"]}}"#,
        r#"{"tags": ["a", "b"]}"#,
        r#"{"extra.a.b": 1}"#,
        r#"{"extra.a": 1}"#,
        r#"{"extra.ab": 1}"#,
        r#"{"extra.a.b": 1.5}"#,
        r#"{"extra.a.b": "1"}"#,
        r#"{"extra.a.b": true}"#,
        r#"{"extra": {"a": {"b": 1}}}"#,
        r#"{"id": "n1"}"#,
        r#"{"lex": 3, "pos": "n"}"#,
        r#"{"$or": [{"lex": 3}, {"pos": "n"}]}"#,
        r#"{"at": "2026-01-31T12:00:00Z"}"#,
        r#"{"live": true}"#,
        r#"{"live": false}"#,
    ];
    for (at, one) in texts.iter().enumerate() {
        for other in &texts[at + 1..] {
            assert_ne!(key(one), key(other), "{one} and {other}");
        }
    }
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_name() {
    for text in [
        r#"{"pso": "n"}"#,
        "pso = 'n'",
        r#"{"$not": {"$or": [{"pso": 1}]}}"#,
    ] {
        let problem = refused(text);
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::UnknownField, Some("pso"))
        );
        assert_eq!(problem.hint.as_deref(), Some("did you mean 'pos'?"));
    }
    assert_eq!(refusal(r#"{"pos.x": 1}"#), (Code::UnknownField, "pos.x".into()));
    assert_eq!(refusal("nope.x = 1"), (Code::UnknownField, "nope".into()));
    assert_eq!(refusal(r#"{"": 1}"#).0, Code::UnknownField);
}

#[test]
fn an_unknown_operator_is_refused_with_the_nearest_one() {
    let hint = |text: &str| refused(text).hint.unwrap_or_default();
    assert_eq!(
        refusal(r#"{"lex": {"$gtee": 3}}"#),
        (Code::InvalidFilter, "lex".into())
    );
    assert_eq!(hint(r#"{"lex": {"$gtee": 3}}"#), "did you mean '$gte'?");
    assert_eq!(
        hint(r#"{"lex": {"gte": 3}}"#),
        "operators start with '$': did you mean '$gte'?"
    );
    assert_eq!(hint(r#"{"$nand": []}"#), "did you mean '$and'?");
    assert_eq!(refusal(r#"{"$gt": 3}"#).0, Code::InvalidFilter);
    assert_eq!(
        refusal(r#"{"extra.n": {"$gt": 1, "n": 2}}"#).0,
        Code::InvalidFilter
    );
    assert_eq!(refusal(r#"{"lex": {}}"#), (Code::InvalidFilter, "lex".into()));
}

#[test]
fn operands_have_the_type_of_their_field() {
    for text in [
        r#"{"lex": "3"}"#,
        r#"{"lex": {"$in": [1, "2"]}}"#,
        r#"{"lex": {"$gt": null}}"#,
        r#"{"lex": {"$in": 3}}"#,
        r#"{"lex": {"$exists": 1}}"#,
        r#"{"lex": {"$prefix": "3"}}"#,
        r#"{"lex": {"$contains": 3}}"#,
        r#"{"lex": [3]}"#,
        r#"{"pos": 3}"#,
        r#"{"pos": {"$gt": 3}}"#,
        r#"{"pos": {"$regex": 3}}"#,
        r#"{"gloss": true}"#,
        r#"{"live": 1}"#,
        r#"{"live": {"$gt": false}}"#,
        r#"{"at": 1700000000}"#,
        r#"{"at": {"$lt": "yesterday"}}"#,
        r#"{"tags": "a"}"#,
        r#"{"tags": {"$in": ["a"]}}"#,
        r#"{"tags": {"$gt": ["a"]}}"#,
        r#"{"tags": {"$prefix": "a"}}"#,
        r#"{"tags": {"$contains": 3}}"#,
        r#"{"tags": {"$contains": ["a"]}}"#,
        r#"{"tags": {"$contains_any": "a"}}"#,
        r#"{"tags": ["a", null]}"#,
        r#"{"embedding": [1, 2]}"#,
        r#"{"embedding": {"$gt": 1}}"#,
        r#"{"id": 3}"#,
        r#"{"id": true}"#,
        r#"{"id": {"$contains": "n"}}"#,
        r#"{"extra.n": {"$gt": true}}"#,
        r#"{"extra.n": {"$gt": [1]}}"#,
        "lex = 'a'",
        "tags = 'a'",
        "lex LIKE 'a'",
        "lex HAS 3",
    ] {
        let (code, field) = refusal(text);
        assert_eq!(code, Code::TypeMismatch, "{text}");
        assert!(!field.is_empty(), "{text}");
    }
    assert_eq!(
        refused(r#"{"tags": "a"}"#).hint.as_deref(),
        Some("use $contains to find a list that holds a value")
    );
}

#[test]
fn numbers_compare_by_value_without_rounding() {
    let lex = |lex: i64, text: &str| matches(text, &format!(r#""lex": {lex}"#));
    assert!(lex(2, "lex < 2.5") && !lex(3, "lex < 2.5") && !lex(3, "lex = 2.5") && lex(3, "lex != 2.5"));
    assert!(lex(3, "lex >= 2.5") && lex(-3, "lex <= -2.5") && !lex(-2, "lex < -2.5") && lex(3, "lex = 3.0"));
    let huge = (1_i64 << 53) + 1;
    assert!(lex(huge, &format!("lex = {huge}")) && !lex(huge, "lex = 9007199254740992.0"));
    assert!(lex(i64::MAX, "lex < 1e300") && !lex(i64::MAX, "lex > 1e300") && lex(i64::MIN, "lex > -1e300"));
    assert!(lex(i64::MAX, "lex < 18446744073709551615") && !lex(i64::MAX, "lex = 9223372036854775808"));
    assert!(!lex(i64::MAX, "lex = 9223372036854775808.0") && lex(i64::MAX, "lex < 9223372036854775808.0"));
    assert!(lex(i64::MIN, "lex = -9223372036854775808") && lex(i64::MIN, "lex >= -9223372036854775808.0"));
    let price = |price: &str, text: &str| matches(text, &format!(r#""price": {price}"#));
    assert!(price("2.0", "price = 2") && price("-0.0", "price = 0") && price("2.5", "price IN (1, 2.5)"));
    let two53 = "9007199254740992.0";
    assert!(!price(two53, "price = 9007199254740993") && price(two53, "price < 9007199254740993"));
    assert!(!price(two53, "price >= 9007199254740993") && price(two53, "price != 9007199254740993"));
    let above = "9007199254740996.0";
    assert!(!price(above, "price < 9007199254740995") && price(above, "price > 9007199254740995"));
    let extra = |n: &str, text: &str| matches(text, &format!(r#""extra": {{"n": {n}}}"#));
    assert!(extra("9007199254740993", "extra.n > 9007199254740992.0") && extra("1.0", "extra.n = 1"));
    assert!(
        extra("18446744073709551615", "extra.n = 18446744073709551615") && !extra("\"1\"", "extra.n = 1")
    );
    assert!(extra(
        "18446744073709551615",
        "extra.n IN (1, 18446744073709551615)"
    ));
}

#[test]
fn operands_that_a_type_cannot_hold_are_folded_when_parsed() {
    let test = |text: &str| match filter(text) {
        Ok(Filter::Leaf(leaf)) => leaf.test,
        other => panic!("{other:?}"),
    };
    assert!(matches!(test("lex < 2.5"), Test::Lte(Value::Int(2))));
    assert!(matches!(test("lex > 2.5"), Test::Gte(Value::Int(3))));
    assert!(matches!(test("lex = 2.5"), Test::In(none) if none.is_empty()));
    assert!(matches!(test("lex != 2.5"), Test::NotIn(none) if none.is_empty()));
    assert!(matches!(test("lex > 1e300"), Test::In(none) if none.is_empty()));
    assert!(matches!(test("price = 2"), Test::Eq(Value::Float(x)) if x == 2.0));
    assert!(matches!(test("lex IN (3, 1, 2.5, 3)"), Test::In(v) if v == [Value::Int(1), Value::Int(3)]));
    assert!(matches!(test("gloss LIKE 'a%'"), Test::Prefix(p) if p.as_ref() == "a"));
    assert!(matches!(test(r#"{"gloss": {"$glob": "a**"}}"#), Test::Prefix(p) if p.as_ref() == "a"));
    assert!(matches!(test("gloss LIKE 'a'"), Test::Eq(Value::Str(_))));
}

#[test]
fn lists_are_equal_item_by_item() {
    for text in [
        r#"{"tags": ["a", "b"]}"#,
        r#"{"sizes": {"$eq": [1, 2.5]}}"#,
        r#"{"sizes": [1.0, 2.5]}"#,
        r#"{"tags": {"$ne": ["b", "a"]}}"#,
    ] {
        assert!(matches(text, FULL), "{text}");
    }
    for text in [
        r#"{"tags": ["a"]}"#,
        r#"{"tags": []}"#,
        r#"{"tags": {"$contains_any": []}}"#,
    ] {
        assert!(!matches(text, FULL), "{text}");
    }
    assert!(matches(r#"{"tags": []}"#, r#""tags": []"#));
    assert!(matches(r#"{"tags": {"$contains_all": []}}"#, r#""tags": []"#));
    assert!(matches(r#"{"sizes": {"$contains": 1}}"#, FULL));
    assert!(!matches(r#"{"ranks": {"$contains": 1.5}}"#, FULL) && !matches(r#"{"ranks": [1, 2.5]}"#, FULL));
    assert!(!matches(r#"{"ranks": {"$contains_all": [1, 1.5]}}"#, FULL));
    assert!(matches(r#"{"ranks": {"$contains_any": [1, 1.5]}}"#, FULL));
}

#[test]
fn json_is_equal_deep_inside_and_kinds_never_mix() {
    for text in [
        r#"{"extra.deep": {"on": true}}"#,
        r#"{"extra.list": ["x", 1.0]}"#,
        r#"{"extra.list": {"$contains_any": [true, "x"]}}"#,
        r#"{"extra.deep": {"$in": [3, {"on": true}, "x"]}}"#,
        r#"{"extra": {"$exists": true}}"#,
        r#"{"extra.color": {"$ne": 3}}"#,
        r#"{"extra.color": {"$regex": "^r"}}"#,
    ] {
        assert!(matches(text, FULL), "{text}");
    }
    for text in [
        r#"{"extra.deep": {}}"#,
        r#"{"extra.color": {"$gt": 3}}"#,
        r#"{"extra.n": {"$prefix": "3"}}"#,
        r#"{"extra.color.x": "r"}"#,
        r#"{"extra.list.9": "x"}"#,
        r#"{"extra.color": {"$contains": "r"}}"#,
        r#"{"extra.color": {"$contains_all": []}}"#,
        r#"{"extra.deep.on": "true"}"#,
    ] {
        assert!(!matches(text, FULL), "{text}");
    }
}

#[test]
fn patterns_cover_the_string_they_say_they_do() {
    let gloss = |value: &str, text: &str| {
        matches(
            text,
            &format!(r#""gloss": {}"#, serde_json::to_string(value).expect("a string")),
        )
    };
    assert!(gloss("x", r#"{"gloss": {"$glob": "?"}}"#) && gloss("😀", r#"{"gloss": {"$glob": "?"}}"#));
    assert!(!gloss("ab", r#"{"gloss": {"$glob": "a"}}"#) && !gloss("AB", r#"{"gloss": {"$glob": "a*"}}"#));
    assert!(
        gloss("[a].*", r#"{"gloss": {"$glob": "[a].?"}}"#) && !gloss("a", r#"{"gloss": {"$glob": "[a]"}}"#)
    );
    assert!(gloss("a\nb", r#"{"gloss": {"$glob": "a?b"}}"#) && gloss("", r#"{"gloss": {"$glob": "*"}}"#));
    assert!(gloss("100%", r"gloss LIKE '100\%'") && !gloss("1000", r"gloss LIKE '100\%'"));
    assert!(gloss(r"a\b", r"gloss LIKE 'a\b'") && gloss(r"a\b", r"gloss LIKE 'a\\_'"));
    assert!(gloss("it's", "gloss LIKE '%''s'") && gloss("a_c", r"gloss LIKE 'a\_c'"));
    assert!(!gloss("abc", r"gloss LIKE 'a\_c'") && gloss("abc", "gloss LIKE 'a_c'"));
    assert!(
        gloss("xxabcxx", r#"{"gloss": {"$regex": "b"}}"#) && !gloss("b\n", r#"{"gloss": {"$regex": "^b$"}}"#)
    );
    assert!(gloss("ABC", r#"{"gloss": {"$regex": "(?i)abc"}}"#));
}

#[test]
fn patterns_that_cost_too_much_or_mean_nothing_are_refused() {
    let regex = |pattern: &str| {
        refused(&format!(
            r#"{{"gloss": {{"$regex": {}}}}}"#,
            serde_json::json!(pattern)
        ))
    };
    assert_eq!(regex("(a").code, Code::InvalidFilter);
    assert_eq!(regex(r"(a)\1").code, Code::InvalidFilter);
    assert_eq!(regex("(?=a)").code, Code::InvalidFilter);
    assert_eq!(regex(r"((a{100}){100}){100}").code, Code::LimitExceeded);
    assert_eq!(regex(r"\pL{1000}").code, Code::LimitExceeded);
    assert_eq!(regex(&"a".repeat(5000)).code, Code::LimitExceeded);
    assert_eq!(regex(&"(".repeat(1000)).code, Code::InvalidFilter);
    assert_eq!(
        refused(r#"{"gloss": {"$regex": "(a"}}"#).field.as_deref(),
        Some("gloss")
    );
    let many = vec![r#"{"gloss": {"$regex": "a"}}"#; 65].join(",");
    assert_eq!(refusal(&format!(r#"{{"$or": [{many}]}}"#)).0, Code::LimitExceeded);
    // Exponential for a backtracking engine, linear here.
    let evil = format!(r#""gloss": "{}!""#, "a".repeat(20_000));
    assert!(!matches(r#"{"gloss": {"$regex": "^(a|aa)+$"}}"#, &evil));
    assert!(!matches(&format!("gloss LIKE '{}b'", "%a".repeat(60)), &evil));
}

#[test]
fn size_and_depth_of_a_filter_are_limited() {
    let small = Limits {
        filter_clauses: 4,
        filter_depth: 2,
        ..Limits::default()
    };
    let parse = |text: &str| {
        Filter::parse_param(text, &schema(), &small)
            .map(|_| ())
            .map_err(|p| p.code)
    };
    assert_eq!(parse("lex IN (1, 2, 3)"), Ok(()));
    let over = Err(Code::LimitExceeded);
    assert_eq!(parse("lex IN (1, 2, 3, 4)"), over);
    assert_eq!(parse(r#"{"lex": {"$nin": [1, 1, 1, 1]}}"#), over);
    assert_eq!(parse(r#"{"tags": ["a", "b", "c", "d"]}"#), over);
    assert_eq!(parse("lex = 1 OR lex = 2 OR lex = 3 OR lex = 4 OR lex = 5"), over);
    assert_eq!(parse(r#"{"$or": [{}, {}, {}, {}, {}]}"#), over);
    assert_eq!(parse(r#"{"$not": {"$not": {"lex": 1}}}"#), Ok(()));
    assert_eq!(parse(r#"{"$not": {"$not": {"$not": {"lex": 1}}}}"#), over);
    assert_eq!(
        parse(r#"{"$not": {"$not": {"lex": {"$not": {"$eq": 1}}}}}"#),
        over
    );
    assert_eq!(parse("((lex = 1))"), Ok(()));
    assert_eq!(parse("(((lex = 1)))"), over);
    assert_eq!(parse("NOT NOT NOT lex = 1"), over);
    assert_eq!(parse("((lex = 1)) AND ((lex = 2))"), Ok(()));
    for hostile in [
        "(".repeat(1_000_000),
        "NOT ".repeat(1_000_000),
        "{\"$not\":".repeat(100) + "{}" + &"}".repeat(100),
    ] {
        assert_eq!(refused(&hostile).code, Code::LimitExceeded);
    }
    let ten_thousand = vec!["lex = 1"; 10_000].join(" OR ");
    assert_eq!(refused(&ten_thousand).code, Code::LimitExceeded);
    assert_eq!(
        refused(&format!("extra{} = 1", ".a".repeat(65))).code,
        Code::LimitExceeded
    );
}

#[test]
fn what_has_not_the_shape_is_refused() {
    let json = |text: &str| {
        Filter::parse_json(&parsed(text), &schema(), &Limits::default())
            .map(|_| ())
            .map_err(|p| p.code)
    };
    for text in ["3", "[]", "null", "true", "[{}]"] {
        assert_eq!(json(text), Err(Code::Malformed), "{text}");
    }
    for text in [
        r#"{"$and": []}"#,
        r#"{"$or": {}}"#,
        r#"{"$or": 3}"#,
        r#"{"lex": {"$not": 3}}"#,
        r#"{"lex": {"$not": {}}}"#,
    ] {
        assert_eq!(json(text), Err(Code::InvalidFilter), "{text}");
    }
    for text in [r#"{"$not": 3}"#, r#"{"$and": [3]}"#] {
        assert_eq!(json(text), Err(Code::Malformed), "{text}");
    }
    assert_eq!(json(r#""lex = 3""#), Ok(()));
    assert_eq!(refused("{\"lex\": 3").code, Code::Malformed);
}

#[test]
fn sql_that_is_none_is_refused_with_its_place() {
    for (text, place) in [
        ("", 1),
        ("   ", 4),
        ("lex", 4),
        ("lex =", 6),
        ("lex = 3 pos", 9),
        ("lex = 3)", 8),
        ("(lex = 3", 9),
        ("lex = = 3", 7),
        ("lex == 3", 5),
        ("lex = 03", 7),
        ("lex = 3x", 7),
        ("lex = 1e999", 7),
        ("lex = -", 7),
        ("lex = .5", 7),
        ("pos = 'n", 7),
        ("pos = \"n\"", 7),
        ("pos = n", 7),
        ("pos = NULL", 7),
        ("pos IS 'n'", 8),
        ("pos IN ()", 9),
        ("pos IN ('n',)", 13),
        ("pos IN 'n'", 8),
        ("pos IN ('n' 'v')", 13),
        ("pos NOT = 'n'", 9),
        ("pos LIKE", 9),
        ("AND lex = 3", 5),
        ("lex = 3 AND", 12),
        ("lex = 3 && pos = 'n'", 9),
        ("extra. = 3", 8),
        ("'lex' = 3", 1),
        ("3 = lex", 1),
        ("pös = 3", 2),
        ("pos = 'ö' ö", 11),
        ("lex = 3; DROP TABLE x", 8),
        ("lex BETWEEN 1 AND 3", 5),
        ("extra.- = 3", 7),
        ("\u{0}", 1),
    ] {
        let problem = refused(text);
        if text.starts_with("AND") {
            assert_eq!(problem.code, Code::UnknownField);
            continue;
        }
        assert_eq!(problem.code, Code::InvalidFilter, "{text}");
        assert!(
            problem.detail.starts_with(&format!("character {place} of")),
            "{text}: {}",
            problem.detail
        );
    }
}

#[test]
fn key_words_are_names_where_the_grammar_expects_a_name() {
    let schema = ["and", "or", "not", "in", "like", "has", "is", "null", "true"]
        .iter()
        .fold(Schema::default(), |mut schema, name| {
            let ty = crate::schema::FieldType::Scalar(crate::schema::Scalar::Int);
            schema.fields.insert(
                FieldName::parse(name).expect("valid"),
                crate::schema::Field { ty, declared: true },
            );
            schema
        });
    for text in [
        "and = 1 AND or = 1",
        "not = 1 AND NOT not = 2",
        "has IN (1) OR in = 1",
        "null IS NULL",
        "true = 1",
        "NOT \"not\" IN (1)",
    ] {
        let parsed = Filter::parse_sql(text, &schema, &Limits::default());
        assert!(parsed.is_ok(), "{text}: {parsed:?}");
    }
}

#[test]
fn numeric_ids_are_compared_as_unsigned_integers() {
    let schema = Schema {
        id_kind: Some(IdKind::Num),
        ..Schema::default()
    };
    let check = |text: &str, id: u64| {
        let filter = Filter::parse_param(text, &schema, &Limits::default()).expect(text);
        filter.matches(&DocId::Num(id), &Document::default())
    };
    assert!(check("id = 7", 7) && check("id > 7", u64::MAX) && check("id = 18446744073709551615", u64::MAX));
    assert!(
        check("id IN (1, 18446744073709551615)", u64::MAX) && !check("id < 0", 0) && check("id >= -1", 0)
    );
    assert!(check("id != 7.5", 7) && check("id IS NOT NULL", 7) && !check(r#"{"id": null}"#, 7));
    for text in ["id = '7'", "id LIKE '7%'", r#"{"id": {"$prefix": "7"}}"#] {
        let problem = Filter::parse_param(text, &schema, &Limits::default()).expect_err(text);
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::TypeMismatch, Some("id"))
        );
    }
    let empty = Schema::default();
    for text in ["id = '7'", "id = 7", "id LIKE '7%'"] {
        assert!(Filter::parse_param(text, &empty, &Limits::default()).is_ok());
    }
}

#[test]
fn a_filter_knows_what_it_reads() {
    let filter =
        filter("id = 'a' AND (lex = 1 OR lex = 2 OR NOT extra.a.b = 3) AND extra IS NULL").expect("valid");
    let fields: Vec<&str> = filter.fields().into_iter().map(FieldName::as_str).collect();
    assert_eq!(fields, ["extra", "lex"]);
    assert_eq!(filter.paths().len(), 4);
    assert_eq!(filter.leaves().len(), 5);
    assert!(Filter::everything().is_everything() && !filter.is_everything());
}
