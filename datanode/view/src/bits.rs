//! Sets of ordinals: `Bits` for one owner (masks, presence), `LiveBits` for many readers
//! and one writer (who is alive).

use std::sync::Arc;

const WORD: usize = u64::BITS as usize;

/// A plain set of the ordinals below `len`.  Bits past `len` are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    pub(crate) fn none(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(WORD)],
            len,
        }
    }

    pub(crate) fn all(len: usize) -> Self {
        let mut bits = Self {
            words: vec![u64::MAX; len.div_ceil(WORD)],
            len,
        };
        bits.clear_tail();
        bits
    }

    pub(crate) fn from_fn(len: usize, mut test: impl FnMut(usize) -> bool) -> Self {
        let mut bits = Self::none(len);
        for (at, word) in bits.words.iter_mut().enumerate() {
            let base = at * WORD;
            for bit in 0..WORD.min(len - base) {
                *word |= u64::from(test(base + bit)) << bit;
            }
        }
        bits
    }

    /// `None` unless there are just as many words as `len` bits need, and zeros past them.
    pub(crate) fn from_words(words: Vec<u64>, len: usize) -> Option<Self> {
        let mut bits = Self { words, len };
        let before = bits.words.last().copied();
        if bits.words.len() != len.div_ceil(WORD) {
            return None;
        }
        bits.clear_tail();
        (bits.words.last().copied() == before).then_some(bits)
    }

    /// Adds the ordinals whose value passes.  64 answers are made at once and packed, which
    /// the compiler turns into a few vector instructions per word.
    pub(crate) fn add_where<T: Copy>(&mut self, values: &[T], passes: impl Fn(T) -> bool) {
        assert_eq!(values.len(), self.len, "a value for each ordinal");
        let (blocks, rest) = values.as_chunks::<WORD>();
        for (word, block) in self.words.iter_mut().zip(blocks) {
            let mut answers = [0u8; WORD];
            for (answer, &value) in answers.iter_mut().zip(block) {
                *answer = u8::from(passes(value));
            }
            *word |= pack(&answers);
        }
        if let Some(word) = self.words.get_mut(blocks.len()) {
            for (bit, &value) in rest.iter().enumerate() {
                *word |= u64::from(passes(value)) << bit;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    pub(crate) fn get(&self, at: usize) -> bool {
        at < self.len && self.words[at / WORD] >> (at % WORD) & 1 == 1
    }

    pub(crate) fn set(&mut self, at: usize) {
        assert!(at < self.len, "bit {at} of {}", self.len);
        self.words[at / WORD] |= 1 << (at % WORD);
    }

    pub(crate) fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(WORD) {
            self.words.push(0);
        }
        self.len += 1;
        if bit {
            self.set(self.len - 1);
        }
    }

    pub(crate) fn and(&mut self, other: &Self) {
        self.zip(other, |a, b| a & b);
    }

    pub(crate) fn or(&mut self, other: &Self) {
        self.zip(other, |a, b| a | b);
    }

    pub(crate) fn and_not(&mut self, other: &Self) {
        self.zip(other, |a, b| a & !b);
    }

    pub(crate) fn or_not(&mut self, other: &Self) {
        self.zip(other, |a, b| a | !b);
        self.clear_tail();
    }

    pub(crate) fn invert(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.clear_tail();
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Keeps what is in `words` too; they may be fewer.
    pub(crate) fn restrict(&mut self, words: &[u64]) {
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= words.get(at).copied().unwrap_or(0);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(at, &word)| Ones {
            word,
            base: (at * WORD) as u32,
        })
    }

    pub(crate) fn heap_size(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    fn zip(&mut self, other: &Self, op: impl Fn(u64, u64) -> u64) {
        assert_eq!(self.len, other.len, "sets over different rows");
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a = op(*a, *b);
        }
    }

    fn clear_tail(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.len.is_multiple_of(WORD)
        {
            *last &= (1 << (self.len % WORD)) - 1;
        }
    }
}

/// Bit i is byte i, each 0 or 1.
fn pack(answers: &[u8; WORD]) -> u64 {
    let (eights, _) = answers.as_chunks::<8>();
    let pack = |word: u64, (at, eight): (usize, &[u8; 8])| {
        // Moves bit 8 i to bit 56 + i; no two of the products meet.
        let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word | bits << (8 * at)
    };
    eights.iter().enumerate().fold(0, pack)
}

/// Bit `at` of a set given as words; false past their end.
pub(crate) fn word_bit(words: &[u64], at: u32) -> bool {
    words
        .get(at as usize / WORD)
        .is_some_and(|word| word >> (at as usize % WORD) & 1 == 1)
}

/// The 64 rows from row `64 * at` that a mask lets through; all of them without a mask, none
/// past its end.
pub(crate) fn mask_word(mask: Option<&[u64]>, at: usize) -> u64 {
    mask.map_or(u64::MAX, |words| words.get(at).copied().unwrap_or(0))
}

/// The set bits of one word, lowest first.
pub(crate) struct Ones {
    pub(crate) word: u64,
    pub(crate) base: u32,
}

impl Iterator for Ones {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.base + bit)
    }
}

