//! Typed values and documents, as they are once the edge has checked them.

use std::sync::Arc;

use crate::ids::FieldName;

/// A present, well-typed value.  Null is not a value: it is the absence of the field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    /// Always finite.
    Float(f64),
    Str(Arc<str>),
    /// Milliseconds since 1970, UTC.
    Time(i64),
    /// Scalars of one kind, never nested.
    List(Vec<Value>),
    Json(Arc<serde_json::Value>),
    Vector(Vector),
}

/// A vector in the element type it is stored with; always finite.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// f32, and f16 after rounding to it.
    F32(Arc<[f32]>),
    I8(Arc<[i8]>),
    /// One bit per dimension, most significant first within a byte; tail bits are zero.
    Bits(Arc<[u8]>),
}

/// The fields of one document, sorted by name, without its id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    fields: Vec<(FieldName, Value)>,
}

impl Document {
    /// Later duplicates of a name win.
    pub fn from_fields(mut fields: Vec<(FieldName, Value)>) -> Self {
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields.reverse();
        fields.dedup_by(|a, b| a.0 == b.0);
        fields.reverse();
        Self { fields }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.fields.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok()?;
        Some(&self.fields[at].1)
    }

    pub fn set(&mut self, name: FieldName, value: Value) {
        match self.fields.binary_search_by(|(n, _)| n.cmp(&name)) {
            Ok(at) => self.fields[at].1 = value,
            Err(at) => self.fields.insert(at, (name, value)),
        }
    }

    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.fields.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            self.fields.remove(at);
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&FieldName, &Value)> {
        self.fields.iter().map(|(n, v)| (n, v))
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes this document keeps alive, for budgets; an estimate that never undercounts
    /// the payload.
    pub fn heap_size(&self) -> usize {
        self.fields.iter().map(|(_, v)| 48 + v.heap_size()).sum()
    }
}

impl Value {
    pub fn heap_size(&self) -> usize {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Time(_) => 0,
            Self::Str(s) => s.len() + 16,
            Self::List(items) => items.iter().map(|v| 32 + v.heap_size()).sum(),
            Self::Json(json) => json_size(json),
            Self::Vector(v) => v.heap_size() + 16,
        }
    }
}

impl Vector {
    pub fn heap_size(&self) -> usize {
        match self {
            Self::F32(v) => v.len() * 4,
            Self::I8(v) => v.len(),
            Self::Bits(v) => v.len(),
        }
    }
}

fn json_size(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => 32,
        serde_json::Value::String(s) => 32 + s.len(),
        serde_json::Value::Array(items) => 32 + items.iter().map(json_size).sum::<usize>(),
        serde_json::Value::Object(map) => {
            32 + map
                .iter()
                .map(|(k, v)| 64 + k.len() + json_size(v))
                .sum::<usize>()
        }
    }
}
