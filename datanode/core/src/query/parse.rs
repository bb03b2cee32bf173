//! A query as a request writes it.  What a request asks of the server (`consistency`,
//! `timeout_ms`, `explain`) is the server's business.

use super::legs::RawLegs;
use super::{Accuracy, DEFAULT_K, DEFAULT_RECALL, Fuse, GroupBy, Highlight, Include, Method, Query, Rerank};
use crate::filter::Filter;
use crate::json::Json;
use crate::limits::Limits;
use crate::members::Members;
use crate::problem::{Code, Problem};
use crate::schema::Schema;

/// The members of a query, taken but not looked into: what nobody knows is refused first.
pub struct RawQuery {
    legs: RawLegs,
    fuse: Option<Json>,
    k: Option<u64>,
    filter: Option<Json>,
    include: Option<Json>,
    accuracy: Option<Accuracy>,
    rerank: Option<Json>,
    group_by: Option<Json>,
    highlight: Option<Json>,
}

impl RawQuery {
    pub fn take(members: &mut Members, limits: &Limits) -> Result<Self, Problem> {
        Ok(Self {
            legs: RawLegs::take(members),
            fuse: members.take("fuse"),
            k: members.number("k", 1..=limits.k as u64, Code::KOutOfRange)?,
            filter: members.take("filter"),
            include: members.take("include"),
            rerank: members.take("rerank"),
            group_by: members.take("group_by"),
            highlight: members.take("highlight"),
            accuracy: accuracy(members)?,
        })
    }

    /// `now_ms` is what `"now"` means in it.
    pub fn bind(self, schema: &Schema, limits: &Limits, now_ms: i64) -> Result<Query, Problem> {
        let k = self.k.map_or(DEFAULT_K.min(limits.k), |k| k as usize);
        let legs = self.legs.bind(schema, limits)?;
        let fuse = match self.fuse {
            Some(json) => Fuse::parse(json, legs.len()).map_err(|problem| problem.within("fuse"))?,
            None => Fuse::default(),
        };
        let filter = self.filter.map(|json| parse_filter(&json, schema, limits));
        let filter = filter.transpose()?;
        let include = self
            .include
            .map_or(Ok(Include::Nothing), |json| Include::parse_json(&json, schema))?;
        let group_by = self.group_by.map(|json| {
            GroupBy::parse(json, k, schema, limits).map_err(|problem| problem.within("group_by"))
        });
        let group_by = group_by.transpose()?;
        let wanted = k * group_by.as_ref().map_or(1, |group_by| group_by.size);
        let rerank = self.rerank.map(|json| {
            let parsed = Rerank::parse(json, wanted, schema, limits, now_ms);
            parsed.map_err(|problem| problem.within("rerank"))
        });
        let rerank = rerank.transpose()?;
        let highlight = self
            .highlight
            .map(|json| Highlight::parse(json, &legs, schema).map_err(|problem| problem.within("highlight")));
        Ok(Query {
            k,
            fuse,
            filter,
            include,
            accuracy: self.accuracy.unwrap_or(Accuracy::Recall(DEFAULT_RECALL)),
            rerank,
            group_by,
            highlight: highlight.transpose()?.flatten(),
            legs,
        })
    }
}

impl Fuse {
    /// `{"method": "rrf", "k": 60, "weights": [1, 1]}`
    fn parse(json: Json, legs: usize) -> Result<Self, Problem> {
        let mut members = Members::of("fuse", json)?;
        let method = members.word("method", &[("rrf", Method::USUAL), ("score", Method::Score)])?;
        let k = members.number("k", 0..=10_000, Code::InvalidValue)?;
        let weights = members.list("weights")?;
        members.finish()?;
        if legs == 1 {
            let detail = "there is one leg: nothing to fuse";
            return Err(Problem::new(Code::InvalidValue, detail).hint("add a leg, or leave fuse out"));
        }
        let method = match (method.unwrap_or(Method::USUAL), k) {
            (Method::Rrf { .. }, Some(k)) => Method::Rrf { k: k as u32 },
            (Method::Score, Some(_)) => {
                let detail = "k belongs to the method 'rrf'";
                return Err(Problem::new(Code::InvalidValue, detail).field("k"));
            }
            (method, None) => method,
        };
        let weights = weights.map(|weights| parse_weights(&weights, legs));
        Ok(Self {
            method,
            weights: weights.transpose()?.unwrap_or_default(),
        })
    }
}

fn parse_weights(weights: &[Json], legs: usize) -> Result<Vec<f32>, Problem> {
    if weights.len() != legs {
        let detail = format!("there are {} weights for {legs} legs", weights.len());
        return Err(Problem::new(Code::InvalidValue, detail)
            .field("weights")
            .hint("one for each leg, in the order of legs; in short form vector, text, sparse"));
    }
    let mut parsed = Vec::with_capacity(legs);
    for (at, weight) in weights.iter().enumerate() {
        let place = || format!("weights[{at}]");
        let weight = weight.as_f64().ok_or_else(|| {
            let detail = format!("a weight is a number, not {}", weight.kind());
            Problem::new(Code::Malformed, detail).field(place())
        })?;
        let weight = weight as f32;
        if !weight.is_finite() || weight < 0.0 {
            return Err(Problem::new(Code::InvalidValue, "a weight is 0 or above").field(place()));
        }
        parsed.push(weight);
    }
    match parsed.iter().any(|weight| *weight > 0.0) {
        true => Ok(parsed),
        false => Err(Problem::new(Code::InvalidValue, "one weight at least is above 0").field("weights")),
    }
}

pub fn parse_filter(json: &Json, schema: &Schema, limits: &Limits) -> Result<Filter, Problem> {
    Filter::parse_json(json, schema, limits).map_err(|problem| problem.within("filter"))
}

/// `recall`, `effort` or `exact`; `exact: false` says nothing.
fn accuracy(members: &mut Members) -> Result<Option<Accuracy>, Problem> {
    let exact = members
        .bool("exact")?
        .unwrap_or_default()
        .then_some(Accuracy::Exact);
    let approximate = approximate(members)?;
    match (exact, approximate) {
        (Some(_), Some(_)) => {
            Err(Problem::new(Code::InvalidValue, "exact goes with neither recall nor effort").field("exact"))
        }
        (exact, approximate) => Ok(exact.or(approximate)),
    }
}

/// `recall` or `effort`.
pub fn approximate(members: &mut Members) -> Result<Option<Accuracy>, Problem> {
    let recall = recall(members)?;
    let effort = members.number("effort", 1..=1_000, Code::InvalidValue)?;
    match (recall, effort) {
        (Some(_), Some(_)) => Err(
            Problem::new(Code::InvalidValue, "recall and effort do not go together")
                .field("effort")
                .hint("recall says what to find, effort how hard to try"),
        ),
        (Some(recall), None) => Ok(Some(Accuracy::Recall(recall))),
        (None, Some(effort)) => Ok(Some(Accuracy::Effort(effort as u32))),
        (None, None) => Ok(None),
    }
}

fn recall(members: &mut Members) -> Result<Option<f32>, Problem> {
    let Some(json) = members.take("recall") else {
        return Ok(None);
    };
    let recall = json.as_f64().ok_or_else(|| {
        Problem::new(
            Code::Malformed,
            format!("recall is a number, not {}", json.kind()),
        )
        .field("recall")
    })?;
    if recall > 0.0 && recall <= 1.0 {
        return Ok(Some(recall as f32));
    }
    Err(Problem::new(Code::InvalidValue, "recall is above 0 and at most 1").field("recall"))
}

#[cfg(test)]
mod tests;
