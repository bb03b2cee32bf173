use std::time::Duration;

use object_store::memory::InMemory;
use rhumb_seams::Rand;

use super::digest::BLOCK;
use super::*;
use crate::fault::{Fault, FaultStore, Faults, Rule};
use crate::metrics::Op;

struct World {
    backend: Arc<InMemory>,
    faults: Faults,
    metrics: Metrics,
    store: SumStore,
}

const FILE: &str = "c/1/p0/table/data/x.lance";
const SUMS: &str = "c/1/p0/sums/data/x.lance.crc";

fn at(path: &str) -> Path {
    Path::from(path)
}

fn over(backend: Arc<InMemory>) -> World {
    let faults = Faults::new(Rand::from_seed(3));
    let metrics = Metrics::default();
    let faulty = Arc::new(FaultStore::new(backend.clone(), faults.clone()));
    World {
        backend,
        faults,
        metrics: metrics.clone(),
        store: SumStore::new(faulty, metrics),
    }
}

fn body(length: u64) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

async fn world(length: u64) -> (World, Vec<u8>) {
    let world = over(Arc::new(InMemory::new()));
    let body = body(length);
    world
        .store
        .put(&at(FILE), body.clone().into())
        .await
        .expect("written");
    (world, body)
}

impl World {
    /// Another process on the same store: it knows no checksums yet.
    fn elsewhere(&self) -> World {
        over(self.backend.clone())
    }

    async fn read(&self) -> Result<Bytes> {
        self.store.get(&at(FILE)).await?.bytes().await
    }

    async fn flip_at_rest(&self, path: &str, byte: usize) {
        let found = self
            .backend
            .get(&at(path))
            .await
            .expect("there")
            .bytes()
            .await
            .expect("read");
        let mut flipped = found.to_vec();
        flipped[byte] ^= 1;
        self.backend
            .put(&at(path), flipped.into())
            .await
            .expect("written");
    }
}

#[tokio::test]
async fn every_kind_of_read_is_what_was_written() {
    for length in [0, 1, BLOCK, BLOCK * 3 + 100] {
        let (world, body) = world(length).await;
        for world in [world.elsewhere(), world] {
            assert_eq!(world.read().await.expect("read"), body);
            for range in [
                0..1,
                BLOCK - 1..BLOCK + 1,
                BLOCK * 2..BLOCK * 3 + 100,
                BLOCK * 3..BLOCK * 9,
            ] {
                let asked = GetOptions::new().with_range(Some(range));
                let checked = world.store.get_opts(&at(FILE), asked.clone()).await;
                match (checked, world.backend.get_opts(&at(FILE), asked).await) {
                    (Ok(checked), Ok(plain)) => {
                        assert_eq!((&checked.meta, &checked.range), (&plain.meta, &plain.range));
                        assert_eq!(
                            checked.bytes().await.expect("read"),
                            plain.bytes().await.expect("read")
                        );
                    }
                    (Err(_), Err(_)) => {}
                    (checked, plain) => panic!("{checked:?}, store {plain:?}"),
                }
            }
            assert_eq!(world.store.head(&at(FILE)).await.expect("there").size, length);
        }
    }
}

#[tokio::test]
async fn ranges_read_together_are_checked_together() {
    let (world, body) = world(BLOCK * 5).await;
    world
        .faults
        .add_rule(Rule::new(Fault::FlipBit).on(Op::Get).at(FILE).times(2));
    let ranges = [3..10, BLOCK + 5..BLOCK * 3, BLOCK * 5 - 1..BLOCK * 5];
    let read = world.store.get_ranges(&at(FILE), &ranges).await.expect("read");
    for (range, bytes) in ranges.iter().zip(read) {
        assert_eq!(bytes, body[range.start as usize..range.end as usize]);
    }
    assert_eq!(world.metrics.count_of(Event::Damaged), 2);
    world
        .store
        .get_ranges(&at(FILE), &[BLOCK * 5..BLOCK * 5 + 1, 0..1])
        .await
        .expect_err("beyond the end");
}

#[tokio::test]
async fn a_bit_flipped_on_the_way_costs_another_read() {
    let (world, body) = world(BLOCK * 4).await;
    for world in [world.elsewhere(), world] {
        world
            .faults
            .add_rule(Rule::new(Fault::FlipBit).on(Op::Get).times(2));
        assert_eq!(world.read().await.expect("read"), body);
        assert!(world.metrics.count_of(Event::Damaged) >= 2);
    }
}

#[tokio::test]
async fn every_byte_flipped_at_rest_is_an_error_and_never_an_answer() {
    let (world, _) = world(2_000).await;
    for byte in 0..2_000 {
        world.flip_at_rest(FILE, byte).await;
        let error = world.read().await.expect_err("damaged");
        assert!(is_damaged(&error), "{error}");
        world.flip_at_rest(FILE, byte).await;
    }
    world.read().await.expect("mended");
}

#[tokio::test]
async fn damaged_checksums_are_told_from_a_damaged_file_and_can_be_removed() {
    let (world, body) = world(BLOCK).await;
    world.flip_at_rest(SUMS, 20).await;
    assert_eq!(world.read().await.expect("read"), body, "known already");
    let elsewhere = world.elsewhere();
    let error = elsewhere.read().await.expect_err("damaged");
    assert!(
        is_damaged(&error) && error.to_string().contains("checksums"),
        "{error}"
    );
    world.backend.delete(&at(SUMS)).await.expect("deleted");
    assert_eq!(elsewhere.read().await.expect("unchecked"), body);
}

