use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{GetOptions, ObjectStoreExt, PutMode};
use rhumb_seams::Rand;

use super::*;

fn world() -> (FaultStore, Arc<InMemory>, Faults) {
    let backend = Arc::new(InMemory::new());
    let faults = Faults::new(Rand::from_seed(7));
    (FaultStore::new(backend.clone(), faults.clone()), backend, faults)
}

fn at(path: &str) -> Path {
    Path::from(path)
}

async fn there(backend: &InMemory, path: &str) -> bool {
    backend.head(&at(path)).await.is_ok()
}

#[tokio::test]
async fn before_and_after_differ_in_what_was_done() {
    let (store, backend, faults) = world();
    faults.add_rule(Rule::new(Fault::FailBefore).on(Op::Put).times(1));
    store.put(&at("a"), "x".into()).await.expect_err("failed");
    assert!(!there(&backend, "a").await);
    faults.add_rule(Rule::new(Fault::LoseAnswer).on(Op::Put).times(1));
    store.put(&at("a"), "x".into()).await.expect_err("failed");
    assert!(there(&backend, "a").await);
    faults.add_rule(Rule::new(Fault::LoseAnswer).on(Op::Delete).times(1));
    store.delete(&at("a")).await.expect_err("failed");
    assert!(!there(&backend, "a").await);
    assert_eq!(faults.hits(), [("fail_before", 1), ("lose_answer", 2)]);
}

#[tokio::test]
async fn a_rule_hits_its_operation_its_paths_and_its_number_of_times() {
    let (store, backend, faults) = world();
    faults.add_rule(
        Rule::new(Fault::FailBefore)
            .on(Op::Put)
            .at("/wal/")
            .skip(1)
            .times(2),
    );
    let mut failed = Vec::new();
    for i in 0..5 {
        store
            .put(&at(&format!("c/table/{i}")), "x".into())
            .await
            .expect("another path");
        failed.push(store.put(&at(&format!("c/wal/{i}")), "x".into()).await.is_err());
    }
    assert_eq!(failed, [false, true, true, false, false]);
    store.get(&at("c/wal/0")).await.expect("another operation");
    assert!(there(&backend, "c/wal/4").await);
}

#[tokio::test]
async fn a_held_write_comes_after_the_requests_it_was_held_for() {
    let (store, backend, faults) = world();
    faults.add_rule(Rule::new(Fault::Hold { requests: 2 }).on(Op::Put).times(1));
    store.put(&at("late"), "x".into()).await.expect_err("held");
    for _ in 0..2 {
        store.head(&at("late")).await.expect_err("not yet");
    }
    store.head(&at("late")).await.expect("now");
    faults.add_rule(Rule::new(Fault::Hold { requests: 1_000 }).on(Op::Put).times(1));
    store.put(&at("later"), "x".into()).await.expect_err("held");
    faults.release();
    assert!(!there(&backend, "later").await);
    store.head(&at("later")).await.expect("released");
}

#[tokio::test]
async fn a_doubled_write_keeps_its_condition() {
    let (store, _, faults) = world();
    faults.add_rule(Rule::new(Fault::Duplicate { requests: 1 }).on(Op::Put).times(2));
    store
        .put_opts(&at("a"), "first".into(), PutMode::Create.into())
        .await
        .expect("created");
    store.delete(&at("a")).await.expect("deleted");
    store
        .head(&at("a"))
        .await
        .expect("the copy came after the delete, as a real one may");
    store.put(&at("b"), "1".into()).await.expect("written");
    faults.clear();
    store.put(&at("b"), "2".into()).await.expect("written");
    let body = store
        .get(&at("b"))
        .await
        .expect("there")
        .bytes()
        .await
        .expect("read");
    assert_eq!(
        body, "1",
        "an unconditional write that is doubled undoes what came between"
    );
}

#[tokio::test]
async fn bodies_are_cut_and_flipped_but_declared_whole() {
    let (store, _, faults) = world();
    let body = vec![0; 1_000];
    store.put(&at("a"), body.clone().into()).await.expect("written");
    faults.add_rule(Rule::new(Fault::Truncate).on(Op::Get).times(1));
    let found = store.get(&at("a")).await.expect("there");
    assert_eq!(found.range, 0..1_000);
    assert!(found.bytes().await.expect("read").len() < 1_000);
    faults.add_rule(Rule::new(Fault::FlipBit).on(Op::Get).times(2));
    let flipped = store
        .get(&at("a"))
        .await
        .expect("there")
        .bytes()
        .await
        .expect("read");
    assert_eq!(flipped.iter().map(|b| b.count_ones()).sum::<u32>(), 1);
    let ranges = store.get_ranges(&at("a"), &[0..10, 10..20]).await.expect("read");
    assert_eq!(ranges.concat().iter().map(|b| b.count_ones()).sum::<u32>(), 1);
    assert_eq!(
        store
            .get(&at("a"))
            .await
            .expect("there")
            .bytes()
            .await
            .expect("read"),
        body
    );
}

