//! The shape of an answer: groups and highlights.

use std::sync::Arc;

use super::legs::text_field;
use super::{GroupBy, Highlight, Leg, TextLeg};
use crate::ids::FieldName;
use crate::json::Json;
use crate::limits::Limits;
use crate::members::Members;
use crate::problem::{Code, Problem};
use crate::schema::{FieldType, Scalar, Schema};

const GROUP_SIZE: usize = 3;
const PASSAGES: usize = 3;
const PASSAGE: usize = 160;
/// Bytes of a marker.
const MARKER: usize = 64;

impl GroupBy {
    /// `"doc_id"`, or `{"field": "doc_id", "size": 3}`.
    pub(super) fn parse(json: Json, k: usize, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        let (name, size, place) = match json {
            Json::Str(name) => (name, None, None),
            json => {
                let mut members = Members::of("group_by", json)?;
                let name = members.str("field")?;
                let size = members.number("size", 1..=limits.k as u64, Code::InvalidValue)?;
                members.finish()?;
                let name = name
                    .ok_or_else(|| Problem::new(Code::Malformed, "group_by names a field").field("field"))?;
                (name, size, Some("field"))
            }
        };
        let field = group_field(&name, schema).map_err(|problem| match place {
            Some(place) => problem.field(place),
            None => Problem {
                field: None,
                ..problem
            },
        })?;
        let size = size.map_or(GROUP_SIZE, |size| size as usize);
        if k * size > limits.k {
            let detail = format!("{k} groups of {size} are more than {} hits", limits.k);
            return Err(Problem::new(Code::LimitExceeded, detail)
                .field("size")
                .hint("ask for fewer groups (k) or smaller ones"));
        }
        Ok(Self { field, size })
    }
}

fn group_field(name: &str, schema: &Schema) -> Result<FieldName, Problem> {
    let (field, ty) = schema.find(name)?;
    match ty {
        FieldType::Scalar(Scalar::Bool | Scalar::Int | Scalar::String | Scalar::Timestamp) => {
            Ok(field.clone())
        }
        other => {
            let detail = format!("'{field}' is {}: its values make no groups", other.name());
            Err(Problem::new(Code::TypeMismatch, detail)
                .hint("group by a field of type string, int, bool or timestamp"))
        }
    }
}

impl Highlight {
    /// `true`, `false`, a list of fields, or an object.
    pub(super) fn parse(json: Json, legs: &[Leg], schema: &Schema) -> Result<Option<Self>, Problem> {
        if json == Json::Bool(false) {
            return Ok(None);
        }
        let texts: Vec<&TextLeg> = legs
            .iter()
            .filter_map(|leg| match leg {
                Leg::Text(leg) => Some(leg),
                Leg::Vector(_) | Leg::Sparse(_) => None,
            })
            .collect();
        if texts.is_empty() {
            let detail = "only what a text leg found can be highlighted";
            return Err(
                Problem::new(Code::InvalidValue, detail).hint("add a text leg, or leave highlight out")
            );
        }
        let mut highlight = Self {
            fields: Vec::new(),
            before: Arc::from("<em>"),
            after: Arc::from("</em>"),
            passages: PASSAGES,
            length: PASSAGE,
        };
        match json {
            Json::Bool(_) => {}
            json if json.is_list() => highlight.fields = fields(Some(json), schema)?,
            json => highlight.settings(json, schema)?,
        }
        if highlight.fields.is_empty() {
            for (field, _) in texts.iter().flat_map(|leg| &leg.fields) {
                if !highlight.fields.contains(field) {
                    highlight.fields.push(field.clone());
                }
            }
        }
        Ok(Some(highlight))
    }

    fn settings(&mut self, json: Json, schema: &Schema) -> Result<(), Problem> {
        let mut members = Members::of("highlight", json)?;
        let named = members.take("fields");
        let before = members.str("before")?;
        let after = members.str("after")?;
        let passages = members.number("passages", 1..=20, Code::InvalidValue)?;
        let length = members.number("length", 20..=2_000, Code::InvalidValue)?;
        members.finish()?;
        self.fields = fields(named, schema)?;
        self.before = marker("before", before)?.unwrap_or(self.before.clone());
        self.after = marker("after", after)?.unwrap_or(self.after.clone());
        self.passages = passages.map_or(self.passages, |n| n as usize);
        self.length = length.map_or(self.length, |n| n as usize);
        Ok(())
    }
}

fn fields(list: Option<Json>, schema: &Schema) -> Result<Vec<FieldName>, Problem> {
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let shape = |kind: &str| {
        let detail = format!("fields is a list of names, not {kind}");
        Problem::new(Code::Malformed, detail).field("fields")
    };
    let items = list.into_items().map_err(|other| shape(other.kind()))?;
    let mut fields = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let place = || format!("fields[{at}]");
        let name = item.as_str().ok_or_else(|| shape(item.kind()).field(place()))?;
        let field = text_field(name, schema).map_err(|problem| problem.field(place()))?;
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    Ok(fields)
}

fn marker(name: &str, text: Option<Arc<str>>) -> Result<Option<Arc<str>>, Problem> {
    match text {
        Some(text) if text.len() > MARKER => {
            let detail = format!("{name} has at most {MARKER} bytes");
            Err(Problem::new(Code::LimitExceeded, detail).field(name))
        }
        text => Ok(text),
    }
}
