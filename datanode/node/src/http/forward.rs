//! A request in a cluster: answered here by whoever leads its collection, else sent there
//! in one hop.
//!
//! - A request that came from a peer is answered here or not at all: no loops.
//! - One that left for nobody (no leader yet, a peer that cannot be reached, or that says it
//!   does not lead) waits a while for a leader to appear: clients see a pause, not an error.
//! - One that may have been served is repeated only if that is safe: it reads, or carries an
//!   idempotency key.  Else a write's outcome is unknown, and the client is told so.
//! - Once a write may have been served, no later refusal says that it was not: what refused
//!   the repeat knows nothing of the first try.
//! - Whoever asks for `eventual` is answered here by what a node that is to keep the collection
//!   warm has followed of it, leader or not.
//! - Small bodies are read first, so that they can be sent again; others are passed on as
//!   they come, and have one try.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use memchr::memmem;
use rhumb_api::{Op, Route};
use rhumb_cluster::{Leader, PeerError};
use rhumb_core::{Code, CollectionName, Problem};
use tokio::time::{Instant, sleep, timeout_at};

use super::access::{CALLER, Caller};
use super::body::Incoming;
use super::params::path_parts;
use super::problem::{NotLeading, Refusal};
use super::{App, REQUEST_ID};
use crate::member::Member;

/// How long a request waits for somebody to lead (P18).
const HOLD: Duration = Duration::from_secs(2);
/// A leader that nobody has heard of yet is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bodies up to here are kept to be sent again.
const KEEP: usize = 256 << 10;
/// Says that the peer does not lead: it has not looked at the request.
const NOT_LEADING: HeaderName = HeaderName::from_static("rhumb-not-leading");

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Client,
    Peer,
}

/// A request that can be handed out, perhaps several times.
struct Parcel {
    parts: Parts,
    body: Held,
}

enum Held {
    Whole(Bytes),
    Once(Option<Body>),
}

impl Parcel {
    async fn take(app: &App, request: Request) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = match body.size_hint().exact() {
            Some(0) => Held::Whole(Bytes::new()),
            Some(length) if length <= KEEP as u64 => {
                let mut incoming = Incoming::raw(body);
                let whole = incoming.whole(&parts.headers, KEEP, &app.bodies).await?;
                Held::Whole(whole.bytes)
            }
            Some(_) | None => Held::Once(Some(body)),
        };
        Ok(Self { parts, body })
    }

    /// `None` when its body is gone.
    fn request(&mut self) -> Option<Request> {
        let body = match &mut self.body {
            Held::Whole(bytes) => Body::from(bytes.clone()),
            Held::Once(body) => body.take()?,
        };
        Some(Request::from_parts(self.parts.clone(), body))
    }

    fn put_back(&mut self, unsent: rhumb_cluster::Body) {
        if let Held::Once(body) = &mut self.body {
            *body = Some(Body::new(unsent));
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.body, Held::Once(None))
    }

    /// Whether it is a read that may ask for `eventual`; whether it does is known once it is
    /// parsed.
    fn may_be_late(&self, route: &Route) -> bool {
        let Held::Whole(body) = &self.body else {
            return false;
        };
        let query = self.parts.uri.query().unwrap_or_default();
        matches!(
            route.op,
            Op::Query | Op::Aggregate | Op::GetDocument | Op::GetDocuments
        ) && (query.contains("eventual") || memmem::find(body, b"\"eventual\"").is_some())
    }

    fn is_safe_to_repeat(&self, route: &Route) -> bool {
        !self.is_gone() && (route.reads() || self.parts.headers.contains_key("idempotency-key"))
    }
}

/// What became of one try.
enum Try {
    Answered(Response<Body>),
    /// Whoever was asked does not lead, or could not be reached.
    Elsewhere,
    /// It may have been served, and the answer is lost.
    Lost,
}

