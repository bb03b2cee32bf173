//! `POST …/query`: one query, or a batch that sees one snapshot.

use std::time::Duration;

use axum::http::StatusCode;
use futures::{FutureExt, StreamExt, stream};
use rhumb_core::query::{Accuracy, Consistency, Hit, Include, Query, Touched, VectorLeg};
use rhumb_core::render::Rendered;
use rhumb_core::typing::query_vector;
use rhumb_core::{Code, FieldName, Filter, Json, Limits, Problem, Schema, VectorType};
use rhumb_engine::{EngineError, Reading};
use tokio::time::Instant;

use super::answer::{self, Answer, write_json};
use super::call::{Call, in_time};
use super::documents::within_answer;
use super::members::Members;
use super::problem::Refused;

pub const DEFAULT_RECALL: f32 = 0.95;
pub const DEFAULT_K: usize = 10;
/// Queries of one batch that are worked on at once.
const AT_ONCE: usize = 4;

/// A query and how it is to be answered.
#[derive(Debug)]
pub struct Asked {
    query: Query,
    consistency: Option<Consistency>,
    timeout: Option<Duration>,
    explain: bool,
    /// Only what is its own is counted for somebody who may not know of every row.
    is_scoped: bool,
}

enum Request {
    One(Box<Asked>),
    Batch {
        queries: Vec<Asked>,
        consistency: Option<Consistency>,
        timeout: Option<Duration>,
    },
}

pub async fn query(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let body = call.json_body().await?;
    let begin = Instant::now();
    let schema = collection.schema();
    let mut request = Request::parse(body, &schema, &call.app.limits)?;
    if let Some(scope) = call.scope(&schema) {
        request.narrow(&scope);
    }
    call.timing.parse += begin.elapsed();
    let _place = call.app.gate.enter().await?;
    let patience = call.patience();
    let mut out = Vec::with_capacity(512);
    match request {
        Request::One(asked) => {
            let reading = in_time_read(
                call,
                &collection,
                asked.consistency,
                asked.timeout.unwrap_or(patience),
            )
            .await?;
            let answered = answered(&reading, &asked, patience).await?;
            let touched = &answered.touched;
            (call.timing.plan, call.timing.search, call.timing.fetch) =
                (Some(touched.plan), Some(touched.search), Some(touched.fetch));
            answered.write(&mut out, &asked, &schema);
        }
        Request::Batch {
            queries,
            consistency,
            timeout,
        } => {
            let patience = timeout.unwrap_or(patience);
            let strictest = queries
                .iter()
                .filter_map(|asked| asked.consistency)
                .chain(consistency)
                .max_by_key(rank);
            let reading = in_time_read(call, &collection, strictest, patience).await?;
            let begin = Instant::now();
            out = in_time(patience, async {
                Ok(batch(&reading, &queries, patience, &schema).await)
            })
            .await??;
            call.timing.search = Some(begin.elapsed());
        }
    }
    within_answer(out.len())?;
    Ok(answer::bytes_of(StatusCode::OK, "application/json", out))
}

/// Opening a cold partition is part of the time a query may take.
async fn in_time_read(
    call: &mut Call,
    collection: &rhumb_engine::Collection,
    consistency: Option<Consistency>,
    patience: Duration,
) -> Refused<Reading> {
    match tokio::time::timeout(patience, call.read(collection, consistency)).await {
        Ok(reading) => reading,
        Err(_) => Err(EngineError::Timeout.into()),
    }
}

/// What is asked of one snapshot for all: the strictest.
fn rank(consistency: &Consistency) -> u8 {
    match consistency {
        Consistency::Eventual => 0,
        Consistency::Session => 1,
        Consistency::Strong => 2,
        Consistency::Verified => 3,
    }
}

