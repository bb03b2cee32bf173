//! `Bucket` as the protocol uses it: outcomes, identity, refusal of unsafe stores.

mod support;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use rhumb_seams::{Clock, Rand};
use rhumb_store::fault::{Fault, Faults, Rule};
use rhumb_store::metrics::{Event, Op};
use rhumb_store::{Bucket, BucketOptions, ErrorKind, Outcome, StoreError, StoreUrl};
use support::{S3Server, TempFolder, ids};

async fn open(store: Arc<dyn ObjectStore>, faults: &Faults) -> rhumb_store::Result<Bucket> {
    let options = BucketOptions {
        faults: Some(faults.clone()),
        ..BucketOptions::default()
    };
    Bucket::open_with(store, Path::from("pre fix"), options, Rand::from_seed(1), ids()).await
}

async fn bucket() -> (Bucket, Faults, Arc<InMemory>) {
    let (memory, faults) = (Arc::new(InMemory::new()), Faults::new(Rand::from_seed(1)));
    let bucket = open(memory.clone(), &faults).await.expect("a bucket");
    (bucket, faults, memory)
}

fn landed(outcome: Outcome) -> rhumb_store::Tag {
    match outcome {
        Outcome::Landed(tag) => tag,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_ends_landed_lost_or_unknown() {
    let (bucket, faults, _) = bucket().await;
    let path = bucket.path("c/1/state.json");
    let (first, second) = (bucket.mint_put_id(), bucket.mint_put_id());
    let tag = landed(bucket.create(&path, "1".into(), &first).await.expect("answered"));
    assert_eq!(tag.put_id.as_ref(), Some(&first));
    assert_eq!(
        bucket.create(&path, "1".into(), &second).await.expect("answered"),
        Outcome::Lost
    );
    // The same write again is the same write.
    assert_eq!(
        landed(bucket.create(&path, "1".into(), &first).await.expect("answered")),
        tag
    );

    let (body, seen) = bucket.get(&path).await.expect("answered").expect("there");
    assert_eq!((body, &seen), (Bytes::from("1"), &tag));
    let next = landed(
        bucket
            .replace(&path, "2".into(), &second, &seen)
            .await
            .expect("answered"),
    );
    let third = bucket.mint_put_id();
    assert_eq!(
        bucket
            .replace(&path, "3".into(), &third, &seen)
            .await
            .expect("answered"),
        Outcome::Lost
    );

    faults.add_rule(Rule::new(Fault::LoseAnswer).on(Op::Put).times(1));
    let outage = faults.add_rule(Rule::new(Fault::Outage));
    assert_eq!(
        bucket
            .replace(&path, "3".into(), &third, &next)
            .await
            .expect("no error"),
        Outcome::Unknown
    );
    faults.remove_rule(outage);
    let tag = landed(
        bucket
            .replace(&path, "3".into(), &third, &next)
            .await
            .expect("answered"),
    );
    assert_eq!(bucket.head(&path).await.expect("answered").expect("there").1, tag);
    assert_eq!(bucket.metrics().count_of(Event::Unknown), 1);
}

#[tokio::test]
async fn what_is_not_there_is_none_and_deleting_it_is_fine() {
    let (bucket, _, _) = bucket().await;
    let path = bucket.path("nothing");
    assert!(bucket.get(&path).await.expect("answered").is_none());
    assert!(bucket.get_uncached(&path).await.expect("answered").is_none());
    assert!(bucket.head(&path).await.expect("answered").is_none());
    bucket.delete(&path).await.expect("answered");
}

#[tokio::test]
async fn names_lie_under_the_prefix_as_it_is() {
    let (bucket, _, memory) = bucket().await;
    assert_eq!(bucket.path("catalog/a.json").as_ref(), "pre fix/catalog/a.json");
    let listed: Vec<Path> = memory
        .list(None)
        .map_ok(|meta| meta.location)
        .try_collect()
        .await
        .expect("listed");
    assert_eq!(listed, [bucket.path("identity.json")]);
    let odd = Path::parse("50%25 off/x").expect("a path");
    let options = BucketOptions::default();
    let bucket = Bucket::open_with(memory, odd, options, Rand::from_seed(1), ids())
        .await
        .expect("a bucket");
    assert_eq!(
        bucket.path("catalog").as_ref(),
        "50%25 off/x/catalog",
        "not encoded again"
    );
}

#[tokio::test]
async fn a_database_keeps_its_uid_and_another_has_another() {
    let (first, faults, memory) = bucket().await;
    let again = open(memory, &faults).await.expect("a bucket");
    assert_eq!(first.uid(), again.uid());
    let other = open(Arc::new(InMemory::new()), &faults).await.expect("a bucket");
    assert_ne!(first.uid(), other.uid());
}

#[tokio::test]
async fn two_first_starts_at_once_agree_on_one_uid() {
    for _ in 0..20 {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let faults = Faults::new(Rand::from_entropy());
        faults.add_rule(
            Rule::new(Fault::LoseAnswer)
                .on(Op::Put)
                .at("identity.json")
                .chance(0.5),
        );
        let (a, b) = tokio::join!(open(memory.clone(), &faults), open(memory.clone(), &faults));
        assert_eq!(a.expect("a bucket").uid(), b.expect("a bucket").uid());
    }
}

#[tokio::test]
async fn a_newer_or_damaged_identity_is_refused() {
    for (identity, kind) in [
        (r#"{"format": 3, "uid": "abc", "more": 1}"#, ErrorKind::Invalid),
        // Encrypted: known, and this one is not whole.
        (r#"{"format": 2, "uid": "abc", "more": 1}"#, ErrorKind::Corrupt),
        (r#"{"format": 1, "uid": ""}"#, ErrorKind::Corrupt),
        (r#"{"format": 1, "uid": "../../etc"}"#, ErrorKind::Corrupt),
        (r#"{"format": 0, "uid": "abc", "sum": ""}"#, ErrorKind::Corrupt),
        (
            r#"{"format": 1, "uid": "abc", "sum": "0000000000000000"}"#,
            ErrorKind::Corrupt,
        ),
        ("", ErrorKind::Corrupt),
        ("{\"format\": 1", ErrorKind::Corrupt),
    ] {
        let memory = Arc::new(InMemory::new());
        memory
            .put(&Path::from("pre fix/identity.json"), identity.into())
            .await
            .expect("written");
        let refused = open(memory, &Faults::new(Rand::from_seed(1)))
            .await
            .expect_err("refused");
        assert_eq!(refused.kind(), kind, "{identity}: {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_worth_another_try() {
    let faults = Faults::new(Rand::from_seed(1));
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let outage = faults.add_rule(Rule::new(Fault::Outage));
    let refused = open(memory.clone(), &faults).await.expect_err("away");
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
    faults.remove_rule(outage);
    let outage = faults.add_rule(Rule::new(Fault::Outage).at("identity.json"));
    let refused = open(memory.clone(), &faults).await.expect_err("away");
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
    faults.remove_rule(outage);
    open(memory, &faults).await.expect("a bucket");
}

#[tokio::test]
async fn nobody_listening_is_worth_another_try_too() {
    let url: StoreUrl = "s3://bucket/prefix".parse().expect("a url");
    let variables = [
        // A port of this machine where nobody listens.
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let retry = rhumb_store::retry::RetryPolicy {
        attempts: 2,
        first_wait: Duration::from_millis(1),
        ..Default::default()
    };
    let s3_overrides = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let options = BucketOptions {
        s3_overrides,
        retry,
        ..BucketOptions::default()
    };
    let refused = Bucket::open(&url, options, Clock::system(), Rand::from_seed(1), ids())
        .await
        .expect_err("away");
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
}

#[tokio::test]
async fn a_folder_is_one_server_s_and_keeps_its_uid() {
    let folder = TempFolder::new();
    let url = StoreUrl::File {
        folder: folder.path().join("deep/er"),
    };
    let open = || {
        Bucket::open(
            &url,
            BucketOptions::default(),
            Clock::system(),
            Rand::from_entropy(),
            ids(),
        )
    };
    let first = open().await.expect("a bucket");
    let refused = open().await.expect_err("in use");
    assert!(
        matches!(&refused, StoreError::Locked { holder } if holder.contains("pid ")),
        "{refused}"
    );
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let (uid, store) = (first.uid().to_owned(), first.object_store());
    drop(first);
    open().await.expect_err("a store handed out holds the folder");
    drop(store);
    assert_eq!(open().await.expect("a bucket").uid(), uid);
}

#[tokio::test]
async fn a_wrong_key_is_told_as_such() {
    let Some(server) = S3Server::start().await else {
        return;
    };
    let url: StoreUrl = format!("s3://{}", S3Server::BUCKET).parse().expect("a url");
    let mut s3_overrides = server.variables();
    s3_overrides.push(("AWS_SECRET_ACCESS_KEY".into(), "wrong".into()));
    let options = BucketOptions {
        s3_overrides,
        ..BucketOptions::default()
    };
    let refused = Bucket::open(&url, options, Clock::system(), Rand::from_seed(1), ids())
        .await
        .expect_err("denied");
    assert!(matches!(refused, StoreError::Denied { .. }), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Retry);
    let nowhere: StoreUrl = "s3://no-such-bucket".parse().expect("a url");
    let options = BucketOptions {
        s3_overrides: server.variables(),
        ..BucketOptions::default()
    };
    let refused = Bucket::open(&nowhere, options, Clock::system(), Rand::from_seed(1), ids())
        .await
        .expect_err("none");
    assert!(refused.to_string().contains("no such bucket"), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_store_that_breaks_a_promise_is_refused_by_the_name_of_the_check() {
    for (flaw, check) in [
        (Flaw::IgnoresCreate, "create-if-absent"),
        (Flaw::IgnoresMatch, "compare-and-swap"),
        (Flaw::ForgetsMetadata, "put-id"),
        (Flaw::IgnoresRange, "range-read"),
        (Flaw::IgnoresDelete, "delete"),
        (Flaw::ListsNothing, "list-after-write"),
    ] {
        let flawed = Arc::new(Flawed {
            inner: InMemory::new(),
            flaw,
        });
        let refused = open(flawed, &Faults::new(Rand::from_seed(1)))
            .await
            .expect_err("unsafe");
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        match refused {
            StoreError::Unsafe {
                check: failed,
                detail,
            } => assert_eq!(failed, check, "{detail}"),
            other => panic!("{flaw:?}: {other}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    IgnoresCreate,
    IgnoresMatch,
    ForgetsMetadata,
    IgnoresRange,
    IgnoresDelete,
    ListsNothing,
}

/// Real stores with each of these flaws exist.
#[derive(Debug)]
struct Flawed {
    inner: InMemory,
    flaw: Flaw,
}

impl fmt::Display for Flawed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.flaw)
    }
}

#[async_trait]
impl ObjectStore for Flawed {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        match (self.flaw, &opts.mode) {
            (Flaw::IgnoresCreate, PutMode::Create) | (Flaw::IgnoresMatch, PutMode::Update(_)) => {
                opts.mode = PutMode::Overwrite;
            }
            (Flaw::ForgetsMetadata, _) => opts.attributes = Attributes::new(),
            _ => {}
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        if self.flaw == Flaw::IgnoresRange {
            options.range = None;
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.flaw == Flaw::IgnoresDelete {
            locations
        } else {
            self.inner.delete_stream(locations)
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.flaw == Flaw::ListsNothing {
            return Box::pin(futures::stream::empty());
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
