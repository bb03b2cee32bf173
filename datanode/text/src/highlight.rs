//! Where a text has the words of a query, cut into readable pieces.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rhumb_core::{FieldName, Problem};

use crate::analyze::{Analyzer, TextFields};
use crate::expand::Near;
use crate::query::{How, TextQuery};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighlightSpec {
    /// At most this many pieces, the best ones.
    pub fragments: usize,
    /// Aimed at per piece; a piece is cut between words.
    pub fragment_bytes: usize,
}

impl Default for HighlightSpec {
    fn default() -> Self {
        Self {
            fragments: 3,
            fragment_bytes: 160,
        }
    }
}

/// Byte ranges of the text as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub range: Range<usize>,
    /// The words that match, ascending, inside `range`.
    pub marks: Vec<Range<usize>>,
}

/// The pieces of `text`, a value of `field`, that have most words of the query, in the
/// order of the text.  Analyzes the whole text; no index is needed.
pub fn highlight(
    text: &str,
    field: &FieldName,
    query: &TextQuery,
    fields: &TextFields,
    spec: HighlightSpec,
) -> Result<Vec<Fragment>, Problem> {
    let asked = query.ask(fields)?;
    let number = asked.fields.iter().position(|boosted| boosted.field == *field);
    let (Some(number), Some(analyzer)) = (number, fields.get(field.as_str())) else {
        return Ok(Vec::new());
    };
    let wants = asked.groups.iter().flat_map(|group| &group.wants);
    let sought = Sought::new(
        wants
            .filter(|want| want.field == number)
            .map(|want| (want.term.as_str(), want.how)),
    );
    let matches = sought.matches(&mut analyzer.clone(), text);
    Ok(choose(text, &matches, spec))
}

struct Match {
    range: Range<usize>,
    /// Which word of the query it is.
    word: usize,
}

#[derive(Default)]
struct Sought<'q> {
    exact: BTreeMap<&'q str, usize>,
    near: Vec<(usize, Near)>,
    beginnings: Vec<(usize, &'q str)>,
}

impl<'q> Sought<'q> {
    fn new(wants: impl Iterator<Item = (&'q str, How)>) -> Self {
        let mut sought = Self::default();
        for (word, (term, how)) in wants.enumerate() {
            match how {
                How::Exact => {
                    sought.exact.entry(term).or_insert(word);
                }
                How::Near(edits) => sought.near.push((word, Near::new(term, edits))),
                How::Beginning => sought.beginnings.push((word, term)),
            }
        }
        sought
    }

    fn matches(&self, analyzer: &mut Analyzer, text: &str) -> Vec<Match> {
        let mut matches = Vec::new();
        analyzer.terms(text, |token| {
            let term = token.text.as_str();
            let near = || {
                self.near
                    .iter()
                    .find(|(_, near)| near.distance(term).is_some())
                    .map(|(word, _)| *word)
            };
            let begun = || {
                self.beginnings
                    .iter()
                    .find(|(_, start)| term.starts_with(start))
                    .map(|(word, _)| *word)
            };
            if let Some(word) = self.exact.get(term).copied().or_else(near).or_else(begun) {
                matches.push(Match {
                    range: token.offset_from..token.offset_to,
                    word,
                });
            }
        });
        matches
    }
}

/// Greedy: the window with the most different words, then the next one beside it.
fn choose(text: &str, matches: &[Match], spec: HighlightSpec) -> Vec<Fragment> {
    let mut candidates: Vec<(usize, usize, Range<usize>)> = Vec::new();
    let mut end = 0;
    for start in 0..matches.len() {
        let from = matches[start].range.start;
        end = end.max(start + 1);
        while end < matches.len() && matches[end].range.end - from <= spec.fragment_bytes {
            end += 1;
        }
        let different: BTreeSet<usize> = matches[start..end].iter().map(|found| found.word).collect();
        candidates.push((different.len(), end - start, start..end));
    }
    candidates.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then(a.2.start.cmp(&b.2.start)));
    let mut fragments: Vec<Fragment> = Vec::new();
    for (_, _, members) in candidates {
        if fragments.len() == spec.fragments {
            break;
        }
        let marks: Vec<Range<usize>> = matches[members].iter().map(|found| found.range.clone()).collect();
        let Some(range) = widen(text, &marks, spec.fragment_bytes) else {
            continue;
        };
        let apart = |other: &Fragment| range.end <= other.range.start || other.range.end <= range.start;
        if fragments.iter().all(apart) {
            fragments.push(Fragment { range, marks });
        }
    }
    fragments.sort_by_key(|fragment| fragment.range.start);
    fragments
}

/// Words around the marks, as many as fit.
fn widen(text: &str, marks: &[Range<usize>], bytes: usize) -> Option<Range<usize>> {
    let (first, last) = (marks.first()?.start, marks.last()?.end);
    let room = bytes.saturating_sub(last - first);
    let start = match first.checked_sub(room / 3) {
        None | Some(0) => 0,
        Some(from) => word_start(text, from, first),
    };
    let until = start + bytes.max(last - start);
    let end = if until >= text.len() {
        text.len()
    } else {
        word_end(text, until, last)
    };
    Some(start..end)
}

/// The first beginning of a word at or after `from`.
fn word_start(text: &str, from: usize, limit: usize) -> usize {
    let mut after_gap = false;
    for (at, c) in text[ceil(text, from)..limit].char_indices() {
        if after_gap && c.is_alphanumeric() {
            return ceil(text, from) + at;
        }
        after_gap = c.is_whitespace();
    }
    limit
}

/// The last end of a word at or before `until`.
fn word_end(text: &str, until: usize, limit: usize) -> usize {
    let window = &text[limit..ceil(text, until)];
    match window.char_indices().rev().find(|(_, c)| c.is_whitespace()) {
        Some((at, _)) => limit + at,
        None => limit,
    }
}

fn ceil(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}
