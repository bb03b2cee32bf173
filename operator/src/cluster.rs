//! What we do to the API server: look at a database's objects, apply those that differ,
//! delete those no longer wanted.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use rhumb_crds::names;
use serde_json::{Value, json};

/// Field manager of everything we apply.
pub const MANAGER: &str = "rhumb-operator";
/// Hash of the object as we last applied it.
pub const APPLIED: &str = "rhumb.dev/applied";

/// Kinds that a database's objects have; Secrets are read by name alone, so that the
/// operator need not list those of others.
const KINDS: [(&str, &str, &str, &str); 9] = [
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "Service", "services"),
    ("apps", "v1", "Deployment", "deployments"),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("coordination.k8s.io", "v1", "Lease", "leases"),
    ("rhumb.dev", "v1alpha1", "Shard", "shards"),
];

/// A database's objects as they are, by kind and name.
pub type Live = BTreeMap<(String, String), Value>;

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn resource_of(object: &Value) -> ApiResource {
    let kind = object["kind"].as_str().unwrap_or_default();
    match KINDS.iter().find(|(_, _, known, _)| *known == kind) {
        Some((group, version, kind, plural)) => resource(group, version, kind, plural),
        None => resource("", "v1", kind, &format!("{}s", kind.to_lowercase())),
    }
}

pub fn key(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The uid of the object's controller.
pub fn controller(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)?["uid"].as_str()
}

/// From the API server's cache: a stale answer only delays, since every write is repeated
/// until it is seen.
pub async fn live(client: &Client, namespace: &str, database: &str) -> kube::Result<Live> {
    let params = ListParams::default()
        .labels(&format!("{}={database}", names::DATABASE))
        .match_any();
    let lists = KINDS.iter().map(|(group, version, kind, plural)| {
        let ar = resource(group, version, kind, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &ar);
        let params = &params;
        async move { Ok::<_, kube::Error>((*kind, api.list(params).await?)) }
    });
    let mut live = Live::new();
    for (kind, list) in try_join_all(lists).await? {
        for mut object in list.items {
            object.metadata.managed_fields = None;
            let mut object = json!(object);
            object["kind"] = kind.into();
            live.insert(key(&object), object);
        }
    }
    Ok(live)
}

/// Everything that `wanted` says is so already.
pub fn covered(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(key, value)| {
            let live = live.get(key).unwrap_or(&Value::Null);
            match key.as_str() {
                "limits" | "requests" | "sizeLimit" => same_amounts(value, live),
                _ => covered(value, live),
            }
        }),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len()
                && wanted
                    .iter()
                    .zip(live)
                    .all(|(wanted, live)| covered(wanted, live))
        }
        (wanted, live) => wanted == live,
    }
}

/// The API server writes `1000m` back as `1`, which is no difference.
fn same_amounts(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .all(|(key, value)| same_amounts(value, live.get(key).unwrap_or(&Value::Null))),
        (wanted, live) => {
            covered(wanted, live) || quantity(wanted).is_some_and(|q| quantity(live) == Some(q))
        }
    }
}

/// In thousandths.
fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (whole, fraction) = text[..split].split_once('.').unwrap_or((&text[..split], ""));
    // No quantity of ours needs more places.
    let places = u32::try_from(fraction.len()).ok().filter(|places| *places <= 9)?;
    let number: i128 = format!("{whole}{fraction}").parse().ok()?;
    let thousandths = match &text[split..] {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    Some(number.checked_mul(thousandths)? / 10_i128.pow(places))
}

/// Makes an object that was not seen.  One of the same name that is not ours is a conflict.
pub async fn create(client: &Client, object: &Value) -> kube::Result<()> {
    patch(client, object, PatchParams::apply(MANAGER)).await
}

/// Children are ours: whoever edited them by hand loses.
pub async fn apply(client: &Client, object: &Value) -> kube::Result<()> {
    patch(client, object, PatchParams::apply(MANAGER).force()).await
}

async fn patch(client: &Client, object: &Value, params: PatchParams) -> kube::Result<()> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource_of(object));
    // Strict, because a field that the API server drops in silence is a bug of ours.
    let params = params.validation_strict();
    api.patch(&key(object).1, &params, &Patch::Apply(object))
        .await
        .map(drop)
}

/// Deletes exactly the object that was seen.
pub async fn delete(client: &Client, object: &Value) -> kube::Result<()> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource_of(object));
    let preconditions = Preconditions {
        uid: object["metadata"]["uid"].as_str().map(str::to_owned),
        resource_version: None,
    };
    let params = DeleteParams::background().preconditions(preconditions);
    match api.delete(&key(object).1, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

pub fn annotate(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["annotations"][key] = value.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_added_does_not_count_and_what_they_changed_does() {
        let wanted = json!({"spec": {"ports": [{"port": 1}], "selector": {"a": "b"}}});
        let live = json!({"spec": {"ports": [{"port": 1, "nodePort": 3}], "selector": {"a": "b"}, "clusterIP": "x"}, "status": {}});
        assert!(covered(&wanted, &live));
        let edited = json!({"spec": {"ports": [{"port": 2}], "selector": {"a": "b"}}});
        assert!(!covered(&wanted, &edited));
        let limits = |cpu: Value| json!({"limits": {"cpu": cpu}});
        assert!(covered(&limits(json!("1000m")), &limits(json!("1"))));
        assert!(covered(&limits(json!("0.5")), &limits(json!("500m"))));
        assert!(covered(&limits(json!("1.5Gi")), &limits(json!("1536Mi"))));
        assert!(!covered(&limits(json!("0.5")), &limits(json!("5"))));
        assert!(covered(&limits(json!(2)), &limits(json!("2"))));
        assert!(!covered(&limits(json!("1500m")), &limits(json!("1"))));
        let more = json!({"spec": {"ports": [{"port": 1}, {"port": 2}], "selector": {"a": "b"}}});
        assert!(!covered(&wanted, &more));
    }
}
