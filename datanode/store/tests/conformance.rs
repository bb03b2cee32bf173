//! What the protocol takes for granted of a store, on every store: memory, a folder, a
//! real S3 server, and each of them behind faults and retries.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutResult, Result, UpdateVersion,
};
use rhumb_seams::{Clock, Rand};
use rhumb_store::crypt::MasterKey;
use rhumb_store::fault::{Fault, FaultStore, Faults, Rule};
use rhumb_store::file::FileStore;
use rhumb_store::metrics::{Metrics, Op};
use rhumb_store::retry::{RetryPolicy, RetryStore};
use rhumb_store::{Bucket, BucketOptions, StoreUrl};
use support::{S3Server, TempFolder, ids};

/// A store under test, and what has to live as long.
struct Backend {
    store: Arc<dyn ObjectStore>,
    faulty: bool,
    _folder: Option<TempFolder>,
    _server: Option<S3Server>,
}

impl Backend {
    fn plain(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            faulty: false,
            _folder: None,
            _server: None,
        }
    }

    fn memory() -> Self {
        Self::plain(Arc::new(InMemory::new()))
    }

    async fn folder() -> Self {
        let folder = TempFolder::new();
        let store = FileStore::open(folder.path().to_owned(), &Clock::system())
            .await
            .expect("a folder");
        Self {
            _folder: Some(folder),
            ..Self::plain(Arc::new(store))
        }
    }

    /// Through `Bucket`: that is how it is always used.
    async fn s3() -> Option<Self> {
        let server = S3Server::start().await?;
        let url: StoreUrl = format!("s3://{}/some/prefix", S3Server::BUCKET)
            .parse()
            .expect("a url");
        let options = BucketOptions {
            s3_overrides: server.variables(),
            ram_cache_bytes: 0,
            ..Default::default()
        };
        let bucket = Bucket::open(&url, options, Clock::system(), Rand::from_entropy(), ids())
            .await
            .expect("a bucket");
        Some(Self {
            _server: Some(server),
            ..Self::plain(bucket.object_store())
        })
    }

    /// The same, sealed: through `Bucket`, and behind its own faults if `faulty`.
    async fn encrypted(self, faulty: bool) -> Self {
        let rand = Rand::from_seed(42);
        let faults = Faults::new(rand.clone());
        let key = format!("{}00", "5a".repeat(31));
        let options = BucketOptions {
            ram_cache_bytes: 0,
            master_key: Some(Arc::new(MasterKey::parse(&key).expect("a key"))),
            faults: Some(faults.clone()),
            retry: patient(),
            ..Default::default()
        };
        let bucket = Bucket::open_with(self.store, Path::from("sealed"), options, rand.clone(), ids())
            .await
            .expect("a bucket");
        if faulty {
            make_trouble(&faults);
        }
        let faulty = self.faulty || faulty;
        Self {
            store: bucket.object_store(),
            faulty,
            ..self
        }
    }

    /// The same behind faults that the retry layer has to hide.
    fn behind_faults(self) -> Self {
        let rand = Rand::from_seed(42);
        let faults = Faults::new(rand.clone());
        make_trouble(&faults);
        let faulty = Arc::new(FaultStore::new(self.store, faults));
        let store = Arc::new(RetryStore::new(
            faulty,
            patient(),
            Metrics::default(),
            rand,
            ids(),
        ));
        Self {
            store,
            faulty: true,
            ..self
        }
    }

    /// Where a case may leave its objects.  What ends a multipart upload, or moves an
    /// object, cannot be repeated and is not hit by faults.
    fn folder_of(&self, case: &str) -> Path {
        let repeatable = !matches!(case, "multipart" | "moves");
        Path::from(format!(
            "{}/{case}",
            if repeatable { "repeatable" } else { "steady" }
        ))
    }
}

fn make_trouble(faults: &Faults) {
    for (fault, chance) in [
        (Fault::FailBefore, 0.15),
        (Fault::LoseAnswer, 0.15),
        (Fault::Truncate, 0.1),
    ] {
        faults.add_rule(Rule::new(fault).at("repeatable/").chance(chance));
    }
}

fn patient() -> RetryPolicy {
    RetryPolicy {
        attempts: 40,
        first_wait: std::time::Duration::from_millis(1),
        longest_wait: std::time::Duration::from_millis(5),
        ..RetryPolicy::default()
    }
}

fn under(folder: &Path, name: &str) -> Path {
    folder
        .parts()
        .chain(Path::parse(name).expect("a path").parts())
        .collect()
}

async fn create(store: &dyn ObjectStore, path: &Path, body: impl Into<Bytes>) -> Result<PutResult> {
    store
        .put_opts(path, body.into().into(), PutMode::Create.into())
        .await
}

