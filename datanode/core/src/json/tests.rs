//! The parser against serde_json, and the cases a stranger would try.

use std::collections::BTreeSet;
use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::*;
use crate::problem::Code;

fn parse(text: impl AsRef<[u8]>) -> Result<Json, Problem> {
    Json::parse(text.as_ref(), &Limits::default())
}

fn refusal(text: impl AsRef<[u8]>) -> Problem {
    parse(text).expect_err("refused")
}

#[test]
fn lists_of_numbers_are_packed_and_others_are_not() {
    assert_eq!(parse("[1, 2,3]"), Ok(Json::Ints(vec![1, 2, 3])));
    assert_eq!(parse("[1.5,2]"), Ok(Json::Floats(vec![1.5, 2.0])));
    assert_eq!(parse("[ 2 , 1.5 ]"), Ok(Json::Floats(vec![2.0, 1.5])));
    assert_eq!(parse("[]"), Ok(Json::Array(vec![])));
    assert_eq!(parse("[1,null]"), Ok(Json::Array(vec![Json::Int(1), Json::Null])));
    assert_eq!(
        parse("[0.5,[1],2]"),
        Ok(Json::Array(vec![
            Json::Float(0.5),
            Json::Ints(vec![1]),
            Json::Int(2)
        ]))
    );
}

#[test]
fn an_integer_that_a_float_cannot_hold_keeps_its_list_from_being_packed() {
    let exact = (1_i64 << 53) + 1;
    assert_eq!(
        parse(format!("[{exact}, 0.5]")),
        Ok(Json::Array(vec![Json::Int(exact), Json::Float(0.5)]))
    );
    assert_eq!(
        parse(format!("[0.5, 1, {exact}, 2]")),
        Ok(Json::Array(vec![
            Json::Float(0.5),
            Json::Int(1),
            Json::Int(exact),
            Json::Int(2)
        ]))
    );
    assert_eq!(
        parse("[1, 18446744073709551615]"),
        Ok(Json::Array(vec![Json::Int(1), Json::UInt(u64::MAX)]))
    );
}

#[test]
fn errors_name_line_and_column() {
    assert_eq!(
        refusal("{\n  \"a\": 1,\n  \"b\" 2}").detail,
        "line 3, column 7: expected ':' after a key"
    );
    assert_eq!(
        refusal("").detail,
        "line 1, column 1: the text ends where a value is expected"
    );
    assert_eq!(
        refusal("[1,2").detail,
        "line 1, column 5: expected ',' or ']' in a list"
    );
    assert_eq!(
        refusal("{} x").detail,
        "line 1, column 4: there is more text after the end of the JSON"
    );
    assert_eq!(
        refusal(b"[\n \"a\xFF\"]").detail,
        "line 2, column 4: the text is not UTF-8"
    );
}

#[test]
fn a_repeated_key_is_refused_in_small_and_large_objects() {
    assert_eq!(
        refusal("{\"a\":1,\"a\":1}").detail,
        "line 1, column 8: the key 'a' is there twice"
    );
    assert_eq!(refusal("{\"a\":1,\"\\u0061\":1}").code, Code::Malformed);
    let mut many: Vec<String> = (0..5_000).map(|i| format!("\"k{i}\":{i}")).collect();
    assert!(parse(format!("{{{}}}", many.join(","))).is_ok());
    many.push("\"k77\":0".into());
    assert!(
        refusal(format!("{{{}}}", many.join(",")))
            .detail
            .contains("'k77' is there twice")
    );
}

#[test]
fn what_reliability_lists_as_hostile_json_is_malformed_and_never_a_panic() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(parse(deep(MAX_DEPTH)).is_ok());
    assert!(refusal(deep(MAX_DEPTH + 1)).detail.contains("nest deeper"));
    for hostile in [
        deep(1_000_000).as_bytes(),
        "{\"a\":".repeat(1_000_000).as_bytes(),
        b"[1e400]",
        b"[-1e400]",
        b"NaN",
        b"[Infinity]",
        b"[nan]",
        b"\"\\ud800\"",
        b"\"\\udc00\\ud800\"",
        b"\"\\udc00\\udc00\"",
        b"\"\\ud800\\u0041\"",
        b"\"\\ud800",
        b"\"\\u12\"",
        b"\"\\u+123\"",
        b"\"\\x41\"",
        b"\"tab\tinside\"",
        b"\"\x00\"",
        b"\"\xED\xA0\x80\"",
        b"\xFF\xFE{\x00}\x00",
        b"{'a':1}",
        b"{a:1}",
        b"{\"a\":1,}",
        b"[1,]",
        b"[,1]",
        b"// comment\n1",
        b"1 2",
        b"tru",
        b"truex",
        b"[1 2]",
        b"\"open",
        b"\x0b1",
    ] {
        let problem = refusal(hostile);
        assert_eq!(
            problem.code,
            Code::Malformed,
            "{}",
            String::from_utf8_lossy(&hostile[..hostile.len().min(40)])
        );
        assert!(problem.detail.starts_with("line "), "{}", problem.detail);
    }
}

#[test]
fn a_byte_order_mark_is_refused_with_its_name() {
    let problem = refusal(b"\xEF\xBB\xBF{}");
    assert_eq!(problem.code, Code::Malformed);
    assert!(problem.detail.contains("byte order mark"));
}

