//! Before every handler, in this one place: who asks, may they, how much have they asked.
//!
//! Whoever is let in gets a [`Caller`] put on the request; without one a handler answers
//! nothing.  Between data nodes the first one asks and decides; the one that answers trusts
//! the certificate of its peer and takes the caller from a header that no client's request
//! can carry this far.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body::Body as _;
use http_body_util::BodyExt;
use rhumb_api::{ROUTES, Route};
use rhumb_auth::audit::Outcome;
use rhumb_auth::{Bound, Decision, Denied, Identity, Over, Pace, Rule, Subject, Target, authorise, rule};
use rhumb_core::{Code, DocId, Document, Filter, Json, Limits, Problem, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::erase::CERTIFICATE;
use super::forward::Arrival;
use super::params::path_parts;
use super::problem::{Refusal, Refused};
use super::{App, call};
use crate::guard::{AuditEntry, Guard, Place, Unlet};

/// Carries a [`Passport`] from one data node to another.
pub const CALLER: HeaderName = HeaderName::from_static("rhumb-caller");

/// Who asks, and which rows they may know of.
#[derive(Clone, Debug)]
pub struct Caller {
    pub identity: Arc<Identity>,
    /// As it was granted, claims put in.
    row_filter: Option<Arc<Value>>,
}

/// A caller on the way to another node.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Passport {
    subject: Subject,
    row_filter: Option<Value>,
    /// When whoever serves has to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pace: Option<Pace>,
}

/// Of a connection.
#[derive(Clone, Debug)]
pub struct Wire {
    pub address: IpAddr,
    /// In the client's certificate.
    pub certificate: Option<Arc<str>>,
}

/// Put on an answer by a handler that learns who somebody is.
#[derive(Clone, Debug)]
pub struct Acted(pub Subject);

/// Put on an answer, refusals too: what the audit is to say besides who did what.
#[derive(Clone, Debug)]
pub struct Detail(pub String);

impl Caller {
    pub fn anybody() -> Self {
        Self {
            identity: Arc::new(Identity::anybody()),
            row_filter: None,
        }
    }

    /// As a node that asks for no keys calls everybody: one that does must not serve for it.
    fn is_anybody(&self) -> bool {
        self.identity.subject == Subject::anybody()
    }

    pub fn is_scoped(&self) -> bool {
        self.row_filter.is_some()
    }

    /// The rows it may know of under this schema.  A filter that cannot be read under it
    /// (its field does not exist, or has another type) lets nothing through.
    pub fn scope(&self, schema: &Schema, limits: &Limits) -> Option<Filter> {
        let filter = self.row_filter.as_ref()?;
        let parsed = Filter::parse_json(&Json::from(filter.as_ref().clone()), schema, limits);
        Some(parsed.unwrap_or_else(|problem| {
            tracing::debug!(%problem, "a row filter does not fit a collection: nobody passes it");
            Filter::nothing()
        }))
    }

    /// What tells its scans and idempotency keys from those of others.
    pub fn mark(&self) -> String {
        match &self.row_filter {
            Some(filter) => format!("{} {filter}", self.identity.subject),
            None => self.identity.subject.to_string(),
        }
    }

    /// For [`CALLER`].
    pub fn passport(&self) -> Option<HeaderValue> {
        let pace = self.identity.pace;
        let passport = Passport {
            subject: self.identity.subject.clone(),
            row_filter: self.row_filter.as_ref().map(|filter| filter.as_ref().clone()),
            pace: pace.counts_where_served().then_some(pace),
        };
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&passport).ok()?);
        HeaderValue::try_from(text).ok()
    }

    fn from_passport(value: &HeaderValue) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(value.as_bytes()).ok()?;
        let passport: Passport = serde_json::from_slice(&bytes).ok()?;
        Some(Self {
            identity: Arc::new(Identity {
                subject: passport.subject,
                grants: Vec::new(),
                roles: Vec::new(),
                pace: passport.pace.unwrap_or_default(),
                ..Identity::anybody()
            }),
            row_filter: passport.row_filter.map(Arc::new),
        })
    }
}

