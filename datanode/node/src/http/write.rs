//! The way of a write: typed under the schema of the moment, handed to the collection,
//! typed again if the schema moved meanwhile, answered when it is durable.

use std::sync::Arc;

use bytes::Bytes;
use rhumb_core::write::{Counts, Idempotency, Write};
use rhumb_core::{Code, Filter, Limits, Problem, Schema};
use rhumb_engine::{Collection, EngineError, Written};
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::access::{Caller, first_outside, outside};
use super::body::Whole;
use super::call::{Call, LARGE_BODY};
use super::problem::Refused;

/// How often the schema may move under one request before we say that we are busy: each
/// time another request added a field.
const ATTEMPTS: usize = 16;
const LONGEST_KEY: usize = 128;

/// Types `whole` with `typed`, writes, and notes what the session has seen.
pub async fn apply<F>(
    call: &mut Call,
    collection: &Arc<Collection>,
    whole: &Whole,
    typed: F,
) -> Refused<Written>
where
    F: Fn(&Bytes, &Schema, &Limits) -> Result<Write, Problem> + Clone + Send + 'static,
{
    let caller = call.caller.clone();
    let typed = move |bytes: &Bytes, schema: &Schema, limits: &Limits| {
        scoped(typed(bytes, schema, limits)?, &caller, schema, limits)
    };
    for _ in 0..ATTEMPTS {
        let begin = Instant::now();
        let (schema, limits) = (collection.schema(), call.app.limits.clone());
        let write = if whole.bytes.len() > LARGE_BODY {
            let (bytes, typed) = (whole.bytes.clone(), typed.clone());
            call.app
                .tasks
                .compute(move || typed(&bytes, &schema, &limits))
                .await??
        } else {
            typed(&whole.bytes, &schema, &limits)?
        };
        call.timing.parse += begin.elapsed();
        let begin = Instant::now();
        let outcome = collection.write(write).await;
        call.timing.write = Some(begin.elapsed());
        match outcome {
            Ok(written) => {
                call.bill.rows(changed(&written.counts));
                call.saw(collection, &written.positions);
                return Ok(written);
            }
            Err(EngineError::SchemaMoved) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(EngineError::SchemaMoved.into())
}

/// What a write costs in rows.
fn changed(counts: &Counts) -> u64 {
    counts.upserted + counts.patched + counts.deleted
}

/// The write as its caller may make it.  Documents of its own that lie outside its rows are
/// refused here, before any partition is asked; what it meets there is judged there.
pub fn scoped(mut write: Write, caller: &Caller, schema: &Schema, limits: &Limits) -> Result<Write, Problem> {
    if !caller.is_scoped() {
        return Ok(write);
    }
    // A filter looks at what is stored; a document brings its new fields along.
    let by_filter = caller.scope(schema, limits);
    write.delete_by_filter = write
        .delete_by_filter
        .and_then(|filter| Filter::both(by_filter, Some(filter)));
    write.scope = caller.scope(&schema.extend(&write.new_fields, limits)?, limits);
    let scope = write.scope.as_ref();
    match scope.and_then(|scope| first_outside(scope, &write.upsert)) {
        Some(id) => Err(outside(id)),
        None => Ok(write),
    }
}

/// The key of the request, and a hash of all that makes it this request: a repeat is the
/// same method on the same path under the same conditions with the same body.
pub fn idempotency(call: &Call, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = call.header("idempotency-key")? else {
        return Ok(None);
    };
    let printable = key.bytes().all(|b| (0x20..0x7F).contains(&b));
    if key.is_empty() || key.len() > LONGEST_KEY || !printable {
        return Err(Problem::new(
            Code::InvalidValue,
            format!("an Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters"),
        )
        .field("Idempotency-Key"));
    }
    let mut hash = Xxh3::new();
    let conditions =
        ["if-match", "if-none-match"].map(|name| call.header(name).ok().flatten().unwrap_or_default());
    for part in [call.route.op.name(), call.path(1), conditions[0], conditions[1]] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(body);
    // Two callers may choose the same key, and must not learn of each other by it.
    let key = match &call.app.guard {
        Some(_) => format!("{}\n{key}", call.caller.identity.subject),
        None => key.to_owned(),
    };
    Ok(Some(Idempotency {
        key,
        body_hash: hash.digest(),
    }))
}
