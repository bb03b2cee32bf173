//! Many documents at once: the write request and get-many.

use axum::http::StatusCode;
use bytes::Bytes;
use rhumb_core::query::{Include, Stored};
use rhumb_core::render::Rendered;
use rhumb_core::typing::Typer;
use rhumb_core::write::{Condition, Write};
use rhumb_core::{Code, DocId, Filter, Json, Limits, Problem, Schema, Seq};
use rhumb_engine::Reading;

use super::answer::{self, Answer, write_json};
use super::bill::Bill;
use super::call::{Call, get_within, in_time};
use super::members::Members;
use super::problem::Refused;
use super::session::position_text;
use super::write::{apply, idempotency};

/// Documents fetched and rendered at a time: what is in memory twice stays small.
pub const STEP: usize = 500;
/// The most that one answer of documents holds.
pub const LARGEST_ANSWER: usize = 256 << 20;

pub async fn write(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let whole = call.whole_body().await?;
    let idempotency = idempotency(call, &whole.bytes)?;
    let typed = move |bytes: &Bytes, schema: &Schema, limits: &Limits| {
        let body = Json::parse(bytes, limits)?;
        Ok(Write {
            idempotency: idempotency.clone(),
            ..typed(body, schema, limits)?
        })
    };
    let written = apply(call, &collection, &whole, typed).await?;
    let counts = written.counts;
    Ok(answer::json(
        StatusCode::OK,
        &rhumb_api::WriteAnswer {
            upserted: counts.upserted,
            patched: counts.patched,
            deleted: counts.deleted,
            skipped: counts.skipped,
            position: position_text(&written.positions),
        },
    ))
}

/// The request as a write.
fn typed(body: Json, schema: &Schema, limits: &Limits) -> Result<Write, Problem> {
    let mut members = Members::of("a write", body)?;
    let mut typer = Typer::new(schema, limits);
    let mut write = Write::default();
    let filter = members.take("delete_by_filter");
    let (delete, upsert) = (members.take("delete"), members.take("upsert"));
    let (columns, patch) = (members.take("upsert_columns"), members.take("patch"));
    let condition = members.take("if");
    // Before the documents: a typo in the envelope is the more useful thing to hear of.
    members.finish()?;
    if let Some(json) = filter {
        let filter = Filter::parse_json(&json, schema, limits);
        write.delete_by_filter = Some(filter.map_err(|problem| problem.within("delete_by_filter"))?);
    }
    write.condition = condition
        .map(|json| parse_condition(json, schema, limits))
        .transpose()?;
    if let Some(json) = delete {
        write.delete = typer.delete(json)?;
    }
    if let Some(json) = upsert {
        write.upsert = typer.upsert(json)?;
    }
    if let Some(json) = columns {
        write.upsert.append(&mut typer.upsert_columns(json)?);
    }
    if let Some(json) = patch {
        write.patch = typer.patch(json)?;
    }
    write.new_fields = typer.into_new_fields();
    Ok(write)
}

fn parse_condition(json: Json, schema: &Schema, limits: &Limits) -> Result<Condition, Problem> {
    let one = |detail: &str| {
        Problem::new(Code::Malformed, detail)
            .field("if")
            .hint("{\"absent\": true}, {\"version\": 17} or {\"filter\": {…}}")
    };
    let mut members = Members::of("if", json).map_err(|problem| problem.field("if"))?;
    let inside = |problem: Problem| problem.within("if");
    let absent = members.bool("absent").map_err(inside)?;
    let version = members
        .number("version", 0..=u64::MAX, Code::InvalidValue)
        .map_err(inside)?;
    let filter = members.take("filter");
    members.finish().map_err(inside)?;
    match (absent, version, filter) {
        (Some(absent), None, None) => Ok(Condition::Absent(absent)),
        (None, Some(version), None) => Ok(Condition::Version(Seq(version))),
        (None, None, Some(filter)) => {
            let filter = Filter::parse_json(&filter, schema, limits);
            Ok(Condition::Filter(
                filter.map_err(|problem| problem.within("filter").within("if"))?,
            ))
        }
        (None, None, None) => Err(one("if holds no condition")),
        _ => Err(one("if holds one condition, not several")),
    }
}

pub async fn get_many(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let body = call.json_body().await?;
    let schema = collection.schema();
    let asked = Asked::parse(body, &schema, &call.app.limits)?;
    let scope = call.scope(&schema);
    let reading = call.read(&collection, asked.consistency).await?;
    let bytes = in_time(call.patience(), async {
        Ok(rendered(&reading, &asked, scope.as_ref(), &schema, &call.bill).await)
    })
    .await??;
    Ok(answer::bytes_of(StatusCode::OK, "application/json", bytes))
}

struct Asked {
    ids: Vec<DocId>,
    include: Include,
    consistency: Option<rhumb_core::query::Consistency>,
}

impl Asked {
    fn parse(body: Json, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        let mut members = Members::of("the body", body)?;
        let ids = members.take("ids");
        let include = members.take("include");
        let consistency = members.consistency()?;
        members.finish()?;
        let ids = ids.ok_or_else(|| Problem::new(Code::Malformed, "ids is missing").field("ids"))?;
        let most = limits.page_rows;
        if ids.list_len().is_some_and(|count| count > most) {
            let detail = format!("at most {most} ids at once");
            return Err(Problem::new(Code::LimitExceeded, detail).field("ids"));
        }
        let ids = Typer::new(schema, limits).ids("ids", ids)?;
        let include = include.map_or(Ok(Include::Everything), |json| Include::parse_json(&json, schema))?;
        Ok(Self {
            ids,
            include,
            consistency,
        })
    }
}

