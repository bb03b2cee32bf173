//! Placement, gates and the truth in status.

use super::*;

#[tokio::test]
async fn a_database_says_at_every_step_what_it_waits_for() {
    let world = World::new();
    world.settle().await;
    world.assert_condition(conditions::READY, "False", "Starting");
    world.assert_condition(conditions::RECONCILING, "True", "Starting");
    world.assert_condition(conditions::OBJECT_STORE_REACHABLE, "Unknown", "NotReported");
    world.assert_condition(conditions::DEGRADED, "False", "AsExpected");
    world.add_pod("a");
    world.add_pod("b");
    world.settle().await;
    world.assert_condition(conditions::AVAILABLE, "False", "NoDataNodeReady");
    world.lead();
    world.settle().await;
    world.serve(1);
    world.settle().await;
    world.assert_condition(conditions::AVAILABLE, "True", "Serving");
    world.assert_condition(conditions::READY, "False", "RollingOut");
    world.serve(2);
    world.settle().await;
    world.assert_condition(conditions::READY, "True", "Serving");
    world.assert_condition(conditions::SHARDS_READY, "True", "AllLed");
    world.assert_condition(conditions::OBJECT_STORE_REACHABLE, "True", "Reachable");
    assert_eq!(world.condition(conditions::RECONCILING), Default::default());
    let status = world.get("VectorDatabase")["status"].clone();
    assert_eq!(status["nodes"], "2/2");
    assert_eq!(status["shardsLed"], "4/4");
    assert_eq!(status["replicas"], 2);
    assert_eq!(status["selector"], "rhumb.dev/database=words");
    assert_eq!(status["endpoints"]["rest"], "https://words.prod.svc:7480");
    assert_eq!(status["observedGeneration"], 1);
}

