//! One request on its way through: what it asks, what it has seen, what took how long.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use parking_lot::Mutex;
use rhumb_api::{Op, Route};
use rhumb_core::query::{Consistency, Include, Stored};
use rhumb_core::{Code, CollectionName, DocId, Filter, Json, Position, Problem, Schema};
use rhumb_engine::{Collection, Database, EngineError, Reading};
use tokio::time::Instant;

use super::access::{Caller, Detail, Wire};
use super::answer::Answer;
use super::bill::{Bill, Meter};
use super::body::{Incoming, Whole, encoding};
use super::members;
use super::params::{Params, path_parts};
use super::problem::Refused;
use super::session::{self, Session};
use super::{App, SERVER_TIMING, SESSION, gate};

/// Bodies above this are parsed off the request threads: a millisecond there delays
/// everybody else's.
pub const LARGE_BODY: usize = 256 << 10;

pub struct Call {
    pub app: Arc<App>,
    /// In a cluster, under the term that covers this request.
    pub db: Database,
    pub route: &'static Route,
    pub headers: HeaderMap,
    pub params: Params,
    pub request_id: String,
    pub caller: Caller,
    /// How the client is connected; unknown of a request from a peer.
    pub wire: Option<Wire>,
    pub timing: Timing,
    pub bill: Bill,
    /// Decoded, in the order of the pattern.
    path: Vec<String>,
    session: Session,
    has_seen: bool,
    /// For the audit: what path and status do not say.
    pub detail: Option<String>,
    /// Behind a lock only because a body cannot be shared between threads otherwise.
    body: Mutex<Unread>,
}

enum Unread {
    Whole(Body),
    /// Begun, and perhaps left in the middle.
    Begun(Incoming),
    Done,
}

/// How long the steps took that this request had.
#[derive(Debug, Default)]
pub struct Timing {
    pub parse: Duration,
    pub plan: Option<Duration>,
    pub search: Option<Duration>,
    pub fetch: Option<Duration>,
    pub write: Option<Duration>,
}

/// Of whoever has shown no key yet, and of what describes people and keys, a body is short.
fn largest_body(op: Op) -> usize {
    match op {
        Op::Login | Op::RefreshToken => 16 << 10,
        Op::CreateKey | Op::RotateKey | Op::PutUser | Op::PutGroup | Op::PutRole => 1 << 20,
        _ => usize::MAX,
    }
}

impl Call {
    pub fn new(
        app: Arc<App>,
        db: Database,
        route: &'static Route,
        request: Request,
        request_id: &str,
    ) -> Refused<Self> {
        let (mut parts, body) = request.into_parts();
        let Some(caller) = parts.extensions.remove::<Caller>() else {
            drain(Unread::Whole(body), &parts.headers, &app);
            return Err(Problem::new(
                Code::Internal,
                "a request came by no way that asks who it is from",
            )
            .into());
        };
        let made = Self::parse(&app, route, &parts.uri, &parts.headers);
        let (path, params, session) = match made {
            Ok(made) => made,
            Err(problem) => {
                drain(Unread::Whole(body), &parts.headers, &app);
                return Err(problem.into());
            }
        };
        let bill = Bill::begin(Meter::of(app.guard.as_ref(), &caller.identity));
        Ok(Self {
            app,
            db,
            route,
            headers: parts.headers,
            params,
            request_id: request_id.to_owned(),
            caller,
            wire: parts.extensions.remove::<Wire>(),
            timing: Timing::default(),
            bill,
            path,
            session,
            has_seen: false,
            detail: None,
            body: Mutex::new(Unread::Whole(body)),
        })
    }

    fn parse(
        app: &App,
        route: &Route,
        uri: &axum::http::Uri,
        headers: &HeaderMap,
    ) -> Result<(Vec<String>, Params, Session), Problem> {
        if app.tasks.stopping().is_cancelled() && route.path.starts_with("/v1/") {
            return Err(Problem::new(Code::Unavailable, "the server is stopping"));
        }
        let path = path_parts(route.path, uri.path())?;
        if path.iter().any(String::is_empty) {
            return Err(Problem::new(Code::RouteNotFound, "a part of the path is empty"));
        }
        // Probes and scrapers may add what they like; the API ignores nothing.
        let params = if route.path.starts_with("/v1/") {
            Params::parse(uri.query(), route)?
        } else {
            Params::default()
        };
        let session = match header_text(headers, session::HEADER)? {
            Some(text) if !text.is_empty() => Session::parse(text)?,
            _ => Session::default(),
        };
        Ok((path, params, session))
    }

    /// The part of the path at the `n`th place that varies.
    pub fn path(&self, n: usize) -> &str {
        self.path.get(n).map_or("", String::as_str)
    }

