use std::fs;

use futures::future::join_all;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use rhumb_seams::Rand;

use super::*;
use crate::fault::{Fault, FaultStore, Faults, Rule};
use crate::metrics::{MetricsStore, Op};
use crate::testing::TempFolder;

const BLOCK: u64 = 64;

struct World {
    backend: Arc<InMemory>,
    faults: Faults,
    metrics: Metrics,
    cache: ReadCache,
}

fn immutable(path: &Path) -> bool {
    path.as_ref().starts_with("data/")
}

fn options(disk: Option<&TempFolder>) -> CacheOptions {
    CacheOptions {
        ram_bytes: 1 << 20,
        disk: disk.map(|folder| (folder.path().to_owned(), 1 << 20)),
        block_bytes: BLOCK,
        uid: "db1".into(),
        immutable,
        sealing: None,
    }
}

async fn over(backend: Arc<InMemory>, options: CacheOptions) -> World {
    let faults = Faults::new(Rand::from_seed(1));
    let metrics = Metrics::default();
    let faulty = Arc::new(FaultStore::new(backend.clone(), faults.clone()));
    let measured = Arc::new(MetricsStore::new(faulty, metrics.clone()));
    let cache = ReadCache::open(measured, options, metrics.clone()).await;
    World {
        backend,
        faults,
        metrics,
        cache,
    }
}

async fn world(disk: Option<&TempFolder>) -> World {
    over(Arc::new(InMemory::new()), options(disk)).await
}

fn body(length: u64) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn at(path: &str) -> Path {
    Path::from(path)
}

impl World {
    async fn put(&self, path: &str, length: u64) -> Vec<u8> {
        let body = body(length);
        self.backend
            .put(&at(path), body.clone().into())
            .await
            .expect("written");
        body
    }

    fn gets(&self) -> u64 {
        self.metrics.requests(Op::Get)
    }

    async fn range(&self, path: &str, range: Range<u64>) -> Bytes {
        self.cache.get_range(&at(path), range).await.expect("read")
    }

    /// The same database started again: nothing in RAM.
    async fn restarted(&self, disk: &TempFolder) -> World {
        over(self.backend.clone(), options(Some(disk))).await
    }
}

/// The files of the disk tier of database `uid`.
fn block_files(folder: &TempFolder, uid: &str) -> Vec<PathBuf> {
    let blocks = folder.path().join("rhumb-blocks").join(uid);
    fs::read_dir(blocks)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[tokio::test]
async fn every_range_of_every_size_reads_as_from_the_store() {
    let world = world(None).await;
    for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK * 5 + 7] {
        let path = format!("data/{length}");
        let whole = world.put(&path, length).await;
        let edges = [
            0,
            1,
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            BLOCK * 3,
            length.saturating_sub(1),
            length,
            length + 9,
        ];
        for start in edges {
            for end in edges {
                let asked = GetOptions::new().with_range(Some(start..end));
                let (cached, stored) = (
                    world.cache.get_opts(&at(&path), asked.clone()).await,
                    world.backend.get_opts(&at(&path), asked).await,
                );
                match (cached, stored) {
                    (Ok(cached), Ok(stored)) => {
                        assert_eq!((&cached.meta, &cached.range), (&stored.meta, &stored.range));
                        assert_eq!(
                            cached.bytes().await.expect("read"),
                            stored.bytes().await.expect("read")
                        );
                    }
                    (Err(_), Err(_)) => {}
                    (cached, stored) => panic!("{path} {start}..{end}: {cached:?}, store {stored:?}"),
                }
            }
        }
        assert_eq!(
            world
                .cache
                .get(&at(&path))
                .await
                .expect("there")
                .bytes()
                .await
                .expect("read"),
            whole
        );
        assert_eq!(world.cache.head(&at(&path)).await.expect("there").size, length);
    }
}

