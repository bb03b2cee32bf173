//! A read as the engine executes it: typed and within limits.
//!
//! A query has one or more **legs**, each a ranking of its own: nearest vectors, best texts,
//! largest sparse products.  Several legs are fused into one ranking, its best may be
//! re-ranked by what their documents hold, and the outcome is cut into the k best hits, or
//! into the k best groups of hits.  All of it sees one snapshot and one filter.

mod fuse;
mod group;
mod legs;
mod parse;
mod rerank;
mod shape;

use std::sync::Arc;
use std::time::Duration;

use crate::filter::Filter;
use crate::ids::{DocId, FieldName, Seq};
use crate::value::{Document, SparseVector, Value, Vector};

pub use self::fuse::{Fuse, Method, best_first};
pub use self::group::group;
pub use self::legs::vector_field;
pub use self::parse::{RawQuery, approximate, parse_filter};
pub use self::rerank::{Boost, Curve, Decay, Modifier, Rerank, Signal, Way};

pub const DEFAULT_RECALL: f32 = 0.95;
pub const DEFAULT_K: usize = 10;

#[derive(Clone, Debug)]
pub struct Query {
    /// Without one the answer is the first documents by id.
    pub legs: Vec<Leg>,
    /// Hits, or groups of hits.
    pub k: usize,
    pub filter: Option<Filter>,
    pub include: Include,
    /// Of vector legs.
    pub accuracy: Accuracy,
    /// Of several legs.
    pub fuse: Fuse,
    pub rerank: Option<Rerank>,
    pub group_by: Option<GroupBy>,
    pub highlight: Option<Highlight>,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            legs: Vec::new(),
            k: DEFAULT_K,
            filter: None,
            include: Include::Nothing,
            accuracy: Accuracy::Recall(DEFAULT_RECALL),
            fuse: Fuse::default(),
            rerank: None,
            group_by: None,
            highlight: None,
        }
    }
}

impl Query {
    /// How many hits each leg is asked for at first.  One leg that nothing comes after gives
    /// its k; whatever looks at more than the outcome has something to choose from.
    pub fn depth(&self) -> usize {
        let wanted = self.wanted();
        if self.legs.len() <= 1 && self.rerank.is_none() && self.group_by.is_none() {
            return wanted;
        }
        let depth = (4 * wanted).max(100);
        let asked = self.rerank.as_ref().and_then(|rerank| rerank.depth);
        match self.legs.len() {
            // The fusion decides who is re-ranked: it sees no less than it would without.
            2.. => depth.max(asked.unwrap_or_default()),
            _ => asked.unwrap_or(depth),
        }
    }

    /// What has to be read of the documents: what the answer includes, and what is
    /// highlighted.
    pub fn fetched(&self) -> Include {
        let highlighted = self.highlight.iter().flat_map(|highlight| &highlight.fields);
        let mut fields = match &self.include {
            Include::Everything => return Include::Everything,
            Include::Fields(fields) => fields.clone(),
            Include::Nothing => Vec::new(),
        };
        for field in highlighted {
            if !fields.contains(field) {
                fields.push(field.clone());
            }
        }
        match self.include == Include::Nothing && fields.is_empty() {
            true => Include::Nothing,
            false => Include::Fields(fields),
        }
    }

    /// Hits in a full answer.
    fn wanted(&self) -> usize {
        self.k * self.group_by.as_ref().map_or(1, |group_by| group_by.size)
    }
}

#[derive(Clone, Debug)]
pub enum Leg {
    Vector(VectorLeg),
    Text(TextLeg),
    Sparse(SparseLeg),
}

impl Leg {
    /// As a request and an explanation name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vector(_) => "vector",
            Self::Text(_) => "text",
            Self::Sparse(_) => "sparse",
        }
    }

    pub fn fields(&self) -> Vec<&FieldName> {
        match self {
            Self::Vector(leg) => vec![&leg.field],
            Self::Text(leg) => leg.fields.iter().map(|(field, _)| field).collect(),
            Self::Sparse(leg) => vec![&leg.field],
        }
    }
}

#[derive(Clone, Debug)]
pub struct VectorLeg {
    pub field: FieldName,
    /// In the field's element type, except that an f32 query may meet an int8 field.
    pub value: Vector,
}

#[derive(Clone, Debug)]
pub struct SparseLeg {
    pub field: FieldName,
    /// Never empty.
    pub value: SparseVector,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TextLeg {
    /// Never blank.
    pub query: Arc<str>,
    /// Text fields and what their scores are multiplied by; at least one.
    pub fields: Vec<(FieldName, f32)>,
    pub operator: Operator,
    /// The last word may go on: `sail` finds `sailing`.
    pub prefix: bool,
    /// Edits that a word may be away; 0 to 2, and 0 for a phrase.
    pub fuzzy: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Operator {
    /// Any of the words; the more, the better.
    #[default]
    Or,
    /// All of the words.
    And,
    /// All of the words, one after the other.
    Phrase,
}

/// Hits in groups by the value of a field.  Documents without the field are in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupBy {
    pub field: FieldName,
    /// Hits of a group, at most.
    pub size: usize,
}

/// What of the texts made a document a hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Highlight {
    pub fields: Vec<FieldName>,
    /// Around each word that was found.
    pub before: Arc<str>,
    pub after: Arc<str>,
    /// Passages of a field, at most.
    pub passages: usize,
    /// Characters of a passage, about.
    pub length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accuracy {
    Recall(f32),
    /// 1–1,000, more is more work.
    Effort(u32),
    Exact,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Include {
    Nothing,
    Everything,
    Fields(Vec<FieldName>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    #[default]
    Strong,
    Verified,
    Session,
    Eventual,
}

/// The outcome of a query, best first; ties go to the smaller id.
#[derive(Clone, Debug, PartialEq)]
pub enum Hits {
    Flat(Vec<Hit>),
    /// By their best hits.
    Grouped(Vec<Group>),
}

impl Hits {
    /// All hits, group after group.
    pub fn into_flat(self) -> Vec<Hit> {
        match self {
            Self::Flat(hits) => hits,
            Self::Grouped(groups) => groups.into_iter().flat_map(|group| group.hits).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub value: Value,
    pub hits: Vec<Hit>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub id: DocId,
    pub score: f32,
    pub document: Option<Document>,
    /// Passages by field, where there are any.
    pub highlights: Vec<(FieldName, Vec<String>)>,
}

/// What a query touched, for `explain`.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    pub rows_scanned: u64,
    pub rows_rescored: u64,
    pub segments: u64,
    pub fresh_rows: u64,
    pub filter_survivors: Option<u64>,
    /// In the order of the query's legs; summed over rounds when groups needed several.
    pub legs: Vec<LegTouched>,
    pub plan: Duration,
    pub search: Duration,
    pub fetch: Duration,
}

impl Touched {
    /// For whoever may not know how many rows there are beside their own.
    pub fn without_totals(mut self) -> Self {
        (
            self.rows_scanned,
            self.rows_rescored,
            self.segments,
            self.fresh_rows,
        ) = (0, 0, 0, 0);
        self.legs.iter_mut().for_each(|leg| leg.rows_scanned = 0);
        self
    }
}

/// What one leg did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LegTouched {
    pub leg: &'static str,
    pub fields: Vec<FieldName>,
    /// Hits that it gave.
    pub hits: u64,
    pub rows_scanned: u64,
    pub took: Duration,
}

/// A stored document and its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub id: DocId,
    pub version: Seq,
    pub document: Document,
}
