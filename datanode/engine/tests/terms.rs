//! Two data nodes of one cluster on one bucket: what a term allows, and what ends it.

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Store, create, doc, field, name, shared_settings};
use futures::TryStreamExt;
use rhumb_core::query::Consistency;
use rhumb_core::write::Write;
use rhumb_core::{FieldType, Scalar};
use rhumb_engine::{Collection, Database, EngineError};
use rhumb_seams::{Clock, OnExit, Rand, Tasks, Term};
use rhumb_store::fault::{Fault, Faults, Rule};
use rhumb_store::metrics::Op;

const DIM: usize = 4;

/// A data node; its terms are given by the test.
struct Node {
    database: Database,
    clock: Clock,
}

async fn node(store: &Store, holder: &str) -> Node {
    Node {
        database: store.open_with(holder, shared_settings()).await,
        clock: Clock::starting_at(0),
    }
}

impl Node {
    fn certain(&self) -> Term {
        Term::new(self.clock.clone(), self.clock.steady() + Duration::from_secs(600))
    }

    /// As of a process that was stopped past its Lease and does not know it yet.
    fn uncertain(&self) -> Term {
        Term::new(self.clock.clone(), Duration::ZERO)
    }

    async fn things(&self, term: &Term) -> Result<Arc<Collection>, EngineError> {
        self.database.under(term.clone()).collection(&name()).await
    }

    /// Under a new, certain term.
    async fn leads(&self) -> (Term, Arc<Collection>) {
        let term = self.certain();
        let things = self.things(&term).await.expect("it is there");
        (term, things)
    }
}

/// Two nodes and a collection, of which the first is in charge.
async fn two() -> (Node, Node, Term, Arc<Collection>) {
    let store = Store::memory();
    let (a, b) = (node(&store, "a").await, node(&store, "b").await);
    let term = a.certain();
    let things = create(&a.database.under(term.clone()), DIM as u32, 1).await;
    (a, b, term, things)
}

async fn put(things: &Collection, lex: i64) -> Result<(), EngineError> {
    fixture::put(things, "one", lex, &[0.5; DIM]).await
}

async fn lex(things: &Collection, consistency: Consistency) -> Result<Option<i64>, EngineError> {
    fixture::lex(things, "one", consistency).await
}

#[tokio::test]
async fn a_second_leader_sees_everything_and_the_first_serves_nothing_more() {
    let (_a, b, first, old) = two().await;
    put(&old, 1).await.expect("acknowledged");
    let (_, new) = b.leads().await;
    assert_eq!(lex(&new, Consistency::Strong).await.expect("read"), Some(1));
    // Never acknowledged, and the term is over at once.
    put(&old, 2).await.expect_err("fenced");
    assert!(first.was_fenced() && first.has_ended());
    lex(&old, Consistency::Strong).await.expect_err("not by this one");
    lex(&old, Consistency::Eventual)
        .await
        .expect_err("not by this one");
    put(&new, 3).await.expect("acknowledged");
    assert_eq!(lex(&new, Consistency::Strong).await.expect("read"), Some(3));
}

#[tokio::test]
async fn a_strong_read_under_an_uncertain_term_asks_the_bucket() {
    let (a, b, first, things) = two().await;
    put(&things, 1).await.expect("acknowledged");
    first.end();
    let waning = a.uncertain();
    let things = a.things(&waning).await.expect("signed under the first term");
    a.database.close_where(|_| false).await;
    // Nobody else has it: it goes on, as when the API server is away (P16).
    put(&things, 2).await.expect("acknowledged");
    assert_eq!(lex(&things, Consistency::Strong).await.expect("read"), Some(2));
    let (_, new) = b.leads().await;
    put(&new, 3).await.expect("acknowledged");
    // The stale answer 2 must not come.
    lex(&things, Consistency::Strong)
        .await
        .expect_err("another has it");
    assert!(waning.was_fenced());
}

#[tokio::test]
async fn an_uncertain_process_takes_nothing_from_its_successor() {
    let (a, b, first, _) = two().await;
    first.end();
    let (second, new) = b.leads().await;
    put(&new, 1).await.expect("acknowledged");
    let waning = a.uncertain();
    // Neither the catalog entry nor the partition.
    a.things(&waning).await.err().expect("it cannot sign");
    assert!(!second.has_ended());
    put(&new, 2).await.expect("still its own");
}

#[tokio::test]
async fn what_a_predecessor_began_cannot_land() {
    let (a, b, first, old) = two().await;
    put(&old, 1).await.expect("acknowledged");
    // `a` stops here, its term still certain on its own clock; `b` takes over.
    let (_, new) = b.leads().await;
    first.renew(Duration::ZERO);
    let stopped = a.uncertain();
    let under = a.database.under(stopped);
    under
        .delete_collection(&name())
        .await
        .expect_err("not its to delete");
    let fields = [(field("late"), FieldType::Scalar(Scalar::Int))].into();
    new.declare(&[(field("late"), FieldType::Scalar(Scalar::String))].into(), None)
        .await
        .expect("the leader may");
    old.declare(&fields, None)
        .await
        .expect_err("another type is there now");
    assert_eq!(lex(&new, Consistency::Strong).await.expect("read"), Some(1));
}

