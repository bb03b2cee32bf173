//! `ETag`, `If-Match`, `If-None-Match` (RFC 9110): a document's tag is its version in
//! quotes, and a version is never used twice.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use rhumb_core::{Code, Problem, Seq};

/// One header's worth of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: any stored version.
    Any,
    /// The listed versions; tags that are no version of ours match nothing.
    Versions(Vec<Seq>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub if_match: Option<Tags>,
    pub if_none_match: Option<Tags>,
}

pub fn of(version: Seq) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("digits and quotes are header text")
}

impl Preconditions {
    pub fn of_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            if_match: tags(headers, &header::IF_MATCH, Comparison::Strong)?,
            if_none_match: tags(headers, &header::IF_NONE_MATCH, Comparison::Weak)?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Against the stored version, `None` when there is no document.
    pub fn hold(&self, stored: Option<Seq>) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.has(stored))
            && self.if_none_match.as_ref().is_none_or(|tags| !tags.has(stored))
    }
}

impl Tags {
    pub fn has(&self, stored: Option<Seq>) -> bool {
        match self {
            Self::Any => stored.is_some(),
            Self::Versions(versions) => stored.is_some_and(|stored| versions.contains(&stored)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// `W/"7"` is not `"7"`: what is only equivalent must not be overwritten.
    Strong,
    Weak,
}

fn tags(headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Result<Option<Tags>, Problem> {
    let mut versions = Vec::new();
    let mut seen = false;
    for value in headers.get_all(name) {
        seen = true;
        let text = value.to_str().map_err(|_| malformed(name))?.trim();
        if text == "*" {
            return Ok(Some(Tags::Any));
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (version, after) = one_tag(rest, comparison).ok_or_else(|| malformed(name))?;
            versions.extend(version);
            rest = match after.trim_start().strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if after.trim().is_empty() => "",
                None => return Err(malformed(name)),
            };
        }
    }
    Ok(seen.then_some(Tags::Versions(versions)))
}

/// The version that the first tag of `text` names, if it is one of ours, and what follows.
fn one_tag(text: &str, comparison: Comparison) -> Option<(Option<Seq>, &str)> {
    let (weak, quoted) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let Some(inner) = quoted.strip_prefix('"') else {
        // Not RFC 9110, but what it means is clear: a version without its quotes.
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((Some(version(&text[..end])?), &text[end..]));
    };
    let end = inner.find('"')?;
    let matches = !weak || comparison == Comparison::Weak;
    Some((version(&inner[..end]).filter(|_| matches), &inner[end + 1..]))
}

fn version(text: &str) -> Option<Seq> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical).map(Seq)
}

fn malformed(name: &HeaderName) -> Problem {
    let shown = if *name == header::IF_MATCH {
        "If-Match"
    } else {
        "If-None-Match"
    };
    Problem::new(Code::Malformed, format!("{shown} is `*` or a list of ETags"))
        .field(shown)
        .hint("send the ETag of an answer as it came, quotes included")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: HeaderName, value: &str) -> Result<Preconditions, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).expect("header text"));
        Preconditions::of_headers(&headers)
    }

    fn if_match(value: &str) -> Option<Tags> {
        given(header::IF_MATCH, value).expect(value).if_match
    }

    #[test]
    fn a_tag_is_the_version_in_quotes() {
        assert_eq!(of(Seq(17)), "\"17\"");
        assert_eq!(if_match("\"17\""), Some(Tags::Versions(vec![Seq(17)])));
    }

    #[test]
    fn lists_stars_and_foreign_tags_are_read() {
        assert_eq!(
            if_match("\"1\", \"abc\" ,\"2\""),
            Some(Tags::Versions(vec![Seq(1), Seq(2)]))
        );
        assert_eq!(if_match("*"), Some(Tags::Any));
        assert_eq!(if_match("\"with, comma\""), Some(Tags::Versions(vec![])));
        assert_eq!(if_match("17"), Some(Tags::Versions(vec![Seq(17)])));
        assert_eq!(if_match("\"017\""), Some(Tags::Versions(vec![])));
    }

    #[test]
    fn a_weak_tag_matches_only_where_equivalence_is_enough() {
        assert_eq!(if_match("W/\"17\""), Some(Tags::Versions(vec![])));
        let none = given(header::IF_NONE_MATCH, "W/\"17\"")
            .expect("valid")
            .if_none_match;
        assert_eq!(none, Some(Tags::Versions(vec![Seq(17)])));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in ["abc", "\"17", "\"17\" \"18\"", "\"17\";", "W/17x"] {
            assert_eq!(
                given(header::IF_MATCH, text).expect_err(text).code,
                Code::Malformed
            );
        }
    }

    #[test]
    fn a_condition_on_an_absent_document_holds_only_when_it_asks_for_absence() {
        let any = given(header::IF_NONE_MATCH, "*").expect("valid");
        assert!(any.hold(None) && !any.hold(Some(Seq(1))));
        let some = given(header::IF_MATCH, "*").expect("valid");
        assert!(!some.hold(None) && some.hold(Some(Seq(1))));
        let seven = given(header::IF_MATCH, "\"7\"").expect("valid");
        assert!(seven.hold(Some(Seq(7))) && !seven.hold(Some(Seq(8))) && !seven.hold(None));
        assert!(Preconditions::default().hold(None));
    }
}
