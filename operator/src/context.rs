//! What every reconcile is given, and the errors it may end in.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use rhumb_crds::conditions;
use rhumb_seams::Clock;

use crate::metrics::Metrics;

/// What the process was told, as far as reconciling needs it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the operator itself runs.
    pub namespace: String,
    /// For databases that name no image.
    pub data_node_image: String,
    /// When their image is pulled; Kubernetes decides when this is `None`.
    pub pull_policy: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    #[error("http client: {0}")]
    Http(#[from] reqwest::Error),
    #[error("no end within {0:?}: the API server or a data node does not answer")]
    TooLong(Duration),
    #[error("the admin key cannot be made: {0}")]
    AdminKey(#[from] rustls::Error),
}

pub struct Context {
    pub client: Client,
    pub settings: Settings,
    pub metrics: Metrics,
    /// For calls to data nodes.
    pub http: reqwest::Client,
    clock: Clock,
    /// One for the process: it counts repeated events together.
    recorder: Recorder,
    /// Failures in a row, by uid.
    failures: Mutex<BTreeMap<String, u32>>,
}

/// To data nodes.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const EVENT_MAX: usize = 1000;
const BACKOFF_MAX: Duration = Duration::from_secs(60);

impl Context {
    pub fn new(client: Client, settings: Settings, http: reqwest::Client, clock: Clock) -> Self {
        let reporter = Reporter {
            controller: "rhumb-operator".into(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            metrics: Metrics::default(),
            http,
            clock,
            failures: Mutex::default(),
        }
    }

    /// In whole seconds, as Kubernetes keeps time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(self.clock.unix_ms() / 1000).unwrap_or_default()
    }

    /// Counts a failure; how long to wait before the next try.
    pub fn failed<K: Resource>(&self, object: &K) -> Duration {
        self.metrics.failed();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.uid().unwrap_or_default()).or_default();
        *count += 1;
        Duration::from_secs(1 << (*count).min(6)).min(BACKOFF_MAX)
    }

    /// Whether the last try failed too.
    pub fn has_failed<K: Resource>(&self, object: &K) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.contains_key(&object.uid().unwrap_or_default())
    }

    pub fn succeeded<K: Resource>(&self, object: &K) {
        self.metrics.reconciled();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&object.uid().unwrap_or_default());
    }

    /// An event for each condition that turned, and when `Ready` waits for something else.
    pub async fn turned<K>(&self, object: &K, old: &[Condition], new: &[Condition])
    where
        K: Resource<DynamicType = ()>,
    {
        for condition in new {
            let before = conditions::find(old, &condition.type_);
            let same = before.is_some_and(|before| {
                before.status == condition.status
                    && (condition.type_ != conditions::READY || before.reason == condition.reason)
            });
            // `Reconciling` says what `Ready` says; what is not known is no news.
            if same || condition.type_ == conditions::RECONCILING || condition.status == "Unknown" {
                continue;
            }
            let good_when = match condition.type_.as_str() {
                conditions::DEGRADED | conditions::STALLED => "False",
                _ => "True",
            };
            let good = condition.status == good_when;
            // That something new is not yet good, or is as it should be, is no news either; that
            // a database stands open is, from the first.
            let starting = before.is_none() && (good_when == "False") == good;
            if starting && condition.type_ != conditions::SECURED {
                continue;
            }
            let worse = !good && before.is_none_or(|before| before.status != condition.status);
            let kind = if worse {
                EventType::Warning
            } else {
                EventType::Normal
            };
            let note = format!(
                "{} is {}: {}",
                condition.type_, condition.status, condition.message
            );
            // Events of the same action count as one, whatever they say.
            let what = (condition.reason.as_str(), condition.type_.as_str());
            self.event(object, kind, what, note).await;
        }
    }

    /// Events are for people; one that cannot be written stops nothing.
    pub async fn event<K>(
        &self,
        object: &K,
        kind: EventType,
        (reason, action): (&str, &str),
        mut note: String,
    ) where
        K: Resource<DynamicType = ()>,
    {
        if note.len() > EVENT_MAX {
            let end = (0..=EVENT_MAX)
                .rev()
                .find(|&at| note.is_char_boundary(at))
                .unwrap_or(0);
            note.truncate(end);
        }
        let event = Event {
            type_: kind,
            reason: reason.into(),
            note: Some(note),
            action: action.into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, reason, "event not written");
        }
    }
}
