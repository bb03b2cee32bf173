//! A collection's `fields`, as a client writes and reads them.
//!
//! Short form for what has no settings (`"string"`, `["string"]`), object form for what
//! has; a definition is the same with its defaults spelled out or left out.  `parse` and
//! `render` are inverse up to that.

use std::collections::BTreeMap;

use serde_json::json;

use crate::ids::FieldName;
use crate::json::Json;
use crate::limits::Limits;
use crate::problem::{Code, Problem, did_you_mean, shorten};
use crate::schema::{Element, FieldType, Metric, Scalar, Schema, VectorIndex, VectorType, check_count};

const TYPES: [&str; 9] = [
    "string",
    "int",
    "float",
    "bool",
    "timestamp",
    "json",
    "text",
    "vector",
    "sparse_vector",
];

/// The Snowball stemmers that tantivy has.
const LANGUAGES: [&str; 18] = [
    "arabic",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
];

const DEFAULT_LANGUAGE: &str = "english";

/// Reads `fields` of a `PUT` or `PATCH`.  A problem names its place: `fields.embedding.dim`.
pub fn parse(fields: &Json, limits: &Limits) -> Result<BTreeMap<FieldName, FieldType>, Problem> {
    parse_each(fields, limits).map_err(|problem| problem.within("fields"))
}

fn parse_each(fields: &Json, limits: &Limits) -> Result<BTreeMap<FieldName, FieldType>, Problem> {
    let Some(entries) = fields.as_object() else {
        return Err(Problem::new(
            Code::Malformed,
            format!("fields is an object of names and types, not {}", fields.kind()),
        ));
    };
    check_count(entries.len(), limits)?;
    let mut parsed = BTreeMap::new();
    for (name, definition) in entries {
        let field = FieldName::parse(name)?;
        let ty = parse_type(definition, limits).map_err(|problem| problem.within(name))?;
        parsed.insert(field, ty);
    }
    Ok(parsed)
}

fn parse_type(definition: &Json, limits: &Limits) -> Result<FieldType, Problem> {
    match definition {
        Json::Str(name) => plain(name),
        Json::Array(items) => list(items),
        Json::Object(_) => full(definition, limits),
        other => Err(Problem::new(
            Code::Malformed,
            format!(
                "a type is a name, a list with one name or an object, not {}",
                other.kind()
            ),
        )),
    }
}

fn plain(name: &str) -> Result<FieldType, Problem> {
    match name {
        "json" => Ok(FieldType::Json),
        "text" => Ok(FieldType::Text {
            language: DEFAULT_LANGUAGE.into(),
        }),
        "sparse_vector" => Ok(FieldType::Sparse),
        "vector" => Err(Problem::new(Code::InvalidValue, "a vector needs its dimension")
            .hint("{\"type\": \"vector\", \"dim\": 384}")),
        name => scalar(name).map(FieldType::Scalar),
    }
}

fn scalar(name: &str) -> Result<Scalar, Problem> {
    Ok(match name {
        "bool" => Scalar::Bool,
        "int" => Scalar::Int,
        "float" => Scalar::Float,
        "string" => Scalar::String,
        "timestamp" => Scalar::Timestamp,
        other => {
            return Err(Problem::new(
                Code::InvalidValue,
                format!("there is no type '{}'", shorten(other)),
            )
            .hint(did_you_mean(other, TYPES)));
        }
    })
}

fn list(items: &[Json]) -> Result<FieldType, Problem> {
    match items {
        [Json::Str(name)] if !matches!(name.as_ref(), "json" | "text" | "vector" | "sparse_vector") => {
            scalar(name).map(FieldType::List)
        }
        _ => Err(Problem::new(
            Code::InvalidValue,
            "a list type holds the name of one scalar type",
        )
        .hint("like [\"string\"]; scalars are string, int, float, bool and timestamp")),
    }
}

