//! Roles: lists of grants.  A grant says which collections, which operations, which rows.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Claims;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Documents, and what a collection looks like.
    Read,
    Write,
    /// Create, change, optimize and delete collections; erase documents.
    Schema,
    /// Identities and the audit; only together with all collections.
    Admin,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    pub collections: Pattern,
    pub operations: Vec<Operation>,
    /// A filter in its JSON form; `"$claims.org"` stands for the claim of whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_filter: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    pub grants: Vec<Grant>,
}

/// A collection's name in which `*` stands for any letters, none included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleProblem {
    #[error("a role has 1 to {MOST_GRANTS} grants")]
    Grants,
    #[error("grants[{0}].operations is empty")]
    NoOperation(usize),
    #[error("grants[{0}]: admin goes with collections \"*\" and without a row_filter")]
    NarrowAdmin(usize),
    #[error("grants[{0}].row_filter: {1}")]
    RowFilter(usize, &'static str),
}

const MOST_GRANTS: usize = 64;
/// Of one row filter, written as JSON.
const LONGEST_FILTER: usize = 4 << 10;
const DEEPEST_FILTER: usize = 8;
const CLAIM: &str = "$claims.";

pub const BUILT_IN: [&str; 3] = ["admin", "editor", "reader"];

impl Role {
    pub fn built_in(name: &str) -> Option<Self> {
        use Operation::{Admin, Read, Schema, Write};
        let operations = match name {
            "admin" => vec![Read, Write, Schema, Admin],
            "editor" => vec![Read, Write, Schema],
            "reader" => vec![Read],
            _ => return None,
        };
        Some(Self {
            grants: vec![Grant {
                collections: Pattern("*".into()),
                operations,
                row_filter: None,
            }],
        })
    }

    pub fn check(&self) -> Result<(), RoleProblem> {
        if self.grants.is_empty() || self.grants.len() > MOST_GRANTS {
            return Err(RoleProblem::Grants);
        }
        for (at, grant) in self.grants.iter().enumerate() {
            if grant.operations.is_empty() {
                return Err(RoleProblem::NoOperation(at));
            }
            let narrow = !grant.collections.is_all() || grant.row_filter.is_some();
            if narrow && grant.operations.contains(&Operation::Admin) {
                return Err(RoleProblem::NarrowAdmin(at));
            }
            if let Some(filter) = &grant.row_filter {
                check_filter(filter).map_err(|why| RoleProblem::RowFilter(at, why))?;
            }
        }
        Ok(())
    }
}

impl Pattern {
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*');
        ((1..=128).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    pub fn is_all(&self) -> bool {
        self.0.bytes().all(|b| b == b'*')
    }

    /// Linear in the name for each `*`: it goes back to the last one only.
    pub fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(byte) if *byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((at, taken)) => {
                        star = Some((at, taken + 1));
                        p = at + 1;
                        n = taken + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|b| *b == b'*')
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Pattern {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a pattern is [a-z0-9_*-]{1,128}")
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

fn check_filter(filter: &Value) -> Result<(), &'static str> {
    match filter.as_object() {
        // The SQL form is text, and claims must never become part of a text that is parsed.
        None => return Err("it is a JSON object"),
        Some(object) if object.is_empty() => return Err("it is empty, so it would let every row through"),
        Some(_) => {}
    }
    if filter.to_string().len() > LONGEST_FILTER {
        return Err("it is longer than 4 KiB");
    }
    check_claims(filter, 0)
}

fn check_claims(value: &Value, depth: usize) -> Result<(), &'static str> {
    if depth > DEEPEST_FILTER {
        return Err("it is nested too deep");
    }
    match value {
        Value::String(text) if text.starts_with("$claims") => match path_of(text) {
            Some(_) => Ok(()),
            None => Err("a claim is written \"$claims.name\""),
        },
        Value::Array(items) => items.iter().try_for_each(|item| check_claims(item, depth + 1)),
        Value::Object(entries) => entries.iter().try_for_each(|(key, item)| {
            if key.starts_with("$claims") {
                return Err("a claim stands for a value, never for a name");
            }
            check_claims(item, depth + 1)
        }),
        _ => Ok(()),
    }
}

fn path_of(text: &str) -> Option<impl Iterator<Item = &str>> {
    let path = text.strip_prefix(CLAIM)?;
    let whole = !path.is_empty() && path.split('.').all(|step| !step.is_empty());
    whole.then(|| path.split('.'))
}

/// The filter with claims put in.  `None` when one is missing or is not a plain value: such
/// a grant grants nothing.  An object would become operators, and null would mean "missing".
pub fn substitute(filter: &Value, claims: &Claims) -> Option<Value> {
    match filter {
        Value::String(text) if text.starts_with("$claims") => plain(claim(path_of(text)?, claims)?),
        Value::Array(items) => items
            .iter()
            .map(|item| substitute(item, claims))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, item)| Some((key.clone(), substitute(item, claims)?)))
            .collect::<Option<Map<_, _>>>()
            .map(Value::Object),
        other => Some(other.clone()),
    }
}

