use std::sync::Arc;

use object_store::memory::InMemory;
use rhumb_seams::{Clock, Ids, Rand};

use super::*;
use crate::{BucketOptions, ErrorKind};

async fn catalog() -> (Catalog, Ids) {
    let rand = Rand::from_seed(7);
    let ids = Ids::new(Clock::starting_at(0), rand.clone());
    let options = BucketOptions {
        ram_cache_bytes: 0,
        certify: false,
        ..BucketOptions::default()
    };
    let store = Arc::new(InMemory::new());
    let bucket = Bucket::open_with(store, Path::default(), options, rand, ids.clone()).await;
    (Catalog::new(&bucket.expect("a bucket in memory")), ids)
}

fn name(text: &str) -> CollectionName {
    CollectionName::parse(text).expect("a name")
}

fn entry(ids: &Ids, text: &str) -> CatalogEntry {
    CatalogEntry {
        id: CollectionId::parse(&ids.ulid()).expect("a ULID"),
        name: name(text),
        created_at_ms: 0,
        schema: Schema::default(),
        partitions: 1,
        state: CatalogState::Active,
        leader: None,
        settings: BTreeMap::new(),
    }
}

async fn create(catalog: &Catalog, entry: &CatalogEntry) {
    let made = catalog.create(entry.clone()).await.expect("the store answers");
    assert_eq!(made, Creation::Created(entry.clone()));
}

async fn names(catalog: &Catalog, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(name);
    let page = catalog
        .list(prefix, after.as_ref(), limit)
        .await
        .expect("the store answers");
    page.into_iter().map(|entry| entry.name.to_string()).collect()
}

#[tokio::test]
async fn a_name_is_given_once() {
    let (catalog, ids) = catalog().await;
    let (first, second) = (entry(&ids, "books"), entry(&ids, "books"));
    create(&catalog, &first).await;
    let again = catalog.create(second).await.expect("the store answers");
    assert_eq!(again, Creation::Exists(first.clone()));
    create(&catalog, &first).await;
    assert_eq!(catalog.load(&name("books")).await.expect("readable"), Some(first));
    assert_eq!(catalog.load(&name("other")).await.expect("readable"), None);
}