/// The documents of a write that lie outside a scope, told apart before any is written.
pub fn first_outside<'a>(scope: &Filter, documents: &'a [(DocId, Document)]) -> Option<&'a DocId> {
    let outside = documents
        .iter()
        .find(|(id, document)| !scope.matches(id, document));
    outside.map(|(id, _)| id)
}

pub fn outside(id: &DocId) -> Problem {
    let id = rhumb_core::problem::shorten(&id.to_string());
    Problem::new(
        Code::Forbidden,
        format!("document '{id}' is, or would be, outside the rows these credentials may write; nothing was written"),
    )
    .hint("write documents that match the row filter of your role, under ids of your own")
}

/// Lets a request in and has it answered, or refuses it.
pub async fn serve(
    app: &Arc<App>,
    arrival: Arrival,
    number: usize,
    mut request: Request,
    request_id: &str,
) -> Response<Body> {
    let route = &ROUTES[number];
    let passport = request.headers_mut().remove(&CALLER);
    let Some(guard) = app.guard.clone() else {
        request.extensions_mut().insert(Caller::anybody());
        return super::answer(app, arrival, number, request, request_id).await;
    };
    if arrival == Arrival::Peer {
        // Peers pass on what is about a collection, and nothing else.
        let is_passed_on = matches!(rule(route.op), Rule::Collection(_) | Rule::WholeCollection(_));
        let caller = passport
            .as_ref()
            .filter(|_| is_passed_on)
            .and_then(Caller::from_passport)
            .filter(|caller| !caller.is_anybody());
        let Some(caller) = caller else {
            let refusal = unauthenticated("the peer does not say who asks");
            return refuse(app, request, refusal, request_id);
        };
        if let Err(over) = guard.admit_passed_on(&caller.identity) {
            return refuse(app, request, over_pace(over), request_id);
        }
        request.extensions_mut().insert(caller);
        return super::answer(app, arrival, number, request, request_id).await;
    }
    let mut told = Told {
        subject: "nobody".to_owned(),
        target: target_text(route, &request),
        denied: None,
    };
    let admitted = match (rule(route.op), Proof::of(&request)) {
        // Whatever credentials come along: nobody asked for any.
        (Rule::Open, _) => Ok((Caller::nobody(), None)),
        (_, Ok(proof)) => admit(&guard, route, &proof, &mut told)
            .await
            .map(|(caller, place)| (caller, Some(place))),
        (_, Err(refusal)) => Err(refusal),
    };
    let response = match admitted {
        Err(refusal) => refuse(app, request, refusal, request_id),
        Ok((caller, place)) => {
            let mut request = counted(&guard, &caller, request);
            request.extensions_mut().insert(caller);
            let response = super::answer(app, arrival, number, request, request_id).await;
            drop(place);
            response
        }
    };
    told.record(&guard, route, &response, request_id);
    response
}

/// What the audit will want to know.
struct Told {
    subject: String,
    target: String,
    denied: Option<String>,
}

impl Told {
    fn record(self, guard: &Guard, route: &'static Route, response: &Response<Body>, request_id: &str) {
        let status = response.status().as_u16();
        let denied = self.denied.is_some() || matches!(status, 401 | 403);
        let reads = route.reads();
        // Probes would drown everything else.
        let is_probe = rule(route.op) == Rule::Open && reads;
        if is_probe || (reads && !denied && !guard.audit_reads) {
            return;
        }
        let acted = response.extensions().get::<Acted>();
        guard.audit.record(AuditEntry {
            subject: acted.map_or(self.subject, |acted| acted.0.to_string()),
            action: route.op.name(),
            target: self.target,
            outcome: match status {
                _ if denied => Outcome::Denied,
                200..400 => Outcome::Done,
                _ => Outcome::Failed,
            },
            status,
            reason: self
                .denied
                .or_else(|| {
                    response
                        .extensions()
                        .get::<Detail>()
                        .map(|detail| detail.0.clone())
                })
                .or_else(|| certificate_of(response))
                .unwrap_or_default(),
            request_id: request_id.to_owned(),
        });
    }
}

fn certificate_of(response: &Response<Body>) -> Option<String> {
    let named = response.headers().get(&CERTIFICATE)?.to_str().ok()?;
    Some(format!("certificate {named}"))
}

