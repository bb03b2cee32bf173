//! Re-ranking the best hits by what their documents hold.
//!
//! Each function gives one number for a hit: a **decay** goes from 1 at an origin to 0.5 one
//! scale away and on to 0, a **value** is that of a field, a **filter** is 1 where it holds.
//! The number times the function's weight is a factor of the score, or added to it.  A
//! function says nothing about a hit without its field, or that its filter does not hold
//! for: the factor is 1, the summand 0.
//!
//! With `multiply` a factor above 1 lifts a hit and one below 1 lowers it whatever the sign
//! of the score: negative scores (l2) are divided by it.  All factors together stay within
//! 0.000001 and 1,000,000.

use std::collections::BTreeSet;

use crate::filter::Filter;
use crate::ids::FieldName;
use crate::json::Json;
use crate::limits::Limits;
use crate::members::Members;
use crate::problem::{Code, Problem};
use crate::schema::{FieldType, Scalar, Schema};
use crate::time;
use crate::value::Value;

use super::parse_filter;

const LEAST: f64 = 1e-6;
const MOST: f64 = 1e6;
const FUNCTIONS: &str = "a function is an object with one of decay, value and filter, and a weight";

#[derive(Clone, Debug)]
pub struct Rerank {
    /// At least one.
    pub boosts: Vec<Boost>,
    pub way: Way,
    /// Hits that are looked at; as many as the query fetches by itself when not said.
    pub depth: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Multiply,
    Add,
}

#[derive(Clone, Debug)]
pub struct Boost {
    pub signal: Signal,
    /// Above 0 when multiplied.
    pub weight: f32,
}

#[derive(Clone, Debug)]
pub enum Signal {
    Decay(Decay),
    Value { field: FieldName, modifier: Modifier },
    Filter(Filter),
}

/// 1 within `offset` of `origin`, 0.5 one `scale` further away.  Times are milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Decay {
    pub field: FieldName,
    pub curve: Curve,
    pub origin: f64,
    pub offset: f64,
    pub scale: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    Gauss,
    Exp,
    Linear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    None,
    /// ln(1 + x), of 0 when x is negative.
    Log1p,
    /// Of 0 when x is negative.
    Sqrt,
}

impl Rerank {
    /// Fields whose values `score` asks for.
    pub fn fields(&self) -> BTreeSet<&FieldName> {
        let fields = self.boosts.iter().filter_map(|boost| match &boost.signal {
            Signal::Decay(decay) => Some(&decay.field),
            Signal::Value { field, .. } => Some(field),
            Signal::Filter(_) => None,
        });
        fields.collect()
    }

    /// Filters that `score` asks about, by their places in this list.
    pub fn filters(&self) -> Vec<&Filter> {
        let filters = self.boosts.iter().filter_map(|boost| match &boost.signal {
            Signal::Filter(filter) => Some(filter),
            Signal::Decay(_) | Signal::Value { .. } => None,
        });
        filters.collect()
    }

    /// The new score of a hit; finite.
    pub fn score(
        &self,
        score: f32,
        value: impl Fn(&FieldName) -> Option<Value>,
        passes: impl Fn(usize) -> bool,
    ) -> f32 {
        let mut filters = 0..;
        let signals = self.boosts.iter().filter_map(|boost| {
            let number = match &boost.signal {
                Signal::Decay(decay) => value(&decay.field).and_then(|v| decay.at(&v)),
                Signal::Value { field, modifier } => value(field).and_then(|v| modifier.of(&v)),
                Signal::Filter(_) => filters.next().filter(|at| passes(*at)).map(|_| 1.0),
            };
            Some(f64::from(boost.weight) * number?)
        });
        let score = f64::from(score);
        let changed = match self.way {
            Way::Add => score + signals.sum::<f64>(),
            Way::Multiply => {
                let factor = signals.fold(1.0, |all: f64, one| (all * one.max(0.0)).clamp(LEAST, MOST));
                if score < 0.0 {
                    score / factor
                } else {
                    score * factor
                }
            }
        };
        changed.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
    }
}

