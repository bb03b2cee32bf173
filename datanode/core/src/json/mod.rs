//! The JSON tree of a request body: small, and quick to build where ingestion needs it.
//!
//! A list that holds only numbers is one packed `Vec`, not a list of enums: a vector of 384
//! floats costs one allocation.  Whoever makes a `Json` keeps that rule (`Json::list`), so
//! two equal texts give equal trees.  A list that mixes integers and floats becomes
//! `Floats` when that loses nothing.
//!
//! `parse` never panics, never recurses deeper than `MAX_DEPTH`, and never builds a tree of
//! more than twice `Limits::body_bytes`; a text it refuses is a `Problem` with line and column.

mod number;
mod parse;

use std::sync::Arc;

use crate::limits::Limits;
use crate::problem::Problem;

pub use number::parse_number;

/// Lists and objects inside one another.  The same as serde_json's limit, so that whatever
/// passes here can be read back by it.
pub const MAX_DEPTH: usize = 127;

/// Integers up to here are the same number as a float.
pub(crate) const EXACT_IN_F64: u64 = 1 << 53;

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// Only above `i64::MAX`.
    UInt(u64),
    /// Always finite.  Integers beyond 64 bits are floats, as in serde_json.
    Float(f64),
    Str(Arc<str>),
    /// A list of integers only, never empty.
    Ints(Vec<i64>),
    /// A list of numbers that f64 holds exactly as written, at least one of them a float.
    Floats(Vec<f64>),
    /// Every other list, the empty one too.
    Array(Vec<Json>),
    /// In the order of the text; no key twice.
    Object(Vec<(Arc<str>, Json)>),
}

impl Json {
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, Problem> {
        parse::parse(bytes, limits)
    }

    /// A list, packed when it can be.
    pub fn list(items: Vec<Self>) -> Self {
        if let Some(ints) = all(&items, Self::as_int) {
            return Self::Ints(ints);
        }
        match all(&items, Self::as_exact_float) {
            Some(floats) => Self::Floats(floats),
            None => Self::Array(items),
        }
    }

    /// What a message calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Str(_) => "a string",
            Self::Ints(_) | Self::Floats(_) | Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn is_list(&self) -> bool {
        matches!(self, Self::Ints(_) | Self::Floats(_) | Self::Array(_))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// An integer, or a float that is one (`3.0`), exactly.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Float(x) if x.fract() == 0.0 && x.abs() <= EXACT_IN_F64 as f64 => Some(*x as i64),
            _ => None,
        }
    }

    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::UInt(n) => Some(*n),
            other => other.as_i64().and_then(|n| u64::try_from(n).ok()),
        }
    }

    /// Any number, rounded to the nearest float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::UInt(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&[(Arc<str>, Self)]> {
        match self {
            Self::Object(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value under a key of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let (_, value) = self.as_object()?.iter().find(|(k, _)| k.as_ref() == key)?;
        Some(value)
    }

    /// Moves the value under a key of an object out; what stays there is null.
    pub fn take(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Object(entries) => {
                let (_, value) = entries.iter_mut().find(|(k, _)| k.as_ref() == key)?;
                Some(std::mem::take(value))
            }
            _ => None,
        }
    }

    /// How many items a list has.
    pub fn list_len(&self) -> Option<usize> {
        match self {
            Self::Ints(items) => Some(items.len()),
            Self::Floats(items) => Some(items.len()),
            Self::Array(items) => Some(items.len()),
            _ => None,
        }
    }

    /// The items of a list one by one; the value itself when it is no list.
    pub fn into_items(self) -> Result<Vec<Self>, Self> {
        match self {
            Self::Ints(items) => Ok(items.into_iter().map(Self::Int).collect()),
            Self::Floats(items) => Ok(items.into_iter().map(Self::Float).collect()),
            Self::Array(items) => Ok(items),
            other => Err(other),
        }
    }

    pub fn into_serde(self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(b),
            Self::Int(n) => Value::from(n),
            Self::UInt(n) => Value::from(n),
            Self::Float(x) => Value::from(x),
            Self::Str(s) => Value::String(s.as_ref().to_owned()),
            Self::Ints(items) => items.into_iter().map(Value::from).collect(),
            Self::Floats(items) => items.into_iter().map(Value::from).collect(),
            Self::Array(items) => items.into_iter().map(Self::into_serde).collect(),
            Self::Object(entries) => {
                let pairs = entries
                    .into_iter()
                    .map(|(k, v)| (k.as_ref().to_owned(), v.into_serde()));
                Value::Object(pairs.collect())
            }
        }
    }

    fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    fn as_exact_float(&self) -> Option<f64> {
        match self {
            Self::Float(x) => Some(*x),
            Self::Int(n) if n.unsigned_abs() <= EXACT_IN_F64 => Some(*n as f64),
            _ => None,
        }
    }
}

/// `None` when the list is empty or one item has no such number.
fn all<T>(items: &[Json], number: impl Fn(&Json) -> Option<T>) -> Option<Vec<T>> {
    if items.is_empty() {
        return None;
    }
    items.iter().map(number).collect()
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(b),
            Value::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Self::Int(n),
                (None, Some(n)) => Self::UInt(n),
                (None, None) => n.as_f64().map_or(Self::Null, Self::Float),
            },
            Value::String(s) => Self::Str(s.into()),
            Value::Array(items) => Self::list(items.into_iter().map(Self::from).collect()),
            Value::Object(map) => {
                Self::Object(map.into_iter().map(|(k, v)| (k.into(), Self::from(v))).collect())
            }
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

#[cfg(test)]
mod tests;
