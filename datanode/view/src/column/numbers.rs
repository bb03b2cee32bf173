//! A column of numbers: order-preserving keys, written in as few bytes as their spread or
//! their variety allows.

use std::ops::Range;
use std::sync::OnceLock;

use hashbrown::HashTable;
use rhumb_core::Value;

use super::buckets::{Buckets, WORTH, Window};
use super::narrow::{Narrow, Run, among};
use crate::bits::Bits;
use crate::span::{Sought, Spans};

/// Rows without the field hold some number of the others.
#[derive(Debug)]
pub(super) struct Numbers {
    scale: Scale,
    codes: Narrow,
    /// Made by the first test, when the codes are wide.
    buckets: OnceLock<Buckets>,
}

/// What a code stands for.
#[derive(Debug)]
enum Scale {
    /// `base + step · code`.
    Even { base: u64, step: u64 },
    /// The code-th of these, which ascend.
    Listed(Vec<u64>),
}

impl Numbers {
    /// `keys` in the order of the rows.
    pub(super) fn new(mut keys: Vec<u64>, present: impl Fn(usize) -> bool) -> Self {
        let filler = (0..keys.len()).find(|&at| present(at)).map_or(0, |at| keys[at]);
        for (at, key) in keys.iter_mut().enumerate() {
            if !present(at) {
                *key = filler;
            }
        }
        let base = keys.iter().copied().min().unwrap_or(0);
        let spread = keys.iter().copied().max().unwrap_or(0) - base;
        let step = common_step(&keys, base);
        let even = Narrow::width(spread / step);
        if even > size_of::<u16>()
            && let Some(listed) = distinct(&keys, even)
        {
            let place = |key: u64| listed.partition_point(|&other| other < key) as u64;
            let codes = Narrow::of(keys.into_iter().map(place), listed.len() as u64 - 1);
            return Self::coded(Scale::Listed(listed), codes);
        }
        let codes = keys.into_iter().map(|key| (key - base) / step);
        let codes = Narrow::of(codes, spread / step);
        Self::coded(Scale::Even { base, step }, codes)
    }

    fn coded(scale: Scale, codes: Narrow) -> Self {
        Self {
            scale,
            codes,
            buckets: OnceLock::new(),
        }
    }

    pub(super) fn key(&self, at: usize) -> u64 {
        let code = self.codes.get(at);
        match &self.scale {
            Scale::Even { base, step } => base + step * code,
            Scale::Listed(keys) => keys[code as usize],
        }
    }

    pub(super) fn heap_size(&self) -> usize {
        let listed = match &self.scale {
            Scale::Even { .. } => 0,
            Scale::Listed(keys) => keys.capacity() * size_of::<u64>(),
        };
        listed + self.codes.heap_size() + self.buckets.get().map_or(0, Buckets::heap_size)
    }

    /// Rows whose key lies in the spans.
    pub(super) fn within(&self, spans: &Spans) -> Bits {
        let runs: Vec<Run> = spans.places.iter().filter_map(|keys| self.run(keys)).collect();
        let mut rows = match self.codes.is_wide() && self.codes.len() >= WORTH {
            true => self.in_buckets(&runs),
            false => self.codes.within(&runs),
        };
        if spans.negated {
            rows.invert();
        }
        rows
    }

    fn in_buckets(&self, runs: &[Run]) -> Bits {
        let code = |at| self.codes.get(at);
        let buckets = self.buckets.get_or_init(|| Buckets::new(self.codes.len(), code));
        let window = |&run: &Run| Window {
            possible: run,
            certain: Some(run),
        };
        let windows: Vec<Window> = runs.iter().map(window).collect();
        match runs {
            [one] => buckets.select(&windows, |at| one.holds(code(at))),
            runs => buckets.select(&windows, |at| among(runs, code(at))),
        }
    }

    /// The codes of the keys; `None` when no code is.
    fn run(&self, keys: &Range<u128>) -> Option<Run> {
        let first = u64::try_from(keys.start).ok()?;
        let last = u64::try_from(keys.end - 1).unwrap_or(u64::MAX);
        let (first, last) = match &self.scale {
            Scale::Even { base, step } => {
                let last = last.checked_sub(*base)? / step;
                (first.saturating_sub(*base).div_ceil(*step), last)
            }
            Scale::Listed(all) => (
                all.partition_point(|&key| key < first) as u64,
                (all.partition_point(|&key| key <= last) as u64).checked_sub(1)?,
            ),
        };
        (first <= last).then_some(Run { first, last })
    }
}

/// The largest number that divides every distance from `base`; 1 when there is none.
fn common_step(keys: &[u64], base: u64) -> u64 {
    let mut step = 0;
    for key in keys {
        step = gcd(key - base, step);
        if step == 1 {
            break;
        }
    }
    step.max(1)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The distinct keys, ascending, when a list of them and codes into it take less room than
/// `width` bytes a row.
fn distinct(keys: &[u64], width: usize) -> Option<Vec<u64>> {
    let room =
        |distinct: usize| distinct * size_of::<u64>() + keys.len() * Narrow::width(distinct as u64 - 1);
    let mut table: HashTable<u64> = HashTable::new();
    for &key in keys {
        let hash = xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes());
        if table.find(hash, |&known| known == key).is_none() {
            let hasher = |known: &u64| xxhash_rust::xxh3::xxh3_64(&known.to_le_bytes());
            table.insert_unique(hash, key, hasher);
            if table.len() > 1 << u16::BITS || room(table.len()) >= keys.len() * width {
                return None;
            }
        }
    }
    let mut listed: Vec<u64> = table.into_iter().collect();
    listed.sort_unstable();
    Some(listed)
}

/// Same order as the integers.
pub(super) fn key_of_int(value: i64) -> u64 {
    value as u64 ^ 1 << 63
}

pub(super) fn int_of_key(key: u64) -> i64 {
    (key ^ 1 << 63) as i64
}

/// Same order as the floats, with `-0.0` just before `0.0`.
pub(super) fn key_of_float(value: f64) -> u64 {
    let bits = value.to_bits();
    match value.is_sign_negative() {
        true => !bits,
        false => bits | 1 << 63,
    }
}

pub(super) fn float_of_key(key: u64) -> f64 {
    match key >> 63 {
        0 => f64::from_bits(!key),
        _ => f64::from_bits(key & !(1 << 63)),
    }
}

/// Keys of integers equal to what is sought.
pub(super) fn place_of_int(sought: Sought<'_>) -> Option<Range<u128>> {
    match sought {
        Sought::Value(Value::Int(value)) => Some(one_key(key_of_int(*value))),
        _ => None,
    }
}

pub(super) fn place_of_time(sought: Sought<'_>) -> Option<Range<u128>> {
    match sought {
        Sought::Value(Value::Time(value)) => Some(one_key(key_of_int(*value))),
        _ => None,
    }
}

pub(super) fn place_of_float(sought: Sought<'_>) -> Option<Range<u128>> {
    match sought {
        // Two keys, one number.
        Sought::Value(Value::Float(value)) if *value == 0.0 => {
            let (low, high) = (one_key(key_of_float(-0.0)), one_key(key_of_float(0.0)));
            Some(low.start..high.end)
        }
        Sought::Value(Value::Float(value)) if value.is_finite() => Some(one_key(key_of_float(*value))),
        _ => None,
    }
}

fn one_key(key: u64) -> Range<u128> {
    u128::from(key)..u128::from(key) + 1
}
