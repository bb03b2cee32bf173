//! Runs a fuzzer's entry point on stable: its corpus, then seeded mutations of it.
//!
//! No coverage guides it; it is here so that CI keeps the entry points true and finds what
//! is shallow.  A finding prints the input, which then goes into the corpus.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What one run of an entry point needs to know.
pub struct Smoke {
    /// The folder of the crate's fuzz targets.
    pub fuzz: &'static str,
    /// Words of the grammars, so that mutations stay near what parses.
    pub words: &'static [&'static [u8]],
    pub mutations: usize,
    pub longest: usize,
}

impl Smoke {
    pub fn run(&self, target: &str, entry: fn(&[u8])) {
        let corpus = corpus(&Path::new(self.fuzz).join("corpus").join(target));
        let mut seeded = Seeded(0x5EED);
        let mutations = std::iter::repeat_with(|| seeded.mutate(&corpus, self)).take(self.mutations);
        for input in corpus.iter().cloned().chain(mutations) {
            let result = catch_unwind(AssertUnwindSafe(|| entry(&input)));
            assert!(
                result.is_ok(),
                "{target} panics on {:?}",
                String::from_utf8_lossy(&input)
            );
        }
    }
}

/// Splitmix64: the same inputs in every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn word(&mut self, smoke: &Smoke) -> Vec<u8> {
        smoke.words[self.below(smoke.words.len())].to_vec()
    }

    fn mutate(&mut self, corpus: &[Vec<u8>], smoke: &Smoke) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = (at + self.below(12)).min(input.len());
            match self.below(7) {
                0 => input.splice(at..at, self.word(smoke)).for_each(drop),
                1 => input.splice(at..end, self.word(smoke)).for_each(drop),
                2 => input.drain(at..end).for_each(drop),
                3 => {
                    let copy = input[at..end].to_vec();
                    let to = self.below(input.len() + 1);
                    input.splice(to..to, copy).for_each(drop);
                }
                4 => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len() + 1);
                    let part = other[from..(from + self.below(40)).min(other.len())].to_vec();
                    input.splice(at..at, part).for_each(drop);
                }
                5 => {
                    let byte = self.next() as u8;
                    input.get_mut(at).into_iter().for_each(|b| *b = byte);
                }
                _ => {
                    let bit = 1 << self.below(8);
                    input.get_mut(at).into_iter().for_each(|b| *b ^= bit);
                }
            }
        }
        input.truncate(smoke.longest);
        input
    }
}

fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("the corpus is in the tree");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    let inputs: Vec<_> = paths
        .iter()
        .map(|path| std::fs::read(path).expect("a readable file"))
        .collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}
