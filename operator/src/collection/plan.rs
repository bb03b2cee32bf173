//! What to do about a collection, given what the database says it has.  Pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rhumb_crds::collection::{Collection, CollectionSpec, Quota};
use rhumb_crds::vector_database::VectorDatabase;
use serde_json::{Map, Value, json};

/// As long as data nodes have to end, unless their database says otherwise.
const LAST_CHANCE: SignedDuration = SignedDuration::from_secs(30);

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The body of a `PUT`.
    Create(Value),
    /// The body of a `PATCH` that adds fields, changes settings or the quota.
    Evolve(Value),
    /// Doing it would lose data.
    Refuse(String),
    Nothing,
}

pub fn plan(spec: &CollectionSpec, found: Option<&Value>) -> Step {
    let Some(found) = found else {
        return Step::Create(definition(spec));
    };
    let contradictions = contradictions(spec, found);
    if !contradictions.is_empty() {
        return Step::Refuse(contradictions.join("; "));
    }
    let fields: Map<String, Value> = declared(spec)
        .filter(|(name, wire)| !matches!(compare(wire, &found["fields"][name]), Same::Yes))
        .map(|(name, wire)| (name.clone(), wire))
        .collect();
    let mut patch = Map::new();
    if !fields.is_empty() {
        patch.insert("fields".to_owned(), fields.into());
    }
    if let Some(quota) = spec.quota.filter(|quota| *quota != quota_of(found)) {
        patch.insert("quota".to_owned(), json!(quota));
    }
    match patch.is_empty() {
        true => Step::Nothing,
        false => Step::Evolve(patch.into()),
    }
}

/// Whether the collection is the one that this resource brought about or would take over, and
/// not one that only has its name.
pub fn is_own(collection: &Collection, found: &Value) -> bool {
    let known = id_in_effect(collection);
    known.is_some() && known == found["id"].as_str() || contradictions(&collection.spec, found).is_empty()
}

/// Whether a collection that goes waits for its documents to be deleted.  The data nodes of a
/// database that is being deleted end, sooner or later: they are asked while they may answer.
pub fn waits(database: Option<&VectorDatabase>, now: Timestamp) -> bool {
    let Some(database) = database else { return false };
    let deleted = database.metadata.deletion_timestamp.as_ref();
    deleted.is_none_or(|since| now.duration_since(since.0) < LAST_CHANCE)
}

/// What people are told when the database went first.  A collection that never took effect has
/// no documents.
pub fn left_behind(collection: &Collection, database: Option<&VectorDatabase>) -> Option<String> {
    id_in_effect(collection)?;
    let name = &collection.spec.database_ref.name;
    let place = match database.map(|database| &database.spec.object_store) {
        None => format!("the bucket of VectorDatabase {name}"),
        Some(store) => match &store.prefix {
            None => format!("bucket {}", store.bucket),
            Some(prefix) => format!("bucket {} below {prefix}", store.bucket),
        },
    };
    Some(format!(
        "the documents of collection {} were not deleted, for VectorDatabase {name} went first: they are still in {place}. \
         To delete them apply both again, and delete the Collection before the VectorDatabase",
        collection.collection_name()
    ))
}

fn id_in_effect(collection: &Collection) -> Option<&str> {
    collection.status.as_ref()?.id.as_deref()
}

fn declared(spec: &CollectionSpec) -> impl Iterator<Item = (&String, Value)> {
    spec.fields.iter().map(|(name, field)| (name, field.to_wire()))
}

fn definition(spec: &CollectionSpec) -> Value {
    let fields: BTreeMap<&String, Value> = declared(spec).collect();
    let mut definition = json!({ "fields": fields, "partitions": spec.partitions });
    if let Some(quota) = spec.quota {
        definition["quota"] = json!(quota);
    }
    definition
}

/// What the collection can never be, each with the ways out.
fn contradictions(spec: &CollectionSpec, found: &Value) -> Vec<String> {
    let there = found["partitions"].as_u64();
    let partitions = there.filter(|there| *there != u64::from(spec.partitions));
    let partitions = partitions.map(|there| {
        format!(
            "the collection has {there} partitions, not {}, and their number cannot be changed: declare {there}, or another name",
            spec.partitions
        )
    });
    let fields = declared(spec).filter_map(|(name, wire)| match compare(&wire, &found["fields"][name]) {
        Same::No(what) => Some(format!(
            "field {name} has another {what}: declare it as it is there, or add another field"
        )),
        Same::Yes | Same::Missing | Same::Settings => None,
    });
    partitions.into_iter().chain(fields).collect()
}

/// None is shown where there is none.
fn quota_of(found: &Value) -> Quota {
    let bound = |name: &str| found["quota"][name].as_i64();
    Quota {
        rows: bound("rows"),
        bytes: bound("bytes"),
    }
}

enum Same {
    Yes,
    Missing,
    /// They differ in what may be changed.
    Settings,
    /// In what else, in words.
    No(String),
}

fn compare(declared: &Value, found: &Value) -> Same {
    if found.is_null() {
        return Same::Missing;
    }
    let (declared, found) = (spelled_out(declared), spelled_out(found));
    if kind(&declared) != kind(&found) {
        return differ("type", &kind(&declared), &kind(&found));
    }
    let mut settings = false;
    for (key, value) in declared.as_object().into_iter().flatten() {
        match key.as_str() {
            _ if found[key] == *value => {}
            "index" => settings = true,
            key => return differ(key, &plain(value), &plain(&found[key])),
        }
    }
    if settings { Same::Settings } else { Same::Yes }
}

fn differ(what: &str, declared: &str, found: &str) -> Same {
    Same::No(format!("{what} in the collection ({found}, not {declared})"))
}

/// Type and list are one thing to people.
fn kind(field: &Value) -> String {
    let of = if field["list"] == true { "list of " } else { "" };
    format!("{of}{}", plain(&field["type"]))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The three shapes of a field as one.
fn spelled_out(field: &Value) -> Value {
    match field {
        Value::String(name) => json!({ "type": name }),
        Value::Array(items) => json!({ "type": items.first(), "list": true }),
        other => other.clone(),
    }
}
