//! What a client asks, and what it means under the analyzers of its fields.

use rhumb_core::problem::Code;
use rhumb_core::{FieldName, Problem};

use crate::analyze::TextFields;

/// Words of one query; a whole document pasted into it is cut off by a clear refusal.
const MAX_WORDS: usize = 1_024;
const MAX_BOOST: f32 = 1_000.0;
const MAX_EDITS: u8 = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operator {
    /// Any of the words.
    #[default]
    Or,
    /// All of the words, each in any of the fields.
    And,
    /// The words next to each other in one of the fields.
    Phrase,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Boosted {
    pub field: FieldName,
    /// What the field's score is multiplied by.
    pub boost: f32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextQuery {
    pub query: String,
    /// None means all text fields, each with boost 1.
    pub fields: Vec<Boosted>,
    pub operator: Operator,
    /// The last word may be the beginning of a longer one.
    pub prefix: bool,
    /// Edits that a word may be away: 0 to 2; words of up to 2 letters allow none, up to
    /// 5 letters one.
    pub fuzzy: u8,
}

impl TextQuery {
    /// All text fields, any of the words.
    pub fn new(query: impl Into<String>) -> Self {
        Self {
            query: query.into(),
            ..Self::default()
        }
    }

    /// Whether it can be asked of these fields; `search` checks the same.
    pub fn check(&self, fields: &TextFields) -> Result<(), Problem> {
        self.ask(fields).map(|_| ())
    }

    pub(crate) fn ask(&self, fields: &TextFields) -> Result<Asked, Problem> {
        if self.fuzzy > MAX_EDITS {
            let detail = format!("fuzzy is 0, 1 or 2, not {}", self.fuzzy);
            return Err(Problem::new(Code::InvalidValue, detail).field("fuzzy"));
        }
        if self.fuzzy > 0 && self.operator == Operator::Phrase {
            let detail = "a phrase is matched to the letter: it takes no fuzzy";
            let problem = Problem::new(Code::InvalidValue, detail).field("fuzzy");
            return Err(problem.hint("leave fuzzy out, or use operator and"));
        }
        let boosted = self.boosted(fields)?;
        let mut groups: Vec<Group> = Vec::new();
        for (number, field) in boosted.iter().enumerate() {
            self.collect(fields, number, field, &mut groups);
        }
        if groups.len() > MAX_WORDS {
            let detail = format!(
                "a query has at most {MAX_WORDS} words, this one has {}",
                groups.len()
            );
            return Err(Problem::new(Code::LimitExceeded, detail).field("query"));
        }
        groups.sort_by_key(|group| group.position);
        if self.operator != Operator::Phrase {
            groups = counted(groups);
        }
        Ok(Asked {
            fields: boosted,
            operator: self.operator,
            groups,
        })
    }

    fn boosted(&self, fields: &TextFields) -> Result<Vec<Boosted>, Problem> {
        if self.fields.is_empty() {
            let all = fields.iter().map(|(field, _)| Boosted {
                field: field.clone(),
                boost: 1.0,
            });
            return Ok(all.collect());
        }
        for (at, Boosted { field, boost }) in self.fields.iter().enumerate() {
            let place = format!("fields[{at}]");
            if fields.get(field.as_str()).is_none() {
                let known = fields.iter().map(|(field, _)| field.as_str());
                let problem = Problem::unknown_field(field.as_str(), known);
                let detail = format!("there is no text field '{field}'");
                return Err(Problem { detail, ..problem }.field(place));
            }
            if !(*boost > 0.0 && *boost <= MAX_BOOST) {
                let detail = format!("a boost is above 0 and at most {MAX_BOOST}, not {boost}");
                return Err(Problem::new(Code::InvalidValue, detail).field(place));
            }
            if self.fields[..at].iter().any(|other| other.field == *field) {
                let detail = format!("'{field}' is there twice");
                return Err(Problem::new(Code::InvalidValue, detail).field(place));
            }
        }
        Ok(self.fields.clone())
    }

    /// Adds what a field makes of the words; words meet in groups by their position.
    fn collect(&self, fields: &TextFields, number: usize, field: &Boosted, groups: &mut Vec<Group>) {
        let Some(analyzer) = fields.get(field.field.as_str()) else {
            return;
        };
        let mut analyzer = analyzer.clone();
        let mut add = |position: usize, term: &str, how: How| {
            let want = Want {
                field: number,
                term: term.to_owned(),
                how,
            };
            match groups.iter_mut().find(|group| group.position == position) {
                Some(group) => group.wants.push(want),
                None => groups.push(Group {
                    position,
                    wants: vec![want],
                    times: 1,
                }),
            }
        };
        analyzer.terms(&self.query, |token| {
            let edits = self.fuzzy.min(allowed_edits(&token.text));
            let how = if edits > 0 { How::Near(edits) } else { How::Exact };
            add(token.position, &token.text, how);
        });
        if self.prefix {
            let mut last = None;
            analyzer.words(&self.query, |token| {
                last = Some((token.position, token.text.clone()))
            });
            if let Some((position, word)) = last {
                add(position, &word, How::Beginning);
            }
        }
    }
}

fn allowed_edits(term: &str) -> u8 {
    match term.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => MAX_EDITS,
    }
}

/// Words that are asked twice count twice and are looked up once.
fn counted(groups: Vec<Group>) -> Vec<Group> {
    let mut distinct: Vec<Group> = Vec::with_capacity(groups.len());
    for group in groups {
        match distinct.iter_mut().find(|seen| seen.wants == group.wants) {
            Some(seen) => seen.times += 1,
            None => distinct.push(group),
        }
    }
    distinct
}

/// A query as terms.  Without groups it matches nothing.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) fields: Vec<Boosted>,
    pub(crate) operator: Operator,
    /// By position.
    pub(crate) groups: Vec<Group>,
}

/// One word of the query: any of its wants will do.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) position: usize,
    pub(crate) wants: Vec<Want>,
    pub(crate) times: u32,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Want {
    /// Of `Asked::fields`.
    pub(crate) field: usize,
    pub(crate) term: String,
    pub(crate) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    Exact,
    Beginning,
    Near(u8),
}
