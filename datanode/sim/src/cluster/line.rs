//! The way from one pod to the API server: slow, lossy, cut off, or answering for itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use rhumb_fake_api::{Answer, FakeApi};
use rhumb_seams::{OnExit, Rand, Tasks};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;

use super::sabotage::Sabotage;
use crate::trace::Trace;

/// A client gives a silent connection up after this; the electors' own limits are shorter.
const SILENCE: Duration = Duration::from_secs(30);
/// The server ends a watch that names no time of its own.
const WATCH_TIME: u64 = 290;

#[derive(Clone, Copy, Debug)]
pub struct ApiWeather {
    /// One way, at most.
    pub latency: Duration,
    /// A request that never arrives, an answer that never does, an answer of 429, 500 or
    /// 503 before anything was done.
    pub lose_request: f64,
    pub lose_answer: f64,
    pub refuse: f64,
    /// A request that takes up to ten seconds more.
    pub slow: f64,
    /// For each event of a watch: the watch ends instead; the event comes seconds late.
    pub cut_watch: f64,
    pub late_event: f64,
}

impl ApiWeather {
    pub fn calm() -> Self {
        Self {
            latency: Duration::from_millis(10),
            lose_request: 0.0,
            lose_answer: 0.0,
            refuse: 0.0,
            slow: 0.0,
            cut_watch: 0.0,
            late_event: 0.0,
        }
    }

    pub fn random(rand: &Rand) -> Self {
        let chance = |most: f64| match rand.below(2) {
            0 => 0.0,
            _ => rand.unit() * most,
        };
        Self {
            latency: Duration::from_millis(1 + rand.below(300)),
            lose_request: chance(0.2),
            lose_answer: chance(0.3),
            refuse: chance(0.3),
            slow: chance(0.1),
            cut_watch: chance(0.3),
            late_event: chance(0.3),
        }
    }
}

/// Cheap to clone; all clones are one line.
#[derive(Clone)]
pub struct ApiLine(Arc<Inner>);

struct Inner {
    name: String,
    api: FakeApi,
    rand: Rand,
    tasks: Tasks,
    trace: Trace,
    weather: Mutex<ApiWeather>,
    is_cut: Mutex<bool>,
    /// It wakes in the order of waiting, which a `watch` does not.
    mended: Notify,
    sabotage: Option<Sabotage>,
}

enum Fate {
    Lost,
    Refused(StatusCode),
    Served { answer_is_lost: bool },
}

