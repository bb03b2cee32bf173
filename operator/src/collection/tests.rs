//! Reconciles over an API server in memory and a database that speaks HTTP on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::put;
use axum::{Json, Router};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rhumb_crds::{Collection, VectorDatabase, conditions};
use rhumb_seams::{Clock, OnExit, Tasks};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::plan::{Step, left_behind, plan, waits};
use super::reconcile;
use crate::context::{Context, Settings};
use rhumb_fake_api::FakeApi;

mod secured;

const RHUMB: &str = "/apis/rhumb.dev/v1alpha1/namespaces/prod";

/// Collections by name, and the requests that changed them.
#[derive(Clone, Default)]
struct Database(Arc<Mutex<Kept>>);

type Kept = (BTreeMap<String, Value>, Vec<String>);

impl Database {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Value>, &mut Vec<String>) -> T) -> T {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (collections, log) = &mut *state;
        act(collections, log)
    }

    async fn listen(&self, tasks: &Tasks) -> String {
        let get = |State(db): State<Self>, Path(name): Path<String>| async move {
            db.with(|all, _| match all.get(&name) {
                Some(found) => (StatusCode::OK, Json(found.clone())),
                None => (
                    StatusCode::NOT_FOUND,
                    Json(json!({ "code": "collection_not_found" })),
                ),
            })
        };
        let create = |State(db): State<Self>, Path(name): Path<String>, Json(body): Json<Value>| async move {
            if name == "refused" {
                let problem = json!({ "detail": "this language is not known" });
                return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem));
            }
            db.with(|all, log| {
                log.push(format!("PUT {name} {body}"));
                let info = json!({ "name": name, "id": "01ID", "fields": body["fields"], "partitions": body["partitions"] });
                all.insert(name, info.clone());
                (StatusCode::CREATED, Json(info))
            })
        };
        let patch = |State(db): State<Self>, Path(name): Path<String>, Json(body): Json<Value>| async move {
            db.with(|all, log| {
                log.push(format!("PATCH {name} {body}"));
                let found = all.get_mut(&name).expect("there");
                for (field, value) in body["fields"].as_object().expect("fields") {
                    found["fields"][field] = value.clone();
                }
                Json(found.clone())
            })
        };
        let delete = |State(db): State<Self>, Path(name): Path<String>| async move {
            db.with(|all, log| {
                log.push(format!("DELETE {name}"));
                if all.remove(&name).is_some() {
                    StatusCode::NO_CONTENT
                } else {
                    StatusCode::NOT_FOUND
                }
            })
        };
        let routes = put(create).get(get).patch(patch).delete(delete);
        let app = Router::new()
            .route("/v1/collections/{name}", routes)
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tasks.spawn("database", OnExit::Fine, async move {
            axum::serve(listener, app).await
        });
        format!("http://{address}")
    }
}

struct World {
    api: FakeApi,
    database: Database,
    context: Arc<Context>,
    _tasks: Tasks,
}

impl World {
    async fn new(spec: Value) -> Self {
        let api = FakeApi::default();
        let (database, tasks) = (Database::default(), Tasks::new());
        let endpoint = database.listen(&tasks).await;
        api.put(
            &format!("{RHUMB}/vectordatabases/small"),
            json!({
                "apiVersion": "rhumb.dev/v1alpha1", "kind": "VectorDatabase", "metadata": { "name": "small" },
                "spec": { "objectStore": { "bucket": "vectors" } },
                "status": { "endpoints": { "rest": endpoint }, "conditions": [available("True")] }
            }),
        );
        api.put(
            &format!("{RHUMB}/collections/words"),
            json!({
                "apiVersion": "rhumb.dev/v1alpha1", "kind": "Collection", "metadata": { "name": "words" },
                "spec": spec
            }),
        );
        let settings = Settings {
            namespace: "rhumb-system".into(),
            data_node_image: "rhumb:1".into(),
            pull_policy: None,
        };
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let context = Context::new(
            api.client(),
            settings,
            http,
            Clock::starting_at(1_800_000_000_000),
        );
        Self {
            api,
            database,
            context: Arc::new(context),
            _tasks: tasks,
        }
    }

    fn get(&self) -> Value {
        self.api
            .get(&format!("{RHUMB}/collections/words"))
            .expect("the collection")
    }

