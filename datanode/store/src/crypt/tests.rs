use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use object_store::GetRange;
use object_store::memory::InMemory;
use proptest::prelude::*;
use rhumb_core::CollectionId;
use rhumb_seams::Rand;

use super::format::{CHUNK, SEALED_CHUNK};
use super::*;
use crate::fault::{Fault, Faults, Rule};
use crate::metrics::{Event, Op};
use crate::retry::RetryPolicy;
use crate::testing::{TempFolder, ids};
use crate::{Bucket, BucketOptions, ErrorKind, Outcome};

const BOOKS: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
const FILMS: &str = "01BX5ZZKBKACTAV9WEVGEMMVRZ";
const PREFIX: &str = "pre fix";

fn collection(id: &str) -> CollectionId {
    CollectionId::parse(id).expect("a ULID")
}

/// A master key of one repeated digit, and one of another to make it a key.
fn master(digit: char) -> Arc<MasterKey> {
    Arc::new(MasterKey::parse(&master_text(digit)).expect("a key"))
}

fn master_text(digit: char) -> String {
    format!("{}0{digit}", digit.to_string().repeat(62))
}

fn options(master: Option<Arc<MasterKey>>) -> BucketOptions {
    BucketOptions {
        ram_cache_bytes: 0,
        master_key: master,
        ..BucketOptions::default()
    }
}

async fn open_as(store: &Arc<InMemory>, options: BucketOptions) -> crate::Result<Bucket> {
    Bucket::open_with(
        store.clone(),
        Path::from(PREFIX),
        options,
        Rand::from_seed(1),
        ids(),
    )
    .await
}

async fn open(store: &Arc<InMemory>, digit: char) -> Bucket {
    open_as(store, options(Some(master(digit))))
        .await
        .expect("the right key")
}

/// An encrypted database, and the bare store under it.
async fn world() -> (Bucket, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    (open(&store, 'a').await, store)
}

fn book(bucket: &Bucket, file: &str) -> Path {
    bucket.path(&format!("c/{BOOKS}/p0/{file}"))
}

async fn put(bucket: &Bucket, path: &Path, body: impl Into<Bytes>) {
    let written = bucket.object_store().put(path, body.into().into()).await;
    written.expect("written");
}

async fn raw(store: &InMemory, path: &Path) -> Vec<u8> {
    let found = store.get(path).await.expect("there");
    found.bytes().await.expect("readable").to_vec()
}

async fn overwrite(store: &InMemory, path: &Path, bytes: Vec<u8>) {
    store.put(path, bytes.into()).await.expect("written");
}

async fn read(bucket: &Bucket, path: &Path) -> crate::Result<Bytes> {
    let found = bucket.get(path).await?;
    Ok(found.expect("there").0)
}

fn body(length: u64) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn kind<T: fmt::Debug>(outcome: crate::Result<T>) -> ErrorKind {
    outcome.expect_err("refused").kind()
}

/// Every object of the store, by path.
async fn objects(store: &InMemory) -> Vec<(Path, Vec<u8>)> {
    let listed: Vec<ObjectMeta> = store.list(None).try_collect().await.expect("listed");
    let read = listed.into_iter().map(|meta| async move {
        let bytes = raw(store, &meta.location).await;
        (meta.location, bytes)
    });
    join_all(read).await
}

