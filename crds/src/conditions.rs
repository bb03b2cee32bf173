//! Conditions as kstatus reads them: `Ready` sums up; `Reconciling` and `Stalled` are there
//! only while they are true; every one carries the generation it was judged for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use schemars::{Schema, SchemaGenerator, json_schema};

pub const READY: &str = "Ready";
pub const AVAILABLE: &str = "Available";
pub const DEGRADED: &str = "Degraded";
pub const OBJECT_STORE_REACHABLE: &str = "ObjectStoreReachable";
pub const SHARDS_READY: &str = "ShardsReady";
pub const SECRETS_RESOLVED: &str = "SecretsResolved";
/// Every data node speaks TLS and asks for keys.
pub const SECURED: &str = "Secured";
pub const TLS_READY: &str = "TLSReady";
pub const UPDATE_PENDING: &str = "UpdatePending";
pub const PAUSED: &str = "Paused";
pub const HIBERNATED: &str = "Hibernated";
pub const RECONCILING: &str = "Reconciling";
pub const STALLED: &str = "Stalled";

/// What a writer wants to say; times and generations are added by [`merge`].
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub kind: &'static str,
    /// `None` is `Unknown`.
    pub status: Option<bool>,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    pub fn new(
        kind: &'static str,
        status: impl Into<Option<bool>>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status: status.into(),
            reason,
            message: message.into(),
        }
    }

    fn status_text(&self) -> &'static str {
        match self.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// The whole new list.  A condition keeps its transition time while its status stays; one
/// that is in `old` alone goes away.
pub fn merge(
    old: &[Condition],
    verdicts: &[Verdict],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = verdicts
        .iter()
        .map(|verdict| {
            let status = verdict.status_text();
            let since = old
                .iter()
                .find(|c| c.type_ == verdict.kind && c.status == status)
                .map_or(Time(now), |c| c.last_transition_time.clone());
            Condition {
                type_: verdict.kind.into(),
                status: status.into(),
                reason: verdict.reason.into(),
                message: verdict.message.clone(),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect();
    merged.sort_by(|a, b| a.type_.cmp(&b.type_));
    merged
}

pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == "True")
}

/// A map keyed by `type`, so that several writers can own one condition each.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 316 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "maxLength": 1024, "minLength": 1 },
                "message": { "type": "string", "maxLength": 32768 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0.0 }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a valid time")
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = merge(
            &[],
            &[Verdict::new(READY, false, "Starting", "")],
            Some(1),
            at(10),
        );
        let second = merge(
            &first,
            &[Verdict::new(READY, false, "Waiting", "for pods")],
            Some(2),
            at(20),
        );
        assert_eq!(second[0].last_transition_time.0, at(10));
        assert_eq!(
            (second[0].reason.as_str(), second[0].observed_generation),
            ("Waiting", Some(2))
        );
        let third = merge(
            &second,
            &[Verdict::new(READY, true, "Serving", "")],
            Some(2),
            at(30),
        );
        assert_eq!(third[0].last_transition_time.0, at(30));
    }

    #[test]
    fn a_condition_nobody_speaks_of_any_more_is_gone() {
        let stalled = merge(&[], &[Verdict::new(STALLED, true, "Refused", "")], Some(1), at(1));
        assert!(merge(&stalled, &[], Some(2), at(2)).is_empty());
    }
}
