//! One document at its own address.

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use rhumb_core::ids::IdKind;
use rhumb_core::query::Include;
use rhumb_core::typing::{Typer, id_from_text, kind_of_id};
use rhumb_core::write::{Condition, Counts, Write};
use rhumb_core::{Code, DocId, Json, Limits, Problem, Schema, Seq};
use rhumb_engine::{Collection, Written};

use super::answer::{self, Answer};
use super::body::Whole;
use super::call::{Call, get_within, in_time};
use super::conditions::{self, Plan};
use super::documents::write_stored;
use super::etag::Preconditions;
use super::problem::Refused;
use super::write::{apply, idempotency};

/// How often the document may change between the look at it and the write.
const LOOKS: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Put,
    Patch,
    Delete,
}

pub async fn put(call: &mut Call) -> Refused<Answer> {
    let (collection, whole) = opened(call).await?;
    let given = Preconditions::of_headers(&call.headers)?;
    let (id, counts) = change(call, &collection, whole, given, Verb::Put).await?;
    if counts.skipped > 0 {
        return Err(conditions::failed().into());
    }
    written(&id, &counts)
}

pub async fn patch(call: &mut Call) -> Refused<Answer> {
    let (collection, whole) = opened(call).await?;
    let given = Preconditions::of_headers(&call.headers)?;
    let conditional = !given.is_empty();
    let (id, counts) = change(call, &collection, whole, given, Verb::Patch).await?;
    match counts.skipped {
        0 => written(&id, &counts),
        _ if conditional => Err(conditions::failed().into()),
        _ => Err(not_found(call.path(1)).into()),
    }
}

