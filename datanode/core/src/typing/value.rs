//! One JSON value under one type.

use std::sync::Arc;

use super::sparse::sparse;
use super::vector;
use crate::json::Json;
use crate::limits::Limits;
use crate::problem::{Code, Problem, shorten};
use crate::schema::{FieldType, Scalar};
use crate::time;
use crate::value::Value;

/// Lists and objects inside one json attribute.
const JSON_DEPTH: usize = 64;

/// The value of a field; null is the caller's matter.  A problem's `field` is the place
/// inside the value, if any.
pub fn typed(ty: &FieldType, json: Json, limits: &Limits) -> Result<Value, Problem> {
    match ty {
        FieldType::Vector(v) => vector::stored(v, json).map(Value::Vector),
        FieldType::Sparse => sparse(json, limits).map(Value::Sparse),
        FieldType::Text { .. } => scalar(Scalar::String, json),
        FieldType::Scalar(s) => scalar(*s, json),
        FieldType::List(s) => list(*s, json),
        FieldType::Json => {
            check_depth(&json, JSON_DEPTH)?;
            Ok(Value::Json(Arc::new(json.into_serde())))
        }
    }
}

/// The type that the first document with a field gives it.
pub(super) fn infer(json: &Json) -> Result<FieldType, Problem> {
    let scalar = match json {
        Json::Object(_) => return Ok(FieldType::Json),
        Json::Ints(_) => return Ok(FieldType::List(Scalar::Int)),
        Json::Floats(_) => return Ok(FieldType::List(Scalar::Float)),
        Json::Array(items) => return infer_list(items).map(FieldType::List),
        other => infer_scalar(other)?,
    };
    Ok(FieldType::Scalar(scalar))
}

fn infer_scalar(json: &Json) -> Result<Scalar, Problem> {
    match json {
        Json::Bool(_) => Ok(Scalar::Bool),
        Json::Int(_) => Ok(Scalar::Int),
        Json::Float(_) => Ok(Scalar::Float),
        Json::Str(_) => Ok(Scalar::String),
        Json::UInt(n) => Err(Problem::new(
            Code::TypeMismatch,
            format!("{n} is beyond a 64-bit signed integer"),
        )
        .hint("send it as a string, or declare the field as float")),
        other => Err(no_list_item(other)),
    }
}

fn infer_list(items: &[Json]) -> Result<Scalar, Problem> {
    let mut kind = None;
    for (at, item) in items.iter().enumerate() {
        let found = infer_scalar(item).map_err(|problem| problem.within(&format!("[{at}]")))?;
        kind = match (kind, found) {
            (None, found) => Some(found),
            (Some(Scalar::Int | Scalar::Float), Scalar::Float) | (Some(Scalar::Float), Scalar::Int) => {
                Some(Scalar::Float)
            }
            (Some(kind), found) if kind == found => Some(kind),
            (Some(kind), found) => {
                let detail = format!(
                    "a list holds values of one kind, not {} and {}",
                    kind.name(),
                    found.name()
                );
                return Err(Problem::new(Code::TypeMismatch, detail)
                    .field(format!("[{at}]"))
                    .hint(DECLARE_JSON));
            }
        };
    }
    kind.ok_or_else(|| Problem::new(Code::TypeMismatch, "an empty list has no type"))
}

const DECLARE_JSON: &str = "declare the field as json to keep any structure";

fn no_list_item(json: &Json) -> Problem {
    let problem = Problem::new(
        Code::TypeMismatch,
        format!("a list holds scalars, not {}", json.kind()),
    );
    match json {
        Json::Null => problem.hint("leave null out of a list"),
        _ => problem.hint(DECLARE_JSON),
    }
}

fn scalar(ty: Scalar, json: Json) -> Result<Value, Problem> {
    match (ty, json) {
        (Scalar::Bool, Json::Bool(b)) => Ok(Value::Bool(b)),
        (Scalar::Int, Json::Int(n)) => Ok(Value::Int(n)),
        (Scalar::Float, Json::Float(x)) => Ok(Value::Float(x)),
        (Scalar::Float, Json::Int(n)) => Ok(Value::Float(n as f64)),
        (Scalar::Float, Json::UInt(n)) => Ok(Value::Float(n as f64)),
        (Scalar::String, Json::Str(s)) => Ok(Value::Str(s)),
        (Scalar::Timestamp, Json::Str(s)) => time::parse(&s).map(Value::Time),
        (Scalar::Int, Json::Float(x)) => match Json::Float(x).as_i64() {
            Some(n) => Ok(Value::Int(n)),
            None => Err(mismatch(Scalar::Int, &Json::Float(x))),
        },
        (ty, json) => Err(mismatch(ty, &json)),
    }
}

fn mismatch(ty: Scalar, json: &Json) -> Problem {
    let shown = match json {
        Json::Str(s) => format!("the string '{}'", shorten(s)),
        Json::Int(n) => n.to_string(),
        Json::UInt(n) => n.to_string(),
        Json::Float(x) => x.to_string(),
        other => other.kind().to_owned(),
    };
    let problem = Problem::new(
        Code::TypeMismatch,
        format!("the field is {}, {shown} does not fit", ty.name()),
    );
    match ty {
        Scalar::Timestamp => problem.hint("a timestamp is an RFC 3339 string, like \"2026-01-31T12:00:00Z\""),
        Scalar::Int => problem.hint("an int is a whole number of 64 bits, signed"),
        _ => problem,
    }
}

fn list(ty: Scalar, json: Json) -> Result<Value, Problem> {
    let items = json.into_items().map_err(|other| {
        Problem::new(
            Code::TypeMismatch,
            format!("the field is a list of {}, not {}", ty.name(), other.kind()),
        )
        .hint("put a single value in brackets")
    })?;
    let each = items.into_iter().enumerate().map(|(at, item)| {
        let item = match item {
            item @ (Json::Null | Json::Object(_)) => Err(no_list_item(&item)),
            item if item.is_list() => Err(no_list_item(&item)),
            item => scalar(ty, item),
        };
        item.map_err(|problem| problem.within(&format!("[{at}]")))
    });
    each.collect::<Result<_, _>>().map(Value::List)
}

fn check_depth(json: &Json, left: usize) -> Result<(), Problem> {
    if left == 0
        && matches!(
            json,
            Json::Ints(_) | Json::Floats(_) | Json::Array(_) | Json::Object(_)
        )
    {
        return Err(Problem::new(
            Code::LimitExceeded,
            format!("json nests deeper than {JSON_DEPTH} levels"),
        ));
    }
    match json {
        Json::Array(items) => items.iter().try_for_each(|item| check_depth(item, left - 1)),
        Json::Object(entries) => entries
            .iter()
            .try_for_each(|(_, value)| check_depth(value, left - 1)),
        _ => Ok(()),
    }
}
