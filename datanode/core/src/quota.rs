//! How much a collection may hold, and what that refuses.

use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::members::Members;
use crate::problem::{Code, Problem};

/// What is not named has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// As they are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What there is of a collection, or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub rows: u64,
    pub bytes: u64,
}

impl Quota {
    pub fn is_boundless(&self) -> bool {
        *self == Self::default()
    }

    /// Reads `quota` of a `PUT` or `PATCH`; a problem names its place: `quota.rows`.
    pub fn parse(json: Json) -> Result<Self, Problem> {
        Self::parse_each(json).map_err(|problem| problem.within("quota"))
    }

    fn parse_each(json: Json) -> Result<Self, Problem> {
        let mut members = Members::of("a quota", json)?;
        let rows = members.number("rows", 0..=u64::MAX, Code::InvalidValue)?;
        let bytes = members.number("bytes", 0..=u64::MAX, Code::InvalidValue)?;
        members.finish()?;
        Ok(Self { rows, bytes })
    }

    /// Whether `more` rows may come to what is held.  Nothing but new rows is ever refused:
    /// whoever is over a quota can still delete and overwrite.
    pub fn admits(&self, held: Held, more: u64) -> Result<(), Problem> {
        if more == 0 {
            return Ok(());
        }
        match self {
            Self { rows: Some(most), .. } if held.rows.saturating_add(more) > *most => {
                Err(exceeded("rows", *most, "may hold"))
            }
            Self {
                bytes: Some(most), ..
            } if held.bytes >= *most => Err(exceeded("bytes", *most, "may take")),
            _ => Ok(()),
        }
    }
}

/// How much is there already is not said: who writes need not be one who may count.
fn exceeded(what: &str, most: u64, may: &str) -> Problem {
    let detail = format!(
        "the collection {may} {most} {what}, and there is no room for the rows that this write adds; \
         nothing was written"
    );
    Problem::new(Code::QuotaExceeded, detail)
        .field(format!("quota.{what}"))
        .hint(format!(
            "delete documents, or raise quota.{what} with a PATCH of the collection"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn quota(text: &str) -> Result<Quota, Problem> {
        Quota::parse(Json::parse(text.as_bytes(), &Limits::default()).expect("json"))
    }

    fn held(rows: u64, bytes: u64) -> Held {
        Held { rows, bytes }
    }

    #[test]
    fn a_quota_is_read_and_what_is_wrong_with_it_is_named() {
        let both = Quota {
            rows: Some(10),
            bytes: Some(0),
        };
        assert_eq!(quota(r#"{"rows": 10, "bytes": 0}"#), Ok(both));
        assert_eq!(quota(r#"{"rows": null}"#), Ok(Quota::default()));
        for (text, code, field) in [
            ("7", Code::Malformed, "quota"),
            (r#"{"rows": "7"}"#, Code::Malformed, "quota.rows"),
            (r#"{"rows": -1}"#, Code::InvalidValue, "quota.rows"),
            (r#"{"bytes": 1.5}"#, Code::InvalidValue, "quota.bytes"),
            (r#"{"row": 1}"#, Code::UnknownField, "quota.row"),
        ] {
            let problem = quota(text).expect_err(text);
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (code, Some(field)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_last_row_fits_and_the_next_does_not() {
        let ten = quota(r#"{"rows": 10}"#).expect("valid");
        assert_eq!(ten.admits(held(9, 0), 1), Ok(()));
        let refused = ten.admits(held(9, 0), 2).expect_err("eleven");
        assert_eq!(refused.code, Code::QuotaExceeded);
        assert_eq!(refused.field.as_deref(), Some("quota.rows"));
        assert!(ten.admits(held(10, 0), u64::MAX).is_err());
    }

    #[test]
    fn a_collection_over_its_quota_refuses_new_rows_alone() {
        let both = quota(r#"{"rows": 1, "bytes": 100}"#).expect("valid");
        assert_eq!(both.admits(held(50, 500), 0), Ok(()));
        assert_eq!(both.admits(held(0, 99), 1), Ok(()));
        let full = both.admits(held(0, 100), 1).expect_err("no bytes left");
        assert_eq!(full.field.as_deref(), Some("quota.bytes"));
        assert_eq!(Quota::default().admits(held(u64::MAX, u64::MAX), 1), Ok(()));
    }
}
