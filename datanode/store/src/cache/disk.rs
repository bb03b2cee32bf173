//! The disk tier: one file per block, each bound to its database, object and place by a
//! checksum over all of that.  Nothing is synced: after a crash a torn file fails its
//! checksum and is fetched again.
//!
//! Blocks of an encrypted database are sealed by the data key of their object, so a disk
//! that is stolen, or kept after the key was destroyed, says nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use object_store::ObjectMeta;
use object_store::path::Path;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use super::disk_block::{self, Block};
use crate::blocking;
use crate::crypt::{BlockKeys, Keyring};
use crate::metrics::{Event, Metrics};

/// Our own folder inside the one we were given: what else lies there is not ours.
const FOLDER: &str = "rhumb-blocks";

#[derive(Debug)]
pub(super) struct DiskTier {
    folder: PathBuf,
    max_bytes: u64,
    scope: DiskScope,
    metrics: Metrics,
    index: Mutex<Index>,
    next_temp: AtomicU64,
    off: AtomicBool,
}

/// Which blocks are these.
#[derive(Debug)]
pub(super) struct DiskScope {
    pub uid: String,
    pub block_bytes: u64,
    pub sealing: Option<Keyring>,
}

/// What is on disk, and in which order it was last used.
#[derive(Debug, Default)]
struct Index {
    by_name: BTreeMap<u128, Entry>,
    by_turn: BTreeMap<u64, u128>,
    next_turn: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    turn: u64,
    bytes: u64,
}

impl DiskTier {
    /// Takes over what an earlier run of the same database left, removes what another one
    /// left.  `None` when the folder cannot be used.
    pub(super) async fn open(
        folder: PathBuf,
        max_bytes: u64,
        scope: DiskScope,
        metrics: &Metrics,
    ) -> Option<Self> {
        let ours = folder.join(FOLDER).join(&scope.uid);
        let scanned = {
            let (all, ours) = (folder.join(FOLDER), ours.clone());
            blocking::run(move || Ok(scan(&all, &ours))).await
        };
        let found = match scanned {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, folder = %folder.display(), "no disk cache: the folder cannot be used");
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, "no disk cache: the folder could not be read");
                return None;
            }
        };
        let mut index = Index::default();
        for (_, name, bytes) in found {
            index.insert(name, bytes);
        }
        let tier = Self {
            folder: ours,
            max_bytes,
            scope,
            metrics: metrics.clone(),
            index: Mutex::new(index),
            next_temp: AtomicU64::new(0),
            off: AtomicBool::new(false),
        };
        tier.evict();
        Some(tier)
    }

    /// Those of `blocks` that are here and whole, with what they say about their object.
    pub(super) async fn read(
        self: &Arc<Self>,
        location: &Path,
        blocks: Vec<u64>,
    ) -> BTreeMap<u64, (ObjectMeta, Bytes)> {
        let candidates: Vec<(u64, u128)> = {
            let index = self.index.lock();
            let named = blocks
                .into_iter()
                .map(|block| (block, self.name(location, block)));
            named
                .filter(|(_, name)| index.by_name.contains_key(name))
                .collect()
        };
        if candidates.is_empty() || self.off.load(Ordering::Relaxed) {
            return BTreeMap::new();
        }
        let Ok(keys) = self.keys(location).await else {
            // The store says what is wrong with the keys.
            return BTreeMap::new();
        };
        let (tier, location) = (self.clone(), location.clone());
        let read = blocking::run(move || {
            let read = candidates.into_iter().filter_map(|(block, name)| {
                Some((block, tier.read_one(&location, block, name, keys.as_ref())?))
            });
            Ok(read.collect())
        });
        read.await.unwrap_or_default()
    }

    pub(super) async fn write(self: &Arc<Self>, meta: &ObjectMeta, blocks: Vec<(u64, Bytes)>) {
        if self.off.load(Ordering::Relaxed) {
            return;
        }
        let Ok(keys) = self.keys(&meta.location).await else {
            return;
        };
        let (tier, meta) = (self.clone(), meta.clone());
        let written = blocking::run(move || {
            for (block, bytes) in blocks {
                tier.write_one(&meta, block, &bytes, keys.as_ref());
            }
            tier.evict();
            Ok(())
        });
        if let Err(error) = written.await {
            self.turn_off(&error);
        }
    }

    /// `None` when blocks lie in the clear.
    async fn keys(&self, location: &Path) -> crate::Result<Option<BlockKeys>> {
        match &self.scope.sealing {
            Some(keyring) => keyring.block_keys(location).await.map(Some),
            None => Ok(None),
        }
    }

    fn name(&self, location: &Path, block: u64) -> u128 {
        xxh3_128(
            format!(
                "{}\n{location}\n{block}\n{}",
                self.scope.uid, self.scope.block_bytes
            )
            .as_bytes(),
        )
    }

    fn file(&self, name: u128) -> PathBuf {
        self.folder.join(format!("{name:032x}"))
    }

    fn read_one(
        &self,
        location: &Path,
        block: u64,
        name: u128,
        keys: Option<&BlockKeys>,
    ) -> Option<(ObjectMeta, Bytes)> {
        let bytes = match fs::read(self.file(name)) {
            Ok(bytes) => bytes,
            Err(e) => {
                self.index.lock().remove(name);
                if e.kind() != ErrorKind::NotFound {
                    self.turn_off(&e);
                }
                return None;
            }
        };
        let place = disk_block::Place {
            uid: &self.scope.uid,
            location,
            block,
            block_bytes: self.scope.block_bytes,
        };
        let opened = match keys {
            Some(keys) => keys.open(&bytes),
            None => Some(bytes),
        };
        match opened.and_then(|bytes| Block::decode(bytes.into(), &place)) {
            Some(found) => {
                self.index.lock().touch(name);
                Some((found.meta, found.bytes))
            }
            None => {
                self.metrics.count(Event::CacheCorrupt);
                self.index.lock().remove(name);
                // Gone or not: it is no longer in the index.
                let _ = fs::remove_file(self.file(name));
                None
            }
        }
    }

    fn write_one(&self, meta: &ObjectMeta, block: u64, bytes: &Bytes, keys: Option<&BlockKeys>) {
        let place = disk_block::Place {
            uid: &self.scope.uid,
            location: &meta.location,
            block,
            block_bytes: self.scope.block_bytes,
        };
        let encoded = disk_block::encode(meta, bytes, &place);
        let encoded = match keys {
            Some(keys) => keys.seal(encoded),
            None => encoded,
        };
        let name = self.name(&meta.location, block);
        // Another process may use the folder: its temp files have other names.
        let serial = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let temp = self.folder.join(format!("tmp-{}-{serial}", std::process::id()));
        let written = fs::write(&temp, &encoded).and_then(|()| fs::rename(&temp, self.file(name)));
        match written {
            Ok(()) => self.index.lock().insert(name, encoded.len() as u64),
            Err(e) => {
                // Best effort: what stays is cleared at the next start.
                let _ = fs::remove_file(&temp);
                self.turn_off(&e);
            }
        }
    }

    fn evict(&self) {
        loop {
            let oldest = {
                let mut index = self.index.lock();
                if index.bytes <= self.max_bytes {
                    return;
                }
                index.oldest().inspect(|name| index.remove(*name))
            };
            let Some(name) = oldest else { return };
            if let Err(e) = fs::remove_file(self.file(name))
                && e.kind() != ErrorKind::NotFound
            {
                self.turn_off(&e);
                return;
            }
        }
    }

    fn turn_off(&self, error: &dyn std::error::Error) {
        if !self.off.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, folder = %self.folder.display(), "the disk cache is off until the next start");
        }
    }
}

