//! The real engine, Lance included, over a store that loses answers, applies late, doubles,
//! throttles, delays and cuts: concurrent writers, flushes and takeovers, then every
//! history is checked.  Nothing acknowledged lost, nothing applied that was refused.
//!
//! Lance computes on threads of its own, so a seed fixes the faults, not the schedule; the
//! protocol itself is simulated exactly in `sim`.

mod fixture;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fixture::{Store, doc, field};
use rhumb_core::query::{Consistency, Include};
use rhumb_core::write::{Idempotency, Write};
use rhumb_core::{DocId, Value};
use rhumb_engine::{Collection, Database, EngineError};
use rhumb_seams::Rand;
use rhumb_store::fault::{Fault, Faults, Rule};
use rhumb_store::metrics::Op;
use rhumb_store::retry::RetryPolicy;

const DIM: usize = 4;
const WRITERS: usize = 4;
const KEYS: u64 = 6;
const ROUNDS: usize = 4;
const WRITES: usize = 25;

/// What one writer knows about one of its keys.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: i64,
    /// Written after that, outcome unknown.
    in_doubt: Vec<i64>,
}

type Knowledge = BTreeMap<DocId, Known>;

fn faults(rand: &Rand) -> Faults {
    let faults = Faults::new(rand.clone());
    faults.add_rule(Rule::new(Fault::LoseAnswer).on(Op::Put).chance(0.08));
    faults.add_rule(Rule::new(Fault::FailBefore).chance(0.04));
    faults.add_rule(Rule::new(Fault::Throttle).chance(0.02));
    faults.add_rule(
        Rule::new(Fault::Duplicate { requests: 20 })
            .on(Op::Put)
            .chance(0.03),
    );
    faults.add_rule(
        Rule::new(Fault::Hold { requests: 15 })
            .on(Op::Put)
            .at("/wal/")
            .chance(0.03),
    );
    faults.add_rule(Rule::new(Fault::Truncate).on(Op::Get).chance(0.02));
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_under_store_faults() {
    let seed = std::env::var("RHUMB_FAULT_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(7);
    println!("seed {seed}");
    let rand = Rand::from_seed(seed);
    let faults = faults(&rand);
    let mut store = Store::memory();
    store.options.faults = Some(faults.clone());
    store.options.retry = RetryPolicy {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(20),
        ..RetryPolicy::default()
    };
    let mut database = store.open("writer").await;
    database
        .create_collection(&fixture::name(), fixture::schema(DIM as u32), 2, None)
        .await
        .expect("created");
    let mut known: Vec<Knowledge> = vec![Knowledge::new(); WRITERS];
    for round in 0..ROUNDS {
        let collection = database.collection(&fixture::name()).await.expect("there");
        let writers = known.into_iter().enumerate().map(|(n, known)| {
            let (collection, rand) = (collection.clone(), rand.clone());
            write_some(n, round, collection, rand, known)
        });
        let flush = async { collection.optimize().await };
        let (written, flushed) = tokio::join!(futures::future::join_all(writers), flush);
        flushed.expect("a flush ends, however often the store fails");
        known = written;
        // Taken over while it runs: the old one must do no harm.
        let next = store.open("writer").await;
        let old = std::mem::replace(&mut database, next);
        check(&database, &known).await;
        old.close().await;
    }
    faults.clear();
    database.close().await;
    let database = store.open("reader").await;
    check(&database, &known).await;
    let hits: u64 = faults.hits().iter().map(|(_, n)| n).sum();
    assert!(hits > 50, "only {hits} faults were met: the test proves nothing");
}

async fn write_some(
    writer: usize,
    round: usize,
    collection: Arc<Collection>,
    rand: Rand,
    mut known: Knowledge,
) -> Knowledge {
    for n in 0..WRITES {
        let id = DocId::from(format!("w{writer}-{}", rand.below(KEYS)).as_str());
        let value = (round * WRITES + n + 1) as i64;
        let write = Write {
            upsert: vec![(id.clone(), doc(value, "n", &[0.5; DIM]))],
            idempotency: Some(Idempotency {
                key: format!("{writer}-{value}"),
                body_hash: value as u64,
            }),
            ..Write::default()
        };
        let entry = known.entry(id).or_default();
        let first = collection.write(write.clone()).await;
        // A retry with the same key: the answer to the first attempt, or the first attempt.
        let settled = match first {
            Err(EngineError::OutcomeUnknown) => collection.write(write).await,
            other => other,
        };
        match settled {
            Ok(written) => {
                assert_eq!(written.counts.upserted, 1);
                *entry = Known {
                    acknowledged: value,
                    in_doubt: Vec::new(),
                };
            }
            Err(EngineError::OutcomeUnknown) => entry.in_doubt.push(value),
            Err(EngineError::Unavailable(_) | EngineError::Busy(_) | EngineError::Store(_)) => {}
            Err(e) => panic!("writer {writer} was answered {e}"),
        }
    }
    known
}

async fn check(database: &Database, known: &[Knowledge]) {
    let collection = loop {
        match database.collection(&fixture::name()).await {
            Ok(collection) => break collection,
            Err(EngineError::Store(_) | EngineError::Unavailable(_)) => {}
            Err(e) => panic!("the collection cannot be opened: {e}"),
        }
    };
    for (id, known) in known.iter().flatten() {
        let found = loop {
            let read = async {
                let reading = collection.read(Consistency::Verified, &[]).await?;
                reading.get(std::slice::from_ref(id), &Include::Everything).await
            };
            match read.await {
                Ok(found) => break found,
                Err(EngineError::Store(e)) if e.kind() == rhumb_store::ErrorKind::Retry => {}
                Err(EngineError::Unavailable(_) | EngineError::Lance(_)) => {}
                Err(e) => panic!("{id} cannot be read: {e}"),
            }
        };
        let value = found[0]
            .as_ref()
            .and_then(|s| s.document.get(field("lex").as_str()))
            .cloned();
        let allowed = known.in_doubt.iter().chain([&known.acknowledged]);
        let fits = match value {
            Some(Value::Int(value)) => allowed.clone().any(|a| *a == value),
            _ => known.acknowledged == 0,
        };
        assert!(fits, "{id} is {value:?}, known {known:?}");
    }
}

/// A mistake of ours in the middle of a write or a flush: what was under way is in doubt,
/// what was acknowledged is there, and the next request finds the collection open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_partition_costs_one_answer_and_no_row() {
    let faults = Faults::new(Rand::from_seed(1));
    let mut store = Store::memory();
    store.options.faults = Some(faults.clone());
    let database = store.open("writer").await;
    database
        .create_collection(&fixture::name(), fixture::schema(DIM as u32), 1, None)
        .await
        .expect("created");
    let collection = database.collection(&fixture::name()).await.expect("there");
    let put = |id: &str, lex: i64| {
        let upsert = vec![(id.into(), doc(lex, "n", &[0.5; DIM]))];
        collection.write(Write {
            upsert,
            ..Write::default()
        })
    };
    put("kept", 1).await.expect("acknowledged");
    for (round, path) in [(2, "/wal/"), (3, "/state.json")] {
        let rule = faults.add_rule(Rule::new(Fault::Panic).on(Op::Put).at(path).times(1));
        let written = put("kept", round).await;
        let flushed = collection.optimize().await;
        faults.remove_rule(rule);
        assert_eq!(faults.hits_of(Fault::Panic), round as u64 - 1, "{path}");
        if path == "/wal/" {
            assert!(matches!(written, Err(EngineError::OutcomeUnknown)), "{written:?}");
            put("kept", round).await.expect("open again");
        } else {
            assert!(matches!(flushed, Err(EngineError::Unavailable(_))), "{flushed:?}");
        }
        let reading = collection
            .read(Consistency::Strong, &[])
            .await
            .expect("open again");
        let found = reading
            .get(&["kept".into()], &Include::Everything)
            .await
            .expect("read");
        let document = &found[0].as_ref().expect("it is there").document;
        assert_eq!(document.get("lex"), Some(&Value::Int(round)), "{path}");
    }
    collection.optimize().await.expect("flushes again");
    database.close().await;
}
