//! Splits, fresh rows and any mixture of them give the same hits with the same scores,
//! and they are the oracle's.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::oracle::Oracle;
use super::{Dice, Row, blob, fields, fresh, name, search, whole};
use crate::{Allowed, Boosted, FreshText, Index, Operator, Part, Split, TextQuery, matching};

const WORDS: [&str; 24] = [
    "boat", "boats", "the", "of", "sail", "ship", "shop", "shops", "harbour", "harbor", "sea", "see", "wind",
    "window", "windows", "mast", "must", "mist", "anchor", "anchored", "Café", "cafe", "deck", "duck",
];

fn text() -> impl Strategy<Value = Option<String>> {
    let words = prop::collection::vec(prop::sample::select(&WORDS[..]), 0..14);
    prop::option::weighted(0.85, words.prop_map(|words| words.join(" ")))
}

fn rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec(
        (text(), text()).prop_map(|(title, body)| Row { title, body }),
        1..most,
    )
}

fn query() -> impl Strategy<Value = TextQuery> {
    let words = prop::collection::vec(prop::sample::select(&WORDS[..]), 1..5);
    let operators = vec![Operator::Or, Operator::And, Operator::Phrase];
    let boosts = prop::sample::select(vec![
        vec![],
        vec![("body", 1.0)],
        vec![("title", 2.5), ("body", 0.5)],
    ]);
    let shape = (prop::sample::select(operators), any::<bool>(), 0u8..3, 1usize..5);
    (words, boosts, shape).prop_map(|(words, boosts, (operator, prefix, fuzzy, cut))| {
        let mut query = words.join(" ");
        if prefix {
            query.truncate(
                query
                    .char_indices()
                    .rev()
                    .nth(cut.min(2))
                    .map_or(1, |(at, _)| at)
                    .max(1),
            );
        }
        let fields = boosts.into_iter().map(|(field, boost)| Boosted {
            field: name(field),
            boost,
        });
        TextQuery {
            query,
            fields: fields.collect(),
            operator,
            prefix,
            fuzzy: if operator == Operator::Phrase { 0 } else { fuzzy },
        }
    })
}

/// Rows cut into consecutive parts, every other one fresh; fresh ones got more rows after
/// the snapshot.
struct Layout {
    parts: Vec<(usize, usize, Held)>,
}

enum Held {
    Sealed(Split),
    Fresh(FreshText),
}

impl Layout {
    fn new(rows: &[Row], cuts: &[usize], sealed_first: bool) -> Self {
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (rows.len() + 1)).collect();
        bounds.extend([0, rows.len()]);
        bounds.sort_unstable();
        let parts = bounds.windows(2).enumerate().map(|(at, bounds)| {
            let (from, to) = (bounds[0], bounds[1]);
            let held = match (at % 2 == 0) == sealed_first {
                true => Held::Sealed(Split::open(blob(&rows[from..to])).expect("whole")),
                false => Held::Fresh(fresh(&[&rows[from..to], &rows[..rows.len().min(5)]].concat())),
            };
            (from, to, held)
        });
        Self {
            parts: parts.collect(),
        }
    }

    /// Hits as rows of the whole, with the bits of their scores.
    fn hits(&self, query: &TextQuery, k: usize, allowed: &[u64]) -> Vec<(usize, u32)> {
        let (words, parts) = (self.words(allowed), &mut Vec::new());
        self.with_parts(&words, parts);
        let hits = search(parts, query, k);
        let row = |part: u32, ordinal: u32| self.parts[part as usize].0 + ordinal as usize;
        hits.iter()
            .map(|hit| (row(hit.row.part, hit.row.ordinal), hit.score.to_bits()))
            .collect()
    }

    fn matching(&self, query: &TextQuery, allowed: &[u64]) -> Vec<usize> {
        let (words, parts) = (self.words(allowed), &mut Vec::new());
        self.with_parts(&words, parts);
        let sets = matching(parts, query, &fields()).expect("matched");
        let rows = sets.iter().zip(&self.parts).flat_map(|(set, (from, to, _))| {
            (0..to - from)
                .filter(move |at| set[at / 64] >> (at % 64) & 1 == 1)
                .map(move |at| from + at)
        });
        rows.collect()
    }

    fn words(&self, allowed: &[u64]) -> Vec<Vec<u64>> {
        let bit = |row: usize| allowed[row / 64 % allowed.len()] >> (row % 64) & 1;
        let of = |(from, to, _): &(usize, usize, Held)| {
            let mut words = vec![0u64; (to - from).div_ceil(64)];
            (*from..*to).for_each(|row| words[(row - from) / 64] |= bit(row) << ((row - from) % 64));
            words
        };
        self.parts.iter().map(of).collect()
    }

    fn with_parts<'a>(&'a self, words: &'a [Vec<u64>], parts: &mut Vec<Part<'a>>) {
        for ((from, to, held), words) in self.parts.iter().zip(words) {
            let index = match held {
                Held::Sealed(split) => Index::Sealed(split),
                Held::Fresh(text) => Index::Fresh {
                    text,
                    rows: (to - from) as u32,
                    live: None,
                },
            };
            parts.push(Part {
                allowed: Allowed::Words(words),
                ..whole(index)
            });
        }
    }
}