async fn update(
    store: &dyn ObjectStore,
    path: &Path,
    body: String,
    etag: Option<String>,
) -> Result<PutResult> {
    let version = UpdateVersion {
        e_tag: etag,
        version: None,
    };
    store
        .put_opts(path, body.into(), PutMode::Update(version).into())
        .await
}

async fn read(store: &dyn ObjectStore, path: &Path) -> Bytes {
    store
        .get(path)
        .await
        .expect("an object")
        .bytes()
        .await
        .expect("its bytes")
}

async fn listed(store: &dyn ObjectStore, prefix: &Path) -> Vec<Path> {
    store
        .list(Some(prefix))
        .map_ok(|meta| meta.location)
        .try_collect()
        .await
        .expect("a listing")
}

async fn racing_creates_have_exactly_one_winner(backend: &Backend, folder: Path) {
    for key in 0..20 {
        let path = under(&folder, &format!("{key}"));
        let racers = (0..8).map(|racer| create(backend.store.as_ref(), &path, format!("racer {racer}")));
        let results = join_all(racers).await;
        let winners: Vec<usize> = (0..8).filter(|racer| results[*racer].is_ok()).collect();
        assert_eq!(winners.len(), 1, "key {key}");
        for lost in results.into_iter().filter_map(Result::err) {
            assert!(matches!(lost, Error::AlreadyExists { .. }), "{lost}");
        }
        assert_eq!(
            read(backend.store.as_ref(), &path).await,
            format!("racer {}", winners[0])
        );
    }
}