#[tokio::test]
async fn a_file_cut_or_replaced_at_rest_is_damaged() {
    let (world, body) = world(BLOCK * 2).await;
    for other in [
        &body[..BLOCK as usize],
        &body[..BLOCK as usize * 2 - 1],
        &[&body[..], b"x"].concat(),
    ] {
        world
            .backend
            .put(&at(FILE), other.to_vec().into())
            .await
            .expect("written");
        let error = world.read().await.expect_err("damaged");
        assert!(is_damaged(&error), "{} bytes: {error}", other.len());
    }
}

#[tokio::test]
async fn large_files_are_checked_step_by_step() {
    let (world, body) = world(STEP * 2 + 77).await;
    world
        .faults
        .add_rule(Rule::new(Fault::FlipBit).on(Op::Get).skip(1).times(1));
    assert!(world.read().await.expect("read") == body);
    assert_eq!(world.metrics.count_of(Event::Damaged), 1);
    world.flip_at_rest(FILE, STEP as usize + 5).await;
    let error = world.read().await.expect_err("damaged in the second step");
    assert!(
        is_damaged(&error) || matches!(error, OsError::Precondition { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn parts_are_summed_up_in_their_order() {
    let world = over(Arc::new(InMemory::new()));
    let body = body(BLOCK * 3 + 9);
    let mut upload = world.store.put_multipart(&at(FILE)).await.expect("started");
    for part in body.chunks(10_000) {
        upload.put_part(part.to_vec().into()).await.expect("a part");
    }
    upload.complete().await.expect("complete");
    let elsewhere = world.elsewhere();
    assert_eq!(elsewhere.read().await.expect("read"), body);
    world.flip_at_rest(FILE, 30_000).await;
    elsewhere.read().await.expect_err("damaged");
}

#[tokio::test]
async fn what_is_not_a_table_file_has_no_checksums() {
    let (world, _) = world(10).await;
    for path in [
        "c/1/p0/wal/1.arrow",
        "c/1/p0/state.json",
        "c/1/p0/table/_transactions/1.txn",
        "table/data/x",
    ] {
        world.store.put(&at(path), "x".into()).await.expect("written");
        assert_eq!(
            world
                .store
                .get(&at(path))
                .await
                .expect("there")
                .bytes()
                .await
                .expect("read"),
            "x"
        );
    }
    let listed: Vec<Path> = world
        .backend
        .list(None)
        .map_ok(|m| m.location)
        .try_collect()
        .await
        .expect("listed");
    assert_eq!(
        listed
            .iter()
            .filter(|path| path.as_ref().ends_with(".crc"))
            .count(),
        1
    );
    // A file of somebody else.
    world
        .backend
        .put(&at("c/1/p0/table/data/y"), "y".into())
        .await
        .expect("written");
    assert_eq!(
        world
            .store
            .get_range(&at("c/1/p0/table/data/y"), 0..1)
            .await
            .expect("read"),
        "y"
    );
}

#[tokio::test]
async fn checksums_go_with_their_file() {
    let (world, _) = world(10).await;
    world.store.delete(&at(FILE)).await.expect("deleted");
    assert!(world.backend.list(None).next().await.is_none());
    assert!(matches!(world.read().await, Err(OsError::NotFound { .. })));
    world.store.put(&at(FILE), "anew".into()).await.expect("written");
    world
        .backend
        .put(&at("c/1/p0/table/data/z"), "other".into())
        .await
        .expect("written");
    world
        .store
        .copy(&at("c/1/p0/table/data/z"), &at(FILE))
        .await
        .expect("copied");
    assert_eq!(
        world.read().await.expect("read"),
        "other",
        "not held against the checksums of what was there"
    );
}

#[tokio::test]
async fn a_manifest_that_landed_is_never_denied() {
    let world = over(Arc::new(InMemory::new()));
    let manifest = at("c/1/p0/table/_versions/7.manifest");
    world.faults.add_rule(Rule::new(Fault::Outage).at("/sums/"));
    world
        .store
        .put_opts(&manifest, "m".into(), PutMode::Create.into())
        .await
        .expect("it landed");
    world
        .store
        .put(&at(FILE), "d".into())
        .await
        .expect_err("a data file without checksums is written again");
    world.faults.clear();
    let again = world
        .store
        .put_opts(&manifest, "n".into(), PutMode::Create.into())
        .await;
    assert!(matches!(again, Err(OsError::AlreadyExists { .. })), "{again:?}");
    assert_eq!(
        world
            .store
            .get(&manifest)
            .await
            .expect("there")
            .bytes()
            .await
            .expect("read"),
        "m"
    );
    let sums = world
        .backend
        .head(&at("c/1/p0/sums/_versions/7.manifest.crc"))
        .await;
    assert!(
        matches!(sums, Err(OsError::NotFound { .. })),
        "the loser left no checksums"
    );
}

#[tokio::test(start_paused = true)]
async fn readers_of_one_file_fetch_its_checksums_once() {
    let (world, _) = world(BLOCK).await;
    let elsewhere = world.elsewhere();
    elsewhere
        .faults
        .add_rule(Rule::new(Fault::Delay(Duration::from_millis(20))).at("/sums/"));
    futures::future::join_all((0..10).map(|_| elsewhere.read())).await;
    assert_eq!(elsewhere.faults.hits_of(Fault::Delay(Duration::ZERO)), 1);
}

#[tokio::test]
async fn a_name_written_anew_elsewhere_is_read_under_its_new_checksums() {
    let (world, _) = world(BLOCK * 2).await;
    world.read().await.expect("read");
    let elsewhere = world.elsewhere();
    elsewhere
        .store
        .put(&at(FILE), "another file".into())
        .await
        .expect("written");
    assert_eq!(world.read().await.expect("read"), "another file");
    let ranges = world
        .store
        .get_ranges(&at(FILE), &[0..7, 8..12])
        .await
        .expect("read");
    assert_eq!(ranges, ["another", "file"]);
}
