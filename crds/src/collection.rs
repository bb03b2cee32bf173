//! `Collection`: a schema kept in Git.  The operator creates the collection over REST and
//! adds fields to it; what would lose data is refused, by rules here or by the data node.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::{Message, Rule};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A collection of a database, with its schema.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rhumb.dev",
    version = "v1alpha1",
    kind = "Collection",
    category = "rhumb",
    namespaced,
    status = "CollectionStatus",
    derive = "PartialEq",
    doc = "A collection of a VectorDatabase, with its schema.",
    selectable = ".spec.databaseRef.name",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.databaseRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Id", type_ = "string", json_path = ".status.id", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("has(self.spec.name) || self.metadata.name.size() <= 128 && self.metadata.name.matches('^[a-z0-9][a-z0-9_-]*$')")
        .message("the resource's name is not a collection's name (a-z, 0-9, _ and -, at most 128): set spec.name"),
    validation = once_in_effect("self.spec.databaseRef == oldSelf.spec.databaseRef")
        .field_path(".spec.databaseRef").message("a collection cannot move to another database"),
    validation = once_in_effect(&format!("{} == {}", name("self"), name("oldSelf")))
        .field_path(".spec.name").message("the name of a collection cannot be changed: create another one"),
    validation = unless_refused("self.spec.partitions == oldSelf.spec.partitions")
        .field_path(".spec.partitions").message("the number of partitions cannot be changed"),
    validation = no_field("!(name in self.spec.fields)", "a declared field cannot be removed: its data would be lost"),
    validation = no_field(&changed(&[("type", "''"), ("list", "false")]), "a field keeps its type: add another field"),
    validation = no_field(
        &changed(&[("dim", "0"), ("metric", "'cosine'"), ("element", "'f32'")]),
        "dim, metric and element of a vector cannot be changed: add another field",
    ),
)]
#[serde(rename_all = "camelCase")]
pub struct CollectionSpec {
    pub database_ref: DatabaseRef,
    /// The collection's name in the API; the resource's name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-z0-9][a-z0-9_-]*$"))]
    pub name: Option<String>,
    /// Declared fields by name. Fields may be added; a field keeps its type. Documents may
    /// have attributes that are not declared.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 128))]
    #[x_kube(
        validation = Rule::new("self.all(name, !(name in ['false', 'true', 'null']))")
            .message("an unquoted n, no, off, y, yes, on or ~ is false, true or null to YAML: write the field's name in quotes, like \"n\""),
    )]
    pub fields: BTreeMap<String, Field>,
    #[serde(default = "one_partition")]
    #[schemars(range(min = 1, max = 64))]
    pub partitions: u32,
    /// How much the collection may hold; it can be raised and lowered at any time. Left out,
    /// it stays as it is; `{}` takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// What happens to the documents when this resource is deleted. `Delete` needs the data
    /// nodes: delete the database, if that is to go too, after this.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
}

fn one_partition() -> u32 {
    1
}

/// A rule over changes of a collection that took effect.  Until then nothing is there that
/// could be lost, and a mistake is corrected where it was made.
fn once_in_effect(rule: &str) -> Rule {
    Rule::new(format!(
        "!has(oldSelf.status) || !has(oldSelf.status.id) || ({rule})"
    ))
}

/// The same, but while the database refuses what is declared any other declaration may help.
/// Documents do not depend on it: the operator takes nothing away from what is there.
fn unless_refused(rule: &str) -> Rule {
    once_in_effect(&format!(
        "oldSelf.status.conditions.exists(c, c.type == 'Stalled') || ({rule})"
    ))
}

/// No field that was declared is, under its `name`, one of `these` now.  The message names the
/// first: all of them would cost more than the API server lets a rule cost.
fn no_field(these: &str, message: &str) -> Rule {
    let found = format!("oldSelf.spec.fields.filter(name, {these})");
    unless_refused(&format!("{found}.size() == 0"))
        .field_path(".spec.fields")
        .message(Message::Expression(format!("'{message} (' + {found}[0] + ')'")))
}

