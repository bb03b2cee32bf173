//! Legs as a request writes them.

use std::sync::Arc;

use super::{Leg, Operator, SparseLeg, TextLeg, VectorLeg};
use crate::ids::FieldName;
use crate::json::Json;
use crate::limits::Limits;
use crate::members::Members;
use crate::problem::{Code, Problem, shorten};
use crate::schema::{FieldType, Schema, VectorType};
use crate::typing::{query_sparse, query_vector};

const MAX_BOOST: f64 = 1_000.0;
const LEGS: &str = "a leg is an object with one of vector, text and sparse";

/// Where a query names its legs: in short form by kind, in general form as a list.
pub(super) struct RawLegs {
    vector: Option<Json>,
    text: Option<Json>,
    sparse: Option<Json>,
    list: Option<Json>,
}

impl RawLegs {
    pub(super) fn take(members: &mut Members) -> Self {
        Self {
            vector: members.take("vector"),
            text: members.take("text"),
            sparse: members.take("sparse"),
            list: members.take("legs"),
        }
    }

    /// In the order that weights have: vector, text, sparse, or that of the list.
    pub(super) fn bind(self, schema: &Schema, limits: &Limits) -> Result<Vec<Leg>, Problem> {
        let short = [self.vector.is_some(), self.text.is_some(), self.sparse.is_some()];
        let Some(list) = self.list else {
            let single = one_of_each([self.vector, self.text, self.sparse], schema, limits)?;
            if single.is_empty() {
                let detail = "a query needs a leg: vector, text or sparse";
                return Err(Problem::new(Code::Malformed, detail)
                    .field("vector")
                    .hint("{\"vector\": [0.1, …], \"k\": 10}; GET …/documents lists documents without one"));
            }
            return Ok(single);
        };
        if short.contains(&true) {
            let detail = "legs goes with neither vector, text nor sparse: put them into it";
            return Err(Problem::new(Code::InvalidValue, detail).field("legs"));
        }
        from_list(list, schema, limits).map_err(|problem| problem.within("legs"))
    }
}

fn from_list(list: Json, schema: &Schema, limits: &Limits) -> Result<Vec<Leg>, Problem> {
    let list = list.into_items().map_err(|other| {
        Problem::new(Code::Malformed, format!("legs is a list, not {}", other.kind())).hint(LEGS)
    })?;
    if list.is_empty() {
        return Err(Problem::new(Code::InvalidValue, "legs is empty").hint(LEGS));
    }
    if list.len() > limits.legs {
        let detail = format!("a query has at most {} legs, not {}", limits.legs, list.len());
        return Err(Problem::new(Code::LimitExceeded, detail));
    }
    let each = list.into_iter().enumerate().map(|(at, json)| {
        let leg = Members::of("a leg", json).and_then(|mut members| {
            let kinds = [
                members.take("vector"),
                members.take("text"),
                members.take("sparse"),
            ];
            members.finish()?;
            let mut legs = one_of_each(kinds, schema, limits)?.into_iter();
            match (legs.next(), legs.next()) {
                (Some(leg), None) => Ok(leg),
                (None, _) => Err(Problem::new(Code::Malformed, "the leg is empty").hint(LEGS)),
                (Some(_), Some(_)) => {
                    let detail = "a leg is one of vector, text and sparse: make each a leg of its own";
                    Err(Problem::new(Code::InvalidValue, detail))
                }
            }
        });
        leg.map_err(|problem| problem.within(&format!("[{at}]")))
    });
    each.collect()
}

/// Vector, text, sparse.
fn one_of_each(kinds: [Option<Json>; 3], schema: &Schema, limits: &Limits) -> Result<Vec<Leg>, Problem> {
    let [vector, text, sparse] = kinds;
    let vector = vector.map(|json| {
        let leg = vector_leg(json, schema).map(Leg::Vector);
        leg.map_err(|problem| problem.within("vector"))
    });
    let text = text.map(|json| {
        let leg = text_leg(json, schema, limits).map(Leg::Text);
        leg.map_err(|problem| problem.within("text"))
    });
    let sparse = sparse.map(|json| {
        let leg = sparse_leg(json, schema, limits).map(Leg::Sparse);
        leg.map_err(|problem| problem.within("sparse"))
    });
    [vector, text, sparse].into_iter().flatten().collect()
}

