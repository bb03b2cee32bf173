//! Reads a `Collection`, asks its database, does what the plan says, reports.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action as Next;
use kube::{Api, Resource, ResourceExt};
use rhumb_crds::collection::{Collection, CollectionStatus, ReclaimPolicy};
use rhumb_crds::conditions::{self, Verdict};
use rhumb_crds::names::COLLECTION_FINALIZER;
use rhumb_crds::vector_database::VectorDatabase;
use serde_json::{Value, json};

use super::door::{Answer, Door, Shut};
use super::plan::{Step, plan};
use super::retire::retire;
use crate::cluster::MANAGER;
use crate::context::{Context, Error};

/// Somebody may change a collection over REST: we hear of it by looking.
const LOOK_AGAIN: Duration = Duration::from_secs(120);
pub(super) const LOOK_SOON: Duration = Duration::from_secs(5);

/// What came of it, in words for `Ready`.
pub(super) enum Outcome {
    Ready {
        id: Option<String>,
    },
    Waiting {
        reason: &'static str,
        message: String,
    },
    /// Only another spec helps.
    Refused(String),
}

pub async fn reconcile(collection: Arc<Collection>, context: Arc<Context>) -> Result<Next, Error> {
    let namespace = collection.namespace().unwrap_or_default();
    let databases: Api<VectorDatabase> = Api::namespaced(context.client.clone(), &namespace);
    let database = databases.get_opt(&collection.spec.database_ref.name).await?;
    if collection.metadata.deletion_timestamp.is_some() {
        return retire(&collection, database.as_ref(), &context).await;
    }
    let wants_finalizer = collection.spec.reclaim_policy == ReclaimPolicy::Delete;
    if wants_finalizer != has_finalizer(&collection) {
        set_finalizer(&collection, &context, wants_finalizer).await?;
        return Ok(Next::await_change());
    }
    let outcome = match door(&collection, database.as_ref(), &context).await? {
        Ok(door) => bring_about(&collection, &door).await,
        Err(waiting) => waiting,
    };
    let next = match &outcome {
        Outcome::Waiting { .. } => LOOK_SOON,
        Outcome::Ready { .. } | Outcome::Refused(_) => LOOK_AGAIN,
    };
    report(&collection, outcome, &context).await?;
    context.succeeded(&*collection);
    Ok(Next::requeue(next))
}

fn waiting(reason: &'static str, message: impl Into<String>) -> Outcome {
    Outcome::Waiting {
        reason,
        message: message.into(),
    }
}

/// The way to the collection, once its database serves.
pub(super) async fn door(
    collection: &Collection,
    database: Option<&VectorDatabase>,
    context: &Context,
) -> Result<Result<Door, Outcome>, Error> {
    let name = &collection.spec.database_ref.name;
    let Some(database) = database else {
        return Ok(Err(waiting(
            "DatabaseMissing",
            format!("there is no VectorDatabase {name}"),
        )));
    };
    let status = database.status.clone().unwrap_or_default();
    let (true, Some(endpoint)) = (
        conditions::is_true(&status.conditions, conditions::AVAILABLE),
        status.endpoints.rest,
    ) else {
        return Ok(Err(waiting(
            "DatabaseNotAvailable",
            format!("VectorDatabase {name} does not serve yet"),
        )));
    };
    let opened = Door::open(database, &endpoint, collection.collection_name(), context).await?;
    Ok(opened.map_err(|Shut(what)| waiting("SecretMissing", what)))
}

async fn bring_about(collection: &Collection, door: &Door) -> Outcome {
    let found = match door.call(reqwest::Method::GET, None).await {
        Ok(found) => Some(found),
        Err(Answer { status: 404, .. }) => None,
        Err(answer) => return answer.outcome(),
    };
    let (method, body) = match plan(&collection.spec, found.as_ref()) {
        Step::Nothing => {
            return Outcome::Ready {
                id: id(found.as_ref()),
            };
        }
        Step::Refuse(why) => return Outcome::Refused(why),
        Step::Create(body) => (reqwest::Method::PUT, body),
        Step::Evolve(body) => (reqwest::Method::PATCH, body),
    };
    match door.call(method, Some(body)).await {
        Ok(info) => Outcome::Ready {
            id: id(Some(&info)).or(id(found.as_ref())),
        },
        Err(answer) => answer.outcome(),
    }
}

fn id(info: Option<&Value>) -> Option<String> {
    info?["id"].as_str().map(str::to_owned)
}

impl Answer {
    pub(super) fn outcome(self) -> Outcome {
        match self.status {
            // Busy, racing or briefly without a leader: the same request may succeed later.
            408 | 409 | 429 => waiting("DatabaseBusy", self.detail),
            // Data nodes read a key that was put into the Secret a minute or two later.
            401 | 403 => waiting("KeyRefused", self.detail),
            400..=499 => Outcome::Refused(self.detail),
            _ => waiting("DatabaseNotReachable", self.detail),
        }
    }
}

pub(super) fn has_finalizer(collection: &Collection) -> bool {
    collection.finalizers().iter().any(|f| f == COLLECTION_FINALIZER)
}

pub(super) async fn set_finalizer(collection: &Collection, context: &Context, on: bool) -> Result<(), Error> {
    let mut finalizers: Vec<&str> = collection.finalizers().iter().map(String::as_str).collect();
    finalizers.retain(|f| *f != COLLECTION_FINALIZER);
    if on {
        finalizers.push(COLLECTION_FINALIZER);
    }
    let api: Api<Collection> = Api::namespaced(
        context.client.clone(),
        &collection.namespace().unwrap_or_default(),
    );
    // With the version that was read: somebody else's finalizer must not be lost.
    let body =
        json!({ "metadata": { "resourceVersion": collection.resource_version(), "finalizers": finalizers } });
    match api
        .patch(
            &collection.name_any(),
            &PatchParams::default(),
            &Patch::Merge(body),
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn report(
    collection: &Collection,
    outcome: Outcome,
    context: &Context,
) -> Result<(), Error> {
    let old = collection.status.clone().unwrap_or_default();
    let (verdicts, id) = match outcome {
        Outcome::Ready { id } => (vec![Verdict::new(conditions::READY, true, "AsDeclared", "")], id),
        Outcome::Waiting { reason, message } => (
            vec![
                Verdict::new(conditions::READY, false, reason, message.clone()),
                Verdict::new(conditions::RECONCILING, true, reason, message),
            ],
            old.id.clone(),
        ),
        Outcome::Refused(why) => (
            vec![
                Verdict::new(conditions::READY, false, "Refused", why.clone()),
                Verdict::new(conditions::STALLED, true, "Refused", why),
            ],
            old.id.clone(),
        ),
    };
    let generation = collection.metadata.generation;
    let new = CollectionStatus {
        observed_generation: generation,
        conditions: conditions::merge(&old.conditions, &verdicts, generation, context.now()),
        id,
    };
    if new == old {
        return Ok(());
    }
    let name = collection.name_any();
    let body = json!({
        "apiVersion": Collection::api_version(&()), "kind": Collection::kind(&()),
        "metadata": { "name": name }, "status": new
    });
    let api: Api<Collection> = Api::namespaced(
        context.client.clone(),
        &collection.namespace().unwrap_or_default(),
    );
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(&name, &params, &Patch::Apply(body)).await?;
    context.turned(collection, &old.conditions, &new.conditions).await;
    Ok(())
}
