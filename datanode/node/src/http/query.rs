//! `POST …/query`: one query, or a batch that sees one snapshot.

use std::time::Duration;

use axum::http::StatusCode;
use futures::{FutureExt, StreamExt, stream};
use rhumb_core::query::{Consistency, Query, RawQuery};
use rhumb_core::{Code, Filter, Json, Limits, Problem, Schema};
use rhumb_engine::{EngineError, Reading};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::bill::Bill;
use super::call::{Call, in_time};
use super::documents::within_answer;
use super::hits::Answered;
use super::members::Members;
use super::problem::Refused;

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
    let mut request = Request::parse(body, &schema, &call.app.limits, call.app.clock.unix_ms())?;
    if let Some(scope) = call.scope(&schema) {
        request.narrow(&scope);
    }
    call.timing.parse += begin.elapsed();
    let _place = call.place().await?;
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
            call.bill.rows(answered.hits());
            answered.write(&mut out, &asked.query, asked.explain, &schema);
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
                Ok(batch(&reading, &queries, patience, &schema, &call.bill).await)
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
    bill: &Bill,
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
        bill.rows(answered.hits());
        answered.write(&mut out, &asked.query, asked.explain, schema);
        within_answer(out.len())?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

async fn answered(reading: &Reading, asked: &Asked, patience: Duration) -> Refused<Answered> {
    let begin = Instant::now();
    let (hits, touched) = reading
        .query(&asked.query, Some(asked.timeout.unwrap_or(patience)))
        .await?;
    Ok(Answered {
        hits,
        touched: match asked.is_scoped {
            true => touched.without_totals(),
            false => touched,
        },
        took: begin.elapsed(),
    })
}

impl Request {
    fn narrow(&mut self, scope: &Filter) {
        match self {
            Self::One(asked) => asked.narrow(scope),
            Self::Batch { queries, .. } => queries.iter_mut().for_each(|asked| asked.narrow(scope)),
        }
    }