fn full(definition: &Json, limits: &Limits) -> Result<FieldType, Problem> {
    let ty = match definition.get("type") {
        Some(Json::Str(name)) => name.as_ref(),
        Some(Json::Array(items)) => {
            only_keys(definition, &["type"])?;
            return list(items).map_err(|problem| problem.within("type"));
        }
        Some(other) => {
            let detail = format!("a type is a name or a list with one name, not {}", other.kind());
            return Err(Problem::new(Code::Malformed, detail).field("type"));
        }
        None => {
            return Err(Problem::new(Code::Malformed, "a field's definition has a type").field("type"));
        }
    };
    match ty {
        "vector" => vector(definition, limits),
        "text" => {
            only_keys(definition, &["type", "language"])?;
            let language = one_of(definition, "language", DEFAULT_LANGUAGE, &LANGUAGES)?;
            Ok(FieldType::Text {
                language: language.into(),
            })
        }
        other => {
            let ty = plain(other).map_err(|problem| problem.within("type"))?;
            only_keys(definition, &["type"])?;
            Ok(ty)
        }
    }
}

fn vector(definition: &Json, limits: &Limits) -> Result<FieldType, Problem> {
    only_keys(definition, &["type", "dim", "metric", "element", "index"])?;
    let element = match one_of(definition, "element", "f32", &["f32", "f16", "int8", "binary"])? {
        "f32" => Element::F32,
        "f16" => Element::F16,
        "int8" => Element::Int8,
        _ => Element::Binary,
    };
    let usual = if element == Element::Binary {
        "hamming"
    } else {
        "cosine"
    };
    let metric = match one_of(definition, "metric", usual, &["cosine", "dot", "l2", "hamming"])? {
        "cosine" => Metric::Cosine,
        "dot" => Metric::Dot,
        "l2" => Metric::L2,
        _ => Metric::Hamming,
    };
    if (element == Element::Binary) != (metric == Metric::Hamming) {
        return Err(Problem::new(
            Code::InvalidValue,
            "binary vectors go with hamming, and only they do",
        )
        .field("metric")
        .hint("for element binary leave metric out; else use cosine, dot or l2"));
    }
    let index = match one_of(definition, "index", "auto", &["auto", "flat"])? {
        "auto" => VectorIndex::Auto,
        _ => VectorIndex::Flat,
    };
    Ok(FieldType::Vector(VectorType {
        dim: dim(definition, limits)?,
        metric,
        element,
        index,
    }))
}

fn dim(definition: &Json, limits: &Limits) -> Result<u32, Problem> {
    let Some(dim) = definition.get("dim") else {
        return Err(Problem::new(Code::InvalidValue, "a vector needs its dimension").field("dim"));
    };
    match dim.as_i64() {
        Some(n @ 1..) if n <= i64::from(limits.dims) => Ok(n as u32),
        Some(n @ 1..) => Err(Problem::new(
            Code::LimitExceeded,
            format!(
                "{n} dimensions are more than the {} that are allowed",
                limits.dims
            ),
        )
        .field("dim")),
        _ => Err(Problem::new(
            Code::InvalidValue,
            format!("dim is an integer from 1 to {}", limits.dims),
        )
        .field("dim")),
    }
}

/// The word under `key`, or its default when it is not there.
fn one_of<'a>(
    definition: &'a Json,
    key: &str,
    default: &'a str,
    words: &[&'static str],
) -> Result<&'a str, Problem> {
    let word = match definition.get(key) {
        None => return Ok(default),
        Some(Json::Str(word)) => word.as_ref(),
        Some(other) => {
            let detail = format!("{key} is one of {}, not {}", words.join(", "), other.kind());
            return Err(Problem::new(Code::InvalidValue, detail).field(key));
        }
    };
    if words.contains(&word) {
        return Ok(word);
    }
    Err(Problem::new(
        Code::InvalidValue,
        format!("there is no {key} '{}'", shorten(word)),
    )
    .field(key)
    .hint(did_you_mean(word, words.iter().copied())))
}

