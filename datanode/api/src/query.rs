//! Queries, recall, aggregates.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::documents::{Document, Id, Include};
use crate::legs::{
    Fuse, GroupBy, Highlight, Leg, Rerank, SparseLeg, SparseLegSchema, TextLeg, VectorLeg, VectorLegSchema,
};

/// A filter: an object of fields and tests, or a SQL condition as a string.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "only its schema is used: the value is read by rhumb_core"
)]
pub(crate) enum FilterSchema {
    /// `{"pos": "n"}`, `{"lex": {"$gte": 3, "$lt": 9}}`, `$and`, `$or`, `$not`, …
    Tree(Map<String, Value>),
    /// `lex >= 3 AND pos IN ('n','v')`
    Sql(String),
}

/// One query, or up to 256 that see one snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum QueryRequest {
    Batch(BatchQuery),
    One(Box<Query>),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchQuery {
    #[schemars(length(max = 256))]
    pub queries: Vec<Query>,
    /// Of the snapshot that all of them see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// For all of them together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
}

/// One leg at least: `vector`, `text` and `sparse` in short form, or `legs`.  Several are
/// fused.  Of `recall`, `effort` and `exact`, which are for vectors, at most one; without
/// any, recall 0.95 is aimed at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<VectorLegSchema>")]
    pub vector: Option<VectorLeg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextLeg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SparseLegSchema>")]
    pub sparse: Option<SparseLeg>,
    /// At most 8, in place of `vector`, `text` and `sparse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub legs: Option<Vec<Leg>>,
    /// With more than one leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuse: Option<Fuse>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank: Option<Rerank>,
    /// The answer has `groups` in place of `hits`: the `k` groups with the best hits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<GroupBy>,
    /// Passages in which words of a text leg were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highlight: Option<Highlight>,
    /// Hits, or groups of hits; 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub k: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FilterSchema>")]
    pub filter: Option<Value>,
    /// Nothing when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Include>,
    /// The share of the true nearest neighbours to find, above 0 and up to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1))]
    pub recall: Option<f64>,
    /// More is more work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub effort: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// The work stops when it is up, and the answer is 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
    /// Adds what the query touched to the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<bool>,
}

/// What a read must see.  `strong`: every acknowledged write.  `verified`: the same,
/// without trusting this process to be the writer still (one more round trip to the
/// store).  `session`: at least what the `Rhumb-Session` token saw.  `eventual`: whatever
/// is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    Strong,
    Verified,
    Session,
    Eventual,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QueryAnswer {
    /// Best first; ties go to the smaller id.  Not there with `group_by`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hits: Vec<Hit>,
    /// By their best hits; with `group_by` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<HitGroup>>,
    pub took_ms: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explain>,
}

/// The best hits that have one value of the attribute that groups are made by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HitGroup {
    pub value: Value,
    /// Best first.
    pub hits: Vec<Hit>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hit {
    #[schemars(with = "Id")]
    pub id: Value,
    /// Higher is better: the similarity for cosine and dot, minus the squared distance for
    /// l2, minus the distance for hamming, BM25 for text, the dot product for sparse
    /// vectors; of several legs the fused score; with `rerank` what that made of it.
    pub score: f32,
    /// With `include` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// Passages by field; with `highlight` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highlights: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchAnswer {
    /// In the order of the queries.
    pub results: Vec<QueryAnswer>,
}

/// What a query touched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explain {
    pub rows_scanned: u64,
    pub rows_rescored: u64,
    pub segments: u64,
    pub fresh_rows: u64,
    /// Rows that passed the filter; not there without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_survivors: Option<u64>,
    /// In the order of the query's legs.
    pub legs: Vec<ExplainLeg>,
    pub plan_ms: f64,
    pub search_ms: f64,
    pub fetch_ms: f64,
}

/// What one leg did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainLeg {
    /// `vector`, `text` or `sparse`.
    pub leg: String,
    pub fields: Vec<String>,
    /// Hits that it gave.
    pub hits: u64,
    pub rows_scanned: u64,
    pub took_ms: f64,
}

/// Asks with stored vectors, once as a query would and once exactly, and compares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecallRequest {
    /// How many vectors to ask with; 50 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub queries: Option<u64>,
    /// 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub k: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FilterSchema>")]
    pub filter: Option<Value>,
    /// The vector field; may be left out when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The recall that the approximate queries aim at; 0.95 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1))]
    pub recall: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub effort: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecallAnswer {
    /// Share of the true k nearest that were found; 1 when there was nothing to ask with.
    pub recall: f64,
    /// Vectors asked with: fewer than wanted when fewer are stored.
    pub queries: u64,
    pub k: u64,
    /// Where the vectors came from: `stored` ones are always near others, and so flatter
    /// the figure when real queries are not.
    pub from: RecallSource,
    /// With a filter: the share of all documents that it lets through, 0 to 1, and the class
    /// that this is counted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selectivity: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<SelectivityClass>,
    /// The worst of them.
    pub min: f64,
    /// Mean time of one query.
    pub approximate_ms: f64,
    pub exact_ms: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecallSource {
    Stored,
}

/// How much a filter lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SelectivityClass {
    #[serde(rename = "below_1_percent")]
    Below1Percent,
    #[serde(rename = "1_to_10_percent")]
    From1To10Percent,
    #[serde(rename = "10_to_50_percent")]
    From10To50Percent,
    #[serde(rename = "above_50_percent")]
    Above50Percent,
}

impl SelectivityClass {
    /// Of a share from 0 to 1.
    pub fn of(selectivity: f64) -> Self {
        match selectivity {
            s if s < 0.01 => Self::Below1Percent,
            s if s < 0.1 => Self::From1To10Percent,
            s if s < 0.5 => Self::From10To50Percent,
            _ => Self::Above50Percent,
        }
    }

    /// As the answer and the metric name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Below1Percent => "below_1_percent",
            Self::From1To10Percent => "1_to_10_percent",
            Self::From10To50Percent => "10_to_50_percent",
            Self::Above50Percent => "above_50_percent",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FilterSchema>")]
    pub filter: Option<Value>,
    /// Attributes to group by; one group of everything when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// Names of the answer's numbers, and what they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Metric>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Count(Counted),
    Sum(String),
    Avg(String),
    Min(String),
    Max(String),
}

/// `true`: documents; the name of an attribute: documents that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Counted {
    Documents(bool),
    Having(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AggregateAnswer {
    /// Each with `by` (an object of the attributes, `null` for missing) and the metrics.
    pub groups: Vec<Map<String, Value>>,
}
