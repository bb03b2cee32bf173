//! One operator acts at a time, by a Lease and client-go's rules: whether a holder is gone
//! is decided by watching its record not change for its whole duration on our own clock;
//! no timestamp of another machine is trusted.  Writes carry the resource version.
//!
//! A Lease is no fence: an operator that lost it stops the process, and everything it
//! writes is either idempotent or guarded by uids.  The client given here must not retry:
//! a renewal that hangs past its deadline is worse than one that fails.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rhumb_seams::{CancellationToken, Clock, Rand};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub duration: Duration,
    pub renew_deadline: Duration,
    pub retry: Duration,
}

/// client-go's defaults.
pub const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry: Duration::from_secs(2),
};

pub struct Elector {
    leases: Api<Lease>,
    name: String,
    me: String,
    timing: Timing,
    clock: Clock,
    rand: Rand,
    /// The record as last seen, and since when it has been so.
    seen: Option<(Lease, Instant)>,
}

/// What the record allows us to do.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Create,
    Renew,
    Take { transitions: i32 },
    Wait(Duration),
}

/// `unchanged` is how long we ourselves have watched this record not change.
fn step(lease: Option<&Lease>, me: &str, unchanged: Duration) -> Step {
    let Some(lease) = lease else { return Step::Create };
    let spec = lease.spec.clone().unwrap_or_default();
    let transitions = spec.lease_transitions.unwrap_or_default();
    let duration = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(15).max(1) as u64);
    match spec.holder_identity.as_deref().unwrap_or_default() {
        holder if holder == me => Step::Renew,
        "" => Step::Take {
            transitions: transitions + 1,
        },
        _ if unchanged >= duration => Step::Take {
            transitions: transitions + 1,
        },
        _ => Step::Wait(duration - unchanged),
    }
}

impl Elector {
    /// `me` must be unique to this process, not only to its pod.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        me: String,
        timing: Timing,
        clock: Clock,
        rand: Rand,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.into(),
            me,
            timing,
            clock,
            rand,
            seen: None,
        }
    }

    /// Returns once we hold the Lease; never, if somebody else keeps it.
    pub async fn acquire(&mut self) {
        loop {
            let wait = match self.attempt().await {
                Ok(true) => return,
                Ok(false) => self.timing.retry,
                Err(error) => {
                    tracing::warn!(%error, lease = %self.name, "cannot reach the lease");
                    self.timing.retry
                }
            };
            sleep(wait.mul_f64(1.0 + 0.2 * self.rand.unit())).await;
        }
    }

    /// Renews until we have lost the Lease, or cannot know that we still have it, or
    /// `stop`.  Only after this returned may [`Self::release`] be called.
    pub async fn keep(&mut self, stop: &CancellationToken) {
        let mut deadline = Instant::now() + self.timing.renew_deadline;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep_until(deadline.min(Instant::now() + self.timing.retry)) => {}
            }
            let before = Instant::now();
            // An answer after the deadline is no answer, however late it was asked for.
            match timeout_at(deadline, self.attempt()).await {
                Ok(Ok(true)) => deadline = before + self.timing.renew_deadline,
                Ok(Ok(false)) if self.another_holds() => {
                    tracing::error!(lease = %self.name, "another operator leads");
                    return;
                }
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => tracing::warn!(%error, lease = %self.name, "cannot renew the lease"),
            }
            if Instant::now() >= deadline {
                tracing::error!(lease = %self.name, "the lease was not renewed in time");
                return;
            }
        }
    }

    /// Lets the next one take over at once.  Everything that the Lease guarded must have
    /// ended before.
    pub async fn release(&mut self) {
        let Some((mut lease, _)) = self.seen.take() else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.me) {
            return;
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        let options = PostParams::default();
        let put = self.leases.replace(&self.name, &options, &lease);
        if !matches!(timeout(self.call_timeout(), put).await, Ok(Ok(_))) {
            tracing::warn!(lease = %self.name, "the lease was not released: the next operator waits it out");
        }
    }

    fn another_holds(&self) -> bool {
        let holder = self
            .seen
            .as_ref()
            .and_then(|(lease, _)| lease.spec.as_ref()?.holder_identity.as_deref());
        holder.is_some_and(|holder| !holder.is_empty() && holder != self.me)
    }

    fn call_timeout(&self) -> Duration {
        self.timing.renew_deadline / 2
    }

    /// One look and at most one write; true when the Lease is ours afterwards.
    async fn attempt(&mut self) -> Result<bool, String> {
        let limit = self.call_timeout();
        match timeout(limit, self.attempt_untimed()).await {
            Ok(outcome) => outcome.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no answer within {} s", limit.as_secs_f32())),
        }
    }

    async fn attempt_untimed(&mut self) -> kube::Result<bool> {
        let found = self.leases.get_opt(&self.name).await?;
        self.observe(found);
        let unchanged = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let lease = self.seen.as_ref().map(|(lease, _)| lease);
        let written = match step(lease, &self.me, unchanged) {
            Step::Wait(_) => return Ok(false),
            Step::Create => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.record(None, 0)),
                };
                self.leases.create(&PostParams::default(), &lease).await
            }
            Step::Renew => self.put(None).await,
            Step::Take { transitions } => self.put(Some(transitions)).await,
        };
        match written {
            Ok(lease) => {
                self.observe(Some(lease));
                Ok(true)
            }
            // Somebody else was faster; the next look shows who.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, take: Option<i32>) -> kube::Result<Lease> {
        let mut lease = self
            .seen
            .as_ref()
            .map(|(lease, _)| lease.clone())
            .unwrap_or_default();
        let old = lease.spec.clone().unwrap_or_default();
        let transitions = take.or(old.lease_transitions).unwrap_or_default();
        let since = if take.is_some() { None } else { old.acquire_time };
        lease.spec = Some(self.record(since, transitions));
        self.leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await
    }

    fn record(&self, since: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::from_millisecond(self.clock.unix_ms()).unwrap_or_default());
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(self.timing.duration.as_secs() as i32),
            acquire_time: Some(since.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn observe(&mut self, lease: Option<Lease>) {
        let same = |lease: &Lease| {
            self.seen
                .as_ref()
                .is_some_and(|(seen, _)| seen.metadata.resource_version == lease.metadata.resource_version)
        };
        match lease {
            Some(lease) if same(&lease) => {}
            Some(lease) => self.seen = Some((lease, Instant::now())),
            None => self.seen = None,
        }
    }
}

#[cfg(test)]
mod tests;
