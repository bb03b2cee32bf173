//! What the API server itself refuses, in words that name the field.  Nothing is stored but
//! one hibernated object per update rule.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::harness::database::put;

mod collection;
mod database;
mod rights;

pub fn a_database(changes: &[(&str, Value)]) -> Value {
    let mut object = json!({
        "apiVersion": "rhumb.dev/v1alpha1", "kind": "VectorDatabase",
        "metadata": { "name": "admitted", "namespace": "default" },
        "spec": { "objectStore": { "bucket": "rhumb", "credentials": { "secretRef": { "name": "s3" } } } }
    });
    for (path, value) in changes {
        put(&mut object, path, value.clone());
    }
    object
}

pub fn a_collection(changes: &[(&str, Value)]) -> Value {
    let mut object = json!({
        "apiVersion": "rhumb.dev/v1alpha1", "kind": "Collection",
        "metadata": { "name": "admitted", "namespace": "default" },
        "spec": {
            "databaseRef": { "name": "nowhere" },
            "fields": { "v": { "type": "vector", "dim": 3 }, "tags": { "type": "string", "list": true } }
        }
    });
    for (path, value) in changes {
        put(&mut object, path, value.clone());
    }
    object
}

pub async fn assert_accepted(cluster: &Cluster, object: &Value) -> DynamicObject {
    let answer = cluster.try_apply(object).await;
    answer.unwrap_or_else(|error| panic!("{object} is refused: {error}"))
}

/// Refused as the user's mistake, in a message with all of `words`.
pub async fn assert_refused(cluster: &Cluster, object: &Value, words: &[&str]) {
    match cluster.try_apply(object).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            for word in words {
                assert!(
                    status.message.contains(word),
                    "'{}' does not say '{word}'",
                    status.message
                );
            }
        }
        Err(error) => panic!("{object} is not refused but fails: {error}"),
        Ok(_) => panic!("{object} is accepted"),
    }
}

/// Each change alone is refused, with these words.
pub async fn assert_each_refused(
    cluster: &Cluster,
    of: fn(&[(&str, Value)]) -> Value,
    cases: &[(&str, Value, &str)],
) {
    for (path, value, word) in cases {
        assert_refused(cluster, &of(&[(path, value.clone())]), &[word]).await;
    }
}
