//! OpenAPI 3.1 from the list of routes and the types.

use rhumb_core::Code;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::problem::{name, status};
use crate::routes::{Answer, Body, Kind, Param, Place, ROUTES, Route};

/// The whole document.  `version` is the server's.
pub fn openapi(version: &str) -> Value {
    let mut generator = generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut generator);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.name().to_ascii_lowercase(), operation);
        }
    }
    // The schema of refusals stands in `components` like every other.
    generator.subschema_for::<crate::Problem>();
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Rhumb",
            "version": version,
            "summary": "A vector database over an object-store bucket",
            "description": "Unknown fields are refused with the nearest known name. Every answer carries \
                `X-Request-Id` and `Server-Timing`; every read and write also `Rhumb-Session`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "security": [{"bearer": []}],
        "components": {"schemas": schemas, "securitySchemes": {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key, a session token or a JWT; a client certificate does as well. \
                    A server that was started with --dev asks for none.",
            },
        }},
    })
}

/// The names of an object's properties, sorted: what a parser of `T` must know.
pub fn properties<T: JsonSchema>() -> Vec<String> {
    let schema = generator().into_root_schema_for::<T>();
    let properties = schema.as_value().get("properties").and_then(Value::as_object);
    let mut names: Vec<String> = properties
        .into_iter()
        .flat_map(|map| map.keys().cloned())
        .collect();
    names.sort_unstable();
    names
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .with(|s| s.definitions_path = "/components/schemas".into())
        .into_generator()
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in route.answers {
        add_answer(&mut responses, answer, generator);
    }
    for (status, codes) in refusals(route) {
        let about = codes
            .iter()
            .map(|code| format!("`{}`", name(*code)))
            .collect::<Vec<_>>()
            .join(", ");
        responses.insert(status.to_string(), refusal(&about, status));
    }
    let mut operation = json!({
        "operationId": route.op.name(),
        "summary": route.summary,
        "tags": [tag(route.path)],
        "responses": responses,
    });
    let params: Vec<Value> = route
        .params
        .iter()
        .flat_map(|group| group.iter())
        .map(param)
        .collect();
    if !params.is_empty() {
        operation["parameters"] = Value::Array(params);
    }
    if OPEN.contains(&route.path) {
        operation["security"] = json!([]);
    }
    if let Some(body) = &route.request {
        operation["requestBody"] = request_body(body, generator);
    }
    operation
}

const IDENTITIES: [&str; 8] = [
    "/v1/login",
    "/v1/token",
    "/v1/whoami",
    "/v1/keys",
    "/v1/users",
    "/v1/groups",
    "/v1/roles",
    "/v1/audit",
];

/// Whoever asks for one of these needs no credentials: the server's rules say the same.
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/v1/login", "/v1/token/refresh"];

fn tag(path: &str) -> &'static str {
    if IDENTITIES.iter().any(|prefix| path.starts_with(prefix)) {
        "identity"
    } else if !path.starts_with("/v1/collections") {
        "process"
    } else if path.contains("/documents") || path.ends_with("port") {
        "documents"
    } else if path.ends_with("/query") || path.ends_with("/recall") || path.ends_with("/aggregate") {
        "queries"
    } else {
        "collections"
    }
}