#[test]
fn escapes_and_long_strings_come_through() {
    assert_eq!(
        parse(r#""\ud83d\ude00\u00e9\n\/\"\\""#),
        Ok(Json::from("😀é\n/\"\\"))
    );
    let long = "ä€x".repeat(2_000_000);
    assert_eq!(parse(format!("\"{long}\"")), Ok(Json::from(long.as_str())));
    for at in 0..20 {
        let text = format!("{}\\t{}", "a".repeat(at), "b".repeat(20 - at));
        assert_eq!(
            parse(format!("\"{text}\"")),
            Ok(Json::from(text.replace("\\t", "\t").as_str()))
        );
    }
}

#[test]
fn a_control_character_is_refused_wherever_it_stands_in_a_string() {
    for at in 0..20 {
        let string = |c: char| format!("\"{}{c}{}\"", "a".repeat(at), "b".repeat(20 - at));
        for control in '\0'..' ' {
            assert!(
                refusal(string(control)).detail.contains("control character"),
                "{control:?} at {at}"
            );
        }
        for plain in [' ', '\u{7f}', '\u{80}', '¢', '∀'] {
            assert_eq!(
                parse(string(plain)),
                Ok(Json::from(string(plain).trim_matches('"')))
            );
        }
    }
}

#[test]
fn a_tree_much_larger_than_the_body_may_be_is_refused() {
    let limits = Limits {
        body_bytes: 1_000,
        ..Limits::default()
    };
    let small = format!("[{}]", vec!["{}"; 50].join(","));
    assert!(Json::parse(small.as_bytes(), &limits).is_ok());
    let swelling = format!("[{}]", vec!["{}"; 300].join(","));
    assert!(swelling.len() <= 1_000);
    let problem = Json::parse(swelling.as_bytes(), &limits).expect_err("too much");
    assert_eq!(problem.code, Code::BodyTooLarge);
}

#[test]
fn integral_floats_are_integers_where_they_are_exact() {
    assert_eq!(Json::Float(3.0).as_i64(), Some(3));
    assert_eq!(Json::Float(3.5).as_i64(), None);
    assert_eq!(Json::Float(1e300).as_i64(), None);
    assert_eq!(Json::Int(-1).as_u64(), None);
    assert_eq!(Json::UInt(u64::MAX).as_u64(), Some(u64::MAX));
    assert_eq!(Json::from("3").as_i64(), None);
}

/// What serde_json reads, with repeated keys refused, in the shape of `Json`.
struct Oracle(Json);

impl<'de> Deserialize<'de> for Oracle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OracleVisitor).map(Self)
    }
}

struct OracleVisitor;

impl<'de> Visitor<'de> for OracleVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Json, E> {
        Ok(Json::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Json, E> {
        Ok(Json::Int(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Json, E> {
        Ok(i64::try_from(n).map_or(Json::UInt(n), Json::Int))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Json, E> {
        Ok(Json::Float(x))
    }

    fn visit_str<E>(self, s: &str) -> Result<Json, E> {
        Ok(Json::from(s))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(Oracle(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::list(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut seen = BTreeSet::new();
        let mut entries = Vec::new();
        while let Some((key, Oracle(value))) = map.next_entry::<String, Oracle>()? {
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom("a key twice"));
            }
            entries.push((key.into(), value));
        }
        Ok(Json::Object(entries))
    }
}

/// Equal, but for the last bits of a float: serde_json does not always round correctly.
/// That we do is checked beside `scan`.
fn alike(a: &Json, b: &Json) -> bool {
    let near = |a: f64, b: f64| a == b || (a - b).abs() <= a.abs() * 1e-14;
    match (a, b) {
        (Json::Float(a), Json::Float(b)) => near(*a, *b),
        (Json::Floats(a), Json::Floats(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b))
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && alike(&a.1, &b.1))
        }
        _ => a == b,
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f64>()
            .prop_filter("finite", |x| x.is_finite())
            .prop_map(serde_json::Value::from),
        (-9_i64..9).prop_map(serde_json::Value::from),
        any::<String>().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(serde_json::Value::from),
            prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..20)
                .prop_map(|v| v.into_iter().map(f64::from).collect()),
            prop::collection::btree_map(".{0,6}", inner, 0..24)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_tree_written_by_serde_json_is_read_as_that_tree(value in any_json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
        let text = text.expect("a tree is writable");
        prop_assert_eq!(parse(text), Ok(Json::from(value)));
    }

    #[test]
    fn a_tree_goes_to_serde_and_back_unchanged(value in any_json()) {
        let json = Json::from(value);
        prop_assert_eq!(Json::from(json.clone().into_serde()), json);
    }

    #[test]
    fn any_scrap_of_json_is_accepted_exactly_when_serde_json_accepts_it(
        text in "[\\[\\]{},: \"a\\\\u0-9d.eE+\n-]{0,24}"
    ) {
        agree(text.as_bytes())?;
    }

    #[test]
    fn a_broken_text_is_accepted_exactly_when_serde_json_accepts_it(
        value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..3
    ) {
        let mut text = serde_json::to_vec(&value).expect("a tree is writable");
        let at = at.index(text.len());
        match kind {
            0 => text[at] = byte,
            1 => { text.remove(at); }
            _ => text.truncate(at),
        }
        agree(&text)?;
    }
}

fn agree(text: &[u8]) -> Result<(), TestCaseError> {
    let expected = serde_json::from_slice::<Oracle>(text).ok().map(|o| o.0);
    match (parse(text), expected) {
        (Ok(ours), Some(theirs)) => prop_assert!(alike(&ours, &theirs), "{ours:?} {theirs:?}"),
        (Err(_), None) => {}
        (ours, theirs) => prop_assert!(false, "{}: {ours:?} {theirs:?}", String::from_utf8_lossy(text)),
    }
    Ok(())
}
