//! Many small cases against one server.  A case is a request and what must hold of its
//! answer; a case that fails is noted with its whole exchange and the others go on.
//!
//! Whatever a case asks for, every answer is also held against the rules that hold for
//! all: no 5xx, a well-formed problem when refused, `Allow` with 405, and so on.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;

use crate::client::{Answer, Client, NoAnswer};
use crate::compare::{close, ids_at, same};
use crate::rules::rule_broken_by;
use crate::s3::S3Server;
use crate::server::{Server, Spec, Store};
use crate::temp::TempDir;

/// Reported in full; of more only the number.
const SHOWN_FAILURES: usize = 40;

pub struct Suite {
    name: &'static str,
    server: tokio::sync::Mutex<Server>,
    client: Client,
    log: Mutex<Log>,
    begin: Instant,
    // Both outlive the server: fields are dropped in this order.
    _s3: Option<S3Server>,
    _home: TempDir,
}

#[derive(Default)]
struct Log {
    cases: usize,
    checks: usize,
    failures: Vec<String>,
}

impl Suite {
    /// A fresh server over a folder, or over what `RHUMB_E2E_STORE` says (`file`, `memory`,
    /// `s3`).
    pub async fn start(name: &'static str) -> Self {
        Self::try_start(name).await.expect("the server under test starts")
    }

