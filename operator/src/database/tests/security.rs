//! Who may speak to a database: keys, TLS, and the truth about both.

use rhumb_crds::vector_database::Clients;

use super::*;
use crate::database::admin;

const OPEN: (&str, &str) = ("False", "Open");

fn pod_spec(world: &World) -> Value {
    world.get("Deployment")["spec"]["template"]["spec"].clone()
}

fn env(world: &World, name: &str) -> Value {
    let all = pod_spec(world)["containers"][0]["env"].clone();
    let all = all.as_array().expect("an environment").clone();
    all.into_iter().find(|e| e["name"] == name).unwrap_or(Value::Null)["value"].clone()
}

fn set_clients(world: &World, clients: &str) {
    world.edit_spec(|spec| spec["security"] = json!({ "clients": clients }));
}

fn key(world: &World) -> String {
    let secret = world.secret("words-admin").expect("made");
    admin::read(&secret).expect("a key").to_owned()
}

fn endpoint(world: &World) -> Value {
    world.get("VectorDatabase")["status"]["endpoints"]["rest"].clone()
}

fn protocol(world: &World) -> Value {
    world.get("Service")["spec"]["ports"][0]["appProtocol"].clone()
}

#[tokio::test]
async fn a_database_that_says_nothing_asks_for_keys_over_tls() {
    let world = World::serving().await;
    assert_eq!(env(&world, "RHUMB_UNSAFE_PUBLIC"), Value::Null);
    assert_eq!(env(&world, "RHUMB_TLS_CERT"), "/etc/rhumb/tls/tls.crt");
    assert_eq!(env(&world, "RHUMB_TLS_KEY"), "/etc/rhumb/tls/tls.key");
    assert_eq!(env(&world, "RHUMB_ADMIN_KEY_FILE"), "/etc/rhumb/admin/api-key");
    let spec = pod_spec(&world);
    let container = &spec["containers"][0];
    for (probe, path) in [
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({ "scheme": "HTTPS", "path": path, "port": "rest" })
        );
    }
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.contains(&json!({ "name": "admin", "mountPath": "/etc/rhumb/admin", "readOnly": true })));
    let volumes = spec["volumes"].as_array().expect("volumes");
    assert!(volumes.contains(
        &json!({ "name": "admin", "secret": { "secretName": "words-admin", "defaultMode": 288 } })
    ));
    assert_eq!(protocol(&world), "https");
    assert_eq!(endpoint(&world), "https://words.prod.svc:7480");
    world.assert_condition(conditions::SECURED, "True", "KeysAndTLS");
    let (_, _, message) = world.condition(conditions::SECURED);
    assert!(
        message.contains("words-admin") && message.contains("words-ca"),
        "{message}"
    );
}

#[tokio::test]
async fn the_admin_key_is_made_once() {
    let world = World::serving().await;
    let first = key(&world);
    world.settle().await;
    assert_eq!(key(&world), first);
    // Whoever deletes it asks for another.
    world.api.remove(&format!("{CORE}/secrets/words-admin"));
    let template = pod_spec(&world);
    world.settle().await;
    assert_ne!(key(&world), first);
    assert_eq!(pod_spec(&world), template, "data nodes read it without a restart");
}

#[tokio::test]
async fn a_key_of_somebody_elses_is_taken_as_it_is() {
    let world = World::new();
    let own = format!("rhk_ours_{}", "A".repeat(43));
    let path = format!("{CORE}/secrets/words-admin");
    world.api.put(
        &path,
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "words-admin" }, "stringData": { "api-key": own } }),
    );
    let before = world.api.get(&path);
    world.run().await;
    assert_eq!(world.api.get(&path), before);
    world.assert_condition(conditions::SECRETS_RESOLVED, "True", "Found");
    world.assert_condition(conditions::READY, "True", "Serving");
}

#[tokio::test]
async fn a_secret_that_holds_no_key_is_named_and_waited_for() {
    let world = World::new();
    let put = |key: &str, value: &str| {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "words-admin" }, "stringData": { key: value }
        });
        world.api.put(&format!("{CORE}/secrets/words-admin"), secret);
    };
    put("password", "hunter2");
    world.settle().await;
    assert!(world.find("Deployment").is_none(), "its pods could not start");
    world.assert_condition(conditions::READY, "False", "SecretMissing");
    world.assert_condition(conditions::SECRETS_RESOLVED, "False", "SecretMissing");
    let (_, _, message) = world.condition(conditions::READY);
    assert!(
        message.contains("Secret words-admin has no API key under api-key") && !message.contains("hunter2"),
        "{message}"
    );
    put("api-key", &format!("rhk_ours_{}", "A".repeat(43)));
    world.run().await;
    world.assert_condition(conditions::READY, "True", "Serving");
    let before = pod_spec(&world);
    put("api-key", "rhk_damaged");
    world.settle().await;
    assert_eq!(pod_spec(&world), before, "pods that run are left alone");
    world.assert_condition(conditions::READY, "False", "SecretMissing");
}

#[tokio::test]
async fn the_admin_key_is_in_its_secret_and_nowhere_else() {
    let world = World::serving().await;
    let key = key(&world);
    let encoded = json!(k8s_openapi::ByteString(key.clone().into()));
    let encoded = encoded.as_str().expect("text");
    for path in world.api.paths() {
        let text = world.api.get(&path).expect("listed").to_string();
        let there = text.contains(&key) || text.contains(encoded);
        assert_eq!(there, path.ends_with("/secrets/words-admin"), "{path}");
    }
}

