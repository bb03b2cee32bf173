//! BM25 as the books have it, in f64, over every row.

use std::collections::{BTreeMap, BTreeSet};

use tantivy::fieldnorm::FieldNormReader;

use super::Row;
use crate::query::{Asked, How, Operator, Want};
use crate::{Analyzer, TextQuery};

type Terms = Vec<(u32, String)>;

pub(crate) struct Oracle {
    /// By row, for each field that is asked.
    rows: Vec<Vec<Terms>>,
    asked: Asked,
    fields: Vec<Stats>,
}

#[derive(Default)]
struct Stats {
    have: f64,
    average: f64,
    found: BTreeMap<String, usize>,
}

impl Stats {
    fn of(rows: &[Vec<Terms>], field: usize) -> Self {
        let mut stats = Self::default();
        for terms in rows
            .iter()
            .map(|row| &row[field])
            .filter(|terms| !terms.is_empty())
        {
            stats.have += 1.0;
            stats.average += terms.len() as f64;
            for term in terms.iter().map(|(_, term)| term).collect::<BTreeSet<_>>() {
                *stats.found.entry(term.clone()).or_default() += 1;
            }
        }
        stats.average /= stats.have;
        stats
    }
}

impl Oracle {
    pub(crate) fn new(rows: &[Row], query: &TextQuery) -> Self {
        let asked = query.ask(&super::fields()).expect("a good query");
        let mut analyzer = Analyzer::of("english").expect("known");
        let mut terms = |text: Option<&str>| {
            let mut terms = Vec::new();
            analyzer.terms(text.unwrap_or_default(), |t| {
                terms.push((t.position as u32, t.text.clone()))
            });
            terms
        };
        let of_row = |row: &Row| asked.fields.iter().map(|f| terms(row.get(&f.field))).collect();
        let rows: Vec<Vec<Terms>> = rows.iter().map(of_row).collect();
        let fields = (0..asked.fields.len())
            .map(|field| Stats::of(&rows, field))
            .collect();
        Self { rows, asked, fields }
    }

    /// Scores of the rows that match.
    pub(crate) fn scores(&self) -> BTreeMap<usize, f64> {
        if self.asked.groups.is_empty() {
            return BTreeMap::new();
        }
        match self.asked.operator {
            Operator::Phrase => self.phrases(),
            operator => self.words(operator),
        }
    }

    fn words(&self, operator: Operator) -> BTreeMap<usize, f64> {
        let variants: Vec<_> = self
            .asked
            .groups
            .iter()
            .map(|group| self.variants(&group.wants))
            .collect();
        let mut scores = BTreeMap::new();
        for row in 0..self.rows.len() {
            let (mut sum, mut groups) = (0.0, 0);
            for (group, variants) in self.asked.groups.iter().zip(&variants) {
                let mut any = false;
                for ((field, term), closeness) in variants {
                    let frequency = self.rows[row][*field].iter().filter(|(_, t)| t == term).count();
                    if frequency > 0 {
                        any = true;
                        let common = variants
                            .keys()
                            .filter(|(f, _)| f == field)
                            .map(|(f, t)| self.found(*f, t));
                        let idf = self.idf(*field, common.max().unwrap_or(0));
                        sum += self.score(row, *field, frequency, idf) * closeness * f64::from(group.times);
                    }
                }
                groups += usize::from(any);
            }
            if groups == self.asked.groups.len() || operator == Operator::Or && groups > 0 {
                scores.insert(row, sum);
            }
        }
        scores
    }

    fn phrases(&self) -> BTreeMap<usize, f64> {
        let mut scores = BTreeMap::new();
        for field in 0..self.asked.fields.len() {
            let slots = self.asked.groups.iter().map(|group| {
                let terms = self
                    .variants(&group.wants)
                    .into_keys()
                    .filter(|(f, _)| *f == field)
                    .map(|(_, t)| t);
                (group.position as u32, terms.collect::<BTreeSet<String>>())
            });
            let slots: Vec<_> = slots.collect();
            let common =
                |terms: &BTreeSet<String>| terms.iter().map(|t| self.found(field, t)).max().unwrap_or(0);
            let idf: f64 = slots
                .iter()
                .map(|(_, terms)| self.idf(field, common(terms)))
                .sum();
            for row in 0..self.rows.len() {
                let terms = &self.rows[row][field];
                let at = |position: i64, wanted: &BTreeSet<String>| {
                    terms
                        .iter()
                        .any(|(p, t)| i64::from(*p) == position && wanted.contains(t))
                };
                let end = terms.last().map_or(0, |(p, _)| i64::from(*p) + 1);
                let starts =
                    (-64..end).filter(|start| slots.iter().all(|(o, w)| at(start + i64::from(*o), w)));
                let frequency = starts.count();
                if frequency > 0 {
                    *scores.entry(row).or_insert(0.0) += self.score(row, field, frequency, idf);
                }
            }
        }
        scores
    }

    fn score(&self, row: usize, field: usize, frequency: usize, idf: f64) -> f64 {
        let norm = FieldNormReader::fieldnorm_to_id(self.rows[row][field].len() as u32);
        let length = f64::from(FieldNormReader::id_to_fieldnorm(norm));
        let tf = frequency as f64;
        let boost = f64::from(self.asked.fields[field].boost);
        boost * idf * 2.2 * tf / (tf + 1.2 * (0.25 + 0.75 * length / self.fields[field].average))
    }

    fn idf(&self, field: usize, found: usize) -> f64 {
        (1.0 + (self.fields[field].have - found as f64 + 0.5) / (found as f64 + 0.5)).ln()
    }

    fn found(&self, field: usize, term: &str) -> usize {
        self.fields[field].found.get(term).copied().unwrap_or(0)
    }

    /// Terms of the rows that a word stands for, by field, and how close they are.
    fn variants(&self, wants: &[Want]) -> BTreeMap<(usize, String), f64> {
        let mut variants = BTreeMap::new();
        for want in wants {
            for term in self.fields[want.field].found.keys() {
                let closeness = match want.how {
                    _ if *term == want.term => 1.0,
                    How::Exact => continue,
                    How::Beginning if term.starts_with(&want.term) => f64::from(0.8f32),
                    How::Beginning => continue,
                    How::Near(edits) => match edit_distance(&want.term, term) {
                        distance if distance <= usize::from(edits) => 1.0 / (1.0 + distance as f64),
                        _ => continue,
                    },
                };
                let known: &mut f64 = variants.entry((want.field, term.clone())).or_insert(0.0);
                *known = known.max(closeness);
            }
        }
        variants
    }
}

/// Insertions, deletions, substitutions and swaps of neighbours.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            d[i][j] = match (i, j) {
                (0, far) | (far, 0) => far,
                _ => {
                    let same = usize::from(a[i - 1] != b[j - 1]);
                    let plain = (d[i - 1][j - 1] + same).min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
                    match i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        true => plain.min(d[i - 2][j - 2] + 1),
                        false => plain,
                    }
                }
            };
        }
    }
    d[a.len()][b.len()]
}
