//! A collection's quota of rows is exact: the last row that fits is taken, the next write
//! that adds one is refused whole, whoever writes at the same time.

mod fixture;

use std::sync::Arc;

use fixture::{Store, doc, field, name, schema};
use rhumb_core::query::{Consistency, Include};
use rhumb_core::write::{Condition, Idempotency, Write};
use rhumb_core::{Code, DocId, FieldType, Problem, Quota, Scalar};
use rhumb_engine::{Collection, Database, EngineError, Written};

const DIM: usize = 4;

fn rows(most: u64) -> Option<Quota> {
    Some(Quota {
        rows: Some(most),
        bytes: None,
    })
}

async fn collection(database: &Database, partitions: u32, quota: Option<Quota>) -> Arc<Collection> {
    database
        .create_collection(&name(), schema(DIM as u32), partitions, quota)
        .await
        .expect("created");
    database.collection(&name()).await.expect("there")
}

/// Documents of these numbers.
fn upsert(numbers: impl IntoIterator<Item = u32>) -> Write {
    let one = |n: u32| (id(n), doc(i64::from(n), "n", &[0.5; DIM]));
    Write {
        upsert: numbers.into_iter().map(one).collect(),
        ..Write::default()
    }
}

fn id(n: u32) -> DocId {
    format!("{n:04}").as_str().into()
}

fn full(outcome: Result<Written, EngineError>) -> Problem {
    match outcome {
        Err(EngineError::Refused(problem)) => {
            assert_eq!(problem.code, Code::QuotaExceeded);
            problem
        }
        other => panic!("not refused: {other:?}"),
    }
}

