//! The objects and what requests do to them.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::apply::{Owners, merge};

#[derive(Default)]
pub(crate) struct State {
    pub objects: BTreeMap<String, Value>,
    pub version: u64,
    pub hang: bool,
    /// Writes to paths with this in them are invalid.
    pub refused: Option<String>,
    pub writes: Vec<String>,
    owners: Owners,
    changes: Vec<Change>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
}

struct Change {
    version: u64,
    path: String,
    kind: &'static str,
    object: Value,
}

pub(crate) struct Target {
    pub collection: String,
    pub object: Option<String>,
    pub subresource: Option<String>,
}

impl Target {
    /// `/api/v1/namespaces/NS/PLURAL/NAME/SUB` or `/apis/GROUP/VERSION/namespaces/…`.
    pub fn parse(path: &str) -> Self {
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

impl State {
    pub fn act(&mut self, method: &Method, target: &Target, query: &str, body: Value) -> (StatusCode, Value) {
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
                if let (Some(_), Some(manager)) = (&target.subresource, parameter(query, "fieldManager")) {
                    let said = &patch["status"];
                    self.owners.apply(path, manager, &mut new["status"], said);
                }
                if parameter(query, "fieldManager").is_none() && !patch["status"]["nodes"].is_null() {
                    // Not an apply: lists are replaced.
                    new["status"]["nodes"] = Value::Null;
                }
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
                if !path.contains("/pods/")
                    && !path.contains("/shards/")
                    && !patch["status"]["conditions"].is_null()
                {
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
                self.remove(path);
                (StatusCode::OK, old)
            }
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn list(&self, collection: &str, query: &str) -> Value {
        let selector = Selector::parse(query);
        let prefix = format!("{collection}/");
        let items: Vec<&Value> = self
            .objects
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .map(|(_, object)| object)
            .filter(|object| selector.fits(object))
            .collect();
        let version = self.version.to_string();
        json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items })
    }

    pub fn remove(&mut self, path: &str) {
        let Some(mut object) = self.objects.remove(path) else {
            return;
        };
        self.owners.forget(path);
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.changed(path, "DELETED", object);
    }

    fn changed(&mut self, path: &str, kind: &'static str, object: Value) {
        self.changes.push(Change {
            version: self.version,
            path: path.to_owned(),
            kind,
            object,
        });
    }

    pub fn forget_changes(&mut self) {
        self.changes.clear();
        self.forgotten = self.version;
    }

    /// The first change of the collection after `at`, as an event, and its version.
    pub fn change_after(&self, at: u64, collection: &str, query: &str) -> Option<(u64, Value)> {
        if at < self.forgotten {
            let (_, gone) = refuse(StatusCode::GONE, "Expired");
            return Some((u64::MAX, json!({ "type": "ERROR", "object": gone })));
        }
        let selector = Selector::parse(query);
        let prefix = format!("{collection}/");
        let from = self.changes.partition_point(|change| change.version <= at);
        let mut later = self.changes[from..].iter();
        let next = later.find(|change| change.path.starts_with(&prefix) && selector.fits(&change.object))?;
        Some((next.version, json!({ "type": next.kind, "object": next.object })))
    }

    /// A write that changes nothing leaves the version alone, as the real one does.
    pub fn store(&mut self, path: &str, mut object: Value, old: Option<&Value>) -> Value {
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
        let known = self.objects.insert(path.to_owned(), object.clone()).is_some();
        self.changed(path, if known { "MODIFIED" } else { "ADDED" }, object.clone());
        object
    }
}

/// `a=b,c` of labels.
struct Selector(String);

impl Selector {
    fn parse(query: &str) -> Self {
        let text = parameter(query, "labelSelector").unwrap_or_default();
        Self(text.replace("%3D", "=").replace("%2F", "/").replace("%2C", ","))
    }

    fn fits(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let mut terms = self.0.split(',').filter(|term| !term.is_empty());
        terms.all(|term| match term.split_once('=') {
            Some((key, value)) => labels[key] == value,
            None => !labels[term].is_null(),
        })
    }
}

pub(crate) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .next()
}

pub(crate) fn refuse(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "reason": reason, "message": reason, "code": status.as_u16()
    });
    (status, body)
}
