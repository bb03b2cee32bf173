use super::super::{Curve, Leg, Modifier, Operator, Signal, Way};
use super::*;
use crate::fields;
use crate::ids::FieldName;
use crate::value::Vector;

const NOW: i64 = 1_800_000_000_000;

fn json_of(text: &str) -> Json {
    Json::parse(text.as_bytes(), &Limits::default()).expect("json")
}

fn schema(definition: &str) -> Schema {
    let limits = Limits::default();
    let fields = fields::parse(&json_of(definition), &limits).expect("valid fields");
    Schema::default().declare(&fields, &limits).expect("valid fields")
}

fn articles() -> Schema {
    schema(
        r#"{"embedding": {"type": "vector", "dim": 2}, "terms": "sparse_vector",
            "title": "text", "body": {"type": "text", "language": "german"},
            "pos": "string", "stars": "int", "price": "float", "at": "timestamp", "tags": ["string"]}"#,
    )
}

fn limits() -> Limits {
    Limits {
        legs: 3,
        text_bytes: 20,
        rerank_functions: 2,
        ..Limits::default()
    }
}

fn parse_under(schema: &Schema, text: &str) -> Result<Query, Problem> {
    let limits = limits();
    let mut members = Members::of("a query", json_of(text))?;
    let raw = RawQuery::take(&mut members, &limits)?;
    members.finish()?;
    raw.bind(schema, &limits, NOW)
}

fn parsed(text: &str) -> Result<Query, Problem> {
    parse_under(&articles(), text)
}

#[test]
fn the_short_form_has_legs_in_the_order_of_weights() {
    let query = parsed(
        r#"{"sparse": {"indices": [3], "values": [1]}, "text": "a boat", "vector": [1, 0],
            "fuse": {"method": "score", "weights": [1, 0.5, 2]}}"#,
    )
    .expect("valid");
    let names: Vec<&str> = query.legs.iter().map(Leg::name).collect();
    assert_eq!(names, ["vector", "text", "sparse"]);
    assert_eq!(
        query.fuse,
        Fuse {
            method: Method::Score,
            weights: vec![1.0, 0.5, 2.0]
        }
    );
    // Each leg is asked for more than the ten that come out.
    assert_eq!((query.k, query.depth()), (10, 100));
}

