//! Reads a database and what is around it, does what the plan says, reports.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action as Next;
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource, ResourceExt};
use rhumb_crds::shard::Shard;
use rhumb_crds::vector_database::{Clients, VectorDatabase, VectorDatabaseStatus};
use rhumb_crds::{conditions, names};
use serde_json::{Value, json};

use super::admin::{self, AdminKey};
use super::plan::{Action, Credentials, Sight, plan};
use super::status::{Refusal, status};
use super::{pod, tls};
use crate::cluster;
use crate::context::{Context, Error};

/// Nothing but time reveals a Secret that changed or a certificate that ages: Secrets are
/// not watched, for that would need the right to list them all.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// While something is awaited that may come without an event.
const LOOK_SOON: Duration = Duration::from_secs(5);

pub async fn reconcile(db: Arc<VectorDatabase>, context: Arc<Context>) -> Result<Next, Error> {
    if db.metadata.deletion_timestamp.is_some() {
        // Everything of ours is owned and goes with it; the bucket keeps the data.
        return Ok(Next::await_change());
    }
    let client = &context.client;
    let now = context.now();
    let namespace = db.namespace().unwrap_or_default();
    if !db.spec.paused {
        certificates(client, &db, now).await?;
    }
    let sight = look(&context, &db, &namespace).await?;
    let plan = plan(&sight);
    let (mut refusal, mut failure) = (None, None);
    for action in &plan.actions {
        match execute(client, &namespace, action, now).await {
            Ok(()) => {}
            Err(kube::Error::Api(answer)) if action.is_refused_by(&answer) => {
                refusal.get_or_insert(Refusal::lasting(format!("{action}: {}", answer.message)));
            }
            // The pod or the Shard changed under us; its event brings us back.
            Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => {}
            // The others may be possible, and people are to read why this one is not.  An API
            // server that has just started forbids everything for a moment.
            Err(kube::Error::Api(answer)) if answer.is_forbidden() => {
                if context.has_failed(&*db) {
                    refusal.get_or_insert(Refusal::passing(format!("{action}: {}", answer.message)));
                }
                failure.get_or_insert(kube::Error::Api(answer));
            }
            Err(error) => return Err(error.into()),
        }
    }
    // What was just written is not in sight yet, and neither is what follows from it.
    let waits = sight.admin_key == AdminKey::Due && !db.spec.paused;
    let new = status(&sight, &plan, refusal.as_ref(), now);
    let is_led = conditions::is_true(&new.conditions, conditions::SHARDS_READY);
    let settled = plan.actions.is_empty() && sight.left_behind.is_empty() && !waits && is_led;
    report(&context, &db, &new).await?;
    for (shard, from, to) in &plan.moves {
        let note = format!("shard {shard} moves from {from} to {to}");
        // Events of the same action count as one.
        let action = format!("Move shard {shard} to {to}");
        let what = ("ShardMoved", action.as_str());
        context.event(&*db, EventType::Normal, what, note).await;
    }
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    context.succeeded(&*db);
    Ok(Next::requeue(if settled { LOOK_AGAIN } else { LOOK_SOON }))
}

/// Seconds to wait after the nth failure in a row, shared by all kinds.
pub fn error_policy<K: Resource<DynamicType = ()>>(
    object: Arc<K>,
    error: &Error,
    context: Arc<Context>,
) -> Next {
    let wait = context.failed(object.as_ref());
    tracing::warn!(kind = %K::kind(&()), name = %object.name_any(), namespace = ?object.namespace(), %error, "reconcile failed");
    Next::requeue(wait)
}

async fn look(context: &Context, db: &VectorDatabase, namespace: &str) -> Result<Sight, Error> {
    let client = &context.client;
    let name = db.name_any();
    let params = ListParams::default()
        .labels(&format!("{}={name}", names::DATABASE))
        .match_any();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (live, pods) = try_join(cluster::live(client, namespace, &name), pods.list(&params)).await?;
    let mut sight = Sight {
        db: db.clone(),
        live: cluster::Live::new(),
        left_behind: BTreeSet::new(),
        pods: pods.items,
        credentials: credentials(client, db, namespace).await?,
        admin_key: admin_key(client, db, namespace).await?,
        operator: context.settings.clone(),
    };
    sight.claim(live);
    Ok(sight)
}

async fn credentials(client: &Client, db: &VectorDatabase, namespace: &str) -> kube::Result<Credentials> {
    let Some(credentials) = &db.spec.object_store.credentials else {
        return Ok(Credentials::Unneeded);
    };
    let wanted = &credentials.secret_ref;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(secret) = secrets.get_opt(&wanted.name).await? else {
        return Ok(Credentials::Missing(format!(
            "there is no Secret {}",
            wanted.name
        )));
    };
    let data = secret.data.unwrap_or_default();
    let mut values = Vec::new();
    for key in [&wanted.access_key_id_key, &wanted.secret_access_key_key] {
        match data.get(key) {
            Some(value) => values.push(json!(value)),
            None => {
                return Ok(Credentials::Missing(format!(
                    "Secret {} has no key {key}",
                    wanted.name
                )));
            }
        }
    }
    // The uid keeps equal keys of two databases from having equal fingerprints.
    values.push(json!(db.metadata.uid));
    Ok(Credentials::Found(pod::fingerprint(&Value::Array(values))))
}

