//! The members of a JSON object, taken one by one: what is left at the end is unknown and
//! refused with the nearest name.  400 when a member has another shape than it should,
//! 422 when the shape is right and the value is not.

use std::sync::Arc;

use crate::json::Json;
use crate::limits::Limits;
use crate::problem::{Code, Problem, did_you_mean, shorten};
use crate::query::Consistency;

#[derive(Debug)]
pub struct Members {
    entries: Vec<(Arc<str>, Json)>,
    /// Names that were asked for: the ones there are.
    known: Vec<&'static str>,
}

impl Members {
    pub fn of(what: &str, json: Json) -> Result<Self, Problem> {
        match json {
            Json::Object(entries) => Ok(Self {
                entries,
                known: Vec::new(),
            }),
            other => Err(Problem::new(
                Code::Malformed,
                format!("{what} is an object, not {}", other.kind()),
            )),
        }
    }

    /// `null` is the same as not there.
    pub fn take(&mut self, name: &'static str) -> Option<Json> {
        self.known.push(name);
        let at = self.entries.iter().position(|(key, _)| key.as_ref() == name)?;
        let (_, value) = self.entries.swap_remove(at);
        (!value.is_null()).then_some(value)
    }

    pub fn finish(self) -> Result<(), Problem> {
        match self.entries.first() {
            Some((name, _)) => Err(Problem::unknown_field(name, self.known)),
            None => Ok(()),
        }
    }

    pub fn bool(&mut self, name: &'static str) -> Result<Option<bool>, Problem> {
        self.take(name)
            .map(|json| json.as_bool().ok_or_else(|| shape(name, "true or false", &json)))
            .transpose()
    }

    pub fn str(&mut self, name: &'static str) -> Result<Option<Arc<str>>, Problem> {
        self.take(name)
            .map(|json| match json {
                Json::Str(text) => Ok(text),
                other => Err(shape(name, "a string", &other)),
            })
            .transpose()
    }

    pub fn list(&mut self, name: &'static str) -> Result<Option<Vec<Json>>, Problem> {
        self.take(name)
            .map(|json| json.into_items().map_err(|other| shape(name, "a list", &other)))
            .transpose()
    }

    /// A whole number in `range`; outside it the problem has `code`.
    pub fn number(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<u64>,
        code: Code,
    ) -> Result<Option<u64>, Problem> {
        let Some(json) = self.take(name) else {
            return Ok(None);
        };
        if json.as_f64().is_none() {
            return Err(shape(name, "a number", &json));
        }
        match json.as_u64().filter(|n| range.contains(n)) {
            Some(n) => Ok(Some(n)),
            None => {
                let detail = format!(
                    "{name} is a whole number from {} to {}",
                    range.start(),
                    range.end()
                );
                Err(Problem::new(code, detail).field(name))
            }
        }
    }

    /// Any number that is finite as f32.
    pub fn float(&mut self, name: &'static str) -> Result<Option<f64>, Problem> {
        let Some(json) = self.take(name) else {
            return Ok(None);
        };
        let x = json.as_f64().ok_or_else(|| shape(name, "a number", &json))?;
        match (x as f32).is_finite() {
            true => Ok(Some(x)),
            false => Err(Problem::new(Code::NotFinite, format!("{name} is beyond f32")).field(name)),
        }
    }

    /// A member that is one word of several.
    pub fn word<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.str(name)? else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == text.as_ref()) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let detail = format!("there is no {name} '{}'", shorten(&text));
                let known = words.iter().map(|(word, _)| *word);
                Err(Problem::new(Code::InvalidValue, detail)
                    .field(name)
                    .hint(did_you_mean(&text, known)))
            }
        }
    }

    pub fn consistency(&mut self) -> Result<Option<Consistency>, Problem> {
        let text = self.str("consistency")?;
        text.map(|text| consistency(&text)).transpose()
    }

    pub fn timeout_ms(&mut self, limits: &Limits) -> Result<Option<u64>, Problem> {
        self.number("timeout_ms", 1..=limits.timeout_ms, Code::InvalidValue)
    }
}

pub fn consistency(text: &str) -> Result<Consistency, Problem> {
    match text {
        "strong" => Ok(Consistency::Strong),
        "verified" => Ok(Consistency::Verified),
        "session" => Ok(Consistency::Session),
        "eventual" => Ok(Consistency::Eventual),
        other => {
            let known = ["strong", "verified", "session", "eventual"];
            let detail = format!("there is no consistency '{}'", shorten(other));
            Err(Problem::new(Code::InvalidValue, detail)
                .field("consistency")
                .hint(did_you_mean(other, known)))
        }
    }
}

fn shape(name: &str, wanted: &str, found: &Json) -> Problem {
    Problem::new(
        Code::Malformed,
        format!("{name} is {wanted}, not {}", found.kind()),
    )
    .field(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Members {
        let json = Json::parse(text.as_bytes(), &Limits::default()).expect("json");
        Members::of("the body", json).expect("an object")
    }

    #[test]
    fn what_nobody_asked_for_is_refused_with_the_nearest_name() {
        let mut body = members(r#"{"filtre": {}, "k": 3}"#);
        assert_eq!(body.number("k", 1..=10, Code::KOutOfRange), Ok(Some(3)));
        assert!(body.take("filter").is_none());
        let problem = body.finish().expect_err("unknown");
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::UnknownField, Some("filtre"))
        );
        assert!(problem.hint.expect("a hint").contains("'filter'"));
    }

    #[test]
    fn a_wrong_shape_is_400_and_a_wrong_value_422() {
        let k = |text: &str| members(text).number("k", 1..=10, Code::KOutOfRange);
        assert_eq!(k(r#"{"k": "3"}"#).expect_err("a string").code, Code::Malformed);
        for text in [
            r#"{"k": 0}"#,
            r#"{"k": 11}"#,
            r#"{"k": -1}"#,
            r#"{"k": 1.5}"#,
            r#"{"k": 1e300}"#,
        ] {
            assert_eq!(k(text).expect_err(text).code, Code::KOutOfRange);
        }
        assert_eq!(k(r#"{"k": 3.0}"#), Ok(Some(3)));
        assert_eq!(k(r#"{"k": null}"#), Ok(None));
        assert_eq!(
            members(r#"{"a": 1}"#).bool("a").expect_err("a number").code,
            Code::Malformed
        );
        assert_eq!(
            members(r#"{"a": 1}"#).str("a").expect_err("a number").code,
            Code::Malformed
        );
        assert_eq!(
            members(r#"{"a": {}}"#).list("a").expect_err("an object").code,
            Code::Malformed
        );
        let problem = members(r#"{"consistency": "strng"}"#)
            .consistency()
            .expect_err("a typo");
        assert_eq!(problem.code, Code::InvalidValue);
        assert!(problem.hint.expect("a hint").contains("strong"));
    }
}
