//! What a durable PUT into a folder costs, beside the system calls it cannot do without:
//! write, fdatasync, link, fsync of the folder, on the calling thread.
//!
//! `cargo run -p rhumb-store --example put [-- FOLDER [ROUNDS]]`

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutMode};
use rhumb_seams::{Clock, Ids, Rand};
use rhumb_store::file::FileStore;
use rhumb_store::{Bucket, BucketOptions, PutId, StoreUrl};
use tokio::time::Instant;

const WAYS: [&str; 3] = ["system calls", "FileStore", "Bucket"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().unwrap_or_else(|| "/tmp/rhumb-put".into()));
    let rounds: usize = args.next().map_or(Ok(400), |n| n.parse())?;
    let (clock, rand) = (Clock::system(), Rand::from_entropy());
    let ids = Ids::new(clock.clone(), rand.clone());
    fs::create_dir_all(folder.join("raw/d"))?;
    let store = FileStore::open(folder.join("store"), &clock).await?;
    let url = StoreUrl::File {
        folder: folder.join("bucket"),
    };
    let bucket = Bucket::open(&url, BucketOptions::default(), clock, rand, ids.clone()).await?;

    for bytes in [2 << 10, 1_500_000] {
        let body = Bytes::from(vec![7u8; bytes]);
        let mut took: [Vec<Duration>; 3] = Default::default();
        // In turns, so that a slow moment of the disk hits all alike.
        for n in 0..rounds {
            let started = Instant::now();
            by_system_calls(&folder.join("raw"), &format!("{bytes}-{n}"), &body)?;
            took[0].push(started.elapsed());

            let path = Path::from(format!("d/{bytes}-{n}"));
            let started = Instant::now();
            store
                .put_opts(&path, body.clone().into(), PutMode::Create.into())
                .await?;
            took[1].push(started.elapsed());

            let id = PutId::mint(&ids);
            let started = Instant::now();
            let outcome = bucket.create(&path, body.clone(), &id).await?;
            took[2].push(started.elapsed());
            assert!(matches!(outcome, rhumb_store::Outcome::Landed(_)), "{outcome:?}");
        }
        for (way, took) in WAYS.iter().zip(took) {
            report(&format!("create {bytes} B by {way}"), took);
        }
    }
    reads(&store, rounds).await?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn reads(store: &FileStore, rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    let store: Arc<dyn ObjectStore> = Arc::new(store.clone());
    let path = Path::from(format!("d/{}-0", 1_500_000));
    let mut took: [Vec<Duration>; 3] = Default::default();
    for n in 0..rounds * 4 {
        let started = Instant::now();
        store.get_opts(&path, GetOptions::new().with_head(true)).await?;
        took[0].push(started.elapsed());
        let started = Instant::now();
        store
            .get_range(&path, 4_096 * (n as u64 % 300)..4_096 * (n as u64 % 300) + 1_536)
            .await?;
        took[1].push(started.elapsed());
        let ranges: Vec<_> = (0..100).map(|i| i * 14_000..i * 14_000 + 1_536).collect();
        let started = Instant::now();
        store.get_ranges(&path, &ranges).await?;
        took[2].push(started.elapsed());
    }
    for (what, took) in ["HEAD", "one range of 1,536 B", "100 ranges of 1,536 B"]
        .iter()
        .zip(took)
    {
        report(what, took);
    }
    Ok(())
}

fn by_system_calls(root: &FsPath, name: &str, body: &[u8]) -> std::io::Result<()> {
    let (temp, target) = (root.join(name), root.join("d").join(name));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temp)?;
    file.write_all(body)?;
    file.sync_data()?;
    fs::hard_link(&temp, &target)?;
    File::open(root.join("d"))?.sync_all()?;
    fs::remove_file(&temp)
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    // A report is what this program is for.
    let line = format!(
        "{what:38} p50 {:>10.1?}  p90 {:>10.1?}  p99 {:>10.1?}\n",
        at(0.5),
        at(0.9),
        at(0.99)
    );
    std::io::stdout().write_all(line.as_bytes()).unwrap_or_default();
}