/// `{"field": …, "value": …}`, or the value alone.
fn vector_leg(json: Json, schema: &Schema) -> Result<VectorLeg, Problem> {
    if json.as_object().is_none() {
        let (field, ty) = vector_field(None, schema)?;
        return Ok(VectorLeg {
            field: field.clone(),
            value: query_vector(ty, json)?,
        });
    }
    let mut members = Members::of("vector", json)?;
    let field = members.str("field")?;
    let value = members.take("value");
    members.finish()?;
    let (field, ty) = vector_field(field.as_deref(), schema)?;
    let value = value.ok_or_else(|| no_value("vector"))?;
    let value = query_vector(ty, value).map_err(|problem| problem.within("value"))?;
    Ok(VectorLeg {
        field: field.clone(),
        value,
    })
}

/// The named field, or the only one.  `field` of a problem is `field`.
pub fn vector_field<'a>(
    name: Option<&str>,
    schema: &'a Schema,
) -> Result<(&'a FieldName, &'a VectorType), Problem> {
    let known: Vec<&FieldName> = schema.vectors().map(|(name, _)| name).collect();
    let field = the_field(
        name,
        schema,
        &known,
        "vector",
        "{\"type\": \"vector\", \"dim\": …}",
    )?;
    let found = schema.vectors().find(|(name, _)| *name == field);
    found.ok_or_else(|| Problem::new(Code::TypeMismatch, format!("'{field}' is no vector")).field("field"))
}

/// `{"field": …, "value": {…}}`, or the value alone: it has `indices`, or is `b64:…`.
fn sparse_leg(json: Json, schema: &Schema, limits: &Limits) -> Result<SparseLeg, Problem> {
    let is_value =
        json.as_object().is_none() || json.get("indices").is_some() || json.get("values").is_some();
    let known: Vec<&FieldName> = schema.sparse_vectors().collect();
    let field = |name| the_field(name, schema, &known, "sparse vector", "\"sparse_vector\"");
    if is_value {
        return Ok(SparseLeg {
            field: field(None)?.clone(),
            value: query_sparse(json, limits)?,
        });
    }
    let mut members = Members::of("sparse", json)?;
    let name = members.str("field")?;
    let value = members.take("value");
    members.finish()?;
    let field = field(name.as_deref())?;
    let value = value.ok_or_else(|| no_value("sparse"))?;
    Ok(SparseLeg {
        field: field.clone(),
        value: query_sparse(value, limits).map_err(|problem| problem.within("value"))?,
    })
}

fn no_value(leg: &str) -> Problem {
    Problem::new(Code::Malformed, format!("{leg} has no value")).field("value")
}

/// The named one of the fields of a kind, or the only one.
fn the_field<'a>(
    name: Option<&str>,
    schema: &Schema,
    known: &[&'a FieldName],
    kind: &str,
    definition: &str,
) -> Result<&'a FieldName, Problem> {
    let names = || known.iter().map(|name| name.as_str());
    let Some(name) = name else {
        return match known {
            [only] => Ok(only),
            [] => Err(no_field_of(kind, definition)),
            _ => {
                let detail = format!("this collection has several {kind} fields");
                let names = names().collect::<Vec<_>>().join(", ");
                Err(Problem::new(Code::InvalidValue, detail)
                    .field("field")
                    .hint(format!("name one of {names}: {{\"field\": …, \"value\": …}}")))
            }
        };
    };
    match known.iter().find(|field| field.as_str() == name) {
        Some(field) => Ok(field),
        None => Err(other_field(name, schema, names(), kind).field("field")),
    }
}

fn no_field_of(kind: &str, definition: &str) -> Problem {
    Problem::new(Code::InvalidValue, format!("this collection has no {kind} field")).hint(format!(
        "declare one: PATCH the collection with {{\"fields\": {{\"name\": {definition}}}}}"
    ))
}

/// Why a name is none of the fields of a kind.
fn other_field<'a>(
    name: &str,
    schema: &Schema,
    known: impl IntoIterator<Item = &'a str>,
    kind: &str,
) -> Problem {
    match schema.get(name) {
        Some(other) => {
            let detail = format!("'{}' is {}, not a {kind}", shorten(name), other.name());
            Problem::new(Code::TypeMismatch, detail)
        }
        None => Problem::unknown_field(name, known),
    }
}

