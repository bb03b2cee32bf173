//! What encryption costs: the same writes and reads of a plain and of an encrypted database,
//! in turns.  A plain one checks checksums where an encrypted one opens chunks.
//!
//! `cargo run -p rhumb-store --example sealed [-- STORE_URL [ROUNDS]]`
//!
//! On `s3://…` the credentials come from the environment, and `…/plain` and `…/sealed` are
//! written.  Without a URL it is a folder in the temp folder, whose reads come from the page
//! cache: the least favourable case, as nothing else takes time.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rhumb_seams::{Clock, Ids, Rand};
use rhumb_store::crypt::MasterKey;
use rhumb_store::{Bucket, BucketOptions, StoreUrl};
use tokio::time::Instant;

type Anything = Box<dyn std::error::Error>;

const SIZES: [(&str, usize); 3] = [("16 KiB", 16 << 10), ("1.5 MB", 1_500_000), ("16 MB", 16_000_000)];

/// Two databases alike but for the key.
struct Pair {
    urls: [StoreUrl; 2],
    open: [Bucket; 2],
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1);
    let folder = std::env::temp_dir().join(format!("rhumb-sealed-{}", std::process::id()));
    let url = args
        .next()
        .unwrap_or_else(|| format!("file://{}", folder.display()));
    let rounds: usize = args.next().map_or(Ok(200), |n| n.parse())?;
    let urls = [format!("{url}/plain").parse()?, format!("{url}/sealed").parse()?];
    let open = [bucket(&urls[0], false).await?, bucket(&urls[1], true).await?];
    let mut pair = Pair { urls, open };
    for (name, size) in SIZES {
        let rounds = if size > 4_000_000 {
            rounds.div_ceil(8)
        } else {
            rounds
        };
        pair.puts(name, size, rounds).await?;
        pair.first_reads(name, size, rounds).await?;
        pair.later_reads(name, size, rounds).await?;
    }
    drop(pair);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

async fn bucket(url: &StoreUrl, sealed: bool) -> Result<Bucket, Anything> {
    let (clock, rand) = (Clock::system(), Rand::from_entropy());
    let ids = Ids::new(clock.clone(), rand.clone());
    let key = MasterKey::parse(&format!("{}00", "5a".repeat(31)))?;
    let options = BucketOptions {
        ram_cache_bytes: 0,
        master_key: sealed.then(|| Arc::new(key)),
        ..BucketOptions::default()
    };
    Ok(Bucket::open(url, options, clock, rand, ids).await?)
}

fn file(bucket: &Bucket, size: usize, n: usize) -> Path {
    bucket.path(&format!(
        "c/01ARZ3NDEKTSV4RRFFQ69G5FAV/p0/table/data/{size}-{n}.lance"
    ))
}

impl Pair {
    async fn puts(&self, name: &str, size: usize, rounds: usize) -> Result<(), Anything> {
        let body: Bytes = (0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
        let mut took: [Vec<Duration>; 2] = Default::default();
        for n in 0..rounds {
            for (bucket, took) in self.open.iter().zip(&mut took) {
                let (store, path) = (bucket.object_store(), file(bucket, size, n));
                let started = Instant::now();
                store.put(&path, body.clone().into()).await?;
                took.push(started.elapsed());
            }
        }
        report(&format!("put {name}"), took);
        Ok(())
    }

    /// Each object is met for the first time: its checksums or its footer come first.
    async fn first_reads(&mut self, name: &str, size: usize, rounds: usize) -> Result<(), Anything> {
        for (what, whole) in [("first read of 4 KiB in", false), ("first read of all of", true)] {
            self.reopen().await?;
            let mut took: [Vec<Duration>; 2] = Default::default();
            for n in 0..rounds {
                let at = (n * 7_919 % (size - 4_096)) as u64;
                let range = if whole { 0..size as u64 } else { at..at + 4_096 };
                self.read(size, n, range, &mut took).await?;
            }
            report(&format!("{what} {name}"), took);
        }
        Ok(())
    }

    async fn later_reads(&self, name: &str, size: usize, rounds: usize) -> Result<(), Anything> {
        let mut took: [Vec<Duration>; 2] = Default::default();
        for n in 0..rounds * 4 {
            let at = (n * 7_919 % (size - 4_096)) as u64;
            self.read(size, 0, at..at + 4_096, &mut took).await?;
        }
        report(&format!("later read of 4 KiB in {name}"), took);
        let mut took: [Vec<Duration>; 2] = Default::default();
        let ranges: Vec<Range<u64>> = (0..100)
            .map(|i| i * (size as u64 - 1_536) / 100)
            .map(|at| at..at + 1_536)
            .collect();
        for _ in 0..rounds {
            for (bucket, took) in self.open.iter().zip(&mut took) {
                let (store, path) = (bucket.object_store(), file(bucket, size, 0));
                let started = Instant::now();
                store.get_ranges(&path, &ranges).await?;
                took.push(started.elapsed());
            }
        }
        report(&format!("100 rows of 1.5 KiB in {name}"), took);
        Ok(())
    }

    async fn read(
        &self,
        size: usize,
        n: usize,
        range: Range<u64>,
        took: &mut [Vec<Duration>; 2],
    ) -> Result<(), Anything> {
        for (bucket, took) in self.open.iter().zip(took) {
            let (store, path) = (bucket.object_store(), file(bucket, size, n));
            let started = Instant::now();
            let read = store.get_range(&path, range.clone()).await?;
            took.push(started.elapsed());
            assert_eq!(read.first().copied(), Some((range.start % 251) as u8));
        }
        Ok(())
    }

    /// Other processes, as it were: nothing is known of any object.
    async fn reopen(&mut self) -> Result<(), Anything> {
        for (sealed, url) in [false, true].into_iter().zip(&self.urls) {
            // The lock of the folder is held until nobody has the bucket.
            self.open[usize::from(sealed)] = nowhere().await?;
            self.open[usize::from(sealed)] = bucket(url, sealed).await?;
        }
        Ok(())
    }
}

async fn nowhere() -> Result<Bucket, Anything> {
    bucket(&StoreUrl::Memory, false).await
}

fn report(what: &str, mut took: [Vec<Duration>; 2]) {
    took.iter_mut().for_each(|took| took.sort_unstable());
    let at = |which: usize, share: f64| took[which][((took[which].len() - 1) as f64 * share) as usize];
    let speed = at(0, 0.5).as_secs_f64() / at(1, 0.5).as_secs_f64();
    // A report is what this program is for.
    let line = format!(
        "{what:36} plain p50 {:>9.1?} p90 {:>9.1?}  sealed p50 {:>9.1?} p90 {:>9.1?}  speed {speed:.2} x\n",
        at(0, 0.5),
        at(0, 0.9),
        at(1, 0.5),
        at(1, 0.9)
    );
    std::io::stdout().write_all(line.as_bytes()).unwrap_or_default();
}
