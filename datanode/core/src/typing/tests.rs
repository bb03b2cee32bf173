//! Typing: what fits, what does not, and what a request leaves in the schema.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fields;
use crate::render::ExportRow;
use crate::schema::{Element, Metric, Scalar, VectorIndex, VectorType};
use crate::value::Vector;

const FIELDS: &str = r#"{"embedding": {"type": "vector", "dim": 3}, "half": {"type": "vector", "dim": 2, "element": "f16"},
    "small": {"type": "vector", "dim": 2, "element": "int8", "metric": "dot"},
    "bits": {"type": "vector", "dim": 10, "element": "binary"}, "gloss": "text", "pos": "string", "lex": "int",
    "price": "float", "live": "bool", "at": "timestamp", "tags": ["string"], "sizes": ["float"], "extra": "json"}"#;

fn schema() -> Schema {
    let limits = Limits::default();
    let fields = fields::parse(&parse(FIELDS), &limits).expect("valid");
    Schema::default().declare(&fields, &limits).expect("new")
}

fn parse(text: &str) -> Json {
    Json::parse(text.as_bytes(), &Limits::default()).expect("json")
}

/// Types `{"upsert": [{"id": "a", <fields>}]}` against the declared fields.
fn one(fields: &str) -> Result<Document, Problem> {
    let schema = schema();
    let rows = parse(&format!(r#"[{{"id": "a", {fields}}}]"#));
    let mut documents = Typer::new(&schema, &Limits::default()).upsert(rows)?;
    Ok(documents.remove(0).1)
}

fn refused(fields: &str) -> (Code, String) {
    let problem = one(fields).expect_err(fields);
    (problem.code, problem.field.unwrap_or_default())
}

/// Types rows against an empty schema.
fn fresh(rows: &str) -> Result<(Vec<(DocId, Document)>, NewFields), Problem> {
    let (schema, limits) = (Schema::default(), Limits::default());
    let mut typer = Typer::new(&schema, &limits);
    let documents = typer.upsert(parse(rows))?;
    Ok((documents, typer.into_new_fields()))
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    format!("\"b64:{}\"", BASE64_STANDARD.encode(bytes))
}

fn f32_bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn every_declared_type_takes_its_values() {
    let document = one(
        r#""embedding": [1, 0.5, -2], "half": [0.1, 1], "small": [-128, 127], "bits": [1,0,1,0,0,0,0,0,0,1],
           "gloss": "a boat", "pos": "n", "lex": 3, "price": 4, "live": true, "at": "2026-01-31T12:00:00+01:00",
           "tags": ["a", "b"], "sizes": [1, 2.5], "extra": {"color": ["red", null, {"x": 1}]}"#,
    )
    .expect("valid");
    let get = |name: &str| document.get(name).cloned().expect(name);
    assert_eq!(
        get("embedding"),
        Value::Vector(Vector::F32(vec![1.0, 0.5, -2.0].into()))
    );
    assert_eq!(
        get("half"),
        Value::Vector(Vector::F32(vec![0.099_975_586, 1.0].into()))
    );
    assert_eq!(get("small"), Value::Vector(Vector::I8(vec![-128, 127].into())));
    assert_eq!(
        get("bits"),
        Value::Vector(Vector::Bits(vec![0b1010_0000, 0b0100_0000].into()))
    );
    assert_eq!(get("gloss"), Value::Str("a boat".into()));
    assert_eq!(get("lex"), Value::Int(3));
    assert_eq!(get("price"), Value::Float(4.0));
    assert_eq!(get("at"), Value::Time(1_769_857_200_000));
    assert_eq!(
        get("tags"),
        Value::List(vec![Value::Str("a".into()), Value::Str("b".into())])
    );
    assert_eq!(
        get("sizes"),
        Value::List(vec![Value::Float(1.0), Value::Float(2.5)])
    );
    assert_eq!(
        get("extra"),
        Value::Json(json!({"color": ["red", null, {"x": 1}]}).into())
    );
}

#[test]
fn null_is_missing_in_an_upsert() {
    let document = one(r#""pos": null, "embedding": null, "new": null"#).expect("valid");
    assert!(document.is_empty());
}

#[test]
fn values_of_another_type_are_refused_at_their_place() {
    for (fields, place) in [
        (r#""lex": 1.5"#, "lex"),
        (r#""lex": "3""#, "lex"),
        (r#""lex": 9223372036854775808"#, "lex"),
        (r#""lex": true"#, "lex"),
        (r#""lex": [3]"#, "lex"),
        (r#""price": "4""#, "price"),
        (r#""live": 1"#, "live"),
        (r#""pos": 3"#, "pos"),
        (r#""gloss": {}"#, "gloss"),
        (r#""at": 1700000000000"#, "at"),
        (r#""at": "yesterday""#, "at"),
        (r#""tags": "a""#, "tags"),
        (r#""tags": ["a", 3]"#, "tags[1]"),
        (r#""tags": ["a", null]"#, "tags[1]"),
        (r#""tags": [["a"]]"#, "tags[0]"),
        (r#""tags": {"a": 1}"#, "tags"),
        (r#""sizes": [1, "2"]"#, "sizes[1]"),
        (r#""embedding": [1, "2", 3]"#, "embedding"),
        (r#""embedding": [1, null, 3]"#, "embedding"),
        (r#""embedding": [[1], 2, 3]"#, "embedding"),
        (r#""embedding": "0.1,0.2,0.3""#, "embedding"),
        (r#""embedding": 3"#, "embedding"),
        (r#""embedding": {"0": 1}"#, "embedding"),
    ] {
        assert_eq!(
            refused(fields),
            (Code::TypeMismatch, format!("upsert[0].{place}")),
            "{fields}"
        );
    }
}

#[test]
fn an_integral_float_fits_an_int_field_and_a_large_integer_a_float_field() {
    assert_eq!(
        one(r#""lex": 3.0"#).expect("valid").get("lex"),
        Some(&Value::Int(3))
    );
    assert_eq!(
        one(r#""lex": 1e3"#).expect("valid").get("lex"),
        Some(&Value::Int(1000))
    );
    let large = one(r#""price": 18446744073709551615"#).expect("valid");
    assert_eq!(
        large.get("price"),
        Some(&Value::Float(18_446_744_073_709_551_615.0))
    );
}

#[test]
fn vectors_have_the_dimension_of_their_field_in_every_form() {
    let short = b64(f32_bytes(&[1.0, 2.0]));
    let odd = b64([0_u8; 13]);
    let (empty, f32_for_bits) = (b64([]), b64([0_u8; 40]));
    for fields in [
        r#""embedding": [1, 2]"#.to_owned(),
        r#""embedding": [1.5, 2, 3, 4]"#.to_owned(),
        r#""embedding": []"#.to_owned(),
        r#""embedding": [1, null]"#.to_owned(),
        format!(r#""embedding": {short}"#),
        format!(r#""embedding": {odd}"#),
        format!(r#""embedding": {empty}"#),
        format!(r#""small": {odd}"#),
        format!(r#""bits": {f32_for_bits}"#),
        r#""bits": [1, 0]"#.to_owned(),
    ] {
        assert_eq!(refused(&fields).0, Code::DimensionMismatch, "{fields}");
    }
}

#[test]
fn nothing_that_is_not_finite_gets_in() {
    for (at, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY]
        .into_iter()
        .enumerate()
    {
        let mut vector = [0.0; 3];
        vector[at] = bad;
        let encoded = b64(f32_bytes(&vector));
        assert_eq!(
            refused(&format!(r#""embedding": {encoded}"#)),
            (Code::NotFinite, "upsert[0].embedding".to_owned())
        );
    }
    assert_eq!(
        refused(r#""embedding": [0, 1e39, 0]"#),
        (Code::NotFinite, "upsert[0].embedding".into())
    );
    assert_eq!(
        refused(r#""half": [0, 65520]"#),
        (Code::NotFinite, "upsert[0].half".into())
    );
    let encoded = b64(f32_bytes(&[1e6, 0.0]));
    assert_eq!(refused(&format!(r#""half": {encoded}"#)).0, Code::NotFinite);
    let encoded = b64(f32_bytes(&[f32::NAN, 0.0]));
    assert_eq!(refused(&format!(r#""small": {encoded}"#)).0, Code::NotFinite);
}

#[test]
fn zero_minus_zero_and_denormals_are_vector_elements() {
    let document = one(r#""embedding": [0, -0.0, 1e-42]"#).expect("valid");
    let Some(Value::Vector(Vector::F32(v))) = document.get("embedding") else {
        panic!("a vector")
    };
    assert_eq!(v[1].to_bits(), (-0.0_f32).to_bits());
    assert!(v[2] > 0.0);
}

#[test]
fn int8_and_binary_elements_stay_in_range() {
    for fields in [
        r#""small": [128, 0]"#,
        r#""small": [-129, 0]"#,
        r#""small": [1.5, 0]"#,
        r#""bits": [2,0,0,0,0,0,0,0,0,0]"#,
        r#""bits": [-1,0,0,0,0,0,0,0,0,0]"#,
        r#""bits": [0.5,0,0,0,0,0,0,0,0,0]"#,
    ] {
        assert_eq!(refused(fields).0, Code::InvalidValue, "{fields}");
    }
    let tail = b64([0b1111_1111, 0b1110_0000]);
    assert_eq!(refused(&format!(r#""bits": {tail}"#)).0, Code::InvalidValue);
}

#[test]
fn base64_is_read_in_the_form_of_the_element() {
    let floats = b64(f32_bytes(&[0.1, -2.0, 3.5]));
    let document = one(&format!(r#""embedding": {floats}"#)).expect("valid");
    assert_eq!(
        document.get("embedding"),
        Some(&Value::Vector(Vector::F32(vec![0.1, -2.0, 3.5].into())))
    );
    let unpadded = floats.replace('=', "");
    assert!(one(&format!(r#""embedding": {unpadded}"#)).is_ok());
    let expected = Value::Vector(Vector::I8(vec![-1, 100].into()));
    let as_bytes = one(&format!(r#""small": {}"#, b64([255, 100]))).expect("bytes");
    let as_floats = one(&format!(r#""small": {}"#, b64(f32_bytes(&[-1.0, 100.0])))).expect("floats");
    assert_eq!(
        (as_bytes.get("small"), as_floats.get("small")),
        (Some(&expected), Some(&expected))
    );
    let bits = one(&format!(r#""bits": {}"#, b64([0b1000_0001, 0b0100_0000]))).expect("bits");
    assert_eq!(
        bits.get("bits"),
        Some(&Value::Vector(Vector::Bits(
            vec![0b1000_0001, 0b0100_0000].into()
        )))
    );
    for wrong in [r#""b64:!!!!""#, r#""b64:AAA\u0000""#, r#""b64:AAAAA""#] {
        assert_eq!(
            refused(&format!(r#""embedding": {wrong}"#)).0,
            Code::InvalidValue,
            "{wrong}"
        );
    }
}

#[test]
fn an_f32_query_may_meet_an_int8_field() {
    let ty = |element| VectorType {
        dim: 2,
        metric: Metric::Dot,
        element,
        index: VectorIndex::Auto,
    };
    let query = |element, text: &str| query_vector(&ty(element), parse(text));
    assert_eq!(query(Element::Int8, "[1, 2]"), Ok(Vector::I8(vec![1, 2].into())));
    assert_eq!(
        query(Element::Int8, "[0.5, 2]"),
        Ok(Vector::F32(vec![0.5, 2.0].into()))
    );
    assert_eq!(
        query(Element::Int8, "[300, 2]"),
        Ok(Vector::F32(vec![300.0, 2.0].into()))
    );
    assert_eq!(
        query(Element::F16, "[0.1, 2]"),
        Ok(Vector::F32(vec![0.1, 2.0].into()))
    );
    let problem = query(Element::Int8, "[0.5]").expect_err("too short");
    assert_eq!(problem.code, Code::DimensionMismatch);
    assert_eq!(
        query(Element::F32, "[1e39, 0]").expect_err("overflow").code,
        Code::NotFinite
    );
    assert!(query(Element::Binary, "[0.5, 0]").is_err());
}

#[test]
fn the_first_document_with_a_field_gives_it_its_type() {
    let (_, new) = fresh(
        r#"[{"id": 1, "b": true, "i": 3, "f": 2.0, "s": "2026-01-31T12:00:00Z", "o": {"x": 1}},
            {"id": 2, "li": [1, 2], "lf": [1, 2.5], "ls": ["a"], "lb": [true], "f": 3, "o": 3, "nothing": null}]"#,
    )
    .expect("valid");
    let scalar = FieldType::Scalar;
    let list = FieldType::List;
    let expected = [
        ("b", scalar(Scalar::Bool)),
        ("f", scalar(Scalar::Float)),
        ("i", scalar(Scalar::Int)),
        ("lb", list(Scalar::Bool)),
        ("lf", list(Scalar::Float)),
        ("li", list(Scalar::Int)),
        ("ls", list(Scalar::String)),
        ("o", FieldType::Json),
        ("s", scalar(Scalar::String)),
    ];
    let expected = expected
        .into_iter()
        .map(|(n, t)| (FieldName::parse(n).expect("valid"), t))
        .collect();
    assert_eq!(
        new,
        NewFields {
            fields: expected,
            id_kind: Some(IdKind::Num)
        }
    );
}

#[test]
fn later_documents_of_a_request_obey_the_first() {
    let problem = fresh(r#"[{"id": 1, "x": 3}, {"id": 2, "x": 3.5}]"#).expect_err("3 made it an int");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::TypeMismatch, Some("upsert[1].x"))
    );
    let problem = fresh(r#"[{"id": 1, "x": "a"}, {"id": 2, "x": {}}]"#).expect_err("a string");
    assert_eq!(problem.code, Code::TypeMismatch);
}

#[test]
fn what_has_no_type_is_refused_with_a_hint() {
    for value in [
        r#"[1, "a"]"#,
        r#"[true, 1]"#,
        r#"[[1]]"#,
        r#"[{}]"#,
        r#"[1, null]"#,
        "9223372036854775808",
    ] {
        let problem = fresh(&format!(r#"[{{"id": 1, "x": {value}}}]"#)).expect_err(value);
        assert_eq!(problem.code, Code::TypeMismatch, "{value}");
        assert!(
            problem.field.expect("a place").starts_with("upsert[0].x"),
            "{value}"
        );
        assert!(problem.hint.is_some(), "{value}");
    }
}

#[test]
fn an_empty_list_is_kept_only_when_its_request_knows_the_type() {
    let (documents, new) =
        fresh(r#"[{"id": 1, "t": [], "u": []}, {"id": 2, "t": ["a"]}, {"id": 3, "t": []}]"#).expect("valid");
    let empty = Value::List(vec![]);
    assert_eq!(documents[0].1.get("t"), Some(&empty));
    assert_eq!(documents[2].1.get("t"), Some(&empty));
    assert_eq!(documents[0].1.get("u"), None);
    assert_eq!(new.fields.len(), 1);
    let problem = fresh(r#"[{"id": 1, "t": []}, {"id": 2, "t": "a"}]"#).expect_err("no list");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::TypeMismatch, Some("upsert[0].t"))
    );
    assert_eq!(one(r#""tags": []"#).expect("declared").get("tags"), Some(&empty));
    let (documents, _) = fresh(r#"[{"id": 1, "j": []}, {"id": 2, "j": {}}]"#).expect("json");
    assert_eq!(documents[0].1.get("j"), Some(&Value::Json(json!([]).into())));
}

#[test]
fn an_empty_list_of_one_verb_does_not_reach_the_documents_of_another() {
    let (schema, limits) = (Schema::default(), Limits::default());
    let mut typer = Typer::new(&schema, &limits);
    assert_eq!(
        typer.patch(parse(r#"[{"id": "a", "t": []}]"#)).expect("valid")[0].set,
        []
    );
    let documents = typer
        .upsert(parse(r#"[{"id": "b"}, {"id": "c", "t": ["x"]}]"#))
        .expect("valid");
    assert_eq!(documents[0].1.get("t"), None);
}

#[test]
fn names_of_fields_are_checked() {
    for name in ["", "a b", "1a", "a.b", "a-b", "ä"] {
        let problem = fresh(&format!(r#"[{{"id": 1, "{name}": 1}}]"#)).expect_err(name);
        assert_eq!(problem.code, Code::InvalidName, "{name}");
    }
    let long = "a".repeat(65);
    assert!(fresh(&format!(r#"[{{"id": 1, "{long}": 1}}]"#)).is_err());
    for name in [&long[1..], "_", "_seq", "_rowid"] {
        assert!(fresh(&format!(r#"[{{"id": 1, "{name}": 1}}]"#)).is_ok(), "{name}");
    }
}

#[test]
fn ids_are_strings_or_unsigned_integers_of_one_kind() {
    for id in [
        "-1",
        "1.5",
        "1.0",
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "18446744073709551616",
    ] {
        let problem = fresh(&format!(r#"[{{"id": {id}}}]"#)).expect_err(id);
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidId, Some("upsert[0].id")),
            "{id}"
        );
    }
    assert_eq!(
        fresh("[{}]").expect_err("none").field.as_deref(),
        Some("upsert[0].id")
    );
    for id in ["0", "18446744073709551615", r#""../\u0000""#, "\"é\""] {
        assert!(fresh(&format!(r#"[{{"id": {id}}}]"#)).is_ok(), "{id}");
    }
    let longest = "ä".repeat(256);
    assert!(fresh(&format!(r#"[{{"id": "{longest}"}}]"#)).is_ok());
    assert!(fresh(&format!(r#"[{{"id": "{longest}a"}}]"#)).is_err());
    let problem = fresh(r#"[{"id": 1}, {"id": "1"}]"#).expect_err("mixed");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::InvalidId, Some("upsert[1].id"))
    );
}

#[test]
fn a_collection_keeps_the_kind_of_its_ids_in_every_verb() {
    let schema = Schema {
        id_kind: Some(IdKind::Str),
        ..Schema::default()
    };
    let limits = Limits::default();
    let mut typer = Typer::new(&schema, &limits);
    assert_eq!(
        typer.upsert(parse(r#"[{"id": 1}]"#)).expect_err("a number").code,
        Code::InvalidId
    );
    assert_eq!(
        typer.delete(parse("[1]")).expect_err("a number").field.as_deref(),
        Some("delete[0]")
    );
    assert_eq!(
        typer.patch(parse(r#"[{"id": 1}]"#)).expect_err("a number").code,
        Code::InvalidId
    );
    assert_eq!(typer.delete(parse(r#"["a", "a"]"#)).map(|ids| ids.len()), Ok(2));
    assert_eq!(typer.new_fields().id_kind, None);
}

#[test]
fn deletes_and_patches_fix_no_kind_but_must_agree_with_the_upserts() {
    let (schema, limits) = (Schema::default(), Limits::default());
    let mut typer = Typer::new(&schema, &limits);
    typer.delete(parse("[1]")).expect("valid");
    typer.patch(parse(r#"[{"id": 2}]"#)).expect("valid");
    assert_eq!(typer.new_fields().id_kind, None);
    assert_eq!(
        typer.upsert(parse(r#"[{"id": "1"}]"#)).expect_err("mixed").code,
        Code::InvalidId
    );
}

#[test]
fn one_id_twice_in_the_upserts_is_refused_in_rows_and_columns() {
    let problem = fresh(r#"[{"id": 1}, {"id": 2}, {"id": 1}]"#).expect_err("twice");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::DuplicateId, Some("upsert[2].id"))
    );
    let (schema, limits) = (Schema::default(), Limits::default());
    let mut typer = Typer::new(&schema, &limits);
    typer.upsert(parse(r#"[{"id": 1}]"#)).expect("valid");
    let problem = typer
        .upsert_columns(parse(r#"{"id": [2, 1]}"#))
        .expect_err("twice");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::DuplicateId, Some("upsert_columns.id[1]"))
    );
    assert!(
        typer
            .patch(parse(r#"[{"id": 1, "x": 1}, {"id": 1, "x": 2}]"#))
            .is_ok()
    );
}

#[test]
fn a_patch_sets_and_removes() {
    let schema = schema();
    let limits = Limits::default();
    let mut typer = Typer::new(&schema, &limits);
    let patches = typer.patch(parse(
        r#"[{"id": "a", "pos": "v", "lex": null, "unknown": null, "new": 1}]"#,
    ));
    let set = patches.expect("valid").remove(0).set;
    let set: Vec<_> = set
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    assert_eq!(
        set,
        [
            ("pos", Some(Value::Str("v".into()))),
            ("lex", None),
            ("new", Some(Value::Int(1)))
        ]
    );
    let problem = typer
        .patch(parse(r#"[{"id": "a"}, {"id": "b", "lex": "x"}]"#))
        .expect_err("no int");
    assert_eq!(problem.field.as_deref(), Some("patch[1].lex"));
}

#[test]
fn what_has_not_the_shape_is_malformed() {
    let (schema, limits) = (Schema::default(), Limits::default());
    let mut typer = Typer::new(&schema, &limits);
    for shape in ["{}", "3", "null", "\"a\""] {
        assert_eq!(typer.upsert(parse(shape)).expect_err(shape).code, Code::Malformed);
        assert_eq!(typer.patch(parse(shape)).expect_err(shape).code, Code::Malformed);
        assert_eq!(
            typer.delete(parse(shape)).expect_err(shape).field.as_deref(),
            Some("delete")
        );
    }
    assert_eq!(
        typer.upsert(parse("[3]")).expect_err("3").field.as_deref(),
        Some("upsert[0]")
    );
    assert_eq!(
        typer.upsert_columns(parse("[]")).expect_err("a list").code,
        Code::Malformed
    );
    assert_eq!(
        typer.upsert_columns(parse(r#"{"id": 3}"#)).expect_err("3").code,
        Code::Malformed
    );
    assert_eq!(
        typer
            .document(&DocId::from("a"), parse("[]"))
            .expect_err("a list")
            .code,
        Code::Malformed
    );
}

#[test]
fn a_body_carries_no_id_or_the_one_of_its_path() {
    let (schema, limits) = (Schema::default(), Limits::default());
    let mut typer = Typer::new(&schema, &limits);
    let id = DocId::from("n1");
    let document = typer
        .document(&id, parse(r#"{"id": "n1", "pos": "n"}"#))
        .expect("the same id");
    assert_eq!(document.len(), 1);
    assert_eq!(typer.new_fields().id_kind, Some(IdKind::Str));
    assert!(typer.document(&id, parse(r#"{"pos": "n"}"#)).is_ok());
    assert_eq!(
        typer
            .document(&id, parse(r#"{"id": "n2"}"#))
            .expect_err("another")
            .code,
        Code::InvalidId
    );
    assert_eq!(
        typer
            .document(&id, parse(r#"{"id": 1}"#))
            .expect_err("another")
            .code,
        Code::InvalidId
    );
    assert_eq!(
        typer
            .document_patch(&id, parse(r#"{"pos": null}"#))
            .expect("valid")
            .set
            .len(),
        1
    );
}

#[test]
fn limits_of_a_request_are_kept() {
    let schema = Schema::default();
    let limits = Limits {
        batch_rows: 2,
        fields: 2,
        document_bytes: 1_000,
        id_bytes: 4,
        ..Limits::default()
    };
    let typer = || Typer::new(&schema, &limits);
    let over = |result: Result<Vec<(DocId, Document)>, Problem>| result.expect_err("too much");
    assert_eq!(
        over(typer().upsert(parse(r#"[{"id":1},{"id":2},{"id":3}]"#))).code,
        Code::LimitExceeded
    );
    assert_eq!(
        over(typer().upsert(parse(r#"[{"id":1,"a":1,"b":1,"c":1}]"#))).code,
        Code::LimitExceeded
    );
    assert_eq!(
        over(typer().upsert(parse(r#"[{"id":"abcde"}]"#))).code,
        Code::InvalidId
    );
    let large = format!(r#"[{{"id":1,"a":"{}"}}]"#, "x".repeat(1_000));
    assert_eq!(
        over(typer().upsert(parse(&large))).field.as_deref(),
        Some("upsert[0]")
    );
    assert_eq!(
        typer().patch(parse(&large)).expect_err("too much").code,
        Code::LimitExceeded
    );
    assert_eq!(
        over(typer().upsert_columns(parse(r#"{"id": [1, 2, 3]}"#))).code,
        Code::LimitExceeded
    );
    let mut both = typer();
    both.upsert(parse(r#"[{"id":1},{"id":2}]"#)).expect("two fit");
    assert_eq!(
        both.delete(parse("[9]")).expect_err("three").code,
        Code::LimitExceeded
    );
}

#[test]
fn json_deeper_than_its_limit_is_refused() {
    let nested = |depth: usize| format!(r#""extra": {}1{}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(one(&nested(64)).is_ok());
    assert_eq!(
        refused(&nested(65)),
        (Code::LimitExceeded, "upsert[0].extra".into())
    );
}

#[test]
fn a_failed_row_of_an_import_leaves_nothing_behind() {
    let (schema, limits) = (Schema::default(), Limits::default());
    let mut typer = Typer::new(&schema, &limits);
    typer
        .row(parse(r#"{"id": "a", "x": 1, "bad": [1, "a"]}"#))
        .expect_err("a mixed list");
    assert!(typer.new_fields().is_empty());
    typer
        .row(parse(r#"{"id": 7, "x": "text"}"#))
        .expect("another kind and type are still free");
    typer
        .row(parse(r#"{"id": "b", "y": 1}"#))
        .expect_err("ids are numbers now");
    typer
        .row(parse(r#"{"id": 7, "x": "again"}"#))
        .expect("an id may come twice");
    assert_eq!(typer.into_new_fields().fields.len(), 1);
}

#[test]
fn columns_are_the_same_documents() {
    let schema = schema();
    let limits = Limits::default();
    let vectors = b64(f32_bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let columns = format!(
        r#"{{"id": ["a", "b"], "embedding": {vectors}, "pos": ["n", null], "lex": [1, 2], "price": [1, 2.5],
            "tags": [[], ["x"]], "bits": {}, "fresh": [[], [1]], "small": [[1, 2], null]}}"#,
        b64([0xFF, 0xC0, 0, 0])
    );
    let rows = r#"[
        {"id": "a", "embedding": [1, 2, 3], "pos": "n", "lex": 1, "price": 1, "tags": [], "fresh": [],
         "bits": [1,1,1,1,1,1,1,1,1,1], "small": [1, 2]},
        {"id": "b", "embedding": [4, 5, 6], "lex": 2, "price": 2.5, "tags": ["x"], "fresh": [1],
         "bits": [0,0,0,0,0,0,0,0,0,0]}]"#;
    let (mut by_columns, mut by_rows) = (Typer::new(&schema, &limits), Typer::new(&schema, &limits));
    let columns = by_columns.upsert_columns(parse(&columns)).expect("valid");
    assert_eq!(columns, by_rows.upsert(parse(rows)).expect("valid"));
    assert_eq!(by_columns.into_new_fields(), by_rows.into_new_fields());
}

#[test]
fn a_wrong_column_is_named() {
    let schema = schema();
    let limits = Limits::default();
    let case = |columns: &str| {
        let problem = Typer::new(&schema, &limits)
            .upsert_columns(parse(columns))
            .expect_err(columns);
        (problem.code, problem.field.unwrap_or_default())
    };
    let place = |place: &str| format!("upsert_columns.{place}");
    assert_eq!(case(r#"{"pos": ["n"]}"#), (Code::InvalidId, place("id")));
    assert_eq!(
        case(r#"{"id": ["a"], "pos": []}"#),
        (Code::InvalidValue, place("pos"))
    );
    assert_eq!(
        case(r#"{"id": ["a"], "pos": "b64:AAAA"}"#),
        (Code::Malformed, place("pos"))
    );
    assert_eq!(case(r#"{"id": ["a", ""]}"#), (Code::InvalidId, place("id[1]")));
    assert_eq!(
        case(r#"{"id": ["a", "b"], "lex": [1, 1.5]}"#),
        (Code::TypeMismatch, place("lex[1]"))
    );
    assert_eq!(
        case(r#"{"id": ["a", "b"], "tags": [["x"], ["y", 1]]}"#),
        (Code::TypeMismatch, place("tags[1][1]"))
    );
    let nan = b64(f32_bytes(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]));
    assert_eq!(
        case(&format!(r#"{{"id": ["a", "b"], "embedding": {nan}}}"#)),
        (Code::NotFinite, place("embedding[1]"))
    );
    let short = b64(f32_bytes(&[0.0; 5]));
    assert_eq!(
        case(&format!(r#"{{"id": ["a", "b"], "embedding": {short}}}"#)),
        (Code::DimensionMismatch, place("embedding"))
    );
}

#[test]
fn cells_of_csv_follow_the_type_of_their_field() {
    let limits = Limits::default();
    let read = |text: &str, ty: Option<FieldType>| cell(text, ty.as_ref(), &limits);
    let string = || Some(FieldType::Scalar(Scalar::String));
    assert_eq!(read("12", string()), Json::from("12"));
    assert_eq!(read("", string()), Json::Null);
    assert_eq!(read("12", Some(FieldType::Scalar(Scalar::Int))), Json::Int(12));
    assert_eq!(
        read("True", Some(FieldType::Scalar(Scalar::Bool))),
        Json::Bool(true)
    );
    assert_eq!(read("[0.5, 1]", None), Json::Floats(vec![0.5, 1.0]));
    assert_eq!(read(" 3.5", None), Json::Float(3.5));
    for text in ["007", "null", "1,5", "[broken", "2026-01-31", "NaN"] {
        assert_eq!(read(text, None), Json::from(text), "{text}");
    }
    let broken = read("abc", Some(FieldType::Scalar(Scalar::Int)));
    assert_eq!(
        typed(&FieldType::Scalar(Scalar::Int), broken, &Limits::default())
            .expect_err("no int")
            .code,
        Code::TypeMismatch
    );
}

#[test]
fn an_id_in_a_path_has_the_kind_of_the_collection() {
    let limits = Limits::default();
    let id = |text: &str, kind| id_from_text(text, kind, &limits);
    assert_eq!(id("42", Some(IdKind::Num)), Ok(Some(DocId::Num(42))));
    assert_eq!(id("42", Some(IdKind::Str)), Ok(Some(DocId::from("42"))));
    assert_eq!(id("42", None), Ok(Some(DocId::from("42"))));
    assert_eq!(
        id("42", kind_of_id(&parse(r#"{"id": 42}"#))),
        Ok(Some(DocId::Num(42)))
    );
    for text in ["", "042", "+42", "-1", "n1", "18446744073709551616"] {
        assert_eq!(id(text, Some(IdKind::Num)), Ok(None), "{text}");
    }
    assert_eq!(id("0", Some(IdKind::Num)), Ok(Some(DocId::Num(0))));
    assert!(id(&"x".repeat(513), None).is_err());
    assert!(id("", None).is_err());
}

/// A document that fits `FIELDS`, as JSON.
fn any_row() -> impl Strategy<Value = serde_json::Value> {
    let f32s = |n: usize| prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), n);
    let vectors = (
        prop::option::of(f32s(3).prop_map(|v| json!(v))),
        prop::option::of(prop::collection::vec(-60_000.0..60_000.0_f64, 2).prop_map(|v| json!(v))),
        prop::option::of(prop::collection::vec(any::<i8>(), 2).prop_map(|v| json!(v))),
        prop::option::of(prop::collection::vec(0..=1, 10).prop_map(|v| json!(v))),
    );
    let scalars = (
        prop::option::of(any::<String>().prop_map(|s| json!(s))),
        prop::option::of(any::<i64>().prop_map(|n| json!(n))),
        prop::option::of(
            any::<f64>()
                .prop_filter("finite", |x| x.is_finite())
                .prop_map(|x| json!(x)),
        ),
        prop::option::of(any::<bool>().prop_map(|b| json!(b))),
        prop::option::of((0..4_000_000_000_000_i64).prop_map(|ms| json!(crate::time::format(ms)))),
    );
    let others = (
        prop::option::of(prop::collection::vec(".{0,4}", 0..4).prop_map(|v| json!(v))),
        prop::option::of(prop::collection::vec(-100..100_i32, 0..4).prop_map(|v| json!(v))),
        prop::option::of(prop::collection::btree_map("[a-c]", any::<i32>(), 0..3).prop_map(|v| json!(v))),
        prop::option::of((-9..9_i32).prop_map(|n| json!(n))),
    );
    ("[a-z]{1,8}", vectors, scalars, others).prop_map(
        |(id, (e, h, s, b), (p, l, f, v, t), (tags, sizes, x, new))| {
            let fields = [
                ("embedding", e),
                ("half", h),
                ("small", s),
                ("bits", b),
                ("pos", p),
                ("lex", l),
                ("price", f),
                ("live", v),
                ("at", t),
                ("tags", tags),
                ("sizes", sizes),
                ("extra", x),
                ("inferred", new),
            ];
            let mut row: serde_json::Map<_, _> = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect();
            row.insert("id".into(), json!(id));
            serde_json::Value::Object(row)
        },
    )
}

proptest! {
    #[test]
    fn what_was_typed_renders_to_json_that_types_to_the_same(row in any_row()) {
        let limits = Limits::default();
        let declared = schema();
        let mut typer = Typer::new(&declared, &limits);
        let (id, document) = typer.row(Json::from(row)).expect("it fits");
        let schema = declared.extend(&typer.into_new_fields(), &limits).expect("new fields");
        let text = serde_json::to_vec(&ExportRow { id: &id, document: &document, schema: &schema }).expect("writable");
        let again = Typer::new(&schema, &limits).row(Json::parse(&text, &limits).expect("json"));
        prop_assert_eq!(again, Ok((id, document)));
    }

    #[test]
    fn a_refused_request_never_panics_and_always_says_why(row in any_row(), name in "[a-z]{2,9}", text in "[\\[\\]{}\",0-9a-z.:-]{0,12}") {
        let schema = schema();
        let limits = Limits::default();
        let mut row = Json::from(row);
        if let (Json::Object(fields), Ok(json)) = (&mut row, Json::parse(text.as_bytes(), &limits)) {
            fields.retain(|(key, _)| key.as_ref() != name);
            fields.push((name.into(), json));
        }
        if let Err(problem) = Typer::new(&schema, &limits).upsert(Json::list(vec![row])) {
            prop_assert!(problem.field.is_some_and(|field| field.starts_with("upsert[0]")));
            prop_assert!(!problem.detail.is_empty());
        }
    }
}
