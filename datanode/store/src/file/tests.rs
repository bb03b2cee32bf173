use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use futures::future::join_all;
use object_store::{Attribute, Attributes, ObjectStoreExt, UpdateVersion};
use rhumb_seams::{Ids, Rand};

use super::*;
use crate::StoreError;
use crate::failure::Failure;
use crate::put_id::PutId;
use crate::testing::TempFolder;

async fn open(folder: &TempFolder) -> FileStore {
    FileStore::open(folder.path().to_owned(), &Clock::starting_at(0))
        .await
        .expect("a folder")
}

fn path(text: &str) -> Path {
    Path::parse(text).expect("a path")
}

async fn put(store: &FileStore, at: &str, body: &str, mode: PutMode) -> Result<PutResult> {
    store
        .put_opts(&path(at), body.to_owned().into(), mode.into())
        .await
}

async fn create(store: &FileStore, at: &str, body: &str) -> Result<PutResult> {
    put(store, at, body, PutMode::Create).await
}

async fn read(store: &FileStore, at: &str) -> String {
    let bytes = store
        .get(&path(at))
        .await
        .expect("an object")
        .bytes()
        .await
        .expect("its bytes");
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn listed(store: &FileStore, prefix: Option<&str>, after: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(path);
    let listing = match after {
        Some(after) => store.list_with_offset(prefix.as_ref(), &path(after)),
        None => store.list(prefix.as_ref()),
    };
    listing
        .map_ok(|meta| meta.location.to_string())
        .try_collect()
        .await
        .expect("a listing")
}

#[tokio::test]
async fn a_second_server_is_refused_and_told_who_holds_the_folder() {
    let folder = TempFolder::new();
    let first = open(&folder).await;
    let refused = FileStore::open(folder.path().to_owned(), &Clock::starting_at(0)).await;
    let Err(StoreError::Locked { holder }) = refused else {
        panic!("opened twice: {refused:?}")
    };
    assert!(
        holder.contains(&format!("pid {}", std::process::id())),
        "{holder}"
    );
    assert!(holder.contains("started 1970-01-01T00:00:00Z"), "{holder}");
    drop(first);
    open(&folder).await;
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_cleared_and_never_listed() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    create(&store, "a/b", "whole").await.expect("created");
    drop(store);
    fs::write(folder.path().join(".tmp/17"), "half").expect("written");
    let store = open(&folder).await;
    assert_eq!(
        fs::read_dir(folder.path().join(".tmp"))
            .expect("a folder")
            .count(),
        0
    );
    assert_eq!(listed(&store, None, None).await, ["a/b"]);
    assert_eq!(read(&store, "a/b").await, "whole");
}

#[tokio::test]
async fn no_write_leaves_a_temp_file_whether_it_wins_or_loses() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    create(&store, "a", "1").await.expect("created");
    create(&store, "a", "2").await.expect_err("already there");
    put(&store, "a", "3", PutMode::Overwrite)
        .await
        .expect("overwritten");
    let stale = UpdateVersion {
        e_tag: Some("\"0-0-0\"".into()),
        version: None,
    };
    put(&store, "a", "4", PutMode::Update(stale))
        .await
        .expect_err("stale");
    let mut upload = store.put_multipart(&path("b")).await.expect("an upload");
    upload.put_part("part".into()).await.expect("a part");
    drop(upload);
    let left: Vec<u64> = fs::read_dir(folder.path().join(".tmp"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").metadata().expect("a file").len())
        .collect();
    // Files made ahead are all there may be.
    assert!(
        left.len() <= 2 && left.iter().all(|bytes| *bytes == 0),
        "{left:?}"
    );
}

#[tokio::test]
async fn writes_go_on_when_somebody_tidied_up_the_files_made_ahead() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let made_ahead = || {
        let entries = fs::read_dir(folder.path().join(".tmp")).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect::<Vec<_>>()
    };
    create(&store, "a", "1").await.expect("created");
    while made_ahead().is_empty() {
        tokio::task::yield_now().await;
    }
    for file in made_ahead() {
        fs::remove_file(file).expect("removed");
    }
    let _ = create(&store, "b", "1").await;
    create(&store, "c", "1")
        .await
        .expect("the next one at the latest");
    assert_eq!(read(&store, "c").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versions_written_as_fast_as_the_disk_allows_never_share_an_etag() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..20 {
        let puts = (0..8).map(|i| {
            put(
                &store,
                if i % 2 == 0 { "a" } else { "b" },
                "same size",
                PutMode::Overwrite,
            )
        });
        for put in join_all(puts).await {
            let etag = put.expect("written").e_tag.expect("an etag");
            assert!(seen.insert(etag.clone()), "round {round}: {etag} twice");
        }
    }
}

#[tokio::test]
async fn the_names_of_the_store_itself_cannot_be_objects() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    for reserved in [".tmp/x", ".lock", ".tmp"] {
        assert!(matches!(
            create(&store, reserved, "x").await,
            Err(object_store::Error::NotSupported { .. })
        ));
        store.get(&path(reserved)).await.expect_err("reserved");
        store.delete(&path(reserved)).await.expect_err("reserved");
    }
    assert!(listed(&store, Some(".tmp"), None).await.is_empty());
    create(&store, "a/.tmp", "deeper is free").await.expect("created");
}

#[tokio::test]
async fn no_path_can_leave_the_folder() {
    for outside in ["../x", "a/../../x", "./x", "a//x", "a/\u{0}"] {
        Path::parse(outside).expect_err("not a path");
    }
    // `From` escapes instead of refusing: the names stay inside.
    let folder = TempFolder::new();
    let store = open(&folder).await;
    store
        .put(&Path::from("../x"), "inside".into())
        .await
        .expect("written");
    assert!(folder.path().join("%2E%2E/x").exists());
}

#[tokio::test]
async fn symbolic_links_are_not_followed_out_of_the_folder_or_inside_it() {
    let folder = TempFolder::new();
    let outside = TempFolder::new();
    fs::write(outside.path().join("secret"), "secret").expect("written");
    let store = open(&folder).await;
    create(&store, "real/x", "x").await.expect("created");
    symlink(outside.path(), folder.path().join("out")).expect("linked");
    symlink(outside.path().join("secret"), folder.path().join("file")).expect("linked");
    symlink(folder.path().join("real"), folder.path().join("in")).expect("linked");
    for linked in ["out/secret", "file", "in/x"] {
        store.get(&path(linked)).await.expect_err("a link");
    }
    create(&store, "out/new", "x").await.expect_err("a link");
    assert!(!outside.path().join("new").exists());
    assert_eq!(listed(&store, None, None).await, ["real/x"]);
    store.delete(&path("out/secret")).await.expect_err("a link");
    assert!(outside.path().join("secret").exists());
}

#[tokio::test]
async fn listings_are_in_order_of_whole_paths() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let mut names = ["a b", "a.b", "a/b", "a/b.c", "a0", "aa/x", "b", "a/c/d/e", "a/ä"];
    for name in names {
        create(&store, name, name).await.expect("created");
    }
    names.sort_unstable();
    assert_eq!(listed(&store, None, None).await, names);
    assert_eq!(
        listed(&store, Some("a"), None).await,
        ["a/b", "a/b.c", "a/c/d/e", "a/ä"]
    );
    for (i, name) in names.iter().enumerate() {
        assert_eq!(
            listed(&store, None, Some(name)).await,
            names[i + 1..],
            "after {name}"
        );
    }
    assert_eq!(listed(&store, Some("a"), Some("a/b.c")).await, ["a/c/d/e", "a/ä"]);
    assert!(listed(&store, Some("none"), None).await.is_empty());
    assert!(
        listed(&store, Some("b"), None).await.is_empty(),
        "an object is not below itself"
    );
}