    pub fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        header_text(&self.headers, name)
    }

    pub fn collection_name(&self) -> Result<CollectionName, Problem> {
        CollectionName::parse(self.path(0))
    }

    pub async fn collection(&self) -> Refused<Arc<Collection>> {
        Ok(self.db.collection(&self.collection_name()?).await?)
    }

    /// A snapshot to answer from.  Type the request under a schema from before this: the
    /// snapshot then knows every field of it.
    pub async fn read(
        &mut self,
        collection: &Collection,
        consistency: Option<Consistency>,
    ) -> Refused<Reading> {
        let wanted = match (consistency, self.consistency()?) {
            (Some(body), Some(param)) if body != param => {
                let detail = "the body and the query string ask for different consistency";
                return Err(Problem::new(Code::InvalidValue, detail)
                    .field("consistency")
                    .into());
            }
            (of_body, of_param) => of_body.or(of_param).unwrap_or_default(),
        };
        let seen = self.session.positions(&collection.entry().id);
        let reading = collection.read(wanted, seen).await?;
        self.saw(collection, &reading.positions());
        Ok(reading)
    }

    /// The rows that whoever asks may know of; all of them when `None`.
    pub fn scope(&self, schema: &Schema) -> Option<Filter> {
        self.caller.scope(schema, &self.app.limits)
    }

    /// What the next read of this session must see.
    pub fn saw(&mut self, collection: &Collection, positions: &[(u32, Position)]) {
        self.session.saw(&collection.entry().id, positions);
        self.has_seen = true;
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// `consistency` of the query string.
    pub fn consistency(&self) -> Result<Option<Consistency>, Problem> {
        self.params
            .get_filled("consistency")
            .map(members::consistency)
            .transpose()
    }

    /// A place among the queries that run; held for as long as one does.
    pub async fn place(&mut self) -> Refused<gate::Place> {
        self.bill.pause();
        let place = self.app.gate.enter(|| self.caller.mark()).await?;
        self.bill.resume();
        Ok(place)
    }

    /// The longest that a read without a time of its own may take.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.app.limits.timeout_ms)
    }

    /// A JSON body as bytes.
    pub async fn whole_body(&mut self) -> Refused<Whole> {
        self.is_json()?;
        let cap = self.app.limits.body_bytes.min(largest_body(self.route.op));
        let budget = self.app.bodies.clone();
        let headers = self.headers.clone();
        self.bill.pause();
        let whole = self.incoming()?.whole(&headers, cap, &budget).await?;
        self.bill.resume();
        *self.body.get_mut() = Unread::Done;
        let length = whole.bytes.len() as u64;
        self.app
            .metrics
            .body_bytes
            .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        Ok(whole)
    }

    /// A JSON body, parsed.
    pub async fn json_body(&mut self) -> Refused<Json> {
        let whole = self.whole_body().await?;
        self.parse_json(whole).await
    }

    async fn parse_json(&mut self, whole: Whole) -> Refused<Json> {
        let begin = Instant::now();
        let limits = self.app.limits.clone();
        let json = if whole.bytes.len() > LARGE_BODY {
            self.app
                .tasks
                .compute(move || Json::parse(&whole.bytes, &limits))
                .await??
        } else {
            Json::parse(&whole.bytes, &limits)?
        };
        self.timing.parse = begin.elapsed();
        Ok(json)
    }

    /// A JSON body that may be left out: then `{}`.
    pub async fn optional_json_body(&mut self) -> Refused<Json> {
        let whole = self.whole_body().await?;
        if whole.bytes.is_empty() {
            Ok(Json::Object(Vec::new()))
        } else {
            self.parse_json(whole).await
        }
    }

    /// The body as it arrives.  What is left of it when the answer is ready is drained.
    fn incoming(&mut self) -> Refused<&mut Incoming> {
        // First: a body that cannot be decoded must stay, to be drained.
        encoding(&self.headers)?;
        if let Unread::Whole(body) = std::mem::replace(self.body.get_mut(), Unread::Done) {
            *self.body.get_mut() = Unread::Begun(Incoming::new(&self.headers, body)?);
        }
        match self.body.get_mut() {
            Unread::Begun(incoming) => Ok(incoming),
            Unread::Whole(_) | Unread::Done => {
                Err(Problem::new(Code::Internal, "a request's body was read twice").into())
            }
        }
    }

    /// The body, for a task that outlives the handler.
    pub fn take_incoming(&mut self) -> Refused<Incoming> {
        self.incoming()?;
        match std::mem::replace(self.body.get_mut(), Unread::Done) {
            Unread::Begun(incoming) => Ok(incoming),
            Unread::Whole(_) | Unread::Done => {
                Err(Problem::new(Code::Internal, "a request's body was read twice").into())
            }
        }
    }

    /// The media type, in lower case and without parameters.
    pub fn content_type(&self) -> Result<Option<String>, Problem> {
        let text = self.header(header::CONTENT_TYPE.as_str())?;
        let essence = |text: &str| {
            text.split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        };
        Ok(text.map(essence).filter(|essence| !essence.is_empty()))
    }

    fn is_json(&self) -> Result<(), Problem> {
        let refused = |detail: String| {
            Problem::new(Code::UnsupportedMediaType, detail)
                .field("Content-Type")
                .hint("send Content-Type: application/json")
        };
        let charset = self.header(header::CONTENT_TYPE.as_str())?.and_then(|text| {
            text.split(';').skip(1).find_map(|p| {
                p.trim()
                    .to_ascii_lowercase()
                    .strip_prefix("charset=")
                    .map(str::to_owned)
            })
        });
        if let Some(charset) =
            charset.filter(|c| !matches!(c.trim_matches('"'), "utf-8" | "utf8" | "us-ascii"))
        {
            return Err(refused(format!(
                "JSON is UTF-8, not {}",
                rhumb_core::problem::shorten(&charset)
            )));
        }
        match self.content_type()? {
            None => Ok(()),
            Some(essence) if essence == "application/json" => Ok(()),
            // What curl -d says when it is told nothing.  A browser's form says where it
            // comes from: a foreign page must not write to a server on loopback.
            Some(essence) if essence == "application/x-www-form-urlencoded" && !self.is_from_a_page() => {
                Ok(())
            }
            Some(essence) => Err(refused(format!(
                "this route takes application/json, not {}",
                rhumb_core::problem::shorten(&essence)
            ))),
        }
    }

    fn is_from_a_page(&self) -> bool {
        ["origin", "referer", "sec-fetch-site"]
            .iter()
            .any(|name| self.headers.contains_key(*name))
    }

    /// The answer with what every answer carries; the rest of the body is let go.
    pub fn finish(self, mut answer: Answer, begin: Instant) -> Response<Body> {
        if let Some(detail) = self.detail {
            answer.extensions_mut().insert(Detail(detail));
        }
        let headers = answer.headers_mut();
        headers.insert(SERVER_TIMING, self.timing.header(begin.elapsed()));
        if matches!(
            self.route.op,
            Op::Login | Op::RefreshToken | Op::CreateKey | Op::RotateKey
        ) {
            // A secret is for whoever asked, not for a proxy that remembers.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if self.has_seen
            && let Ok(token) = HeaderValue::try_from(self.session.token())
        {
            headers.insert(SESSION, token);
        }
        drain(self.body.into_inner(), &self.headers, &self.app);
        answer
    }
}