/// By status, in order: the route's own, and what any request like it may meet.
fn refusals(route: &Route) -> Vec<(u16, Vec<Code>)> {
    let mut codes = route.refusals.to_vec();
    if route.path.starts_with("/v1/collections") {
        codes.extend([Code::TooManyRequests, Code::Unavailable]);
        if route.query_names().next().is_some() {
            codes.extend([Code::Malformed, Code::UnknownField]);
        }
    }
    if route.path == "/readyz" {
        codes.push(Code::Unavailable);
    }
    if route.request.is_some() {
        codes.extend([
            Code::Malformed,
            Code::RequestTimeout,
            Code::BodyTooLarge,
            Code::UnsupportedMediaType,
        ]);
    }
    if !OPEN.contains(&route.path) {
        codes.extend([Code::Unauthenticated, Code::Forbidden, Code::TooManyRequests]);
    } else if route.request.is_some() {
        codes.extend([Code::Unauthenticated, Code::TooManyRequests]);
    }
    codes.sort_unstable_by_key(|code| (status(*code), name(*code)));
    codes.dedup();
    let mut by_status: Vec<(u16, Vec<Code>)> = Vec::new();
    for code in codes {
        match by_status.last_mut() {
            Some((last, codes)) if *last == status(code) => codes.push(code),
            _ => by_status.push((status(code), vec![code])),
        }
    }
    by_status
}

fn refusal(about: &str, status: u16) -> Value {
    let mut response = json!({
        "description": about,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    if status == 401 {
        response["headers"] = json!({
            "WWW-Authenticate": {"description": "How to prove who you are", "schema": {"type": "string"}},
        });
    }
    if matches!(status, 429 | 503) {
        response["headers"] = json!({
            "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}},
        });
    }
    response
}

fn add_answer(responses: &mut Map<String, Value>, answer: &Answer, generator: &mut SchemaGenerator) {
    let response = responses
        .entry(answer.status.to_string())
        .or_insert_with(|| json!({"description": answer.about}));
    if !answer.content_type.is_empty() {
        let schemas: Vec<Value> = answer
            .schemas
            .iter()
            .map(|schema| schema(generator).to_value())
            .collect();
        let schema = match <[Value; 1]>::try_from(schemas) {
            Ok([one]) => json!({"schema": one}),
            Err(none) if none.is_empty() => json!({}),
            Err(several) => json!({"schema": {"anyOf": several}}),
        };
        response["content"][answer.content_type] = schema;
    }
    if answer.etag {
        response["headers"] = json!({
            "ETag": {"description": "The version, in quotes", "schema": {"type": "string"}},
        });
    }
}

fn request_body(body: &Body, generator: &mut SchemaGenerator) -> Value {
    let mut content = Map::new();
    for (content_type, schema) in body.types {
        let value = match schema {
            Some(schema) => json!({"schema": schema(generator)}),
            None if *content_type == crate::routes::JSON => json!({"schema": {"type": "object"}}),
            None => json!({}),
        };
        content.insert((*content_type).to_owned(), value);
    }
    json!({"description": body.about, "required": body.required, "content": content})
}

fn param(param: &Param) -> Value {
    let schema = match &param.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::OneOf(words) => json!({"type": "string", "enum": words}),
    };
    let place = match param.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    json!({
        "name": param.name,
        "in": place,
        "required": param.place == Place::Path,
        "description": param.about,
        "schema": schema,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document_with_its_answers() {
        let document = openapi("0.0.0");
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.name().to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.op.name());
            for answer in route.answers {
                assert!(operation["responses"][answer.status.to_string()]["description"].is_string());
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = openapi("0.0.0");
        let mut references = Vec::new();
        collect_references(&document, &mut references);
        assert!(references.len() > 30);
        for reference in references {
            let pointer = reference
                .strip_prefix('#')
                .expect("references stay in the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect_references(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                into.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|v| collect_references(v, into));
            }
            Value::Array(items) => items.iter().for_each(|v| collect_references(v, into)),
            _ => {}
        }
    }

    #[test]
    fn what_a_query_may_ask_is_announced() {
        assert_eq!(
            properties::<crate::Query>(),
            [
                "consistency",
                "effort",
                "exact",
                "explain",
                "filter",
                "fuse",
                "group_by",
                "highlight",
                "include",
                "k",
                "legs",
                "recall",
                "rerank",
                "sparse",
                "text",
                "timeout_ms",
                "vector"
            ]
        );
        assert_eq!(properties::<crate::Leg>(), ["sparse", "text", "vector"]);
    }
}
