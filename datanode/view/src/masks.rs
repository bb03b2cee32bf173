//! Compiled filters of one segment: which rows pass, whoever is alive.
//!
//! A segment's columns never change, so a mask stays true for as long as the segment lives.
//! Should a column be attached anew, the masks before it are asked for no more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::DefaultLifecycle};
use rhumb_core::filter::FilterKey;

use crate::bits::{Bits, LiveBits};

/// Rows that pass one filter.
#[derive(Debug)]
pub(crate) struct Mask {
    rows: Bits,
    /// How many of them were alive at some moment, above how many rows were alive then.
    /// Rows of a segment only ever die, so the number of the living names the moment.
    counted: AtomicU64,
}

impl Mask {
    pub(crate) fn new(rows: Bits) -> Self {
        let all = (rows.len() as u64) << u32::BITS;
        let counted = AtomicU64::new(all | rows.count());
        Self { rows, counted }
    }

    pub(crate) fn rows(&self) -> &Bits {
        &self.rows
    }

    /// How many of the living pass.  A popcount at most, and nothing while nobody dies.
    /// `live` must be of the one segment that the mask is of.
    pub(crate) fn count(&self, live: &LiveBits) -> u64 {
        let counted = self.counted.load(Ordering::Relaxed);
        if counted >> u32::BITS == live.count() {
            return counted & u64::from(u32::MAX);
        }
        let count = live.count_among(self.rows.words());
        self.counted
            .store(live.count() << u32::BITS | count, Ordering::Relaxed);
        count
    }

    fn heap_size(&self) -> usize {
        size_of::<Self>() + self.rows.heap_size()
    }
}

/// The masks asked for most, in a bounded number of bytes.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    /// Moved on when a column is replaced: part of every key.
    generation: AtomicU64,
    /// Made by the first filter.
    cache: OnceLock<Cache<MaskKey, Arc<Mask>, Bytes>>,
}

type MaskKey = (u64, FilterKey);

/// 32 masks that fill a segment, and some of a small one.
const BYTES_PER_ROW: usize = 4;
const LEAST_BYTES: usize = 16 << 10;

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<MaskKey, Arc<Mask>> for Bytes {
    fn weight(&self, key: &MaskKey, mask: &Arc<Mask>) -> u64 {
        (size_of::<MaskKey>() + key.1.heap_size() + mask.heap_size()) as u64
    }
}

impl Masks {
    /// Every mask so far is of columns that are no more.  To be called once the new column
    /// is to be found: whoever then sees the new generation sees the column too.
    pub(crate) fn outdate(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn get(&self, key: &FilterKey) -> Option<Arc<Mask>> {
        let generation = self.generation.load(Ordering::Acquire);
        self.cache.get()?.get(&(generation, key.clone()))
    }

    /// The mask of a segment of `rows` rows, made when it is not known.
    pub(crate) fn get_or_make<E>(
        &self,
        key: &FilterKey,
        rows: u32,
        make: impl FnOnce() -> Result<Bits, E>,
    ) -> Result<Arc<Mask>, E> {
        // Before any column is read, see `outdate`.
        let key = (self.generation.load(Ordering::Acquire), key.clone());
        let cache = self.cache.get_or_init(|| bounded(rows));
        if let Some(mask) = cache.get(&key) {
            return Ok(mask);
        }
        let mask = Arc::new(Mask::new(make()?));
        cache.insert(key, mask.clone());
        Ok(mask)
    }

    pub(crate) fn heap_size(&self) -> usize {
        self.cache.get().map_or(0, |cache| cache.weight() as usize)
    }
}

fn bounded(rows: u32) -> Cache<MaskKey, Arc<Mask>, Bytes> {
    let bytes = LEAST_BYTES.max(rows as usize * BYTES_PER_ROW);
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(32)
        .weight_capacity(bytes as u64)
        .build()
        .expect("capacities are given");
    Cache::with_options(
        options,
        Bytes,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}