/// Lets go of a request that no operation takes.
pub fn let_go(request: Request, app: &App) {
    let (parts, body) = request.into_parts();
    drain(Unread::Whole(body), &parts.headers, app);
}

fn drain(body: Unread, headers: &HeaderMap, app: &App) {
    let incoming = match body {
        Unread::Whole(body) if !body.is_end_stream() => Incoming::raw(body),
        Unread::Begun(incoming) => incoming,
        Unread::Whole(_) | Unread::Done => return,
    };
    // A client that waits for a go-ahead has sent nothing yet, and now never will.
    if headers.get(header::EXPECT).is_none() || incoming.has_begun() {
        incoming.drain(&app.tasks);
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    value.to_str().map(Some).map_err(|_| {
        Problem::new(
            Code::Malformed,
            format!("the header {name} holds more than visible ASCII"),
        )
        .field(name)
    })
}

impl Timing {
    fn header(&self, total: Duration) -> HeaderValue {
        let steps = [
            ("parse", Some(self.parse)),
            ("plan", self.plan),
            ("search", self.search),
            ("fetch", self.fetch),
            ("write", self.write),
            ("total", Some(total)),
        ];
        let mut text = String::with_capacity(96);
        for (name, took) in steps {
            if let Some(took) = took {
                if !text.is_empty() {
                    text.push_str(", ");
                }
                text.push_str(name);
                text.push_str(";dur=");
                push_ms(&mut text, took);
            }
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("total"))
    }
}

pub fn total(took: Duration) -> HeaderValue {
    Timing::default().header(took)
}

/// Milliseconds with three digits; float formatting would cost more than the request's
/// routing.
fn push_ms(out: &mut String, took: Duration) {
    use std::fmt::Write as _;
    let micros = took.as_micros();
    // Writing to a string cannot fail.
    let _ = write!(out, "{}.{:03}", micros / 1000, micros % 1000);
}

/// Documents by their ids; those outside the scope are as if absent.
pub async fn get_within(
    reading: &Reading,
    scope: Option<&Filter>,
    ids: &[DocId],
    include: &Include,
) -> Result<Vec<Option<Stored>>, EngineError> {
    let Some(scope) = scope else {
        return reading.get(ids, include).await;
    };
    // The filter may need what was not asked for; what is not asked for is not shown.
    let mut found = reading.get(ids, &Include::Everything).await?;
    for stored in &mut found {
        if stored
            .as_ref()
            .is_some_and(|s| !scope.matches(&s.id, &s.document))
        {
            *stored = None;
        }
    }
    Ok(found)
}

/// A read that may not take longer than `patience`; a write is never cut short.
pub async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    tokio::time::timeout(patience, work)
        .await
        .unwrap_or(Err(EngineError::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_names_the_steps_that_were_taken() {
        let timing = Timing {
            parse: Duration::from_micros(120),
            search: Some(Duration::from_micros(1_005)),
            ..Timing::default()
        };
        let header = timing.header(Duration::from_millis(2));
        assert_eq!(header, "parse;dur=0.120, search;dur=1.005, total;dur=2.000");
    }
}
