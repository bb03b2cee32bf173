//! Sparse vectors: from `{"indices": […], "values": […]}` or base64.

use base64::Engine as _;

use super::vector::BASE64;
use crate::json::Json;
use crate::limits::Limits;
use crate::problem::{Code, Problem};
use crate::value::{SparseError, SparseVector};

const FORMS: &str = "send {\"indices\": [7, 42], \"values\": [0.5, 1.25]}, or \"b64:\" and the base64 of \
                     little-endian pairs of u32 and f32";

/// A sparse vector as a document holds it.  The order of its elements means nothing, and
/// an element of zero is the same as one that is not there.
pub fn sparse(json: Json, limits: &Limits) -> Result<SparseVector, Problem> {
    let elements = match json {
        Json::Object(entries) => from_lists(entries, limits)?,
        Json::Str(text) => from_base64(&text)?,
        other => {
            let detail = format!(
                "a sparse vector is an object of indices and values, not {}",
                other.kind()
            );
            return Err(Problem::new(Code::TypeMismatch, detail).hint(FORMS));
        }
    };
    check_count(elements.len(), limits)?;
    SparseVector::new(elements).map_err(|error| {
        let code = match error {
            SparseError::Twice(_) => Code::InvalidValue,
            SparseError::NotFinite(_) => Code::NotFinite,
        };
        Problem::new(code, error.to_string())
    })
}

/// A query's: without an element it could find nothing, which is no question.
pub fn query_sparse(json: Json, limits: &Limits) -> Result<SparseVector, Problem> {
    let vector = sparse(json, limits)?;
    if vector.is_empty() {
        let detail = "a sparse vector without an element other than zero finds nothing";
        return Err(Problem::new(Code::InvalidValue, detail));
    }
    Ok(vector)
}

fn from_lists(entries: super::Object, limits: &Limits) -> Result<Vec<(u32, f32)>, Problem> {
    let (mut indices, mut values) = (None, None);
    for (name, list) in entries {
        match name.as_ref() {
            "indices" => indices = Some(list),
            "values" => values = Some(list),
            other => return Err(Problem::unknown_field(other, ["indices", "values"])),
        }
    }
    let indices = items("indices", indices, limits)?;
    let values = items("values", values, limits)?;
    if indices.len() != values.len() {
        let detail = format!(
            "there are {} indices and {} values: each index has one value",
            indices.len(),
            values.len()
        );
        return Err(Problem::new(Code::InvalidValue, detail).field("values"));
    }
    let pairs = indices.into_iter().zip(values).enumerate();
    let each = pairs.map(|(at, (index, value))| Ok((index_of(&index, at)?, value_of(&value, at)?)));
    each.collect()
}

fn items(name: &str, list: Option<Json>, limits: &Limits) -> Result<Vec<Json>, Problem> {
    let Some(list) = list else {
        let detail = format!("a sparse vector has {name}");
        return Err(Problem::new(Code::TypeMismatch, detail).field(name).hint(FORMS));
    };
    // Before it is copied, item by item.
    check_count(list.list_len().unwrap_or_default(), limits)?;
    list.into_items().map_err(|other| {
        let detail = format!("{name} is a list of numbers, not {}", other.kind());
        Problem::new(Code::TypeMismatch, detail).field(name)
    })
}

fn index_of(json: &Json, at: usize) -> Result<u32, Problem> {
    match json.as_u64().map(u32::try_from) {
        Some(Ok(index)) => Ok(index),
        _ => {
            let detail = format!("an index is a whole number from 0 to {}", u32::MAX);
            Err(Problem::new(Code::InvalidValue, detail).field(format!("indices[{at}]")))
        }
    }
}

fn value_of(json: &Json, at: usize) -> Result<f32, Problem> {
    let place = || format!("values[{at}]");
    let Some(value) = json.as_f64() else {
        let detail = format!("a value is a number, not {}", json.kind());
        return Err(Problem::new(Code::TypeMismatch, detail).field(place()));
    };
    match value as f32 {
        value if value.is_finite() => Ok(value),
        _ => Err(Problem::new(Code::NotFinite, format!("{value} is beyond f32")).field(place())),
    }
}

fn from_base64(text: &str) -> Result<Vec<(u32, f32)>, Problem> {
    let Some(encoded) = text.strip_prefix("b64:") else {
        return Err(Problem::new(Code::TypeMismatch, "a sparse vector is not a plain string").hint(FORMS));
    };
    let bytes = BASE64.decode(encoded).map_err(|e| {
        Problem::new(
            Code::InvalidValue,
            format!("the sparse vector is not base64: {e}"),
        )
    })?;
    SparseVector::pairs_of(&bytes).ok_or_else(|| {
        let detail = format!("{} bytes are no whole number of pairs of 8", bytes.len());
        Problem::new(Code::InvalidValue, detail).hint(FORMS)
    })
}

