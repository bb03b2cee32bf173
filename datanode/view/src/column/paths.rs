//! What lies at the end of a path into a json column, taken out once: json is parsed by
//! the first tests of a path, and every later one reads a code per row.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;
use parking_lot::RwLock;
use rhumb_core::filter::{Test, dig};
use serde_json::Value as Json;

use super::narrow::Narrow;
use super::strings::runs_of;
use crate::bits::Bits;

#[derive(Debug, Default)]
pub(super) struct Paths(RwLock<BTreeMap<Vec<Arc<str>>, Arc<Path>>>);

/// A query can ask for any path; the paths in real use are few.
const MOST_PATHS: usize = 32;
/// As many as two bytes name.
const MOST_ENTRIES: usize = 1 << u16::BITS;
/// Text of all entries: so much, and so much for each row.
const ENTRY_BYTES: usize = 1 << 16;
const ENTRY_BYTES_PER_ROW: usize = 4;

#[derive(Debug, Default)]
struct Path {
    /// Rows that tests of this path have parsed so far.
    parsed: AtomicUsize,
    /// `None` inside: too much for a dictionary, so rows are parsed for each test.
    values: OnceLock<Option<PathValues>>,
}

#[derive(Debug)]
struct PathValues {
    /// In the order in which they were met; `None` where the path leads nowhere.
    entries: Vec<Option<Json>>,
    text_bytes: usize,
    codes: Narrow,
}

impl Paths {
    /// Rows whose value passes, of all `rows`; `None` when the caller has to parse those it
    /// wants.  The values are taken out once tests have parsed as many rows as that takes,
    /// `wanted` being the rows of this one.
    pub(super) fn passing(
        &self,
        steps: &[Arc<str>],
        test: &Test,
        (wanted, rows): (usize, usize),
        row: impl Fn(usize) -> Json,
    ) -> Option<Bits> {
        let path = self.path(steps)?;
        if path.values.get().is_none() && path.parsed.fetch_add(wanted, Ordering::Relaxed) + wanted < rows {
            return None;
        }
        let values = path.values.get_or_init(|| PathValues::new(steps, rows, row));
        values.as_ref().map(|values| values.passing(test))
    }

    fn path(&self, steps: &[Arc<str>]) -> Option<Arc<Path>> {
        if let Some(path) = self.0.read().get(steps) {
            return Some(path.clone());
        }
        let mut paths = self.0.write();
        if paths.len() >= MOST_PATHS && !paths.contains_key(steps) {
            return None;
        }
        Some(paths.entry(steps.to_vec()).or_default().clone())
    }

    pub(super) fn heap_size(&self) -> usize {
        let paths = self.0.read();
        let of = |(steps, path): (&Vec<Arc<str>>, &Arc<Path>)| {
            let steps = steps.iter().map(|step| 32 + step.len()).sum::<usize>();
            let values = path.values.get().and_then(Option::as_ref);
            size_of::<Path>() + 64 + steps + values.map_or(0, PathValues::heap_size)
        };
        paths.iter().map(of).sum()
    }
}

impl PathValues {
    fn new(steps: &[Arc<str>], rows: usize, row: impl Fn(usize) -> Json) -> Option<Self> {
        let mut entries: Vec<Option<Json>> = Vec::new();
        // Their texts, by which they are told apart: `1` and `1.0` are two entries.
        let mut texts: Vec<String> = Vec::new();
        let mut table: HashTable<u32> = HashTable::new();
        let mut codes: Vec<u32> = Vec::with_capacity(rows);
        let mut text = String::new();
        let (mut text_bytes, most_text) = (0, ENTRY_BYTES + rows * ENTRY_BYTES_PER_ROW);
        for at in 0..rows {
            let json = row(at);
            let value = dig(&json, steps);
            text.clear();
            if let Some(value) = value {
                text = value.to_string();
            }
            let hash = hash_of(&text);
            match table.find(hash, |&code| texts[code as usize] == text) {
                Some(&code) => codes.push(code),
                None if entries.len() == MOST_ENTRIES || text_bytes > most_text => return None,
                None => {
                    text_bytes += text.len();
                    let code = entries.len() as u32;
                    entries.push(value.cloned());
                    texts.push(text.clone());
                    table.insert_unique(hash, code, |&code| hash_of(&texts[code as usize]));
                    codes.push(code);
                }
            }
        }
        let largest = entries.len().saturating_sub(1) as u64;
        Some(Self {
            text_bytes,
            codes: Narrow::of(codes.into_iter().map(u64::from), largest),
            entries,
        })
    }

    fn passing(&self, test: &Test) -> Bits {
        let passes = self.entries.iter().map(|entry| test.matches_json(entry.as_ref()));
        self.codes.within(&runs_of(passes))
    }

    /// A parsed entry takes some room beside its text.
    fn heap_size(&self) -> usize {
        self.codes.heap_size() + self.entries.capacity() * size_of::<Option<Json>>() + 2 * self.text_bytes
    }
}

fn hash_of(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}
