//! A `Collection` that goes: with its documents where it says so, and not in silence where
//! they stay all the same.

use kube::runtime::controller::Action as Next;
use kube::runtime::events::EventType;
use reqwest::Method;
use rhumb_crds::collection::Collection;
use rhumb_crds::vector_database::VectorDatabase;

use super::door::Answer;
use super::plan::{is_own, left_behind, waits};
use super::reconcile::{LOOK_SOON, Outcome, door, has_finalizer, report, set_finalizer};
use crate::context::{Context, Error};

/// What became of the documents.
enum Documents {
    Gone,
    /// Those of another collection that only has the name.
    NotOurs,
}

pub async fn retire(
    collection: &Collection,
    database: Option<&VectorDatabase>,
    context: &Context,
) -> Result<Next, Error> {
    if !has_finalizer(collection) {
        return Ok(Next::await_change());
    }
    let kept = match delete_documents(collection, database, context).await? {
        Ok(Documents::Gone) => None,
        Ok(Documents::NotOurs) => Some(not_ours(collection)),
        Err(outcome) if waits(database, context.now()) => {
            report(collection, outcome, context).await?;
            return Ok(Next::requeue(LOOK_SOON));
        }
        Err(_) => left_behind(collection, database),
    };
    if let Some(note) = kept {
        tracing::warn!(collection = %collection.collection_name(), note, "documents kept");
        let what = ("DocumentsKept", "Delete documents");
        context.event(collection, EventType::Warning, what, note).await;
    }
    set_finalizer(collection, context, false).await?;
    Ok(Next::await_change())
}

async fn delete_documents(
    collection: &Collection,
    database: Option<&VectorDatabase>,
    context: &Context,
) -> Result<Result<Documents, Outcome>, Error> {
    let door = match door(collection, database, context).await? {
        Ok(door) => door,
        Err(waiting) => return Ok(Err(waiting)),
    };
    // A resource that was refused must not take with it what it was refused for.
    match door.call(Method::GET, None).await {
        Ok(found) if !is_own(collection, &found) => return Ok(Ok(Documents::NotOurs)),
        Ok(_) | Err(Answer { status: 404, .. }) => {}
        Err(answer) => return Ok(Err(answer.outcome())),
    }
    Ok(match door.call(Method::DELETE, None).await {
        Ok(_) | Err(Answer { status: 404, .. }) => Ok(Documents::Gone),
        Err(answer) => Err(answer.outcome()),
    })
}

fn not_ours(collection: &Collection) -> String {
    format!(
        "collection {} of VectorDatabase {} was not deleted: it contradicts what this Collection declared, so somebody else made it",
        collection.collection_name(),
        collection.spec.database_ref.name
    )
}