/// The hits are right when scores and their order are; rows with nearly the same score
/// may change places, for the oracle does not round.
fn compare(
    hits: &[(usize, u32)],
    oracle: &BTreeMap<usize, f64>,
    allowed: &[u64],
    k: usize,
) -> Result<(), TestCaseError> {
    let is_allowed = |row: usize| allowed[row / 64 % allowed.len()] >> (row % 64) & 1 == 1;
    let mut expected: Vec<f64> = oracle
        .iter()
        .filter(|(row, _)| is_allowed(**row))
        .map(|(_, score)| *score)
        .collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    prop_assert_eq!(hits.len(), k.min(expected.len()));
    for (at, (row, score)) in hits.iter().enumerate() {
        let score = f64::from(f32::from_bits(*score));
        let own = oracle.get(row).copied().unwrap_or(f64::NAN);
        let tolerance = 1e-5 * expected[0].max(1e-3);
        prop_assert!(is_allowed(*row), "row {} is masked out", row);
        prop_assert!(
            (score - own).abs() <= tolerance,
            "row {}: {} instead of {}",
            row,
            score,
            own
        );
        prop_assert!(
            (score - expected[at]).abs() <= tolerance,
            "hit {}: {} instead of {}",
            at,
            score,
            expected[at]
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_layout_gives_the_oracles_hits_with_the_same_bits(
        rows in rows(40), query in query(), k in 1usize..50,
        cuts in prop::collection::vec(any::<usize>(), 0..3),
        allowed in prop::collection::vec(prop_oneof![Just(u64::MAX), any::<u64>()], 1..2),
    ) {
        let scores = Oracle::new(&rows, &query).scores();
        let one = Layout::new(&rows, &[], true);
        let hits = one.hits(&query, k, &allowed);
        compare(&hits, &scores, &allowed, k)?;
        let all: Vec<usize> = scores.into_keys().filter(|row| allowed[0] >> (row % 64) & 1 == 1).collect();
        prop_assert_eq!(one.matching(&query, &allowed), all.clone());
        for layout in [Layout::new(&rows, &[], false), Layout::new(&rows, &cuts, true), Layout::new(&rows, &cuts, false)] {
            prop_assert_eq!(layout.hits(&query, k, &allowed), hits.clone());
            prop_assert_eq!(layout.matching(&query, &allowed), all.clone());
        }
    }
}

/// Many rows: blocks, windows, peaks and pruning.
fn crowd(seed: u64, count: usize) -> Vec<Row> {
    let mut dice = Dice(seed);
    let mut text = |longest: u64| {
        let length = dice.below(longest);
        let word = |_| {
            let (a, b) = (dice.below(400), dice.below(400));
            format!("w{}x", a * b / 400)
        };
        (0..length).map(word).collect::<Vec<_>>().join(" ")
    };
    (0..count)
        .map(|at| Row {
            title: (at % 3 == 0).then(|| text(4)),
            body: Some(text(24)),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn pruning_never_changes_an_answer(
        seed in any::<u64>(), cut in 0usize..11_000, k in prop::sample::select(vec![1usize, 10, 300, 20_000]),
        masks in prop::sample::select(vec![vec![u64::MAX], vec![0, 0, 0, 1 << 17], vec![0x0101_0101_0101_0101], vec![0]]),
    ) {
        let rows = crowd(seed, 11_000);
        let layouts = [Layout::new(&rows, &[], true), Layout::new(&rows, &[], false), Layout::new(&rows, &[cut], true)];
        for (words, operator) in [
            ("w0x", Operator::Or), ("w0x w3x", Operator::Or), ("w1x w90x w250x w0x", Operator::Or),
            ("w0x w1x", Operator::And), ("w2x w120x w0x", Operator::And), ("w0x w1x", Operator::Phrase),
        ] {
            let query = TextQuery { operator, ..TextQuery::new(words) };
            let hits = layouts[0].hits(&query, k, &masks);
            compare(&hits, &Oracle::new(&rows, &query).scores(), &masks, k)?;
            for layout in &layouts[1..] {
                prop_assert_eq!(layout.hits(&query, k, &masks), hits.clone());
            }
        }
    }
}