fn holds(hay: &[u8], needle: &str) -> bool {
    hay.windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// Every way of reading `path`, with what it says.
async fn all_reads(bucket: &Bucket, path: &Path, length: u64) -> Vec<crate::Result<()>> {
    let store = bucket.object_store();
    let ask = |range| store.get_opts(path, GetOptions::new().with_range(range));
    let end = length.max(1);
    let mut outcomes = vec![read(bucket, path).await.map(drop)];
    for range in [
        GetRange::Bounded(0..end),
        GetRange::Offset(0),
        GetRange::Suffix(end),
    ] {
        let found = match ask(Some(range)).await {
            Ok(found) => found.bytes().await,
            Err(e) => Err(e),
        };
        outcomes.push(found.map(drop).map_err(StoreError::from));
    }
    let ranges = store.get_ranges(path, std::slice::from_ref(&(0..end))).await;
    outcomes.push(ranges.map(drop).map_err(StoreError::from));
    outcomes
}

#[tokio::test]
async fn nothing_that_was_written_lies_in_the_bucket() {
    const SECRET: &str = "the number of the account";
    let (bucket, store) = world().await;
    let wordy = SECRET.repeat(2_000);
    for path in [
        book(&bucket, "wal/00000000000000000001.arrow"),
        book(&bucket, "state.json"),
        book(&bucket, "table/data/x.lance"),
        book(&bucket, "table/_versions/1.manifest"),
        book(&bucket, "text/1.split"),
        bucket.path("catalog/books"),
        bucket.path("auth/users"),
    ] {
        let written = bucket
            .create(&path, wordy.clone().into(), &bucket.mint_put_id())
            .await
            .expect("answered");
        assert!(matches!(written, Outcome::Landed(_)));
    }
    let mut upload = bucket
        .object_store()
        .put_multipart(&book(&bucket, "table/data/y.lance"))
        .await
        .expect("started");
    upload.put_part(wordy.clone().into()).await.expect("uploaded");
    upload.complete().await.expect("completed");
    let found = objects(&store).await;
    assert_eq!(found.len(), 8 + 3, "identity and two key sets");
    for (path, bytes) in found {
        assert!(!holds(&bytes, SECRET) && !holds(&bytes, "account"), "{path}");
        // Nor the keys.
        assert!(!holds(&bytes, &master_text('a')), "{path}");
    }
    assert_eq!(
        read(&bucket, &book(&bucket, "table/data/y.lance"))
            .await
            .expect("read"),
        wordy
    );
}

#[tokio::test]
async fn any_byte_changed_at_rest_is_corrupt_to_every_read() {
    let (bucket, store) = world().await;
    for length in [0, 1, 300, 2 * CHUNK + 5] {
        let path = book(&bucket, "table/data/x.lance");
        put(&bucket, &path, body(length)).await;
        let sealed = raw(&store, &path).await;
        // Of a large object the edges: reads of all of it are not cheap.
        let bytes: Vec<usize> = (0..sealed.len())
            .filter(|byte| sealed.len() < 1_000 || byte % 997 == 0 || sealed.len() - byte < 100)
            .collect();
        for byte in bytes {
            let mut changed = sealed.clone();
            changed[byte] ^= 0x40;
            overwrite(&store, &path, changed).await;
            for outcome in all_reads(&open(&store, 'a').await, &path, length).await {
                assert_eq!(kind(outcome), ErrorKind::Corrupt, "byte {byte} of {length}");
            }
        }
        overwrite(&store, &path, sealed).await;
        read(&bucket, &path).await.expect("as it was");
    }
}

#[tokio::test]
async fn an_object_cut_off_or_grown_is_corrupt_to_every_read_of_it() {
    let (bucket, store) = world().await;
    let length = 3 * CHUNK;
    let path = book(&bucket, "table/data/x.lance");
    put(&bucket, &path, body(length)).await;
    let sealed = raw(&store, &path).await;
    let chunk = SEALED_CHUNK as usize;
    let mut without_one = sealed[..2 * chunk].to_vec();
    without_one.extend_from_slice(&sealed[3 * chunk..]);
    let mut with_more = sealed.clone();
    with_more.push(0);
    for other in [
        Vec::new(),
        sealed[..chunk].to_vec(),
        sealed[..sealed.len() - 1].to_vec(),
        sealed[..3 * chunk].to_vec(),
        without_one,
        with_more,
        body(length),
    ] {
        let size = other.len();
        if size > 0 {
            // To be known from before makes no difference.
            overwrite(&store, &path, sealed.clone()).await;
            for outcome in all_reads(&bucket, &path, length).await {
                outcome.expect("as it was written");
            }
        }
        overwrite(&store, &path, other).await;
        for bucket in [open(&store, 'a').await, bucket.clone()] {
            for outcome in all_reads(&bucket, &path, 1).await {
                assert_eq!(kind(outcome), ErrorKind::Corrupt, "{size} bytes");
            }
        }
    }
}

#[tokio::test]
async fn an_object_put_under_another_name_is_corrupt_there() {
    let (bucket, store) = world().await;
    let (one, two) = (book(&bucket, "wal/1.arrow"), book(&bucket, "wal/2.arrow"));
    let film = bucket.path(&format!("c/{FILMS}/p0/wal/1.arrow"));
    let entry = bucket.path("catalog/books");
    for path in [&one, &two, &film, &entry] {
        put(&bucket, path, "the same body").await;
    }
    let original = raw(&store, &one).await;
    for path in [&two, &film, &entry] {
        overwrite(&store, path, original.clone()).await;
        assert_eq!(kind(read(&bucket, path).await), ErrorKind::Corrupt, "{path}");
    }
    assert_eq!(read(&bucket, &one).await.expect("at home"), "the same body");
}

#[tokio::test]
async fn a_database_is_opened_with_its_own_key_and_nothing_else() {
    let (bucket, store) = world().await;
    put(&bucket, &bucket.path("catalog/books"), "entry").await;
    let wrong = open_as(&store, options(Some(master('b'))))
        .await
        .expect_err("refused");
    assert!(
        matches!(&wrong, StoreError::Key(KeyProblem::Wrong { needed, given })
            if *needed == master('a').name() && *given == master('b').name()),
        "{wrong}"
    );
    let none = open_as(&store, options(None)).await.expect_err("refused");
    assert!(matches!(none, StoreError::Key(KeyProblem::Missing)), "{none}");
    assert_eq!(
        (wrong.kind(), none.kind()),
        (ErrorKind::Invalid, ErrorKind::Invalid)
    );
    let again = open(&store, 'a').await;
    assert_eq!(again.uid(), bucket.uid());
    assert_eq!(
        read(&again, &again.path("catalog/books")).await.expect("read"),
        "entry"
    );
    let told = again.encryption().expect("encrypted");
    assert_eq!((told.cipher, told.master_key), (CIPHER, master('a').name()));
}

#[tokio::test]
async fn a_plain_database_is_not_opened_with_a_key() {
    let store = Arc::new(InMemory::new());
    let plain = open_as(&store, options(None)).await.expect("plain");
    assert_eq!(plain.encryption(), None);
    let refused = open_as(&store, options(Some(master('a'))))
        .await
        .expect_err("refused");
    assert!(
        matches!(refused, StoreError::Key(KeyProblem::NotEncrypted)),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("import"),
        "says how to go on: {refused}"
    );
    plain
        .destroy_keys(&collection(BOOKS))
        .await
        .expect("nothing to do");
}

#[tokio::test]
async fn first_starts_at_once_agree_on_one_key() {
    let store = Arc::new(InMemory::new());
    let opened = join_all((0..8).map(|_| open(&store, 'a'))).await;
    let path = opened[0].path("catalog/books");
    put(&opened[0], &path, "entry").await;
    for bucket in &opened {
        assert_eq!(read(bucket, &path).await.expect("one key"), "entry");
    }
}

#[tokio::test]
async fn a_lost_root_key_is_corrupt_and_never_made_anew_over_data() {
    let (bucket, store) = world().await;
    let root = bucket.path("keys/root.json");
    // A first start that died behind its identity goes on.
    store.delete(&root).await.expect("deleted");
    let bucket = open(&store, 'a').await;
    put(&bucket, &bucket.path("catalog/books"), "entry").await;
    store.delete(&root).await.expect("deleted");
    let refused = open_as(&store, options(Some(master('a')))).await;
    assert_eq!(kind(refused), ErrorKind::Corrupt);
}

#[tokio::test]
async fn damage_on_the_way_costs_another_read() {
    let store = Arc::new(InMemory::new());
    let faults = Faults::new(Rand::from_seed(3));
    let faulty = BucketOptions {
        faults: Some(faults.clone()),
        ..options(Some(master('a')))
    };
    let bucket = open_as(&store, faulty).await.expect("opened");
    let length = 5 * CHUNK + 9;
    let path = book(&bucket, "table/data/x.lance");
    put(&bucket, &path, body(length)).await;
    for _ in 0..4 {
        faults.add_rule(Rule::new(Fault::FlipBit).on(Op::Get).at("x.lance").times(2));
        for outcome in all_reads(&bucket, &path, length).await {
            outcome.expect("the third time is right");
        }
    }
    assert!(bucket.metrics().count_of(Event::Damaged) >= 8);
    assert_eq!(read(&bucket, &path).await.expect("read"), body(length));
}

/// A body larger than what is opened at once, against a plain store.
#[tokio::test]
async fn large_bodies_stream_and_break_off_when_they_are_replaced() {
    let (bucket, store) = world().await;
    let length = (9 << 20) + 77;
    let path = book(&bucket, "table/data/x.lance");
    put(&bucket, &path, body(length)).await;
    for bucket in [bucket.clone(), open(&store, 'a').await] {
        assert!(read(&bucket, &path).await.expect("read") == body(length));
        let from = length - (8 << 20) - 3;
        let asked = GetOptions::new().with_range(Some(GetRange::Offset(from)));
        let found = bucket.object_store().get_opts(&path, asked).await.expect("there");
        assert_eq!((found.range.clone(), found.meta.size), (from..length, length));
        assert!(found.bytes().await.expect("read") == body(length)[from as usize..]);
    }
    let mut stream = bucket
        .object_store()
        .get(&path)
        .await
        .expect("there")
        .into_stream();
    stream.try_next().await.expect("the first step");
    put(&open(&store, 'a').await, &path, body(length)).await;
    stream.try_next().await.expect_err("another version follows");
}

#[tokio::test]
async fn an_object_replaced_by_another_process_is_read_as_it_is_now() {
    let (bucket, store) = world().await;
    let other = open(&store, 'a').await;
    let path = book(&bucket, "table/data/x.lance");
    let mut before = 0;
    for (n, chunks) in [3, 9, 9, 2, 4, 1].into_iter().enumerate() {
        let length = chunks * CHUNK + 1;
        let now = vec![n as u8; length as usize];
        put(&other, &path, now.clone()).await;
        let store = bucket.object_store();
        let ranges = [0..1, length - 1..length];
        // In two orders: what is known is outdated for the first read.
        if length >= before {
            let read = store.get_ranges(&path, &ranges).await;
            assert_eq!(read.expect("read"), [&now[..1], &now[..1]]);
        }
        assert_eq!(store.get_range(&path, 0..length).await.expect("read"), now);
        let read = store.get_ranges(&path, &ranges).await;
        assert_eq!(read.expect("read"), [&now[..1], &now[..1]]);
        assert_eq!(store.head(&path).await.expect("there").size, length);
        before = length;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_in_doubt_is_repeated_byte_for_byte() {
    let store = Arc::new(InMemory::new());
    let faults = Faults::new(Rand::from_seed(3));
    let impatient = BucketOptions {
        faults: Some(faults.clone()),
        retry: RetryPolicy {
            attempts: 1,
            ..RetryPolicy::default()
        },
        ..options(Some(master('a')))
    };
    let bucket = open_as(&store, impatient).await.expect("opened");
    let (path, id) = (book(&bucket, "wal/1.arrow"), bucket.mint_put_id());
    put(&bucket, &book(&bucket, "warm"), "the keys are there").await;
    let create = || bucket.create(&path, Bytes::from_static(b"record"), &id);
    faults.add_rule(Rule::new(Fault::LoseAnswer).on(Op::Put).at("wal/").times(1));
    assert_eq!(create().await.expect("answered"), Outcome::Unknown);
    let landed = raw(&store, &path).await;
    assert!(matches!(create().await.expect("answered"), Outcome::Landed(_)));
    store.delete(&path).await.expect("deleted");
    assert!(matches!(create().await.expect("answered"), Outcome::Landed(_)));
    assert_eq!(raw(&store, &path).await, landed);
    assert_eq!(read(&bucket, &path).await.expect("read"), "record");
}

#[tokio::test]
async fn parts_of_any_size_make_one_object() {
    let (bucket, _) = world().await;
    let path = book(&bucket, "table/data/x.lance");
    for parts in [
        vec![],
        vec![0],
        vec![1],
        vec![5, CHUNK],
        vec![CHUNK, CHUNK],
        vec![40_000, 1, 70_000],
    ] {
        let mut upload = bucket.object_store().put_multipart(&path).await.expect("started");
        let whole = body(parts.iter().sum());
        let mut rest = whole.as_slice();
        for part in &parts {
            let (now, later) = rest.split_at(*part as usize);
            upload.put_part(now.to_vec().into()).await.expect("uploaded");
            rest = later;
        }
        upload.complete().await.expect("completed");
        assert_eq!(read(&bucket, &path).await.expect("read"), whole, "{parts:?}");
        upload.put_part("late".into()).await.expect_err("it is over");
        upload.complete().await.expect_err("it is over");
    }
}

#[tokio::test]
async fn copies_open_under_their_new_names() {
    let (bucket, _) = world().await;
    let store = bucket.object_store();
    let (from, to) = (book(&bucket, "a"), bucket.path("catalog/b"));
    put(&bucket, &from, "body").await;
    store.copy(&from, &to).await.expect("copied");
    let taken = store.copy_if_not_exists(&from, &to).await.expect_err("taken");
    assert!(matches!(taken, OsError::AlreadyExists { .. }), "{taken}");
    store.rename(&from, &book(&bucket, "c")).await.expect("moved");
    assert_eq!(read(&bucket, &to).await.expect("read"), "body");
    assert_eq!(read(&bucket, &book(&bucket, "c")).await.expect("read"), "body");
    assert!(bucket.get(&from).await.expect("answered").is_none());
}

#[tokio::test]
async fn renewed_keys_seal_what_is_new_and_the_old_ones_open_what_was() {
    let (bucket, store) = world().await;
    let other = open(&store, 'a').await;
    let (old, new) = (book(&bucket, "old"), book(&bucket, "new"));
    put(&bucket, &old, "before").await;
    assert_eq!(read(&other, &old).await.expect("read"), "before");
    bucket
        .renew_keys(Some(&collection(BOOKS)))
        .await
        .expect("renewed");
    put(&bucket, &new, "after").await;
    let key_of = |sealed: Vec<u8>| format::Footer::at_end_of(&sealed).expect("a footer").key;
    assert_ne!(key_of(raw(&store, &old).await), key_of(raw(&store, &new).await));
    // One that was up before, and one that comes after.
    for bucket in [&bucket, &other, &open(&store, 'a').await] {
        assert_eq!(read(bucket, &old).await.expect("read"), "before");
        assert_eq!(read(bucket, &new).await.expect("read"), "after");
    }
    bucket.renew_keys(None).await.expect("renewed");
    put(&bucket, &bucket.path("catalog/books"), "entry").await;
    assert_eq!(
        read(&other, &other.path("catalog/books")).await.expect("read"),
        "entry"
    );
}

#[tokio::test]
async fn a_new_master_key_takes_over_without_a_rewrite_of_data() {
    let (bucket, store) = world().await;
    let path = book(&bucket, "wal/1.arrow");
    put(&bucket, &path, "record").await;
    let before = objects(&store).await;
    // Servers get both keys first, then the keys are wrapped anew.
    let both = MasterKey::parse(&format!("{}\n{}", master_text('b'), master_text('a'))).expect("keys");
    let both = open_as(&store, options(Some(Arc::new(both))))
        .await
        .expect("the old one opens");
    put(&both, &both.path(&format!("c/{FILMS}/p0/x")), "new under b").await;
    assert_eq!(
        both.rewrap_keys(&master('b')).await.expect("rewrapped"),
        2,
        "films are under b already"
    );
    assert_eq!(
        both.rewrap_keys(&master('b')).await.expect("rewrapped"),
        0,
        "nothing is left to do"
    );
    for (path, bytes) in before {
        let is_key = path.as_ref().contains("/keys/");
        assert_eq!(raw(&store, &path).await != bytes, is_key, "{path}");
    }
    assert!(matches!(
        open_as(&store, options(Some(master('a')))).await,
        Err(StoreError::Key(KeyProblem::Wrong { .. }))
    ));
    let now = open(&store, 'b').await;
    assert_eq!(read(&now, &path).await.expect("read"), "record");
    assert_eq!(
        read(&bucket, &path).await.expect("one that was up goes on"),
        "record"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_collection_can_be_read_or_written_once_its_keys_are_destroyed() {
    let (bucket, store) = world().await;
    let other = open(&store, 'a').await;
    let (path, big) = (book(&bucket, "wal/1.arrow"), book(&bucket, "table/data/x.lance"));
    let film = bucket.path(&format!("c/{FILMS}/p0/wal/1.arrow"));
    for (path, length) in [(&path, 9), (&big, 5 * CHUNK), (&film, 9)] {
        put(&bucket, path, body(length)).await;
        read(&other, path).await.expect("read");
    }
    for _ in 0..2 {
        bucket.destroy_keys(&collection(BOOKS)).await.expect("destroyed");
    }
    tokio::time::advance(Duration::from_secs(3_601)).await;
    let set =
        String::from_utf8(raw(&store, &bucket.path(&format!("keys/c-{BOOKS}.json"))).await).expect("JSON");
    assert!(set.contains("destroyed") && !set.contains("wrapped"), "{set}");
    for bucket in [&bucket, &open(&store, 'a').await, &other] {
        for path in [&path, &big] {
            for outcome in all_reads(bucket, path, 9).await {
                assert_eq!(kind(outcome), ErrorKind::NotFound);
            }
        }
        let (path, id) = (book(bucket, "wal/2.arrow"), bucket.mint_put_id());
        let late = bucket.create(&path, "late".into(), &id);
        assert!(matches!(
            late.await,
            Err(StoreError::Key(KeyProblem::Destroyed { .. }))
        ));
        assert_eq!(
            kind(bucket.renew_keys(Some(&collection(BOOKS))).await),
            ErrorKind::NotFound
        );
        assert_eq!(read(bucket, &film).await.expect("another collection"), body(9));
    }
}

#[tokio::test]
async fn the_keys_of_a_collection_that_was_never_written_are_destroyed_too() {
    let (bucket, store) = world().await;
    bucket.destroy_keys(&collection(BOOKS)).await.expect("destroyed");
    let late = open(&store, 'a').await;
    let (path, id) = (book(&late, "x"), late.mint_put_id());
    let write = late.create(&path, "late".into(), &id);
    assert_eq!(kind(write.await), ErrorKind::NotFound);
}

#[tokio::test]
async fn listings_show_the_sizes_that_reads_have() {
    let (bucket, _) = world().await;
    let lengths = [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7];
    for length in lengths {
        put(&bucket, &book(&bucket, &format!("{length:06}")), body(length)).await;
    }
    let folder = book(&bucket, "x");
    let folder: Path = folder.parts().take(4).collect();
    let listed: Vec<ObjectMeta> = bucket.list(&folder).try_collect().await.expect("listed");
    let sizes: Vec<u64> = listed.iter().map(|meta| meta.size).collect();
    assert_eq!(sizes, lengths);
    let level = bucket
        .object_store()
        .list_with_delimiter(Some(&folder))
        .await
        .expect("listed");
    assert_eq!(level.objects, listed);
    for meta in listed {
        let (found, _) = bucket
            .head(&meta.location)
            .await
            .expect("answered")
            .expect("there");
        assert_eq!(found, meta);
        assert_eq!(
            read(&bucket, &meta.location).await.expect("read").len() as u64,
            meta.size
        );
    }
}

/// A store across a network, so that there is a disk cache.
async fn with_disk_cache(
    store: &Arc<InMemory>,
    folder: &TempFolder,
) -> (CryptStore, crate::cache::ReadCache, Metrics) {
    let bucket = open(store, 'a').await;
    let keyring = bucket.keyring().expect("encrypted");
    let metrics = Metrics::default();
    let crypt = CryptStore::new(store.clone(), keyring.clone(), metrics.clone());
    let options = crate::cache::CacheOptions {
        ram_bytes: 1 << 20,
        disk: Some((folder.path().to_owned(), 1 << 20)),
        block_bytes: CHUNK,
        uid: bucket.uid().to_owned(),
        immutable: |path| path.as_ref().contains("/table/data/"),
        sealing: Some(keyring),
    };
    let cache = crate::cache::ReadCache::open(Arc::new(crypt.clone()), options, metrics.clone()).await;
    (crypt, cache, metrics)
}

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[tokio::test]
async fn blocks_on_disk_are_sealed_survive_a_restart_and_end_with_their_key() {
    const SECRET: &str = "the number of the account";
    let store = Arc::new(InMemory::new());
    let folder = TempFolder::new();
    let (_, cache, _) = with_disk_cache(&store, &folder).await;
    let path = Path::from(format!("{PREFIX}/c/{BOOKS}/p0/table/data/x.lance"));
    let wordy = Bytes::from(SECRET.repeat(2_000));
    cache.put(&path, wordy.clone().into()).await.expect("written");
    assert_eq!(
        cache
            .get(&path)
            .await
            .expect("there")
            .bytes()
            .await
            .expect("read"),
        wordy
    );
    let blocks = files_below(folder.path());
    assert_eq!(blocks.len() as u64, (wordy.len() as u64).div_ceil(CHUNK));
    for block in &blocks {
        let bytes = std::fs::read(block).expect("a block");
        assert!(
            !holds(&bytes, "account") && !holds(&bytes, "lance"),
            "{}",
            block.display()
        );
    }

    let (_, cache, metrics) = with_disk_cache(&store, &folder).await;
    assert_eq!(cache.get_range(&path, 0..50).await.expect("read"), wordy[..50]);
    assert_eq!(
        (
            metrics.count_of(Event::CacheDisk),
            metrics.count_of(Event::CacheMiss)
        ),
        (1, 0)
    );

    // Two blocks of one object that changed places on disk are no blocks.
    let swapped: Vec<Vec<u8>> = blocks
        .iter()
        .map(|block| std::fs::read(block).expect("a block"))
        .collect();
    for (block, bytes) in blocks.iter().zip(swapped.iter().cycle().skip(1)) {
        std::fs::write(block, bytes).expect("written");
    }
    let (_, cache, metrics) = with_disk_cache(&store, &folder).await;
    assert_eq!(cache.get_range(&path, 0..50).await.expect("read"), wordy[..50]);
    assert_eq!(
        (
            metrics.count_of(Event::CacheDisk),
            metrics.count_of(Event::CacheCorrupt)
        ),
        (0, 1)
    );

    open(&store, 'a')
        .await
        .destroy_keys(&collection(BOOKS))
        .await
        .expect("destroyed");
    let (_, cache, metrics) = with_disk_cache(&store, &folder).await;
    cache.get_range(&path, 0..50).await.expect_err("the key is gone");
    assert_eq!(metrics.count_of(Event::CacheDisk), 0);
}

/// A folder as a key management service, and ways in which one can fail.
fn script(folder: &TempFolder, name: &str, words: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.path().join(name);
    std::fs::write(&program, format!("#!/bin/sh\n{words}\n")).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("made executable");
    program
}

#[tokio::test]
async fn a_command_keeps_the_master_key_and_its_failures_are_worth_another_try() {
    let folder = TempFolder::new();
    let vault = folder.path().join("vault");
    std::fs::create_dir(&vault).expect("a folder");
    let service = format!(
        r#"asked=$(cat); cd '{}' || exit 1
case "$1" in
wrap) n=$(ls | wc -l); printf %s "$asked" | sed 's/.*"plaintext":"\([^"]*\)".*/\1/' > "k$n"; printf '{{"wrapped":"k%s"}}' $n;;
unwrap) key=$(printf %s "$asked" | sed 's/.*"wrapped":"\([^"]*\)".*/\1/'); printf '{{"plaintext":"%s"}}' "$(cat "$key")";;
esac"#,
        vault.display()
    );
    let service = script(&folder, "service", &service);
    let broken = [
        script(&folder, "denied", "echo 'no such grant' >&2; exit 3"),
        script(&folder, "slow", "exec sleep 600"),
        script(&folder, "nonsense", "echo hello"),
        script(
            &folder,
            "echo",
            r#"sed 's/.*"plaintext":"\([^"]*\)".*/{"wrapped":"\1"}/'"#,
        ),
        script(&folder, "endless", "exec cat /dev/zero"),
        folder.path().join("nowhere"),
    ];
    let by_command = |program: PathBuf, timeout| Some(Arc::new(MasterKey::from_command(program, timeout)));
    let store = Arc::new(InMemory::new());
    for program in broken {
        let told = program.display().to_string();
        let refused = open_as(&store, options(by_command(program, Duration::from_secs(2)))).await;
        let refused = refused.expect_err("no key, no database");
        assert!(
            matches!(refused, StoreError::Key(KeyProblem::Command(_))),
            "{told}: {refused}"
        );
        assert_eq!(refused.kind(), ErrorKind::Retry);
        assert!(
            !told.ends_with("denied") || refused.to_string().contains("no such grant"),
            "{refused}"
        );
    }
    let patient = Duration::from_secs(60);
    let bucket = open_as(&store, options(by_command(service.clone(), patient)))
        .await
        .expect("opened");
    let path = book(&bucket, "x");
    put(&bucket, &path, "body").await;
    let again = open_as(&store, options(by_command(service, patient)))
        .await
        .expect("opened");
    assert_eq!(read(&again, &path).await.expect("read"), "body");
    assert_eq!(
        std::fs::read_dir(&vault).expect("a folder").count(),
        2,
        "root and books"
    );
    // From the service to a file, and back it would go the same way.
    assert_eq!(again.rewrap_keys(&master('a')).await.expect("rewrapped"), 2);
    assert_eq!(read(&open(&store, 'a').await, &path).await.expect("read"), "body");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against the same bytes in a plain store, asked for in every way.
    #[test]
    fn reads_are_those_of_a_plain_store(
        length in prop_oneof![0..100u64, CHUNK - 3..CHUNK + 3, 2 * CHUNK - 3..2 * CHUNK + 3, 0..6 * CHUNK],
        asked in prop::collection::vec((0..6 * CHUNK + 50, 0..3 * CHUNK, 0..4u8), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (bucket, _) = world().await;
            let (sealed, plain) = (bucket.object_store(), InMemory::new());
            let path = book(&bucket, "table/data/x.lance");
            put(&bucket, &path, body(length)).await;
            plain.put(&path, body(length).into()).await.expect("written");
            for (start, size, way) in asked {
                let range = match way {
                    0 => None,
                    1 => Some(GetRange::Bounded(start..start + size + 1)),
                    2 => Some(GetRange::Offset(start)),
                    _ => Some(GetRange::Suffix(size + 1)),
                };
                // Of an empty object stores do not agree what its last bytes are.
                if length == 0 && way == 3 {
                    continue;
                }
                let options = GetOptions::new().with_range(range.clone());
                match (sealed.get_opts(&path, options.clone()).await, plain.get_opts(&path, options).await) {
                    (Ok(sealed), Ok(plain)) => {
                        assert_eq!((&sealed.range, sealed.meta.size), (&plain.range, plain.meta.size));
                        assert_eq!(sealed.bytes().await.expect("read"), plain.bytes().await.expect("read"));
                    }
                    (Err(_), Err(_)) => {}
                    (sealed, plain) => panic!("{range:?} of {length}: {sealed:?}, plain {plain:?}"),
                }
                let ranges = [start..start + size + 1, 0..1];
                match (sealed.get_ranges(&path, &ranges).await, plain.get_ranges(&path, &ranges).await) {
                    (Ok(sealed), Ok(plain)) => assert_eq!(sealed, plain),
                    // Beyond the end, a plain store may answer short.
                    (Err(_), _) => assert!(ranges.iter().any(|range| range.end > length)),
                    (sealed, plain) => panic!("{ranges:?} of {length}: {sealed:?}, plain {plain:?}"),
                }
            }
        });
    }
}