#[tokio::test]
async fn an_open_database_says_so_to_everybody() {
    let world = World::new();
    set_clients(&world, "Open");
    world.run().await;
    assert_eq!(env(&world, "RHUMB_UNSAFE_PUBLIC"), "true");
    assert_eq!(env(&world, "RHUMB_TLS_CERT"), Value::Null);
    assert_eq!(
        pod_spec(&world)["containers"][0]["readinessProbe"]["httpGet"],
        json!({ "path": "/readyz", "port": "rest" })
    );
    assert!(world.secret("words-admin").is_none(), "a key that opens nothing");
    assert_eq!(
        (protocol(&world), endpoint(&world)),
        ("http".into(), "http://words.prod.svc:7480".into())
    );
    world.assert_condition(conditions::SECURED, OPEN.0, OPEN.1);
    world.assert_condition(conditions::READY, "True", "Serving");
    assert!(
        world.events().contains(&("Warning".into(), "Open".into())),
        "{:?}",
        world.events()
    );
}

#[tokio::test]
async fn a_database_is_secured_when_its_last_open_pod_is_gone() {
    let world = World::new();
    set_clients(&world, "Open");
    world.run().await;
    set_clients(&world, "Secured");
    world.settle().await;
    world.assert_condition(conditions::SECURED, "False", "DataNodesOpen");
    assert_eq!(endpoint(&world), "http://words.prod.svc:7480");
    world.api.remove(&format!("{CORE}/pods/a"));
    world.add_pod("c");
    world.settle().await;
    world.assert_condition(conditions::SECURED, "False", "DataNodesOpen");
    let (_, _, message) = world.condition(conditions::SECURED);
    assert!(message.starts_with("1 data nodes"), "{message}");
    world.api.remove(&format!("{CORE}/pods/b"));
    world.add_pod("d");
    world.settle().await;
    world.assert_condition(conditions::SECURED, "True", "KeysAndTLS");
    assert_eq!(endpoint(&world), "https://words.prod.svc:7480");
}

/// An override that opens the door is seen on the pods themselves.
#[tokio::test]
async fn overrides_cannot_open_a_database_unseen() {
    let flag = json!({ "args": ["serve", "--unsafe-public"] });
    let variable = json!({ "env": [{ "name": "RHUMB_UNSAFE_PUBLIC", "value": "true" }] });
    for mut over in [flag, variable] {
        over["name"] = "rhumb".into();
        let world = World::new();
        world.edit_spec(|spec| {
            spec["dataNodes"]["podOverrides"] = json!({ "spec": { "containers": [over] } })
        });
        world.run().await;
        world.assert_condition(conditions::SECURED, "False", "DataNodesOpen");
        let (_, _, message) = world.condition(conditions::SECURED);
        assert!(message.contains("podOverrides"), "{message}");
    }
}

/// Operators before `spec.security` ran every database open.
#[tokio::test]
async fn a_database_from_before_the_field_stays_as_it_is_until_it_is_rolled() {
    let world = World::new();
    set_clients(&world, "Open");
    world.run().await;
    let before = world.get("Deployment")["spec"]["template"].clone();
    world.edit_spec(|spec| drop(spec.as_object_mut().expect("a spec").remove("security")));
    let db: VectorDatabase = serde_json::from_value(world.get("VectorDatabase")).expect("a database");
    assert_eq!(db.spec.security.clients, Clients::Secured);
    let image = pod::Image {
        reference: "rhumb:1",
        pull_policy: Some("IfNotPresent"),
    };
    let keys = before["metadata"]["annotations"]["rhumb.dev/credentials"].as_str();
    let inputs = pod::rollout(&db, image, keys, None).inputs;
    world
        .api
        .edit(&format!("{APPS}/deployments/words"), |deployment| {
            deployment["metadata"]["annotations"][pod::INPUTS] = inputs.into();
        });
    world.settle().await;
    assert_eq!(
        world.get("Deployment")["spec"]["template"],
        before,
        "an upgrade restarts nothing"
    );
    for pod in ["a", "b"] {
        world.api.remove(&format!("{CORE}/pods/{pod}"));
    }
    world.settle().await;
    let (status, _, message) = world.condition(conditions::SECURED);
    assert_eq!(status, "False", "those that come next will be open too");
    assert!(message.contains("data nodes will answer"), "{message}");
    world.assert_condition(conditions::UPDATE_PENDING, "True", "OperatorUpgraded");
    world.assert_condition(conditions::SECURED, "False", "DataNodesOpen");
    let (_, _, message) = world.condition(conditions::SECURED);
    assert!(message.contains("rhumb.dev/restarted-at"), "{message}");
    assert_eq!(
        (protocol(&world), endpoint(&world)),
        ("http".into(), "http://words.prod.svc:7480".into())
    );

    world.api.edit(&format!("{RHUMB}/vectordatabases/words"), |db| {
        db["metadata"]["annotations"]["rhumb.dev/restarted-at"] = "now".into();
    });
    world.settle().await;
    assert_eq!(env(&world, "RHUMB_UNSAFE_PUBLIC"), Value::Null);
    assert_eq!(protocol(&world), "https");
}

/// What was open and says so now is not rolled by that either.
#[tokio::test]
async fn writing_down_that_it_is_open_changes_no_pod() {
    let world = World::new();
    set_clients(&world, "Open");
    world.run().await;
    let before = world.get("Deployment")["spec"]["template"].clone();
    world
        .api
        .edit(&format!("{APPS}/deployments/words"), |deployment| {
            deployment["metadata"]["annotations"][pod::INPUTS] = "of an older operator".into();
        });
    world.settle().await;
    assert_eq!(world.get("Deployment")["spec"]["template"], before);
    assert_eq!(world.condition(conditions::UPDATE_PENDING), Default::default());
}
