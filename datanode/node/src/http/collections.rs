//! Collections: create, look at, evolve, delete, list, optimize.

use std::sync::Arc;

use axum::http::StatusCode;
use rhumb_core::{Code, CollectionId, CollectionName, Json, Limits, Problem, Quota, Schema, fields, time};
use rhumb_engine::{Collection, Created, EngineError, Stats, quota_of};
use rhumb_seams::OnExit;
use rhumb_store::catalog::CatalogEntry;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::call::{Call, in_time};
use super::cursor;
use super::members::Members;
use super::problem::Refused;
use super::session::position_text;

pub async fn put(call: &mut Call) -> Refused<Answer> {
    let name = call.collection_name()?;
    let body = call.json_body().await?;
    let Definition {
        schema,
        partitions,
        quota,
    } = definition(body, &call.app.limits)?;
    may_set(call, quota)?;
    let created = call.db.create_collection(&name, schema, partitions, quota);
    match created.await? {
        Created::New(collection) => {
            // Nobody can have written to it, so there is nothing to open and count.
            let (entry, nothing) = (collection.entry(), Stats::default());
            Ok(answer::json(StatusCode::CREATED, &info(&entry, Some(&nothing))?))
        }
        Created::Same(collection) => described(call, &collection).await,
    }
}

/// A quota bounds what others write, so it is not for somebody who may know of some rows only.
fn may_set(call: &Call, quota: Option<Quota>) -> Result<(), Problem> {
    match quota {
        Some(_) if call.caller.is_scoped() => {
            let detail = "credentials with a row filter cannot set a quota: it bounds the rows of others";
            Err(Problem::new(Code::Forbidden, detail)
                .field("quota")
                .hint("leave quota out"))
        }
        _ => Ok(()),
    }
}

struct Definition {
    schema: Schema,
    partitions: u32,
    quota: Option<Quota>,
}

fn definition(body: Json, limits: &Limits) -> Result<Definition, Problem> {
    let mut members = Members::of("a collection's definition", body)?;
    let declared = members
        .take("fields")
        .map(|json| fields::parse(&json, limits))
        .transpose()?;
    let partitions = members.number("partitions", 1..=u64::from(limits.partitions), Code::InvalidValue)?;
    let quota = members.take("quota").map(Quota::parse).transpose()?;
    members.finish()?;
    Ok(Definition {
        schema: Schema::default().declare(&declared.unwrap_or_default(), limits)?,
        partitions: partitions.map_or(1, |n| n as u32),
        quota,
    })
}

pub async fn get(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    if let Some(consistency) = call.consistency()? {
        // Only for what it proves: that this server still owns what it counts.
        call.read(&collection, Some(consistency)).await?;
    }
    described(call, &collection).await
}

pub async fn patch(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let body = call.json_body().await?;
    let (fields, quota) = patch_of(body, &call.app.limits)?;
    may_set(call, quota)?;
    collection.declare(&fields, quota).await?;
    described(call, &collection).await
}

type Fields = std::collections::BTreeMap<rhumb_core::FieldName, rhumb_core::FieldType>;

fn patch_of(body: Json, limits: &Limits) -> Result<(Fields, Option<Quota>), Problem> {
    let mut members = Members::of("a change of a collection", body)?;
    let fields = members
        .take("fields")
        .map(|json| fields::parse(&json, limits))
        .transpose()?;
    let quota = members.take("quota").map(Quota::parse).transpose()?;
    members.finish()?;
    Ok((fields.unwrap_or_default(), quota))
}

