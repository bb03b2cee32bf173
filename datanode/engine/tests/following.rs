//! A node that follows what another one leads: what it shows, and what it leaves to the
//! leader.

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Store, doc, field, lex, name, shared_settings};
use rhumb_core::query::{Consistency, Include};
use rhumb_core::write::Write;
use rhumb_core::{FieldType, Scalar, Value};
use rhumb_engine::{Collection, Database, EngineError};
use rhumb_seams::{Clock, Term};

const DIM: usize = 4;

async fn node(store: &Store, holder: &str) -> Database {
    store.open_with(holder, shared_settings()).await
}

fn lead(node: &Database) -> (Term, Database) {
    let clock = Clock::starting_at(0);
    let until = clock.steady() + Duration::from_secs(600);
    let term = Term::new(clock, until);
    (term.clone(), node.under(term))
}

async fn create(leader: &Database) -> Arc<Collection> {
    fixture::create(leader, DIM as u32, 2).await
}

async fn put(things: &Collection, id: &str, lex: i64) {
    let put = fixture::put(things, id, lex, &[0.5; DIM]).await;
    put.expect("acknowledged");
}

/// A leader with a collection, and a follower of it.
struct Pair {
    _term: Term,
    leader: Database,
    things: Arc<Collection>,
    follower: Database,
}

async fn pair() -> Pair {
    let store = Store::memory();
    let (a, b) = (node(&store, "a").await, node(&store, "b").await);
    let (term, leader) = lead(&a);
    Pair {
        things: create(&leader).await,
        _term: term,
        leader,
        follower: b.following(),
    }
}

/// Waits until the follower shows it.
async fn shows(follower: &Database, id: &str, wanted: Option<i64>) {
    let shown = async {
        loop {
            if let Ok(things) = follower.collection(&name()).await
                && lex(&things, id, Consistency::Eventual)
                    .await
                    .is_ok_and(|lex| lex == wanted)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(30), shown).await;
    shown.unwrap_or_else(|_| panic!("{id} is never {wanted:?}"));
}

#[tokio::test]
async fn a_follower_shows_what_the_leader_logs_and_flushes() {
    let Pair {
        things, follower: b, ..
    } = &pair().await;
    put(things, "one", 1).await;
    put(things, "two", 1).await;
    shows(b, "one", Some(1)).await;
    // The log grows, the base comes, another base comes, and rows go.
    put(things, "one", 2).await;
    shows(b, "one", Some(2)).await;
    things.optimize().await.expect("flushed");
    put(things, "one", 3).await;
    shows(b, "one", Some(3)).await;
    things.optimize().await.expect("flushed");
    let gone = Write {
        delete: vec!["one".into()],
        ..Write::default()
    };
    things.write(gone).await.expect("acknowledged");
    shows(b, "one", None).await;
    shows(b, "two", Some(1)).await;
    things.optimize().await.expect("merged");
    put(things, "three", 3).await;
    shows(b, "three", Some(3)).await;
    shows(b, "one", None).await;
}

#[tokio::test]
async fn a_follower_learns_new_fields_before_it_shows_their_rows() {
    let Pair {
        things, follower: b, ..
    } = &pair().await;
    put(things, "one", 1).await;
    shows(b, "one", Some(1)).await;
    let fields = [(field("late"), FieldType::Scalar(Scalar::Int))].into();
    things.declare(&fields, None).await.expect("declared");
    let document = rhumb_core::Document::from_fields(vec![
        (field("late"), Value::Int(7)),
        (field("lex"), Value::Int(2)),
    ]);
    let write = Write {
        upsert: vec![("one".into(), document)],
        ..Write::default()
    };
    things.write(write).await.expect("acknowledged");
    shows(b, "one", Some(2)).await;
    let things = b.collection(&name()).await.expect("followed");
    let reading = things.read(Consistency::Eventual, &[]).await.expect("read");
    let found = reading
        .get(&["one".into()], &Include::Everything)
        .await
        .expect("found");
    let stored = found[0].as_ref().expect("it is there");
    assert_eq!(stored.document.get("late"), Some(&Value::Int(7)));
}

#[tokio::test]
async fn whatever_is_not_eventual_is_the_leaders() {
    let Pair {
        things, follower: b, ..
    } = &pair().await;
    let followed = b.collection(&name()).await.expect("in the catalog");
    let read = lex(&followed, "one", Consistency::Eventual).await;
    assert_eq!(read.expect("nobody wrote yet"), None);
    put(things, "one", 1).await;
    shows(b, "one", Some(1)).await;
    for consistency in [Consistency::Strong, Consistency::Verified, Consistency::Session] {
        let read = lex(&followed, "one", consistency).await;
        assert!(matches!(read, Err(EngineError::NotLeading)), "{read:?}");
    }
    let write = Write {
        upsert: vec![("one".into(), doc(2, "n", &[0.5; DIM]))],
        ..Write::default()
    };
    followed.write(write).await.expect_err("refused");
    let fields = [(field("late"), FieldType::Scalar(Scalar::Int))].into();
    followed.declare(&fields, None).await.expect_err("refused");
    assert_eq!(
        lex(things, "one", Consistency::Strong).await.expect("read"),
        Some(1)
    );
}

#[tokio::test]
async fn a_follower_becomes_the_leader_and_follows_again() {
    let store = Store::memory();
    let (a, b) = (node(&store, "a").await, node(&store, "b").await);
    let (first, leader) = lead(&a);
    let things = create(&leader).await;
    put(&things, "one", 1).await;
    shows(&b.following(), "one", Some(1)).await;
    first.end();
    a.close_where(|_| true).await;
    let (_second, leader) = lead(&b);
    let things = leader.collection(&name()).await.expect("it is there");
    assert_eq!(
        lex(&things, "one", Consistency::Strong).await.expect("read"),
        Some(1)
    );
    put(&things, "one", 2).await;
    // What this node leads it does not follow.
    let followed = b.following().collection(&name()).await;
    assert!(matches!(followed, Err(EngineError::NotLeading)));
    put(&things, "one", 3).await;
    shows(&a.following(), "one", Some(3)).await;
}

#[tokio::test]
async fn a_collection_that_is_made_anew_is_followed_anew() {
    let Pair {
        leader,
        things,
        follower: b,
        ..
    } = &pair().await;
    put(things, "one", 1).await;
    shows(b, "one", Some(1)).await;
    leader.delete_collection(&name()).await.expect("deleted");
    let things = create(leader).await;
    put(&things, "two", 2).await;
    shows(b, "two", Some(2)).await;
    shows(b, "one", None).await;
}