#[tokio::test]
async fn a_long_listing_comes_in_steps_and_whole() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    create(&store, "d/first", "").await.expect("created");
    // Not through the store: thousands of syncs prove nothing here.
    for i in 0..LIST_STEP * 2 {
        fs::write(folder.path().join(format!("d/{i:05}")), "x").expect("written");
    }
    let all = listed(&store, Some("d"), None).await;
    assert_eq!(all.len(), LIST_STEP * 2 + 1);
    assert!(all.is_sorted());
    assert_eq!(
        listed(&store, Some("d"), Some("d/01500")).await.len(),
        LIST_STEP * 2 - 1501 + 1
    );
}

#[tokio::test]
async fn deleting_leaves_no_empty_folders_and_minds_no_missing_objects() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    for name in ["c/1/p0/wal/1", "c/1/p0/wal/2", "c/2/p0/wal/1"] {
        create(&store, name, "x").await.expect("created");
    }
    let gone = ["c/1/p0/wal/1", "c/1/p0/wal/2", "c/1/nothing", "c/1"].map(|p| Ok(path(p)));
    let deleted: Vec<_> = store
        .delete_stream(stream::iter(gone).boxed())
        .try_collect()
        .await
        .expect("deleted");
    assert_eq!(deleted.len(), 4);
    assert!(!folder.path().join("c/1").exists());
    assert_eq!(listed(&store, None, None).await, ["c/2/p0/wal/1"]);
    store.delete(&path("c/2/p0/wal/1")).await.expect("deleted");
    assert!(!folder.path().join("c").exists());
    create(&store, "c/1/p0/wal/1", "again").await.expect("created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_deleters_of_one_folder_do_not_trip_over_each_other() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let rounds = |name: &'static str| {
        let store = store.clone();
        async move {
            for _ in 0..40 {
                create(&store, name, name).await.expect("created");
                assert_eq!(read(&store, name).await, name);
                store.delete(&path(name)).await.expect("deleted");
            }
        }
    };
    join_all(["deep/er/a", "deep/er/b", "deep/c"].map(rounds)).await;
    assert!(!folder.path().join("deep").exists());
}

