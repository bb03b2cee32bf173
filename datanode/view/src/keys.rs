//! The ids of a segment's rows by ordinal: numbers as they are, strings in one arena.

use std::mem::size_of;

use rhumb_core::DocId;
use rhumb_core::order::{Num, Seen};

use crate::error::ViewError;

/// The most rows a segment may have: one ordinal stays free to mean "nowhere".
pub(crate) const MAX_ROWS: usize = u32::MAX as usize - 1;

/// An id without its allocation.  Same order and same hash as the `DocId` it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRef<'a> {
    Num(u64),
    Str(&'a str),
}

impl<'a> KeyRef<'a> {
    pub fn of(id: &'a DocId) -> Self {
        match id {
            DocId::Num(n) => Self::Num(*n),
            DocId::Str(s) => Self::Str(s),
        }
    }

    pub fn to_id(self) -> DocId {
        match self {
            Self::Num(n) => DocId::Num(n),
            Self::Str(s) => DocId::from(s),
        }
    }

    pub(crate) fn seen(self) -> Seen<'a> {
        match self {
            Self::Num(n) => Seen::Num(Num::UInt(n)),
            Self::Str(s) => Seen::Str(s),
        }
    }

    /// Equal to `DocId::hash64`, which the key map's callers use.
    pub fn hash64(self) -> u64 {
        match self {
            Self::Num(n) => xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()),
            Self::Str(s) => xxhash_rust::xxh3::xxh3_64(s.as_bytes()),
        }
    }

    /// Orders keys of one kind that share their first `common` bytes, up to ties.
    fn head(self, common: usize) -> u64 {
        match self {
            Self::Num(n) => n,
            Self::Str(key) => {
                let mut head = [0; 8];
                let rest = key.as_bytes()[common..].iter();
                head.iter_mut().zip(rest).for_each(|(to, &from)| *to = from);
                u64::from_be_bytes(head)
            }
        }
    }

    pub(crate) fn starts_with(self, prefix: &str) -> bool {
        match self {
            // A number has no prefix but the empty one.
            Self::Num(_) => prefix.is_empty(),
            Self::Str(s) => s.starts_with(prefix),
        }
    }
}

#[derive(Debug)]
pub struct Keys {
    body: Body,
}

#[derive(Debug)]
enum Body {
    Num(Vec<u64>),
    Str(Arena),
}

impl Keys {
    pub fn builder() -> KeysBuilder {
        KeysBuilder { body: None }
    }

