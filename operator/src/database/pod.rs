//! The data nodes' pod template, and what decides that it is rolled.

use k8s_openapi::api::apps::v1::Deployment;
use rhumb_crds::names;
use rhumb_crds::vector_database::{AntiAffinity, Clients, DataNodes, Security, VectorDatabase};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::overrides;

/// What the user controls of the template, as a hash, and the template itself: both on the
/// Deployment.  With them a newer operator sees that a difference is its own idea.
pub const INPUTS: &str = "rhumb.dev/inputs";
pub const TEMPLATE: &str = "rhumb.dev/template";
/// On pods and the Deployment: a fingerprint of the template, to tell pods that will stay
/// from those that will go.
pub const REVISION: &str = "rhumb.dev/revision";
/// On pods, so that new keys roll them.
const CREDENTIALS: &str = "rhumb.dev/credentials";

const USER: i64 = 65532;
const TLS_DIR: &str = "/etc/rhumb/tls";
const ADMIN_DIR: &str = "/etc/rhumb/admin";
/// Makes a data node answer whoever asks.
const OPEN: &str = "RHUMB_UNSAFE_PUBLIC";

#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    pub reference: &'a str,
    pub pull_policy: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    pub inputs: String,
    pub template: Value,
    /// This operator would write another template for the same spec.
    pub update_pending: bool,
}

impl Rollout {
    pub fn revision(&self) -> &str {
        self.template["metadata"]["annotations"][REVISION]
            .as_str()
            .unwrap_or_default()
    }

    pub fn image(&self) -> Option<String> {
        let own = named(&self.template["spec"]["containers"], "rhumb")?;
        own["image"].as_str().map(str::to_owned)
    }

    pub fn is_open(&self) -> bool {
        is_open(&self.template["spec"])
    }
}

/// The template to run.  A database is rolled when its user changed something, never
/// because the operator is a newer one.
pub fn rollout(
    db: &VectorDatabase,
    image: Image<'_>,
    credentials: Option<&str>,
    live: Option<&Deployment>,
) -> Rollout {
    let inputs = inputs(db, credentials);
    let template = template(db, image, credentials);
    let annotations = live.and_then(|live| live.metadata.annotations.as_ref());
    let kept = annotations
        .filter(|a| a.get(INPUTS) == Some(&inputs))
        .and_then(|a| serde_json::from_str::<Value>(a.get(TEMPLATE)?).ok())
        .filter(|kept| *kept != template);
    Rollout {
        inputs,
        update_pending: kept.is_some(),
        template: kept.unwrap_or(template),
    }
}

/// Whether pods of this spec answer whoever asks: told by what they run, not by what they
/// should.
pub fn is_open(spec: &Value) -> bool {
    let Some(own) = named(&spec["containers"], "rhumb") else {
        return false;
    };
    let mut args = own["args"].as_array().into_iter().flatten();
    let by_flag = args.any(|arg| arg.as_str().is_some_and(|arg| arg.starts_with("--unsafe-public")));
    by_flag || named(&own["env"], OPEN).is_some_and(|set| set["value"] == "true")
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item["name"] == name)
}

/// Short and stable; says nothing about what was hashed.
pub fn fingerprint(of: &Value) -> String {
    let digest = Sha256::digest(of.to_string().as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn inputs(db: &VectorDatabase, credentials: Option<&str>) -> String {
    let mut spec = json!(db.spec);
    // These reach the pods without a restart, or do not concern them.
    for path in [
        "/dataNodes/replicas",
        "/dataNodes/disruptionBudget",
        "/networkPolicy",
        "/paused",
        "/sharding/followers",
    ] {
        let (parent, key) = path.rsplit_once('/').unwrap_or_default();
        if let Some(parent) = spec.pointer_mut(parent).and_then(Value::as_object_mut) {
            parent.remove(key);
        }
    }
    // A default that came later than some databases rolls none of them by itself.
    if db.spec.security == Security::default()
        && let Some(spec) = spec.as_object_mut()
    {
        spec.remove("security");
    }
    fingerprint(&json!([spec, credentials, restarted_at(db)]))
}

fn restarted_at(db: &VectorDatabase) -> Option<&String> {
    db.metadata.annotations.as_ref()?.get(names::RESTARTED_AT)
}

fn template(db: &VectorDatabase, image: Image<'_>, credentials: Option<&str>) -> Value {
    let name = db.metadata.name.as_deref().unwrap_or_default();
    let nodes = &db.spec.data_nodes;
    let mut annotations = json!({ "kubectl.kubernetes.io/default-container": "rhumb" });
    if let Some(hash) = credentials {
        annotations[CREDENTIALS] = hash.into();
    }
    if let Some(at) = restarted_at(db) {
        annotations[names::RESTARTED_AT] = at.as_str().into();
    }
    let mut template = json!({
        "metadata": { "labels": labels(name), "annotations": annotations },
        "spec": {
            "serviceAccountName": names::account(name),
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": nodes.termination_grace_period_seconds,
            "readinessGates": [{ "conditionType": names::SHARDS_WARM }],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": { "type": "RuntimeDefault" }
            },
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": { "matchLabels": selector(name) }
            }],
            "containers": [container(db, name, image)],
            "volumes": [
                cache_volume(nodes, name),
                { "name": "tls", "secret": { "secretName": names::node_tls(name), "defaultMode": 288 } },
                { "name": "tmp", "emptyDir": { "sizeLimit": "1Gi" } }
            ]
        }
    });
    if db.spec.security.clients == Clients::Secured {
        secure(&mut template["spec"], name);
    }
    if let Some(affinity) = anti_affinity(nodes.anti_affinity, name) {
        template["spec"]["affinity"] = affinity;
    }
    if let Some(over) = &nodes.pod_overrides {
        overrides::merge(&mut template, &Value::Object(over.0.clone()));
    }
    let revision = fingerprint(&template);
    template["metadata"]["annotations"][REVISION] = revision.into();
    template
}