#[tokio::test]
async fn an_object_cannot_also_be_a_folder() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    create(&store, "a", "object").await.expect("created");
    create(&store, "b/c", "object").await.expect("created");
    for (name, mode) in [
        ("a/x", PutMode::Create),
        ("b", PutMode::Create),
        ("b", PutMode::Overwrite),
    ] {
        let refused = put(&store, name, "x", mode.clone()).await;
        assert!(
            matches!(refused, Err(object_store::Error::NotSupported { .. })),
            "{name} {mode:?}: {refused:?}"
        );
    }
    assert!(matches!(
        store.get(&path("b")).await,
        Err(object_store::Error::NotFound { .. })
    ));
    assert!(matches!(
        store.get(&path("a/x")).await,
        Err(object_store::Error::NotFound { .. })
    ));
}

#[tokio::test]
async fn a_put_id_is_given_back_until_somebody_else_writes() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let id = PutId::mint(&Ids::new(Clock::starting_at(0), Rand::from_seed(1)));
    let mut attributes = Attributes::new();
    id.attach(&mut attributes);
    store
        .put_opts(&path("a"), "x".into(), attributes.clone().into())
        .await
        .expect("written");
    for head in [true, false] {
        let found = store
            .get_opts(&path("a"), GetOptions::new().with_head(head))
            .await
            .expect("there");
        assert_eq!(found.attributes, attributes);
    }
    put(&store, "a", "y", PutMode::Overwrite).await.expect("written");
    assert!(store.get(&path("a")).await.expect("there").attributes.is_empty());
    let mut others = Attributes::new();
    others.insert(Attribute::ContentType, "text/plain".into());
    let refused = store.put_opts(&path("b"), "x".into(), others.into()).await;
    assert!(
        matches!(refused, Err(object_store::Error::NotImplemented { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn parts_land_where_they_belong_in_whatever_order_they_are_written() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let mut upload = store.put_multipart(&path("big")).await.expect("an upload");
    let (first, second) = (upload.put_part("first ".into()), upload.put_part("second".into()));
    second.await.expect("written");
    first.await.expect("written");
    assert!(matches!(
        store.get(&path("big")).await,
        Err(object_store::Error::NotFound { .. })
    ));
    let put = upload.complete().await.expect("complete");
    assert_eq!(read(&store, "big").await, "first second");
    assert_eq!(store.head(&path("big")).await.expect("there").e_tag, put.e_tag);
    upload.complete().await.expect_err("complete already");
}

#[tokio::test]
async fn an_upload_with_a_part_missing_does_not_become_an_object() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let mut upload = store.put_multipart(&path("big")).await.expect("an upload");
    drop(upload.put_part("never polled".into()));
    upload.complete().await.expect_err("a part is missing");
    assert!(listed(&store, None, None).await.is_empty());
}

#[tokio::test]
async fn large_objects_stream_and_stay_what_they_were_when_opened() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let body: Vec<u8> = (0..READ_STEP as usize * 2 + 77)
        .map(|i| (i % 251) as u8)
        .collect();
    store
        .put(&path("big"), body.clone().into())
        .await
        .expect("written");
    let opened = store.get(&path("big")).await.expect("there");
    store
        .put(&path("big"), "other".into())
        .await
        .expect("overwritten");
    let chunks: Vec<Bytes> = opened.into_stream().try_collect().await.expect("read");
    assert_eq!(chunks.len(), 3);
    assert!(chunks.concat() == body);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_written_but_reads_go_on() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    create(&store, "a", "x").await.expect("created");
    store.folder.tree.break_for_test();
    let refused = create(&store, "b", "x").await.expect_err("broken");
    assert_eq!(Failure::of(&refused), Failure::Refused, "{refused}");
    put(&store, "a", "y", PutMode::Overwrite)
        .await
        .expect_err("broken");
    store.delete(&path("a")).await.expect_err("broken");
    store.rename(&path("a"), &path("c")).await.expect_err("broken");
    store.put_multipart(&path("d")).await.expect_err("broken");
    assert_eq!(read(&store, "a").await, "x");
    drop(store);
    let store = open(&folder).await;
    create(&store, "b", "x")
        .await
        .expect("a restart reads back what is there and goes on");
}

#[tokio::test]
async fn copies_and_moves_keep_or_replace_as_asked() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    create(&store, "a/1", "one").await.expect("created");
    create(&store, "b/2", "two").await.expect("created");
    store.copy(&path("a/1"), &path("c/3")).await.expect("copied");
    assert_eq!(read(&store, "c/3").await, "one");
    let taken = store.copy_if_not_exists(&path("a/1"), &path("b/2")).await;
    assert!(
        matches!(taken, Err(object_store::Error::AlreadyExists { .. })),
        "{taken:?}"
    );
    let taken = store.rename_if_not_exists(&path("a/1"), &path("b/2")).await;
    assert!(
        matches!(taken, Err(object_store::Error::AlreadyExists { .. })),
        "{taken:?}"
    );
    store.rename(&path("a/1"), &path("b/2")).await.expect("moved");
    assert_eq!(read(&store, "b/2").await, "one");
    assert_eq!(listed(&store, None, None).await, ["b/2", "c/3"]);
    assert!(!folder.path().join("a").exists());
    let none = store.rename(&path("a/1"), &path("x")).await;
    assert!(
        matches!(none, Err(object_store::Error::NotFound { .. })),
        "{none:?}"
    );
}