    pub fn len(&self) -> usize {
        match &self.body {
            Body::Num(keys) => keys.len(),
            Body::Str(arena) => arena.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Panics when `ordinal` is not below `len`, as a slice does.
    pub fn get(&self, ordinal: u32) -> KeyRef<'_> {
        match &self.body {
            Body::Num(keys) => KeyRef::Num(keys[ordinal as usize]),
            Body::Str(arena) => KeyRef::Str(arena.get(ordinal as usize)),
        }
    }

    pub fn id(&self, ordinal: u32) -> DocId {
        self.get(ordinal).to_id()
    }

    pub fn heap_size(&self) -> usize {
        match &self.body {
            Body::Num(keys) => keys.capacity() * size_of::<u64>(),
            Body::Str(arena) => arena.heap_size(),
        }
    }

    /// Ordinals in id order, or `None` when that is the order they already have.
    pub(crate) fn sorted(&self) -> Option<Vec<u32>> {
        let rows = self.len() as u32;
        if (1..rows).all(|i| self.get(i - 1) < self.get(i)) {
            return None;
        }
        Some(sort_by_key(
            (0..rows).map(|ordinal| (self.get(ordinal), ordinal)).collect(),
        ))
    }
}

/// The ordinals in the order of their keys; equal keys by ordinal.  Ids often begin alike,
/// so eight bytes past what all have in common decide nearly every comparison.
pub(crate) fn sort_by_key(rows: Vec<(KeyRef<'_>, u32)>) -> Vec<u32> {
    let common = common_prefix(&rows);
    let mut rows: Vec<(u64, KeyRef<'_>, u32)> = rows
        .into_iter()
        .map(|(key, row)| (common.map_or(0, |common| key.head(common)), key, row))
        .collect();
    rows.sort_unstable();
    rows.into_iter().map(|(_, _, row)| row).collect()
}

/// How many bytes all strings begin with; 0 for numbers, `None` for a mixture.
fn common_prefix(rows: &[(KeyRef<'_>, u32)]) -> Option<usize> {
    let &(first, _) = rows.first()?;
    let whole = match first {
        KeyRef::Num(_) => 0,
        KeyRef::Str(first) => first.len(),
    };
    rows.iter()
        .try_fold(whole, |common, &(key, _)| match (first, key) {
            (KeyRef::Num(_), KeyRef::Num(_)) => Some(0),
            (KeyRef::Str(a), KeyRef::Str(b)) => Some(
                a.bytes()
                    .zip(b.bytes())
                    .take(common)
                    .take_while(|(a, b)| a == b)
                    .count(),
            ),
            _ => None,
        })
}

/// The first push decides whether the keys are numbers or strings.
#[derive(Debug)]
pub struct KeysBuilder {
    body: Option<Body>,
}

impl KeysBuilder {
    pub fn push(&mut self, id: &DocId) -> Result<(), ViewError> {
        match id {
            DocId::Num(n) => self.push_num(*n),
            DocId::Str(s) => self.push_str(s),
        }
    }

    pub fn push_num(&mut self, key: u64) -> Result<(), ViewError> {
        match self.body.get_or_insert_with(|| Body::Num(Vec::new())) {
            Body::Num(keys) if keys.len() < MAX_ROWS => keys.push(key),
            Body::Num(_) => return Err(ViewError::TooManyRows),
            Body::Str(_) => return Err(ViewError::MixedIdKinds),
        }
        Ok(())
    }

    pub fn push_str(&mut self, key: &str) -> Result<(), ViewError> {
        match self.body.get_or_insert_with(|| Body::Str(Arena::default())) {
            Body::Str(arena) if arena.len() < MAX_ROWS => arena.push(key),
            Body::Str(_) => return Err(ViewError::TooManyRows),
            Body::Num(_) => return Err(ViewError::MixedIdKinds),
        }
        Ok(())
    }

    pub fn finish(self) -> Keys {
        let mut body = self.body.unwrap_or(Body::Num(Vec::new()));
        match &mut body {
            Body::Num(keys) => keys.shrink_to_fit(),
            Body::Str(arena) => arena.shrink(),
        }
        Keys { body }
    }
}

/// Strings back to back.  Offsets are 32-bit until the text passes 4 GiB.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    text: String,
    ends: Ends,
}

#[derive(Debug)]
enum Ends {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

impl Default for Ends {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

impl Arena {
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        let end = self.text.len();
        match (&mut self.ends, u32::try_from(end)) {
            (Ends::Narrow(ends), Ok(end)) => ends.push(end),
            (Ends::Narrow(ends), Err(_)) => {
                let mut wide: Vec<u64> = ends.iter().map(|&end| u64::from(end)).collect();
                wide.push(end as u64);
                self.ends = Ends::Wide(wide);
            }
            (Ends::Wide(ends), _) => ends.push(end as u64),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.ends {
            Ends::Narrow(ends) => ends.len(),
            Ends::Wide(ends) => ends.len(),
        }
    }

    pub(crate) fn get(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.end(at - 1) };
        &self.text[start..self.end(at)]
    }

    pub(crate) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        match &mut self.ends {
            Ends::Narrow(ends) => ends.shrink_to_fit(),
            Ends::Wide(ends) => ends.shrink_to_fit(),
        }
    }

    pub(crate) fn heap_size(&self) -> usize {
        let ends = match &self.ends {
            Ends::Narrow(ends) => ends.capacity() * size_of::<u32>(),
            Ends::Wide(ends) => ends.capacity() * size_of::<u64>(),
        };
        self.text.capacity() + ends
    }

    fn end(&self, at: usize) -> usize {
        match &self.ends {
            Ends::Narrow(ends) => ends[at] as usize,
            Ends::Wide(ends) => ends[at] as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_give_back_what_was_pushed_with_the_order_and_hash_of_their_ids(
            texts in proptest::collection::vec(".{0,12}", 0..40),
            numbers in proptest::collection::vec(any::<u64>(), 0..40),
        ) {
            let ids: [Vec<DocId>; 2] = [
                texts.iter().map(|t| DocId::from(t.as_str())).collect(),
                numbers.iter().map(|&n| DocId::from(n)).collect(),
            ];
            for ids in ids {
                let mut builder = Keys::builder();
                for id in &ids {
                    builder.push(id).expect("one kind");
                }
                let keys = builder.finish();
                prop_assert_eq!(keys.len(), ids.len());
                for (i, id) in ids.iter().enumerate() {
                    prop_assert_eq!(&keys.id(i as u32), id);
                    prop_assert_eq!(keys.get(i as u32).hash64(), id.hash64());
                    prop_assert_eq!(KeyRef::of(id).cmp(&keys.get(0)), id.cmp(&ids[0]));
                }
                let order = keys.sorted().unwrap_or_else(|| (0..ids.len() as u32).collect());
                prop_assert!(order.windows(2).all(|w| ids[w[0] as usize] <= ids[w[1] as usize]));
            }
        }
    }

    proptest! {
        #[test]
        fn keys_are_sorted_however_long_they_begin_alike(
            prefix in "[a-zé]{0,12}",
            tails in proptest::collection::vec("[\\x00ab]{0,10}", 0..40),
            number in proptest::option::of(any::<u64>()),
        ) {
            let texts: Vec<String> = tails.iter().map(|tail| format!("{prefix}{tail}")).collect();
            let mut keys: Vec<KeyRef<'_>> = texts.iter().map(|text| KeyRef::Str(text)).collect();
            keys.extend(number.map(KeyRef::Num));
            let order = sort_by_key(keys.iter().copied().zip(0..).collect());
            let mut expected: Vec<u32> = (0..keys.len() as u32).collect();
            expected.sort_by_key(|&at| (keys[at as usize], at));
            prop_assert_eq!(order, expected);
        }
    }

    #[test]
    fn numbers_and_strings_do_not_mix() {
        let mut builder = Keys::builder();
        builder.push_num(1).expect("first");
        assert_eq!(builder.push_str("a"), Err(ViewError::MixedIdKinds));
    }
}