impl Decay {
    fn at(&self, value: &Value) -> Option<f64> {
        let distance = ((number(value)? - self.origin).abs() - self.offset).max(0.0) / self.scale;
        Some(match self.curve {
            Curve::Gauss => (-distance * distance).exp2(),
            Curve::Exp => (-distance).exp2(),
            Curve::Linear => (1.0 - distance / 2.0).max(0.0),
        })
    }
}

impl Modifier {
    fn of(self, value: &Value) -> Option<f64> {
        let x = number(value)?;
        Some(match self {
            Self::None => x,
            Self::Log1p => x.max(0.0).ln_1p(),
            Self::Sqrt => x.max(0.0).sqrt(),
        })
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(n) | Value::Time(n) => Some(*n as f64),
        Value::Float(x) => Some(*x),
        _ => None,
    }
}

impl Rerank {
    /// `wanted` hits are in a full answer.
    pub(super) fn parse(
        json: Json,
        wanted: usize,
        schema: &Schema,
        limits: &Limits,
        now_ms: i64,
    ) -> Result<Self, Problem> {
        let mut members = Members::of("rerank", json)?;
        let functions = members.list("functions")?;
        let way = members.word("combine", &[("multiply", Way::Multiply), ("add", Way::Add)])?;
        let depth = members.number("depth", 1..=limits.candidates as u64, Code::InvalidValue)?;
        members.finish()?;
        let functions = functions.unwrap_or_default();
        if functions.is_empty() {
            let detail = "rerank has no functions";
            return Err(Problem::new(Code::Malformed, detail)
                .field("functions")
                .hint(FUNCTIONS));
        }
        if functions.len() > limits.rerank_functions {
            let detail = format!(
                "a re-rank has at most {} functions, not {}",
                limits.rerank_functions,
                functions.len()
            );
            return Err(Problem::new(Code::LimitExceeded, detail).field("functions"));
        }
        let way = way.unwrap_or(Way::Multiply);
        if depth.is_some_and(|depth| depth < wanted as u64) {
            let detail = format!("fewer are re-ranked than the {wanted} that are asked for");
            return Err(Problem::new(Code::InvalidValue, detail).field("depth"));
        }
        let boosts = functions.into_iter().enumerate().map(|(at, json)| {
            let boost = Boost::parse(json, way, schema, limits, now_ms);
            boost.map_err(|problem| problem.within(&format!("functions[{at}]")))
        });
        Ok(Self {
            boosts: boosts.collect::<Result<_, _>>()?,
            way,
            depth: depth.map(|depth| depth as usize),
        })
    }
}

impl Boost {
    fn parse(json: Json, way: Way, schema: &Schema, limits: &Limits, now_ms: i64) -> Result<Self, Problem> {
        let mut members = Members::of("a function", json)?;
        let decay = members.take("decay");
        let value = members.take("value");
        let filter = members.take("filter");
        let weight = members.float("weight")?.unwrap_or(1.0);
        members.finish()?;
        let signal = match (decay, value, filter) {
            (Some(decay), None, None) => Decay::parse(decay, schema, now_ms)
                .map(Signal::Decay)
                .map_err(|problem| problem.within("decay"))?,
            (None, Some(value), None) => {
                value_of(value, schema).map_err(|problem| problem.within("value"))?
            }
            (None, None, Some(filter)) => Signal::Filter(parse_filter(&filter, schema, limits)?),
            (None, None, None) => {
                return Err(Problem::new(Code::Malformed, "the function is empty").hint(FUNCTIONS));
            }
            _ => {
                let detail = "a function is one of decay, value and filter";
                return Err(Problem::new(Code::InvalidValue, detail));
            }
        };
        if way == Way::Multiply && weight <= 0.0 {
            let detail = "a weight is above 0 when scores are multiplied";
            return Err(Problem::new(Code::InvalidValue, detail)
                .field("weight")
                .hint("to lower a score use a weight below 1, or \"combine\": \"add\""));
        }
        Ok(Self {
            signal,
            weight: weight as f32,
        })
    }
}