/// Words of one copy-on-write unit: 4 KiB, so that killing one row under a pinned
/// snapshot copies no more than that (and a pointer per 32,768 rows).
const CHUNK_WORDS: usize = 512;
const CHUNK_BITS: usize = CHUNK_WORDS * WORD;

/// Which ordinals below `len` are alive.  A clone is a snapshot and costs two counters;
/// rows are only ever added (alive or dead) or killed.
#[derive(Clone, Debug)]
pub(crate) struct LiveBits {
    chunks: Arc<Vec<Arc<[u64; CHUNK_WORDS]>>>,
    len: u32,
    count: u32,
}

impl LiveBits {
    pub(crate) fn empty() -> Self {
        Self {
            chunks: Arc::new(Vec::new()),
            len: 0,
            count: 0,
        }
    }

    pub(crate) fn from_bits(bits: &Bits) -> Self {
        let chunks = bits.words.chunks(CHUNK_WORDS).map(|words| {
            let mut chunk = [0; CHUNK_WORDS];
            chunk[..words.len()].copy_from_slice(words);
            Arc::new(chunk)
        });
        Self {
            chunks: Arc::new(chunks.collect()),
            len: bits.len as u32,
            count: bits.count() as u32,
        }
    }

    pub(crate) fn to_bits(&self) -> Bits {
        let mut words = Vec::with_capacity(self.chunks.len() * CHUNK_WORDS);
        self.chunks
            .iter()
            .for_each(|chunk| words.extend_from_slice(&chunk[..]));
        words.truncate((self.len as usize).div_ceil(WORD));
        Bits {
            words,
            len: self.len as usize,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        u64::from(self.count)
    }

    pub(crate) fn get(&self, at: u32) -> bool {
        at < self.len && self.word(at as usize / WORD) >> (at as usize % WORD) & 1 == 1
    }

    /// The 64 rows from `64 * at` on; zero past the end.
    pub(crate) fn word(&self, at: usize) -> u64 {
        self.chunks
            .get(at / CHUNK_WORDS)
            .map_or(0, |chunk| chunk[at % CHUNK_WORDS])
    }

    pub(crate) fn words(&self) -> usize {
        (self.len as usize).div_ceil(WORD)
    }

    /// How many of the ordinals in `words` are alive; they may be fewer or more.
    pub(crate) fn count_among(&self, words: &[u64]) -> u64 {
        let chunks = self.chunks.iter().zip(words.chunks(CHUNK_WORDS));
        let alive = |(live, words): (&Arc<[u64; CHUNK_WORDS]>, &[u64])| -> u64 {
            let both = live.iter().zip(words).map(|(a, b)| a & b);
            both.map(|word| u64::from(word.count_ones())).sum()
        };
        chunks.map(alive).sum()
    }

    pub(crate) fn push(&mut self, alive: bool) {
        let at = self.len as usize;
        let chunks = Arc::make_mut(&mut self.chunks);
        if at.is_multiple_of(CHUNK_BITS) {
            chunks.push(Arc::new([0; CHUNK_WORDS]));
        }
        self.len += 1;
        if alive {
            let chunk = Arc::make_mut(&mut chunks[at / CHUNK_BITS]);
            chunk[at % CHUNK_BITS / WORD] |= 1 << (at % WORD);
            self.count += 1;
        }
    }

    /// True when the row was alive.
    pub(crate) fn kill(&mut self, at: u32) -> bool {
        if !self.get(at) {
            return false;
        }
        let at = at as usize;
        let chunk = Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[at / CHUNK_BITS]);
        chunk[at % CHUNK_BITS / WORD] &= !(1 << (at % WORD));
        self.count -= 1;
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.words()).flat_map(|at| Ones {
            word: self.word(at),
            base: (at * WORD) as u32,
        })
    }

    /// Rows alive in `before`, an earlier version of this set, and dead now.  Chunks that
    /// nobody wrote to are told by their address and cost nothing.
    pub(crate) fn killed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = u32> + 'a {
        let changed = before.chunks.iter().zip(self.chunks.iter()).enumerate();
        changed
            .filter(|(_, (old, new))| !Arc::ptr_eq(old, new))
            .flat_map(|(at, (old, new))| {
                old.iter()
                    .zip(new.iter())
                    .enumerate()
                    .flat_map(move |(word, (old, new))| Ones {
                        word: old & !new,
                        base: (at * CHUNK_BITS + word * WORD) as u32,
                    })
            })
    }

    /// Shared chunks count in full.
    pub(crate) fn heap_size(&self) -> usize {
        self.chunks.len() * (size_of::<[u64; CHUNK_WORDS]>() + 2 * size_of::<usize>())
            + self.chunks.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_sets_behave_like_a_btree_set(len in 1usize..300, a in any::<u64>(), b in any::<u64>()) {
            let pick = |seed: u64| move |i: usize| (seed.rotate_left(i as u32) ^ i as u64).count_ones().is_multiple_of(3);
            let (left, right) = (Bits::from_fn(len, pick(a)), Bits::from_fn(len, pick(b)));
            let set = |bits: &Bits| bits.iter().collect::<BTreeSet<u32>>();
            let (l, r) = (set(&left), set(&right));
            prop_assert_eq!(left.count() as usize, l.len());
            let apply = |op: fn(&mut Bits, &Bits)| { let mut out = left.clone(); op(&mut out, &right); set(&out) };
            prop_assert_eq!(apply(Bits::and), l.intersection(&r).copied().collect());
            prop_assert_eq!(apply(Bits::or), l.union(&r).copied().collect());
            prop_assert_eq!(apply(Bits::and_not), l.difference(&r).copied().collect());
            let mut rest = Bits::all(len);
            rest.and_not(&left);
            prop_assert_eq!(rest.count() + left.count(), len as u64);
            let mut inverted = left.clone();
            inverted.invert();
            prop_assert_eq!(&inverted, &rest);
            let mut none = Bits::none(len);
            none.or_not(&left);
            prop_assert_eq!(&none, &rest);
            let values: Vec<usize> = (0..len).collect();
            let mut packed = Bits::none(len);
            packed.add_where(&values, pick(a));
            prop_assert_eq!(&packed, &left);
            let live = LiveBits::from_bits(&right);
            prop_assert_eq!(live.count_among(left.words()) as usize, l.intersection(&r).count());
        }

        #[test]
        fn a_pinned_live_set_never_changes_and_the_difference_names_the_killed(
            len in 1u32..100_000,
            kills in proptest::collection::vec(any::<u32>(), 0..50),
        ) {
            let mut live = LiveBits::empty();
            (0..len).for_each(|i| live.push(i % 7 != 0));
            let pinned = live.clone();
            let expected: BTreeSet<u32> = kills.iter().map(|k| k % len).filter(|k| k % 7 != 0).collect();
            let mut struck = 0;
            for kill in &kills {
                struck += usize::from(live.kill(kill % len));
            }
            prop_assert_eq!(struck, expected.len());
            prop_assert_eq!(live.killed_since(&pinned).collect::<BTreeSet<u32>>(), expected.clone());
            prop_assert_eq!(pinned.iter().count() as u64, pinned.count());
            prop_assert_eq!(pinned.count() - live.count(), expected.len() as u64);
            prop_assert!(pinned.iter().all(|i| i % 7 != 0));
            prop_assert!(live.iter().all(|i| i % 7 != 0 && !expected.contains(&i)));
            prop_assert_eq!(LiveBits::from_bits(&live.to_bits()).iter().collect::<Vec<_>>(), live.iter().collect::<Vec<_>>());
        }
    }
}
