use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use rhumb_seams::{Clock, Ids, Rand};

use super::*;
use crate::{BucketOptions, ErrorKind};

proptest::proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let tag = Tag { etag: "t".into(), put_id: None };
        proptest::prop_assert!(decode::<u32>(&Path::from("x"), &bytes, tag).is_err());
    }

    #[test]
    fn an_envelope_of_anything_never_panics(
        format in 0u32..3,
        change in proptest::prelude::any::<u64>(),
        text in ".{0,40}",
        value in "[-0-9.eE\\[\\]{}\",:a-z]{0,40}",
    ) {
        let text = serde_json::Value::from(text);
        let json = format!(
            r#"{{"format":{format},"change":{change},"put_id":{text},"recent":[{text}],"sum":{text},"value":{value}}}"#
        );
        let tag = Tag { etag: "t".into(), put_id: None };
        proptest::prop_assert!(decode::<crate::state::State>(&Path::from("x"), json.as_bytes(), tag).is_err());
    }
}

/// A bucket in memory, and the bare store under it for damage.
async fn bucket() -> (Bucket, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    let rand = Rand::from_seed(7);
    let ids = Ids::new(Clock::starting_at(0), rand.clone());
    let options = BucketOptions {
        ram_cache_bytes: 0,
        certify: false,
        ..BucketOptions::default()
    };
    let bucket = Bucket::open_with(store.clone(), Path::default(), options, rand, ids).await;
    (bucket.expect("a bucket in memory"), store)
}

async fn cas() -> (Cas<u32>, Arc<InMemory>) {
    let (bucket, store) = bucket().await;
    let path = bucket.path("thing.json");
    (Cas::new(bucket, path), store)
}

/// Another process's handle on the same object.
fn other(cas: &Cas<u32>) -> Cas<u32> {
    Cas::new(cas.bucket.clone(), cas.path.clone())
}

fn landed<T>(swap: Result<Swap<T>>) -> Versioned<T> {
    match swap.expect("the store answers") {
        Swap::Landed(now) => now,
        Swap::Lost(_) | Swap::Unknown => panic!("it should have landed"),
    }
}

async fn bytes_of(store: &InMemory, cas: &Cas<u32>) -> Vec<u8> {
    store
        .get(&cas.path)
        .await
        .expect("there")
        .bytes()
        .await
        .expect("readable")
        .to_vec()
}

async fn overwrite(store: &InMemory, cas: &Cas<u32>, bytes: Vec<u8>) {
    store
        .put(&cas.path, PutPayload::from(bytes))
        .await
        .expect("written");
}

#[tokio::test]
async fn what_is_written_is_read() {
    let (cas, _) = cas().await;
    assert!(cas.load().await.expect("readable").is_none());
    let first = landed(cas.create(5).await);
    assert_eq!((first.value, first.change), (5, 1));
    let second = landed(cas.replace(&first, 6).await);
    let read = cas.load().await.expect("readable").expect("there");
    assert_eq!(
        (read.value, read.change, &read.tag.etag),
        (6, 2, &second.tag.etag)
    );
    assert!(cas.is_still(&second.tag).await.expect("readable"));
    assert!(!cas.is_still(&first.tag).await.expect("readable"));
}

#[tokio::test]
async fn the_second_creator_and_the_stale_writer_lose_and_see_the_winner() {
    let (cas, _) = cas().await;
    let first = landed(cas.create(5).await);
    assert!(matches!(other(&cas).create(9).await, Ok(Swap::Lost(now)) if now.value == 5));
    let second = landed(other(&cas).replace(&first, 6).await);
    assert!(matches!(cas.replace(&first, 7).await, Ok(Swap::Lost(now)) if now.value == 6));
    landed(cas.replace(&second, 8).await);
}

#[tokio::test]
async fn creating_what_has_long_been_there_is_lost_and_not_unknown() {
    let (cas, _) = cas().await;
    let mut current = landed(cas.create(0).await);
    for n in 1..=3 * RECENT as u32 {
        current = landed(cas.replace(&current, n).await);
        assert!(matches!(other(&cas).create(9).await, Ok(Swap::Lost(now)) if now.value == n));
    }
}