impl Index {
    fn insert(&mut self, name: u128, bytes: u64) {
        self.remove(name);
        let turn = self.next_turn;
        self.next_turn += 1;
        self.by_turn.insert(turn, name);
        self.by_name.insert(name, Entry { turn, bytes });
        self.bytes += bytes;
    }

    fn touch(&mut self, name: u128) {
        if let Some(bytes) = self.by_name.get(&name).map(|entry| entry.bytes) {
            self.insert(name, bytes);
        }
    }

    fn remove(&mut self, name: u128) {
        if let Some(entry) = self.by_name.remove(&name) {
            self.by_turn.remove(&entry.turn);
            self.bytes -= entry.bytes;
        }
    }

    fn oldest(&self) -> Option<u128> {
        self.by_turn.first_key_value().map(|(_, name)| *name)
    }
}

/// Blocks in `ours` by age; everything else in `all` and every temp file is removed.
fn scan(all: &std::path::Path, ours: &std::path::Path) -> io::Result<Vec<(u128, u128, u64)>> {
    fs::create_dir_all(ours)?;
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        if path != ours {
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path))?;
        }
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(ours)? {
        let entry = entry?;
        let name = entry.file_name();
        let parsed = name
            .to_str()
            .filter(|n| n.len() == 32)
            .and_then(|n| u128::from_str_radix(n, 16).ok());
        match parsed {
            Some(name) => {
                let meta = entry.metadata()?;
                let age = meta
                    .modified()
                    .ok()
                    .and_then(|m| m.duration_since(UNIX_EPOCH).ok())
                    .unwrap_or_default();
                found.push((age.as_nanos(), name, meta.len()));
            }
            None => fs::remove_file(entry.path())?,
        }
    }
    found.sort_unstable();
    Ok(found)
}
