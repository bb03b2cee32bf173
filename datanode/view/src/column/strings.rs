//! Columns of strings: a sorted dictionary while the strings repeat, else their text.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rhumb_core::Value;
use rhumb_core::filter::Test;

use super::buckets::{Buckets, WORTH, Window};
use super::narrow::{Narrow, Run};
use crate::bits::Bits;
use crate::keys::Arena;
use crate::span::{Sought, spans};

#[derive(Debug)]
pub(super) struct Dictionary {
    /// Ascending by bytes.
    entries: Vec<Arc<str>>,
    codes: Narrow,
}

impl Dictionary {
    /// `codes` name entries by their place in `entries`, which are distinct.
    pub(super) fn new(entries: Vec<Arc<str>>, codes: &[u16]) -> Self {
        let mut order: Vec<u16> = (0..=u16::MAX).take(entries.len()).collect();
        order.sort_unstable_by(|&a, &b| entries[usize::from(a)].cmp(&entries[usize::from(b)]));
        let mut place = vec![0u16; entries.len()];
        for (sorted, &old) in order.iter().enumerate() {
            place[usize::from(old)] = sorted as u16;
        }
        let largest = entries.len().saturating_sub(1) as u64;
        let codes = codes.iter().map(|&code| u64::from(place[usize::from(code)]));
        Self {
            codes: Narrow::of(codes, largest),
            entries: order
                .iter()
                .map(|&old| entries[usize::from(old)].clone())
                .collect(),
        }
    }

    pub(super) fn get(&self, at: usize) -> &Arc<str> {
        &self.entries[self.codes.get(at) as usize]
    }

    pub(super) fn heap_size(&self) -> usize {
        self.codes.heap_size() + self.entries.iter().map(|entry| 32 + entry.len()).sum::<usize>()
    }

    /// Rows whose string passes: a few searches of the dictionary, or each entry asked
    /// once, and one scan of the codes.
    pub(super) fn passing(&self, test: &Test) -> Bits {
        match spans(test, |sought| self.place(sought)) {
            Some(spans) => {
                let run = |place: &Range<u128>| Run {
                    first: place.start as u64,
                    last: (place.end - 1).min(u128::from(u64::MAX)) as u64,
                };
                let runs: Vec<Run> = spans.places.iter().map(run).collect();
                let mut rows = self.codes.within(&runs);
                if spans.negated {
                    rows.invert();
                }
                rows
            }
            None => {
                let passes = self.entries.iter().map(|entry| test.matches_str(entry));
                self.codes.within(&runs_of(passes))
            }
        }
    }

    fn place(&self, sought: Sought<'_>) -> Option<Range<u128>> {
        let first = |low: &dyn Fn(&str) -> bool| self.entries.partition_point(|entry| low(entry)) as u128;
        match sought {
            Sought::Value(Value::Str(value)) => {
                let value = value.as_ref();
                Some(first(&|entry| entry < value)..first(&|entry| entry <= value))
            }
            Sought::Prefix(prefix) => Some(
                first(&|entry| entry < prefix)..first(&|entry| entry < prefix || entry.starts_with(prefix)),
            ),
            Sought::Value(_) => None,
        }
    }
}

/// The codes that pass, of answers by code.
pub(super) fn runs_of(passes: impl Iterator<Item = bool>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (code, _) in (0..).zip(passes).filter(|(_, passes)| *passes) {
        match runs.last_mut() {
            Some(run) if run.last + 1 == code => run.last = code,
            _ => runs.push(Run {
                first: code,
                last: code,
            }),
        }
    }
    runs
}

#[derive(Debug)]
pub(super) struct Text {
    arena: Arena,
    /// Made by the first test.
    heads: OnceLock<Heads>,
}

/// Strings by the eight bytes past what all of them begin with.
#[derive(Debug)]
struct Heads {
    shared: Vec<u8>,
    buckets: Buckets,
}

impl Text {
    pub(super) fn new(mut arena: Arena) -> Self {
        arena.shrink();
        Self {
            arena,
            heads: OnceLock::new(),
        }
    }

    pub(super) fn get(&self, at: usize) -> &str {
        self.arena.get(at)
    }

    pub(super) fn heap_size(&self) -> usize {
        self.arena.heap_size() + self.heads.get().map_or(0, Heads::heap_size)
    }

