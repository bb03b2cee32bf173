//! The CEL rules, as the API server runs them.

use kube::core::cel::Validator;
use rhumb_crds::all;
use rhumb_crds::vector_database::Clients;
use serde::Deserialize;
use serde_json::{Value, json};

fn schema(kind: &str) -> Value {
    let crd = all()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .expect("a kind of ours");
    json!(
        crd.spec.versions[0]
            .schema
            .as_ref()
            .and_then(|s| s.open_api_v3_schema.as_ref())
    )
}

/// What a create, or an update from `old`, is refused with.
fn refused(object: &Value, old: Option<&Value>) -> Vec<String> {
    let kind = object["kind"].as_str().expect("a kind");
    let verdict = Validator::new().validate_with_defaults(&schema(kind), object, old);
    verdict
        .err()
        .map(|errors| errors.into_vec().iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

fn database() -> Value {
    json!({
        "apiVersion": "rhumb.dev/v1alpha1", "kind": "VectorDatabase", "metadata": { "name": "small" },
        "spec": { "objectStore": { "bucket": "rhumb", "credentials": { "secretRef": { "name": "s3" } } } }
    })
}

fn collection() -> Value {
    json!({
        "apiVersion": "rhumb.dev/v1alpha1", "kind": "Collection", "metadata": { "name": "words" },
        "spec": {
            "databaseRef": { "name": "small" },
            "fields": { "v": { "type": "vector", "dim": 3 }, "tags": { "type": "string", "list": true } }
        }
    })
}

/// A collection that the operator brought about.
fn in_effect() -> Value {
    let status = json!({ "id": "01ID", "conditions": [condition("Ready", "AsDeclared")] });
    with(collection(), "status", status)
}

fn condition(kind: &str, reason: &str) -> Value {
    let since = "2026-01-01T00:00:00Z";
    json!({ "type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": since })
}

/// `object` with `value` at `path`.
fn with(mut object: Value, path: &str, value: Value) -> Value {
    let mut at = &mut object;
    for key in path.split('.') {
        at = &mut at[key];
    }
    *at = value;
    object
}

fn assert_refused(object: Value, old: Option<&Value>, words: &str) {
    let found = refused(&object, old);
    assert!(
        found.iter().any(|error| error.contains(words)),
        "{found:?} does not say {words:?}"
    );
}

#[track_caller]
fn assert_accepted(object: Value, old: Option<&Value>) {
    assert_eq!(refused(&object, old), Vec::<String>::new());
}

#[test]
fn the_plainest_objects_are_accepted() {
    assert_accepted(database(), None);
    assert_accepted(database(), Some(&database()));
    assert_accepted(collection(), None);
    assert_accepted(collection(), Some(&collection()));
}

#[test]
fn clients_are_secured_or_open_and_nothing_between() {
    for clients in ["Secured", "Open"] {
        assert_accepted(with(database(), "spec.security.clients", json!(clients)), None);
    }
    let stored = rhumb_crds::VectorDatabase::deserialize(database()).expect("a database");
    assert_eq!(stored.spec.security.clients, Clients::Secured, "without a word");
    for clients in [json!("open"), json!("Everybody"), json!(""), json!(false)] {
        let other = with(database(), "spec.security.clients", clients.clone());
        let parsed = rhumb_crds::VectorDatabase::deserialize(other);
        assert!(parsed.is_err(), "{clients} is taken");
    }
    let schema = &schema("VectorDatabase")["properties"]["spec"]["properties"]["security"];
    assert_eq!(schema["default"], json!({ "clients": "Secured" }));
    assert_eq!(
        schema["properties"]["clients"]["enum"],
        json!(["Secured", "Open"])
    );
}

#[test]
fn a_name_that_is_no_service_name_is_refused() {
    for name in ["1st", "a.b", &"x".repeat(41)] {
        assert_refused(with(database(), "metadata.name", json!(name)), None, "Service");
    }
    assert_accepted(with(database(), "metadata.name", json!("x".repeat(40))), None);
}

#[test]
fn what_names_the_data_cannot_change() {
    let old = database();
    let bucket = with(old.clone(), "spec.objectStore.bucket", json!("other"));
    assert_refused(bucket, Some(&old), "cannot be changed");
    let prefix = with(old.clone(), "spec.objectStore.prefix", json!("a"));
    assert_refused(prefix.clone(), Some(&old), "cannot be changed");
    assert_refused(old.clone(), Some(&prefix), "cannot be changed");
    assert_accepted(
        with(old.clone(), "spec.objectStore.endpoint", json!("http://s3:9000")),
        Some(&old),
    );
}

#[test]
fn credentials_come_from_one_place() {
    let identity = json!({ "serviceAccountAnnotations": { "a": "b" } });
    let both = with(database(), "spec.objectStore.workloadIdentity", identity);
    assert_refused(both, None, "not both");
}

#[test]
fn the_number_of_shards_is_for_life_also_when_it_is_the_default() {
    let old = with(database(), "spec.sharding", json!({ "count": 4, "followers": 1 }));
    let more = with(old.clone(), "spec.sharding.count", json!(8));
    assert_refused(more, Some(&old), "number of shards");
    assert_accepted(with(old.clone(), "spec.sharding.followers", json!(2)), Some(&old));
    assert_accepted(database(), Some(&old));
}

#[test]
fn a_lease_outlasts_its_renewal_and_that_its_retry() {
    let lease = |duration: i64, renew: i64, retry: i64| {
        let lease = json!({ "durationSeconds": duration, "renewDeadlineMilliseconds": renew, "retryPeriodMilliseconds": retry });
        with(database(), "spec.lease", lease)
    };
    assert_accepted(lease(4, 2500, 800), None);
    assert_refused(lease(2, 2500, 800), None, "longer");
    assert_refused(lease(4, 4000, 800), None, "longer");
    assert_refused(lease(4, 900, 800), None, "longer");
    // One field alone is judged together with the defaults of the others.
    assert_refused(
        with(database(), "spec.lease", json!({ "durationSeconds": 2 })),
        None,
        "longer",
    );
}

#[test]
fn a_schema_may_grow_and_never_lose() {
    let old = in_effect();
    assert_accepted(
        with(old.clone(), "spec.fields.new", json!({ "type": "int" })),
        Some(&old),
    );
    let without = with(
        old.clone(),
        "spec.fields",
        json!({ "v": { "type": "vector", "dim": 3 } }),
    );
    assert_refused(without, Some(&old), "its data would be lost (tags)");
    let dim = with(old.clone(), "spec.fields.v.dim", json!(4));
    assert_refused(dim, Some(&old), "dim, metric and element");
    let kind = with(
        old.clone(),
        "spec.fields.tags",
        json!({ "type": "int", "list": true }),
    );
    assert_refused(kind, Some(&old), "keeps its type");
    let single = with(old.clone(), "spec.fields.tags", json!({ "type": "string" }));
    assert_refused(single, Some(&old), "keeps its type");
    // The default spelled out is no change.
    assert_accepted(
        with(old.clone(), "spec.fields.v.metric", json!("cosine")),
        Some(&old),
    );
    assert_accepted(
        with(old.clone(), "spec.fields.v.index", json!("flat")),
        Some(&old),
    );
}

#[test]
fn settings_belong_to_their_types() {
    let field = |value: Value| with(collection(), "spec.fields.f", value);
    assert_refused(field(json!({ "type": "vector" })), None, "needs dim");
    assert_refused(field(json!({ "type": "int", "dim": 3 })), None, "needs dim");
    assert_refused(
        field(json!({ "type": "int", "metric": "dot" })),
        None,
        "for vectors",
    );
    assert_refused(
        field(json!({ "type": "int", "language": "english" })),
        None,
        "for text",
    );
    assert_refused(field(json!({ "type": "json", "list": true })), None, "no lists");
}

#[test]
fn a_quota_goes_up_and_down_and_away() {
    let ten = with(collection(), "spec.quota", json!({ "rows": 10 }));
    let five = with(collection(), "spec.quota", json!({ "rows": 5, "bytes": 1 }));
    assert_accepted(ten.clone(), Some(&collection()));
    assert_accepted(five.clone(), Some(&ten));
    assert_accepted(ten, Some(&five));
    assert_accepted(with(collection(), "spec.quota", json!({})), Some(&five));
    assert_accepted(collection(), Some(&five));
}

/// Each is refused of a collection in effect.
fn changes(old: &Value) -> [(Value, &'static str); 6] {
    let change = |path: &str, value: Value| with(old.clone(), path, value);
    let vector = json!({ "v": { "type": "vector", "dim": 3 } });
    [
        (
            change("spec.databaseRef.name", json!("other")),
            "another database",
        ),
        (change("spec.name", json!("other")), "name of a collection"),
        (change("spec.partitions", json!(2)), "number of partitions"),
        (change("spec.fields", vector), "cannot be removed"),
        (change("spec.fields.tags.type", json!("int")), "keeps its type"),
        (change("spec.fields.v.dim", json!(4)), "dim, metric and element"),
    ]
}

#[test]
fn a_collection_stays_where_it_is() {
    let old = in_effect();
    for (changed, why) in changes(&old) {
        assert_refused(changed, Some(&old), why);
    }
    // The default spelled out is no change.
    assert_accepted(with(old.clone(), "spec.name", json!("words")), Some(&old));
    assert_refused(with(old, "metadata.name", json!("a.b")), None, "spec.name");
}

#[test]
fn until_it_takes_effect_a_mistake_is_corrected_where_it_was_made() {
    let refused = json!({ "conditions": [condition("Stalled", "Refused")] });
    for old in [collection(), with(collection(), "status", refused)] {
        for (changed, _) in changes(&old) {
            assert_accepted(changed, Some(&old));
        }
    }
}

/// A field that the database refuses goes with the revert; the documents stay where they are.
#[test]
fn what_is_refused_is_corrected_too_and_stays_in_its_database() {
    let old = with(
        in_effect(),
        "status.conditions",
        json!([condition("Stalled", "Refused")]),
    );
    let [elsewhere, renamed, corrections @ ..] = changes(&old);
    for (moved, why) in [elsewhere, renamed] {
        assert_refused(moved, Some(&old), why);
    }
    for (corrected, _) in corrections {
        assert_accepted(corrected, Some(&old));
    }
}

/// YAML of 1.1, which kubectl and Argo CD read, has more booleans than one thinks of.
#[test]
fn a_field_whose_name_was_not_quoted_is_refused() {
    for name in ["false", "true", "null"] {
        let object = with(
            collection(),
            &format!("spec.fields.{name}"),
            json!({ "type": "int" }),
        );
        assert_refused(object, None, "name in quotes");
    }
    for name in ["n", "y", "falsehood", "True"] {
        let object = with(
            collection(),
            &format!("spec.fields.{name}"),
            json!({ "type": "int" }),
        );
        assert_accepted(object, None);
    }
}