#[tokio::test]
async fn what_an_ended_term_opened_is_not_used_again() {
    let (a, _b, first, old) = two().await;
    put(&old, 1).await.expect("acknowledged");
    first.end();
    assert!(matches!(put(&old, 2).await, Err(EngineError::NotLeading)));
    assert!(matches!(
        lex(&old, Consistency::Strong).await,
        Err(EngineError::NotLeading)
    ));
    a.database.close_where(|_| true).await;
    let (_, again) = a.leads().await;
    assert_eq!(lex(&again, Consistency::Strong).await.expect("read"), Some(1));
    put(&again, 3).await.expect("acknowledged");
    assert_eq!(a.database.open_stats(|_| true).rows, 1);
}

#[tokio::test]
async fn a_partition_opens_even_when_every_caller_gives_up() {
    let store = Store::memory();
    let a = node(&store, "a").await;
    let term = a.certain();
    let things = create(&a.database.under(term.clone()), DIM as u32, 1).await;
    // Each caller leaves as soon as it has to wait.
    for _ in 0..200 {
        let read = things.read(Consistency::Strong, &[]);
        tokio::select! {
            biased;
            read = read => drop(read.expect("read")),
            () = tokio::task::yield_now() => {}
        }
    }
    put(&things, 1).await.expect("acknowledged");
    // One claim, not one per caller.
    assert_eq!(a.database.open_stats(|_| true).epoch, 1);
}

/// The process stalls between looking at its term and claiming; the successor trusts its
/// own term meanwhile and asks nobody.
#[tokio::test]
async fn a_claim_that_came_too_late_serves_nothing() {
    let faults = Faults::new(Rand::from_seed(1));
    let mut store = Store::memory();
    store.options.faults = Some(faults.clone());
    let a = node(&store, "a").await;
    let term = Term::new(a.clock.clone(), a.clock.steady() + Duration::from_millis(300));
    let things = create(&a.database.under(term.clone()), DIM as u32, 1).await;
    let slow = Rule::new(Fault::Delay(Duration::from_millis(500)))
        .on(Op::Put)
        .at("/state.json");
    faults.add_rule(slow.times(1));
    let late = put(&things, 1).await.expect_err("its term may be over");
    assert!(matches!(late, EngineError::Unavailable(_)), "{late:?}");
    assert_eq!(a.database.open_stats(|_| true).partitions, 0);
    // It is nobody's now, and once the term is certain again it serves.
    term.renew(a.clock.steady() + Duration::from_secs(600));
    put(&things, 2).await.expect("acknowledged");
}

/// A leader alone on a store whose faults the test chooses.
async fn one(faults: &Faults) -> (Store, Node, Arc<Collection>) {
    let mut store = Store::memory();
    store.options.faults = Some(faults.clone());
    let a = node(&store, "a").await;
    let term = a.certain();
    let things = create(&a.database.under(term.clone()), DIM as u32, 1).await;
    (store, a, things)
}

#[tokio::test]
async fn a_hand_over_flushes_a_long_log_of_few_rows() {
    let (store, a, things) = one(&Faults::new(Rand::from_seed(1))).await;
    for lex in 0..100 {
        put(&things, lex).await.expect("acknowledged");
    }
    let logged = async || {
        let objects = store.objects.list(None).try_collect::<Vec<_>>().await;
        let objects = objects.expect("listed");
        let in_log = objects.iter().filter(|o| o.location.as_ref().contains("/wal/"));
        in_log.count()
    };
    assert!(logged().await >= 100);
    a.database.flush_where(|_| true).await;
    // Another leader would read these.
    assert!(logged().await < 10, "{} are left", logged().await);
    assert_eq!(lex(&things, Consistency::Strong).await.expect("read"), Some(99));
}

#[tokio::test]
async fn closing_gives_up_a_merge_and_loses_nothing() {
    let faults = Faults::new(Rand::from_seed(1));
    let (store, a, things) = one(&faults).await;
    put(&things, 1).await.expect("acknowledged");
    things.optimize().await.expect("flushed");
    let write = Write {
        upsert: vec![("two".into(), doc(2, "n", &[0.5; DIM]))],
        ..Write::default()
    };
    things.write(write).await.expect("acknowledged");
    let stuck = Fault::Delay(Duration::from_secs(600));
    // The flush is through before the merge meets the rule.
    faults.add_rule(Rule::new(stuck).on(Op::Put).at("/table/data/").skip(1));
    let tasks = Tasks::new();
    let merging = {
        let things = things.clone();
        tasks.spawn("merge", OnExit::Fine, async move { things.optimize().await })
    };
    tokio::time::timeout(Duration::from_secs(60), async {
        while faults.hits_of(stuck) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the merge is on its way");
    let closed = tokio::time::timeout(Duration::from_secs(60), a.database.close_where(|_| true));
    closed.await.expect("nobody waits for a merge");
    merging.await.expect("no panic").expect_err("it was given up");
    faults.clear();
    let b = node(&store, "b").await;
    let (_, things) = b.leads().await;
    assert_eq!(lex(&things, Consistency::Strong).await.expect("read"), Some(1));
    assert_eq!(b.database.open_stats(|_| true).rows, 2);
    things.optimize().await.expect("merged after all");
}