/// `"stars"`, or `{"field": "stars", "modifier": "log1p"}`.
fn value_of(json: Json, schema: &Schema) -> Result<Signal, Problem> {
    if let Json::Str(name) = json {
        let field = numeric(&name, schema).map_err(|problem| Problem {
            field: None,
            ..problem
        })?;
        return Ok(Signal::Value {
            field,
            modifier: Modifier::None,
        });
    }
    let mut members = Members::of("value", json)?;
    let name = members.str("field")?;
    let modifier = members.word(
        "modifier",
        &[
            ("none", Modifier::None),
            ("log1p", Modifier::Log1p),
            ("sqrt", Modifier::Sqrt),
        ],
    )?;
    members.finish()?;
    let name = name.ok_or_else(|| Problem::new(Code::Malformed, "value names a field").field("field"))?;
    let field = numeric(&name, schema).map_err(|problem| problem.field("field"))?;
    Ok(Signal::Value {
        field,
        modifier: modifier.unwrap_or(Modifier::None),
    })
}

fn numeric(name: &str, schema: &Schema) -> Result<FieldName, Problem> {
    match schema.find(name)? {
        (field, FieldType::Scalar(Scalar::Int | Scalar::Float)) => Ok(field.clone()),
        (field, other) => {
            let detail = format!("'{field}' is {}, not a number", other.name());
            Err(Problem::new(Code::TypeMismatch, detail))
        }
    }
}

impl Decay {
    fn parse(json: Json, schema: &Schema, now_ms: i64) -> Result<Self, Problem> {
        let mut members = Members::of("decay", json)?;
        let name = members.str("field")?;
        let curve = members.word(
            "curve",
            &[
                ("gauss", Curve::Gauss),
                ("exp", Curve::Exp),
                ("linear", Curve::Linear),
            ],
        )?;
        let origin = members.take("origin");
        let offset = members.take("offset");
        let scale = members.take("scale");
        members.finish()?;
        let name = name.ok_or_else(|| Problem::new(Code::Malformed, "decay names a field").field("field"))?;
        let (field, ty) = schema.find(&name).map_err(|problem| problem.field("field"))?;
        let FieldType::Scalar(scalar @ (Scalar::Int | Scalar::Float | Scalar::Timestamp)) = ty else {
            let detail = format!("'{field}' is {}: nothing is near to or far from it", ty.name());
            return Err(Problem::new(Code::TypeMismatch, detail)
                .field("field")
                .hint("a decay is over a field of type int, float or timestamp"));
        };
        let is_time = *scalar == Scalar::Timestamp;
        let missing = |what: &str| Problem::new(Code::Malformed, format!("decay has no {what}")).field(what);
        let origin = match (origin, is_time) {
            (None, true) => now_ms as f64,
            (None, false) => return Err(missing("origin")),
            (Some(json), true) => moment(&json, now_ms)?,
            (Some(json), false) => plain("origin", &json)?,
        };
        let length = |name: &'static str, json: &Json| match is_time {
            true => duration(name, json),
            false => plain(name, json),
        };
        let offset = offset
            .map(|json| length("offset", &json))
            .transpose()?
            .unwrap_or(0.0);
        let scale = length("scale", &scale.ok_or_else(|| missing("scale"))?)?;
        for (name, value, fits) in [("offset", offset, offset >= 0.0), ("scale", scale, scale > 0.0)] {
            if !fits {
                let detail = format!("{value} is no {name}: it is positive");
                return Err(Problem::new(Code::InvalidValue, detail).field(name));
            }
        }
        Ok(Self {
            field: field.clone(),
            curve: curve.unwrap_or(Curve::Gauss),
            origin,
            offset,
            scale,
        })
    }
}

fn plain(name: &str, json: &Json) -> Result<f64, Problem> {
    json.as_f64().ok_or_else(|| {
        let detail = format!("{name} is a number as the field's are, not {}", json.kind());
        Problem::new(Code::TypeMismatch, detail).field(name)
    })
}

fn moment(json: &Json, now_ms: i64) -> Result<f64, Problem> {
    match json.as_str() {
        Some("now") => Ok(now_ms as f64),
        Some(text) => Ok(time::parse(text).map_err(|problem| problem.field("origin"))? as f64),
        None => {
            let detail = format!("origin is \"now\" or a timestamp, not {}", json.kind());
            Err(Problem::new(Code::TypeMismatch, detail).field("origin"))
        }
    }
}

