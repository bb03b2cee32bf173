//! How values compare: the one place where an integer meets a float, and a json value
//! meets a typed one.  Filters, `order_by` and aggregates all use it, so they agree.
//!
//! Numbers compare by value, exactly, whatever their type (no rounding through f64);
//! `-0.0` equals `0.0`; strings compare by bytes; values of different kinds are never
//! equal and are ordered by kind only where a total order is asked for.

use std::cmp::Ordering;

use crate::ids::{DocId, FieldName};
use crate::json::Json;
use crate::problem::{Code, Problem};
use crate::schema::{FieldType, Schema};
use crate::value::{Document, SparseVector, Value, Vector};

/// A number as some document, operand or id holds it.
#[derive(Clone, Copy, Debug)]
pub enum Num {
    Int(i64),
    UInt(u64),
    /// Always finite.
    Float(f64),
}

impl Num {
    pub fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::UInt(a), Self::UInt(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => compare_floats(a, b),
            (Self::Int(a), Self::UInt(b)) => i128::from(a).cmp(&i128::from(b)),
            (Self::UInt(a), Self::Int(b)) => i128::from(a).cmp(&i128::from(b)),
            (Self::Int(a), Self::Float(b)) => compare_int_to_float(i128::from(a), b),
            (Self::UInt(a), Self::Float(b)) => compare_int_to_float(i128::from(a), b),
            (Self::Float(a), Self::Int(b)) => compare_int_to_float(i128::from(b), a).reverse(),
            (Self::Float(a), Self::UInt(b)) => compare_int_to_float(i128::from(b), a).reverse(),
        }
    }

    fn of_json(number: &serde_json::Number) -> Self {
        if let Some(n) = number.as_i64() {
            Self::Int(n)
        } else if let Some(n) = number.as_u64() {
            Self::UInt(n)
        } else {
            Self::Float(number.as_f64().unwrap_or(0.0))
        }
    }
}

fn compare_floats(a: f64, b: f64) -> Ordering {
    // Values are finite by their types; total_cmp would tell -0.0 from 0.0.
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

/// Exact: the integer part decides, then the fraction.
fn compare_int_to_float(int: i128, float: f64) -> Ordering {
    // Saturates far outside 64 bits, which keeps the order.
    let whole = float.trunc() as i128;
    int.cmp(&whole).then_with(|| compare_floats(0.0, float.fract()))
}

/// A value seen without owning it, whatever holds it: a document, a column, a json tree.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    Bool(bool),
    Num(Num),
    Time(i64),
    Str(&'a str),
    List(&'a [Value]),
    /// A json array or object; json scalars are seen as scalars.
    Json(&'a serde_json::Value),
    Vector(&'a Vector),
    Sparse(&'a SparseVector),
}

impl<'a> Seen<'a> {
    /// `None` for json null, which is the same as missing.
    pub fn value(value: &'a Value) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(n) => Self::Num(Num::Int(*n)),
            Value::Float(x) => Self::Num(Num::Float(*x)),
            Value::Str(s) => Self::Str(s),
            Value::Time(ms) => Self::Time(*ms),
            Value::List(items) => Self::List(items),
            Value::Json(json) => return Self::json(json),
            Value::Vector(v) => Self::Vector(v),
            Value::Sparse(v) => Self::Sparse(v),
        })
    }

    pub fn json(json: &'a serde_json::Value) -> Option<Self> {
        Some(match json {
            serde_json::Value::Null => return None,
            serde_json::Value::Bool(b) => Self::Bool(*b),
            serde_json::Value::Number(n) => Self::Num(Num::of_json(n)),
            serde_json::Value::String(s) => Self::Str(s),
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => Self::Json(json),
        })
    }

    pub fn id(id: &'a DocId) -> Self {
        match id {
            DocId::Num(n) => Self::Num(Num::UInt(*n)),
            DocId::Str(s) => Self::Str(s),
        }
    }

    /// `None` between kinds: a string is neither less than nor equal to a number.
    pub fn compare(self, other: Seen<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Seen::Bool(b)) => Some(a.cmp(&b)),
            (Self::Num(a), Seen::Num(b)) => Some(a.compare(b)),
            (Self::Time(a), Seen::Time(b)) => Some(a.cmp(&b)),
            (Self::Str(a), Seen::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::List(a), Seen::List(b)) => Some(compare_each(a, b, compare)),
            (Self::Json(a), Seen::Json(b)) => Some(compare_json(a, b)),
            (Self::Vector(a), Seen::Vector(b)) => Some(compare_vectors(a, b)),
            (Self::Sparse(a), Seen::Sparse(b)) => Some(compare_sparse(a, b)),
            _ => None,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Num(_) => 1,
            Self::Time(_) => 2,
            Self::Str(_) => 3,
            Self::List(_) => 4,
            Self::Json(_) => 5,
            Self::Vector(_) => 6,
            Self::Sparse(_) => 7,
        }
    }

    /// A total order: by kind first, then by `compare`.
    pub fn order(self, other: Seen<'_>) -> Ordering {
        self.rank()
            .cmp(&other.rank())
            .then_with(|| self.compare(other).unwrap_or(Ordering::Equal))
    }
}

/// A total order of all values; json null comes last, as missing does.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    missing_last(Seen::value(a), Seen::value(b), Seen::order)
}