async fn increments_by_if_match_lose_nothing(backend: &Backend, folder: Path) {
    const CLIENTS: usize = 8;
    const EACH: usize = 10;
    let store = backend.store.as_ref();
    let path = under(&folder, "counter");
    create(store, &path, "0").await.expect("created");
    let clients = (0..CLIENTS).map(|_| async {
        let mut added = 0;
        while added < EACH {
            let found = store.get(&path).await.expect("there");
            let etag = found.meta.e_tag.clone();
            let text = String::from_utf8(found.bytes().await.expect("read").to_vec()).expect("text");
            let next = text.parse::<usize>().expect("a number") + 1;
            match update(store, &path, next.to_string(), etag).await {
                Ok(_) => added += 1,
                Err(Error::Precondition { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
    });
    join_all(clients).await;
    let counted: usize = std::str::from_utf8(&read(store, &path).await)
        .expect("text")
        .parse()
        .expect("a number");
    if backend.faulty {
        // A winner overtaken before it could read its put-id back counts once more.
        assert!(counted >= CLIENTS * EACH, "{counted}");
    } else {
        assert_eq!(counted, CLIENTS * EACH);
    }
}

async fn a_stale_or_missing_version_is_refused(backend: &Backend, folder: Path) {
    let store = backend.store.as_ref();
    let path = under(&folder, "object");
    let first = create(store, &path, "1").await.expect("created").e_tag;
    let second = update(store, &path, "2".into(), first.clone())
        .await
        .expect("updated")
        .e_tag;
    assert_ne!(first, second);
    // The bytes of the first version again: its ETag must not come back to life.
    let third = update(store, &path, "1".into(), second)
        .await
        .expect("updated")
        .e_tag;
    for stale in [
        first.clone().filter(|_| first != third),
        Some("\"nonsense\"".into()),
    ]
    .into_iter()
    .flatten()
    {
        let refused = update(store, &path, "x".into(), Some(stale))
            .await
            .expect_err("stale");
        assert!(matches!(refused, Error::Precondition { .. }), "{refused}");
    }
    assert_eq!(read(store, &path).await, "1");
    let nowhere = update(store, &under(&folder, "none"), "x".into(), third)
        .await
        .expect_err("missing");
    assert!(matches!(nowhere, Error::Precondition { .. }), "{nowhere}");
    assert!(store.head(&under(&folder, "none")).await.is_err());
}

async fn a_write_is_seen_at_once_by_every_kind_of_read(backend: &Backend, folder: Path) {
    let store = backend.store.as_ref();
    let path = under(&folder, "object");
    for n in 0..10 {
        let body = format!("version {n}");
        let put = store.put(&path, body.clone().into()).await.expect("written");
        let head = store.head(&path).await.expect("there");
        assert_eq!((head.size, &head.e_tag), (body.len() as u64, &put.e_tag));
        assert_eq!(read(store, &path).await, body);
        assert_eq!(listed(store, &folder).await, std::slice::from_ref(&path));
    }
    store.delete(&path).await.expect("deleted");
    assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
    assert!(listed(store, &folder).await.is_empty());
    create(store, &path, "again")
        .await
        .expect("a deleted name is free");
}

async fn listings_are_whole_ordered_and_start_where_asked(backend: &Backend, folder: Path) {
    let store = backend.store.as_ref();
    let names = [
        "a b",
        "a.b",
        "a/b",
        "a/c/d",
        "a0",
        "b%2F",
        "wal/00000000000000000009",
        "wal/00000000000000000010",
        "ä",
    ];
    let mut paths: Vec<Path> = names.iter().map(|name| under(&folder, name)).collect();
    for path in paths.iter().rev() {
        create(store, path, path.to_string()).await.expect("created");
    }
    paths.sort();
    assert_eq!(listed(store, &folder).await, paths);
    assert_eq!(
        listed(store, &under(&folder, "a")).await,
        [under(&folder, "a/b"), under(&folder, "a/c/d")]
    );
    assert!(
        listed(store, &under(&folder, "wa")).await.is_empty(),
        "a prefix is whole segments"
    );
    assert!(
        listed(store, &under(&folder, "a0")).await.is_empty(),
        "an object is not below itself"
    );
    for (i, offset) in paths.iter().enumerate() {
        let behind = store
            .list_with_offset(Some(&folder), offset)
            .map_ok(|meta| meta.location);
        assert_eq!(
            behind.try_collect::<Vec<_>>().await.expect("listed"),
            paths[i + 1..],
            "behind {offset}"
        );
    }
    let level = store.list_with_delimiter(Some(&folder)).await.expect("listed");
    let mut prefixes = level.common_prefixes;
    prefixes.sort();
    assert_eq!(prefixes, [under(&folder, "a"), under(&folder, "wal")]);
    assert_eq!(level.objects.len(), 5);
    for path in &paths {
        assert_eq!(read(store, path).await, path.to_string());
    }
}

async fn ranges_are_exact(backend: &Backend, folder: Path) {
    let store = backend.store.as_ref();
    let path = under(&folder, "object");
    let body: Vec<u8> = (0..70_000u32).map(|i| (i % 251) as u8).collect();
    create(store, &path, body.clone()).await.expect("created");
    for (range, expected) in [
        (GetRange::Bounded(0..1), 0..1),
        (GetRange::Bounded(65_535..65_537), 65_535..65_537),
        (GetRange::Bounded(69_990..80_000), 69_990..70_000),
        (GetRange::Offset(69_000), 69_000..70_000),
        (GetRange::Suffix(77), 69_923..70_000),
    ] {
        let options = GetOptions {
            range: Some(range),
            ..GetOptions::new()
        };
        let found = store.get_opts(&path, options).await.expect("read");
        assert_eq!(
            (found.range.clone(), found.meta.size),
            (expected.start as u64..expected.end as u64, 70_000)
        );
        assert_eq!(found.bytes().await.expect("read"), body[expected]);
    }
    let ranges = [5..10, 0..70_000, 30_000..30_001, 69_999..70_000];
    for (range, bytes) in ranges
        .iter()
        .zip(store.get_ranges(&path, &ranges).await.expect("read"))
    {
        assert_eq!(bytes, body[range.start as usize..range.end as usize]);
    }
    store
        .get_range(&path, 70_000..70_001)
        .await
        .expect_err("beyond the end");
    let empty = under(&folder, "empty");
    create(store, &empty, "").await.expect("created");
    assert!(read(store, &empty).await.is_empty());
}

async fn conditional_reads_tell_versions_apart(backend: &Backend, folder: Path) {
    let store = backend.store.as_ref();
    let path = under(&folder, "object");
    let first = create(store, &path, "1").await.expect("created").e_tag;
    let second = update(store, &path, "2".into(), first.clone())
        .await
        .expect("updated")
        .e_tag;
    let same = store
        .get_opts(&path, GetOptions::new().with_if_none_match(second.clone()))
        .await;
    assert!(matches!(same, Err(Error::NotModified { .. })), "{same:?}");
    store
        .get_opts(&path, GetOptions::new().with_if_none_match(first.clone()))
        .await
        .expect("it changed");
    let gone = store
        .get_opts(&path, GetOptions::new().with_if_match(first))
        .await;
    assert!(matches!(gone, Err(Error::Precondition { .. })), "{gone:?}");
    store
        .get_opts(&path, GetOptions::new().with_if_match(second))
        .await
        .expect("unchanged");
}

async fn many_objects_are_deleted_at_once_missing_ones_included(backend: &Backend, folder: Path) {
    let store = backend.store.as_ref();
    let paths: Vec<Path> = (0..40).map(|i| under(&folder, &format!("{i:02}"))).collect();
    for path in &paths[..30] {
        create(store, path, "x").await.expect("created");
    }
    let asked = stream::iter(paths[5..].to_vec()).map(Ok).boxed();
    let deleted: Vec<Path> = store.delete_stream(asked).try_collect().await.expect("deleted");
    assert_eq!(deleted, paths[5..]);
    assert_eq!(listed(store, &folder).await, paths[..5]);
}

async fn multipart_uploads_appear_whole_or_not_at_all(backend: &Backend, folder: Path) {
    const PART: usize = 5 << 20;
    let store = backend.store.as_ref();
    let path = under(&folder, "big");
    let body: Vec<u8> = (0..PART + 1_000).map(|i| (i % 251) as u8).collect();
    let mut upload = store.put_multipart(&path).await.expect("started");
    let parts = [
        upload.put_part(body[..PART].to_vec().into()),
        upload.put_part(body[PART..].to_vec().into()),
    ];
    join_all(parts)
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()
        .expect("uploaded");
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
    upload.complete().await.expect("completed");
    assert!(read(store, &path).await == body);
    assert_eq!(
        store
            .get_range(&path, PART as u64 - 2..PART as u64 + 2)
            .await
            .expect("read"),
        body[PART - 2..PART + 2]
    );

    let mut dropped = store
        .put_multipart(&under(&folder, "none"))
        .await
        .expect("started");
    dropped.put_part(vec![1; 100].into()).await.expect("uploaded");
    dropped.abort().await.expect("aborted");
    assert_eq!(listed(store, &folder).await, [path]);
}

async fn copies_are_whole(backend: &Backend, folder: Path) {
    let store = backend.store.as_ref();
    let (from, to) = (under(&folder, "from"), under(&folder, "to"));
    create(store, &from, "body").await.expect("created");
    store.copy(&from, &to).await.expect("copied");
    assert_eq!(
        (read(store, &from).await, read(store, &to).await),
        ("body".into(), "body".into())
    );
    store
        .rename(&from, &under(&folder, "moved"))
        .await
        .expect("moved");
    assert_eq!(listed(store, &folder).await, [under(&folder, "moved"), to]);
}

/// Not in memory only: the same store, opened by `Bucket`, passes its own examination.
async fn the_store_passes_certification(backend: &Backend, folder: Path) {
    let options = BucketOptions {
        ram_cache_bytes: 1 << 20,
        ..Default::default()
    };
    let bucket = Bucket::open_with(
        backend.store.clone(),
        folder.clone(),
        options,
        Rand::from_entropy(),
        ids(),
    )
    .await;
    let bucket = bucket.expect("certified");
    for check in bucket.certify().await {
        assert!(check.ok(), "{}: {}", check.name, check.detail());
    }
    assert!(bucket.metrics().requests(Op::Put) > 0);
    let left = listed(backend.store.as_ref(), &folder).await;
    assert_eq!(left, [bucket.path("identity.json")], "the probe objects are gone");
}

async fn every_case(backend: &Backend) {
    macro_rules! run {
        ($($case:ident: $name:literal),+ $(,)?) => {
            $($case(backend, backend.folder_of($name)).await;)+
        };
    }
    run! {
        racing_creates_have_exactly_one_winner: "races",
        increments_by_if_match_lose_nothing: "increments",
        a_stale_or_missing_version_is_refused: "versions",
        a_write_is_seen_at_once_by_every_kind_of_read: "writes",
        listings_are_whole_ordered_and_start_where_asked: "listings",
        ranges_are_exact: "ranges",
        conditional_reads_tell_versions_apart: "conditions",
        many_objects_are_deleted_at_once_missing_ones_included: "deletes",
        multipart_uploads_appear_whole_or_not_at_all: "multipart",
        copies_are_whole: "moves",
        the_store_passes_certification: "certified",
    }
}

#[tokio::test]
async fn memory_conforms() {
    every_case(&Backend::memory()).await;
}

#[tokio::test]
async fn memory_behind_faults_conforms() {
    every_case(&Backend::memory().behind_faults()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_conforms() {
    every_case(&Backend::folder().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_behind_faults_conforms() {
    every_case(&Backend::folder().await.behind_faults()).await;
}

#[tokio::test]
async fn sealed_memory_conforms() {
    every_case(&Backend::memory().encrypted(false).await).await;
}

#[tokio::test]
async fn sealed_memory_behind_faults_conforms() {
    every_case(&Backend::memory().encrypted(true).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sealed_folder_conforms() {
    every_case(&Backend::folder().await.encrypted(false).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sealed_folder_behind_faults_conforms() {
    every_case(&Backend::folder().await.encrypted(true).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sealed_real_s3_server_conforms() {
    if let Some(s3) = Backend::s3().await {
        every_case(&s3.encrypted(false).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_s3_server_conforms() {
    if let Some(s3) = Backend::s3().await {
        every_case(&s3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_s3_server_behind_faults_conforms() {
    if let Some(s3) = Backend::s3().await {
        every_case(&s3.behind_faults()).await;
    }
}