    async fn settle(&self) {
        for _ in 0..3 {
            let collection: Collection = serde_json::from_value(self.get()).expect("a collection");
            reconcile(Arc::new(collection), self.context.clone())
                .await
                .expect("it reconciles");
        }
    }

    fn requests(&self) -> Vec<String> {
        self.database.with(|_, log| std::mem::take(log))
    }

    fn edit(&self, edit: impl FnOnce(&mut Value)) {
        self.api.edit(&format!("{RHUMB}/collections/words"), edit);
    }

    /// Somebody deletes the resource.
    async fn retire(&self) {
        self.edit(|collection| collection["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
        self.settle().await;
    }

    /// The database was deleted `when` seconds from now, and is still there.
    fn lose_database(&self, when: i64) {
        let now = self.context.now() + SignedDuration::from_secs(when);
        self.api.edit(&format!("{RHUMB}/vectordatabases/small"), |db| {
            db["metadata"]["deletionTimestamp"] = now.to_string().into();
            db["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
        });
    }

    /// Nobody answers at its endpoint any more.
    fn lose_nodes(&self) {
        self.api.edit(&format!("{RHUMB}/vectordatabases/small"), |db| {
            db["status"]["endpoints"]["rest"] = "http://127.0.0.1:1".into();
        });
    }

    fn is_held(&self) -> bool {
        let finalizers = self.get()["metadata"]["finalizers"].clone();
        finalizers.as_array().is_some_and(|held| !held.is_empty())
    }

    /// The notes of warnings.
    fn warnings(&self) -> Vec<String> {
        let paths = self.api.paths();
        let events = paths.iter().filter(|path| path.contains("/events/"));
        let events = events.map(|path| self.api.get(path).expect("listed"));
        let warnings = events.filter(|event| event["type"] == "Warning");
        warnings
            .map(|event| event["note"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn ready(&self) -> (String, String, String) {
        let collection: Collection = serde_json::from_value(self.get()).expect("a collection");
        let status = collection.status.expect("a status");
        let ready = conditions::find(&status.conditions, conditions::READY)
            .expect("Ready")
            .clone();
        (ready.status, ready.reason, ready.message)
    }
}

fn available(status: &str) -> Value {
    json!({ "type": "Available", "status": status, "reason": "X", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

fn spec() -> Value {
    json!({ "databaseRef": { "name": "small" }, "fields": { "v": { "type": "vector", "dim": 3 } } })
}

#[tokio::test]
async fn a_collection_is_created_once_and_grows() {
    let world = World::new(spec()).await;
    world.settle().await;
    assert_eq!(
        world.requests(),
        [r#"PUT words {"fields":{"v":{"dim":3,"type":"vector"}},"partitions":1}"#]
    );
    assert_eq!(world.ready().0, "True");
    assert_eq!(world.get()["status"]["id"], "01ID");
    world.edit(|collection| collection["spec"]["fields"]["n"] = json!({ "type": "int" }));
    world.settle().await;
    assert_eq!(
        world.requests(),
        [r#"PATCH words {"fields":{"n":{"type":"int"}}}"#]
    );
    assert_eq!(world.ready().0, "True");
}

#[tokio::test]
async fn a_collection_waits_for_its_database() {
    let world = World::new(spec()).await;
    world.api.edit(&format!("{RHUMB}/vectordatabases/small"), |db| {
        db["status"]["conditions"] = json!([available("False")]);
    });
    world.settle().await;
    assert_eq!(world.ready().1, "DatabaseNotAvailable");
    world.api.remove(&format!("{RHUMB}/vectordatabases/small"));
    world.settle().await;
    assert_eq!(world.ready().1, "DatabaseMissing");
    assert_eq!(world.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_database_refuses_is_quoted_and_stalls() {
    let mut refused = spec();
    refused["name"] = "refused".into();
    let world = World::new(refused).await;
    world.settle().await;
    let ready = world.ready();
    assert_eq!(
        (ready.1.as_str(), ready.2.as_str()),
        ("Refused", "this language is not known")
    );
    assert!(
        world.get()["status"]["conditions"]
            .to_string()
            .contains("Stalled")
    );
}

#[tokio::test]
async fn documents_stay_unless_the_policy_says_delete() {
    for (policy, requests) in [("Retain", vec![]), ("Delete", vec!["DELETE words".to_owned()])] {
        let world = World::new(reclaimed(policy)).await;
        world.settle().await;
        assert_eq!(world.is_held(), policy == "Delete");
        world.requests();
        world.retire().await;
        assert_eq!(world.requests(), requests);
        assert!(!world.is_held());
        assert_eq!(world.warnings(), Vec::<String>::new());
    }
}

fn reclaimed(policy: &str) -> Value {
    let mut spec = spec();
    spec["reclaimPolicy"] = policy.into();
    spec
}

#[tokio::test]
async fn a_collection_whose_database_is_gone_goes_too_and_says_what_stays() {
    let world = World::new(reclaimed("Delete")).await;
    world.settle().await;
    world.api.remove(&format!("{RHUMB}/vectordatabases/small"));
    world.retire().await;
    assert!(!world.is_held());
    let warnings = world.warnings();
    assert!(
        warnings[0].contains("still in the bucket of VectorDatabase small"),
        "{warnings:?}"
    );
}

/// One commit takes both away: Argo CD deletes in the foreground, and data nodes may still
/// answer.
#[tokio::test]
async fn documents_go_while_the_data_nodes_of_a_deleted_database_answer() {
    let world = World::new(reclaimed("Delete")).await;
    world.settle().await;
    world.requests();
    world.lose_database(-3600);
    world.retire().await;
    assert_eq!(world.requests(), ["DELETE words"]);
    assert!(!world.is_held());
    assert_eq!(world.warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn data_nodes_that_will_not_come_back_are_waited_for_only_so_long() {
    let world = World::new(reclaimed("Delete")).await;
    world.settle().await;
    world.lose_nodes();
    world.retire().await;
    assert!(world.is_held(), "its database lives");
    world.lose_database(-29);
    world.settle().await;
    assert!(world.is_held(), "they may still answer");
    world.lose_database(-30);
    world.settle().await;
    assert!(!world.is_held());
    assert!(world.warnings().concat().contains("still in bucket vectors"));
}

#[test]
fn nobody_is_told_of_documents_that_never_were() {
    let object = |status: Value| -> Collection {
        serde_json::from_value(json!({
            "apiVersion": "rhumb.dev/v1alpha1", "kind": "Collection", "metadata": { "name": "words" },
            "spec": spec(), "status": status
        }))
        .expect("a collection")
    };
    let database: VectorDatabase = serde_json::from_value(json!({
        "apiVersion": "rhumb.dev/v1alpha1", "kind": "VectorDatabase", "metadata": { "name": "small" },
        "spec": { "objectStore": { "bucket": "vectors", "prefix": "a/b" } }
    }))
    .expect("a database");
    assert_eq!(left_behind(&object(Value::Null), Some(&database)), None);
    let note = left_behind(&object(json!({ "id": "01ID" })), Some(&database)).expect("there are some");
    assert!(note.contains("bucket vectors below a/b"), "{note}");
    assert!(!waits(None, Timestamp::UNIX_EPOCH));
    assert!(waits(Some(&database), Timestamp::UNIX_EPOCH));
}

/// A resource that was refused, because something else has its name, takes nothing with it.
#[tokio::test]
async fn what_a_resource_contradicts_outlives_it() {
    let world = World::new(reclaimed("Delete")).await;
    let theirs = json!({ "id": "01THEIRS", "partitions": 1, "fields": { "v": "string" } });
    world
        .database
        .with(|all, _| all.insert("words".into(), theirs.clone()));
    world.settle().await;
    assert_eq!(world.ready().1, "Refused");
    world.retire().await;
    assert_eq!(world.requests(), Vec::<String>::new());
    assert_eq!(
        world.database.with(|all, _| all.get("words").cloned()),
        Some(theirs)
    );
    assert!(!world.is_held());
    assert!(world.warnings().concat().contains("was not deleted"));
}

/// The operator ended after it had created the collection and before it could say so, and the
/// spec, which nothing protected yet, is another one now.
#[tokio::test]
async fn a_spec_that_changed_before_its_collection_was_known_is_refused_until_it_fits() {
    let world = World::new(spec()).await;
    world.settle().await;
    world.edit(|collection| {
        collection["status"] = Value::Null;
        collection["spec"]["fields"]["v"]["dim"] = 4.into();
        collection["spec"]["partitions"] = 2.into();
    });
    world.requests();
    world.settle().await;
    assert_eq!(world.requests(), Vec::<String>::new());
    let (_, reason, message) = world.ready();
    assert_eq!(reason, "Refused");
    assert_eq!(
        message,
        "the collection has 1 partitions, not 2, and their number cannot be changed: declare 1, or another name; \
         field v has another dim in the collection (3, not 4): declare it as it is there, or add another field"
    );
    assert_eq!(world.get()["status"]["id"], Value::Null, "it can be corrected");
    world.edit(|collection| collection["spec"] = spec());
    world.settle().await;
    assert_eq!(world.requests(), Vec::<String>::new());
    assert_eq!(
        (world.ready().0.as_str(), &world.get()["status"]["id"]),
        ("True", &json!("01ID"))
    );
}

#[test]
fn the_three_shapes_of_a_field_are_one() {
    let spec = serde_json::from_value(json!({
        "databaseRef": { "name": "small" },
        "fields": { "a": { "type": "string" }, "b": { "type": "int", "list": true }, "v": { "type": "vector", "dim": 3 } }
    }))
    .expect("a spec");
    let spelled = json!({ "partitions": 1, "fields": {
        "a": "string", "b": ["int"],
        "v": { "type": "vector", "dim": 3, "metric": "cosine", "element": "f32", "index": "auto" },
        "seen_in_documents": "float"
    } });
    assert_eq!(plan(&spec, Some(&spelled)), Step::Nothing);
}

#[test]
fn what_would_lose_data_is_refused_and_settings_are_patched() {
    let spec = |field: Value| {
        serde_json::from_value(json!({ "databaseRef": { "name": "small" }, "fields": { "f": field } }))
            .expect("a spec")
    };
    let found = |field: Value| json!({ "partitions": 1, "fields": { "f": field } });
    let vector = |dim: u32, index: &str| json!({ "type": "vector", "dim": dim, "index": index });
    for (declared, there, differ) in [
        (
            json!({ "type": "int" }),
            json!("string"),
            "type in the collection (string, not int)",
        ),
        (
            json!({ "type": "string" }),
            json!(["string"]),
            "type in the collection (list of string, not string)",
        ),
        (
            vector(3, "auto"),
            vector(4, "auto"),
            "dim in the collection (4, not 3)",
        ),
    ] {
        let why = format!("field f has another {differ}: declare it as it is there, or add another field");
        assert_eq!(plan(&spec(declared), Some(&found(there))), Step::Refuse(why));
    }
    let split = json!({ "partitions": 2, "fields": {} });
    assert!(matches!(
        plan(&spec(json!({ "type": "int" })), Some(&split)),
        Step::Refuse(_)
    ));
    assert_eq!(
        plan(&spec(vector(3, "flat")), Some(&found(vector(3, "auto")))),
        Step::Evolve(json!({ "fields": { "f": vector(3, "flat") } }))
    );
}

#[test]
fn a_quota_is_set_changed_and_left_alone() {
    let spec = |quota: Value| {
        let mut spec = spec();
        spec["quota"] = quota;
        serde_json::from_value(spec).expect("a spec")
    };
    let found = |quota: Value| {
        let fields = json!({ "v": { "type": "vector", "dim": 3 } });
        json!({ "partitions": 1, "fields": fields, "quota": quota })
    };
    let ten = json!({ "rows": 10 });
    let Step::Create(definition) = plan(&spec(ten.clone()), None) else {
        panic!("it is not there yet")
    };
    assert_eq!(definition["quota"], ten);
    let of = |declared: &Value, there: &Value| plan(&spec(declared.clone()), Some(&found(there.clone())));
    assert_eq!(of(&ten, &ten), Step::Nothing);
    assert_eq!(of(&Value::Null, &ten), Step::Nothing);
    assert_eq!(of(&json!({}), &Value::Null), Step::Nothing);
    for (declared, there) in [
        (ten.clone(), Value::Null),
        (ten.clone(), json!({ "rows": 10, "bytes": 5 })),
        (json!({}), ten),
    ] {
        assert_eq!(of(&declared, &there), Step::Evolve(json!({ "quota": declared })));
    }
}
