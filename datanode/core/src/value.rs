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
    Sparse(SparseVector),
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

/// A vector of which only the elements that are not zero are kept.  Indices ascend, none
/// comes twice, every value is finite and not zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseVector(Arc<[(u32, f32)]>);

impl SparseVector {
    /// Sorts, and drops zeros.  An error names an index that comes twice, or one whose
    /// value is not finite.
    pub fn new(mut elements: Vec<(u32, f32)>) -> Result<Self, SparseError> {
        if let Some((index, _)) = elements.iter().find(|(_, value)| !value.is_finite()) {
            return Err(SparseError::NotFinite(*index));
        }
        elements.sort_unstable_by_key(|(index, _)| *index);
        if let Some(pair) = elements.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(SparseError::Twice(pair[0].0));
        }
        elements.retain(|(_, value)| *value != 0.0);
        Ok(Self(elements.into()))
    }

    pub fn elements(&self) -> &[(u32, f32)] {
        &self.0
    }

    /// As it is stored: pairs of little-endian u32 and f32.
    pub fn to_bytes(&self) -> Vec<u8> {
        let pairs = self.0.iter();
        let bytes = pairs.flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()]);
        bytes.flatten().collect()
    }

    /// The pairs that `to_bytes` wrote, not yet checked; `None` when the length is wrong.
    pub fn pairs_of(bytes: &[u8]) -> Option<Vec<(u32, f32)>> {
        let (pairs, rest) = bytes.as_chunks::<8>();
        let pair = |[a, b, c, d, e, f, g, h]: &[u8; 8]| {
            (
                u32::from_le_bytes([*a, *b, *c, *d]),
                f32::from_le_bytes([*e, *f, *g, *h]),
            )
        };
        rest.is_empty().then(|| pairs.iter().map(pair).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn heap_size(&self) -> usize {
        size_of_val(&self.0[..])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SparseError {
    #[error("the index {0} is there twice")]
    Twice(u32),
    #[error("the value of index {0} is NaN, infinite or beyond f32")]
    NotFinite(u32),
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
            Self::Sparse(v) => v.heap_size() + 16,
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
