//! Filters: one tree, two ways to write it (JSON and SQL), one meaning.
//!
//! A filter is bound to a schema when it is parsed: fields exist, operands have the
//! field's type, patterns are compiled.  What remains can only be true or false.
//! A missing attribute matches nothing but `$exists: false`, `$ne`, `$nin` and `$not`.
//!
//! Decisions where the contract is silent:
//! - Null as an operand means missing: `{"a": null}` is `$exists: false`, `$ne: null` is
//!   `$exists: true`, null among the items of `$in` or `$nin` counts as missing there.
//! - On a list, `$eq` and `$ne` take a list (equal items in equal order); a single value is
//!   a `type_mismatch` that names `$contains`, since equality and membership differ.
//! - Numbers compare by value: `lex < 2.5` is fine on integers and never rounds.
//! - Booleans, lists and json as a whole have no order; `$gt` and its kin are refused.
//! - A json path has no type: only values of the operand's kind can match, arrays and
//!   objects are equal when they are so deep inside, a number is an index of an array, json
//!   null is missing.
//! - A text attribute filters like a string; a vector only by `$exists` (or null).
//! - `LIKE` is case-sensitive, covers the whole string, and `\` escapes `%`, `_` and itself.
//! - `$and` and `$or` of nothing are refused, since one of them would mean everything.

mod bind;
mod eval;
mod json;
mod key;
mod pattern;
mod sql;

pub use eval::dig;
pub use key::FilterKey;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{DocId, FieldName};
use crate::json::Json;
use crate::limits::Limits;
use crate::problem::Problem;
use crate::schema::Schema;
use crate::value::{Document, Value};

#[derive(Clone, Debug)]
pub enum Filter {
    /// Empty `{}` is `And([])`: everything.
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Leaf(Leaf),
}

#[derive(Clone, Debug)]
pub struct Leaf {
    pub path: Path,
    pub test: Test,
}

/// Where a value comes from: the id, a field, or a place inside a json field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    Id,
    Field(FieldName),
    /// At least one step; a json field as a whole is a `Field`.
    Json(FieldName, Vec<Arc<str>>),
}

/// Operands are already of the field's type: an integer operand on a float field is a
/// float here, and `< 2.5` on an int field is `<= 2`.  Operands of the id and of json are
/// as they were written; an integer above `i64::MAX` is a `Value::Json` number there.
///
/// A test that nothing can pass is `In([])`, one that everything passes `NotIn([])`.
#[derive(Clone, Debug)]
pub enum Test {
    Eq(Value),
    /// Also true when the attribute is missing.
    Ne(Value),
    Lt(Value),
    Lte(Value),
    Gt(Value),
    Gte(Value),
    /// Sorted by `order::compare`, without duplicates.
    In(Vec<Value>),
    /// Also true when the attribute is missing.  Sorted as in `In`.
    NotIn(Vec<Value>),
    /// The attribute is a list that holds one of the values.  Sorted as in `In`.
    ContainsAny(Vec<Value>),
    /// The attribute is a list that holds each of the values.  Sorted as in `In`.
    ContainsAll(Vec<Value>),
    Exists(bool),
    Prefix(Arc<str>),
    /// Compiled from `$glob`, `LIKE` and `$regex`.
    Matches(regex::Regex),
}

impl Filter {
    pub fn everything() -> Self {
        Self::And(Vec::new())
    }

    /// No document matches.
    pub fn nothing() -> Self {
        Self::Leaf(Leaf {
            path: Path::Id,
            test: Test::In(Vec::new()),
        })
    }

    /// What matches both.
    pub fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(Self::And(vec![one, other])),
            (one, other) => one.or(other),
        }
    }

    /// A filter of a body: an object, or the SQL form as a string.
    pub fn parse_json(json: &Json, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        json::parse(json, schema, limits)
    }

    pub fn parse_sql(text: &str, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        sql::parse(text, schema, limits)
    }

    /// `filter=` of a query string: JSON when it starts with `{`, else SQL.
    pub fn parse_param(text: &str, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        if text.trim_start().starts_with('{') {
            return Self::parse_json(&Json::parse(text.as_bytes(), limits)?, schema, limits);
        }
        Self::parse_sql(text, schema, limits)
    }

    pub fn matches(&self, id: &DocId, document: &Document) -> bool {
        match self {
            Self::And(all) => all.iter().all(|f| f.matches(id, document)),
            Self::Or(any) => any.iter().any(|f| f.matches(id, document)),
            Self::Not(inner) => !inner.matches(id, document),
            Self::Leaf(leaf) => leaf.matches(id, document),
        }
    }

    /// The leaves, left to right.
    pub fn leaves(&self) -> Vec<&Leaf> {
        let mut leaves = Vec::new();
        self.collect_leaves(&mut leaves);
        leaves
    }

    /// The places it reads, without duplicates, in the order of the text.
    pub fn paths(&self) -> Vec<&Path> {
        let mut seen = Vec::new();
        for leaf in self.leaves() {
            if !seen.contains(&&leaf.path) {
                seen.push(&leaf.path);
            }
        }
        seen
    }

    /// The fields whose values it needs, by name; the id is not one of them.
    pub fn fields(&self) -> BTreeSet<&FieldName> {
        let names = self.leaves().into_iter().filter_map(|leaf| match &leaf.path {
            Path::Id => None,
            Path::Field(name) | Path::Json(name, _) => Some(name),
        });
        names.collect()
    }

    /// True when every document matches, so that nothing needs to be read for it.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::And(all) if all.is_empty())
    }

    fn collect_leaves<'a>(&'a self, leaves: &mut Vec<&'a Leaf>) {
        match self {
            Self::And(inner) | Self::Or(inner) => inner.iter().for_each(|f| f.collect_leaves(leaves)),
            Self::Not(inner) => inner.collect_leaves(leaves),
            Self::Leaf(leaf) => leaves.push(leaf),
        }
    }
}

#[cfg(test)]
mod tests;
