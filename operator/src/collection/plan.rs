//! What to do about a collection, given what the database says it has.  Pure.

use std::collections::BTreeMap;

use rhumb_crds::collection::{CollectionSpec, Quota};
use serde_json::{Map, Value, json};

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
    let declared: BTreeMap<&String, Value> = spec
        .fields
        .iter()
        .map(|(name, field)| (name, field.to_wire()))
        .collect();
    let Some(found) = found else {
        let mut definition = json!({ "fields": declared, "partitions": spec.partitions });
        if let Some(quota) = spec.quota {
            definition["quota"] = json!(quota);
        }
        return Step::Create(definition);
    };
    if found["partitions"]
        .as_u64()
        .is_some_and(|n| n != u64::from(spec.partitions))
    {
        return Step::Refuse(format!(
            "the collection has {} partitions, and their number cannot be changed",
            found["partitions"]
        ));
    }
    let mut fields = Map::new();
    for (name, wire) in declared {
        match compare(&wire, &found["fields"][name]) {
            Same::Yes => {}
            Same::Missing | Same::Settings => {
                fields.insert(name.clone(), wire);
            }
            Same::No(what) => {
                return Step::Refuse(format!(
                    "field {name} has another {what} in the collection: add another field"
                ));
            }
        }
    }
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
    No(String),
}

fn compare(declared: &Value, found: &Value) -> Same {
    if found.is_null() {
        return Same::Missing;
    }
    let (declared, found) = (spelled_out(declared), spelled_out(found));
    let mut settings = false;
    for (key, value) in declared.as_object().into_iter().flatten() {
        if found[key] == *value {
            continue;
        }
        if key != "index" {
            return Same::No(key.clone());
        }
        settings = true;
    }
    // A list in the collection where the declaration has none.
    if found["list"] != declared["list"] {
        return Same::No("type".into());
    }
    if settings { Same::Settings } else { Same::Yes }
}

/// The three shapes of a field as one.
fn spelled_out(field: &Value) -> Value {
    match field {
        Value::String(name) => json!({ "type": name }),
        Value::Array(items) => json!({ "type": items.first(), "list": true }),
        other => other.clone(),
    }
}
