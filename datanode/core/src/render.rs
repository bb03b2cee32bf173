//! Documents as JSON, written straight through serde: no tree is built on the way.
//!
//! Vectors are arrays (f32 in the shortest form that reads back as the same f32), times
//! are RFC 3339 in UTC.  Every number in a `Value` is finite, so JSON can hold it.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::ids::{DocId, FieldName};
use crate::json::Json;
use crate::problem::{Code, Problem};
use crate::query::Include;
use crate::schema::{FieldType, Schema};
use crate::time;
use crate::value::{Document, SparseVector, Value, Vector};

/// The part of a document that a request asked for.  Serialises as a flat object.
pub struct Rendered<'a> {
    document: &'a Document,
    include: &'a Include,
    schema: &'a Schema,
}

impl<'a> Rendered<'a> {
    pub fn new(document: &'a Document, include: &'a Include, schema: &'a Schema) -> Self {
        Self {
            document,
            include,
            schema,
        }
    }
}

impl Serialize for Rendered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.document.iter().filter(|(name, _)| self.include.has(name)) {
            map.serialize_entry(
                name.as_str(),
                &RenderedValue {
                    value,
                    ty: self.schema.get(name.as_str()),
                },
            )?;
        }
        map.end()
    }
}

/// One value under its field's type, which says how many bits of a binary vector count.
pub struct RenderedValue<'a> {
    pub value: &'a Value,
    pub ty: Option<&'a FieldType>,
}

impl Serialize for RenderedValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(n) => serializer.serialize_i64(*n),
            Value::Float(x) => serializer.serialize_f64(*x),
            Value::Str(s) => serializer.serialize_str(s),
            Value::Time(ms) => serializer.serialize_str(&time::format(*ms)),
            Value::List(items) => {
                serializer.collect_seq(items.iter().map(|value| RenderedValue { value, ty: None }))
            }
            Value::Json(json) => json.serialize(serializer),
            Value::Vector(Vector::F32(v)) => serializer.collect_seq(v.iter()),
            Value::Vector(Vector::I8(v)) => serializer.collect_seq(v.iter()),
            Value::Sparse(sparse) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("indices", &Elements(sparse, |(index, _)| *index))?;
                map.serialize_entry("values", &Elements(sparse, |(_, value)| *value))?;
                map.end()
            }
            Value::Vector(Vector::Bits(bytes)) => {
                let dim = match self.ty {
                    Some(FieldType::Vector(v)) => v.dim as usize,
                    _ => bytes.len() * 8,
                };
                let bits = bytes
                    .iter()
                    .flat_map(|byte| (0..8).rev().map(move |at| (byte >> at) & 1));
                serializer.collect_seq(bits.take(dim))
            }
        }
    }
}

/// One side of a sparse vector as a list.
struct Elements<'a, T>(&'a SparseVector, fn(&(u32, f32)) -> T);

impl<T: Serialize> Serialize for Elements<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.elements().iter().map(self.1))
    }
}

/// `{"id": …, …fields}`: one line of an export, which an import takes again.
pub struct ExportRow<'a> {
    pub id: &'a DocId,
    pub document: &'a Document,
    pub schema: &'a Schema,
}

impl Serialize for ExportRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.id)?;
        for (name, value) in self.document.iter() {
            map.serialize_entry(
                name.as_str(),
                &RenderedValue {
                    value,
                    ty: self.schema.get(name.as_str()),
                },
            )?;
        }
        map.end()
    }
}

