//! What a test says about a value.  The view calls the small `matches_*` on its columns;
//! a whole document goes through `Leaf::matches`; both end in one function.

use std::cmp::Ordering;

use super::{Leaf, Path, Test};
use crate::ids::DocId;
use crate::order::{Num, Seen};
use crate::value::{Document, Value};

impl Leaf {
    pub fn matches(&self, id: &DocId, document: &Document) -> bool {
        match &self.path {
            Path::Id => self.test.matches_id(id),
            Path::Field(name) => self.test.matches(document.get(name.as_str())),
            Path::Json(name, steps) => {
                let json = match document.get(name.as_str()) {
                    Some(Value::Json(json)) => Some(json.as_ref()),
                    _ => None,
                };
                self.test.matches_json(json.and_then(|json| dig(json, steps)))
            }
        }
    }
}

/// The value at the end of a path inside a json value.
pub fn dig(
    json: &serde_json::Value,
    steps: impl IntoIterator<Item = impl AsRef<str>>,
) -> Option<&serde_json::Value> {
    steps.into_iter().try_fold(json, |json, step| match json {
        serde_json::Value::Object(map) => map.get(step.as_ref()),
        serde_json::Value::Array(items) => items.get(step.as_ref().parse::<usize>().ok()?),
        _ => None,
    })
}

impl Test {
    /// A field's value, `None` when the document has none.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        self.sees_or_misses(value.and_then(Seen::value))
    }

    /// A value inside json; null is missing.
    pub fn matches_json(&self, value: Option<&serde_json::Value>) -> bool {
        self.sees_or_misses(value.and_then(Seen::json))
    }

    pub fn matches_id(&self, id: &DocId) -> bool {
        self.sees(Seen::id(id))
    }

    pub fn matches_missing(&self) -> bool {
        matches!(self, Self::Ne(_) | Self::NotIn(_) | Self::Exists(false))
    }

    pub fn matches_bool(&self, value: bool) -> bool {
        self.sees(Seen::Bool(value))
    }

    pub fn matches_int(&self, value: i64) -> bool {
        self.sees(Seen::Num(Num::Int(value)))
    }

    pub fn matches_float(&self, value: f64) -> bool {
        self.sees(Seen::Num(Num::Float(value)))
    }

    /// Milliseconds since 1970.
    pub fn matches_time(&self, ms: i64) -> bool {
        self.sees(Seen::Time(ms))
    }

    pub fn matches_str(&self, value: &str) -> bool {
        self.sees(Seen::Str(value))
    }

    pub fn matches_list(&self, items: &[Value]) -> bool {
        self.sees(Seen::List(items))
    }

    fn sees_or_misses(&self, value: Option<Seen<'_>>) -> bool {
        match value {
            Some(value) => self.sees(value),
            None => self.matches_missing(),
        }
    }

    #[inline]
    fn sees(&self, value: Seen<'_>) -> bool {
        match self {
            Self::Eq(operand) => compared(value, operand, Ordering::is_eq),
            Self::Ne(operand) => !compared(value, operand, Ordering::is_eq),
            Self::Lt(operand) => compared(value, operand, Ordering::is_lt),
            Self::Lte(operand) => compared(value, operand, Ordering::is_le),
            Self::Gt(operand) => compared(value, operand, Ordering::is_gt),
            Self::Gte(operand) => compared(value, operand, Ordering::is_ge),
            Self::In(operands) => among(value, operands),
            Self::NotIn(operands) => !among(value, operands),
            Self::ContainsAny(operands) => holds(value, |item| among(item, operands)),
            Self::ContainsAll(operands) => contains_all(value, operands),
            Self::Exists(wanted) => *wanted,
            Self::Prefix(prefix) => matches!(value, Seen::Str(s) if s.starts_with(prefix.as_ref())),
            Self::Matches(pattern) => matches!(value, Seen::Str(s) if pattern.is_match(s)),
        }
    }
}

#[inline]
fn compared(value: Seen<'_>, operand: &Value, holds: impl Fn(Ordering) -> bool) -> bool {
    Seen::value(operand)
        .and_then(|operand| value.compare(operand))
        .is_some_and(holds)
}

/// Operands are sorted by `order::compare`, which is `Seen::order` on present values.
fn among(value: Seen<'_>, operands: &[Value]) -> bool {
    let found = operands.binary_search_by(|operand| match Seen::value(operand) {
        Some(operand) => operand.order(value),
        None => Ordering::Greater,
    });
    found.is_ok()
}

/// Whether a list, typed or json, has an item with `property`.  Nothing else has items.
fn holds(list: Seen<'_>, property: impl Fn(Seen<'_>) -> bool) -> bool {
    match list {
        Seen::List(items) => items.iter().filter_map(Seen::value).any(property),
        Seen::Json(serde_json::Value::Array(items)) => items.iter().filter_map(Seen::json).any(property),
        _ => false,
    }
}

fn contains_all(list: Seen<'_>, operands: &[Value]) -> bool {
    let is_list = matches!(list, Seen::List(_) | Seen::Json(serde_json::Value::Array(_)));
    is_list
        && operands
            .iter()
            .all(|operand| holds(list, |item| compared(item, operand, Ordering::is_eq)))
}