/// `{"query": …, "fields": …, …}`, or the words alone: then in every text field.
fn text_leg(json: Json, schema: &Schema, limits: &Limits) -> Result<TextLeg, Problem> {
    if let Json::Str(query) = json {
        return Ok(TextLeg {
            query: words(query, limits)?,
            fields: text_fields(None, schema)?,
            operator: Operator::default(),
            prefix: false,
            fuzzy: 0,
        });
    }
    if json.as_object().is_none() {
        let detail = format!("text is words or an object, not {}", json.kind());
        return Err(Problem::new(Code::Malformed, detail));
    }
    let mut members = Members::of("text", json)?;
    let query = members.str("query")?;
    let fields = members.take("fields");
    let operator = members.word(
        "operator",
        &[
            ("or", Operator::Or),
            ("and", Operator::And),
            ("phrase", Operator::Phrase),
        ],
    )?;
    let prefix = members.bool("prefix")?.unwrap_or_default();
    let fuzzy = members
        .number("fuzzy", 0..=2, Code::InvalidValue)?
        .unwrap_or_default();
    members.finish()?;
    let query = query.ok_or_else(|| Problem::new(Code::Malformed, "text has no query").field("query"))?;
    let operator = operator.unwrap_or_default();
    if operator == Operator::Phrase && fuzzy > 0 {
        let detail = "the words of a phrase are taken as they are";
        return Err(Problem::new(Code::InvalidValue, detail)
            .field("fuzzy")
            .hint("leave fuzzy out, or use the operator 'and'"));
    }
    Ok(TextLeg {
        query: words(query, limits).map_err(|problem| problem.field("query"))?,
        fields: text_fields(fields, schema)?,
        operator,
        prefix,
        fuzzy: fuzzy as u8,
    })
}

fn words(query: Arc<str>, limits: &Limits) -> Result<Arc<str>, Problem> {
    if query.trim().is_empty() {
        return Err(Problem::new(
            Code::InvalidValue,
            "there are no words to search for",
        ));
    }
    if query.len() > limits.text_bytes {
        let detail = format!(
            "a text query has at most {} bytes, not {}",
            limits.text_bytes,
            query.len()
        );
        return Err(Problem::new(Code::LimitExceeded, detail));
    }
    Ok(query)
}

/// `["title", "gloss"]`, or `{"title": 2, "gloss": 1}` with what each is worth; all text
/// fields when left out.
fn text_fields(json: Option<Json>, schema: &Schema) -> Result<Vec<(FieldName, f32)>, Problem> {
    let Some(json) = json else {
        let all: Vec<_> = schema.texts().map(|name| (name.clone(), 1.0)).collect();
        return match all.is_empty() {
            true => Err(no_field_of("text", "\"text\"")),
            false => Ok(all),
        };
    };
    let named = match json {
        Json::Object(entries) => entries
            .into_iter()
            .map(|(name, boost)| {
                let place = format!("fields.{}", shorten(&name));
                let boost = boost_of(&boost).map_err(|problem| problem.field(place.clone()))?;
                Ok((
                    text_field(&name, schema).map_err(|problem| problem.field(place))?,
                    boost,
                ))
            })
            .collect::<Result<Vec<_>, Problem>>()?,
        list => text_field_list(list, schema)?,
    };
    if named.is_empty() {
        let detail = "fields names no field";
        return Err(Problem::new(Code::InvalidValue, detail)
            .field("fields")
            .hint("leave fields out to search every text field"));
    }
    Ok(named)
}

fn text_field_list(list: Json, schema: &Schema) -> Result<Vec<(FieldName, f32)>, Problem> {
    let shape = |kind: &str| {
        let detail = format!("fields is a list of names or an object of names and boosts, not {kind}");
        Problem::new(Code::Malformed, detail).field("fields")
    };
    let items = list.into_items().map_err(|other| shape(other.kind()))?;
    let mut fields: Vec<(FieldName, f32)> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let place = || format!("fields[{at}]");
        let name = item
            .as_str()
            .ok_or_else(|| shape("a list of others").field(place()))?;
        let field = text_field(name, schema).map_err(|problem| problem.field(place()))?;
        if fields.iter().any(|(known, _)| *known == field) {
            let detail = format!("'{field}' is there twice");
            return Err(Problem::new(Code::InvalidValue, detail).field(place()));
        }
        fields.push((field, 1.0));
    }
    Ok(fields)
}

/// A text field by its name.
pub(super) fn text_field(name: &str, schema: &Schema) -> Result<FieldName, Problem> {
    match schema.find(name) {
        Ok((field, FieldType::Text { .. })) => Ok(field.clone()),
        _ => {
            let known = schema.texts().map(FieldName::as_str);
            Err(other_field(name, schema, known, "text"))
        }
    }
}

fn boost_of(json: &Json) -> Result<f32, Problem> {
    let boost = json.as_f64().ok_or_else(|| {
        let detail = format!("a boost is a number, not {}", json.kind());
        Problem::new(Code::Malformed, detail)
    })?;
    if boost > 0.0 && boost <= MAX_BOOST {
        return Ok(boost as f32);
    }
    let detail = format!("a boost is above 0 and at most {MAX_BOOST}");
    Err(Problem::new(Code::InvalidValue, detail))
}
