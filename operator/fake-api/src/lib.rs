//! An API server for tests, in memory: objects with resource versions and generations,
//! optimistic locking, server-side apply, label selectors, watches, and a few faults.  It
//! has no schemas, no defaults and no garbage collector.  Whatever a network does to
//! requests is the caller's to simulate, around `FakeApi::serve`.

mod apply;
mod state;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use state::{State, Target, parameter, refuse};

/// Of a watch the body goes on for ever.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Cheap to clone; all clones are one server.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Told of every change.  It wakes in the order of waiting, which a `watch` does not.
    changed: Notify,
}

impl FakeApi {
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
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
        self.with(|state| state.remove(path));
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.with(|state| state.objects.get(path).cloned())
    }

    pub fn paths(&self) -> Vec<String> {
        self.with(|state| state.objects.keys().cloned().collect())
    }

    /// From here on only a new list helps those who watch from before.
    pub fn forget_changes(&self) {
        self.with(State::forget_changes);
    }

    /// Every write since the last call.
    pub fn take_writes(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.writes))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let (result, is_changed) = {
            let mut state = self.0.state.lock();
            let before = state.version;
            (act(&mut state), state.version != before)
        };
        if is_changed {
            self.0.changed.notify_waiters();
        }
        result
    }

    /// What the server does with a request.
    pub async fn serve(&self, request: Request<Body>) -> Answer {
        if self.with(|state| state.hang) {
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let bytes = body
            .collect()
            .await
            .map_or_else(|_| Bytes::new(), |body| body.to_bytes());
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let target = Target::parse(parts.uri.path());
        if parts.method == Method::GET && parameter(&query, "watch").is_some_and(|watch| watch != "false") {
            return self.watch(target.collection, query);
        }
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
        let mut answer = Response::new(Full::from(bytes).boxed_unsync());
        *answer.status_mut() = status;
        answer
    }

    /// One frame per change, for ever.
    fn watch(&self, collection: String, query: String) -> Answer {
        let from = parameter(&query, "resourceVersion").and_then(|version| version.parse().ok());
        let at: u64 = from.unwrap_or_default();
        let changes = stream::unfold((self.clone(), at), move |(api, at)| {
            let (collection, query) = (collection.clone(), query.clone());
            async move {
                loop {
                    let inner = api.0.clone();
                    let mut changed = pin!(inner.changed.notified());
                    changed.as_mut().enable();
                    let next = api.with(|state| state.change_after(at, &collection, &query));
                    if let Some((version, event)) = next {
                        let mut line = serde_json::to_vec(&event).expect("an event is JSON");
                        line.push(b'\n');
                        let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(line)));
                        return Some((frame, (api.clone(), version)));
                    }
                    changed.await;
                }
            }
        });
        Response::new(StreamBody::new(changes).boxed_unsync())
    }
}
