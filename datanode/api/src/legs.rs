//! What a query is made of: legs, their fusion, what comes after it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::query::FilterSchema;

/// One of the three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<VectorLegSchema>")]
    pub vector: Option<VectorLeg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextLeg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SparseLegSchema>")]
    pub sparse: Option<SparseLeg>,
}

/// A vector, or an object that also names the field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VectorLeg {
    Named { field: String, value: VectorValue },
    Value(VectorValue),
}

/// The vector alone when the collection has one vector field, else with its field.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum VectorLegSchema {
    Value(VectorValue),
    Named(NamedVector),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct NamedVector {
    /// May be left out when the collection has one vector field.
    field: Option<String>,
    value: VectorValue,
}

/// A list of numbers, or `"b64:…"` of little-endian f32 (of packed bits for binary
/// vectors, of bytes for int8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum VectorValue {
    List(Vec<f32>),
    B64(String),
}

/// A sparse vector, or an object that also names the field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SparseLeg {
    Named { field: String, value: SparseValue },
    Value(SparseValue),
}

/// The sparse vector alone when the collection has one field of them, else with its field.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum SparseLegSchema {
    Value(SparseValue),
    Named(NamedSparse),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct NamedSparse {
    /// May be left out when the collection has one field of sparse vectors.
    field: Option<String>,
    value: SparseValue,
}

/// Indices and their values, in any order, or `"b64:…"` of little-endian pairs of u32 and
/// f32.  A value of zero is the same as none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SparseValue {
    Elements(SparseElements),
    B64(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparseElements {
    /// No index twice.
    pub indices: Vec<u32>,
    /// One for each index.
    pub values: Vec<f32>,
}

/// Words to search for in every text field, or an object that says where and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TextLeg {
    Words(String),
    Search(TextSearch),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextSearch {
    pub query: String,
    /// Text fields; all of them when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<TextFields>,
    /// `or` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Operator>,
    /// The last word may go on: `sail` finds `sailing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<bool>,
    /// Edits that a word may be away: 0 (when left out) to 2.  Not with `phrase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 2))]
    pub fuzzy: Option<u8>,
}

/// Names, or names and what a field's score is multiplied by (above 0, at most 1,000).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TextFields {
    Names(Vec<String>),
    Boosts(BTreeMap<String, f32>),
}

/// `or`: any of the words; the more, the better.  `and`: all of them.  `phrase`: all of
/// them, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    Or,
    And,
    Phrase,
}

/// How several legs become one ranking.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fuse {
    /// `rrf` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<FuseMethod>,
    /// Of `rrf` alone; 60 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000))]
    pub k: Option<u32>,
    /// One for each leg, 0 or above; in short form vector, text, sparse.  A leg of weight 0
    /// takes no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f32>>,
}

/// `rrf`: the sum over the legs of weight / (k + rank).  `score`: the sum over the legs of
/// weight × the score, stretched so that the leg's worst hit has 0 and its best 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FuseMethod {
    Rrf,
    Score,
}

/// Changes the scores of the best hits by what their documents hold, and ranks them anew.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rerank {
    /// At most 16.  One says nothing about a hit without its field.
    pub functions: Vec<RankFunction>,
    /// `multiply` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<Combine>,
    /// How many of the best are looked at, at least `k` (times the size of a group); max(4 k,
    /// 100) when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub depth: Option<u64>,
}

/// `multiply`: the score times all numbers (a negative score is divided by them, so that a
/// number above 1 always lifts).  `add`: the score and all numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    Multiply,
    Add,
}

/// One of `decay`, `value` and `filter`, and its weight.  The number of a function is its
/// value times its weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RankFunction {
    /// From 1 at an origin to 0.5 one scale away and on to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<Decay>,
    /// The value of a field of type int or float.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<FieldValue>,
    /// 1 for hits that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FilterSchema>")]
    pub filter: Option<Value>,
    /// 1 when left out; above 0 with `multiply`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decay {
    /// Of type int, float or timestamp.
    pub field: String,
    /// `gauss` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<Curve>,
    /// A number; for a timestamp an RFC 3339 string or `"now"`, which it is when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<NumberOrText>,
    /// How far around the origin there is no decay; 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<NumberOrText>,
    /// How far beyond the offset the value is 0.5: a number, or for a timestamp a length of
    /// time like `"7d"`, `"12h"`, `"30m"`, `"45s"`, `"500ms"`.
    pub scale: NumberOrText,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Curve {
    Gauss,
    Exp,
    /// 0 from two scales on.
    Linear,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NumberOrText {
    Number(f64),
    Text(String),
}

/// A field, or a field and what is made of its value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FieldValue {
    Name(String),
    Modified(ModifiedValue),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModifiedValue {
    pub field: String,
    /// `none` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modifier: Option<Modifier>,
}

/// `log1p`: ln(1 + x).  It and `sqrt` take a negative value for 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Modifier {
    None,
    Log1p,
    Sqrt,
}

/// A field of type string, int, bool or timestamp, or the same with the size of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum GroupBy {
    Field(String),
    Sized(SizedGroups),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizedGroups {
    pub field: String,
    /// Hits of a group, at most; 3 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub size: Option<u64>,
}

/// `true`: the fields that were searched; or names of text fields; or an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Highlight {
    All(bool),
    Fields(Vec<String>),
    Marked(Marked),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Marked {
    /// Text fields; those that were searched when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// Before a word that was found; `<em>` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// After it; `</em>` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Passages of a field, at most; 3 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub passages: Option<u64>,
    /// Characters of a passage, about; 160 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 2_000))]
    pub length: Option<u64>,
}