impl Include {
    pub fn has(&self, name: &FieldName) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Fields(names) => names.contains(name),
        }
    }

    /// `true`, `false`, or a list of fields.
    pub fn parse_json(json: &Json, schema: &Schema) -> Result<Self, Problem> {
        let shape = || {
            Problem::new(Code::Malformed, "include is true, false or a list of field names").field("include")
        };
        match json {
            Json::Bool(true) => Ok(Self::Everything),
            Json::Bool(false) => Ok(Self::Nothing),
            Json::Array(items) => {
                let names = items.iter().map(|item| item.as_str().ok_or_else(shape));
                Self::of_names(names.collect::<Result<Vec<_>, _>>()?, schema)
            }
            _ => Err(shape()),
        }
    }

    /// `pos,lex`, `true` or `false`, as in a query string.
    pub fn parse_param(text: &str, schema: &Schema) -> Result<Self, Problem> {
        match text {
            "true" => Ok(Self::Everything),
            "false" | "" => Ok(Self::Nothing),
            names => Self::of_names(names.split(',').map(str::trim), schema),
        }
    }

    fn of_names<'a>(names: impl IntoIterator<Item = &'a str>, schema: &Schema) -> Result<Self, Problem> {
        let mut fields = Vec::new();
        // The id is always there, so naming it is not an error.
        for name in names.into_iter().filter(|name| *name != "id") {
            let (name, _) = schema.find(name).map_err(|problem| problem.within("include"))?;
            if !fields.contains(name) {
                fields.push(name.clone());
            }
        }
        Ok(Self::Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Element, Field, Metric, Scalar, VectorIndex, VectorType};

    fn schema() -> Schema {
        let binary = VectorType {
            dim: 10,
            metric: Metric::Hamming,
            element: Element::Binary,
            index: VectorIndex::Auto,
        };
        let mut schema = Schema::default();
        for (name, ty) in [
            ("bits", FieldType::Vector(binary)),
            ("pos", FieldType::Scalar(Scalar::String)),
            ("at", FieldType::Scalar(Scalar::Timestamp)),
        ] {
            schema.fields.insert(
                FieldName::parse(name).expect("valid"),
                Field { ty, declared: true },
            );
        }
        schema
    }

    fn document(fields: Vec<(&str, Value)>) -> Document {
        let named = fields
            .into_iter()
            .map(|(n, v)| (FieldName::parse(n).expect("valid"), v));
        Document::from_fields(named.collect())
    }

    fn json(document: &Document, include: &Include) -> String {
        serde_json::to_string(&Rendered::new(document, include, &schema())).expect("writable")
    }

    #[test]
    fn every_kind_of_value_has_its_json() {
        let document = document(vec![
            (
                "a",
                Value::Vector(Vector::F32(vec![0.1, -1.0, 1e-7, 16_777_216.0].into())),
            ),
            ("at", Value::Time(0)),
            ("b", Value::Vector(Vector::I8(vec![-128, 127].into()))),
            (
                "bits",
                Value::Vector(Vector::Bits(vec![0b1010_0000, 0b0100_0000].into())),
            ),
            ("f", Value::Float(0.1)),
            ("i", Value::Int(i64::MIN)),
            ("j", Value::Json(serde_json::json!({"x": [1, null]}).into())),
            ("l", Value::List(vec![Value::Time(1), Value::Time(2)])),
            ("live", Value::Bool(true)),
            ("pos", Value::Str("\"n\"\u{1}".into())),
        ]);
        assert_eq!(
            json(&document, &Include::Everything),
            concat!(
                r#"{"a":[0.1,-1.0,1e-7,16777216.0],"at":"1970-01-01T00:00:00.000Z","b":[-128,127],"#,
                r#""bits":[1,0,1,0,0,0,0,0,0,1],"f":0.1,"i":-9223372036854775808,"j":{"x":[1,null]},"#,
                r#""l":["1970-01-01T00:00:00.001Z","1970-01-01T00:00:00.002Z"],"live":true,"#,
                r#""pos":"\"n\"\u0001"}"#
            )
        );
    }

    #[test]
    fn only_what_is_included_is_written() {
        let document = document(vec![("at", Value::Time(0)), ("pos", Value::Str("n".into()))]);
        assert_eq!(json(&document, &Include::Nothing), "{}");
        let pos = Include::parse_param("pos,id", &schema()).expect("known");
        assert_eq!(json(&document, &pos), r#"{"pos":"n"}"#);
    }

    #[test]
    fn include_is_a_boolean_or_known_names() {
        let schema = schema();
        let parse = |text: &str| {
            Include::parse_json(
                &Json::parse(text.as_bytes(), &Default::default()).expect("json"),
                &schema,
            )
        };
        assert_eq!(parse("true"), Ok(Include::Everything));
        assert_eq!(parse("[]"), Ok(Include::Fields(vec![])));
        let problem = parse(r#"["poss"]"#).expect_err("unknown");
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::UnknownField, Some("include.poss"))
        );
        for wrong in ["3", "null", "\"pos\"", "[1]", "{}", "[null]"] {
            assert_eq!(parse(wrong).expect_err(wrong).code, Code::Malformed);
        }
        assert_eq!(Include::parse_param("true", &schema), Ok(Include::Everything));
        assert!(Include::parse_param("pos,,", &schema).is_err());
    }

    #[test]
    fn an_export_row_starts_with_the_id() {
        let document = document(vec![("pos", Value::Str("n".into()))]);
        let schema = schema();
        let row = |id: DocId| {
            serde_json::to_string(&ExportRow {
                id: &id,
                document: &document,
                schema: &schema,
            })
            .expect("writable")
        };
        assert_eq!(row(DocId::from("n1")), r#"{"id":"n1","pos":"n"}"#);
        assert_eq!(
            row(DocId::from(u64::MAX)),
            r#"{"id":18446744073709551615,"pos":"n"}"#
        );
    }
}