#[test]
fn the_general_form_takes_several_legs_of_a_kind() {
    let query =
        parsed(r#"{"legs": [{"text": "boat"}, {"vector": [1, 0]}, {"text": {"query": "ship"}}], "k": 50}"#)
            .expect("valid");
    let names: Vec<&str> = query.legs.iter().map(Leg::name).collect();
    assert_eq!(names, ["text", "vector", "text"]);
    assert_eq!(query.fuse, Fuse::default());
    assert_eq!(query.depth(), 200);
    let one = parsed(r#"{"legs": [{"vector": [1, 0]}]}"#).expect("valid");
    assert_eq!((one.legs.len(), one.depth()), (1, 10));
}

#[test]
fn words_alone_are_searched_for_in_every_text_field() {
    let query = parsed(r#"{"text": "a boat"}"#).expect("valid");
    let [Leg::Text(leg)] = query.legs.as_slice() else {
        panic!("one text leg")
    };
    let fields: Vec<(&str, f32)> = leg
        .fields
        .iter()
        .map(|(name, boost)| (name.as_str(), *boost))
        .collect();
    assert_eq!(fields, [("body", 1.0), ("title", 1.0)]);
    assert_eq!((leg.operator, leg.prefix, leg.fuzzy), (Operator::Or, false, 0));
}

#[test]
fn a_text_leg_says_where_and_how() {
    let query = parsed(
        r#"{"text": {"query": "boat", "fields": {"title": 2.5}, "operator": "and", "prefix": true, "fuzzy": 1}}"#,
    )
    .expect("valid");
    let [Leg::Text(leg)] = query.legs.as_slice() else {
        panic!("one text leg")
    };
    assert_eq!(leg.fields, [(FieldName::parse("title").expect("a name"), 2.5)]);
    assert_eq!((leg.operator, leg.prefix, leg.fuzzy), (Operator::And, true, 1));
}

#[test]
fn a_sparse_leg_may_leave_its_only_field_out() {
    for text in [
        r#"{"sparse": {"indices": [7, 3], "values": [1, 2]}}"#,
        r#"{"sparse": {"value": {"indices": [7, 3], "values": [1, 2]}}}"#,
        r#"{"sparse": {"field": "terms", "value": {"indices": [3, 7], "values": [2, 1]}}}"#,
        r#"{"sparse": "b64:BwAAAAAAgD8DAAAAAAAAQA=="}"#,
    ] {
        let query = parsed(text).expect(text);
        let [Leg::Sparse(leg)] = query.legs.as_slice() else {
            panic!("one sparse leg")
        };
        assert_eq!(
            (leg.field.as_str(), leg.value.elements()),
            ("terms", &[(3, 2.0), (7, 1.0)][..])
        );
    }
}

#[test]
fn the_field_of_a_vector_may_be_left_out_when_there_is_one() {
    for text in [
        r#"{"vector": {"value": [1, 0]}}"#,
        r#"{"vector": {"field": "embedding", "value": [1, 0]}}"#,
        r#"{"vector": "b64:AACAPwAAAAA="}"#,
    ] {
        let query = parsed(text).expect(text);
        let [Leg::Vector(leg)] = query.legs.as_slice() else {
            panic!("one vector leg")
        };
        assert_eq!(leg.value, Vector::F32([1.0, 0.0].into()), "{text}");
    }
    let two = schema(r#"{"a": {"type": "vector", "dim": 2}, "b": {"type": "vector", "dim": 2}}"#);
    let problem = parse_under(&two, r#"{"vector": [1, 0]}"#).expect_err("which?");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::InvalidValue, Some("vector.field"))
    );
    assert!(problem.hint.expect("a hint").contains("a, b"));
}

#[test]
fn a_rerank_reads_numbers_times_and_filters() {
    let query = parsed(
        r#"{"vector": [1, 0], "rerank": {"combine": "add", "depth": 40, "functions": [
            {"decay": {"field": "at", "origin": "now", "scale": "7d", "offset": "12h", "curve": "exp"}, "weight": -0.5},
            {"value": {"field": "stars", "modifier": "log1p"}}]}}"#,
    )
    .expect("valid");
    let rerank = query.rerank.as_ref().expect("a re-rank");
    assert_eq!((rerank.way, query.depth()), (Way::Add, 40));
    let Signal::Decay(decay) = &rerank.boosts[0].signal else {
        panic!("a decay")
    };
    assert_eq!(
        (decay.origin, decay.scale, decay.offset),
        (NOW as f64, 604_800_000.0, 43_200_000.0)
    );
    assert_eq!((decay.curve, rerank.boosts[0].weight), (Curve::Exp, -0.5));
    assert!(matches!(
        rerank.boosts[1].signal,
        Signal::Value {
            modifier: Modifier::Log1p,
            ..
        }
    ));
    let filter = r#"{"vector": [1, 0], "rerank": {"functions": [{"filter": "pos = 'n'", "weight": 2}, {"value": "price"}]}}"#;
    assert_eq!(
        parsed(filter)
            .expect("valid")
            .rerank
            .expect("a re-rank")
            .filters()
            .len(),
        1
    );
}

#[test]
fn groups_are_asked_for_by_name_or_with_their_size() {
    for (text, field, size) in [
        (r#"{"vector": [1, 0], "group_by": "pos"}"#, "pos", 3),
        (
            r#"{"vector": [1, 0], "group_by": {"field": "at", "size": 7}}"#,
            "at",
            7,
        ),
    ] {
        let query = parsed(text).expect(text);
        let group_by = query.group_by.as_ref().expect("groups");
        assert_eq!((group_by.field.as_str(), group_by.size), (field, size));
        assert_eq!(query.depth(), (4 * 10 * size).max(100));
    }
}

#[test]
fn highlights_are_of_the_fields_that_were_searched_unless_others_are_named() {
    let fields = |text: &str| {
        let highlight = parsed(text).expect(text).highlight.expect("highlights");
        let names: Vec<String> = highlight.fields.iter().map(|name| name.to_string()).collect();
        names.join(" ")
    };
    assert_eq!(fields(r#"{"text": "boat", "highlight": true}"#), "body title");
    assert_eq!(
        fields(r#"{"text": {"query": "boat", "fields": ["title"]}, "highlight": {"before": "["}}"#),
        "title"
    );
    assert_eq!(
        fields(r#"{"text": {"query": "boat", "fields": ["title"]}, "highlight": ["body"]}"#),
        "body"
    );
    let off = parsed(r#"{"vector": [1, 0], "highlight": false}"#).expect("nothing is asked");
    assert_eq!(off.highlight, None);
}

#[test]
fn a_bad_query_is_named_by_its_place() {
    for (text, code, field) in [
        ("{}", Code::Malformed, "vector"),
        (r#"{"legs": []}"#, Code::InvalidValue, "legs"),
        (r#"{"legs": {}}"#, Code::Malformed, "legs"),
        (r#"{"legs": [3]}"#, Code::Malformed, "legs[0]"),
        (r#"{"legs": [{}]}"#, Code::Malformed, "legs[0]"),
        (
            r#"{"legs": [{"vector": [1, 0], "text": "x"}]}"#,
            Code::InvalidValue,
            "legs[0]",
        ),
        (
            r#"{"legs": [{"vectr": [1, 0]}]}"#,
            Code::UnknownField,
            "legs[0].vectr",
        ),
        (
            r#"{"legs": [{"vector": [1]}]}"#,
            Code::DimensionMismatch,
            "legs[0].vector",
        ),
        (
            r#"{"legs": [{"text": "a"}, {"text": "b"}, {"text": "c"}, {"text": "d"}]}"#,
            Code::LimitExceeded,
            "legs",
        ),
        (
            r#"{"legs": [{"text": "a"}], "vector": [1, 0]}"#,
            Code::InvalidValue,
            "legs",
        ),
        (r#"{"text": 3}"#, Code::Malformed, "text"),
        (r#"{"text": " "}"#, Code::InvalidValue, "text"),
        (
            r#"{"text": "more than twenty bytes of it"}"#,
            Code::LimitExceeded,
            "text",
        ),
        (r#"{"text": {}}"#, Code::Malformed, "text.query"),
        (r#"{"text": {"query": ""}}"#, Code::InvalidValue, "text.query"),
        (
            r#"{"text": {"query": "a", "fields": ["pos"]}}"#,
            Code::TypeMismatch,
            "text.fields[0]",
        ),
        (
            r#"{"text": {"query": "a", "fields": ["title", "nope"]}}"#,
            Code::UnknownField,
            "text.fields[1]",
        ),
        (
            r#"{"text": {"query": "a", "fields": ["title", "title"]}}"#,
            Code::InvalidValue,
            "text.fields[1]",
        ),
        (
            r#"{"text": {"query": "a", "fields": []}}"#,
            Code::InvalidValue,
            "text.fields",
        ),
        (
            r#"{"text": {"query": "a", "fields": {"title": 0}}}"#,
            Code::InvalidValue,
            "text.fields.title",
        ),
        (
            r#"{"text": {"query": "a", "fields": {"title": "2"}}}"#,
            Code::Malformed,
            "text.fields.title",
        ),
        (
            r#"{"text": {"query": "a", "operator": "nand"}}"#,
            Code::InvalidValue,
            "text.operator",
        ),
        (
            r#"{"text": {"query": "a", "fuzzy": 3}}"#,
            Code::InvalidValue,
            "text.fuzzy",
        ),
        (
            r#"{"text": {"query": "a", "operator": "phrase", "fuzzy": 1}}"#,
            Code::InvalidValue,
            "text.fuzzy",
        ),
        (
            r#"{"text": {"query": "a", "field": "title"}}"#,
            Code::UnknownField,
            "text.field",
        ),
        (
            r#"{"sparse": {"indices": [1], "values": []}}"#,
            Code::InvalidValue,
            "sparse.values",
        ),
        (
            r#"{"sparse": {"field": "terms"}}"#,
            Code::Malformed,
            "sparse.value",
        ),
        (
            r#"{"sparse": {"field": "title", "value": {"indices": [1], "values": [1]}}}"#,
            Code::TypeMismatch,
            "sparse.field",
        ),
        (
            r#"{"sparse": {"value": {"indices": [], "values": []}}}"#,
            Code::InvalidValue,
            "sparse.value",
        ),
        (r#"{"vector": [1, 0], "fuse": {}}"#, Code::InvalidValue, "fuse"),
        (
            r#"{"vector": [1, 0], "text": "a", "fuse": {"weights": [1]}}"#,
            Code::InvalidValue,
            "fuse.weights",
        ),
        (
            r#"{"vector": [1, 0], "text": "a", "fuse": {"weights": [0, 0]}}"#,
            Code::InvalidValue,
            "fuse.weights",
        ),
        (
            r#"{"vector": [1, 0], "text": "a", "fuse": {"weights": [1, -1]}}"#,
            Code::InvalidValue,
            "fuse.weights[1]",
        ),
        (
            r#"{"vector": [1, 0], "text": "a", "fuse": {"method": "sum"}}"#,
            Code::InvalidValue,
            "fuse.method",
        ),
        (
            r#"{"vector": [1, 0], "text": "a", "fuse": {"method": "score", "k": 1}}"#,
            Code::InvalidValue,
            "fuse.k",
        ),
        (
            r#"{"vector": [1, 0], "text": "a", "fuse": {"wieghts": [1, 1]}}"#,
            Code::UnknownField,
            "fuse.wieghts",
        ),
        (
            r#"{"vector": [1, 0], "group_by": "tags"}"#,
            Code::TypeMismatch,
            "group_by",
        ),
        (
            r#"{"vector": [1, 0], "group_by": "nope"}"#,
            Code::UnknownField,
            "group_by",
        ),
        (
            r#"{"vector": [1, 0], "group_by": {"field": "price"}}"#,
            Code::TypeMismatch,
            "group_by.field",
        ),
        (
            r#"{"vector": [1, 0], "group_by": {"size": 3}}"#,
            Code::Malformed,
            "group_by.field",
        ),
        (
            r#"{"vector": [1, 0], "group_by": {"field": "pos", "size": 0}}"#,
            Code::InvalidValue,
            "group_by.size",
        ),
        (
            r#"{"vector": [1, 0], "k": 5000, "group_by": "pos"}"#,
            Code::LimitExceeded,
            "group_by.size",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {}}"#,
            Code::Malformed,
            "rerank.functions",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{}]}}"#,
            Code::Malformed,
            "rerank.functions[0]",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"value": "pos"}]}}"#,
            Code::TypeMismatch,
            "rerank.functions[0].value",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"value": "price", "weight": 0}]}}"#,
            Code::InvalidValue,
            "rerank.functions[0].weight",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"value": "price"}], "depth": 3}}"#,
            Code::InvalidValue,
            "rerank.depth",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"value": "price"}, {"value": "price"}, {"value": "price"}]}}"#,
            Code::LimitExceeded,
            "rerank.functions",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"value": "price", "filter": "pos = 'n'"}]}}"#,
            Code::InvalidValue,
            "rerank.functions[0]",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"filter": {"nope": 1}}]}}"#,
            Code::UnknownField,
            "rerank.functions[0].filter.nope",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"decay": {"field": "pos", "origin": 1, "scale": 1}}]}}"#,
            Code::TypeMismatch,
            "rerank.functions[0].decay.field",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"decay": {"field": "stars", "scale": 1}}]}}"#,
            Code::Malformed,
            "rerank.functions[0].decay.origin",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"decay": {"field": "at", "scale": 7}}]}}"#,
            Code::TypeMismatch,
            "rerank.functions[0].decay.scale",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"decay": {"field": "stars", "origin": 1, "scale": 0}}]}}"#,
            Code::InvalidValue,
            "rerank.functions[0].decay.scale",
        ),
        (
            r#"{"vector": [1, 0], "rerank": {"functions": [{"decay": {"field": "at", "origin": "yesterday", "scale": "1d"}}]}}"#,
            Code::TypeMismatch,
            "rerank.functions[0].decay.origin",
        ),
        (
            r#"{"vector": [1, 0], "highlight": true}"#,
            Code::InvalidValue,
            "highlight",
        ),
        (
            r#"{"text": "a", "highlight": {"passages": 0}}"#,
            Code::InvalidValue,
            "highlight.passages",
        ),
        (
            r#"{"text": "a", "highlight": ["pos"]}"#,
            Code::TypeMismatch,
            "highlight.fields[0]",
        ),
        (
            r#"{"text": "a", "highlight": {"tag": "b"}}"#,
            Code::UnknownField,
            "highlight.tag",
        ),
    ] {
        let problem = parsed(text).expect_err(text);
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (code, Some(field)),
            "{text}"
        );
    }
}

#[test]
fn a_collection_without_fields_of_a_kind_says_so() {
    let bare = schema(r#"{"pos": "string"}"#);
    for (text, field) in [
        (r#"{"vector": [1, 0]}"#, "vector"),
        (r#"{"text": "a"}"#, "text"),
        (r#"{"sparse": {"indices": [1], "values": [1]}}"#, "sparse"),
    ] {
        let problem = parse_under(&bare, text).expect_err(text);
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidValue, Some(field))
        );
        assert!(problem.hint.expect("a hint").contains("declare one"), "{text}");
    }
}

#[test]
fn an_unknown_member_is_refused_before_anything_is_looked_into() {
    let problem = parsed(r#"{"vector": "nonsense", "fusee": {}}"#).expect_err("a typo");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::UnknownField, Some("fusee"))
    );
    assert!(problem.hint.expect("a hint").contains("'fuse'"));
}
