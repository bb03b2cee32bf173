//! The fuzzers' entry points on stable: their corpus, then seeded mutations of it.
//!
//! No coverage guides it; it is here so that CI keeps the entry points true and finds what
//! is shallow.  A finding prints the input, which then goes into the corpus.

#[path = "../fuzz/src/lib.rs"]
mod entry;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const MUTATIONS: usize = 60_000;
const LONGEST: usize = 2_048;

/// Words of the grammars, so that mutations stay near what parses.
const WORDS: [&str; 64] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "'",
    "(",
    ")",
    "\\",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud800",
    "0",
    "-1",
    "1.5",
    "1e400",
    "1e-400",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "-0",
    "null",
    "true",
    "false",
    "\"id\"",
    "\"v\":[1,2]",
    "\"b64:AACAPwAAAEA=\"",
    "\"b64://8=\"",
    "\"2026-01-31T12:00:00Z\"",
    "\"$and\"",
    "\"$or\"",
    "\"$not\"",
    "\"$in\"",
    "\"$gt\"",
    "\"$contains_all\"",
    "\"$exists\"",
    "\"$regex\"",
    "\"$glob\"",
    "\"lex\"",
    "\"pos\"",
    "\"tags\"",
    "\"extra.c.0\"",
    "lex",
    "pos",
    "extra.n",
    "tags HAS",
    " AND ",
    " OR ",
    " NOT ",
    " IN ",
    " LIKE ",
    " IS NULL",
    "=",
    "!=",
    "<=",
    "'a%'",
    "\"vector\"",
    "\"dim\"",
    "\"element\":\"int8\"",
    "\"text\"",
    "[\"string\"]",
    "\u{0}",
];

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

    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = (at + self.below(12)).min(input.len());
            match self.below(7) {
                0 => input
                    .splice(at..at, WORDS[self.below(WORDS.len())].bytes())
                    .for_each(drop),
                1 => input
                    .splice(at..end, WORDS[self.below(WORDS.len())].bytes())
                    .for_each(drop),
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
        input.truncate(LONGEST);
        input
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let entries = std::fs::read_dir(&folder).expect("the corpus is in the tree");
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

fn smoke(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    let mut seeded = Seeded(0x5EED);
    let mutations = std::iter::repeat_with(|| seeded.mutate(&corpus)).take(MUTATIONS);
    for input in corpus.iter().cloned().chain(mutations) {
        let result = catch_unwind(AssertUnwindSafe(|| run(&input)));
        assert!(
            result.is_ok(),
            "{target} panics on {:?}",
            String::from_utf8_lossy(&input)
        );
    }
}

#[test]
fn json_survives_its_corpus_and_mutations_of_it() {
    smoke("json", entry::json);
}

#[test]
fn json_filters_survive_their_corpus_and_mutations_of_it() {
    smoke("filter_json", entry::filter_json);
}

#[test]
fn sql_filters_survive_their_corpus_and_mutations_of_it() {
    smoke("filter_sql", entry::filter_sql);
}

#[test]
fn documents_survive_their_corpus_and_mutations_of_it() {
    smoke("document", entry::document);
}

#[test]
fn definitions_survive_their_corpus_and_mutations_of_it() {
    smoke("fields_definition", entry::fields_definition);
}