pub async fn delete(call: &mut Call) -> Refused<Answer> {
    call.db.delete_collection(&call.collection_name()?).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

pub async fn list(call: &mut Call) -> Refused<Answer> {
    let limit = call.params.limit(call.app.limits.page_rows)?;
    let after = call
        .params
        .get_filled("cursor")
        .map(cursor::read_name)
        .transpose()?;
    let prefix = call.params.get("prefix").unwrap_or_default();
    let listing = seen(call, prefix, after, limit + 1);
    let mut entries = in_time(call.patience(), listing).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let last = entries.last().filter(|_| more);
    let page = Page {
        collections: entries
            .iter()
            .map(|entry| info(entry, None))
            .collect::<Result<_, _>>()?,
        cursor: last.map(|last| cursor::write_name(last.name.as_str())),
    };
    Ok(answer::json(StatusCode::OK, &page))
}

/// The next `wanted` collections of those that the caller may know of.
async fn seen(
    call: &Call,
    prefix: &str,
    mut after: Option<String>,
    wanted: usize,
) -> Result<Vec<CatalogEntry>, EngineError> {
    let mut seen = Vec::new();
    loop {
        let page = call.db.list_collections(prefix, after.as_deref(), wanted).await?;
        let is_last = page.len() < wanted;
        after = page.last().map(|entry| entry.name.as_str().to_owned());
        let own = page
            .into_iter()
            .filter(|entry| call.caller.identity.sees(entry.name.as_str()));
        seen.extend(own);
        if is_last || seen.len() >= wanted {
            seen.truncate(wanted);
            return Ok(seen);
        }
    }
}

pub async fn optimize(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let wait = wait_of(call.optional_json_body().await?)?;
    let begin = Instant::now();
    if wait {
        // In a task of its own: a client that leaves does not stop the work half-way.
        let work = collection.clone();
        let task = call
            .app
            .tasks
            .spawn("optimize", OnExit::Fine, async move { work.optimize().await });
        task.await??;
    } else {
        let (work, name) = (collection.clone(), collection.entry().name.clone());
        call.app.tasks.spawn("optimize", OnExit::Fine, async move {
            if let Err(error) = work.optimize().await {
                tracing::warn!(collection = %name, %error, "an optimize that nobody waits for failed");
            }
        });
    }
    let stats = collection.stats().await?;
    call.saw(&collection, &stats.positions);
    let status = if wait {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let took_ms = begin.elapsed().as_millis() as u64;
    let done = rhumb_api::OptimizeAnswer {
        state: index_state(&stats),
        unindexed_rows: stats.unindexed_rows,
        took_ms,
    };
    Ok(answer::json(status, &done))
}

fn wait_of(body: Json) -> Result<bool, Problem> {
    let mut members = Members::of("the body", body)?;
    let wait = members.bool("wait")?;
    members.finish()?;
    Ok(wait.unwrap_or(true))
}

async fn described(call: &mut Call, collection: &Arc<Collection>) -> Refused<Answer> {
    let mut stats = in_time(call.patience(), collection.stats()).await?;
    call.saw(collection, &stats.positions);
    if let Some(scope) = call.scope(&collection.schema()) {
        // What others have does not show in a sum.
        let reading = call.read(collection, None).await?;
        stats.rows = in_time(call.patience(), reading.count(Some(&scope))).await?;
        (stats.bytes, stats.unindexed_rows) = (0, 0);
    }
    Ok(answer::json(
        StatusCode::OK,
        &info(&collection.entry(), Some(&stats))?,
    ))
}

#[derive(Serialize)]
struct Page<'a> {
    collections: Vec<Info<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// `rhumb_api::CollectionInfo`, with the fields as `rhumb_core` renders them.
#[derive(Serialize)]
struct Info<'a> {
    name: &'a CollectionName,
    id: &'a CollectionId,
    created_at: String,
    fields: Value,
    partitions: u32,
    #[serde(skip_serializing_if = "Quota::is_boundless")]
    quota: Quota,
    #[serde(flatten)]
    numbers: Option<Numbers>,
}

#[derive(Serialize)]
struct Numbers {
    rows: u64,
    bytes: u64,
    index: rhumb_api::IndexInfo,
    position: String,
}

/// Without `stats` in lists: they would open every collection.
fn info<'a>(entry: &'a CatalogEntry, stats: Option<&Stats>) -> Result<Info<'a>, EngineError> {
    Ok(Info {
        name: &entry.name,
        id: &entry.id,
        created_at: time::format(entry.created_at_ms),
        fields: fields::render(&entry.schema),
        partitions: entry.partitions,
        quota: quota_of(entry)?,
        numbers: stats.map(|stats| Numbers {
            rows: stats.rows,
            bytes: stats.bytes,
            index: rhumb_api::IndexInfo {
                state: index_state(stats),
                unindexed_rows: stats.unindexed_rows,
            },
            position: position_text(&stats.positions),
        }),
    })
}