async fn rendered(
    reading: &Reading,
    asked: &Asked,
    scope: Option<&Filter>,
    schema: &Schema,
    bill: &Bill,
) -> Refused<Vec<u8>> {
    let mut out = b"{\"documents\":[".to_vec();
    for (at, ids) in asked.ids.chunks(STEP).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let found = get_within(reading, scope, ids, &asked.include).await?;
        bill.rows(found.iter().flatten().count() as u64);
        for (at, stored) in found.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match stored {
                Some(stored) => write_stored(&mut out, stored, &asked.include, schema),
                None => out.extend_from_slice(b"null"),
            }
        }
        within_answer(out.len())?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// `{"id": …, "version": …, "document": {…}}`
pub fn write_stored(out: &mut Vec<u8>, stored: &Stored, include: &Include, schema: &Schema) {
    out.extend_from_slice(b"{\"id\":");
    write_json(out, &stored.id);
    out.extend_from_slice(b",\"version\":");
    write_json(out, &stored.version);
    out.extend_from_slice(b",\"document\":");
    write_json(out, &Rendered::new(&stored.document, include, schema));
    out.push(b'}');
}

pub fn within_answer(length: usize) -> Result<(), Problem> {
    if length <= LARGEST_ANSWER {
        return Ok(());
    }
    Err(Problem::new(
        Code::LimitExceeded,
        format!("the answer would be larger than {LARGEST_ANSWER} bytes"),
    )
    .hint("ask for less at once, or leave attributes out with include"))
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::known_to;
    use super::*;

    fn write_of(text: &str) -> Result<Write, Problem> {
        let limits = Limits::default();
        typed(
            Json::parse(text.as_bytes(), &limits)?,
            &Schema::default(),
            &limits,
        )
    }

    fn refusal(text: &str) -> (Code, Option<String>) {
        let problem = write_of(text).expect_err(text);
        (problem.code, problem.field)
    }

    #[test]
    fn the_parsers_know_what_the_openapi_says() {
        let (schema, limits) = (Schema::default(), Limits::default());
        assert_eq!(
            known_to(|json| typed(json, &schema, &limits)),
            rhumb_api::properties::<rhumb_api::WriteRequest>()
        );
        assert_eq!(
            known_to(|json| Asked::parse(json, &schema, &limits)),
            rhumb_api::properties::<rhumb_api::GetDocuments>()
        );
    }

    #[test]
    fn every_part_of_a_write_is_read() {
        let write = write_of(
            r#"{"upsert": [{"id": "n1", "lex": 3}], "upsert_columns": {"id": ["n3"], "pos": ["v"]},
                "patch": [{"id": "n2", "pos": null}], "delete": ["n9"],
                "delete_by_filter": {"id": "n8"}, "if": {"version": 17}}"#,
        )
        .expect("valid");
        assert_eq!(
            (write.upsert.len(), write.patch.len(), write.delete.len()),
            (2, 1, 1)
        );
        assert!(write.delete_by_filter.is_some());
        assert!(matches!(write.condition, Some(Condition::Version(Seq(17)))));
        assert_eq!(write.new_fields.fields.len(), 2);
    }

    #[test]
    fn a_condition_is_one_of_three() {
        for (text, code) in [
            (r#"{"if": {}}"#, Code::Malformed),
            (r#"{"if": {"absent": true, "version": 1}}"#, Code::Malformed),
            (r#"{"if": true}"#, Code::Malformed),
            (r#"{"if": {"absent": 1}}"#, Code::Malformed),
            (r#"{"if": {"version": -1}}"#, Code::InvalidValue),
            (r#"{"if": {"abset": true}}"#, Code::UnknownField),
            (r#"{"if": {"filter": {"nope": 1}}}"#, Code::UnknownField),
        ] {
            let (found, field) = refusal(text);
            assert_eq!(found, code, "{text}");
            assert!(field.is_some_and(|field| field.starts_with("if")), "{text}");
        }
        assert!(matches!(
            write_of(r#"{"if": {"absent": false}}"#).expect("valid").condition,
            Some(Condition::Absent(false))
        ));
    }

    #[test]
    fn a_bad_document_is_named_by_its_place() {
        assert_eq!(
            refusal(r#"{"upsert": [{"id": "a"}, {"id": ""}]}"#),
            (Code::InvalidId, Some("upsert[1].id".into()))
        );
        assert_eq!(
            refusal(r#"{"upsert": [{"id": "a"}], "upsert_columns": {"id": ["b", "a"]}}"#),
            (Code::DuplicateId, Some("upsert_columns.id[1]".into()))
        );
        assert_eq!(
            refusal(r#"{"delete": [{}]}"#),
            (Code::InvalidId, Some("delete[0]".into()))
        );
        assert_eq!(refusal(r#"{"delete_by_filter": {"a": 1}}"#).0, Code::UnknownField);
        assert_eq!(
            refusal(r#"{"upserts": []}"#),
            (Code::UnknownField, Some("upserts".into()))
        );
        assert_eq!(refusal("[]").0, Code::Malformed);
    }

    #[test]
    fn more_ids_than_a_page_are_refused() {
        let limits = Limits {
            page_rows: 2,
            ..Limits::default()
        };
        let body = |text: &str| Json::parse(text.as_bytes(), &limits).expect("json");
        let three = Asked::parse(body(r#"{"ids": ["a", "b", "c"]}"#), &Schema::default(), &limits);
        assert_eq!(three.err().map(|p| p.code), Some(Code::LimitExceeded));
        let none = Asked::parse(body("{}"), &Schema::default(), &limits);
        assert_eq!(none.err().map(|p| p.code), Some(Code::Malformed));
        assert!(Asked::parse(body(r#"{"ids": []}"#), &Schema::default(), &limits).is_ok());
    }
}
