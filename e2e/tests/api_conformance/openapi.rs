//! `/openapi.json`: a document that other tools can read, and that names every route.

use std::collections::BTreeSet;

use rhumb_e2e::Suite;
use serde_json::Value;

use crate::http::ROUTES;

const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

#[tokio::test]
async fn the_openapi_document_is_valid_and_complete() {
    let t = Suite::start("openapi").await;
    let api = t
        .case("openapi.json")
        .get("/openapi.json")
        .await
        .status(200)
        .header("content-type", |value| value.starts_with("application/json"))
        .check("3.1", |api| {
            api["openapi"]
                .as_str()
                .is_some_and(|version| version.starts_with("3.1"))
        })
        .check("a title", |api| api["info"]["title"].is_string())
        .check("a version", |api| api["info"]["version"].is_string())
        .json();
    every_route_is_named(&t, &api);
    operations_are_well_formed(&t, &api);
    references_resolve(&t, &api);
    queries_are_whole(&t, &api);
    t.finish().await;
}

fn every_route_is_named(t: &Suite, api: &Value) {
    let paths = api["paths"].as_object().cloned().unwrap_or_default();
    // Parameters may be called what they like.
    let shape = |path: &str| -> String {
        let parts: Vec<&str> = path
            .split('/')
            .map(|part| if part.starts_with('{') { "{}" } else { part })
            .collect();
        parts.join("/")
    };
    // It need not name itself.
    for (route, methods) in ROUTES.into_iter().filter(|(route, _)| *route != "/openapi.json") {
        let found = paths.iter().find(|(path, _)| shape(path) == shape(route));
        t.check("a route is named", found.is_some(), || route.to_owned());
        for method in methods {
            let named = found.is_some_and(|(_, item)| item[method.to_lowercase()].is_object());
            t.check("with its methods", named, || format!("{method} {route}"));
        }
    }
    for path in paths.keys() {
        t.check("a path begins with a slash", path.starts_with('/'), || {
            path.clone()
        });
    }
}

fn operations_are_well_formed(t: &Suite, api: &Value) {
    let mut ids = BTreeSet::new();
    for (path, item) in api["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            if !METHODS.contains(&method.as_str()) {
                continue;
            }
            let name = || format!("{method} {path}");
            let responses = operation["responses"].as_object().cloned().unwrap_or_default();
            t.check("an operation has answers", !responses.is_empty(), name);
            for (status, response) in &responses {
                let known = status == "default"
                    || status
                        .parse::<u16>()
                        .is_ok_and(|status| (100..600).contains(&status));
                let described = resolve(api, response)["description"].is_string();
                t.check("an answer is described", known && described, || {
                    format!("{method} {path} {status}")
                });
            }
            if let Some(id) = operation["operationId"].as_str() {
                t.check("operation ids are unique", ids.insert(id.to_owned()), || {
                    id.to_owned()
                });
            }
            let declared = parameters(api, item, operation);
            for wanted in path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            {
                let there = declared
                    .iter()
                    .any(|p| p["name"] == wanted && p["in"] == "path" && p["required"] == true);
                t.check("path parameters are declared", there, || {
                    format!("{method} {path}: {wanted}")
                });
            }
            for parameter in &declared {
                let legal = ["path", "query", "header", "cookie"]
                    .contains(&parameter["in"].as_str().unwrap_or_default());
                let typed = parameter["schema"].is_object()
                    || parameter["schema"].is_boolean()
                    || parameter["content"].is_object();
                t.check(
                    "a parameter is well-formed",
                    legal && typed && parameter["name"].is_string(),
                    || parameter.to_string(),
                );
            }
            let body = resolve(api, &operation["requestBody"]);
            let has_content = body.is_null()
                || body["content"]
                    .as_object()
                    .is_some_and(|content| !content.is_empty());
            t.check("a body has a content type", has_content, name);
        }
    }
}

fn parameters(api: &Value, item: &Value, operation: &Value) -> Vec<Value> {
    let lists = [&item["parameters"], &operation["parameters"]];
    lists
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .map(|p| resolve(api, p).clone())
        .collect()
}

fn resolve<'a>(api: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"]
        .as_str()
        .and_then(|reference| api.pointer(reference.strip_prefix('#')?))
    {
        Some(target) => target,
        None => value,
    }
}

fn references_resolve(t: &Suite, api: &Value) {
    let mut references = BTreeSet::new();
    collect_references(api, &mut references);
    for reference in references {
        let target = reference
            .strip_prefix('#')
            .and_then(|pointer| api.pointer(pointer));
        t.check("a reference leads somewhere", target.is_some(), || {
            reference.clone()
        });
    }
}

fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                into.insert(reference.to_owned());
            }
            members
                .values()
                .for_each(|member| collect_references(member, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

/// Text legs come with a later version; until then nothing of them shows.
fn queries_are_whole(t: &Suite, api: &Value) {
    let members = &api["components"]["schemas"]["Query"]["properties"];
    for name in [
        "vector",
        "text",
        "sparse",
        "legs",
        "fuse",
        "rerank",
        "group_by",
        "highlight",
    ] {
        t.check("a query's member is described", members[name].is_object(), || {
            name.to_owned()
        });
    }
}
