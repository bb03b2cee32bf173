//! The HTTP side: one table of routes, one way through for every request.
//!
//! A request gets its id, passes `access` (who, may they), becomes a [`Call`], is
//! answered by the one handler of its operation or refused, and leaves with `X-Request-Id`, `Server-Timing` and, if it read
//! or wrote, `Rhumb-Session`.  A panic in a handler is our mistake: it is logged, the
//! client is told 500, the server goes on.

mod access;
mod aggregate;
mod answer;
mod audit;
mod bill;
mod body;
mod call;
mod collections;
mod conditions;
mod cursor;
mod document;
mod documents;
mod erase;
mod etag;
mod export;
mod forward;
mod gate;
mod hits;
mod identity;
mod import;
mod listen;
mod login;
mod members;
mod metrics;
mod params;
mod problem;
mod process;
mod query;
mod recall;
mod scan;
mod session;
mod token;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use axum::routing::any;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rhumb_api::{Op, ROUTES, Route};
use rhumb_core::{Code, Limits, Problem};
use rhumb_engine::Database;
use rhumb_seams::{CancellationToken, Clock, Ids, Rand, Tasks};
use rhumb_store::Bucket;
use tokio::time::Instant;

use crate::guard::Guard;
use crate::member::Member;
use crate::readiness::Readiness;
use crate::tls::ServerTls;
use answer::Answer;
use call::Call;
use forward::Arrival;
use problem::Refused;

pub(crate) use access::{Caller, outside};
pub(crate) use answer::write_json;
pub(crate) use bill::Meter;
pub(crate) use body::Incoming;
pub use listen::{Listener, listen, listen_to_peers};
pub(crate) use problem::Refusal;
pub(crate) use session::{Session, position_text};

/// What every handler may use.
pub struct App {
    pub db: Database,
    pub bucket: Bucket,
    pub limits: Arc<Limits>,
    pub clock: Clock,
    pub ids: Ids,
    /// Of the HTTP side alone: they end before the database closes.
    pub tasks: Tasks,
    pub settings: crate::Settings,
    pub holder: String,
    started_unix_ms: i64,
    metrics: metrics::Metrics,
    cursors: cursor::Cursors,
    gate: gate::Gate,
    bodies: body::Budget,
    readiness: Arc<Readiness>,
    /// In a cluster.
    member: Option<Member>,
    /// Unless somebody said that there shall be none.
    guard: Option<Arc<Guard>>,
    pub tls: Option<ServerTls>,
    /// Cancelled when this node is about to stop: it is not ready for more.
    pub leaving: CancellationToken,
    openapi: Bytes,
}

impl App {
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site, which lists the components"
    )]
    pub fn new(
        db: Database,
        bucket: Bucket,
        settings: crate::Settings,
        holder: String,
        clock: Clock,
        rand: Rand,
        ids: Ids,
        tasks: Tasks,
        readiness: Arc<Readiness>,
        member: Option<Member>,
        guard: Option<Arc<Guard>>,
        tls: Option<ServerTls>,
    ) -> Self {
        let limits = Arc::new(settings.limits.clone());
        Self {
            db,
            bucket,
            started_unix_ms: clock.unix_ms(),
            metrics: metrics::Metrics::new(),
            cursors: cursor::Cursors::new(limits.cursors, rand),
            gate: gate::Gate::new(limits.concurrent_queries),
            bodies: body::Budget::new(body_budget(&settings), limits.body_bytes),
            readiness,
            member,
            guard,
            tls,
            leaving: CancellationToken::new(),
            openapi: rhumb_api::openapi(env!("CARGO_PKG_VERSION")).to_string().into(),
            limits,
            clock,
            ids,
            tasks,
            settings,
            holder,
        }
    }

    /// Lets go of what has expired.
    pub fn sweep(&self) {
        self.cursors.sweep();
    }
}

/// Bodies may take this part of the memory limit: parsed, one takes up to three times its
/// bytes.
const BODY_SHARE: u64 = 10;

/// Bytes of request bodies that may be in memory together.
pub fn body_budget(settings: &crate::Settings) -> u64 {
    settings.memory_limit.0 / BODY_SHARE
}

/// All operations of one path.
struct PathOps {
    /// Numbers in `ROUTES`.
    routes: Vec<usize>,
}

impl PathOps {
    fn route(&self, method: &str, path: &str) -> Option<usize> {
        // HEAD is GET without the body, which hyper leaves out.
        let method = if method == "HEAD" { "GET" } else { method };
        self.allowed(path)
            .find(|number| ROUTES[*number].method.name() == method)
    }

    /// Those whose pattern fits: a plain path segment goes before one that varies.
    fn allowed<'a>(&'a self, path: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.routes
            .iter()
            .copied()
            .filter(move |number| fits(ROUTES[*number].path, path))
    }

    fn allow(&self, path: &str) -> String {
        let mut names: Vec<&str> = self
            .allowed(path)
            .map(|number| ROUTES[number].method.name())
            .collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        names.join(", ")
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    pattern
        .split('/')
        .zip(path.split('/'))
        .all(|(pattern, part)| pattern.starts_with('{') || pattern == part)
}