async fn admit(
    guard: &Arc<Guard>,
    route: &Route,
    proof: &Proof,
    told: &mut Told,
) -> Refused<(Caller, Place)> {
    let identity = match identify(guard, proof).await {
        Ok(identity) => identity,
        Err(refusal) => {
            told.denied = Some(refusal.problem().detail.clone());
            return Err(refusal);
        }
    };
    told.subject = identity.subject.to_string();
    let place = guard.admit(&identity).map_err(over_pace)?;
    let parts = path_parts(route.path, &proof.path)?;
    let first = parts.first().map(String::as_str);
    let directory = guard.directory();
    let target = match first {
        Some(name) if route.path.starts_with("/v1/collections/") => Target::Collection(name),
        Some(name) if route.path.starts_with("/v1/groups/") => {
            let owner = directory.groups.get(name).and_then(|group| group.owner.as_ref());
            Target::Group {
                owner: owner.map(|owner| owner.as_str()),
            }
        }
        _ => Target::Nothing,
    };
    match authorise(&identity, route.op, target) {
        Decision::Allow { row_filter } => Ok((
            Caller {
                identity: Arc::new(identity),
                row_filter: row_filter.map(Arc::new),
            },
            place,
        )),
        Decision::Forbidden => {
            told.denied = Some("no grant allows it".to_owned());
            Err(forbidden().into())
        }
        Decision::Hidden => {
            told.denied = Some("no grant on the collection".to_owned());
            Err(rhumb_engine::collection_not_found(first.unwrap_or_default()).into())
        }
    }
}

impl Caller {
    /// Of a route that asks for nobody.
    fn nobody() -> Self {
        Self {
            identity: Arc::new(Identity {
                subject: Subject::anybody(),
                grants: Vec::new(),
                roles: Vec::new(),
                ..Identity::anybody()
            }),
            row_filter: None,
        }
    }
}

/// What a request says about who sends it, and where to.
struct Proof {
    bearer: Option<Zeroizing<String>>,
    certificate: Option<Arc<str>>,
    path: String,
}

impl Proof {
    fn of(request: &Request) -> Refused<Self> {
        let wire = request.extensions().get::<Wire>();
        Ok(Self {
            bearer: bearer(request.headers())?.map(|token| Zeroizing::new(token.to_owned())),
            certificate: wire.and_then(|wire| wire.certificate.clone()),
            path: request.uri().path().to_owned(),
        })
    }
}

async fn identify(guard: &Guard, proof: &Proof) -> Refused<Identity> {
    let bearer = proof.bearer.as_ref().map(|token| token.as_str());
    let certificate = proof.certificate.as_deref();
    guard
        .authenticate(bearer, certificate)
        .await
        .map_err(|unlet| match unlet {
            Unlet::Denied(Denied::Missing) => unauthenticated("there are no credentials"),
            Unlet::Denied(why) => unauthenticated(&why.to_string()),
            Unlet::Token(why) => unauthenticated(&why.to_string()),
            Unlet::Unavailable(why) => Problem::new(Code::Unavailable, why).into(),
        })
}

fn bearer(headers: &HeaderMap) -> Refused<Option<&str>> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), second) = (all.next(), all.next()) else {
        return Ok(None);
    };
    if second.is_some() {
        return Err(unauthenticated("the header Authorization is there twice"));
    }
    let parsed = value.to_str().ok().and_then(|text| text.split_once(' '));
    match parsed.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        Some((_, token)) => Ok(Some(token.trim())),
        None => Err(unauthenticated("the header Authorization is not `Bearer …`")),
    }
}

pub fn unauthenticated(why: &str) -> Refusal {
    Problem::new(Code::Unauthenticated, why)
        .hint("send Authorization: Bearer <API key or token>")
        .into()
}

pub fn forbidden() -> Problem {
    Problem::new(Code::Forbidden, "these credentials do not allow this")
        .hint("GET /v1/whoami lists what they allow")
}

fn over_pace(Over { bound, most, wait }: Over) -> Refusal {
    too_many(
        wait,
        &format!("these credentials have reached what was set for them, {most} {bound}"),
    )
}