pub async fn serve(
    app: &Arc<App>,
    member: &Member,
    arrival: Arrival,
    number: usize,
    request: Request,
    request_id: &str,
) -> Response<Body> {
    let route = &rhumb_api::ROUTES[number];
    let refused = |problem: Problem| Refusal::from(problem).into_response(request_id);
    let Some(name) = collection_of(route, request.uri()) else {
        return super::here(app, app.db.clone(), number, request, request_id).await;
    };
    let slot = member.slot_of(name.as_str());
    if arrival == Arrival::Peer {
        let Leader::Me(term) = member.cluster.board.leader(slot) else {
            return not_leading();
        };
        let answer = super::here(app, app.db.under(term), number, request, request_id).await;
        return match answer.extensions().get::<NotLeading>() {
            Some(NotLeading) => not_leading(),
            None => answer,
        };
    }
    let mut parcel = match Parcel::take(app, request).await {
        Ok(parcel) => parcel,
        Err(problem) => return refused(problem),
    };
    let mut leader = member.cluster.board.subscribe(slot);
    let leads = matches!(&*leader.borrow(), Leader::Me(_));
    if !leads && parcel.may_be_late(route) && member.cluster.is_listed(slot) {
        let request = parcel.request();
        if let Some(answer) = followed(app, number, request, request_id).await {
            return answer;
        }
    }
    let deadline = Instant::now() + HOLD;
    // Some try may have been served, and nobody has said what became of it.
    let mut doubtful = false;
    loop {
        let now = leader.borrow_and_update().clone();
        let tried = try_once(app, member, now, number, &mut parcel, request_id).await;
        let over = match tried {
            Try::Answered(response) if doubtful && !settles(route, response.status()) => true,
            Try::Answered(response) => return response,
            Try::Lost => {
                doubtful = true;
                !parcel.is_safe_to_repeat(route)
            }
            Try::Elsewhere => parcel.is_gone(),
        };
        if over || Instant::now() >= deadline {
            return refused(if doubtful { lost(route) } else { nobody() });
        }
        let news = async {
            tokio::select! {
                // The board lives as long as the cluster does.
                _ = leader.changed() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        };
        // Late is late: the last try is the one above.
        let _ = timeout_at(deadline, news).await;
    }
}

/// From what this node knows of a collection that another one leads.  Whatever it cannot
/// answer, the leader judges.
async fn followed(
    app: &Arc<App>,
    number: usize,
    request: Option<Request>,
    request_id: &str,
) -> Option<Response<Body>> {
    let answer = super::here(app, app.db.following(), number, request?, request_id).await;
    answer.status().is_success().then_some(answer)
}

async fn try_once(
    app: &Arc<App>,
    member: &Member,
    leader: Leader,
    number: usize,
    parcel: &mut Parcel,
    request_id: &str,
) -> Try {
    match leader {
        Leader::Nobody => Try::Elsewhere,
        Leader::Me(term) => {
            let Some(request) = parcel.request().filter(|_| !term.has_ended()) else {
                return Try::Elsewhere;
            };
            let answer = super::here(app, app.db.under(term), number, request, request_id).await;
            match answer.extensions().get::<NotLeading>() {
                Some(NotLeading) => Try::Elsewhere,
                None => Try::Answered(answer),
            }
        }
        Leader::Peer { address, .. } => {
            let Some(request) = parcel.request() else {
                return Try::Elsewhere;
            };
            let request = outgoing(request, &member.peer_name, request_id);
            let request = match request {
                Ok(request) => request,
                Err(problem) => return Try::Answered(Refusal::from(problem).into_response(request_id)),
            };
            match member.peers.send(address, request).await {
                Ok(answer) if answer.headers().contains_key(&NOT_LEADING) => Try::Elsewhere,
                Ok(answer) => Try::Answered(incoming(answer)),
                Err(PeerError::Unsent { request, reason }) => {
                    tracing::debug!(%address, reason, "a leader cannot be reached");
                    parcel.put_back(request.into_body());
                    Try::Elsewhere
                }
                Err(PeerError::Broken(error)) => {
                    tracing::debug!(%address, %error, "a leader went away over a request");
                    Try::Lost
                }
            }
        }
    }
}

/// Whether the answer to a repeat also tells what became of the try before.  Who judges a
/// write finds its key first; who is too busy, or cannot judge, has not looked.
fn settles(route: &Route, answer: StatusCode) -> bool {
    route.reads() || !(answer.is_server_error() || answer == StatusCode::TOO_MANY_REQUESTS)
}

/// The collection that a path names, decoded as its handler will decode it: each spelling of a
/// name leads to the same leader.  What is no name is refused alike by every node.
fn collection_of(route: &Route, uri: &Uri) -> Option<CollectionName> {
    if !route.path.starts_with("/v1/collections/{") {
        return None;
    }
    let parts = path_parts(route.path, uri.path()).ok()?;
    CollectionName::parse(parts.first()?).ok()
}

/// Headers that speak of one connection, not of the request.
const OF_THE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

fn outgoing(
    request: Request,
    peer_name: &str,
    request_id: &str,
) -> Result<Request<rhumb_cluster::Body>, Problem> {
    let (mut parts, body) = request.into_parts();
    let passport = parts.extensions.get::<Caller>().and_then(Caller::passport);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let unusable = |_| Problem::new(Code::Malformed, "the path cannot be passed on");
    parts.uri = format!("https://{peer_name}{path}").parse().map_err(unusable)?;
    for name in &OF_THE_CONNECTION {
        parts.headers.remove(name);
    }
    if let Ok(id) = HeaderValue::try_from(request_id) {
        parts.headers.insert(REQUEST_ID, id);
    }
    // The peer asks nobody again, and needs no secret of theirs.
    parts.headers.remove(header::AUTHORIZATION);
    if let Some(passport) = passport {
        parts.headers.insert(CALLER, passport);
    }
    parts.version = axum::http::Version::HTTP_2;
    parts.extensions.clear();
    Ok(Request::from_parts(
        parts,
        body.map_err(Into::into).boxed_unsync(),
    ))
}

fn incoming(answer: Response<hyper::body::Incoming>) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    for name in &OF_THE_CONNECTION {
        parts.headers.remove(name);
    }
    parts.version = axum::http::Version::default();
    Response::from_parts(parts, Body::new(body))
}