#[tokio::test]
async fn equal_values_never_make_equal_objects() {
    let (cas, store) = cas().await;
    let first = landed(cas.create(5).await);
    let before = bytes_of(&store, &cas).await;
    landed(cas.replace(&first, 5).await);
    assert_ne!(before, bytes_of(&store, &cas).await);
}

#[tokio::test]
async fn racing_updates_lose_none() {
    let (cas, _) = cas().await;
    landed(cas.create(0).await);
    let handles: Vec<_> = (0..8).map(|_| other(&cas)).collect();
    let added = futures::future::join_all(handles.iter().map(|cas| cas.update(|n| Ok(n + 1)))).await;
    assert!(added.iter().all(Result::is_ok));
    let now = cas.load().await.expect("readable").expect("there");
    assert_eq!((now.value, now.change), (8, 9));
}

#[tokio::test]
async fn an_update_can_refuse() {
    let (cas, _) = cas().await;
    let missing = cas.update(|n| Ok(*n)).await.expect_err("nothing is there");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    landed(cas.create(0).await);
    let refuse = |_: &u32| {
        Err(StoreError::Conflict {
            path: Path::from("x"),
        })
    };
    assert_eq!(
        cas.update(refuse).await.expect_err("refused").kind(),
        ErrorKind::Conflict
    );
    assert_eq!(cas.load().await.expect("readable").expect("there").change, 1);
}

#[tokio::test]
async fn any_damaged_byte_is_seen() {
    let (cas, store) = cas().await;
    landed(cas.create(1234).await);
    let whole = bytes_of(&store, &cas).await;
    for at in 0..whole.len() {
        for bit in [0x01, 0x10] {
            let mut damaged = whole.clone();
            damaged[at] ^= bit;
            overwrite(&store, &cas, damaged).await;
            let seen = other(&cas).load().await.expect_err("damaged");
            assert!(
                matches!(seen.kind(), ErrorKind::Corrupt | ErrorKind::Invalid),
                "byte {at}: {seen}"
            );
        }
        overwrite(&store, &cas, whole[..at].to_vec()).await;
        assert_eq!(
            other(&cas).load().await.expect_err("cut").kind(),
            ErrorKind::Corrupt
        );
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_by_name() {
    let (cas, store) = cas().await;
    let newer = br#"{"format":2,"shape":"unheard of"}"#.to_vec();
    overwrite(&store, &cas, newer).await;
    let refused = cas.load().await.expect_err("refused");
    assert!(matches!(refused, StoreError::NewerFormat { found: 2, known: 1 }));
}

#[tokio::test]
async fn a_store_that_goes_back_in_time_is_caught() {
    let (cas, store) = cas().await;
    let first = landed(cas.create(5).await);
    let old = bytes_of(&store, &cas).await;
    landed(cas.replace(&first, 6).await);
    overwrite(&store, &cas, old).await;
    assert_eq!(
        cas.load().await.expect_err("rolled back").kind(),
        ErrorKind::Corrupt
    );
    store.delete(&cas.path).await.expect("deleted");
    assert_eq!(cas.load().await.expect_err("vanished").kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_write_is_recognised_under_the_writes_that_came_after_it() {
    let (cas, _) = cas().await;
    let mut current = landed(cas.create(0).await);
    let draft = Draft::after(Some(&current), &1, cas.bucket.mint_put_id()).expect("a draft");
    let Outcome::Landed(_) = cas
        .bucket
        .replace(&cas.path, draft.bytes.clone(), &draft.put_id, &current.tag)
        .await
        .expect("written")
    else {
        panic!("it should have landed");
    };
    // The answer above is lost; meanwhile others go on.
    let stale = Draft::after(Some(&current), &2, cas.bucket.mint_put_id()).expect("a draft");
    for n in 0..=RECENT as u32 {
        current = cas.load().await.expect("readable").expect("there");
        if n > 0 {
            assert!(matches!(draft.trace_in(&current), Trace::Landed), "after {n}");
            assert!(matches!(stale.trace_in(&current), Trace::Lost), "after {n}");
        }
        current = landed(cas.replace(&current, 10 + n).await);
    }
    assert!(matches!(draft.trace_in(&current), Trace::Forgotten));
}
