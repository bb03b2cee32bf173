//! A collection's fields and their types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{FieldName, IdKind};
use crate::limits::Limits;
use crate::problem::{Code, Problem};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Cosine,
    Dot,
    L2,
    /// Binary vectors only, and their only metric.
    Hamming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    F32,
    F16,
    Int8,
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorIndex {
    Auto,
    Flat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorType {
    pub dim: u32,
    pub metric: Metric,
    pub element: Element,
    pub index: VectorIndex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scalar {
    Bool,
    Int,
    Float,
    String,
    Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    Vector(VectorType),
    #[serde(rename = "sparse_vector")]
    Sparse,
    Text {
        language: String,
    },
    Scalar(Scalar),
    List(Scalar),
    Json,
}

impl FieldType {
    /// The word a message uses for it, and the short form of a definition.
    pub fn name(&self) -> String {
        match self {
            Self::Vector(v) => format!("vector({})", v.dim),
            Self::Sparse => "sparse_vector".into(),
            Self::Text { .. } => "text".into(),
            Self::Scalar(s) => s.name().into(),
            Self::List(s) => format!("[{}]", s.name()),
            Self::Json => "json".into(),
        }
    }
}

impl FieldType {
    /// Settings may change; what decides how values are stored may not.
    fn may_become(&self, new: &Self) -> bool {
        match (self, new) {
            (Self::Vector(old), Self::Vector(new)) => {
                VectorType {
                    index: new.index,
                    ..*old
                } == *new
            }
            _ => self == new,
        }
    }
}

impl Scalar {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::String => "string",
            Self::Timestamp => "timestamp",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    #[serde(rename = "type")]
    pub ty: FieldType,
    /// False when the first document that had the field gave it its type.  A repeated
    /// definition is compared with the declared fields alone.
    pub declared: bool,
}

/// Fields only ever get added: a name keeps its type for the life of the collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub fields: BTreeMap<FieldName, Field>,
    /// Set by the first document.
    pub id_kind: Option<IdKind>,
}

impl Schema {
    pub fn get(&self, name: &str) -> Option<&FieldType> {
        self.fields.get(name).map(|f| &f.ty)
    }

    /// The field that a request names, with the name's shared copy.
    pub fn find(&self, name: &str) -> Result<(&FieldName, &FieldType), Problem> {
        match self.fields.get_key_value(name) {
            Some((name, field)) => Ok((name, &field.ty)),
            None => Err(Problem::unknown_field(
                name,
                self.fields.keys().map(FieldName::as_str),
            )),
        }
    }

    pub fn vectors(&self) -> impl Iterator<Item = (&FieldName, &VectorType)> {
        self.fields.iter().filter_map(|(name, f)| match &f.ty {
            FieldType::Vector(v) => Some((name, v)),
            _ => None,
        })
    }

    pub fn sparse_vectors(&self) -> impl Iterator<Item = &FieldName> {
        self.names(|ty| *ty == FieldType::Sparse)
    }

    pub fn texts(&self) -> impl Iterator<Item = &FieldName> {
        self.names(|ty| matches!(ty, FieldType::Text { .. }))
    }

    fn names(&self, wanted: impl Fn(&FieldType) -> bool) -> impl Iterator<Item = &FieldName> {
        self.fields
            .iter()
            .filter(move |(_, field)| wanted(&field.ty))
            .map(|(name, _)| name)
    }

    /// True when a definition asks for exactly the fields that were declared.  Inferred
    /// fields do not count; defaults are spelled out in both.
    pub fn declares_exactly(&self, definition: &BTreeMap<FieldName, FieldType>) -> bool {
        let declared = self
            .fields
            .iter()
            .filter(|(_, f)| f.declared)
            .map(|(name, f)| (name, &f.ty));
        declared.eq(definition.iter())
    }

    /// This schema with the fields of a definition declared in it.  A field that is there
    /// keeps its type; only a vector's `index` may change.
    pub fn declare(
        &self,
        definition: &BTreeMap<FieldName, FieldType>,
        limits: &Limits,
    ) -> Result<Self, Problem> {
        let mut evolved = self.clone();
        for (name, ty) in definition {
            if let Some(old) = self.get(name.as_str())
                && !old.may_become(ty)
            {
                return Err(other_type(name, old, ty));
            }
            evolved.fields.insert(
                name.clone(),
                Field {
                    ty: ty.clone(),
                    declared: true,
                },
            );
        }
        check_count(evolved.fields.len(), limits)?;
        Ok(evolved)
    }

    /// This schema with what a write adds to it.  Refused when another write gave one of
    /// the names another type in the meantime.
    pub fn extend(&self, new: &NewFields, limits: &Limits) -> Result<Self, Problem> {
        let mut extended = self.clone();
        for (name, ty) in &new.fields {
            match self.get(name.as_str()) {
                Some(old) if old == ty => {}
                Some(old) => return Err(other_type(name, old, ty)),
                None => {
                    extended.fields.insert(
                        name.clone(),
                        Field {
                            ty: ty.clone(),
                            declared: false,
                        },
                    );
                }
            }
        }
        check_count(extended.fields.len(), limits)?;
        match (self.id_kind, new.id_kind) {
            (Some(old), Some(kind)) if old != kind => return Err(old.refuses()),
            (old, kind) => extended.id_kind = old.or(kind),
        }
        Ok(extended)
    }

    /// True when `self` already gives every one of `new` the same type.
    pub fn covers(&self, new: &NewFields) -> bool {
        new.fields
            .iter()
            .all(|(name, ty)| self.get(name.as_str()) == Some(ty))
            && (new.id_kind.is_none() || self.id_kind == new.id_kind)
    }
}

/// What a write would add to the schema: fixed in the catalog only once the write is
/// certain to apply, so that a refused write fixes no type (P20).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewFields {
    pub fields: BTreeMap<FieldName, FieldType>,
    pub id_kind: Option<IdKind>,
}

impl NewFields {
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.id_kind.is_none()
    }
}

fn other_type(name: &FieldName, old: &FieldType, new: &FieldType) -> Problem {
    let detail = match (old.name(), new.name()) {
        (old, new) if old == new => format!("'{name}' is already {old} with other settings"),
        (old, new) => format!("'{name}' is {old}, not {new}"),
    };
    Problem::new(Code::TypeMismatch, detail)
        .field(name.as_str())
        .hint("a field keeps its type for the life of the collection; use a new name")
}

pub(crate) fn check_count(fields: usize, limits: &Limits) -> Result<(), Problem> {
    if fields <= limits.fields {
        return Ok(());
    }
    Err(Problem::new(
        Code::LimitExceeded,
        format!(
            "a collection has at most {} fields, this would make {fields}",
            limits.fields
        ),
    ))
}
