//! `POST …/recall`: asks with stored vectors, once as a query would and once exactly, and
//! says how much of the truth the first found.

use std::time::Duration;

use axum::http::StatusCode;
use rhumb_api::{RecallSource, SelectivityClass};
use rhumb_core::query::{
    Accuracy, Consistency, DEFAULT_K, DEFAULT_RECALL, Hit, Leg, Query, VectorLeg, approximate, parse_filter,
    vector_field,
};
use rhumb_core::{Code, FieldName, Filter, Json, Limits, Problem, Schema, Vector};
use rhumb_engine::{EngineError, Reading};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::call::{Call, in_time};
use super::hits::ms;
use super::members::Members;
use super::problem::Refused;

const DEFAULT_QUERIES: usize = 50;

struct Asked {
    queries: usize,
    k: usize,
    field: FieldName,
    filter: Option<Filter>,
    /// The rows that whoever asks may know of.
    scope: Option<Filter>,
    accuracy: Accuracy,
    consistency: Option<Consistency>,
    timeout: Option<Duration>,
}

pub async fn recall(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let body = call.optional_json_body().await?;
    let schema = collection.schema();
    let mut asked = Asked::parse(body, &schema, &call.app.limits)?;
    asked.scope = call.scope(&schema);
    asked.filter = Filter::both(asked.scope.clone(), asked.filter);
    let _place = call.place().await?;
    let reading = call.read(&collection, asked.consistency).await?;
    let patience = asked.timeout.unwrap_or(call.patience());
    let measured = in_time(patience, measure(&reading, &asked)).await?;
    let class = measured.class.map_or("none", SelectivityClass::name);
    let name = &collection.entry().name;
    call.app
        .metrics
        .recalls
        .measured(name.as_str(), class, measured.recall);
    Ok(answer::json(StatusCode::OK, &measured))
}

impl Asked {
    fn parse(body: Json, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        let mut members = Members::of("the body", body)?;
        let queries = members.number("queries", 1..=limits.queries as u64, Code::InvalidValue)?;
        let k = members.number("k", 1..=limits.k as u64, Code::KOutOfRange)?;
        let filter = members.take("filter");
        let field = members.str("field")?;
        let accuracy = approximate(&mut members)?;
        let consistency = members.consistency()?;
        let timeout = members.timeout_ms(limits)?.map(Duration::from_millis);
        members.finish()?;
        let (field, _) = vector_field(field.as_deref(), schema)?;
        Ok(Self {
            queries: queries.map_or(DEFAULT_QUERIES.min(limits.queries), |n| n as usize),
            k: k.map_or(DEFAULT_K.min(limits.k), |k| k as usize),
            field: field.clone(),
            filter: filter
                .map(|json| parse_filter(&json, schema, limits))
                .transpose()?,
            scope: None,
            accuracy: accuracy.unwrap_or(Accuracy::Recall(DEFAULT_RECALL)),
            consistency,
            timeout,
        })
    }

    fn query(&self, value: Vector, accuracy: Accuracy) -> Query {
        Query {
            legs: vec![Leg::Vector(VectorLeg {
                field: self.field.clone(),
                value,
            })],
            k: self.k,
            filter: self.filter.clone(),
            accuracy,
            ..Query::default()
        }
    }
}

async fn measure(reading: &Reading, asked: &Asked) -> Result<rhumb_api::RecallAnswer, EngineError> {
    let vectors = reading
        .sample_vectors(&asked.field, asked.queries, asked.filter.as_ref())
        .await?;
    let (mut sum, mut min) = (0.0, 1.0_f64);
    let (mut approximate_time, mut exact_time) = (Duration::ZERO, Duration::ZERO);
    for vector in &vectors {
        let begin = Instant::now();
        let (found, _) = reading
            .query(&asked.query(vector.clone(), asked.accuracy), None)
            .await?;
        approximate_time += begin.elapsed();
        let begin = Instant::now();
        let (truth, _) = reading
            .query(&asked.query(vector.clone(), Accuracy::Exact), None)
            .await?;
        exact_time += begin.elapsed();
        let share = share(&found.into_flat(), &truth.into_flat());
        sum += share;
        min = min.min(share);
    }
    let count = vectors.len().max(1);
    let selectivity = match &asked.filter {
        Some(filter) => {
            let passing = reading.count(Some(filter)).await? as f64;
            Some(passing / reading.count(asked.scope.as_ref()).await?.max(1) as f64)
        }
        None => None,
    };
    Ok(rhumb_api::RecallAnswer {
        recall: if vectors.is_empty() {
            1.0
        } else {
            sum / count as f64
        },
        queries: vectors.len() as u64,
        k: asked.k as u64,
        from: RecallSource::Stored,
        selectivity,
        class: selectivity.map(SelectivityClass::of),
        min,
        approximate_ms: ms(approximate_time / count as u32),
        exact_ms: ms(exact_time / count as u32),
    })
}

/// How much of the truth was found.  What ties with the last of the truth is as good.
fn share(found: &[Hit], truth: &[Hit]) -> f64 {
    let Some(last) = truth.last() else { return 1.0 };
    let good = found
        .iter()
        .filter(|hit| hit.score >= last.score || truth.iter().any(|t| t.id == hit.id));
    good.count().min(truth.len()) as f64 / truth.len() as f64
}

#[cfg(test)]
mod tests {
    use rhumb_core::fields;

    use super::super::members::tests::known_to;
    use super::*;

    fn schema() -> Schema {
        let limits = Limits::default();
        let json = Json::parse(br#"{"v": {"type": "vector", "dim": 2}}"#, &limits).expect("json");
        Schema::default()
            .declare(&fields::parse(&json, &limits).expect("valid"), &limits)
            .expect("valid")
    }

    #[test]
    fn the_parser_knows_what_the_openapi_says() {
        let (schema, limits) = (schema(), Limits::default());
        let known = known_to(|json| Asked::parse(json, &schema, &limits));
        assert_eq!(known, rhumb_api::properties::<rhumb_api::RecallRequest>());
    }

    #[test]
    fn everything_may_be_left_out() {
        let asked = Asked::parse(Json::Object(Vec::new()), &schema(), &Limits::default()).expect("valid");
        assert_eq!((asked.queries, asked.k, asked.field.as_str()), (50, 10, "v"));
    }

    #[test]
    fn a_tie_with_the_last_of_the_truth_counts_as_found() {
        let hit = |id: &str, score| Hit {
            id: id.into(),
            score,
            document: None,
            highlights: Vec::new(),
        };
        let truth = [hit("a", 0.9), hit("b", 0.5)];
        assert_eq!(share(&[hit("a", 0.9), hit("c", 0.5)], &truth), 1.0);
        assert_eq!(share(&[hit("a", 0.9), hit("d", 0.4)], &truth), 0.5);
        assert_eq!(share(&[], &truth), 0.0);
        assert_eq!(share(&[], &[]), 1.0);
    }
}