fn not_leading() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response
        .headers_mut()
        .insert(NOT_LEADING, HeaderValue::from_static("true"));
    response
}

fn nobody() -> Problem {
    Problem::new(
        Code::Unavailable,
        "no data node leads this collection at the moment; nothing was applied",
    )
    .hint("repeat the request; a new leader is there within seconds")
}

fn lost(route: &Route) -> Problem {
    let detail = "the data node that leads this collection went away before it answered";
    if route.reads() {
        return Problem::new(Code::Unavailable, detail).hint("repeat the request");
    }
    Problem::new(Code::OutcomeUnknown, detail)
        .hint("repeat the same request with the same Idempotency-Key to settle it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(path: &str) -> Uri {
        path.parse().expect("a path")
    }

    fn route(op: &str) -> &'static Route {
        rhumb_api::ROUTES
            .iter()
            .find(|r| r.op.name() == op)
            .expect("a route")
    }

    #[test]
    fn every_spelling_of_a_name_means_the_same_collection() {
        let of = |op: &str, path: &str| collection_of(route(op), &uri(path)).map(|name| name.to_string());
        for path in ["team-y", "team%2Dy", "%74eam-y", "team%2dy"] {
            let found = of("query", &format!("/v1/collections/{path}/query?x=1"));
            assert_eq!(found.as_deref(), Some("team-y"), "{path}");
            let found = of("put_collection", &format!("/v1/collections/{path}"));
            assert_eq!(found.as_deref(), Some("team-y"), "{path}");
        }
        assert_eq!(of("list_collections", "/v1/collections"), None);
        assert_eq!(of("query", "/v1/collections//query"), None);
        assert_eq!(of("query", "/v1/collections/%zz/query"), None);
        assert_eq!(of("status", "/v1/status"), None);
    }

    #[test]
    fn only_reads_and_keyed_writes_are_repeated() {
        let parcel = |headers: &[(&'static str, &'static str)], body| {
            let mut request = Request::new(Body::empty());
            for (name, value) in headers {
                request
                    .headers_mut()
                    .insert(*name, HeaderValue::from_static(value));
            }
            let (parts, _) = request.into_parts();
            Parcel { parts, body }
        };
        let whole = || Held::Whole(Bytes::new());
        let (read, write) = (route("query"), route("write_documents"));
        assert!(parcel(&[], whole()).is_safe_to_repeat(read));
        assert!(!parcel(&[], whole()).is_safe_to_repeat(write));
        assert!(parcel(&[("idempotency-key", "k")], whole()).is_safe_to_repeat(write));
        assert!(!parcel(&[("idempotency-key", "k")], Held::Once(None)).is_safe_to_repeat(write));
    }

    #[test]
    fn a_busy_leader_does_not_settle_a_write_that_another_may_have_served() {
        let (read, write) = (route("query"), route("write_documents"));
        for (status, settled) in [(200, true), (412, true), (422, true), (429, false), (503, false)] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(settles(write, status), settled, "{status}");
            assert!(settles(read, status), "{status}");
        }
    }

    #[test]
    fn what_speaks_of_one_connection_stays_there() {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri("/v1/collections/a/query?consistency=strong");
        request
            .headers_mut()
            .insert("connection", HeaderValue::from_static("close"));
        request
            .headers_mut()
            .insert("rhumb-session", HeaderValue::from_static("t"));
        let out = outgoing(request, "words-nodes.prod.svc", "r1").expect("passed on");
        assert_eq!(
            out.uri().to_string(),
            "https://words-nodes.prod.svc/v1/collections/a/query?consistency=strong"
        );
        assert!(!out.headers().contains_key("connection"));
        assert_eq!(out.headers()["rhumb-session"], "t");
        assert_eq!(out.headers()["x-request-id"], "r1");
        assert!(!out.headers().contains_key(CALLER));
    }

    #[test]
    fn whoever_asks_travels_without_their_secret() {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri("/v1/collections/a/query");
        request
            .headers_mut()
            .insert("authorization", HeaderValue::from_static("Bearer secret"));
        request.extensions_mut().insert(Caller::anybody());
        let out = outgoing(request, "words-nodes.prod.svc", "r1").expect("passed on");
        assert!(!out.headers().contains_key("authorization"));
        assert!(out.headers().contains_key(CALLER));
    }
}