/// Paths that differ only in a segment that varies share one entry (a document may be
/// called `get`), so that every method finds its operation.
fn paths() -> Vec<(&'static str, PathOps)> {
    let mut paths: Vec<(&'static str, PathOps)> = Vec::new();
    for (number, route) in ROUTES.iter().enumerate() {
        let wider = ROUTES.iter().map(|other| other.path).find(|other| {
            *other != route.path
                && other.split('/').count() == route.path.split('/').count()
                && fits(other, route.path)
        });
        let path = wider.unwrap_or(route.path);
        match paths.iter_mut().find(|(p, _)| *p == path) {
            Some((_, ops)) => ops.routes.push(number),
            None => paths.push((path, PathOps { routes: vec![number] })),
        }
    }
    paths
}

pub fn router(app: Arc<App>, arrival: Arrival) -> Router {
    let mut router = Router::new();
    for (path, ops) in paths() {
        let ops = Arc::new(ops);
        let handler = move |State(app): State<Arc<App>>, request: Request| async move {
            serve(app, arrival, Some(&ops), request).await
        };
        router = router.route(path, any(handler));
    }
    let nowhere = move |State(app): State<Arc<App>>, request: Request| async move {
        serve(app, arrival, None, request).await
    };
    router.fallback(nowhere).with_state(app)
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const SESSION: HeaderName = HeaderName::from_static(session::HEADER);

async fn serve(app: Arc<App>, arrival: Arrival, ops: Option<&PathOps>, request: Request) -> Response<Body> {
    let begin = Instant::now();
    app.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
    let _in_flight = InFlight(app.clone());
    let request_id = request_id(&app, request.headers());
    let found = find(ops, &request);
    let number = found.as_ref().ok().copied();
    let mut response = match found {
        Ok(number) => access::serve(&app, arrival, number, request, &request_id).await,
        Err(refusal) => {
            call::let_go(request, &app);
            refusal.into_response(&request_id)
        }
    };
    if let Ok(id) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if !response.headers().contains_key(&SERVER_TIMING) {
        response
            .headers_mut()
            .insert(SERVER_TIMING, call::total(begin.elapsed()));
    }
    app.metrics
        .answered(number, response.status().as_u16(), begin.elapsed());
    response
}

/// What was let in, answered by this node or by the one that leads.
async fn answer(
    app: &Arc<App>,
    arrival: Arrival,
    number: usize,
    request: Request,
    request_id: &str,
) -> Response<Body> {
    match &app.member {
        None => here(app, app.db.clone(), number, request, request_id).await,
        // In a box: what no request of a single server needs is not moved about with it.
        Some(member) => Box::pin(forward::serve(app, member, arrival, number, request, request_id)).await,
    }
}

/// Answered by this node.
async fn here(
    app: &Arc<App>,
    db: Database,
    number: usize,
    request: Request,
    request_id: &str,
) -> Response<Body> {
    let begin = Instant::now();
    match Call::new(app.clone(), db, &ROUTES[number], request, request_id) {
        Ok(mut call) => {
            let answer = answered(&mut call).await.unwrap_or_else(|refusal| {
                log(&refusal, call.route, request_id);
                refusal.into_response(request_id)
            });
            call.finish(answer, begin)
        }
        Err(refusal) => refusal.into_response(request_id),
    }
}

fn find(ops: Option<&PathOps>, request: &Request) -> Refused<usize> {
    let path = request.uri().path();
    let Some(ops) = ops else {
        let detail = format!("there is nothing at {}", rhumb_core::problem::shorten(path));
        return Err(Problem::new(Code::RouteNotFound, detail)
            .hint("/openapi.json lists every route")
            .into());
    };
    let method = request.method().as_str();
    ops.route(method, path)
        .ok_or_else(|| Refusal::method_not_allowed(method, ops.allow(path)))
}

/// The handler's answer; a panic is a refusal like any other.
async fn answered(call: &mut Call) -> Refused<Answer> {
    match AssertUnwindSafe(handle(call)).catch_unwind().await {
        Ok(answer) => answer,
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("?");
            Err(Problem::new(Code::Internal, format!("a handler panicked: {what}")).into())
        }
    }
}

/// Every operation has its handler here; the compiler sees to it.
fn handle(call: &mut Call) -> BoxFuture<'_, Refused<Answer>> {
    match call.route.op {
        Op::ListCollections => collections::list(call).boxed(),
        Op::PutCollection => collections::put(call).boxed(),
        Op::GetCollection => collections::get(call).boxed(),
        Op::PatchCollection => collections::patch(call).boxed(),
        Op::DeleteCollection => collections::delete(call).boxed(),
        Op::OptimizeCollection => collections::optimize(call).boxed(),
        Op::EraseDocuments => erase::erase(call).boxed(),
        Op::WriteDocuments => documents::write(call).boxed(),
        Op::ScanDocuments => scan::scan(call).boxed(),
        Op::GetDocuments => documents::get_many(call).boxed(),
        Op::PutDocument => document::put(call).boxed(),
        Op::PatchDocument => document::patch(call).boxed(),
        Op::DeleteDocument => document::delete(call).boxed(),
        Op::GetDocument => document::get(call).boxed(),
        Op::Import => import::import(call).boxed(),
        Op::Export => export::export(call).boxed(),
        Op::Query => query::query(call).boxed(),
        Op::Recall => recall::recall(call).boxed(),
        Op::Aggregate => aggregate::aggregate(call).boxed(),
        Op::Login => login::login(call).boxed(),
        Op::RefreshToken => login::refresh(call).boxed(),
        Op::Whoami => identity::whoami(call).boxed(),
        Op::CreateKey => identity::create_key(call).boxed(),
        Op::ListKeys => identity::list_keys(call).boxed(),
        Op::DeleteKey => identity::delete_key(call).boxed(),
        Op::RotateKey => identity::rotate_key(call).boxed(),
        Op::PutUser => identity::put_user(call).boxed(),
        Op::GetUser => identity::get_user(call).boxed(),
        Op::DeleteUser => identity::delete_user(call).boxed(),
        Op::PutGroup => identity::put_group(call).boxed(),
        Op::GetGroup => identity::get_group(call).boxed(),
        Op::DeleteGroup => identity::delete_group(call).boxed(),
        Op::PutRole => identity::put_role(call).boxed(),
        Op::GetRole => identity::get_role(call).boxed(),
        Op::DeleteRole => identity::delete_role(call).boxed(),
        Op::Audit => audit::audit(call).boxed(),
        Op::Healthz => process::healthz().boxed(),
        Op::Readyz => process::readyz(call).boxed(),
        Op::Metrics => process::metrics(call).boxed(),
        Op::Openapi => process::openapi(call).boxed(),
        Op::Status => process::status(call).boxed(),
    }
}

