//! A node that follows what another one leads: what it shows, and what it leaves to the
//! leader.

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Store, doc, field, name, schema, settings};
use rhumb_core::query::{Consistency, Include};
use rhumb_core::write::Write;
use rhumb_core::{FieldType, Scalar, Value};
use rhumb_engine::{Collection, Database, EngineError, Settings, Sharing};
use rhumb_seams::{Clock, Term};

const DIM: usize = 4;

async fn node(store: &Store, holder: &str) -> Database {
    let settings = Settings {
        sharing: Sharing::Terms,
        ..settings()
    };
    store.open_with(holder, settings).await
}

fn lead(node: &Database) -> (Term, Database) {
    let clock = Clock::starting_at(0);
    let until = clock.steady() + Duration::from_secs(600);
    let term = Term::new(clock, until);
    (term.clone(), node.under(term))
}

async fn create(leader: &Database) -> Arc<Collection> {
    let created = leader
        .create_collection(&name(), schema(DIM as u32), 2, None)
        .await;
    created.expect("created");
    leader.collection(&name()).await.expect("it is there")
}

async fn put(things: &Collection, id: &str, lex: i64) {
    let write = Write {
        upsert: vec![(id.into(), doc(lex, "n", &[0.5; DIM]))],
        ..Write::default()
    };
    things.write(write).await.expect("acknowledged");
}

async fn lex(things: &Collection, id: &str, consistency: Consistency) -> Result<Option<i64>, EngineError> {
    let reading = things.read(consistency, &[]).await?;
    let found = reading.get(&[id.into()], &Include::Everything).await?;
    Ok(found[0]
        .as_ref()
        .and_then(|stored| match stored.document.get("lex") {
            Some(Value::Int(lex)) => Some(*lex),
            _ => None,
        }))
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
    let store = Store::memory();
    let (a, b) = (node(&store, "a").await, node(&store, "b").await.following());
    let (_term, leader) = lead(&a);
    let things = create(&leader).await;
    put(&things, "one", 1).await;
    put(&things, "two", 1).await;
    shows(&b, "one", Some(1)).await;
    // The log grows, the base comes, another base comes, and rows go.
    put(&things, "one", 2).await;
    shows(&b, "one", Some(2)).await;
    things.optimize().await.expect("flushed");
    put(&things, "one", 3).await;
    shows(&b, "one", Some(3)).await;
    things.optimize().await.expect("flushed");
    let gone = Write {
        delete: vec!["one".into()],
        ..Write::default()
    };
    things.write(gone).await.expect("acknowledged");
    shows(&b, "one", None).await;
    shows(&b, "two", Some(1)).await;
    things.optimize().await.expect("merged");
    put(&things, "three", 3).await;
    shows(&b, "three", Some(3)).await;
    shows(&b, "one", None).await;
}

#[tokio::test]
async fn a_follower_learns_new_fields_before_it_shows_their_rows() {
    let store = Store::memory();
    let (a, b) = (node(&store, "a").await, node(&store, "b").await.following());
    let (_term, leader) = lead(&a);
    let things = create(&leader).await;
    put(&things, "one", 1).await;
    shows(&b, "one", Some(1)).await;
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
    shows(&b, "one", Some(2)).await;
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
    let store = Store::memory();
    let (a, b) = (node(&store, "a").await, node(&store, "b").await.following());
    let (_term, leader) = lead(&a);
    let things = create(&leader).await;
    let followed = b.collection(&name()).await.expect("in the catalog");
    let read = lex(&followed, "one", Consistency::Eventual).await;
    assert_eq!(read.expect("nobody wrote yet"), None);
    put(&things, "one", 1).await;
    shows(&b, "one", Some(1)).await;
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
        lex(&things, "one", Consistency::Strong).await.expect("read"),
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
    let store = Store::memory();
    let (a, b) = (node(&store, "a").await, node(&store, "b").await.following());
    let (_term, leader) = lead(&a);
    let things = create(&leader).await;
    put(&things, "one", 1).await;
    shows(&b, "one", Some(1)).await;
    leader.delete_collection(&name()).await.expect("deleted");
    let things = create(&leader).await;
    put(&things, "two", 2).await;
    shows(&b, "two", Some(2)).await;
    shows(&b, "one", None).await;
}