#[tokio::test]
async fn a_stale_listing_is_one_that_was_true_before() {
    let (store, _, faults) = world();
    let listed = || async {
        store
            .list(None)
            .map_ok(|m| m.location.to_string())
            .try_collect::<Vec<_>>()
            .await
    };
    let rule = faults.add_rule(Rule::new(Fault::StaleList).chance(0.0));
    store.put(&at("a"), "x".into()).await.expect("written");
    assert_eq!(listed().await.expect("listed"), ["a"]);
    store.put(&at("b"), "x".into()).await.expect("written");
    faults.remove_rule(rule);
    faults.add_rule(Rule::new(Fault::StaleList).times(1));
    assert_eq!(listed().await.expect("listed"), ["a"]);
    assert_eq!(listed().await.expect("listed"), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn delays_add_up_and_go_with_another_fault() {
    let (store, _, faults) = world();
    faults.add_rule(Rule::new(Fault::Delay(Duration::from_millis(30))));
    faults.add_rule(Rule::new(Fault::Delay(Duration::from_millis(12))));
    faults.add_rule(Rule::new(Fault::Throttle));
    let started = tokio::time::Instant::now();
    store
        .get_opts(&at("a"), GetOptions::new())
        .await
        .expect_err("throttled");
    assert_eq!(started.elapsed().as_millis(), 42);
}

#[tokio::test]
async fn an_outage_lasts_until_it_is_lifted() {
    let (store, _, faults) = world();
    let outage = faults.add_rule(Rule::new(Fault::Outage));
    for _ in 0..3 {
        store.put(&at("a"), "x".into()).await.expect_err("away");
        store.list(None).try_next().await.expect_err("away");
        store.list_with_delimiter(None).await.expect_err("away");
        store.put_multipart(&at("a")).await.map(|_| ()).expect_err("away");
    }
    faults.remove_rule(outage);
    store.put(&at("a"), "x".into()).await.expect("back");
}

#[tokio::test]
async fn equal_seeds_hit_equal_requests() {
    let run = |seed| async move {
        let faults = Faults::new(Rand::from_seed(seed));
        faults.add_rule(Rule::new(Fault::FailBefore).chance(0.5));
        let store = FaultStore::new(Arc::new(InMemory::new()), faults);
        let mut hit = Vec::new();
        for i in 0..64 {
            hit.push(store.put(&at(&i.to_string()), "x".into()).await.is_err());
        }
        hit
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[test]
fn rules_are_read_from_text() {
    let rule: Rule = "lose_answer op=put path=/wal/ chance=0.05 skip=1 times=3"
        .parse()
        .expect("a rule");
    let expected = Rule::new(Fault::LoseAnswer)
        .on(Op::Put)
        .at("/wal/")
        .chance(0.05)
        .skip(1)
        .times(3);
    assert_eq!(rule, expected);
    assert_eq!(
        "delay ms=250".parse(),
        Ok(Rule::new(Fault::Delay(Duration::from_millis(250))))
    );
    assert_eq!(
        "hold requests=9".parse(),
        Ok(Rule::new(Fault::Hold { requests: 9 }))
    );
    for (bad, problem) in [
        ("explode", RuleProblem::UnknownFault("explode".into())),
        ("", RuleProblem::UnknownFault(String::new())),
        ("outage now", RuleProblem::UnknownKey("now".into())),
        ("outage colour=red", RuleProblem::UnknownKey("colour".into())),
        (
            "outage chance=2",
            RuleProblem::BadValue {
                key: "chance".into(),
                value: "2".into(),
            },
        ),
        (
            "outage op=post",
            RuleProblem::BadValue {
                key: "op".into(),
                value: "post".into(),
            },
        ),
    ] {
        assert_eq!(bad.parse::<Rule>(), Err(problem), "{bad}");
    }
    let faults =
        Faults::parse("outage op=get times=1; fail_before op=put;", Rand::from_seed(1)).expect("rules");
    assert_eq!(faults.judge(Op::Get, "a").fault, Some(Fault::Outage));
    assert_eq!(faults.judge(Op::Get, "a").fault, None);
    assert_eq!(faults.judge(Op::Put, "a").fault, Some(Fault::FailBefore));
}