fn missing_last<T>(a: Option<T>, b: Option<T>, present: impl FnOnce(T, T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => present(a, b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn compare_each<T>(a: &[T], b: &[T], each: impl Fn(&T, &T) -> Ordering) -> Ordering {
    let unequal = a.iter().zip(b).map(|(a, b)| each(a, b)).find(|o| o.is_ne());
    unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn compare_vectors(a: &Vector, b: &Vector) -> Ordering {
    match (a, b) {
        (Vector::F32(a), Vector::F32(b)) => compare_each(a, b, |a, b| a.total_cmp(b)),
        (Vector::I8(a), Vector::I8(b)) => a.cmp(b),
        (Vector::Bits(a), Vector::Bits(b)) => a.cmp(b),
        _ => vector_rank(a).cmp(&vector_rank(b)),
    }
}

fn compare_sparse(a: &SparseVector, b: &SparseVector) -> Ordering {
    compare_each(a.elements(), b.elements(), |a, b| {
        a.0.cmp(&b.0).then_with(|| a.1.total_cmp(&b.1))
    })
}

fn vector_rank(v: &Vector) -> u8 {
    match v {
        Vector::F32(_) => 0,
        Vector::I8(_) => 1,
        Vector::Bits(_) => 2,
    }
}

/// Deep, by value: `1` equals `1.0`, and the order of an object's keys means nothing.
fn compare_json(a: &serde_json::Value, b: &serde_json::Value) -> Ordering {
    use serde_json::Value::{Array, Object};
    match (a, b) {
        (Array(a), Array(b)) => compare_each(a, b, compare_json),
        (Object(a), Object(b)) => compare_each(&by_key(a), &by_key(b), |(ka, va), (kb, vb)| {
            ka.cmp(kb).then_with(|| compare_json(va, vb))
        }),
        (Array(_), Object(_)) => Ordering::Less,
        (Object(_), Array(_)) => Ordering::Greater,
        _ => missing_last(Seen::json(a), Seen::json(b), Seen::order),
    }
}

fn by_key(map: &serde_json::Map<String, serde_json::Value>) -> Vec<(&String, &serde_json::Value)> {
    // Sorted here: serde_json keeps insertion order when any crate of the build asks for it.
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// `order_by`: one attribute or the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBy {
    pub key: OrderKey,
    pub descending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderKey {
    Id,
    Field(FieldName),
}

impl OrderBy {
    pub fn id() -> Self {
        Self {
            key: OrderKey::Id,
            descending: false,
        }
    }

    /// `lex` ascending, `-lex` descending.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self, Problem> {
        let (name, descending) = match text.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if name == "id" {
            return Ok(Self {
                key: OrderKey::Id,
                descending,
            });
        }
        let (name, ty) = schema.find(name)?;
        match ty {
            FieldType::Scalar(_) | FieldType::Text { .. } => Ok(Self {
                key: OrderKey::Field(name.clone()),
                descending,
            }),
            FieldType::Vector(_) | FieldType::Sparse | FieldType::List(_) | FieldType::Json => {
                Err(Problem::new(
                    Code::TypeMismatch,
                    format!("{} values have no order to sort by", ty.name()),
                )
                .field(name.as_str()))
            }
        }
    }

    pub fn parse_json(json: &Json, schema: &Schema) -> Result<Self, Problem> {
        match json {
            Json::Str(text) => Self::parse(text, schema),
            other => Err(Problem::new(
                Code::Malformed,
                format!("order_by is a field's name, not {}", other.kind()),
            )),
        }
    }

    /// The value to sort a document by; `None` for the id's order, which needs none.
    pub fn value<'a>(&self, document: &'a Document) -> Option<&'a Value> {
        match &self.key {
            OrderKey::Id => None,
            OrderKey::Field(name) => document.get(name.as_str()),
        }
    }

    /// Missing comes last and ties go to the smaller id, in both directions.
    pub fn compare(&self, a: (Option<&Value>, &DocId), b: (Option<&Value>, &DocId)) -> Ordering {
        let turned = |o: Ordering| if self.descending { o.reverse() } else { o };
        match self.key {
            OrderKey::Id => turned(a.1.cmp(b.1)),
            OrderKey::Field(_) => {
                missing_last(a.0.and_then(Seen::value), b.0.and_then(Seen::value), |a, b| {
                    turned(a.order(b))
                })
                .then_with(|| a.1.cmp(b.1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Field, Scalar};
    use proptest::prelude::*;

    fn schema() -> Schema {
        let mut schema = Schema::default();
        for (name, ty) in [
            ("lex", FieldType::Scalar(Scalar::Int)),
            ("tags", FieldType::List(Scalar::String)),
            (
                "gloss",
                FieldType::Text {
                    language: "english".into(),
                },
            ),
        ] {
            let name = FieldName::parse(name).expect("valid");
            schema.fields.insert(name, Field { ty, declared: true });
        }
        schema
    }

    #[test]
    fn integers_and_floats_compare_without_rounding() {
        let above = Num::Int((1 << 53) + 1);
        let float = Num::Float((1_u64 << 53) as f64);
        assert_eq!(above.compare(float), Ordering::Greater);
        assert_eq!(float.compare(above), Ordering::Less);
        assert_eq!(
            Num::UInt(u64::MAX).compare(Num::Float(u64::MAX as f64)),
            Ordering::Less
        );
        assert_eq!(
            Num::Int(i64::MIN).compare(Num::Float(i64::MIN as f64)),
            Ordering::Equal
        );
        assert_eq!(Num::Int(-1).compare(Num::Float(-1.5)), Ordering::Greater);
        assert_eq!(Num::Int(0).compare(Num::Float(5e-324)), Ordering::Less);
        assert_eq!(Num::Int(0).compare(Num::Float(-0.0)), Ordering::Equal);
        assert_eq!(Num::Int(i64::MAX).compare(Num::Float(1e300)), Ordering::Less);
        assert_eq!(Num::UInt(u64::MAX).compare(Num::Float(-1e300)), Ordering::Greater);
    }

    #[test]
    fn json_numbers_are_equal_by_value_deep_inside() {
        let a = serde_json::json!({"x": [1, {"y": 2.0}], "z": null});
        let b = serde_json::json!({"z": null, "x": [1.0, {"y": 2}]});
        assert_eq!(compare_json(&a, &b), Ordering::Equal);
        assert_ne!(
            compare_json(&a, &serde_json::json!({"x": [1, {"y": 3}], "z": null})),
            Ordering::Equal
        );
    }

    #[test]
    fn missing_comes_last_and_ties_go_to_the_smaller_id_in_both_directions() {
        let schema = schema();
        let docs = [
            (Some(Value::Int(1)), "b"),
            (None, "a"),
            (Some(Value::Int(2)), "d"),
            (Some(Value::Int(1)), "a"),
        ]
        .map(|(v, id)| (v, DocId::from(id)));
        let sorted = |text: &str| {
            let order = OrderBy::parse(text, &schema).expect("valid");
            let mut docs: Vec<_> = docs.iter().collect();
            docs.sort_by(|a, b| order.compare((a.0.as_ref(), &a.1), (b.0.as_ref(), &b.1)));
            docs.iter()
                .map(|d| (d.0.clone(), d.1.to_string()))
                .collect::<Vec<_>>()
        };
        let one = || Some(Value::Int(1));
        let two = || Some(Value::Int(2));
        assert_eq!(
            sorted("lex"),
            [
                (one(), "a".into()),
                (one(), "b".into()),
                (two(), "d".into()),
                (None, "a".into())
            ]
        );
        assert_eq!(
            sorted("-lex"),
            [
                (two(), "d".into()),
                (one(), "a".into()),
                (one(), "b".into()),
                (None, "a".into())
            ]
        );
    }

    #[test]
    fn the_id_can_be_sorted_by_in_both_directions() {
        let order = OrderBy::parse("-id", &schema()).expect("valid");
        let (a, b) = (DocId::from(2), DocId::from(10));
        assert_eq!(order.compare((None, &a), (None, &b)), Ordering::Greater);
        assert_eq!(OrderBy::id().compare((None, &a), (None, &b)), Ordering::Less);
    }

    #[test]
    fn sorting_by_an_unknown_field_names_the_nearest_and_a_list_is_refused() {
        let unknown = OrderBy::parse("-lexx", &schema()).expect_err("unknown");
        assert_eq!(unknown.code, Code::UnknownField);
        assert!(unknown.hint.expect("a hint").contains("lex"));
        assert_eq!(
            OrderBy::parse("tags", &schema()).expect_err("a list").code,
            Code::TypeMismatch
        );
        assert!(OrderBy::parse("gloss", &schema()).is_ok());
        assert_eq!(
            OrderBy::parse_json(&Json::Int(3), &schema()).expect_err("3").code,
            Code::Malformed
        );
    }

    fn any_num() -> impl Strategy<Value = Num> {
        let near = (-4_i64..4).prop_map(|d| (1_i64 << 53) + d);
        prop_oneof![
            any::<i64>().prop_map(Num::Int),
            any::<u64>().prop_map(Num::UInt),
            near.clone().prop_map(Num::Int),
            near.prop_map(|n| Num::Float(n as f64)),
            any::<i64>().prop_map(|n| Num::Float(n as f64)),
            (-1e3..1e3_f64).prop_map(Num::Float),
            (-9_i64..9).prop_map(Num::Int),
            (-18_i64..18).prop_map(|n| Num::Float(n as f64 / 2.0)),
        ]
    }

    proptest! {
        #[test]
        fn number_order_is_total(a in any_num(), b in any_num(), c in any_num()) {
            prop_assert_eq!(a.compare(a), Ordering::Equal);
            prop_assert_eq!(a.compare(b), b.compare(a).reverse());
            if a.compare(b).is_le() && b.compare(c).is_le() {
                prop_assert!(a.compare(c).is_le());
            }
        }
    }
}