fn log(refusal: &Refusal, route: &Route, request_id: &str) {
    let status = rhumb_api::status(refusal.problem().code);
    let (route, detail) = (route.op.name(), refusal.problem());
    if refusal.is_our_mistake() {
        tracing::error!(route, request_id, %detail, "a request met a mistake of ours");
    } else if status >= 500 {
        tracing::warn!(route, request_id, status, %detail, "a request could not be served");
    } else {
        tracing::debug!(route, request_id, status, %detail, "refused");
    }
}

/// The client's own, when it is short and plain, else a new one.
fn request_id(app: &App, headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = given.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
    plain.map_or_else(|| app.ids.ulid(), str::to_owned)
}

struct InFlight(Arc<App>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops_at<'a>(paths: &'a [(&'static str, PathOps)], path: &str) -> &'a PathOps {
        let as_long = |pattern: &str| pattern.split('/').count() == path.split('/').count();
        let (_, ops) = paths
            .iter()
            .find(|(pattern, _)| as_long(pattern) && fits(pattern, path))
            .expect(path);
        ops
    }

    fn op(method: &str, path: &str) -> Option<Op> {
        let paths = paths();
        let found = ops_at(&paths, path).route(method, path);
        found.map(|number| ROUTES[number].op)
    }

    #[test]
    fn every_route_is_found_under_its_own_path_and_method() {
        for route in ROUTES {
            let path = route.path.replace("{collection}", "c").replace("{id}", "n1");
            let path = path.replace("{name}", "ada");
            assert_eq!(op(route.method.name(), &path), Some(route.op), "{path}");
        }
    }

    #[test]
    fn a_document_may_be_called_get() {
        let path = "/v1/collections/c/documents/get";
        assert_eq!(op("POST", path), Some(Op::GetDocuments));
        assert_eq!(op("GET", path), Some(Op::GetDocument));
        assert_eq!(op("PUT", path), Some(Op::PutDocument));
        assert_eq!(op("POST", "/v1/collections/c/documents/n1"), None);
    }

    #[test]
    fn a_path_names_the_methods_it_takes() {
        let paths = paths();
        let allow = |path: &str| ops_at(&paths, path).allow(path);
        assert_eq!(allow("/healthz"), "GET, HEAD");
        assert_eq!(allow("/v1/collections/c/query"), "POST");
        assert_eq!(
            allow("/v1/collections/c/documents/n1"),
            "PUT, PATCH, DELETE, GET, HEAD"
        );
        assert!(allow("/v1/collections/c/documents/get").contains("POST"));
    }

    #[test]
    fn head_is_answered_where_get_is() {
        assert_eq!(op("HEAD", "/v1/collections/c"), Some(Op::GetCollection));
        assert_eq!(op("HEAD", "/v1/collections/c/query"), None);
    }
}