#[tokio::test]
async fn suffixes_and_offsets_are_resolved() {
    let world = world(None).await;
    let whole = world.put("data/a", 500).await;
    for (range, expected) in [
        (GetRange::Suffix(70), 430..500),
        (GetRange::Offset(77), 77..500),
        (GetRange::Suffix(900), 0..500),
    ] {
        let asked = GetOptions {
            range: Some(range),
            ..GetOptions::new()
        };
        let found = world.cache.get_opts(&at("data/a"), asked).await.expect("there");
        assert_eq!(found.range, expected);
        let expected = expected.start as usize..expected.end as usize;
        assert_eq!(found.bytes().await.expect("read"), whole[expected]);
    }
}

#[tokio::test]
async fn what_was_read_once_costs_no_request_and_neighbours_cost_one() {
    let world = world(None).await;
    world.put("data/a", BLOCK * 10).await;
    world.range("data/a", 10..BLOCK * 4).await;
    assert_eq!(
        world.gets(),
        1,
        "four neighbouring blocks, and the size with them"
    );
    world.range("data/a", 0..BLOCK * 4).await;
    assert_eq!(world.gets(), 1);
    let ranges = world
        .cache
        .get_ranges(
            &at("data/a"),
            &[5..6, BLOCK * 6..BLOCK * 7 + 1, BLOCK * 9..BLOCK * 10],
        )
        .await;
    assert_eq!(
        ranges.expect("read").iter().map(Bytes::len).collect::<Vec<_>>(),
        [1, 65, 64]
    );
    assert_eq!(world.gets(), 3, "blocks 6 and 7 in one, block 9 in another");
    assert_eq!(world.metrics.requests(Op::Head), 0);
}

#[tokio::test]
async fn mutable_names_always_come_from_the_store() {
    let world = world(None).await;
    world.put("state.json", 10).await;
    world.range("state.json", 0..10).await;
    world
        .backend
        .put(&at("state.json"), "changed!!!".into())
        .await
        .expect("written");
    assert_eq!(world.range("state.json", 0..10).await, "changed!!!");
    assert_eq!(world.gets(), 2);
}

