//! `POST …/import`: the request's side of an import.
//!
//! What can be known from the head of the file is answered with a status; from then on the
//! answer streams, and its last line says how it ended.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rhumb_core::{Code, Problem};
use rhumb_seams::OnExit;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{self, Answer};
use super::call::Call;
use super::problem::Refused;
use crate::import::{Format, Import, Message, Reporter, Source};

/// Chunks that are read ahead of those being written.
const AHEAD: usize = 2;
/// Lines of progress that may wait to be read.
const LINES: usize = 16;

pub async fn import(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let format = Format::of_content_type(call.content_type()?.as_deref())?;
    let tasks = call.app.tasks.clone();
    let read = Arc::new(AtomicU64::new(0));
    let settings = &call.app.settings;
    let (spool, spool_limit) = (settings.cache_dir.join("spool").into(), settings.cache_size.0);
    let source = Source {
        format,
        body: call.take_incoming()?,
        limits: call.app.limits.clone(),
        tasks: tasks.clone(),
        spool,
        spool_limit,
        read: read.clone(),
    };
    let (to, mut from) = mpsc::channel(AHEAD);
    tasks.spawn("import source", OnExit::Fine, source.run(to));
    call.bill.pause();
    let first = from.recv().await;
    call.bill.resume();
    match first {
        Some(Ok(Message::Head)) => {}
        Some(Err(problem)) => return Err(problem.into()),
        Some(Ok(Message::Chunk(_))) | None => {
            return Err(Problem::new(Code::Internal, "an import began without its head").into());
        }
    }
    let (lines, answer) = mpsc::channel(LINES);
    let import = Import {
        reporter: Reporter::new(
            lines,
            call.request_id.clone(),
            read,
            collection.entry().id.clone(),
            call.session().clone(),
        ),
        collection,
        limits: call.app.limits.clone(),
        caller: call.caller.clone(),
        meter: call.bill.meter(),
        tasks: tasks.clone(),
        name: call.app.ids.ulid(),
    };
    tasks.spawn("import", OnExit::Fine, import.run(from));
    Ok(answer::stream(rhumb_api::NDJSON, ReceiverStream::new(answer)))
}