fn only_keys(definition: &Json, known: &[&'static str]) -> Result<(), Problem> {
    let keys = definition
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_ref());
    match keys.into_iter().find(|key| !known.contains(key)) {
        Some(key) => Err(Problem::unknown_field(key, known.iter().copied())),
        None => Ok(()),
    }
}

/// `fields` of a `GET`: inferred fields too, settings spelled out.
pub fn render(schema: &Schema) -> serde_json::Value {
    let fields = schema
        .fields
        .iter()
        .map(|(name, field)| (name.as_str().to_owned(), render_type(&field.ty)));
    serde_json::Value::Object(fields.collect())
}

pub fn render_type(ty: &FieldType) -> serde_json::Value {
    match ty {
        FieldType::Vector(v) => json!({
            "type": "vector", "dim": v.dim, "metric": v.metric, "element": v.element, "index": v.index,
        }),
        FieldType::Sparse => json!("sparse_vector"),
        FieldType::Text { language } => json!({"type": "text", "language": language}),
        FieldType::Scalar(scalar) => json!(scalar.name()),
        FieldType::List(scalar) => json!([scalar.name()]),
        FieldType::Json => json!("json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Field;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<BTreeMap<FieldName, FieldType>, Problem> {
        let limits = Limits::default();
        parse(&Json::parse(text.as_bytes(), &limits).expect("json"), &limits)
    }

    fn refusal(text: &str) -> (Code, String, String) {
        let problem = parsed(text).expect_err(text);
        (
            problem.code,
            problem.field.unwrap_or_default(),
            problem.hint.unwrap_or_default(),
        )
    }

    fn schema_of(fields: BTreeMap<FieldName, FieldType>) -> Schema {
        Schema::default()
            .declare(&fields, &Limits::default())
            .expect("new fields")
    }

    #[test]
    fn the_example_of_the_contract_is_read_and_rendered() {
        let fields = parsed(
            r#"{"embedding": {"type": "vector", "dim": 384, "metric": "cosine"},
                "gloss": {"type": "text", "language": "english"}, "pos": "string", "lex": "int",
                "tags": ["string"], "price": "float", "live": "bool", "at": "timestamp", "extra": "json"}"#,
        );
        let rendered = render(&schema_of(fields.expect("the contract's own example")));
        assert_eq!(
            rendered,
            json!({
                "at": "timestamp",
                "embedding": {"type": "vector", "dim": 384, "metric": "cosine", "element": "f32", "index": "auto"},
                "extra": "json", "gloss": {"type": "text", "language": "english"}, "lex": "int", "live": "bool",
                "pos": "string", "price": "float", "tags": ["string"],
            })
        );
    }

    #[test]
    fn defaults_spelled_out_or_left_out_are_the_same_definition() {
        let short =
            parsed(r#"{"v": {"type": "vector", "dim": 3}, "t": "text", "s": "string", "l": ["int"]}"#);
        let long = parsed(
            r#"{"v": {"type": "vector", "dim": 3.0, "metric": "cosine", "element": "f32", "index": "auto"},
                "t": {"type": "text", "language": "english"}, "s": {"type": "string"}, "l": {"type": ["int"]}}"#,
        );
        let (short, long) = (short.expect("short"), long.expect("long"));
        assert!(schema_of(short).declares_exactly(&long));
        let binary = parsed(r#"{"v": {"type": "vector", "dim": 3, "element": "binary"}}"#);
        assert_eq!(
            binary,
            parsed(r#"{"v": {"type": "vector", "dim": 3, "element": "binary", "metric": "hamming"}}"#)
        );
    }

    #[test]
    fn a_problem_names_its_place_and_the_nearest_word() {
        let case = |text: &str| refusal(text);
        assert_eq!(
            case(r#"{"a": "sting"}"#),
            (
                Code::InvalidValue,
                "fields.a".into(),
                "did you mean 'string'?".into()
            )
        );
        assert_eq!(
            case(r#"{"a": {"type": "vectr"}}"#),
            (
                Code::InvalidValue,
                "fields.a.type".into(),
                "did you mean 'vector'?".into()
            )
        );
        assert_eq!(
            case(r#"{"a": {"type": "vector", "dims": 3}}"#),
            (
                Code::UnknownField,
                "fields.a.dims".into(),
                "did you mean 'dim'?".into()
            )
        );
        assert_eq!(
            case(r#"{"a": {"type": "text", "language": "engish"}}"#),
            (
                Code::InvalidValue,
                "fields.a.language".into(),
                "did you mean 'english'?".into()
            )
        );
        assert_eq!(case(r#"{"a": {"type": "int", "dim": 3}}"#).0, Code::UnknownField);
        assert_eq!(case(r#"{"a b": "int"}"#).0, Code::InvalidName);
        assert_eq!(case(r#"{"id": "int"}"#).0, Code::InvalidName);
        assert_eq!(case(r#"{"": "int"}"#).0, Code::InvalidName);
    }

    #[test]
    fn dimensions_are_within_limits() {
        for dim in ["0", "-1", "1.5", "\"3\"", "null", "1e300", "18446744073709551615"] {
            let text = format!(r#"{{"v": {{"type": "vector", "dim": {dim}}}}}"#);
            assert_eq!(
                (refusal(&text).0, refusal(&text).1),
                (Code::InvalidValue, "fields.v.dim".into()),
                "{dim}"
            );
        }
        assert_eq!(
            refusal(r#"{"v": {"type": "vector", "dim": 8193}}"#).0,
            Code::LimitExceeded
        );
        assert!(parsed(r#"{"v": {"type": "vector", "dim": 8192}}"#).is_ok());
        assert_eq!(refusal(r#"{"v": {"type": "vector"}}"#).1, "fields.v.dim");
        assert_eq!(refusal(r#"{"v": "vector"}"#).0, Code::InvalidValue);
    }

    #[test]
    fn binary_goes_with_hamming_and_nothing_else_does() {
        let vector = |rest: &str| format!(r#"{{"v": {{"type": "vector", "dim": 3, {rest}}}}}"#);
        assert!(parsed(&vector(r#""element": "binary", "metric": "hamming""#)).is_ok());
        for wrong in [
            r#""element": "binary", "metric": "cosine""#,
            r#""metric": "hamming""#,
        ] {
            assert_eq!(refusal(&vector(wrong)).1, "fields.v.metric");
        }
        assert_eq!(refusal(&vector(r#""metric": "euclid""#)).0, Code::InvalidValue);
        assert_eq!(refusal(&vector(r#""element": 8"#)).0, Code::InvalidValue);
    }

    #[test]
    fn what_has_not_the_shape_is_malformed() {
        for text in [
            "[]",
            "3",
            "null",
            r#"{"a": 3}"#,
            r#"{"a": null}"#,
            r#"{"a": {}}"#,
            r#"{"a": {"type": 3}}"#,
            r#"{"a": [1]}"#,
        ] {
            let code = refusal(text).0;
            assert!(
                matches!(code, Code::Malformed | Code::InvalidValue),
                "{text}: {code:?}"
            );
        }
        for text in [
            r#"{"a": []}"#,
            r#"{"a": ["int", "int"]}"#,
            r#"{"a": ["text"]}"#,
            r#"{"a": [["int"]]}"#,
        ] {
            assert_eq!(refusal(text).0, Code::InvalidValue, "{text}");
        }
    }

    #[test]
    fn more_fields_than_allowed_are_refused() {
        let limits = Limits {
            fields: 2,
            ..Limits::default()
        };
        let three = Json::parse(br#"{"a": "int", "b": "int", "c": "int"}"#, &limits).expect("json");
        assert_eq!(
            parse(&three, &limits).expect_err("three").code,
            Code::LimitExceeded
        );
        let two = parsed(r#"{"a": "int", "b": "int"}"#).expect("two");
        let schema = Schema::default().declare(&two, &limits).expect("two fit");
        let more = parsed(r#"{"b": "int", "c": "int"}"#).expect("valid");
        assert_eq!(
            schema.declare(&more, &limits).expect_err("three").code,
            Code::LimitExceeded
        );
    }

    #[test]
    fn a_field_keeps_its_type_but_may_change_its_index() {
        let limits = Limits::default();
        let schema =
            schema_of(parsed(r#"{"v": {"type": "vector", "dim": 3}, "lex": "int"}"#).expect("valid"));
        let flat =
            parsed(r#"{"v": {"type": "vector", "dim": 3, "index": "flat"}, "new": "bool"}"#).expect("valid");
        let evolved = schema.declare(&flat, &limits).expect("a setting and a new field");
        assert_eq!(evolved.get("v"), flat.get("v"));
        assert_eq!(evolved.fields.len(), 3);
        for other in [
            r#"{"lex": "float"}"#,
            r#"{"v": {"type": "vector", "dim": 3, "metric": "dot"}}"#,
        ] {
            let other = parsed(other).expect("valid by itself");
            assert_eq!(
                schema.declare(&other, &limits).expect_err("another type").code,
                Code::TypeMismatch
            );
        }
    }

    #[test]
    fn inferred_fields_do_not_count_in_a_comparison_of_definitions() {
        let declared = parsed(r#"{"lex": "int"}"#).expect("valid");
        let mut schema = schema_of(declared.clone());
        let name = FieldName::parse("pos").expect("valid");
        schema.fields.insert(
            name,
            Field {
                ty: FieldType::Scalar(Scalar::String),
                declared: false,
            },
        );
        assert!(schema.declares_exactly(&declared));
        assert!(!schema.declares_exactly(&parsed(r#"{"lex": "int", "pos": "string"}"#).expect("valid")));
        assert!(!schema.declares_exactly(&BTreeMap::new()));
    }

    fn any_type() -> impl Strategy<Value = FieldType> {
        let scalar = prop::sample::select(vec![
            Scalar::Bool,
            Scalar::Int,
            Scalar::Float,
            Scalar::String,
            Scalar::Timestamp,
        ]);
        let vector =
            (1_u32..=8192, 0_usize..4, 0_usize..3, any::<bool>()).prop_map(|(dim, element, metric, auto)| {
                let element = [Element::F32, Element::F16, Element::Int8, Element::Binary][element];
                let metric = match element {
                    Element::Binary => Metric::Hamming,
                    _ => [Metric::Cosine, Metric::Dot, Metric::L2][metric],
                };
                let index = if auto {
                    VectorIndex::Auto
                } else {
                    VectorIndex::Flat
                };
                FieldType::Vector(VectorType {
                    dim,
                    metric,
                    element,
                    index,
                })
            });
        prop_oneof![
            scalar.clone().prop_map(FieldType::Scalar),
            scalar.prop_map(FieldType::List),
            Just(FieldType::Json),
            Just(FieldType::Sparse),
            prop::sample::select(LANGUAGES.to_vec()).prop_map(|l| FieldType::Text { language: l.into() }),
            vector,
        ]
    }

    proptest! {
        #[test]
        fn what_is_rendered_parses_to_the_same_definition(
            types in prop::collection::btree_map("f[a-z0-9_]{0,8}", any_type(), 0..8)
        ) {
            let fields: BTreeMap<FieldName, FieldType> =
                types.into_iter().map(|(n, t)| (FieldName::parse(&n).expect("by its pattern"), t)).collect();
            let schema = schema_of(fields.clone());
            prop_assert_eq!(parse(&Json::from(render(&schema)), &Limits::default()), Ok(fields));
        }
    }
}
