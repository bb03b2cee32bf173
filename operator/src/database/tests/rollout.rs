//! What rolls data nodes, and what must not.

use super::*;

fn template(world: &World) -> Value {
    world.get("Deployment")["spec"]["template"].clone()
}

#[tokio::test]
async fn a_newer_operator_restarts_nothing_until_it_is_told_to() {
    let world = World::serving().await;
    let before = template(&world);
    let newer = World::with_operator(world.api.clone(), "rhumb:2");
    newer.settle().await;
    assert_eq!(template(&newer), before);
    newer.assert_condition(conditions::UPDATE_PENDING, "True", "OperatorUpgraded");
    newer.assert_condition(conditions::READY, "True", "Serving");
    assert_eq!(newer.get("VectorDatabase")["status"]["image"], "rhumb:1");

    newer.api.edit(&format!("{RHUMB}/vectordatabases/words"), |db| {
        db["metadata"]["annotations"]["rhumb.dev/restarted-at"] = "now".into();
    });
    newer.settle().await;
    assert_eq!(template(&newer)["spec"]["containers"][0]["image"], "rhumb:2");
    assert_eq!(newer.condition(conditions::UPDATE_PENDING), Default::default());
    assert_eq!(newer.get("VectorDatabase")["status"]["image"], "rhumb:2");
}

#[tokio::test]
async fn the_operators_image_is_for_databases_that_name_none() {
    let world = World::new();
    world.edit_spec(|spec| spec["image"] = "mine:7".into());
    world.settle().await;
    assert_eq!(template(&world)["spec"]["containers"][0]["image"], "mine:7");
    let newer = World::with_operator(world.api.clone(), "rhumb:2");
    newer.settle().await;
    assert_eq!(newer.condition(conditions::UPDATE_PENDING), Default::default());
}

#[tokio::test]
async fn new_keys_roll_the_pods_and_equal_keys_do_not() {
    let world = World::serving().await;
    let before = template(&world);
    world.set_keys("secret");
    world.settle().await;
    assert_eq!(template(&world), before);
    world.set_keys("another");
    world.settle().await;
    assert_ne!(template(&world), before);
}

#[tokio::test]
async fn what_does_not_concern_pods_does_not_roll_them() {
    let world = World::serving().await;
    let before = template(&world);
    world.edit_spec(|spec| {
        spec["dataNodes"]["replicas"] = 5.into();
        spec["dataNodes"]["disruptionBudget"] = json!({ "maxUnavailable": 2 });
        spec["sharding"]["followers"] = 2.into();
        spec["networkPolicy"] = json!({ "enabled": false });
    });
    world.settle().await;
    assert_eq!(template(&world), before);
    assert_eq!(world.get("Deployment")["spec"]["replicas"], 5);
}

#[tokio::test]
async fn pod_overrides_reach_the_pod() {
    let world = World::new();
    world.edit_spec(|spec| {
        spec["dataNodes"]["podOverrides"] = json!({ "spec": {
            "priorityClassName": "high",
            "containers": [{ "name": "rhumb", "env": [{ "name": "RHUMB_LOG", "value": "debug" }] }]
        } });
    });
    world.settle().await;
    let spec = template(&world)["spec"].clone();
    assert_eq!(spec["priorityClassName"], "high");
    let env = spec["containers"][0]["env"]
        .as_array()
        .expect("an environment")
        .clone();
    assert!(env.contains(&json!({ "name": "RHUMB_LOG", "value": "debug" })));
    assert!(env.len() > 5, "the generated environment is still there");
}

#[tokio::test]
async fn a_database_waits_for_its_keys_and_goes_on_without_them() {
    let world = World::new();
    world.api.remove(&format!("{CORE}/secrets/keys"));
    world.settle().await;
    assert!(world.find("Deployment").is_none());
    world.assert_condition(conditions::READY, "False", "SecretMissing");
    world.assert_condition(conditions::RECONCILING, "True", "SecretMissing");
    world.set_keys("secret");
    world.settle().await;
    let before = template(&world);
    world.api.remove(&format!("{CORE}/secrets/keys"));
    world.settle().await;
    assert_eq!(template(&world), before, "pods that run are left alone");
    world.assert_condition(conditions::SECRETS_RESOLVED, "False", "SecretMissing");
}

#[tokio::test]
async fn a_secret_without_the_key_is_named() {
    let world = World::new();
    world.edit_spec(|spec| spec["objectStore"]["credentials"]["secretRef"]["accessKeyIdKey"] = "user".into());
    world.settle().await;
    let (_, _, message) = world.condition(conditions::READY);
    assert_eq!(message, "Secret keys has no key user");
}

#[tokio::test]
async fn what_somebody_changed_by_hand_is_put_back() {
    let world = World::serving().await;
    let before = world.get("Service")["spec"].clone();
    world.api.edit(&format!("{CORE}/services/words"), |service| {
        service["spec"]["ports"][0]["port"] = 80.into();
    });
    world
        .api
        .edit(&format!("{APPS}/deployments/words"), |deployment| {
            deployment["spec"]["replicas"] = 9.into();
        });
    world.settle().await;
    assert_eq!(world.get("Service")["spec"], before);
    assert_eq!(world.get("Deployment")["spec"]["replicas"], 2);
}

#[tokio::test]
async fn the_network_policy_goes_when_it_is_not_wanted() {
    let world = World::serving().await;
    assert!(world.find("NetworkPolicy").is_some());
    world.edit_spec(|spec| spec["networkPolicy"] = json!({ "enabled": false }));
    world.settle().await;
    assert!(world.find("NetworkPolicy").is_none());
}

#[tokio::test]
async fn named_clients_take_the_place_of_the_namespace() {
    let world = World::new();
    world.edit_spec(|spec| {
        spec["networkPolicy"] = json!({ "enabled": true, "clients": [{ "podSelector": { "matchLabels": { "app": "shop" } } }] });
    });
    world.settle().await;
    let from = world.get("NetworkPolicy")["spec"]["ingress"][0]["from"].clone();
    let from = from.as_array().expect("peers").clone();
    assert!(from.contains(&json!({ "podSelector": { "matchLabels": { "app": "shop" } } })));
    assert!(!from.contains(&json!({ "podSelector": {} })));
    let peers = world.get("NetworkPolicy")["spec"]["ingress"][1]["from"].clone();
    assert_eq!(
        peers,
        json!([{ "podSelector": { "matchLabels": { "rhumb.dev/database": "words" } } }])
    );
}

#[tokio::test]
async fn a_paused_database_is_left_alone_but_still_placed() {
    let world = World::serving().await;
    world.edit_spec(|spec| {
        spec["paused"] = true.into();
        spec["dataNodes"]["replicas"] = 3.into();
    });
    world.settle().await;
    assert_eq!(world.get("Deployment")["spec"]["replicas"], 2);
    world.assert_condition(conditions::PAUSED, "True", "Paused");
    world.api.remove(&format!("{CORE}/pods/a"));
    world.settle().await;
    assert!(world.shards().iter().all(|shard| shard.spec.nodes == ["b"]));
}

#[tokio::test]
async fn what_somebody_else_made_under_our_name_is_not_overwritten() {
    let world = World::new();
    let theirs = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "words" }, "spec": { "selector": { "app": "shop" } } });
    world.api.put(&format!("{CORE}/services/words"), theirs);
    let before = world.get("Service");
    world.reconcile().await;
    assert_eq!(world.get("Service"), before);
    world.assert_condition(conditions::STALLED, "True", "Refused");
    let (_, _, message) = world.condition(conditions::READY);
    assert_eq!(message, "Service words: Conflict");
}
