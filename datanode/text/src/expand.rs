//! Terms that a beginning or a misspelled word may mean.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use levenshtein_automata::{DFA, Distance, LevenshteinAutomatonBuilder, SINK_STATE};
use tantivy_fst::Automaton;

use crate::error::TextError;
use crate::query::{How, Want};
use crate::search::Source;

/// Terms that one word may stand for: those that most rows have.
const MOST: usize = 64;
/// A longer word than the one typed counts this much.
const LONGER: f32 = 0.8;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Meant {
    pub(crate) term: String,
    /// 1 for the word itself, less for others.
    pub(crate) closeness: f32,
}

/// The same for all parts, whatever each of them has.
pub(crate) fn expand(want: &Want, sources: &[Source<'_>]) -> Result<Vec<Meant>, TextError> {
    let near = match want.how {
        How::Exact => {
            return Ok(vec![Meant {
                term: want.term.clone(),
                closeness: 1.0,
            }]);
        }
        How::Near(edits) => Some(Near::new(&want.term, edits)),
        How::Beginning => None,
    };
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for source in sources {
        let mut add = |term: &str, rows: u64| match found.get_mut(term) {
            Some(all) => *all += rows,
            None => {
                found.insert(term.to_owned(), rows);
            }
        };
        match &near {
            Some(near) => source.each_near(want.field, near, &mut add)?,
            None => source.each_beginning(want.field, &want.term, &mut add)?,
        }
    }
    let mut found: Vec<(String, u64)> = found.into_iter().collect();
    let itself = |term: &str| term == want.term;
    found.sort_by(|(a, a_rows), (b, b_rows)| {
        itself(b)
            .cmp(&itself(a))
            .then(b_rows.cmp(a_rows))
            .then_with(|| a.cmp(b))
    });
    found.truncate(MOST);
    let meant = found.into_iter().map(|(term, _)| {
        let closeness = match &near {
            Some(near) => 1.0 / (1.0 + f32::from(near.distance(&term).unwrap_or(u8::MAX))),
            None if term == want.term => 1.0,
            None => LONGER,
        };
        Meant { term, closeness }
    });
    Ok(meant.collect())
}

/// Words within some edits (insertion, deletion, substitution, two neighbours swapped).
pub(crate) struct Near {
    dfa: DFA,
}

impl Near {
    pub(crate) fn new(term: &str, edits: u8) -> Self {
        // Tables for all terms; making those for 2 edits takes milliseconds.
        static ONE: OnceLock<LevenshteinAutomatonBuilder> = OnceLock::new();
        static TWO: OnceLock<LevenshteinAutomatonBuilder> = OnceLock::new();
        let tables = match edits {
            0 | 1 => ONE.get_or_init(|| LevenshteinAutomatonBuilder::new(1, true)),
            _ => TWO.get_or_init(|| LevenshteinAutomatonBuilder::new(2, true)),
        };
        Self {
            dfa: tables.build_dfa(term),
        }
    }

    pub(crate) fn distance(&self, term: &str) -> Option<u8> {
        match self.dfa.eval(term) {
            Distance::Exact(edits) => Some(edits),
            Distance::AtLeast(_) => None,
        }
    }
}

impl Automaton for &Near {
    type State = u32;

    fn start(&self) -> u32 {
        self.dfa.initial_state()
    }

    fn is_match(&self, state: &u32) -> bool {
        matches!(self.dfa.distance(*state), Distance::Exact(_))
    }

    fn can_match(&self, state: &u32) -> bool {
        *state != SINK_STATE
    }

    fn accept(&self, state: &u32, byte: u8) -> u32 {
        self.dfa.transition(*state, byte)
    }
}
