//! From a query and all parts to weighted lists: the one place where statistics are
//! summed up.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::bm25::{FieldStats, Norms, Scale, Weight, idf};
use crate::cursor::Cursor;
use crate::error::TextError;
use crate::evaluate::List;
use crate::expand::{Meant, expand};
use crate::phrase::{self, Slot, Word};
use crate::query::{Asked, Operator};
use crate::search::{Allowed, Found, Source};

/// A term of a field, looked up once in each part.
struct Leaf {
    field: usize,
    term: String,
}

/// A leaf in a group.
struct Entry {
    leaf: usize,
    closeness: f32,
    weight: f32,
}

/// The words of the query as one field has them, at their distances.
struct Phrase {
    field: usize,
    slots: Vec<(u32, Vec<usize>)>,
    weight: f32,
}

pub(crate) struct Plan<'p> {
    sources: &'p [Source<'p>],
    leaves: Vec<Leaf>,
    groups: Vec<Vec<Entry>>,
    phrases: Vec<Phrase>,
    /// By part and leaf.
    found: Vec<Vec<Option<Found>>>,
    norms: Vec<Norms>,
    scale: Scale,
}

impl<'p> Plan<'p> {
    pub(crate) fn new(asked: &Asked, sources: &'p [Source<'p>]) -> Result<Self, TextError> {
        let mut leaves = Leaves::default();
        let mut groups = Vec::new();
        for group in &asked.groups {
            let mut entries: Vec<Entry> = Vec::new();
            for want in &group.wants {
                for Meant { term, closeness } in expand(want, sources)? {
                    let leaf = leaves.number(want.field, term);
                    match entries.iter_mut().find(|entry| entry.leaf == leaf) {
                        Some(entry) => entry.closeness = entry.closeness.max(closeness),
                        None => entries.push(Entry {
                            leaf,
                            closeness,
                            weight: 0.0,
                        }),
                    }
                }
            }
            groups.push(entries);
        }
        let leaves = leaves.all;
        let mut found = Vec::with_capacity(sources.len());
        for source in sources {
            let find = |leaf: &Leaf| source.find(leaf.field, &leaf.term);
            found.push(leaves.iter().map(find).collect::<Result<Vec<_>, _>>()?);
        }
        let field_stats = |field: usize| {
            let mut all = FieldStats::default();
            sources.iter().for_each(|source| all.add(source.stats(field)));
            all
        };
        let stats: Vec<FieldStats> = (0..asked.fields.len()).map(field_stats).collect();
        let mut plan = Self {
            sources,
            leaves,
            groups,
            phrases: Vec::new(),
            found,
            norms: stats.iter().map(|&stats| Norms::of(stats)).collect(),
            scale: Scale::of(std::iter::empty()),
        };
        plan.weigh(asked, &stats);
        if asked.operator == Operator::Phrase {
            plan.phrases = plan.phrases(asked);
            plan.scale = Scale::of(plan.phrases.iter().map(|phrase| phrase.weight));
        } else {
            let entries = plan.groups.iter().flatten();
            plan.scale = Scale::of(entries.map(|entry| entry.weight));
        }
        Ok(plan)
    }

    pub(crate) fn scale(&self) -> Scale {
        self.scale
    }

    /// What a part has of each field's lengths, to be lent to `groups`.
    pub(crate) fn norms(&self, part: usize) -> Vec<Cow<'p, [u8]>> {
        (0..self.norms.len())
            .map(|field| self.sources[part].norms(field))
            .collect()
    }

    /// The lists of each word of the query that the part has.
    pub(crate) fn groups<'s>(
        &'s self,
        part: usize,
        norms: &'s [Cow<'_, [u8]>],
    ) -> Result<Vec<Vec<List<'s>>>, TextError> {
        let lists = |entries: &'s Vec<Entry>| {
            let list = |entry: &'s Entry| self.list(part, entry, norms).transpose();
            entries.iter().filter_map(list).collect::<Result<Vec<_>, _>>()
        };
        self.groups.iter().map(lists).collect()
    }

    fn list<'s>(
        &'s self,
        part: usize,
        entry: &Entry,
        norms: &'s [Cow<'_, [u8]>],
    ) -> Result<Option<List<'s>>, TextError> {
        let field = self.leaves[entry.leaf].field;
        let Some(found) = &self.found[part][entry.leaf] else {
            return Ok(None);
        };
        let weight = Weight::new(entry.weight, self.scale, &self.norms[field]);
        let (cursor, bound) = self.sources[part].list(field, found, &weight)?;
        Ok(Some(List::new(
            cursor,
            weight,
            &norms[field],
            found.rows() as usize,
            bound,
        )))
    }

    /// The rows of a part that have the phrase in a field, one list per field.
    pub(crate) fn phrases_of<'s>(
        &'s self,
        part: usize,
        norms: &'s [Cow<'_, [u8]>],
        allowed: &Allowed<'_>,
    ) -> Result<Vec<List<'s>>, TextError> {
        let mut lists = Vec::new();
        for phrase in &self.phrases {
            let mut slots = Vec::new();
            for (offset, leaves) in &phrase.slots {
                slots.push(Slot::new(*offset, self.words(part, phrase.field, leaves)?));
            }
            let (rows, frequencies) = phrase::find(slots, allowed);
            if !rows.is_empty() {
                let weight = Weight::new(phrase.weight, self.scale, &self.norms[phrase.field]);
                let count = rows.len();
                let cursor = Cursor::listed(rows, frequencies);
                lists.push(List::new(cursor, weight, &norms[phrase.field], count, None));
            }
        }
        Ok(lists)
    }

    fn words(&self, part: usize, field: usize, leaves: &[usize]) -> Result<Vec<Word>, TextError> {
        let found = leaves.iter().filter_map(|&leaf| self.found[part][leaf].as_ref());
        found.map(|found| self.sources[part].word(field, found)).collect()
    }

    /// Rows of all parts that have the leaf.
    fn rows_with(&self, leaf: usize) -> u64 {
        let found = self.found.iter().filter_map(|part| part[leaf].as_ref());
        found.map(Found::rows).sum()
    }

    /// A word's variants in one field are weighed by the most common of them: a rare
    /// misspelling must not beat the word itself.
    fn weigh(&mut self, asked: &Asked, stats: &[FieldStats]) {
        let mut groups = std::mem::take(&mut self.groups);
        for (entries, group) in groups.iter_mut().zip(&asked.groups) {
            let mut most = vec![0; asked.fields.len()];
            for entry in entries.iter() {
                let field = self.leaves[entry.leaf].field;
                most[field] = self.rows_with(entry.leaf).max(most[field]);
            }
            for entry in entries {
                let field = self.leaves[entry.leaf].field;
                // A word that nobody has would only take precision from the others.
                if self.rows_with(entry.leaf) > 0 {
                    let idf = idf(most[field], stats[field].docs);
                    entry.weight = asked.fields[field].boost * entry.closeness * idf * group.times as f32;
                }
            }
        }
        self.groups = groups;
    }

    fn phrases(&self, asked: &Asked) -> Vec<Phrase> {
        let of_field = |field: usize| {
            let (mut slots, mut weight) = (Vec::new(), 0.0);
            for (group, entries) in asked.groups.iter().zip(&self.groups) {
                if !group.wants.iter().any(|want| want.field == field) {
                    continue;
                }
                let here = entries
                    .iter()
                    .filter(|entry| self.leaves[entry.leaf].field == field);
                weight += here
                    .clone()
                    .map(|entry| entry.weight / entry.closeness)
                    .fold(0.0, f32::max);
                slots.push((group.position as u32, here.map(|entry| entry.leaf).collect()));
            }
            Phrase { field, slots, weight }
        };
        let phrases = (0..asked.fields.len()).map(of_field);
        phrases.filter(|phrase| !phrase.slots.is_empty()).collect()
    }
}

#[derive(Default)]
struct Leaves {
    all: Vec<Leaf>,
    numbers: HashMap<(usize, String), usize>,
}

impl Leaves {
    fn number(&mut self, field: usize, term: String) -> usize {
        let next = self.all.len();
        let number = *self.numbers.entry((field, term.clone())).or_insert(next);
        if number == next {
            self.all.push(Leaf { field, term });
        }
        number
    }
}