    async fn try_start(name: &'static str) -> Result<Self> {
        let home = TempDir::new(name)?;
        let mut s3 = None;
        let store = match std::env::var("RHUMB_E2E_STORE").as_deref() {
            Ok("memory") => Store::Memory,
            Ok("s3") => s3.insert(S3Server::start(home.path()).await?).store("suite"),
            _ => Store::Folder(home.folder("store")?),
        };
        let server = Server::start(Spec::new(store, home.path())?).await?;
        let client = server.client().clone();
        let log = Mutex::default();
        let server = tokio::sync::Mutex::new(server);
        Ok(Self {
            name,
            server,
            client,
            log,
            begin: Instant::now(),
            _s3: s3,
            _home: home,
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn case(&self, name: impl Into<String>) -> Case<'_> {
        self.log().cases += 1;
        Case {
            suite: self,
            name: name.into(),
            method: Method::GET,
            path: String::new(),
            headers: vec![],
            body: None,
        }
    }

    /// A fact that is not about one exchange.
    pub fn check(&self, name: &str, holds: bool, detail: impl FnOnce() -> String) {
        let failures = if holds {
            Vec::new()
        } else {
            vec![format!("{name}\n  {}", detail())]
        };
        self.note(1, failures);
    }

    /// The result of a generator of cases.
    pub fn note(&self, cases: usize, failures: Vec<String>) {
        let mut log = self.log();
        log.cases += cases;
        log.checks += cases;
        log.failures.extend(failures);
    }

    pub async fn create(&self, collection: &str, definition: Value) {
        let path = format!("/v1/collections/{collection}");
        self.case(format!("collection {collection} is created"))
            .put(&path, definition)
            .await
            .status(201);
    }

    /// A write that must succeed; its answer.
    pub async fn write(&self, collection: &str, body: Value) -> Value {
        let path = format!("/v1/collections/{collection}/documents");
        self.case(format!("a write to {collection}"))
            .post(&path, body)
            .await
            .status(200)
            .json()
    }

    /// SIGTERM, a clean end, and a new process over the same store.
    pub async fn restart(&self) {
        let mut server = self.server.lock().await;
        let end = server.terminate().await.expect("SIGTERM ends the server");
        self.check(
            "SIGTERM ends the server with status 0",
            end.code() == Some(0),
            || end.to_string(),
        );
        server.restart().await.expect("the server starts again");
    }

    /// Ends the server and fails the test if any case failed, or the server panicked, or
    /// did not end cleanly.
    pub async fn finish(self) {
        let ready = self.client.get("/readyz").send().await;
        let lives = matches!(&ready, Ok(answer) if answer.status == 200);
        self.check("the server lives to the end", lives, || format!("{ready:?}"));
        let mut server = self.server.lock().await;
        let panics = server.process().panics();
        self.check("the server never panicked", panics.is_empty(), || {
            panics.join("\n")
        });
        let end = server.terminate().await;
        let clean = matches!(&end, Ok(status) if status.code() == Some(0));
        self.check("SIGTERM ends the server with status 0", clean, || {
            format!("{end:?}")
        });

        let log = self.log();
        let took = self.begin.elapsed();
        eprintln!(
            "{}: {} cases, {} checks, {took:.1?}",
            self.name, log.cases, log.checks
        );
        if !log.failures.is_empty() {
            let shown = log.failures[..log.failures.len().min(SHOWN_FAILURES)].join("\n\n");
            panic!(
                "{}: {} of {} checks failed\n\n{shown}\n",
                self.name,
                log.failures.len(),
                log.checks
            );
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being described; awaiting it sends it.
pub struct Case<'a> {
    suite: &'a Suite,
    name: String,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<(Bytes, String)>,
}

impl<'a> Case<'a> {
    pub fn get(self, path: &str) -> Self {
        self.to(Method::GET, path)
    }

    pub fn delete(self, path: &str) -> Self {
        self.to(Method::DELETE, path)
    }

    pub fn post(self, path: &str, body: Value) -> Self {
        self.to(Method::POST, path).json(&body)
    }

    pub fn put(self, path: &str, body: Value) -> Self {
        self.to(Method::PUT, path).json(&body)
    }

    pub fn patch(self, path: &str, body: Value) -> Self {
        self.to(Method::PATCH, path).json(&body)
    }

    pub fn to(mut self, method: Method, path: &str) -> Self {
        self.method = method;
        self.path = path.to_owned();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string(), "application/json")
    }

    pub fn body(mut self, body: impl Into<Bytes>, content_type: &str) -> Self {
        self.body = Some((body.into(), content_type.to_owned()));
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    async fn send(self) -> Seen<'a> {
        let mut request = self.suite.client.request(self.method.clone(), &self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some((body, content_type)) = self.body {
            request = request.body(body, &content_type);
        }
        let label = format!("{} {}", self.method, self.path);
        let answer = request.send().await.map_err(|error| (label, error));
        let seen = Seen {
            suite: self.suite,
            name: self.name,
            answer,
            failed: false,
        };
        seen.obeys_the_rules_for_all(self.method == Method::HEAD)
    }
}

impl<'a> IntoFuture for Case<'a> {
    type Output = Seen<'a>;
    type IntoFuture = Pin<Box<dyn Future<Output = Seen<'a>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// An answer under judgement.  The first check that fails is reported; later ones of the
/// same case mostly follow from it and stay silent.
pub struct Seen<'a> {
    suite: &'a Suite,
    name: String,
    answer: Result<Answer, (String, NoAnswer)>,
    failed: bool,
}

impl Seen<'_> {
    pub fn status(self, expected: u16) -> Self {
        self.status_in(&[expected])
    }

    pub fn status_in(self, expected: &[u16]) -> Self {
        self.holds(|answer| match expected.contains(&answer.status) {
            true => Ok(()),
            false => Err(format!("expected status {expected:?}, got {}", answer.status)),
        })
    }

    /// Refused with this status and code.
    pub fn refused(self, status: u16, code: &str) -> Self {
        self.status(status).at("/code", code)
    }

    /// The place of the mistake, as the problem names it.
    pub fn field(self, expected: &str) -> Self {
        self.at("/field", expected)
    }

    pub fn hint_names(self, expected: &str) -> Self {
        self.check(&format!("the hint names '{expected}'"), |json| {
            json["hint"].as_str().is_some_and(|hint| hint.contains(expected))
        })
    }

    /// The value at a JSON pointer.  Numbers are compared by value: 6 is 6.0.
    pub fn at(self, pointer: &str, expected: impl Into<Value>) -> Self {
        let expected = expected.into();
        self.holds(|answer| match answer.json().pointer(pointer) {
            Some(found) if same(found, &expected) => Ok(()),
            found => Err(format!("expected {pointer} = {expected}, found {found:?}")),
        })
    }

    pub fn near(self, pointer: &str, expected: f64) -> Self {
        self.holds(
            |answer| match answer.json().pointer(pointer).and_then(Value::as_f64) {
                Some(found) if close(found, expected) => Ok(()),
                found => Err(format!("expected {pointer} ≈ {expected}, found {found:?}")),
            },
        )
    }

    pub fn has(self, pointer: &str) -> Self {
        self.check(&format!("{pointer} is there"), |json| {
            json.pointer(pointer).is_some()
        })
    }

    /// Absent or null.
    pub fn lacks(self, pointer: &str) -> Self {
        self.check(&format!("{pointer} is not there"), |json| {
            json.pointer(pointer).is_none_or(Value::is_null)
        })
    }

    /// Ids, in order, of the documents or hits at a pointer.
    pub fn ids(self, pointer: &str, expected: &[&str]) -> Self {
        self.holds(|answer| {
            let found = ids_at(&answer.json(), pointer);
            if found == expected {
                return Ok(());
            }
            Err(format!("expected ids {expected:?} at {pointer}, found {found:?}"))
        })
    }

    pub fn check(self, what: &str, holds: impl FnOnce(&Value) -> bool) -> Self {
        self.holds(|answer| {
            if holds(&answer.json()) {
                Ok(())
            } else {
                Err(format!("does not hold: {what}"))
            }
        })
    }

    pub fn header(self, name: &str, holds: impl FnOnce(&str) -> bool) -> Self {
        self.holds(|answer| match answer.header(name) {
            Some(value) if holds(value) => Ok(()),
            found => Err(format!("header {name} is {found:?}")),
        })
    }

    pub fn no_header(self, name: &str) -> Self {
        self.holds(|answer| match answer.header(name) {
            None => Ok(()),
            found => Err(format!("header {name} should not be there, is {found:?}")),
        })
    }

    /// A check with its own words for what is wrong.
    pub fn holds(mut self, check: impl FnOnce(&Answer) -> Result<(), String>) -> Self {
        self.suite.log().checks += 1;
        let verdict = match &self.answer {
            Ok(answer) => check(answer).map_err(|what| format!("{what}\n  {answer}")),
            Err((label, error)) => Err(format!("{label}\n  {error}")),
        };
        if let Err(what) = verdict
            && !self.failed
        {
            self.failed = true;
            self.suite.log().failures.push(format!("{}\n  {what}", self.name));
        }
        self
    }

    pub fn json(&self) -> Value {
        self.answer.as_ref().map_or(Value::Null, Answer::json)
    }

    /// Empty when there was no answer: that is noted as a failure already.
    pub fn bytes(&self) -> Bytes {
        self.answer
            .as_ref()
            .map_or_else(|_| Bytes::new(), |answer| answer.body.clone())
    }

    pub fn lines(&self) -> Vec<Value> {
        self.answer
            .as_ref()
            .ok()
            .and_then(|answer| answer.lines().ok())
            .unwrap_or_default()
    }

    /// The value of a header; empty when it is not there.
    pub fn header_value(&self, name: &str) -> String {
        let value = self.answer.as_ref().ok().and_then(|answer| answer.header(name));
        value.unwrap_or_default().to_owned()
    }

    fn obeys_the_rules_for_all(self, is_head: bool) -> Self {
        self.holds(|answer| match rule_broken_by(answer, is_head) {
            Some(rule) => Err(rule),
            None => Ok(()),
        })
    }
}

/// Polls until `ready` says so; for conditions that no answer waits for.
pub async fn eventually<F, Fut>(patience: Duration, mut ready: F) -> bool
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begin = Instant::now();
    while begin.elapsed() < patience {
        if ready().await {
            return true;
        }
        tokio::time::sleep(crate::process::POLL).await;
    }
    false
}