fn duration(name: &str, json: &Json) -> Result<f64, Problem> {
    match json.as_str().and_then(time::parse_span) {
        Some(ms) => Ok(ms),
        None => {
            let detail = format!("{name} of a timestamp is a length of time");
            Err(Problem::new(Code::TypeMismatch, detail)
                .field(name)
                .hint("like \"7d\", \"12h\", \"30m\", \"45s\" or \"500ms\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str) -> FieldName {
        FieldName::parse(name).expect("a name")
    }

    fn decay(curve: Curve) -> Decay {
        Decay {
            field: field("age"),
            curve,
            origin: 100.0,
            offset: 10.0,
            scale: 40.0,
        }
    }

    fn one(signal: Signal, weight: f32, way: Way) -> Rerank {
        Rerank {
            boosts: vec![Boost { signal, weight }],
            way,
            depth: None,
        }
    }

    #[test]
    fn every_curve_is_one_at_the_origin_and_a_half_one_scale_further() {
        for curve in [Curve::Gauss, Curve::Exp, Curve::Linear] {
            let at = |age: i64| decay(curve).at(&Value::Int(age)).expect("a number");
            assert_eq!((at(100), at(110), at(90)), (1.0, 1.0, 1.0));
            assert!((at(150) - 0.5).abs() < 1e-12 && (at(50) - 0.5).abs() < 1e-12);
            assert!(at(170) < 0.5 && at(10_000) < 1e-6);
        }
        assert_eq!(decay(Curve::Linear).at(&Value::Int(190)), Some(0.0));
    }

    #[test]
    fn a_function_says_nothing_about_a_hit_without_its_field() {
        let stars = Signal::Value {
            field: field("stars"),
            modifier: Modifier::None,
        };
        for (way, with) in [(Way::Multiply, 12.0), (Way::Add, 8.0)] {
            let rerank = one(stars.clone(), 2.0, way);
            assert_eq!(rerank.score(2.0, |_| None, |_| false), 2.0);
            assert_eq!(rerank.score(2.0, |_| Some(Value::Int(3)), |_| false), with);
        }
    }

    #[test]
    fn filters_are_asked_for_by_their_places() {
        let filter = |weight| Boost {
            signal: Signal::Filter(Filter::everything()),
            weight,
        };
        let mut rerank = one(Signal::Decay(decay(Curve::Exp)), 1.0, Way::Multiply);
        rerank.boosts.splice(0..0, [filter(2.0)]);
        rerank.boosts.push(filter(5.0));
        assert_eq!(rerank.filters().len(), 2);
        assert_eq!(rerank.score(1.0, |_| None, |at| at == 1), 5.0);
        assert_eq!(rerank.score(1.0, |_| None, |at| at == 0), 2.0);
    }

    proptest! {
        #[test]
        fn a_larger_signal_never_makes_a_hit_worse(
            score in -1e30_f32..1e30,
            (less, more) in (0.0_f64..1e9, 0.0_f64..1e9).prop_map(|(a, b)| (a.min(b), a.max(b))),
            weight in 0.001_f32..1e6,
            add in any::<bool>(),
        ) {
            let way = if add { Way::Add } else { Way::Multiply };
            let stars = Signal::Value { field: field("stars"), modifier: Modifier::Log1p };
            let rerank = one(stars, weight, way);
            let with = |x: f64| rerank.score(score, |_| Some(Value::Float(x)), |_| false);
            prop_assert!(with(less) <= with(more));
            prop_assert!(with(less).is_finite() && with(more).is_finite());
        }

        #[test]
        fn no_score_becomes_infinite(score in any::<f32>(), x in any::<f64>(), weight in any::<f32>(), add in any::<bool>()) {
            prop_assume!(score.is_finite() && x.is_finite() && weight.is_finite());
            let way = if add { Way::Add } else { Way::Multiply };
            let stars = Signal::Value { field: field("stars"), modifier: Modifier::None };
            let changed = one(stars, weight, way).score(score, |_| Some(Value::Float(x)), |_| true);
            prop_assert!(changed.is_finite());
        }
    }
}