impl ApiLine {
    pub(super) fn new(
        name: &str,
        api: FakeApi,
        rand: &Rand,
        tasks: Tasks,
        trace: Trace,
        sabotage: Option<Sabotage>,
    ) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            api,
            rand: Rand::from_seed(rand.u64()),
            tasks,
            trace,
            weather: Mutex::new(ApiWeather::calm()),
            is_cut: Mutex::new(false),
            mended: Notify::new(),
            sabotage,
        }))
    }

    pub fn set(&self, weather: ApiWeather) {
        *self.0.weather.lock() = weather;
    }

    /// A partition: nothing passes, and nobody is told.
    pub fn cut(&self, cut: bool) {
        self.0.trace.note(format_args!("{} line cut {cut}", self.0.name));
        *self.0.is_cut.lock() = cut;
        if !cut {
            self.0.mended.notify_waiters();
        }
    }

    pub fn is_cut(&self) -> bool {
        *self.0.is_cut.lock()
    }

    pub fn client(&self) -> Client {
        let line = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| line.clone().call(request));
        Client::new(service, "default")
    }

    /// The request is a task of its own: its sender may be paused or killed meanwhile.
    async fn call(self, request: Request<Body>) -> Result<Answer, std::io::Error> {
        let (answered, answer) = oneshot::channel();
        let tasks = self.0.tasks.clone();
        tasks.spawn("api request", OnExit::Fine, async move {
            if let Some(answer) = self.deliver(request).await {
                // Nobody waits for it any more: it was served all the same.
                let _ = answered.send(answer);
            }
        });
        match tokio::time::timeout(SILENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                sleep(SILENCE).await;
                Err(std::io::Error::other("no answer"))
            }
            Err(_) => Err(std::io::Error::other("no answer")),
        }
    }

    async fn deliver(&self, request: Request<Body>) -> Option<Answer> {
        let what = format!("{} {} {}", self.0.name, request.method(), request.uri().path());
        self.travel().await;
        let fate = match self.is_cut() {
            true => Fate::Lost,
            false => self.fate(),
        };
        let answer_is_lost = match fate {
            Fate::Lost => {
                self.0.trace.note(format_args!("{what} lost"));
                return None;
            }
            Fate::Refused(status) => {
                self.0.trace.note(format_args!("{what} refused {status}"));
                return Some(refusal(status));
            }
            Fate::Served { answer_is_lost } => answer_is_lost,
        };
        let request = self.tamper(request).await;
        let query = request.uri().query().unwrap_or_default().to_owned();
        let answer = self.0.api.serve(request).await;
        let status = answer.status();
        let is_watch = query.contains("watch=true");
        let answer = match is_watch {
            true => self.watch(answer, &query),
            false => self.whole(answer).await,
        };
        self.travel().await;
        let is_lost = answer_is_lost || self.is_cut();
        self.0.trace.note(format_args!("{what} {status} lost {is_lost}"));
        (!is_lost).then_some(answer)
    }

    async fn travel(&self) {
        let weather = *self.0.weather.lock();
        let mut time = weather.latency.mul_f64(self.0.rand.unit());
        if self.happens(weather.slow) {
            time += Duration::from_secs(10).mul_f64(self.0.rand.unit());
        }
        sleep(time).await;
    }

    fn happens(&self, chance: f64) -> bool {
        chance > 0.0 && self.0.rand.unit() < chance
    }

    fn fate(&self) -> Fate {
        let weather = *self.0.weather.lock();
        if self.happens(weather.lose_request) {
            return Fate::Lost;
        }
        if self.happens(weather.refuse) {
            let statuses = [
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::INTERNAL_SERVER_ERROR,
                StatusCode::SERVICE_UNAVAILABLE,
            ];
            return Fate::Refused(statuses[self.0.rand.below(3) as usize]);
        }
        Fate::Served {
            answer_is_lost: self.happens(weather.lose_answer),
        }
    }

    async fn whole(&self, answer: Answer) -> Answer {
        let (parts, body) = answer.into_parts();
        let bytes = match body.collect().await {
            Ok(body) => self.soften(body.to_bytes()),
            Err(never) => match never {},
        };
        Response::from_parts(parts, Full::from(bytes).boxed_unsync())
    }

    /// Events in their order, each with its delay.  A watch that was cut off goes on later,
    /// or is silent for ever.
    fn watch(&self, answer: Answer, query: &str) -> Answer {
        let times = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("timeoutSeconds="));
        let seconds = times.and_then(|time| time.parse().ok()).unwrap_or(WATCH_TIME);
        let (events, receiver) = mpsc::unbounded_channel::<Bytes>();
        let (line, (parts, body)) = (self.clone(), answer.into_parts());
        self.0.tasks.spawn("api watch", OnExit::Fine, async move {
            tokio::select! {
                biased;
                () = events.closed() => {}
                () = line.forward(body.into_data_stream(), &events) => {}
                () = sleep(Duration::from_secs(seconds)) => {}
            }
            if line.is_cut() {
                // Nor does the end arrive.
                events.closed().await;
            }
        });
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(bytes)), receiver))
        });
        Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())
    }

    async fn forward(
        &self,
        mut body: impl stream::Stream<Item = Result<Bytes, Infallible>> + Unpin,
        events: &mpsc::UnboundedSender<Bytes>,
    ) {
        use stream::StreamExt;
        while let Some(Ok(event)) = body.next().await {
            let weather = *self.0.weather.lock();
            self.travel().await;
            if self.happens(weather.late_event) {
                sleep(Duration::from_secs(8).mul_f64(self.0.rand.unit())).await;
            }
            if self.happens(weather.cut_watch) {
                return;
            }
            let was_cut = self.is_cut();
            while self.is_cut() {
                self.0.mended.notified().await;
            }
            if was_cut && self.0.rand.below(2) == 0 {
                events.closed().await;
            }
            if events.send(self.soften(event)).is_err() {
                return;
            }
        }
    }

    /// Sabotage: a client that forgets what it has read.
    async fn tamper(&self, request: Request<Body>) -> Request<Body> {
        let is_lease = request.uri().path().contains("/leases/");
        if self.0.sabotage != Some(Sabotage::IgnoreVersions) || request.method() != Method::PUT || !is_lease {
            return request;
        }
        let (parts, body) = request.into_parts();
        let bytes = body
            .collect()
            .await
            .map_or_else(|_| Bytes::new(), |body| body.to_bytes());
        let mut object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        Request::from_parts(parts, Body::from(object.to_string().into_bytes()))
    }

    /// Sabotage: every blank record looks released.
    fn soften(&self, bytes: Bytes) -> Bytes {
        if self.0.sabotage != Some(Sabotage::TrustBlanks) {
            return bytes;
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else {
            return bytes;
        };
        let release = |object: &mut Value| {
            if object["kind"] == "Lease"
                && object["spec"]["holderIdentity"]
                    .as_str()
                    .is_none_or(str::is_empty)
            {
                object["metadata"]["annotations"]["rhumb.dev/released-by"] = "somebody".into();
            }
        };
        release(&mut value);
        if value["object"].is_object() {
            release(&mut value["object"]);
        }
        value["items"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .for_each(release);
        let mut line = value.to_string().into_bytes();
        line.push(b'\n');
        line.into()
    }
}

fn refusal(status: StatusCode) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "reason": "Weather", "message": "the server is not well", "code": status.as_u16()
    });
    let mut answer = Response::new(Full::from(body.to_string()).boxed_unsync());
    *answer.status_mut() = status;
    answer
}