#[tokio::test]
async fn racing_creators_have_one_winner() {
    let (catalog, ids) = catalog().await;
    let entries: Vec<_> = (0..8).map(|_| entry(&ids, "books")).collect();
    let made = futures::future::join_all(entries.iter().map(|e| catalog.create(e.clone()))).await;
    let winners = made
        .iter()
        .filter(|m| matches!(m, Ok(Creation::Created(_))))
        .count();
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn a_removed_name_is_free_again_and_its_namesake_is_safe() {
    let (catalog, ids) = catalog().await;
    let (old, new) = (entry(&ids, "books"), entry(&ids, "books"));
    create(&catalog, &old).await;
    catalog
        .start_removal(&old.name, &old.id, |_| Ok(()))
        .await
        .expect("started");
    let early = catalog.create(new.clone()).await.expect("the store answers");
    assert!(matches!(early, Creation::Exists(e) if e.state == CatalogState::Deleting));
    catalog
        .finish_removal(&old.name, &old.id)
        .await
        .expect("finished");
    catalog
        .finish_removal(&old.name, &old.id)
        .await
        .expect("finished again");
    assert_eq!(catalog.load(&old.name).await.expect("readable"), None);
    create(&catalog, &new).await;

    for late in [
        catalog
            .finish_removal(&old.name, &old.id)
            .await
            .expect_err("another collection"),
        catalog
            .start_removal(&old.name, &old.id, |_| Ok(()))
            .await
            .expect_err("another collection"),
        catalog
            .update(&old.name, &old.id, |_| Ok(()))
            .await
            .expect_err("another collection"),
    ] {
        assert_eq!(late.kind(), ErrorKind::NotFound);
    }
    assert_eq!(catalog.load(&new.name).await.expect("readable"), Some(new));
}

#[tokio::test]
async fn removal_goes_forward_only() {
    let (catalog, ids) = catalog().await;
    let books = entry(&ids, "books");
    create(&catalog, &books).await;
    let unsealed = catalog.finish_removal(&books.name, &books.id).await;
    assert_eq!(unsealed.expect_err("not sealed yet").kind(), ErrorKind::NotFound);
    catalog
        .start_removal(&books.name, &books.id, |_| Ok(()))
        .await
        .expect("started");
    catalog
        .start_removal(&books.name, &books.id, |_| Ok(()))
        .await
        .expect("started again");
    let late = catalog.update(&books.name, &books.id, |_| Ok(())).await;
    assert_eq!(late.expect_err("deleting").kind(), ErrorKind::NotFound);
    catalog
        .finish_removal(&books.name, &books.id)
        .await
        .expect("finished");
    let back = catalog.start_removal(&books.name, &books.id, |_| Ok(())).await;
    assert_eq!(back.expect_err("deleted").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn racing_edits_lose_none_and_identity_stays() {
    let (catalog, ids) = catalog().await;
    let books = entry(&ids, "books");
    create(&catalog, &books).await;
    let edits = (0..8).map(|n| {
        let (catalog, books) = (&catalog, &books);
        async move {
            let edit = |entry: &mut CatalogEntry| {
                entry.settings.insert(format!("k{n}"), n.into());
                entry.name = CollectionName::parse("stolen").expect("a name");
                entry.state = CatalogState::Deleted;
                Ok(())
            };
            catalog.update(&books.name, &books.id, edit).await
        }
    });
    assert!(futures::future::join_all(edits).await.iter().all(Result::is_ok));
    let now = catalog.load(&books.name).await.expect("readable").expect("there");
    assert_eq!(now.settings.len(), 8);
    assert_eq!((now.name, now.state), (books.name, CatalogState::Active));
}

#[tokio::test]
async fn a_listing_is_in_order_of_name_and_pages_miss_nothing() {
    let (catalog, ids) = catalog().await;
    let mut all = ["a", "a-b", "a0", "a_b", "ab", "b", "b-1", "b1", "c"]
        .map(str::to_owned)
        .to_vec();
    for text in all.iter().rev() {
        create(&catalog, &entry(&ids, text)).await;
    }
    all.sort();
    assert_eq!(names(&catalog, "", None, 100).await, all);
    for limit in 1..4 {
        let mut paged: Vec<String> = Vec::new();
        loop {
            let page = names(&catalog, "", paged.last().map(String::as_str), limit).await;
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all, "{limit} at a time");
    }
    assert_eq!(
        names(&catalog, "a", None, 100).await,
        ["a", "a-b", "a0", "a_b", "ab"]
    );
    assert_eq!(
        names(&catalog, "a", Some("a"), 100).await,
        ["a-b", "a0", "a_b", "ab"]
    );
    assert_eq!(names(&catalog, "b", Some("a"), 2).await, ["b", "b-1"]);
    assert_eq!(names(&catalog, "zz", None, 100).await, [""; 0]);
    assert_eq!(names(&catalog, "../a", None, 100).await, [""; 0]);
}

#[tokio::test]
async fn removed_collections_are_not_listed_and_do_not_shorten_a_page() {
    let (catalog, ids) = catalog().await;
    for text in ["a", "b", "c", "d"] {
        create(&catalog, &entry(&ids, text)).await;
    }
    for gone in ["a", "c"] {
        let found = catalog.load(&name(gone)).await.expect("readable").expect("there");
        catalog
            .start_removal(&found.name, &found.id, |_| Ok(()))
            .await
            .expect("started");
        catalog
            .finish_removal(&found.name, &found.id)
            .await
            .expect("finished");
    }
    assert_eq!(names(&catalog, "", None, 2).await, ["b", "d"]);
}