fn claim<'a>(mut path: impl Iterator<Item = &'a str>, claims: &'a Claims) -> Option<&'a Value> {
    let first = claims.get(path.next()?)?;
    path.try_fold(first, |value, step| value.as_object()?.get(step))
}

/// A scalar, or a list of scalars for `$in`.
fn plain(value: &Value) -> Option<Value> {
    let scalar = |v: &Value| matches!(v, Value::String(_) | Value::Number(_) | Value::Bool(_));
    match value {
        Value::Array(items) if items.len() <= 1_000 && items.iter().all(scalar) => Some(value.clone()),
        value if scalar(value) => Some(value.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        value.as_object().cloned().expect("an object")
    }

    fn role(grants: Value) -> Role {
        serde_json::from_value(json!({"grants": grants})).expect("a role")
    }

    #[test]
    fn a_pattern_fits_names_as_a_shell_would() {
        for (pattern, name, fits) in [
            ("*", "anything", true),
            ("team-a-*", "team-a-", true),
            ("team-a-*", "team-ab", false),
            ("*-logs", "a-logs-logs", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "acb", false),
            ("words", "words2", false),
        ] {
            let pattern = Pattern::parse(pattern).expect("valid");
            assert_eq!(pattern.fits(name), fits, "{pattern:?} {name}");
        }
        assert!(Pattern::parse("Team").is_none() && Pattern::parse("").is_none());
    }

    proptest! {
        #[test]
        fn a_pattern_agrees_with_its_regular_expression(pattern in "[ab*]{1,8}", name in "[ab]{0,10}") {
            fn model(p: &[u8], n: &[u8]) -> bool {
                match (p.split_first(), n.split_first()) {
                    (None, None) => true,
                    (Some((b'*', p)), n) => model(p, &name_of(n)) || n.is_some_and(|(_, n)| model(&[b"*", p].concat(), n)),
                    (Some((a, p)), Some((b, n))) => a == b && model(p, n),
                    _ => false,
                }
            }
            fn name_of(n: Option<(&u8, &[u8])>) -> Vec<u8> {
                n.map(|(head, tail)| [&[*head], tail].concat()).unwrap_or_default()
            }
            let parsed = Pattern::parse(&pattern).expect("valid");
            prop_assert_eq!(parsed.fits(&name), model(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_claim_ever_becomes_an_operator(text in ".{0,20}") {
            let filter = json!({"tenant": "$claims.org"});
            let put = substitute(&filter, &claims(json!({"org": text})));
            prop_assert_eq!(put, Some(json!({"tenant": text})));
        }
    }

    #[test]
    fn claims_are_put_where_they_are_named() {
        let filter = json!({"$or": [{"tenant": "$claims.org"}, {"team": {"$in": "$claims.a.b"}}], "n": 3});
        let put = substitute(&filter, &claims(json!({"org": "x", "a": {"b": ["p", 2]}})));
        assert_eq!(
            put,
            Some(json!({"$or": [{"tenant": "x"}, {"team": {"$in": ["p", 2]}}], "n": 3}))
        );
    }

    #[test]
    fn a_claim_that_is_missing_or_no_plain_value_grants_nothing() {
        let filter = json!({"tenant": "$claims.org"});
        for org in [
            json!({}),
            json!({"org": null}),
            json!({"org": {"$ne": ""}}),
            json!({"org": [{"a": 1}]}),
        ] {
            assert_eq!(substitute(&filter, &claims(org.clone())), None, "{org}");
        }
    }

    #[test]
    fn a_role_that_would_grant_by_mistake_is_refused() {
        let read =
            |filter: Value| role(json!([{"collections": "*", "operations": ["read"], "row_filter": filter}]));
        for filter in [
            json!("tenant = 1"),
            json!({}),
            json!({"a": "$claims"}),
            json!({"a": "$claims."}),
            json!({"$claims.a": 1}),
            json!({"a": "x".repeat(5_000)}),
        ] {
            assert!(
                matches!(read(filter.clone()).check(), Err(RoleProblem::RowFilter(0, _))),
                "{filter}"
            );
        }
        assert_eq!(read(json!({"a": "$claims.a.b"})).check(), Ok(()));
        let narrow = role(json!([{"collections": "a-*", "operations": ["admin"]}]));
        assert_eq!(narrow.check(), Err(RoleProblem::NarrowAdmin(0)));
        assert_eq!(role(json!([])).check(), Err(RoleProblem::Grants));
        assert_eq!(
            role(json!([{"collections": "a", "operations": []}])).check(),
            Err(RoleProblem::NoOperation(0))
        );
    }
}