async fn held(things: &Collection) -> u64 {
    things.stats().await.expect("counted").rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_eleventh_row_of_ten_is_refused() {
    for partitions in [1, 4] {
        let database = Store::memory().open("writer").await;
        let things = collection(&database, partitions, rows(10)).await;
        full(things.write(upsert(0..11)).await);
        assert_eq!(held(&things).await, 0, "nothing of it was applied");
        things.write(upsert(0..9)).await.expect("nine");
        full(things.write(upsert(9..11)).await);
        things.write(upsert(9..10)).await.expect("the tenth");
        full(things.write(upsert(10..11)).await);
        assert_eq!(held(&things).await, 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_collection_is_overwritten_and_deleted_from() {
    for partitions in [1, 4] {
        let database = Store::memory().open("writer").await;
        let things = collection(&database, partitions, rows(10)).await;
        things.write(upsert(0..10)).await.expect("ten");
        things.write(upsert(0..10)).await.expect("the same ten");
        // Only new rows count: those that a condition keeps out are none.
        let absent = Write {
            condition: Some(Condition::Absent(false)),
            ..upsert(5..15)
        };
        let written = things.write(absent).await.expect("five of them are there");
        assert_eq!((written.counts.upserted, written.counts.skipped), (5, 5));
        let swap = Write {
            delete: vec![id(0)],
            ..upsert([0, 1])
        };
        things.write(swap).await.expect("as many as before");
        let delete = Write {
            delete: (0..3).map(id).collect(),
            ..Write::default()
        };
        things.write(delete).await.expect("deletes go");
        things.write(upsert(10..13)).await.expect("there is room again");
        full(things.write(upsert(13..14)).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_raised_and_lowered_at_any_time() {
    for partitions in [1, 4] {
        let database = Store::memory().open("writer").await;
        let things = collection(&database, partitions, None).await;
        things.write(upsert(0..20)).await.expect("no quota");
        let set = async |quota| things.declare(&[].into(), quota).await.expect("set");
        set(rows(10)).await;
        full(things.write(upsert(20..21)).await);
        things.write(upsert(0..20)).await.expect("what is there stays");
        set(rows(21)).await;
        things.write(upsert(20..21)).await.expect("one more");
        set(None).await;
        full(things.write(upsert(21..22)).await);
        set(Some(Quota::default())).await;
        things.write(upsert(21..40)).await.expect("no quota any more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_outlives_the_process_and_so_does_what_is_held() {
    let store = Store::memory();
    let database = store.open("first").await;
    let things = collection(&database, 4, rows(10)).await;
    things.write(upsert(0..10)).await.expect("ten");
    things.optimize().await.expect("in the base");
    things.write(upsert(2..4)).await.expect("fresh again");
    database.close().await;
    let database = store.open("second").await;
    // Asked for again as it is: neither another definition nor another quota.
    let things = collection(&database, 4, None).await;
    full(things.write(upsert(10..11)).await);
    things.write(upsert(0..10)).await.expect("the same ten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_the_same_time_fill_a_quota_and_do_not_pass_it() {
    for partitions in [1, 4] {
        let database = Store::memory().open("writer").await;
        let things = collection(&database, partitions, rows(50)).await;
        let writes = (0..80).map(|n| things.write(upsert([n])));
        let single = futures::future::join_all(writes).await;
        let taken = single.iter().filter(|written| written.is_ok()).count();
        assert_eq!((taken, held(&things).await), (50, 50), "{partitions} partitions");

        things.declare(&[].into(), rows(100)).await.expect("raised");
        let writes = (0..40).map(|n| things.write(upsert(100 + n * 7..107 + n * 7)));
        let whole = futures::future::join_all(writes).await;
        let taken = whole.into_iter().filter_map(|written| match written {
            Ok(written) => Some(written.counts.upserted),
            other => {
                full(other);
                None
            }
        });
        let taken: Vec<u64> = taken.collect();
        assert!(
            taken.iter().all(|rows| *rows == 7),
            "none is applied in part: {taken:?}"
        );
        assert_eq!(held(&things).await, 50 + 7 * taken.len() as u64);
        assert_eq!(taken.len(), 7, "seven times seven fit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_answered_though_the_collection_is_full() {
    for partitions in [1, 4] {
        let database = Store::memory().open("writer").await;
        let things = collection(&database, partitions, rows(10)).await;
        let keyed = |key: &str, write: Write| Write {
            idempotency: Some(Idempotency {
                key: key.to_owned(),
                body_hash: 1,
            }),
            ..write
        };
        let first = things.write(keyed("first", upsert(0..10))).await.expect("ten");
        let delete = Write {
            delete: (0..10).map(id).collect(),
            ..Write::default()
        };
        things.write(delete).await.expect("gone");
        things.write(upsert(20..30)).await.expect("another ten");
        let repeat = things.write(keyed("first", upsert(0..10))).await.expect("known");
        assert_eq!((repeat.counts, repeat.positions), (first.counts, first.positions));
        full(things.write(keyed("second", upsert(0..10))).await);
        assert_eq!(held(&things).await, 10);
        // A refusal is not remembered.
        things.declare(&[].into(), rows(20)).await.expect("raised");
        things
            .write(keyed("second", upsert(0..10)))
            .await
            .expect("fits now");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_refused_fixes_no_type() {
    for partitions in [1, 4] {
        let database = Store::memory().open("writer").await;
        let things = collection(&database, partitions, rows(3)).await;
        let mut write = upsert(0..4);
        write.new_fields.fields = [(field("late"), FieldType::Scalar(Scalar::Int))].into();
        let problem = full(things.write(write.clone()).await);
        assert_eq!(problem.field.as_deref(), Some("quota.rows"));
        assert!(things.schema().get("late").is_none());
        write.upsert.truncate(3);
        things.write(write).await.expect("fits");
        assert!(things.schema().get("late").is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_count_once_they_are_in_the_base() {
    for partitions in [1, 4] {
        let database = Store::memory().open("writer").await;
        let little = Quota {
            rows: None,
            bytes: Some(1),
        };
        let things = collection(&database, partitions, Some(little)).await;
        things.write(upsert(0..10)).await.expect("not in the base yet");
        things.optimize().await.expect("in the base");
        let problem = full(things.write(upsert(10..11)).await);
        assert_eq!(problem.field.as_deref(), Some("quota.bytes"));
        things.write(upsert(0..10)).await.expect("no new row");
        let bytes = things.stats().await.expect("counted").bytes;
        let more = Quota {
            rows: None,
            bytes: Some(bytes + 1),
        };
        things.declare(&[].into(), Some(more)).await.expect("raised");
        things.write(upsert(10..11)).await.expect("there is room");
    }
}

/// What a group counted and could not log is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_refused_for_another_reason_take_no_room() {
    let database = Store::memory().open("writer").await;
    let things = collection(&database, 1, rows(2)).await;
    for other in [FieldType::Scalar(Scalar::Bool), FieldType::Json] {
        let mut write = upsert(0..2);
        write.new_fields.fields = [(field("lex"), other)].into();
        let moved = things.write(write).await;
        assert!(matches!(moved, Err(EngineError::SchemaMoved)), "{moved:?}");
    }
    things.write(upsert(0..2)).await.expect("both fit");
    let reading = things.read(Consistency::Strong, &[]).await.expect("read");
    let found = reading
        .get(&[id(0), id(1)], &Include::Nothing)
        .await
        .expect("read");
    assert!(found.iter().all(Option::is_some));
}
