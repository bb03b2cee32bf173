//! An API server for tests, in memory: objects with resource versions and generations,
//! optimistic locking, server-side apply without conflicts, label selectors, and faults.
//! It has no schemas, no defaults and no garbage collector.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use k8s_openapi::ByteString;
use kube::client::Body;
use kube::{Client, Error};
use serde_json::{Map, Value, json};

#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    hang: bool,
    /// Writes to paths with this in them are invalid.
    refused: Option<String>,
    writes: Vec<String>,
}

struct Target {
    collection: String,
    object: Option<String>,
    subresource: Option<String>,
}

impl Target {
    /// `/api/v1/namespaces/NS/PLURAL/NAME/SUB` or `/apis/GROUP/VERSION/namespaces/…`.
    fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let root = if parts[0] == "api" { 2 } else { 3 };
        let plural = if parts.get(root) == Some(&"namespaces") && parts.len() > root + 2 {
            root + 2
        } else {
            root
        };
        let collection = format!("/{}", parts[..=plural].join("/"));
        let object = parts.get(plural + 1).map(|name| format!("{collection}/{name}"));
        Self {
            collection,
            object,
            subresource: parts.get(plural + 2).map(|s| (*s).to_owned()),
        }
    }
}

impl FakeApi {
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.serve(request).await }
        });
        Client::new(service, "default")
    }

    /// While true no request is answered.
    pub fn hang(&self, hang: bool) {
        self.with(|state| state.hang = hang);
    }

    pub fn refuse(&self, paths_with: &str) {
        self.with(|state| state.refused = Some(paths_with.to_owned()));
    }

    pub fn put(&self, path: &str, object: Value) {
        self.with(|state| {
            state.store(path, object, None);
        });
    }

    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        self.with(|state| {
            let old = state.objects.get(path).cloned();
            let mut object = old.clone().expect("the object is there");
            edit(&mut object);
            state.store(path, object, old.as_ref());
        });
    }

    pub fn remove(&self, path: &str) {
        self.with(|state| state.objects.remove(path));
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.with(|state| state.objects.get(path).cloned())
    }

    pub fn paths(&self) -> Vec<String> {
        self.with(|state| state.objects.keys().cloned().collect())
    }

    /// Every write since the last call.
    pub fn take_writes(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.writes))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        if self.with(|state| state.hang) {
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let bytes = body
            .collect()
            .await
            .map_or_else(|_| bytes::Bytes::new(), |body| body.to_bytes());
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let target = Target::parse(parts.uri.path());
        let (status, answer) = self.with(|state| {
            if parts.method != Method::GET {
                state
                    .writes
                    .push(format!("{} {}", parts.method, parts.uri.path()));
            }
            let path = parts.uri.path();
            match &state.refused {
                Some(refused) if parts.method != Method::GET && path.contains(refused) => {
                    refuse(StatusCode::UNPROCESSABLE_ENTITY, "Invalid")
                }
                _ => state.act(&parts.method, &target, &query, body),
            }
        });
        let bytes = serde_json::to_vec(&answer).expect("an answer is JSON");
        Ok(Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Body::from(bytes))
            .expect("a response"))
    }
}