#[tokio::test]
async fn a_missing_object_is_not_remembered_as_missing() {
    let world = world(None).await;
    assert!(matches!(
        world.cache.get(&at("data/a")).await,
        Err(OsError::NotFound { .. })
    ));
    let body = world.put("data/a", 10).await;
    assert_eq!(world.range("data/a", 0..10).await, body);
    world.cache.delete(&at("data/a")).await.expect("deleted");
    assert!(matches!(
        world.cache.get(&at("data/a")).await,
        Err(OsError::NotFound { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn many_readers_of_a_cold_block_cost_one_request() {
    let world = world(None).await;
    let whole = world.put("data/a", BLOCK * 8).await;
    // Known, so that the readers meet in the blocks.
    world.cache.head(&at("data/a")).await.expect("there");
    world
        .faults
        .add_rule(Rule::new(Fault::Delay(std::time::Duration::from_millis(50))).on(Op::Get));
    let readers = (0..20).map(|_| world.range("data/a", 0..BLOCK * 8));
    for read in join_all(readers).await {
        assert_eq!(read, whole);
    }
    assert_eq!(world.gets(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_fails_or_goes_away_leaves_the_others_to_help_themselves() {
    let world = world(None).await;
    let whole = world.put("data/a", BLOCK).await;
    world.cache.head(&at("data/a")).await.expect("there");
    world
        .faults
        .add_rule(Rule::new(Fault::Delay(std::time::Duration::from_millis(50))).on(Op::Get));
    world
        .faults
        .add_rule(Rule::new(Fault::FailBefore).on(Op::Get).times(1));
    let at = at("data/a");
    let readers = join_all((0..5).map(|_| world.cache.get_range(&at, 0..BLOCK))).await;
    assert_eq!(
        readers.iter().filter(|read| read.is_err()).count(),
        1,
        "the one that led"
    );
    assert!(readers.into_iter().flatten().all(|read| read == whole));

    world.put("data/b", BLOCK).await;
    let at = Path::from("data/b");
    world.cache.head(&at).await.expect("there");
    let goes_away = tokio::time::timeout(
        std::time::Duration::from_millis(10),
        world.cache.get_range(&at, 0..BLOCK),
    );
    let (gone, stays) = tokio::join!(goes_away, world.cache.get_range(&at, 0..BLOCK));
    gone.expect_err("it led and was dropped");
    assert_eq!(stays.expect("read"), whole);
}

#[tokio::test]
async fn a_short_body_is_an_error_and_never_cached() {
    let world = world(None).await;
    let whole = world.put("data/a", BLOCK * 2).await;
    world.cache.head(&at("data/a")).await.expect("there");
    world
        .faults
        .add_rule(Rule::new(Fault::Truncate).on(Op::Get).times(1));
    world
        .cache
        .get_range(&at("data/a"), 0..BLOCK * 2)
        .await
        .expect_err("short");
    assert_eq!(world.range("data/a", 0..BLOCK * 2).await, whole);
}

#[tokio::test]
async fn ram_stays_within_its_bound() {
    let bound = 64 << 10;
    let small = CacheOptions {
        ram_bytes: bound,
        ..options(None)
    };
    let world = over(Arc::new(InMemory::new()), small).await;
    for i in 0..40 {
        let path = format!("data/{i}");
        let whole = world.put(&path, 8 << 10).await;
        assert_eq!(
            world
                .cache
                .get(&at(&path))
                .await
                .expect("there")
                .bytes()
                .await
                .expect("read"),
            whole
        );
    }
    world.cache.0.ram.run_pending_tasks();
    assert!(
        world.cache.0.ram.weighted_size() <= bound,
        "{}",
        world.cache.0.ram.weighted_size()
    );
    world.put("data/huge", bound).await;
    let before = world.cache.0.ram.weighted_size();
    world.range("data/huge", 0..bound / 2).await;
    world.cache.0.ram.run_pending_tasks();
    assert!(
        world.cache.0.ram.weighted_size() <= before + BLOCK + BLOCK_OVERHEAD as u64 * 2,
        "a scan passes by"
    );
}

#[tokio::test]
async fn a_restart_finds_its_blocks_on_disk_and_asks_the_store_for_nothing() {
    let disk = TempFolder::new();
    let world = world(Some(&disk)).await;
    let whole = world.put("data/a", BLOCK * 3 + 5).await;
    world.range("data/a", 0..BLOCK * 3 + 5).await;
    assert_eq!(block_files(&disk, "db1").len(), 4);
    let again = world.restarted(&disk).await;
    assert_eq!(again.range("data/a", 0..BLOCK * 3 + 5).await, whole);
    assert_eq!(again.gets(), 0);
    assert_eq!(again.metrics.count_of(Event::CacheDisk), 4);
    let (cached, stored) = (
        again.cache.head(&at("data/a")).await,
        again.backend.head(&at("data/a")).await,
    );
    let (cached, stored) = (cached.expect("there"), stored.expect("there"));
    assert_eq!((cached.size, cached.e_tag), (stored.size, stored.e_tag));
}

#[tokio::test]
async fn a_flipped_cut_emptied_or_swapped_block_is_fetched_again() {
    let disk = TempFolder::new();
    let world = world(Some(&disk)).await;
    let whole = world.put("data/a", BLOCK * 4).await;
    type Damage = fn(&[PathBuf]);
    let damages: [Damage; 4] = [
        |files| {
            for file in files {
                let mut bytes = fs::read(file).expect("read");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                fs::write(file, bytes).expect("written");
            }
        },
        |files| {
            files
                .iter()
                .for_each(|f| fs::write(f, &fs::read(f).expect("read")[..40]).expect("written"))
        },
        |files| files.iter().for_each(|f| fs::write(f, "").expect("written")),
        |files| {
            let first = fs::read(&files[0]).expect("read");
            files[1..]
                .iter()
                .for_each(|f| fs::write(f, &first).expect("written"));
            fs::write(&files[0], "gone").expect("written");
        },
    ];
    for damage in damages {
        world.restarted(&disk).await.range("data/a", 0..BLOCK * 4).await;
        let files = block_files(&disk, "db1");
        assert_eq!(files.len(), 4);
        damage(&files);
        let again = world.restarted(&disk).await;
        assert_eq!(again.range("data/a", 0..BLOCK * 4).await, whole);
        assert_eq!(again.metrics.count_of(Event::CacheCorrupt), 4);
        assert!(again.gets() > 0);
    }
}

#[tokio::test]
async fn the_blocks_of_another_database_are_removed_not_read() {
    let disk = TempFolder::new();
    let world = world(Some(&disk)).await;
    world.put("data/a", BLOCK).await;
    world.range("data/a", 0..BLOCK).await;
    fs::write(disk.path().join("not-ours"), "keep").expect("written");
    let stolen = block_files(&disk, "db1").pop().expect("a block");
    let bytes = fs::read(&stolen).expect("read");

    let other = Arc::new(InMemory::new());
    other
        .put(&at("data/a"), vec![9; BLOCK as usize].into())
        .await
        .expect("written");
    let theirs = over(
        other,
        CacheOptions {
            uid: "db2".into(),
            ..options(Some(&disk))
        },
    )
    .await;
    assert!(!disk.path().join("rhumb-blocks/db1").exists());
    assert!(disk.path().join("not-ours").exists());
    assert_eq!(theirs.range("data/a", 0..BLOCK).await, vec![9; BLOCK as usize]);

    // Even under the right name: the place is part of the checksum.
    let mine = block_files(&disk, "db2").pop().expect("a block");
    fs::write(&mine, bytes).expect("written");
    let again = over(
        theirs.backend.clone(),
        CacheOptions {
            uid: "db2".into(),
            ..options(Some(&disk))
        },
    )
    .await;
    assert_eq!(again.range("data/a", 0..BLOCK).await, vec![9; BLOCK as usize]);
    assert_eq!(again.metrics.count_of(Event::CacheCorrupt), 1);
}

#[tokio::test]
async fn the_disk_stays_within_its_bound_and_drops_what_was_not_used_longest() {
    let disk = TempFolder::new();
    let bounded = |ram| CacheOptions {
        disk: Some((disk.path().to_owned(), 1_200)),
        ram_bytes: ram,
        ..options(None)
    };
    let world = over(Arc::new(InMemory::new()), bounded(1 << 20)).await;
    for i in 0..20 {
        world.put(&format!("data/{i}"), BLOCK).await;
        world.range(&format!("data/{i}"), 0..BLOCK).await;
    }
    let used: u64 = block_files(&disk, "db1")
        .iter()
        .map(|f| fs::metadata(f).expect("there").len())
        .sum();
    assert!(used <= 1_200 && used > 900, "{used}");
    drop(world);
    for i in 20..40 {
        // Started again each time, so that the read of block 6 reaches the disk.
        let world = over(Arc::new(InMemory::new()), bounded(1 << 20)).await;
        world.put("data/6", BLOCK).await;
        world.range("data/6", 0..BLOCK).await;
        world.put(&format!("data/{i}"), BLOCK).await;
        world.range(&format!("data/{i}"), 0..BLOCK).await;
        assert!(
            i == 20 || world.metrics.count_of(Event::CacheDisk) > 0,
            "used each time, {i} pushed it out"
        );
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_left_alone_and_reads_go_on() {
    let disk = TempFolder::new();
    let world = world(Some(&disk)).await;
    let whole = world.put("data/a", BLOCK * 4).await;
    world.range("data/a", 0..BLOCK).await;
    // A file where the folder was: every call fails with something else than "not found".
    fs::remove_dir_all(disk.path().join("rhumb-blocks")).expect("removed");
    fs::write(disk.path().join("rhumb-blocks"), "in the way").expect("written");
    assert_eq!(world.range("data/a", 0..BLOCK * 4).await, whole);
    let unusable = world.restarted(&disk).await;
    assert!(unusable.cache.0.disk.is_none());
    assert_eq!(unusable.range("data/a", 0..BLOCK * 4).await, whole);
}

#[test]
fn neighbouring_blocks_are_fetched_together_up_to_the_bound() {
    assert_eq!(runs(&[], 4), []);
    assert_eq!(runs(&[3], 4), [(3, 3)]);
    assert_eq!(runs(&[1, 2, 3, 7, 9, 10], 4), [(1, 3), (7, 7), (9, 10)]);
    assert_eq!(runs(&[0, 1, 2, 3, 4], 2), [(0, 1), (2, 3), (4, 4)]);
}