    fn parse(body: Json, schema: &Schema, limits: &Limits, now_ms: i64) -> Result<Self, Problem> {
        if body.get("queries").is_none() {
            return Ok(Self::One(Box::new(Asked::parse(body, schema, limits, now_ms)?)));
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
            let asked = Asked::parse(json, schema, limits, now_ms);
            asked.map_err(|problem| problem.within(&format!("queries[{at}]")))
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

    fn parse(body: Json, schema: &Schema, limits: &Limits, now_ms: i64) -> Result<Self, Problem> {
        let mut members = Members::of("a query", body)?;
        let raw = RawQuery::take(&mut members, limits)?;
        let consistency = members.consistency()?;
        let timeout = members.timeout_ms(limits)?.map(Duration::from_millis);
        let explain = members.bool("explain")?.unwrap_or_default();
        members.finish()?;
        Ok(Self {
            query: raw.bind(schema, limits, now_ms)?,
            consistency,
            timeout,
            explain,
            is_scoped: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::fields;

    use super::super::members::tests::known_to;
    use super::*;

    fn json_of(text: &str) -> Json {
        Json::parse(text.as_bytes(), &Limits::default()).expect("json")
    }

    fn schema() -> Schema {
        let limits = Limits::default();
        let fields = json_of(
            r#"{"embedding": {"type": "vector", "dim": 2}, "terms": "sparse_vector", "gloss": "text",
                "pos": "string", "lex": "int"}"#,
        );
        let declared = fields::parse(&fields, &limits).expect("valid fields");
        Schema::default()
            .declare(&declared, &limits)
            .expect("valid fields")
    }

    fn asked(text: &str) -> Result<Asked, Problem> {
        Asked::parse(json_of(text), &schema(), &Limits::default(), 0)
    }

    /// What a query's parser knows of the object under `path`, when `around` has it as `@`.
    fn known_inside(around: &str) -> Vec<String> {
        known_to(|odd| {
            let odd = serde_json::to_string(&odd.into_serde()).expect("writable");
            asked(&around.replace('@', &odd))
        })
    }

    #[test]
    fn the_parsers_know_what_the_openapi_says() {
        use rhumb_api::properties;
        let (schema, limits) = (schema(), Limits::default());
        assert_eq!(
            known_to(|json| Asked::parse(json, &schema, &limits, 0)),
            properties::<rhumb_api::Query>()
        );
        let function = r#"{"vector": [1, 0], "rerank": {"functions": [#]}}"#;
        let of_function = |inside: &str| known_inside(&function.replace('#', inside));
        for (known, announced) in [
            (known_inside(r#"{"legs": [@]}"#), properties::<rhumb_api::Leg>()),
            (
                known_inside(r#"{"text": @}"#),
                properties::<rhumb_api::TextSearch>(),
            ),
            (
                known_inside(r#"{"sparse": {"value": @}}"#),
                properties::<rhumb_api::SparseElements>(),
            ),
            (
                known_inside(r#"{"vector": [1, 0], "text": "a", "fuse": @}"#),
                properties::<rhumb_api::Fuse>(),
            ),
            (
                known_inside(r#"{"vector": [1, 0], "rerank": @}"#),
                properties::<rhumb_api::Rerank>(),
            ),
            (of_function("@"), properties::<rhumb_api::RankFunction>()),
            (of_function(r#"{"decay": @}"#), properties::<rhumb_api::Decay>()),
            (
                of_function(r#"{"value": @}"#),
                properties::<rhumb_api::ModifiedValue>(),
            ),
            (
                known_inside(r#"{"vector": [1, 0], "group_by": @}"#),
                properties::<rhumb_api::SizedGroups>(),
            ),
            (
                known_inside(r#"{"text": "a", "highlight": @}"#),
                properties::<rhumb_api::Marked>(),
            ),
        ] {
            assert_eq!(known, announced);
        }
        for leg in ["vector", "sparse"] {
            assert_eq!(known_inside(&format!(r#"{{"{leg}": @}}"#)), ["field", "value"]);
        }
    }

    #[test]
    fn the_parser_of_a_batch_knows_what_the_openapi_says() {
        let (schema, limits) = (schema(), Limits::default());
        let batch = known_to(|json| {
            let Json::Object(mut entries) = json else {
                unreachable!("known_to sends objects")
            };
            entries.push(("queries".into(), Json::list(Vec::new())));
            Request::parse(Json::Object(entries), &schema, &limits, 0)
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
    fn the_types_of_clients_are_read_by_the_parsers() {
        let query = rhumb_api::Query {
            legs: Some(vec![
                rhumb_api::Leg {
                    vector: Some(rhumb_api::VectorLeg::Value(rhumb_api::VectorValue::List(vec![
                        1.0, 0.0,
                    ]))),
                    ..rhumb_api::Leg::default()
                },
                rhumb_api::Leg {
                    sparse: Some(rhumb_api::SparseLeg::Value(rhumb_api::SparseValue::Elements(
                        rhumb_api::SparseElements {
                            indices: vec![3],
                            values: vec![0.5],
                        },
                    ))),
                    ..rhumb_api::Leg::default()
                },
            ]),
            fuse: Some(rhumb_api::Fuse {
                method: Some(rhumb_api::FuseMethod::Score),
                weights: Some(vec![1.0, 2.0]),
                ..rhumb_api::Fuse::default()
            }),
            group_by: Some(rhumb_api::GroupBy::Field("pos".into())),
            ..rhumb_api::Query::default()
        };
        let asked = asked(&serde_json::to_string(&query).expect("writable")).expect("valid");
        assert_eq!((asked.query.legs.len(), asked.query.fuse.weights.len()), (2, 2));
        assert!(asked.query.group_by.is_some());
    }

    #[test]
    fn what_a_request_asks_of_the_server_is_read_too() {
        let asked =
            asked(r#"{"vector": [1, 0], "explain": true, "timeout_ms": 5, "consistency": "eventual"}"#)
                .expect("valid");
        assert_eq!(
            (asked.explain, asked.timeout, asked.consistency),
            (true, Some(Duration::from_millis(5)), Some(Consistency::Eventual))
        );
        for (text, field) in [
            (r#"{"vector": [1, 0], "timeout_ms": 0}"#, "timeout_ms"),
            (r#"{"vector": [1, 0], "consistency": "weak"}"#, "consistency"),
        ] {
            let problem = super::tests::asked(text).expect_err(text);
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (Code::InvalidValue, Some(field))
            );
        }
    }

    #[test]
    fn a_batch_has_a_limit_and_names_the_query_that_is_wrong() {
        let limits = Limits {
            queries: 2,
            ..Limits::default()
        };
        let batch = |text: &str| Request::parse(json_of(text), &schema(), &limits, 0).map(drop);
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
}