impl State {
    fn act(&mut self, method: &Method, target: &Target, query: &str, body: Value) -> (StatusCode, Value) {
        let Some(path) = &target.object else {
            return if *method == Method::POST {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{}/{name}", target.collection);
                if self.objects.contains_key(&path) {
                    return refuse(StatusCode::CONFLICT, "AlreadyExists");
                }
                (StatusCode::CREATED, self.store(&path, body, None))
            } else {
                (StatusCode::OK, self.list(&target.collection, query))
            };
        };
        let old = self.objects.get(path).cloned();
        match (method.as_str(), old) {
            ("PATCH", old) => {
                if old.is_none() && target.subresource.is_some() {
                    return refuse(StatusCode::NOT_FOUND, "NotFound");
                }
                let mut new = old.clone().unwrap_or_else(|| json!({}));
                let patch = if target.subresource.is_some() {
                    json!({ "status": body["status"] })
                } else {
                    body
                };
                // Field ownership, as far as we need it: what carries no label of ours is
                // somebody else's.
                let forced = query.split('&').any(|pair| pair == "force=true");
                let mine = |object: &Value| !object["metadata"]["labels"]["rhumb.dev/database"].is_null();
                if old.as_ref().is_some_and(|old| mine(&patch) && !mine(old)) && !forced {
                    return refuse(StatusCode::CONFLICT, "Conflict");
                }
                let version = &patch["metadata"]["resourceVersion"];
                if !version.is_null() && *version != new["metadata"]["resourceVersion"] {
                    return refuse(StatusCode::CONFLICT, "Conflict");
                }
                if !path.contains("/pods/") && !patch["status"]["conditions"].is_null() {
                    // One writer owns them all: what it no longer applies is removed.
                    new["status"]["conditions"] = Value::Null;
                }
                merge(&mut new, &patch);
                (StatusCode::OK, self.store(path, new, old.as_ref()))
            }
            (_, None) => refuse(StatusCode::NOT_FOUND, "NotFound"),
            ("GET", Some(object)) => (StatusCode::OK, object),
            ("PUT", Some(old)) => {
                let version = &body["metadata"]["resourceVersion"];
                if !version.is_null() && *version != old["metadata"]["resourceVersion"] {
                    return refuse(StatusCode::CONFLICT, "Conflict");
                }
                (StatusCode::OK, self.store(path, body, Some(&old)))
            }
            ("DELETE", Some(old)) => {
                self.objects.remove(path);
                (StatusCode::OK, old)
            }
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn list(&self, collection: &str, query: &str) -> Value {
        let selector = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("labelSelector="))
            .map(|s| s.replace("%3D", "=").replace("%2F", "/").replace("%2C", ","))
            .unwrap_or_default();
        let fits = |object: &Value| {
            selector.split(',').filter(|s| !s.is_empty()).all(|term| {
                let labels = &object["metadata"]["labels"];
                match term.split_once('=') {
                    Some((key, value)) => labels[key] == value,
                    None => !labels[term].is_null(),
                }
            })
        };
        let prefix = format!("{collection}/");
        let items: Vec<&Value> = self
            .objects
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .map(|(_, object)| object)
            .filter(|object| fits(object))
            .collect();
        json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "0" }, "items": items })
    }

    /// A write that changes nothing leaves the version alone, as the real one does.
    fn store(&mut self, path: &str, mut object: Value, old: Option<&Value>) -> Value {
        if let Some(plain) = object
            .as_object_mut()
            .and_then(|object| object.remove("stringData"))
        {
            let bytes = |value: &Value| ByteString(value.as_str().unwrap_or_default().into());
            for (key, value) in plain.as_object().into_iter().flatten() {
                object["data"][key] = json!(bytes(value));
            }
        }
        if let Some(old) = old
            && *old == object
        {
            return object;
        }
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = self.version.to_string().into();
        if metadata["uid"].is_null() {
            metadata["uid"] = format!("uid-{}", self.version).into();
        }
        metadata["namespace"] = path
            .split("/namespaces/")
            .nth(1)
            .and_then(|p| p.split('/').next())
            .into();
        let generation = old
            .and_then(|old| old["metadata"]["generation"].as_i64())
            .unwrap_or(0);
        let changed = old.is_none_or(|old| old["spec"] != object["spec"]);
        object["metadata"]["generation"] = (generation + i64::from(changed)).into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn refuse(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "reason": reason, "message": reason, "code": status.as_u16()
    });
    (status, body)
}

/// Objects by key, lists of conditions by `type`, anything else replaced.
fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(into), Value::Object(patch)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (key, value) in patch {
        let slot = into.entry(key.clone()).or_insert(Value::Null);
        match (key.as_str(), value) {
            ("conditions", Value::Array(new)) if slot.is_array() => merge_conditions(slot, new),
            (_, Value::Object(_)) => {
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                merge(slot, value);
            }
            _ => *slot = value.clone(),
        }
    }
}

fn merge_conditions(slot: &mut Value, new: &[Value]) {
    let Value::Array(old) = slot else { return };
    for condition in new {
        match old.iter_mut().find(|c| c["type"] == condition["type"]) {
            Some(found) => *found = condition.clone(),
            None => old.push(condition.clone()),
        }
    }
}