    /// `None` when strings have to be asked one by one: patterns, and few rows.
    pub(super) fn passing(&self, test: &Test, present: impl Fn(usize) -> bool) -> Option<Bits> {
        if self.arena.len() < WORTH {
            return None;
        }
        let (positive, negated) = match test {
            Test::Ne(value) => (&Test::Eq(value.clone()), true),
            Test::NotIn(values) => (&Test::In(values.clone()), true),
            test => (test, false),
        };
        // Asked of a test first, so that a pattern does not make buckets that it cannot use.
        windows(positive, &[])?;
        let heads = self.heads.get_or_init(|| Heads::new(&self.arena, present));
        let windows = windows(positive, &heads.shared)?;
        let mut rows = heads
            .buckets
            .select(&windows, |at| positive.matches_str(self.arena.get(at)));
        if negated {
            rows.invert();
        }
        Some(rows)
    }
}

impl Heads {
    fn new(arena: &Arena, present: impl Fn(usize) -> bool) -> Self {
        let mut strings = (0..arena.len())
            .filter(|&at| present(at))
            .map(|at| arena.get(at).as_bytes());
        let mut shared = strings.next().unwrap_or_default();
        for string in strings {
            let alike = shared.iter().zip(string).take_while(|(a, b)| a == b);
            shared = &shared[..alike.count()];
        }
        let head_of = |at| match present(at) {
            true => head(&arena.get(at).as_bytes()[shared.len()..], 0),
            false => 0,
        };
        Self {
            buckets: Buckets::new(arena.len(), head_of),
            shared: shared.to_vec(),
        }
    }

    fn heap_size(&self) -> usize {
        self.shared.capacity() + self.buckets.heap_size()
    }
}

/// Eight bytes as a number; what is missing counts as `fill`.
fn head(bytes: &[u8], fill: u8) -> u64 {
    let mut head = [fill; 8];
    head.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
    u64::from_be_bytes(head)
}

/// Where the heads of passing strings lie.  Strings of one head differ, so a head that is
/// an operand's own decides nothing.
fn windows(test: &Test, shared: &[u8]) -> Option<Vec<Window>> {
    let run = |first, last| Run { first, last };
    let equal = |value: &Value| {
        let head = head_of(value, shared)?;
        Some(Window {
            possible: run(head, head),
            certain: None,
        })
    };
    Some(match test {
        Test::Eq(value) => vec![equal(value)?],
        Test::In(values) => values.iter().map(equal).collect::<Option<_>>()?,
        Test::Lt(value) | Test::Lte(value) => {
            let head = head_of(value, shared)?;
            vec![Window {
                possible: run(0, head),
                certain: head.checked_sub(1).map(|last| run(0, last)),
            }]
        }
        Test::Gt(value) | Test::Gte(value) => {
            let head = head_of(value, shared)?;
            vec![Window {
                possible: run(head, u64::MAX),
                certain: head.checked_add(1).map(|first| run(first, u64::MAX)),
            }]
        }
        Test::Prefix(prefix) => prefix_window(prefix.as_bytes(), shared).into_iter().collect(),
        Test::Exists(_)
        | Test::Ne(_)
        | Test::NotIn(_)
        | Test::ContainsAny(_)
        | Test::ContainsAll(_)
        | Test::Matches(_) => return None,
    })
}

/// Ascends with the string.  Strings that do not begin as all of the column do lie before
/// or after all of them.
fn head_of(value: &Value, shared: &[u8]) -> Option<u64> {
    let Value::Str(value) = value else { return None };
    let bytes = value.as_bytes();
    Some(match bytes.strip_prefix(shared) {
        Some(rest) => head(rest, 0),
        None if bytes < shared => 0,
        None => u64::MAX,
    })
}

fn prefix_window(prefix: &[u8], shared: &[u8]) -> Option<Window> {
    if shared.starts_with(prefix) {
        let all = Run {
            first: 0,
            last: u64::MAX,
        };
        return Some(Window {
            possible: all,
            certain: Some(all),
        });
    }
    let rest = prefix.strip_prefix(shared)?;
    let (first, last) = (head(rest, 0), head(rest, u8::MAX));
    // A shorter string has the first head too when the prefix ends in zeros.
    let certain = (last - first > 1).then(|| Run {
        first: first + 1,
        last: last - 1,
    });
    Some(Window {
        possible: Run { first, last },
        certain,
    })
}
