//! What Argo CD makes of our resources: the shipped ConfigMap is run, in Lua 5.1.

use std::collections::BTreeMap;

use mlua::{Lua, LuaSerdeExt, Value as LuaValue};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct ConfigMap {
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Actions {
    #[serde(rename = "discovery.lua")]
    discovery: String,
    definitions: Vec<Definition>,
}

#[derive(Deserialize)]
struct Definition {
    name: String,
    #[serde(rename = "action.lua")]
    action: String,
}

fn config(key: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/argocd/argocd-cm.yaml");
    let text = std::fs::read_to_string(path).expect("the ConfigMap");
    let map: ConfigMap = serde_saphyr::from_str(&text).expect("a ConfigMap");
    map.data
        .get(&format!("resource.customizations.{key}"))
        .expect("the key")
        .clone()
}

fn run(script: &str, object: &Value) -> Value {
    let lua = Lua::new();
    // Null fields do not exist for a script, as in Argo CD.
    let options = mlua::SerializeOptions::new()
        .serialize_none_to_null(false)
        .serialize_unit_to_null(false);
    lua.globals()
        .set("obj", lua.to_value_with(object, options).expect("an object"))
        .expect("a global");
    // Argo CD gives it to those who ask.
    lua.globals().set("os", LuaValue::Nil).expect("a global");
    let answer: LuaValue = lua.load(script).eval().expect("it runs");
    lua.from_value(answer).expect("an answer")
}

fn health(kind: &str, object: &Value) -> (String, String) {
    let answer = run(&config(&format!("health.rhumb.dev_{kind}")), object);
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

fn condition(kind: &str, status: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": format!("{kind}Reason"), "message": format!("{kind} message") })
}

fn object(conditions: &[(&str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status)| condition(kind, status))
        .collect();
    json!({
        "metadata": { "generation": 2 }, "spec": {},
        "status": { "observedGeneration": 2, "conditions": conditions }
    })
}

fn assert_health(kind: &str, object: &Value, status: &str, words: &str) {
    let found = health(kind, object);
    assert_eq!(found.0, status, "{object:#}");
    assert!(found.1.contains(words), "{found:?}");
}

#[test]
fn a_database_is_as_healthy_as_its_conditions() {
    let kind = "VectorDatabase";
    assert_health(
        kind,
        &json!({ "metadata": { "generation": 1 }, "spec": {} }),
        "Progressing",
        "Waiting",
    );
    assert_health(
        kind,
        &object(&[("Ready", "True"), ("Degraded", "False")]),
        "Healthy",
        "Ready message",
    );
    assert_health(
        kind,
        &object(&[("Ready", "False"), ("Degraded", "False")]),
        "Progressing",
        "ReadyReason",
    );
    assert_health(
        kind,
        &object(&[("Ready", "False"), ("Degraded", "True")]),
        "Degraded",
        "Degraded message",
    );
    assert_health(
        kind,
        &object(&[("Ready", "False"), ("Stalled", "True")]),
        "Degraded",
        "Stalled message",
    );
    assert_health(
        kind,
        &object(&[("Ready", "False"), ("Hibernated", "True")]),
        "Suspended",
        "Hibernated message",
    );
}

#[test]
fn a_database_that_stands_open_is_healthy_and_not_silent_about_it() {
    let ready = [("Ready", "True"), ("Degraded", "False")];
    let open = object(&[&ready[..], &[("Secured", "False")]].concat());
    assert_health("VectorDatabase", &open, "Healthy", "not secured: Secured message");
    let secured = object(&[&ready[..], &[("Secured", "True")]].concat());
    assert_eq!(health("VectorDatabase", &secured).1, "Ready message");
}

#[test]
fn a_status_of_an_older_spec_counts_for_nothing() {
    for kind in ["VectorDatabase", "Collection"] {
        let mut old = object(&[("Ready", "True")]);
        old["metadata"]["generation"] = 3.into();
        assert_health(kind, &old, "Progressing", "Waiting");
    }
}

#[test]
fn what_is_paused_or_on_its_way_out_says_so() {
    let mut paused = object(&[("Ready", "True")]);
    paused["spec"]["paused"] = true.into();
    assert_health("VectorDatabase", &paused, "Suspended", "Paused");
    for kind in ["VectorDatabase", "Collection"] {
        let mut deleted = object(&[("Ready", "True")]);
        deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_health(kind, &deleted, "Progressing", "deleted");
    }
}

#[test]
fn a_sync_wave_waits_for_collections() {
    assert_health("Collection", &object(&[("Ready", "True")]), "Healthy", "");
    assert_health(
        "Collection",
        &object(&[("Ready", "False")]),
        "Progressing",
        "ReadyReason",
    );
    assert_health(
        "Collection",
        &object(&[("Ready", "False"), ("Stalled", "True")]),
        "Degraded",
        "Stalled message",
    );
}

#[test]
fn a_shard_is_healthy_with_a_leader() {
    assert_health("Shard", &json!({ "metadata": {} }), "Progressing", "No leader");
    let led = json!({ "metadata": {}, "status": { "leader": { "pod": "a" } } });
    assert_health("Shard", &led, "Healthy", "Led by a");
}

#[test]
fn actions_are_offered_when_they_can_be_taken_and_do_what_they_say() {
    let actions: Actions =
        serde_saphyr::from_str(&config("actions.rhumb.dev_VectorDatabase")).expect("actions");
    let act = |name: &str, object: &Value| {
        let definition = actions
            .definitions
            .iter()
            .find(|d| d.name == name)
            .expect("an action");
        run(&definition.action, object)
    };
    let running = json!({ "metadata": { "name": "small" }, "spec": { "image": "x" } });
    let paused = act("pause", &running);
    assert_eq!(paused["spec"], json!({ "image": "x", "paused": true }));
    assert_eq!(act("resume", &paused)["spec"], json!({ "image": "x" }));
    let restarted = act("restart", &running)["metadata"]["annotations"]["rhumb.dev/restarted-at"].clone();
    assert_eq!(
        restarted.as_str().map(str::len),
        Some("2026-01-01T00:00:00Z".len()),
        "{restarted}"
    );
    for (object, on) in [
        (running, ["pause", "restart"].as_slice()),
        (paused, ["resume"].as_slice()),
    ] {
        let offered = run(&actions.discovery, &object);
        let mut enabled: Vec<&str> = offered
            .as_object()
            .expect("actions by name")
            .iter()
            .filter(|(_, action)| action["disabled"] == false)
            .map(|(name, _)| name.as_str())
            .collect();
        enabled.sort_unstable();
        assert_eq!(enabled, on);
    }
    assert_eq!(actions.definitions.len(), 3);
}