pub fn too_many(wait: Duration, what: &str) -> Refusal {
    let problem = Problem::new(Code::TooManyRequests, format!("{what}; nothing was applied"))
        .hint("wait as long as Retry-After says");
    Refusal::from(problem).after(wait)
}

fn refuse(app: &App, request: Request, refusal: Refusal, request_id: &str) -> Response<Body> {
    call::let_go(request, app);
    refusal.into_response(request_id)
}

/// The body's bytes are paid for as they come, where they have a price.
fn counted(guard: &Arc<Guard>, caller: &Caller, request: Request) -> Request {
    if caller.identity.pace.bytes_per_s.is_none() || request.body().is_end_stream() {
        return request;
    }
    let (guard, subject) = (guard.clone(), caller.identity.subject.clone());
    request.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                guard.spend(&subject, Bound::Bytes, data.len() as f64);
            }
            frame
        }))
    })
}

/// The first part of the path that varies, as it was sent.
fn target_text(route: &Route, request: &Request) -> String {
    let at = route.path.split('/').position(|part| part.starts_with('{'));
    let part = at.and_then(|at| request.uri().path().split('/').nth(at));
    part.map(rhumb_core::problem::shorten).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn caller(filter: Option<Value>) -> Caller {
        Caller {
            identity: Arc::new(Identity {
                subject: Subject::user("ada"),
                ..Identity::anybody()
            }),
            row_filter: filter.map(Arc::new),
        }
    }

    #[test]
    fn a_caller_arrives_at_a_peer_with_its_row_filter_and_without_grants() {
        let sent = caller(Some(json!({"tenant": "a\"b"})));
        let arrived = Caller::from_passport(&sent.passport().expect("a header")).expect("read");
        assert_eq!(arrived.mark(), sent.mark());
        assert!(arrived.is_scoped() && arrived.identity.grants.is_empty());
        assert!(!arrived.is_anybody());
        assert!(arrived.identity.pace.is_boundless());
        assert!(Caller::from_passport(&HeaderValue::from_static("eyJ9")).is_none());
    }

    #[test]
    fn a_pace_travels_where_the_peer_has_to_count() {
        let arrived_with = |pace: Pace| {
            let mut sent = caller(None);
            sent.identity = Arc::new(Identity {
                pace,
                ..sent.identity.as_ref().clone()
            });
            let header = sent.passport().expect("a header");
            Caller::from_passport(&header).expect("read").identity.pace
        };
        let rows = Pace {
            rows_per_s: Some(7),
            requests_per_s: Some(1),
            ..Pace::default()
        };
        assert_eq!(arrived_with(rows), rows);
        let requests = Pace {
            rows_per_s: None,
            ..rows
        };
        assert_eq!(arrived_with(requests), Pace::default());
    }

    #[test]
    fn whoever_comes_through_an_open_node_is_known_as_such() {
        let sent = Caller::anybody().passport().expect("a header");
        assert!(Caller::from_passport(&sent).expect("read").is_anybody());
    }

    #[test]
    fn a_row_filter_that_does_not_fit_lets_nothing_through() {
        let (schema, limits) = (Schema::default(), Limits::default());
        for filter in [
            json!({"tenant": "x"}),
            json!({"$not": {"tenant": "x"}}),
            json!({"$nope": 1}),
        ] {
            let scope = caller(Some(filter)).scope(&schema, &limits).expect("scoped");
            assert!(!scope.matches(&"a".into(), &Document::default()));
        }
        assert!(caller(None).scope(&schema, &limits).is_none());
    }

    #[test]
    fn credentials_come_once_and_as_bearer() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            headers
        };
        assert_eq!(bearer(&headers(&[])).expect("none"), None);
        assert_eq!(bearer(&headers(&["Bearer k"])).expect("one"), Some("k"));
        assert_eq!(bearer(&headers(&["bearer  k "])).expect("one"), Some("k"));
        for wrong in [&["Basic k"][..], &["Bearer"], &["Bearer a", "Bearer b"], &["k"]] {
            assert!(bearer(&headers(wrong)).is_err(), "{wrong:?}");
        }
    }
}
