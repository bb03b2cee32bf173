//! `GET /v1/audit`: what was done, page by page, straight from the bucket.

use axum::http::StatusCode;
use rhumb_auth::audit::{Outcome, Record};
use rhumb_core::{Problem, time};

use super::answer::{self, Answer};
use super::call::Call;
use super::problem::Refused;
use super::{cursor, identity};
use crate::guard::AuditQuery;

pub async fn audit(call: &mut Call) -> Refused<Answer> {
    let guard = identity::guard(call)?;
    let at = |name: &str| -> Result<Option<i64>, Problem> {
        let text = call.params.get_filled(name);
        text.map(|text| time::parse(text).map_err(|problem| problem.field(name)))
            .transpose()
    };
    let from = match call.params.get_filled("cursor") {
        Some(text) => Some(place_in(&cursor::read_name(text)?).ok_or_else(cursor::bad_cursor)?),
        None => None,
    };
    let query = AuditQuery {
        since_ms: at("since")?,
        until_ms: at("until")?,
        subject: call.params.get_filled("subject").map(str::to_owned),
        limit: call.params.limit(call.app.limits.page_rows)?,
        from,
    };
    let page = guard.audit.read(&query).await?;
    let shown = rhumb_api::AuditPage {
        records: page.records.into_iter().map(shown).collect(),
        cursor: page
            .next
            .map(|(segment, line)| cursor::write_name(&format!("{line} {segment}"))),
    };
    Ok(answer::json(StatusCode::OK, &shown))
}

fn place_in(text: &str) -> Option<(String, usize)> {
    let (line, segment) = text.split_once(' ')?;
    Some((segment.to_owned(), line.parse().ok()?))
}

fn shown(record: Record) -> rhumb_api::AuditRecord {
    let outcome = match record.outcome {
        Outcome::Done => "done",
        Outcome::Denied => "denied",
        Outcome::Failed => "failed",
    };
    rhumb_api::AuditRecord {
        number: record.number,
        at: record.at,
        node: record.node,
        subject: record.subject,
        action: record.action,
        target: record.target,
        outcome: outcome.to_owned(),
        status: record.status,
        reason: record.reason,
        request_id: record.request_id,
    }
}