fn check_count(elements: usize, limits: &Limits) -> Result<(), Problem> {
    if elements <= limits.sparse_elements {
        return Ok(());
    }
    let detail = format!(
        "a sparse vector has at most {} elements, not {elements}",
        limits.sparse_elements
    );
    Err(Problem::new(Code::LimitExceeded, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SparseVector, Problem> {
        let limits = Limits {
            sparse_elements: 3,
            ..Limits::default()
        };
        sparse(Json::parse(text.as_bytes(), &limits).expect("json"), &limits)
    }

    #[test]
    fn elements_are_sorted_and_zeros_dropped() {
        let vector = read(r#"{"values": [1, 0, -2.5], "indices": [4294967295, 7, 0]}"#).expect("valid");
        assert_eq!(vector.elements(), [(0, -2.5), (u32::MAX, 1.0)]);
        assert!(
            read(r#"{"indices": [], "values": []}"#)
                .expect("empty is fine")
                .is_empty()
        );
        // Too small for f32: the same as zero.
        assert!(
            read(r#"{"indices": [1], "values": [1e-60]}"#)
                .expect("rounded")
                .is_empty()
        );
    }

    #[test]
    fn base64_is_pairs_of_index_and_value() {
        let bytes: Vec<u8> = [(9_u32, 0.5_f32), (2, -1.0)]
            .iter()
            .flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()].concat())
            .collect();
        let text = format!("\"b64:{}\"", BASE64.encode(&bytes));
        let vector = read(&text).expect("valid");
        assert_eq!(vector.elements(), [(2, -1.0), (9, 0.5)]);
        assert_eq!(
            SparseVector::pairs_of(&vector.to_bytes()),
            Some(vector.elements().to_vec())
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        for (text, code, field) in [
            ("3", Code::TypeMismatch, None),
            ("[1, 2]", Code::TypeMismatch, None),
            ("\"x\"", Code::TypeMismatch, None),
            ("\"b64:!\"", Code::InvalidValue, None),
            ("\"b64:AAAA\"", Code::InvalidValue, None),
            ("\"b64:AQAAAAAAgH8=\"", Code::NotFinite, None),
            ("{}", Code::TypeMismatch, Some("indices")),
            (r#"{"indices": [1]}"#, Code::TypeMismatch, Some("values")),
            (
                r#"{"indices": 1, "values": [1]}"#,
                Code::TypeMismatch,
                Some("indices"),
            ),
            (
                r#"{"indices": [1], "values": [1, 2]}"#,
                Code::InvalidValue,
                Some("values"),
            ),
            (
                r#"{"indices": [1, -1], "values": [1, 2]}"#,
                Code::InvalidValue,
                Some("indices[1]"),
            ),
            (
                r#"{"indices": [4294967296], "values": [1]}"#,
                Code::InvalidValue,
                Some("indices[0]"),
            ),
            (
                r#"{"indices": [1.5], "values": [1]}"#,
                Code::InvalidValue,
                Some("indices[0]"),
            ),
            (
                r#"{"indices": [1], "values": ["x"]}"#,
                Code::TypeMismatch,
                Some("values[0]"),
            ),
            (
                r#"{"indices": [1], "values": [1e39]}"#,
                Code::NotFinite,
                Some("values[0]"),
            ),
            (
                r#"{"indices": [5, 5], "values": [1, 2]}"#,
                Code::InvalidValue,
                None,
            ),
            (
                r#"{"indices": [1, 2, 3, 4], "values": [1, 2, 3, 4]}"#,
                Code::LimitExceeded,
                None,
            ),
            (
                r#"{"indexes": [1], "values": [1]}"#,
                Code::UnknownField,
                Some("indexes"),
            ),
        ] {
            let problem = read(text).expect_err(text);
            assert_eq!((problem.code, problem.field.as_deref()), (code, field), "{text}");
        }
    }

    #[test]
    fn a_query_of_nothing_is_refused() {
        let empty = Json::parse(br#"{"indices": [3], "values": [0]}"#, &Limits::default()).expect("json");
        let problem = query_sparse(empty, &Limits::default()).expect_err("nothing to find");
        assert_eq!(problem.code, Code::InvalidValue);
    }
}