async fn batch(
    reading: &Reading,
    queries: &[Asked],
    patience: Duration,
    schema: &Schema,
) -> Refused<Vec<u8>> {
    // Boxed one by one: the compiler cannot see that a stream of borrowing closures is Send.
    let each: Vec<_> = queries
        .iter()
        .map(|asked| answered(reading, asked, patience).boxed())
        .collect();
    let mut answers = stream::iter(each).buffered(AT_ONCE).zip(stream::iter(queries));
    let mut out = b"{\"results\":[".to_vec();
    while let Some((answered, asked)) = answers.next().await {
        let answered = answered?;
        if out.last() != Some(&b'[') {
            out.push(b',');
        }
        answered.write(&mut out, asked, schema);
        within_answer(out.len())?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

struct Answered {
    hits: Vec<Hit>,
    touched: Touched,
    took: Duration,
}

async fn answered(reading: &Reading, asked: &Asked, patience: Duration) -> Refused<Answered> {
    let begin = Instant::now();
    let (hits, touched) = reading
        .query(&asked.query, Some(asked.timeout.unwrap_or(patience)))
        .await?;
    Ok(Answered {
        hits,
        touched,
        took: begin.elapsed(),
    })
}

impl Answered {
    /// `{"hits": […], "took_ms": …}`
    fn write(&self, out: &mut Vec<u8>, asked: &Asked, schema: &Schema) {
        out.extend_from_slice(b"{\"hits\":[");
        for (at, hit) in self.hits.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"id\":");
            write_json(out, &hit.id);
            out.extend_from_slice(b",\"score\":");
            write_json(out, &hit.score);
            if let Some(document) = &hit.document {
                out.extend_from_slice(b",\"document\":");
                write_json(out, &Rendered::new(document, &asked.query.include, schema));
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"took_ms\":");
        write_json(out, &ms(self.took));
        if asked.explain {
            out.extend_from_slice(b",\"explain\":");
            write_json(out, &explain(&self.touched, asked.is_scoped));
        }
        out.push(b'}');
    }
}

fn explain(touched: &Touched, is_scoped: bool) -> rhumb_api::Explain {
    let of_all = |count| if is_scoped { 0 } else { count };
    rhumb_api::Explain {
        rows_scanned: of_all(touched.rows_scanned),
        rows_rescored: of_all(touched.rows_rescored),
        segments: of_all(touched.segments),
        fresh_rows: of_all(touched.fresh_rows),
        filter_survivors: touched.filter_survivors,
        plan_ms: ms(touched.plan),
        search_ms: ms(touched.search),
        fetch_ms: ms(touched.fetch),
    }
}

/// To the microsecond.
pub fn ms(took: Duration) -> f64 {
    took.as_micros() as f64 / 1e3
}

impl Request {
    fn narrow(&mut self, scope: &Filter) {
        match self {
            Self::One(asked) => asked.narrow(scope),
            Self::Batch { queries, .. } => queries.iter_mut().for_each(|asked| asked.narrow(scope)),
        }
    }

    fn parse(body: Json, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        if body.get("queries").is_none() {
            return Ok(Self::One(Box::new(Asked::parse(body, schema, limits)?)));
        }
        let mut members = Members::of("the body", body)?;
        let list = members.list("queries")?.unwrap_or_default();
        let consistency = members.consistency()?;
        let timeout = members.timeout_ms(limits)?.map(Duration::from_millis);
        members
            .finish()
            .map_err(|problem| problem.hint("what a query asks stands inside queries"))?;
        if list.len() > limits.queries {
            let detail = format!(
                "a batch has at most {} queries, not {}",
                limits.queries,
                list.len()
            );
            return Err(Problem::new(Code::LimitExceeded, detail).field("queries"));
        }
        let each = list.into_iter().enumerate().map(|(at, json)| {
            Asked::parse(json, schema, limits).map_err(|problem| problem.within(&format!("queries[{at}]")))
        });
        Ok(Self::Batch {
            queries: each.collect::<Result<_, _>>()?,
            consistency,
            timeout,
        })
    }
}

impl Asked {
    fn narrow(&mut self, scope: &Filter) {
        self.query.filter = Filter::both(Some(scope.clone()), self.query.filter.take());
        self.is_scoped = true;
    }

    fn parse(body: Json, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        let mut members = Members::of("a query", body)?;
        let vector = members.take("vector");
        let k = members.number("k", 1..=limits.k as u64, Code::KOutOfRange)?;
        let filter = members.take("filter");
        let include = members.take("include");
        let accuracy = accuracy(&mut members)?;
        let consistency = members.consistency()?;
        let timeout = members.timeout_ms(limits)?.map(Duration::from_millis);
        let explain = members.bool("explain")?.unwrap_or_default();
        members.finish()?;
        let vector = vector.ok_or_else(|| {
            Problem::new(Code::Malformed, "a query needs a vector")
                .field("vector")
                .hint("{\"vector\": [0.1, …], \"k\": 10}; GET …/documents lists documents without one")
        })?;
        let query = Query {
            vector: Some(leg(vector, schema).map_err(|problem| problem.within("vector"))?),
            k: k.map_or(DEFAULT_K.min(limits.k), |k| k as usize),
            filter: filter
                .map(|json| parse_filter(&json, schema, limits))
                .transpose()?,
            include: include.map_or(Ok(Include::Nothing), |json| Include::parse_json(&json, schema))?,
            accuracy: accuracy.unwrap_or(Accuracy::Recall(DEFAULT_RECALL)),
        };
        Ok(Self {
            query,
            consistency,
            timeout,
            explain,
            is_scoped: false,
        })
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

/// `{"field": …, "value": …}`, or the value alone.
fn leg(json: Json, schema: &Schema) -> Result<VectorLeg, Problem> {
    if json.as_object().is_none() {
        let (field, ty) = vector_field(None, schema)?;
        return Ok(VectorLeg {
            field: field.clone(),
            value: query_vector(ty, json)?,
        });
    }
    let mut members = Members::of("vector", json)?;
    let field = members.str("field")?;
    let value = members.take("value");
    members.finish()?;
    let (field, ty) = vector_field(field.as_deref(), schema)?;
    let value = value.ok_or_else(|| Problem::new(Code::Malformed, "vector has no value").field("value"))?;
    let value = query_vector(ty, value).map_err(|problem| problem.within("value"))?;
    Ok(VectorLeg {
        field: field.clone(),
        value,
    })
}

/// The named field, or the only one.  `field` of a problem is `field`.
pub fn vector_field<'a>(
    name: Option<&str>,
    schema: &'a Schema,
) -> Result<(&'a FieldName, &'a VectorType), Problem> {
    let names = || {
        schema
            .vectors()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some(name) = name else {
        let mut vectors = schema.vectors();
        return match (vectors.next(), vectors.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(Problem::new(Code::InvalidValue, "this collection has no vector field")
                .hint("declare one: PATCH the collection with {\"fields\": {\"embedding\": {\"type\": \"vector\", \"dim\": …}}}")),
            (Some(_), Some(_)) => Err(Problem::new(Code::InvalidValue, "this collection has several vector fields")
                .field("field")
                .hint(format!("name one of {}: {{\"field\": …, \"value\": […]}}", names()))),
        };
    };
    if let Some(found) = schema.vectors().find(|(field, _)| field.as_str() == name) {
        return Ok(found);
    }
    match schema.get(name) {
        Some(other) => {
            let detail = format!("'{name}' is {}, not a vector", other.name());
            Err(Problem::new(Code::TypeMismatch, detail).field("field"))
        }
        None => {
            Err(Problem::unknown_field(name, schema.vectors().map(|(name, _)| name.as_str())).field("field"))
        }
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Vector, fields};

    use super::super::members::tests::known_to;
    use super::*;

    fn json_of(text: &str) -> Json {
        Json::parse(text.as_bytes(), &Limits::default()).expect("json")
    }

    fn schema(fields: &str) -> Schema {
        let limits = Limits::default();
        let declared = fields::parse(&json_of(fields), &limits).expect("valid fields");
        Schema::default()
            .declare(&declared, &limits)
            .expect("valid fields")
    }

    fn one_vector() -> Schema {
        schema(r#"{"embedding": {"type": "vector", "dim": 2}, "pos": "string"}"#)
    }

    fn asked(text: &str) -> Result<Asked, Problem> {
        Asked::parse(json_of(text), &one_vector(), &Limits::default())
    }

    #[test]
    fn the_parsers_know_what_the_openapi_says() {
        let (schema, limits) = (one_vector(), Limits::default());
        assert_eq!(
            known_to(|json| Asked::parse(json, &schema, &limits)),
            rhumb_api::properties::<rhumb_api::Query>()
        );
        let batch = known_to(|json| {
            let Json::Object(mut entries) = json else {
                unreachable!("known_to sends objects")
            };
            entries.push(("queries".into(), Json::list(Vec::new())));
            Request::parse(Json::Object(entries), &schema, &limits)
                .map(drop)
                .map_err(|problem| {
                    // The hint of a batch tells of queries; the names are those of the members.
                    Problem {
                        hint: Some("known fields: consistency, queries, timeout_ms".into()),
                        ..problem
                    }
                })
        });
        assert_eq!(batch, rhumb_api::properties::<rhumb_api::BatchQuery>());
    }

    #[test]
    fn a_query_has_defaults_for_all_but_its_vector() {
        let asked = asked(r#"{"vector": [1, 0.5]}"#).expect("valid");
        assert_eq!((asked.query.k, asked.query.include), (10, Include::Nothing));
        assert_eq!(asked.query.accuracy, Accuracy::Recall(0.95));
        let leg = asked.query.vector.expect("a leg");
        assert_eq!(
            (leg.field.as_str(), leg.value),
            ("embedding", Vector::F32([1.0, 0.5].into()))
        );
    }

    #[test]
    fn the_field_may_be_left_out_when_there_is_one() {
        for text in [
            r#"{"vector": {"value": [1, 0]}}"#,
            r#"{"vector": {"field": "embedding", "value": [1, 0]}}"#,
            r#"{"vector": "b64:AACAPwAAAAA="}"#,
        ] {
            let leg = asked(text).expect(text).query.vector.expect("a leg");
            assert_eq!(leg.value, Vector::F32([1.0, 0.0].into()), "{text}");
        }
        let two = schema(r#"{"a": {"type": "vector", "dim": 2}, "b": {"type": "vector", "dim": 2}}"#);
        let problem =
            Asked::parse(json_of(r#"{"vector": [1, 0]}"#), &two, &Limits::default()).expect_err("which?");
        assert_eq!(problem.code, Code::InvalidValue);
        assert!(problem.hint.expect("a hint").contains("a, b"));
    }

    #[test]
    fn a_bad_query_is_named_by_its_place() {
        for (text, code, field) in [
            ("{}", Code::Malformed, "vector"),
            (r#"{"vector": [1]}"#, Code::DimensionMismatch, "vector"),
            (
                r#"{"vector": {"value": [1, 2, 3]}}"#,
                Code::DimensionMismatch,
                "vector.value",
            ),
            (
                r#"{"vector": {"field": "pos", "value": [1, 2]}}"#,
                Code::TypeMismatch,
                "vector.field",
            ),
            (
                r#"{"vector": {"field": "nope", "value": [1, 2]}}"#,
                Code::UnknownField,
                "vector.field",
            ),
            (
                r#"{"vector": {"field": "embedding"}}"#,
                Code::Malformed,
                "vector.value",
            ),
            (r#"{"vector": [1, 0], "k": 0}"#, Code::KOutOfRange, "k"),
            (r#"{"vector": [1, 0], "k": 10001}"#, Code::KOutOfRange, "k"),
            (
                r#"{"vector": [1, 0], "recall": 1.5}"#,
                Code::InvalidValue,
                "recall",
            ),
            (r#"{"vector": [1, 0], "recall": 0}"#, Code::InvalidValue, "recall"),
            (r#"{"vector": [1, 0], "effort": 0}"#, Code::InvalidValue, "effort"),
            (
                r#"{"vector": [1, 0], "effort": 3, "recall": 0.9}"#,
                Code::InvalidValue,
                "effort",
            ),
            (
                r#"{"vector": [1, 0], "exact": true, "recall": 0.9}"#,
                Code::InvalidValue,
                "exact",
            ),
            (
                r#"{"vector": [1, 0], "timeout_ms": 0}"#,
                Code::InvalidValue,
                "timeout_ms",
            ),
            (
                r#"{"vector": [1, 0], "filter": {"lex": 1}}"#,
                Code::UnknownField,
                "filter.lex",
            ),
            (
                r#"{"vector": [1, 0], "include": ["lex"]}"#,
                Code::UnknownField,
                "include.lex",
            ),
            (
                r#"{"vector": [1, 0], "text": "boat"}"#,
                Code::UnknownField,
                "text",
            ),
            (r#"{"vector": [1, 0], "fuse": {}}"#, Code::UnknownField, "fuse"),
        ] {
            let problem = asked(text).expect_err(text);
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (code, Some(field)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_batch_has_a_limit_and_names_the_query_that_is_wrong() {
        let limits = Limits {
            queries: 2,
            ..Limits::default()
        };
        let batch = |text: &str| Request::parse(json_of(text), &one_vector(), &limits).map(drop);
        let one = r#"{"vector": [1, 0]}"#;
        assert!(batch(&format!(r#"{{"queries": [{one}, {one}], "timeout_ms": 5}}"#)).is_ok());
        assert!(batch(r#"{"queries": []}"#).is_ok());
        let over = batch(&format!(r#"{{"queries": [{one}, {one}, {one}]}}"#)).expect_err("three");
        assert_eq!(over.code, Code::LimitExceeded);
        let wrong =
            batch(&format!(r#"{{"queries": [{one}, {{"vector": [1]}}]}}"#)).expect_err("a short vector");
        assert_eq!(wrong.field.as_deref(), Some("queries[1].vector"));
        assert_eq!(
            batch(r#"{"queries": [], "k": 3}"#).expect_err("outside").code,
            Code::UnknownField
        );
        assert_eq!(
            batch(r#"{"queries": {}}"#).expect_err("no list").code,
            Code::Malformed
        );
    }

    #[test]
    fn answers_are_what_the_types_say() {
        let answered = Answered {
            hits: vec![Hit {
                id: "n\"1".into(),
                score: 0.83,
                document: Some(rhumb_core::Document::default()),
            }],
            touched: Touched::default(),
            took: Duration::from_micros(310),
        };
        let asked = asked(r#"{"vector": [1, 0], "explain": true, "include": true}"#).expect("valid");
        let mut out = Vec::new();
        answered.write(&mut out, &asked, &one_vector());
        let read: rhumb_api::QueryAnswer = serde_json::from_slice(&out).expect("the type reads it");
        assert_eq!((read.hits[0].score, read.took_ms), (0.83, 0.31));
        assert!(read.explain.is_some() && read.hits[0].document.is_some());
    }
}
