//! `POST …/aggregate`: numbers about groups of documents.

use axum::http::StatusCode;
use rhumb_core::aggregate::Plan;
use rhumb_core::query::{Consistency, parse_filter};
use rhumb_core::{Filter, Json, Limits, Problem, Schema};
use serde_json::json;

use super::answer::{self, Answer};
use super::call::{Call, in_time};
use super::members::Members;
use super::problem::Refused;

struct Asked {
    filter: Option<Filter>,
    plan: Plan,
    consistency: Option<Consistency>,
}

pub async fn aggregate(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let body = call.json_body().await?;
    let schema = collection.schema();
    let mut asked = Asked::parse(body, &schema, &call.app.limits)?;
    asked.filter = Filter::both(call.scope(&schema), asked.filter);
    let _place = call.place().await?;
    let reading = call.read(&collection, asked.consistency).await?;
    let groups = in_time(
        call.patience(),
        reading.aggregate(asked.filter.as_ref(), &asked.plan),
    )
    .await?;
    Ok(answer::json(StatusCode::OK, &json!({"groups": groups})))
}

impl Asked {
    fn parse(body: Json, schema: &Schema, limits: &Limits) -> Result<Self, Problem> {
        let mut members = Members::of("the body", body)?;
        let filter = members.take("filter");
        let (by, metrics) = (members.take("by"), members.take("metrics"));
        let consistency = members.consistency()?;
        members.finish()?;
        Ok(Self {
            filter: filter
                .map(|json| parse_filter(&json, schema, limits))
                .transpose()?,
            plan: Plan::parse(by.as_ref(), metrics.as_ref(), schema)?,
            consistency,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::known_to;
    use super::*;

    #[test]
    fn the_parser_knows_what_the_openapi_says() {
        let (schema, limits) = (Schema::default(), Limits::default());
        let known = known_to(|json| Asked::parse(json, &schema, &limits));
        assert_eq!(known, rhumb_api::properties::<rhumb_api::Aggregate>());
    }
}
