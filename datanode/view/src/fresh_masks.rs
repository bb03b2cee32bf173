//! Filters over a list of fresh rows that grows: what has been asked of a row is not asked
//! again, since a written row never changes.

use std::sync::{Arc, OnceLock};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::DefaultLifecycle};
use rhumb_core::Filter;
use rhumb_core::filter::FilterKey;

use crate::bits::Bits;
use crate::fresh::FreshRows;

/// Of one group, shared by all snapshots of it: an answer may reach further than a
/// snapshot's rows.
#[derive(Debug, Default)]
pub(crate) struct FreshMasks {
    cache: OnceLock<Cache<FilterKey, Arc<Bits>, Bytes>>,
}

/// Some 400 filters over 20,000 rows.
const MOST_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<FilterKey, Arc<Bits>> for Bytes {
    fn weight(&self, key: &FilterKey, rows: &Arc<Bits>) -> u64 {
        (2 * size_of::<FilterKey>() + key.heap_size() + size_of::<Bits>() + rows.heap_size()) as u64
    }
}

impl FreshMasks {
    /// Rows that pass, alive or not, of at least the list's length.
    pub(crate) fn passing(&self, key: &FilterKey, filter: &Filter, rows: &FreshRows) -> Arc<Bits> {
        let cache = self.cache.get_or_init(bounded);
        let known = cache.get(key);
        if let Some(known) = known.as_ref().filter(|known| known.len() >= rows.len() as usize) {
            return known.clone();
        }
        let known = known.unwrap_or_default();
        let mut passing = Bits::clone(&known);
        for at in known.len() as u32..rows.len() {
            let row = rows.row(at);
            let passes = |document: &Arc<_>| filter.matches(&row.id, document);
            passing.push(row.document.as_ref().is_some_and(passes));
        }
        let passing = Arc::new(passing);
        // Two queries at once may both have added; either answer is right as far as it goes.
        cache.insert(key.clone(), passing.clone());
        passing
    }

    /// Rows that no answer to this filter reaches yet.
    pub(crate) fn unasked(&self, key: &FilterKey, rows: &FreshRows) -> u32 {
        let known = self.cache.get().and_then(|cache| cache.get(key));
        rows.len() - rows.len().min(known.map_or(0, |known| known.len() as u32))
    }

    pub(crate) fn heap_size(&self) -> usize {
        self.cache.get().map_or(0, |cache| cache.weight() as usize)
    }
}

fn bounded() -> Cache<FilterKey, Arc<Bits>, Bytes> {
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(32)
        .weight_capacity(MOST_BYTES)
        .build()
        .expect("capacities are given");
    Cache::with_options(
        options,
        Bytes,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}