/// Keys and TLS for clients.  The certificate is the one that peers know: it carries the
/// Service's names too.
fn secure(spec: &mut Value, name: &str) {
    let set = |name: &str, value: String| json!({ "name": name, "value": value });
    let container = json!({ "name": "rhumb",
        "env": [
            set("RHUMB_TLS_CERT", format!("{TLS_DIR}/tls.crt")),
            set("RHUMB_TLS_KEY", format!("{TLS_DIR}/tls.key")),
            set("RHUMB_ADMIN_KEY_FILE", format!("{ADMIN_DIR}/{}", names::ADMIN_KEY))
        ],
        "volumeMounts": [{ "name": "admin", "mountPath": ADMIN_DIR, "readOnly": true }],
        // The kubelet asks who it is of no certificate.
        "startupProbe": { "httpGet": { "scheme": "HTTPS" } },
        "livenessProbe": { "httpGet": { "scheme": "HTTPS" } },
        "readinessProbe": { "httpGet": { "scheme": "HTTPS" } }
    });
    let volume =
        json!({ "name": "admin", "secret": { "secretName": names::admin(name), "defaultMode": 288 } });
    overrides::merge(spec, &json!({ "containers": [container], "volumes": [volume] }));
}

/// What Services, the budget and the Deployment select by.
pub fn selector(database: &str) -> Value {
    json!({ names::DATABASE: database })
}

pub fn labels(database: &str) -> Value {
    json!({
        names::DATABASE: database,
        "app.kubernetes.io/name": "rhumb",
        "app.kubernetes.io/component": "data-node",
        "app.kubernetes.io/managed-by": "rhumb-operator"
    })
}

fn container(db: &VectorDatabase, name: &str, image: Image<'_>) -> Value {
    let mut container = json!({
        "name": "rhumb",
        "image": image.reference,
        "args": ["serve"],
        "env": environment(db, name),
        "ports": [
            { "name": "rest", "containerPort": names::CLIENT_PORT, "protocol": "TCP" },
            { "name": "peer", "containerPort": names::PEER_PORT, "protocol": "TCP" }
        ],
        // It listens only once it can serve, and a large database may take a while.
        "startupProbe": { "httpGet": { "path": "/healthz", "port": "rest" }, "periodSeconds": 1, "failureThreshold": 300 },
        "livenessProbe": { "httpGet": { "path": "/healthz", "port": "rest" }, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 6 },
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": "rest" }, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3 },
        // Its last words reach `status` of the database.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }
        },
        "volumeMounts": [
            { "name": "cache", "mountPath": "/cache" },
            { "name": "tls", "mountPath": TLS_DIR, "readOnly": true },
            { "name": "tmp", "mountPath": "/tmp" }
        ]
    });
    if let Some(policy) = image.pull_policy {
        container["imagePullPolicy"] = policy.into();
    }
    if let Some(resources) = &db.spec.data_nodes.resources {
        container["resources"] = json!(resources);
    }
    container
}