#[tokio::test]
async fn a_database_in_which_all_is_well_is_only_read() {
    let world = World::serving().await;
    world.api.take_writes();
    world.reconcile().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

fn is_open(world: &World, pod: &str) -> bool {
    let conditions = world.pod(pod)["status"]["conditions"].to_string();
    conditions.contains("rhumb.dev/shards-warm")
}

#[tokio::test]
async fn gates_open_only_for_pods_whose_shards_are_warm() {
    let world = World::new();
    world.settle().await;
    world.add_pod("a");
    world.settle().await;
    let open = |world: &World| is_open(world, "a");
    assert!(!open(&world), "its shards are placed and nothing is said of them");
    world.lead();
    world.settle().await;
    assert!(open(&world));
}

#[tokio::test]
async fn an_open_gate_stays_open_when_more_is_placed_on_the_pod() {
    let world = World::serving().await;
    world.api.remove(&format!("{CORE}/pods/a"));
    world.settle().await;
    assert!(is_open(&world, "b"));
}

#[tokio::test]
async fn a_lost_pods_shards_are_placed_on_the_other_and_status_says_so() {
    let world = World::serving().await;
    world.api.remove(&format!("{CORE}/pods/a"));
    world.settle().await;
    for shard in world.shards() {
        assert_eq!(shard.spec.nodes, ["b"]);
    }
    world.assert_condition(conditions::AVAILABLE, "False", "ShardsWithoutLeader");
    let (_, _, message) = world.condition(conditions::SHARDS_READY);
    assert_eq!(message, "2 of 4 shards have a leader");
}

const LONG_AGO: &str = "2026-01-01T00:00:00Z";
const JUST_NOW: &str = "2027-01-15T08:00:00Z";

/// All conditions of the object at `path` last turned at `when`.
fn turned(world: &World, when: &str, path: &str) {
    world.api.edit(path, |object| {
        for condition in object["status"]["conditions"].as_array_mut().expect("conditions") {
            condition["lastTransitionTime"] = when.into();
        }
    });
}

#[tokio::test]
async fn leaders_that_change_degrade_nothing_unless_it_takes_long() {
    let world = World::serving().await;
    world.api.remove(&format!("{CORE}/pods/a"));
    world.settle().await;
    world.assert_condition(conditions::AVAILABLE, "False", "ShardsWithoutLeader");
    world.assert_condition(conditions::DEGRADED, "False", "AsExpected");
    turned(&world, LONG_AGO, &format!("{RHUMB}/vectordatabases/words"));
    world.settle().await;
    world.assert_condition(conditions::DEGRADED, "True", "ShardsWithoutLeader");
}

#[tokio::test]
async fn a_slow_start_is_not_a_loss_of_leaders() {
    let world = World::serving().await;
    world.api.remove(&format!("{CORE}/pods/a"));
    world.settle().await;
    turned(&world, JUST_NOW, &format!("{CORE}/pods/b"));
    turned(&world, LONG_AGO, &format!("{RHUMB}/vectordatabases/words"));
    world.settle().await;
    world.assert_condition(conditions::AVAILABLE, "False", "ShardsWithoutLeader");
    world.assert_condition(conditions::DEGRADED, "False", "AsExpected");
}

/// Somebody else's, who labels it as the database's: it is not ours to delete.
#[tokio::test]
async fn without_a_network_policy_of_ours_others_stay() {
    let world = World::serving().await;
    let policies = "/apis/networking.k8s.io/v1/namespaces/prod/networkpolicies";
    let (ours, theirs) = (format!("{policies}/words"), format!("{policies}/theirs"));
    let mut foreign = world.api.get(&ours).expect("there is one");
    foreign["metadata"]["name"] = "theirs".into();
    foreign["metadata"]["ownerReferences"] = Value::Null;
    world.api.put(&theirs, foreign);
    world.api.edit(&format!("{RHUMB}/vectordatabases/words"), |db| {
        db["spec"]["networkPolicy"]["enabled"] = false.into();
    });
    world.settle().await;
    assert!(world.api.get(&ours).is_none());
    assert!(world.api.get(&theirs).is_some());
}

/// A pod that came back under its old name is not the leader that was lost.
#[tokio::test]
async fn a_leader_counts_only_with_its_uid() {
    let world = World::serving().await;
    world.api.remove(&format!("{CORE}/pods/a"));
    world.add_pod("a");
    world.settle().await;
    let (_, _, message) = world.condition(conditions::SHARDS_READY);
    assert_eq!(message, "2 of 4 shards have a leader");
}

#[tokio::test]
async fn pods_that_lead_little_are_the_first_to_go() {
    let world = World::serving().await;
    for pod in ["a", "b"] {
        let cost =
            world.pod(pod)["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"].clone();
        assert_eq!(cost, "2");
    }
}

#[tokio::test]
async fn the_bucket_is_pinned_once_a_leader_has_seen_it() {
    let world = World::serving().await;
    assert_eq!(
        world.get("VectorDatabase")["status"]["databaseUID"],
        "uid-of-bucket"
    );
    for shard in world.shards() {
        assert_eq!(shard.spec.database_uid.as_deref(), Some("uid-of-bucket"));
    }
}

#[tokio::test]
async fn the_last_words_of_a_crashing_pod_are_in_the_status() {
    let world = World::serving().await;
    world.api.edit(&format!("{CORE}/pods/a"), |pod| {
        pod["status"]["containerStatuses"] = json!([{
            "name": "rhumb", "image": "rhumb:1", "imageID": "", "ready": false, "restartCount": 3,
            "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } },
            "lastState": { "terminated": { "exitCode": 1, "message": "the bucket ignores If-None-Match\n" } }
        }]);
    });
    world.settle().await;
    world.assert_condition(conditions::DEGRADED, "True", "PodsFailing");
    let (_, _, message) = world.condition(conditions::READY);
    assert_eq!(
        message,
        "pod a: CrashLoopBackOff: the bucket ignores If-None-Match"
    );
    assert_eq!(world.condition(conditions::RECONCILING), Default::default());
}

#[tokio::test]
async fn a_leader_that_cannot_reach_the_bucket_is_heard() {
    let world = World::serving().await;
    world.api.edit(&format!("{RHUMB}/shards/words-shard-2"), |shard| {
        let condition = &mut shard["status"]["conditions"][0];
        condition["status"] = "False".into();
        condition["message"] = "connection refused".into();
    });
    world.settle().await;
    world.assert_condition(conditions::OBJECT_STORE_REACHABLE, "False", "Unreachable");
    world.assert_condition(conditions::DEGRADED, "True", "ObjectStoreUnreachable");
}

#[tokio::test]
async fn what_the_api_server_refuses_stalls_the_database_and_is_quoted() {
    let world = World::new();
    world.api.refuse("/deployments/");
    world.reconcile().await;
    world.assert_condition(conditions::STALLED, "True", "Refused");
    world.assert_condition(conditions::READY, "False", "Refused");
    assert_eq!(world.condition(conditions::RECONCILING), Default::default());
    assert_eq!(world.shards().len(), 4, "the rest is done all the same");
}

#[tokio::test]
async fn a_hibernated_database_is_neither_ready_nor_broken() {
    let world = World::serving().await;
    world.edit_spec(|spec| spec["dataNodes"]["replicas"] = 0.into());
    world.api.remove(&format!("{CORE}/pods/a"));
    world.api.remove(&format!("{CORE}/pods/b"));
    world.settle().await;
    world.assert_condition(conditions::HIBERNATED, "True", "NoDataNodes");
    world.assert_condition(conditions::READY, "False", "Hibernated");
    world.assert_condition(conditions::DEGRADED, "False", "AsExpected");
    assert_eq!(world.condition(conditions::RECONCILING), Default::default());
}

#[tokio::test]
async fn a_deleted_lease_is_made_again_and_a_held_one_is_not_touched() {
    let world = World::serving().await;
    let lease = |n: u32| format!("/apis/coordination.k8s.io/v1/namespaces/prod/leases/words-shard-{n}");
    world.api.edit(&lease(0), |lease| {
        lease["spec"] = json!({ "holderIdentity": "a_uid_1" })
    });
    world.api.remove(&lease(1));
    world.settle().await;
    assert_eq!(
        world.api.get(&lease(0)).expect("still there")["spec"]["holderIdentity"],
        "a_uid_1"
    );
    let again = world.api.get(&lease(1)).expect("made again");
    assert_eq!(again["spec"], Value::Null);
    assert_eq!(again["metadata"]["ownerReferences"][0]["kind"], "Shard");
}

#[tokio::test]
async fn what_many_lost_pods_said_of_a_shard_is_forgotten() {
    let world = World::serving().await;
    let path = format!("{RHUMB}/shards/words-shard-0");
    world.api.edit(&path, |shard| {
        let nodes = shard["status"]["nodes"].as_array_mut().expect("nodes");
        nodes.extend((0..4).map(|n| json!({ "pod": format!("lost-{n}"), "podUID": "x", "warm": true })));
    });
    world.settle().await;
    let nodes = world.api.get(&path).expect("the shard")["status"]["nodes"].clone();
    assert_eq!(nodes.as_array().map(Vec::len), Some(2), "{nodes}");
}

#[tokio::test]
async fn people_hear_of_what_turned_and_only_once() {
    let world = World::serving().await;
    assert!(world.events().contains(&("Normal".into(), "Serving".into())));
    assert!(!world.events().iter().any(|(_, reason)| reason == "AsExpected"));
    world.api.remove(&format!("{CORE}/pods/a"));
    world.settle().await;
    let warned = world.events();
    assert!(
        warned.contains(&("Warning".into(), "ShardsWithoutLeader".into())),
        "{warned:?}"
    );
    assert!(
        warned.contains(&("Normal".into(), "ShardMoved".into())),
        "{warned:?}"
    );
    world.settle().await;
    assert_eq!(world.events(), warned);
}

#[tokio::test]
async fn a_database_that_is_being_deleted_is_left_alone() {
    let world = World::serving().await;
    world.api.edit(&format!("{RHUMB}/vectordatabases/words"), |db| {
        db["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    world.api.remove(&format!("{APPS}/deployments/words"));
    world.settle().await;
    assert!(world.find("Deployment").is_none());
}

/// The garbage collector needs a moment; a new database of the same name must not.
#[tokio::test]
async fn a_database_that_was_deleted_and_made_again_waits_for_its_name() {
    let world = World::serving().await;
    let path = format!("{RHUMB}/vectordatabases/words");
    world.api.edit(&path, |db| {
        db["metadata"]["uid"] = "another".into();
        db["status"] = Value::Null;
    });
    let before: Vec<Shard> = world.shards();
    world.settle().await;
    assert_eq!(world.shards(), before, "what is left behind is not touched");
    world.assert_condition(conditions::READY, "False", "ShardsWithoutLeader");
    for path in world.api.paths() {
        let object = world.api.get(&path).expect("listed");
        let owner = object["metadata"]["ownerReferences"][0]["uid"].clone();
        if !owner.is_null() && owner != "another" {
            world.api.remove(&path);
        }
    }
    world.settle().await;
    assert_eq!(world.shards().len(), 4);
    assert_eq!(
        world.get("Deployment")["metadata"]["ownerReferences"][0]["uid"],
        "another"
    );
    let admin = world.secret("words-admin").expect("made again");
    assert_eq!(admin.metadata.owner_references.expect("owned")[0].uid, "another");
}
