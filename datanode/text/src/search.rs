//! One question to all parts of a snapshot.

use std::borrow::Cow;
use std::cmp::Ordering;

use rhumb_core::FieldName;
use tantivy::postings::TermInfo;

use crate::analyze::TextFields;
use crate::bm25::{FieldStats, Weight};
use crate::cursor::Cursor;
use crate::error::TextError;
use crate::evaluate::{self, Group, List, Sink, Window};
use crate::expand::Near;
use crate::fresh::FreshText;
use crate::phrase::Word;
use crate::plan::Plan;
use crate::query::{Asked, Operator, TextQuery};
use crate::split::{Split, SplitField};
use crate::top::Top;

/// A row of a part of the search at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextRow {
    /// Of the slice of parts.
    pub part: u32,
    pub ordinal: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextHit {
    pub row: TextRow,
    pub score: f32,
}

/// Where the rows of a part are indexed.
#[derive(Clone, Copy, Debug)]
pub enum Index<'a> {
    Sealed(&'a Split),
    /// The first `rows` rows: what the snapshot has.
    Fresh {
        text: &'a FreshText,
        rows: u32,
        /// Those of them that count in the statistic, 64 to a word; all when `None`.  Rows of a
        /// document that is written again and again would outweigh all others.
        live: Option<&'a [u64]>,
    },
}

/// Which rows may be hits: alive, and past the filter if there is one.
#[derive(Clone, Copy)]
pub enum Allowed<'a> {
    All,
    /// Bit n of word n / 64; rows past the end are not allowed.
    Words(&'a [u64]),
    /// The word of 64 rows, by its number, which may lie past the end.
    By(&'a dyn Fn(usize) -> u64),
}

#[derive(Clone, Copy)]
pub struct Part<'a> {
    pub index: Index<'a>,
    pub allowed: Allowed<'a>,
    /// Rows come in the order that breaks ties.  Saves comparing them all when many rows
    /// have one score.
    pub ascending: bool,
}

#[derive(Clone, Copy)]
pub struct SearchSpec<'a> {
    pub query: &'a TextQuery,
    pub fields: &'a TextFields,
    pub k: usize,
    /// Which of two rows with the same score comes first.
    pub tie: &'a dyn Fn(TextRow, TextRow) -> Ordering,
}

/// The best `k` rows of all parts, best first.  A query without a word that counts has
/// no hits.
pub fn search(parts: &[Part<'_>], spec: &SearchSpec<'_>) -> Result<Vec<TextHit>, TextError> {
    let asked = spec.query.ask(spec.fields)?;
    if asked.groups.is_empty() || spec.k == 0 {
        return Ok(Vec::new());
    }
    let sources = sources(parts, &asked, spec.fields)?;
    let plan = Plan::new(&asked, &sources)?;
    let mut top = Top::new(spec.k, spec.tie);
    let mut window = Window::new();
    // Large parts first: they raise the floor for the others.
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(parts[at].index.rows()));
    for at in order {
        let part = &parts[at];
        top.begin_part(part.ascending);
        let norms = plan.norms(at);
        let mut sink = Sink {
            part: at as u32,
            rows: part.index.rows(),
            allowed: &part.allowed,
            top: &mut top,
            window: &mut window,
        };
        match asked.operator {
            Operator::Phrase => evaluate::any(plan.phrases_of(at, &norms, &part.allowed)?, &mut sink),
            Operator::Or => {
                let lists = plan.groups(at, &norms)?.into_iter().flatten();
                evaluate::any(lists.collect(), &mut sink);
            }
            Operator::And => {
                let groups = plan.groups(at, &norms)?;
                if groups.iter().all(|lists| !lists.is_empty()) {
                    evaluate::all(groups.into_iter().map(Group::new).collect(), &mut sink);
                }
            }
        }
    }
    let scale = plan.scale();
    let hit = |scored: crate::top::Scored| TextHit {
        row: scored.row,
        score: scale.score(scored.units),
    };
    Ok(top.into_sorted().into_iter().map(hit).collect())
}