fn environment(db: &VectorDatabase, name: &str) -> Value {
    let store = &db.spec.object_store;
    let lease = &db.spec.lease;
    let url = match &store.prefix {
        Some(prefix) => format!("s3://{}/{prefix}", store.bucket),
        None => format!("s3://{}", store.bucket),
    };
    let set = |name: &str, value: String| json!({ "name": name, "value": value });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } });
    let mut env = vec![
        set("RHUMB_STORE", url),
        set("RHUMB_LISTEN", format!("0.0.0.0:{}", names::CLIENT_PORT)),
        set("RHUMB_CACHE_DIR", "/cache".into()),
        set(
            "RHUMB_CACHE_SIZE",
            cache_budget(&db.spec.data_nodes.cache.size.0).to_string(),
        ),
        set("RHUMB_LOG_FORMAT", "json".into()),
        set("RHUMB_CLUSTER_DATABASE", name.into()),
        field("RHUMB_CLUSTER_NAMESPACE", "metadata.namespace"),
        field("RHUMB_CLUSTER_POD", "metadata.name"),
        field("RHUMB_CLUSTER_POD_UID", "metadata.uid"),
        field("RHUMB_CLUSTER_POD_IP", "status.podIP"),
        set("RHUMB_CLUSTER_SHARDS", db.spec.sharding.count.to_string()),
        set(
            "RHUMB_CLUSTER_PEER_LISTEN",
            format!("0.0.0.0:{}", names::PEER_PORT),
        ),
        set("RHUMB_CLUSTER_PEER_NAME", peer_name(db)),
        set("RHUMB_CLUSTER_TLS_DIR", TLS_DIR.into()),
        set(
            "RHUMB_CLUSTER_LEASE_DURATION_MS",
            (lease.duration_seconds * 1000).to_string(),
        ),
        set(
            "RHUMB_CLUSTER_LEASE_RENEW_DEADLINE_MS",
            lease.renew_deadline_milliseconds.to_string(),
        ),
        set(
            "RHUMB_CLUSTER_LEASE_RETRY_MS",
            lease.retry_period_milliseconds.to_string(),
        ),
    ];
    if db.spec.security.clients == Clients::Open {
        // Where it always was: a list in another order would be another template.
        env.insert(2, set(OPEN, "true".into()));
    }
    if let Some(region) = &store.region {
        env.push(set("AWS_REGION", region.clone()));
    }
    if let Some(endpoint) = &store.endpoint {
        env.push(set("AWS_ENDPOINT_URL", endpoint.clone()));
    }
    if let Some(credentials) = &store.credentials {
        let secret = &credentials.secret_ref;
        let key = |name: &str, key: &str| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": secret.name, "key": key } } });
        env.push(key("AWS_ACCESS_KEY_ID", &secret.access_key_id_key));
        env.push(key("AWS_SECRET_ACCESS_KEY", &secret.secret_access_key_key));
    }
    Value::Array(env)
}

/// The name in the data nodes' certificate: peers are called by address and checked by it.
pub fn peer_name(db: &VectorDatabase) -> String {
    let name = db.metadata.name.as_deref().unwrap_or_default();
    let namespace = db.metadata.namespace.as_deref().unwrap_or_default();
    format!("{}.{namespace}.svc", names::peers(name))
}

/// Less than the volume: the kubelet evicts a pod that writes more than its sizeLimit.
fn cache_budget(size: &str) -> u64 {
    let split = size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len());
    let (number, unit) = size.split_at(split);
    let shift = match unit {
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => 0,
    };
    let bytes = number.parse::<u64>().unwrap_or(0).saturating_mul(1 << shift);
    bytes / 10 * 9
}

fn cache_volume(nodes: &DataNodes, name: &str) -> Value {
    match &nodes.cache.storage_class_name {
        None => json!({ "name": "cache", "emptyDir": { "sizeLimit": nodes.cache.size } }),
        Some(class) => json!({ "name": "cache", "ephemeral": { "volumeClaimTemplate": {
            "metadata": { "labels": { names::DATABASE: name } },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": { "requests": { "storage": nodes.cache.size } }
            }
        } } }),
    }
}

fn anti_affinity(rule: AntiAffinity, name: &str) -> Option<Value> {
    let term = json!({ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": selector(name) } });
    match rule {
        AntiAffinity::None => None,
        AntiAffinity::Required => {
            Some(json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } }))
        }
        AntiAffinity::Preferred => Some(json!({ "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100, "podAffinityTerm": term }]
        } })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_below_its_volume() {
        assert_eq!(cache_budget("10Gi"), (10u64 << 30) / 10 * 9);
        assert_eq!(cache_budget("512Mi"), (512u64 << 20) / 10 * 9);
    }
}