/// Few fresh rows wait for company: a search scans them in less time than anybody notices.
const FEW: u64 = 10_000;

fn index_state(stats: &Stats) -> rhumb_api::IndexState {
    if stats.unindexed_rows < FEW {
        rhumb_api::IndexState::Ready
    } else {
        rhumb_api::IndexState::Building
    }
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::known_to;
    use super::*;

    fn json_of(text: &str) -> Json {
        Json::parse(text.as_bytes(), &Limits::default()).expect("json")
    }

    #[test]
    fn the_parsers_know_what_the_openapi_says() {
        let limits = Limits::default();
        assert_eq!(
            known_to(|json| definition(json, &limits)),
            rhumb_api::properties::<rhumb_api::CollectionDefinition>()
        );
        assert_eq!(
            known_to(|json| patch_of(json, &limits)),
            rhumb_api::properties::<rhumb_api::CollectionPatch>()
        );
        assert_eq!(
            known_to(Quota::parse),
            rhumb_api::properties::<rhumb_api::Quota>()
        );
        assert_eq!(
            known_to(wait_of),
            rhumb_api::properties::<rhumb_api::OptimizeRequest>()
        );
    }

    #[test]
    fn a_definition_may_be_empty_and_has_one_partition_then() {
        let limits = Limits::default();
        let empty = definition(json_of("{}"), &limits).expect("valid");
        assert_eq!((empty.schema, empty.partitions), (Schema::default(), 1));
        assert_eq!(empty.quota, None);
        for (text, code) in [
            (r#"{"partitions": 0}"#, Code::InvalidValue),
            (r#"{"partitions": 65}"#, Code::InvalidValue),
            (r#"{"partitions": "2"}"#, Code::Malformed),
            (r#"{"fields": []}"#, Code::Malformed),
            (r#"{"field": {}}"#, Code::UnknownField),
            (r#"{"quota": 7}"#, Code::Malformed),
            (r#"{"quota": {"row": 7}}"#, Code::UnknownField),
            ("[]", Code::Malformed),
        ] {
            let refused = definition(json_of(text), &limits).map(drop).expect_err(text);
            assert_eq!(refused.code, code, "{text}");
        }
    }

    #[test]
    fn what_is_shown_of_a_collection_is_what_the_types_say() {
        let entry = CatalogEntry {
            id: rhumb_core::CollectionId::parse(&"0".repeat(26)).expect("26 digits"),
            name: CollectionName::parse("w").expect("a name"),
            created_at_ms: 0,
            schema: Schema::default(),
            partitions: 1,
            state: rhumb_store::catalog::CatalogState::Active,
            leader: None,
            settings: [("quota".to_owned(), serde_json::json!({"rows": 9}))].into(),
        };
        let stats = Stats {
            rows: 3,
            unindexed_rows: FEW,
            ..Stats::default()
        };
        let info = info(&entry, Some(&stats)).expect("a quota");
        let shown: rhumb_api::CollectionInfo =
            serde_json::from_value(serde_json::json!(info)).expect("the type reads it");
        assert_eq!(shown.quota.and_then(|quota| quota.rows), Some(9));
        assert_eq!((shown.rows, shown.name.as_str()), (Some(3), "w"));
        assert_eq!(
            shown.index.map(|index| index.state),
            Some(rhumb_api::IndexState::Building)
        );
        assert_eq!(shown.created_at, "1970-01-01T00:00:00.000Z");
    }
}