/// All rows that match, as one set of words per part: for counts, facets and fusion.
pub fn matching(
    parts: &[Part<'_>],
    query: &TextQuery,
    fields: &TextFields,
) -> Result<Vec<Vec<u64>>, TextError> {
    let asked = query.ask(fields)?;
    let sources = sources(parts, &asked, fields)?;
    let plan = Plan::new(&asked, &sources)?;
    let mut sets = Vec::with_capacity(parts.len());
    for (at, part) in parts.iter().enumerate() {
        let norms = plan.norms(at);
        let words = (part.index.rows() as usize).div_ceil(64);
        let mut set = match asked.operator {
            Operator::Phrase => union(words, plan.phrases_of(at, &norms, &part.allowed)?),
            Operator::Or => union(words, plan.groups(at, &norms)?.into_iter().flatten()),
            Operator::And => {
                let mut groups = plan
                    .groups(at, &norms)?
                    .into_iter()
                    .map(|lists| union(words, lists));
                let first = groups.next().unwrap_or_else(|| vec![0; words]);
                groups.fold(first, |mut all, group| {
                    all.iter_mut().zip(group).for_each(|(a, b)| *a &= b);
                    all
                })
            }
        };
        set.iter_mut()
            .enumerate()
            .for_each(|(at, word)| *word &= part.allowed.word(at));
        sets.push(set);
    }
    Ok(sets)
}

fn union<'p>(words: usize, lists: impl IntoIterator<Item = List<'p>>) -> Vec<u64> {
    let mut set = vec![0; words];
    for mut list in lists {
        list.each_row(|row| set[row as usize / 64] |= 1 << (row % 64));
    }
    set
}

fn sources<'p>(
    parts: &'p [Part<'p>],
    asked: &Asked,
    fields: &TextFields,
) -> Result<Vec<Source<'p>>, TextError> {
    let source = |part: &'p Part<'p>| Source::new(&part.index, asked, fields);
    parts.iter().map(source).collect()
}

impl Allowed<'_> {
    #[inline]
    pub(crate) fn word(&self, at: usize) -> u64 {
        match self {
            Self::All => u64::MAX,
            Self::Words(words) => words.get(at).copied().unwrap_or(0),
            Self::By(word) => word(at),
        }
    }

    #[inline]
    pub(crate) fn has(&self, row: u32) -> bool {
        match self {
            Self::All => true,
            _ => self.word(row as usize / 64) >> (row % 64) & 1 == 1,
        }
    }
}

impl Index<'_> {
    pub fn rows(&self) -> u32 {
        match self {
            Self::Sealed(split) => split.rows(),
            Self::Fresh { text, rows, .. } => text.rows().min(*rows),
        }
    }
}

/// A part with the fields of the query found in it.
pub(crate) struct Source<'p> {
    fields: Vec<SourceField<'p>>,
}

enum SourceField<'p> {
    /// No row of the part has it.
    Missing {
        rows: u32,
    },
    Sealed(&'p SplitField),
    Fresh {
        text: &'p FreshText,
        name: FieldName,
        rows: u32,
        live: Option<&'p [u64]>,
    },
}

/// A term that a part has.
pub(crate) enum Found {
    Sealed(TermInfo),
    Fresh { number: u32, rows: u64 },
}

impl Found {
    pub(crate) fn rows(&self) -> u64 {
        match self {
            Self::Sealed(info) => u64::from(info.doc_freq),
            Self::Fresh { rows, .. } => *rows,
        }
    }
}

impl<'p> Source<'p> {
    fn new(index: &'p Index<'p>, asked: &Asked, fields: &TextFields) -> Result<Self, TextError> {
        let rows = index.rows();
        let field = |name: &FieldName| match index {
            Index::Sealed(split) => match split.field(name) {
                Some(field) => {
                    let analyzer = fields.get(name.as_str());
                    field.check(name, analyzer.map(|analyzer| analyzer.language()))?;
                    Ok(SourceField::Sealed(field))
                }
                None => Ok(SourceField::Missing { rows }),
            },
            Index::Fresh { text, live, .. } => Ok(SourceField::Fresh {
                text,
                name: name.clone(),
                rows,
                live: *live,
            }),
        };
        let fields = asked.fields.iter().map(|boosted| field(&boosted.field));
        Ok(Self {
            fields: fields.collect::<Result<_, TextError>>()?,
        })
    }

