//! Erasing documents for good; the answer is a certificate.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use rhumb_api::{ErasedObject, ErasureCertificate, LeftObject, ObjectHolds};
use rhumb_auth::audit::sha256;
use rhumb_core::typing::Typer;
use rhumb_core::write::Write;
use rhumb_core::{DocId, Filter, Json, Limits, Problem, Schema, time};
use rhumb_engine::{Erasure, Holds, Object, PartitionErasure};
use rhumb_seams::OnExit;
use rhumb_store::catalog::CatalogEntry;

use super::answer::{self, Answer};
use super::call::Call;
use super::members::Members;
use super::problem::Refused;
use super::session::position_text;

/// Names the certificate in the audit, at whatever node the request came in.
pub const CERTIFICATE: HeaderName = HeaderName::from_static("rhumb-certificate");

pub async fn erase(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let body = call.optional_json_body().await?;
    let write = typed(body, &collection.schema(), &call.app.limits)?;
    let (id, begun_ms) = (call.app.ids.ulid(), call.app.clock.unix_ms());
    // In a task of its own: a client that leaves does not stop the work half-way.
    let (work, app) = (collection.clone(), call.app.clone());
    let end_readers = move || app.cursors.end(&work.entry().id);
    let work = collection.clone();
    let task = call.app.tasks.spawn("erase", OnExit::Fine, async move {
        work.erase(write, end_readers).await
    });
    let erasure = task.await??;
    call.saw(&collection, &erasure.written.positions);
    let done_ms = call.app.clock.unix_ms();
    let certificate = certificate(&id.to_string(), &collection.entry(), (begun_ms, done_ms), erasure);
    let mut body = Vec::new();
    answer::write_json(&mut body, &certificate);
    let named = format!("{id} sha256:{}", sha256(&[&body]));
    let mut answer = answer::bytes_of(StatusCode::OK, "application/json", body);
    if let Ok(named) = HeaderValue::try_from(named) {
        answer.headers_mut().insert(CERTIFICATE, named);
    }
    Ok(answer)
}

fn typed(body: Json, schema: &Schema, limits: &Limits) -> Result<Write, Problem> {
    let mut members = Members::of("an erasure", body)?;
    let (ids, filter) = (members.take("ids"), members.take("filter"));
    members.finish()?;
    let filter = filter.map(|json| {
        let filter = Filter::parse_json(&json, schema, limits);
        filter.map_err(|problem| problem.within("filter"))
    });
    let ids = ids.map(|ids| Typer::new(schema, limits).ids("ids", ids));
    Ok(Write {
        delete_by_filter: filter.transpose()?,
        delete: ids.transpose()?.unwrap_or_default(),
        ..Write::default()
    })
}

fn certificate(
    id: &str,
    entry: &CatalogEntry,
    (begun_ms, done_ms): (i64, i64),
    erasure: Erasure,
) -> ErasureCertificate {
    let complete = erasure.partitions.iter().all(is_complete);
    ErasureCertificate {
        id: id.to_owned(),
        collection: entry.name.to_string(),
        collection_id: entry.id.to_string(),
        begun_at: time::format(begun_ms),
        done_at: time::format(done_ms),
        deleted: erasure.written.counts.deleted,
        ids: erasure.ids.iter().map(|meant| named(id, meant)).collect(),
        partitions: erasure.partitions.into_iter().map(told).collect(),
        complete,
        position: position_text(&erasure.written.positions),
    }
}

fn is_complete(partition: &PartitionErasure) -> bool {
    let unknown = partition.left.iter().any(|left| left.holds == Holds::Unknown);
    partition.purged.rows_found == 0 && !unknown
}

/// Whoever knows an id can tell that it is meant, and nobody can read it out.
fn named(certificate: &str, id: &DocId) -> String {
    sha256(&[certificate.as_bytes(), b"\n", id.to_string().as_bytes()])
}

fn told(partition: PartitionErasure) -> rhumb_api::PartitionErasure {
    let object = |name: String, object: Object| ErasedObject {
        object: name,
        bytes: object.bytes,
        etag: object.etag,
    };
    let removed = partition.removed.into_iter();
    let left = partition.left.into_iter();
    rhumb_api::PartitionErasure {
        partition: partition.partition,
        removed: removed.map(|(name, removed)| object(name, removed)).collect(),
        left: left
            .map(|left| LeftObject {
                object: object(left.name, left.object),
                holds: match left.holds {
                    Holds::Rows => ObjectHolds::Rows,
                    Holds::Derived => ObjectHolds::Derived,
                    Holds::Log => ObjectHolds::Log,
                    Holds::Keys => ObjectHolds::Keys,
                    Holds::Bookkeeping => ObjectHolds::Bookkeeping,
                    Holds::Unknown => ObjectHolds::Unknown,
                },
                new: !left.is_old,
            })
            .collect(),
        rows_read: partition.purged.rows_read,
        rows_found: partition.purged.rows_found,
    }
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::known_to;
    use super::*;

    #[test]
    fn the_parser_knows_what_the_openapi_says() {
        let (schema, limits) = (Schema::default(), Limits::default());
        assert_eq!(
            known_to(|json| typed(json, &schema, &limits)),
            rhumb_api::properties::<rhumb_api::EraseRequest>()
        );
    }

    #[test]
    fn a_certificate_names_ids_for_those_alone_who_know_them() {
        let id = DocId::from("ada@example.org");
        let name = named("01", &id);
        assert_eq!(name.len(), 64);
        assert_ne!(name, named("02", &id));
        assert_eq!(name, named("01", &id));
    }
}