/// Fields of which one of the `settings` is another now; each comes with what it is when it
/// is left out.
fn changed(settings: &[(&str, &str)]) -> String {
    let differ = settings.iter().map(|(setting, default)| {
        let path = format!("spec.fields[name].{setting}");
        format!(
            "{} != {}",
            or("self", &path, default),
            or("oldSelf", &path, default)
        )
    });
    let differ: Vec<String> = differ.collect();
    format!("name in self.spec.fields && ({})", differ.join(" || "))
}

/// `orValue()` would be shorter.  The API server takes what comes out of it for endless, and
/// refuses the rule as too costly.
fn or(side: &str, path: &str, default: &str) -> String {
    format!("(has({side}.{path}) ? {side}.{path} : {default})")
}

/// What the collection is called, in an object or in the one before.
fn name(side: &str) -> String {
    or(side, "spec.name", "self.metadata.name")
}

/// What is left out has no bound. Whatever the quota, documents that are there can be
/// overwritten and deleted: only new ones are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// Documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rows: Option<i64>,
    /// Of the base table; documents that came last are not in it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes: Option<i64>,
}

/// A `VectorDatabase` of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseRef {
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// They stay, and a `Collection` of the same name finds them again.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type == 'vector') == has(self.dim)").message("a vector needs dim, and nothing else has one"),
    validation = Rule::new("self.type == 'vector' || !has(self.metric) && !has(self.element) && !has(self.index)")
        .message("metric, element and index are for vectors"),
    validation = Rule::new("self.type == 'text' || !has(self.language)").message("language is for text"),
    validation = Rule::new("!has(self.list) || !self.list || !(self.type in ['vector', 'text', 'json'])")
        .message("there are no lists of vector, text or json"),
)]
pub struct Field {
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Many values of the type in one document.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub list: bool,
    /// Numbers in a vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub dim: Option<u32>,
    /// `cosine` when left out. `hamming` goes with element `binary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// How a number of the vector is kept; `f32` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<Element>,
    /// `auto` when left out; `flat` never approximates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
    /// Of a text; `english` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub language: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    Vector,
    Text,
    String,
    Int,
    Float,
    Bool,
    Timestamp,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    Cosine,
    Dot,
    L2,
    Hamming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    F32,
    F16,
    Int8,
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Index {
    Auto,
    Flat,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectionStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
    /// The collection's id in the bucket; another one after it was deleted and created again.
    /// Until there is one, everything in the spec may be changed; from then on nothing that
    /// would lose data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl Field {
    /// The field as `PUT /v1/collections/{name}` takes it.
    pub fn to_wire(&self) -> Value {
        let mut wire = json!({ "type": self.kind });
        let settings = [
            ("dim", json!(self.dim)),
            ("metric", json!(self.metric)),
            ("element", json!(self.element)),
            ("index", json!(self.index)),
            ("language", json!(self.language)),
        ];
        for (name, value) in settings.into_iter().filter(|(_, value)| !value.is_null()) {
            wire[name] = value;
        }
        if self.list { json!([self.kind]) } else { wire }
    }
}

impl Collection {
    /// Its name in the API.
    pub fn collection_name(&self) -> &str {
        let own = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.name.as_deref().unwrap_or(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_sent_in_the_shapes_of_the_api() {
        let field = |value| serde_json::from_value::<Field>(value).expect("a field").to_wire();
        assert_eq!(
            field(json!({"type": "vector", "dim": 3, "metric": "l2"})),
            json!({"type": "vector", "dim": 3, "metric": "l2"})
        );
        assert_eq!(field(json!({"type": "string", "list": true})), json!(["string"]));
        assert_eq!(field(json!({"type": "timestamp"})), json!({"type": "timestamp"}));
    }
}
