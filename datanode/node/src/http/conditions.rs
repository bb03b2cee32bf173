//! From `If-Match` and `If-None-Match` to the one condition a leader judges under its
//! write order.
//!
//! The simple headers translate as they are.  A list of tags, or both headers, is looked
//! at first against the stored version and becomes "still that version": if it changed in
//! between, one looks again.

use rhumb_core::query::{Consistency, Include};
use rhumb_core::write::Condition;
use rhumb_core::{Code, DocId, Problem, Seq};
use rhumb_engine::Collection;

use super::call::{Call, get_within};
use super::etag::{Preconditions, Tags};
use super::problem::Refused;

/// Holds for no document: a condition that has failed already is still sent, so that a
/// repeat under an idempotency key gets its first answer.
const NEVER: Condition = Condition::Version(Seq(u64::MAX));

pub enum Plan {
    Direct(Option<Condition>),
    /// What to look at first.
    Look(Preconditions),
}

pub fn plan(given: Preconditions) -> Plan {
    match (&given.if_match, &given.if_none_match) {
        (None, None) => Plan::Direct(None),
        (Some(Tags::Any), None) => Plan::Direct(Some(Condition::Absent(false))),
        (None, Some(Tags::Any)) => Plan::Direct(Some(Condition::Absent(true))),
        (Some(Tags::Versions(versions)), None) => match versions.as_slice() {
            [] => Plan::Direct(Some(NEVER)),
            [version] => Plan::Direct(Some(Condition::Version(*version))),
            _ => Plan::Look(given),
        },
        _ => Plan::Look(given),
    }
}

/// The condition that stands for `given` as the document is now.
pub async fn look(
    call: &mut Call,
    collection: &Collection,
    id: &DocId,
    given: &Preconditions,
) -> Refused<Condition> {
    let scope = call.scope(&collection.schema());
    let reading = call.read(collection, Some(Consistency::Strong)).await?;
    let stored = get_within(
        &reading,
        scope.as_ref(),
        std::slice::from_ref(id),
        &Include::Nothing,
    )
    .await?;
    Ok(condition_for(
        given,
        stored
            .first()
            .and_then(Option::as_ref)
            .map(|stored| stored.version),
    ))
}

fn condition_for(given: &Preconditions, stored: Option<Seq>) -> Condition {
    match stored {
        _ if !given.hold(stored) => NEVER,
        Some(version) => Condition::Version(version),
        None => Condition::Absent(true),
    }
}

pub fn failed() -> Problem {
    Problem::new(
        Code::PreconditionFailed,
        "the stored document is not what If-Match or If-None-Match asks for",
    )
    .hint("GET the document for its current ETag")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(list: &[u64]) -> Option<Tags> {
        Some(Tags::Versions(list.iter().copied().map(Seq).collect()))
    }

    #[test]
    fn simple_headers_need_no_look_at_the_document() {
        let direct = |if_match, if_none_match| match plan(Preconditions {
            if_match,
            if_none_match,
        }) {
            Plan::Direct(condition) => condition,
            Plan::Look(_) => panic!("should not need a look"),
        };
        assert!(direct(None, None).is_none());
        assert!(matches!(
            direct(Some(Tags::Any), None),
            Some(Condition::Absent(false))
        ));
        assert!(matches!(
            direct(None, Some(Tags::Any)),
            Some(Condition::Absent(true))
        ));
        assert!(matches!(
            direct(versions(&[7]), None),
            Some(Condition::Version(Seq(7)))
        ));
        assert!(matches!(
            direct(versions(&[]), None),
            Some(Condition::Version(Seq(u64::MAX)))
        ));
    }

    #[test]
    fn a_list_of_tags_becomes_the_version_that_is_stored() {
        let given = Preconditions {
            if_match: versions(&[3, 7]),
            if_none_match: None,
        };
        assert!(matches!(plan(given.clone()), Plan::Look(_)));
        assert!(matches!(
            condition_for(&given, Some(Seq(7))),
            Condition::Version(Seq(7))
        ));
        assert!(matches!(
            condition_for(&given, Some(Seq(8))),
            Condition::Version(Seq(u64::MAX))
        ));
        assert!(matches!(
            condition_for(&given, None),
            Condition::Version(Seq(u64::MAX))
        ));
    }

    #[test]
    fn none_of_a_list_holds_for_an_absent_document_too() {
        let given = Preconditions {
            if_match: None,
            if_none_match: versions(&[3]),
        };
        assert!(matches!(condition_for(&given, None), Condition::Absent(true)));
        assert!(matches!(
            condition_for(&given, Some(Seq(4))),
            Condition::Version(Seq(4))
        ));
        assert!(matches!(
            condition_for(&given, Some(Seq(3))),
            Condition::Version(Seq(u64::MAX))
        ));
    }
}