#[tokio::test]
async fn errors_of_the_disk_say_what_it_is_and_that_nothing_was_written() {
    let folder = TempFolder::new();
    let store = open(&folder).await;
    let long = "x".repeat(300);
    let refused = create(&store, &long, "x").await.expect_err("too long");
    assert!(refused.to_string().contains("too long"), "{refused}");
    assert_eq!(Failure::of(&refused), Failure::Refused);
    for (errno, says, failure) in [
        (rustix::io::Errno::NOSPC, "disk is full", Failure::Refused),
        (rustix::io::Errno::DQUOT, "disk is full", Failure::Refused),
        (rustix::io::Errno::ROFS, "read-only", Failure::Refused),
        (rustix::io::Errno::IO, "write", Failure::NotApplied),
        (rustix::io::Errno::ACCESS, "privileges", Failure::Denied),
    ] {
        let error = problem::at("write", "p")(errno);
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(Failure::of(&error), failure, "{error}");
    }
}

#[tokio::test]
async fn an_open_folder_can_be_asked_through_any_handle() {
    let folder = TempFolder::new();
    let store: Arc<dyn ObjectStore> = Arc::new(open(&folder).await);
    store.put(&path("a"), "x".into()).await.expect("written");
    let ranges = store.get_ranges(&path("a"), &[0..1, 0..9]).await.expect("read");
    assert_eq!(ranges, ["x", "x"]);
    store
        .get_range(&path("a"), 1..2)
        .await
        .expect_err("beyond the end");
    assert!(store.to_string().starts_with("FileStore("));
}