/// Made where there is none.  A plain create, which of two operators lets one succeed: a
/// second key would replace what somebody may have read already.
async fn admin_key(client: &Client, db: &VectorDatabase, namespace: &str) -> Result<AdminKey, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = match db.spec.security.clients {
        Clients::Open => None,
        Clients::Secured => secrets.get_opt(&names::admin(&db.name_any())).await?,
    };
    let is_taken = found.as_ref().is_some_and(|secret| !is_own(secret, db));
    let seen = admin::look(db, found.filter(|_| !is_taken).as_ref());
    if seen == AdminKey::Due && !is_taken && !db.spec.paused {
        let secret: Secret = serde_json::from_value(admin::make(db)?).map_err(kube::Error::SerdeError)?;
        let params = PostParams {
            field_manager: Some(cluster::MANAGER.into()),
            ..PostParams::default()
        };
        secrets.create(&params, &secret).await?;
        return Ok(AdminKey::Found);
    }
    Ok(seen)
}

async fn certificates(client: &Client, db: &VectorDatabase, now: Timestamp) -> Result<(), Error> {
    let name = db.name_any();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &db.namespace().unwrap_or_default());
    let own = |secret: &Secret| is_own(secret, db);
    let read = async |name: String| Ok::<_, kube::Error>(secrets.get_opt(&name).await?.filter(own));
    let found = tls::Secrets {
        ca_key: read(names::ca_key(&name)).await?,
        ca: read(names::ca(&name)).await?,
        node: read(names::node_tls(&name)).await?,
    };
    for secret in tls::due(db, &found, now)? {
        cluster::apply(client, &secret).await?;
    }
    Ok(())
}

/// One that a deleted database left behind is not: it will be gone soon.
fn is_own(secret: &Secret, db: &VectorDatabase) -> bool {
    let owners = secret.owner_references();
    owners.is_empty()
        || owners
            .iter()
            .any(|owner| Some(&owner.uid) == db.metadata.uid.as_ref())
}

async fn execute(client: &Client, namespace: &str, action: &Action, now: Timestamp) -> kube::Result<()> {
    match action {
        Action::Create(object) => cluster::create(client, object).await,
        Action::Apply(object) => cluster::apply(client, object).await,
        Action::Delete(object) => cluster::delete(client, object).await,
        Action::OpenGate { pod, uid } => {
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let body = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "uid": uid },
                "status": { "conditions": [{
                    "type": names::SHARDS_WARM, "status": "True", "reason": "Warm",
                    "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
                }] }
            });
            let params = PatchParams::apply(cluster::MANAGER).force();
            pods.patch_status(pod, &params, &Patch::Apply(body))
                .await
                .map(drop)
        }
        Action::SetDeletionCost { pod, uid, cost } => {
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let body = json!({ "metadata": {
                "uid": uid, "annotations": { "controller.kubernetes.io/pod-deletion-cost": cost.to_string() }
            } });
            pods.patch_metadata(pod, &PatchParams::default(), &Patch::Merge(body))
                .await
                .map(drop)
        }
        Action::Forget {
            shard,
            resource_version,
            left,
        } => {
            let shards: Api<Shard> = Api::namespaced(client.clone(), namespace);
            // With the version that was read: no data node's word may be lost.
            let body =
                json!({ "metadata": { "resourceVersion": resource_version }, "status": { "nodes": left } });
            shards
                .patch_status(shard, &PatchParams::default(), &Patch::Merge(body))
                .await
                .map(drop)
        }
    }
}

/// Writes status only when it says something new, and an event for each verdict that turned.
async fn report(context: &Context, db: &VectorDatabase, new: &VectorDatabaseStatus) -> Result<(), Error> {
    let old = db.status.clone().unwrap_or_default();
    if old == *new {
        return Ok(());
    }
    let databases: Api<VectorDatabase> =
        Api::namespaced(context.client.clone(), &db.namespace().unwrap_or_default());
    let name = db.name_any();
    let body = json!({
        "apiVersion": VectorDatabase::api_version(&()), "kind": VectorDatabase::kind(&()),
        "metadata": { "name": name }, "status": new
    });
    let params = PatchParams::apply(cluster::MANAGER).force();
    databases
        .patch_status(&name, &params, &Patch::Apply(body))
        .await?;
    context.turned(db, &old.conditions, &new.conditions).await;
    Ok(())
}