    pub(crate) fn stats(&self, field: usize) -> FieldStats {
        match &self.fields[field] {
            SourceField::Missing { .. } => FieldStats::default(),
            SourceField::Sealed(field) => field.stats,
            SourceField::Fresh {
                text,
                name,
                rows,
                live,
            } => text
                .read(name, |field| field.stats(*rows, *live))
                .unwrap_or_default(),
        }
    }

    pub(crate) fn norms(&self, field: usize) -> Cow<'p, [u8]> {
        match &self.fields[field] {
            SourceField::Missing { rows } => vec![0; *rows as usize].into(),
            SourceField::Sealed(field) => Cow::Borrowed(&field.norms),
            SourceField::Fresh { text, name, rows, .. } => {
                let norms = text.read(name, |field| field.norms(*rows));
                norms.unwrap_or_else(|| vec![0; *rows as usize]).into()
            }
        }
    }

    pub(crate) fn find(&self, field: usize, term: &str) -> Result<Option<Found>, TextError> {
        match &self.fields[field] {
            SourceField::Missing { .. } => Ok(None),
            SourceField::Sealed(field) => Ok(field.find(term)?.map(Found::Sealed)),
            SourceField::Fresh {
                text,
                name,
                rows,
                live,
            } => {
                let found = text.read(name, |field| field.find(term, *rows, *live)).flatten();
                Ok(found.map(|(number, rows)| Found::Fresh { number, rows }))
            }
        }
    }

    /// The list of a term that was found here, and a bound of what it gives if one is known.
    pub(crate) fn list(
        &self,
        field: usize,
        found: &Found,
        weight: &Weight<'_>,
    ) -> Result<(Cursor, Option<u32>), TextError> {
        match (&self.fields[field], found) {
            (SourceField::Sealed(field), Found::Sealed(info)) => {
                let bound = field.bound(info, weight);
                Ok((Cursor::blocks(field.blocks(info)?), bound))
            }
            (SourceField::Fresh { text, name, rows, .. }, Found::Fresh { number, .. }) => {
                let list = text.read(name, |field| field.list(*number, *rows));
                let (docs, frequencies, peaks) = list.ok_or_else(another_part)?;
                Ok((Cursor::listed(docs, frequencies), Some(peaks.bound(weight))))
            }
            _ => Err(another_part()),
        }
    }

    pub(crate) fn word(&self, field: usize, found: &Found) -> Result<Word, TextError> {
        match (&self.fields[field], found) {
            (SourceField::Sealed(field), Found::Sealed(info)) => {
                Ok(Word::Sealed(Box::new(field.occurrences(info)?)))
            }
            (SourceField::Fresh { text, name, rows, .. }, Found::Fresh { number, .. }) => {
                let found = text.read(name, |field| field.occurrences(*number, *rows));
                Ok(Word::Fresh {
                    found: found.ok_or_else(another_part)?,
                    at: 0,
                })
            }
            _ => Err(another_part()),
        }
    }

    pub(crate) fn each_near(
        &self,
        field: usize,
        near: &Near,
        each: &mut dyn FnMut(&str, u64),
    ) -> Result<(), TextError> {
        match &self.fields[field] {
            SourceField::Missing { .. } => {}
            SourceField::Sealed(field) => field.each_term(near, each)?,
            SourceField::Fresh { text, name, rows, .. } => {
                text.read(name, |field| {
                    field.each_term(*rows, |term, rows| {
                        if near.distance(term).is_some() {
                            each(term, rows);
                        }
                    });
                });
            }
        }
        Ok(())
    }

    pub(crate) fn each_beginning(
        &self,
        field: usize,
        prefix: &str,
        each: &mut dyn FnMut(&str, u64),
    ) -> Result<(), TextError> {
        match &self.fields[field] {
            SourceField::Missing { .. } => {}
            SourceField::Sealed(field) => field.each_beginning(prefix, each)?,
            SourceField::Fresh { text, name, rows, .. } => {
                text.read(name, |field| {
                    field.each_term(*rows, |term, rows| {
                        if term.starts_with(prefix) {
                            each(term, rows);
                        }
                    });
                });
            }
        }
        Ok(())
    }
}

fn another_part() -> TextError {
    TextError::Bug("a term was found in another part than it is read from".into())
}
