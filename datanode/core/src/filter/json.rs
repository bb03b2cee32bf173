//! The JSON way to write a filter.

use super::bind::{Binder, Op};
use super::{Filter, sql};
use crate::json::Json;
use crate::limits::Limits;
use crate::problem::{Code, Problem, did_you_mean, shorten};
use crate::schema::Schema;

const OPERATORS: [(&str, Op); 15] = [
    ("$eq", Op::Eq),
    ("$ne", Op::Ne),
    ("$gt", Op::Gt),
    ("$gte", Op::Gte),
    ("$lt", Op::Lt),
    ("$lte", Op::Lte),
    ("$in", Op::In),
    ("$nin", Op::Nin),
    ("$contains", Op::Contains),
    ("$contains_any", Op::ContainsAny),
    ("$contains_all", Op::ContainsAll),
    ("$exists", Op::Exists),
    ("$prefix", Op::Prefix),
    ("$glob", Op::Glob),
    ("$regex", Op::Regex),
];

const LOGIC: [&str; 3] = ["$and", "$or", "$not"];

pub(super) fn parse(json: &Json, schema: &Schema, limits: &Limits) -> Result<Filter, Problem> {
    if let Json::Str(text) = json {
        return sql::parse(text, schema, limits);
    }
    filter(&mut Binder::new(schema, limits), json)
}

fn filter(binder: &mut Binder<'_>, json: &Json) -> Result<Filter, Problem> {
    let Json::Object(entries) = json else {
        return Err(not_a_filter(json.kind()));
    };
    if entries.is_empty() {
        // No leaf, but a list of them costs all the same.
        binder.spend(1)?;
    }
    let mut all = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        match key.as_ref() {
            "$and" => all.push(Filter::And(filters(binder, key, value)?)),
            "$or" => all.push(Filter::Or(filters(binder, key, value)?)),
            "$not" => {
                binder.descend()?;
                all.push(Filter::Not(Box::new(filter(binder, value)?)));
                binder.ascend();
            }
            word if word.starts_with('$') => return Err(unknown_operator(word, true)),
            path => field(binder, path, value, &mut all)?,
        }
    }
    Ok(one_or_all(all))
}

fn filters(binder: &mut Binder<'_>, operator: &str, json: &Json) -> Result<Vec<Filter>, Problem> {
    let items = match json {
        Json::Array(items) if !items.is_empty() => items,
        Json::Ints(_) | Json::Floats(_) => return Err(not_a_filter("a number")),
        _ => {
            return Err(Problem::new(
                Code::InvalidFilter,
                format!("{operator} takes a list of one or more filters"),
            )
            .hint("{} is the filter that matches everything"));
        }
    };
    binder.descend()?;
    let each = items
        .iter()
        .map(|item| filter(binder, item))
        .collect::<Result<_, _>>()?;
    binder.ascend();
    Ok(each)
}

/// `{"a": 3}`, `{"a": {"$gt": 3, "$lt": 9}}`.
fn field(binder: &mut Binder<'_>, path: &str, json: &Json, all: &mut Vec<Filter>) -> Result<(), Problem> {
    let steps: Vec<&str> = path.split('.').collect();
    if steps.len() > 1 && steps.contains(&"") {
        return Err(Problem::new(Code::InvalidFilter, "a step of the path is empty").field(shorten(path)));
    }
    let target = binder.target(&steps)?;
    let Json::Object(operators) = json else {
        all.push(binder.leaf(&target, Op::Eq, json)?);
        return Ok(());
    };
    if target.is_json() && !operators.iter().any(|(word, _)| word.starts_with('$')) {
        all.push(binder.leaf(&target, Op::Eq, json)?);
        return Ok(());
    }
    if operators.is_empty() {
        return Err(Problem::new(Code::InvalidFilter, "there is no operator").field(shorten(path)));
    }
    for (word, operand) in operators {
        if word.as_ref() == "$not" {
            all.push(not(binder, path, operand)?);
            continue;
        }
        let Some((_, op)) = OPERATORS.iter().find(|(name, _)| *name == word.as_ref()) else {
            return Err(unknown_operator(word, false).field(shorten(path)));
        };
        all.push(binder.leaf(&target, *op, operand)?);
    }
    Ok(())
}

/// `{"a": {"$not": {"$gt": 3}}}`.
fn not(binder: &mut Binder<'_>, path: &str, json: &Json) -> Result<Filter, Problem> {
    if !matches!(json, Json::Object(_)) {
        let detail = format!("$not takes operators, not {}", json.kind());
        return Err(Problem::new(Code::InvalidFilter, detail)
            .field(shorten(path))
            .hint("use $ne for a value"));
    }
    binder.descend()?;
    let mut all = Vec::new();
    field(binder, path, json, &mut all)?;
    binder.ascend();
    Ok(Filter::Not(Box::new(one_or_all(all))))
}

fn one_or_all(mut all: Vec<Filter>) -> Filter {
    match all.len() {
        1 => all.remove(0),
        _ => Filter::And(all),
    }
}

fn not_a_filter(kind: &str) -> Problem {
    Problem::new(Code::Malformed, format!("a filter is an object, not {kind}"))
}

fn unknown_operator(word: &str, top: bool) -> Problem {
    let detail = format!("there is no operator '{}'", shorten(word));
    let named = OPERATORS.iter().map(|(name, _)| *name);
    if top && OPERATORS.iter().any(|(name, _)| *name == word) {
        return Problem::new(
            Code::InvalidFilter,
            format!("{word} belongs under a field's name"),
        )
        .hint(format!("{{\"field\": {{\"{word}\": …}}}}"));
    }
    if !word.starts_with('$') {
        let as_operator = format!("${word}");
        let hint = match crate::problem::nearest(&as_operator, named) {
            Some(name) => format!("operators start with '$': did you mean '{name}'?"),
            None => "operators start with '$'".to_owned(),
        };
        return Problem::new(Code::InvalidFilter, detail).hint(hint);
    }
    Problem::new(Code::InvalidFilter, detail).hint(did_you_mean(word, named.chain(LOGIC)))
}