pub async fn delete(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let given = Preconditions::of_headers(&call.headers)?;
    let (_, counts) = change(call, &collection, Whole::default(), given, Verb::Delete).await?;
    if counts.skipped > 0 {
        return Err(conditions::failed().into());
    }
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

pub async fn get(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let given = Preconditions::of_headers(&call.headers)?;
    let schema = collection.schema();
    let include = match call.params.get("include") {
        Some(text) => Include::parse_param(text, &schema)?,
        None => Include::Everything,
    };
    let consistency = call.consistency()?;
    let id = id_from_text(call.path(1), schema.id_kind, &call.app.limits)?;
    let scope = call.scope(&schema);
    let reading = call.read(&collection, consistency).await?;
    let stored = match &id {
        // Text that is no number is no id where ids are numbers.
        None => None,
        Some(id) => in_time(
            call.patience(),
            get_within(&reading, scope.as_ref(), std::slice::from_ref(id), &include),
        )
        .await?
        .pop()
        .flatten(),
    };
    let version = stored.as_ref().map(|stored| stored.version);
    if given.if_match.as_ref().is_some_and(|tags| !tags.has(version)) {
        return Err(conditions::failed().into());
    }
    let Some(stored) = stored else {
        return Err(not_found(call.path(1)).into());
    };
    if given.if_none_match.as_ref().is_some_and(|tags| tags.has(version)) {
        return Ok(answer::tagged(
            answer::empty(StatusCode::NOT_MODIFIED),
            stored.version,
        ));
    }
    call.bill.rows(1);
    let mut bytes = Vec::with_capacity(256);
    write_stored(&mut bytes, &stored, &include, &collection.schema());
    Ok(answer::tagged(
        answer::bytes_of(StatusCode::OK, "application/json", bytes),
        stored.version,
    ))
}

async fn opened(call: &mut Call) -> Refused<(Arc<Collection>, Whole)> {
    let collection = call.collection().await?;
    let whole = call.whole_body().await?;
    Ok((collection, whole))
}

/// Writes under the request's conditions; `skipped` says that they did not hold.
async fn change(
    call: &mut Call,
    collection: &Arc<Collection>,
    whole: Whole,
    given: Preconditions,
    verb: Verb,
) -> Refused<(DocId, Counts)> {
    let given = match conditions::plan(given) {
        Plan::Direct(condition) => return change_if(call, collection, &whole, condition, verb).await,
        Plan::Look(given) => given,
    };
    let mut looks = 0;
    loop {
        let (id, _) = target(
            &collection.schema(),
            &call.app.limits,
            call.path(1),
            &whole.bytes,
            verb,
        )?;
        let condition = conditions::look(call, collection, &id, &given).await?;
        let (id, counts) = change_if(call, collection, &whole, Some(condition), verb).await?;
        looks += 1;
        if counts.skipped == 0 || looks == LOOKS {
            return Ok((id, counts));
        }
        let again = conditions::look(call, collection, &id, &given).await?;
        if matches!(again, Condition::Version(Seq(u64::MAX))) {
            return Ok((id, counts));
        }
    }
}

async fn change_if(
    call: &mut Call,
    collection: &Arc<Collection>,
    whole: &Whole,
    condition: Option<Condition>,
    verb: Verb,
) -> Refused<(DocId, Counts)> {
    let idempotency = idempotency(call, &whole.bytes)?;
    let path = call.path(1).to_owned();
    let typed = {
        let path = path.clone();
        move |bytes: &Bytes, schema: &Schema, limits: &Limits| {
            let write = typed(schema, limits, &path, bytes, verb)?;
            Ok(Write {
                idempotency: idempotency.clone(),
                condition: condition.clone(),
                ..write
            })
        }
    };
    let Written { counts, .. } = apply(call, collection, whole, typed).await?;
    // What was written fixed the kind of the ids, if nothing had before.
    let id = id_from_text(&path, collection.schema().id_kind, &call.app.limits)?;
    Ok((id.unwrap_or_else(|| DocId::from(path.as_str())), counts))
}

fn typed(schema: &Schema, limits: &Limits, path: &str, bytes: &Bytes, verb: Verb) -> Result<Write, Problem> {
    let (id, body) = target(schema, limits, path, bytes, verb)?;
    let mut typer = Typer::new(schema, limits);
    // What is refused here is answered as a refusal, which no key remembers.
    let mut write = Write {
        all_or_nothing: true,
        ..Write::default()
    };
    match verb {
        Verb::Put => write.upsert = vec![(id.clone(), typer.document(&id, body)?)],
        Verb::Patch => write.patch = vec![typer.document_patch(&id, body)?],
        Verb::Delete => write.delete = vec![id],
    }
    write.new_fields = typer.into_new_fields();
    Ok(write)
}

/// The id that the path means, and the parsed body.
fn target(
    schema: &Schema,
    limits: &Limits,
    path: &str,
    bytes: &Bytes,
    verb: Verb,
) -> Result<(DocId, Json), Problem> {
    let body = if verb == Verb::Delete {
        Json::Null
    } else {
        Json::parse(bytes, limits)?
    };
    let kind = schema.id_kind.or_else(|| kind_of_id(&body));
    match id_from_text(path, kind, limits)? {
        Some(id) => Ok((id, body)),
        // Nothing can be stored there, so there is nothing to delete or to patch.
        None if verb == Verb::Delete => Ok((DocId::from(path), body)),
        None if verb == Verb::Patch => Err(not_found(path)),
        None => Err(wrong_kind(kind)),
    }
}

fn wrong_kind(kind: Option<IdKind>) -> Problem {
    let what = match kind {
        Some(IdKind::Num) => "unsigned 64-bit integers",
        Some(IdKind::Str) | None => "strings",
    };
    Problem::new(Code::InvalidId, format!("the ids of this collection are {what}")).field("id")
}

fn not_found(id: &str) -> Problem {
    let id = rhumb_core::problem::shorten(id);
    Problem::new(Code::DocumentNotFound, format!("there is no document '{id}'"))
}

fn written(id: &DocId, counts: &Counts) -> Refused<Answer> {
    let Some(version) = counts.version else {
        return Err(Problem::new(Code::Internal, "a document was written without a version").into());
    };
    let status = if counts.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = serde_json::json!({"id": id, "version": version});
    Ok(answer::tagged(answer::json(status, &body), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(kind: Option<IdKind>) -> Schema {
        Schema {
            id_kind: kind,
            ..Schema::default()
        }
    }

    fn id(kind: Option<IdKind>, path: &str, body: &'static str, verb: Verb) -> Result<DocId, Code> {
        let found = target(
            &schema(kind),
            &Limits::default(),
            path,
            &Bytes::from_static(body.as_bytes()),
            verb,
        );
        found.map(|(id, _)| id).map_err(|problem| problem.code)
    }

    #[test]
    fn a_path_is_read_as_the_collections_kind_of_id() {
        assert_eq!(id(None, "7", "{}", Verb::Put), Ok("7".into()));
        assert_eq!(id(None, "7", r#"{"id": 7}"#, Verb::Put), Ok(7.into()));
        assert_eq!(id(Some(IdKind::Num), "7", "{}", Verb::Put), Ok(7.into()));
        assert_eq!(id(Some(IdKind::Str), "7", "{}", Verb::Put), Ok("7".into()));
    }

    #[test]
    fn text_where_ids_are_numbers_names_no_document() {
        let num = Some(IdKind::Num);
        assert_eq!(id(num, "n1", "{}", Verb::Put), Err(Code::InvalidId));
        assert_eq!(id(num, "007", "{}", Verb::Put), Err(Code::InvalidId));
        assert_eq!(id(num, "n1", "{}", Verb::Patch), Err(Code::DocumentNotFound));
        assert_eq!(id(num, "n1", "", Verb::Delete), Ok("n1".into()));
    }

    #[test]
    fn the_body_carries_no_id_or_the_same_one() {
        let limits = Limits::default();
        let put = |body: &'static str| {
            typed(
                &schema(Some(IdKind::Str)),
                &limits,
                "n1",
                &Bytes::from_static(body.as_bytes()),
                Verb::Put,
            )
        };
        assert_eq!(
            put(r#"{"id": "n1", "lex": 1}"#).expect("the same").upsert.len(),
            1
        );
        assert_eq!(put(r#"{"id": "n2"}"#).expect_err("another").code, Code::InvalidId);
        assert_eq!(put("[]").expect_err("no object").code, Code::Malformed);
        assert!(put("{}").expect("empty").all_or_nothing);
    }
}
