//! What is true of a database, for people and for GitOps tools.  Pure.
//!
//! kstatus reads: `Stalled` → failed, `Reconciling` or `Ready` not true → in progress,
//! `Ready` → current.  A database that waits says for what; one that cannot go on by
//! itself says so in `Degraded` or `Stalled`.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rhumb_crds::conditions::{self, Verdict};
use rhumb_crds::names;
use rhumb_crds::shard::Shard;
use rhumb_crds::vector_database::{Clients, Endpoints, VectorDatabaseStatus};
use serde_json::json;

use super::admin::AdminKey;
use super::plan::{Credentials, Plan, Sight, condition, holding};
use super::pod;

/// What the API server said to an object of ours that it does not accept.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    what: String,
    /// Trying again would end the same.
    lasts: bool,
}

impl Refusal {
    pub fn lasting(what: String) -> Self {
        Self { what, lasts: true }
    }

    pub fn passing(what: String) -> Self {
        Self { what, lasts: false }
    }
}

/// Reasons of waiting containers that do not pass by themselves.
const FAILING: [&str; 7] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
];
const WORDS_MAX: usize = 400;
/// Seconds without a leader that no failover takes.
const LEADERLESS: i64 = 10;

pub fn status(sight: &Sight, plan: &Plan, refusal: Option<&Refusal>, now: Timestamp) -> VectorDatabaseStatus {
    let facts = Facts::of(sight, plan, refusal, now);
    let old = sight.db.status.clone().unwrap_or_default();
    let generation = sight.db.metadata.generation;
    let namespace = sight.db.metadata.namespace.as_deref().unwrap_or_default();
    let name = sight.name();
    VectorDatabaseStatus {
        observed_generation: generation,
        conditions: conditions::merge(&old.conditions, &facts.verdicts(), generation, now),
        replicas: sight.pods.iter().filter(|pod| counts(pod)).count() as i32,
        ready_replicas: facts.ready as i32,
        selector: Some(format!("{}={name}", names::DATABASE)),
        nodes: Some(format!("{}/{}", facts.ready, facts.wanted)),
        shards_led: Some(format!("{}/{}", facts.led, facts.shards)),
        image: plan.rollout.as_ref().and_then(pod::Rollout::image),
        endpoints: Endpoints {
            rest: Some(format!(
                "{}://{name}.{namespace}.svc:{}",
                facts.scheme(),
                names::CLIENT_PORT
            )),
        },
        database_uid: sight.database_uid(),
    }
}

struct Facts<'a> {
    sight: &'a Sight,
    refusal: Option<&'a Refusal>,
    now: Timestamp,
    wanted: i32,
    ready: usize,
    shards: u32,
    led: usize,
    /// Data nodes that answer whoever asks.
    open: usize,
    open_by_override: bool,
    /// Why the Deployment is not what it should be yet.
    rolling: Option<String>,
    failing: Option<String>,
    /// Why the API server takes no pods: a quota, a policy.
    pods_refused: Option<String>,
    unscheduled: Option<String>,
    store: Option<(bool, String)>,
    update_pending: bool,
}

impl<'a> Facts<'a> {
    fn of(sight: &'a Sight, plan: &Plan, refusal: Option<&'a Refusal>, now: Timestamp) -> Self {
        let shards = sight.shards();
        let (db, rollout) = (&sight.db, plan.rollout.as_ref());
        Self {
            sight,
            refusal,
            now,
            wanted: db.spec.data_nodes.replicas,
            ready: sight.pods.iter().filter(|pod| condition(pod, "Ready")).count(),
            shards: db.spec.sharding.count,
            led: shards.iter().filter(|shard| is_led(shard, &sight.pods)).count(),
            open: sight
                .pods
                .iter()
                .filter(|pod| pod::is_open(&json!(pod.spec)))
                .count(),
            open_by_override: rollout.is_some_and(|rollout| rollout.is_open() && !rollout.update_pending),
            rolling: rolling(sight.deployment().as_ref(), db.spec.data_nodes.replicas),
            failing: sight.pods.iter().find_map(failing),
            pods_refused: sight.deployment().as_ref().and_then(pods_refused),
            unscheduled: sight.pods.iter().find_map(unscheduled),
            store: store(&shards),
            update_pending: rollout.is_some_and(|rollout| rollout.update_pending),
        }
    }

    fn hibernated(&self) -> bool {
        self.wanted == 0
    }

    fn all_led(&self) -> bool {
        self.led == self.shards as usize
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let ready = self.ready_verdict();
        let degraded = self.degraded();
        let lasting = self.refusal.filter(|refusal| refusal.lasts);
        let stalled =
            lasting.map(|refusal| Verdict::new(conditions::STALLED, true, "Refused", refusal.what.clone()));
        let waiting = ready.status != Some(true) && stalled.is_none() && degraded.status != Some(true);
        let reconciling = waiting && !self.hibernated() && !self.sight.db.spec.paused;
        let reconciling = reconciling
            .then(|| Verdict::new(conditions::RECONCILING, true, ready.reason, ready.message.clone()));
        let mut all = vec![
            self.available(),
            self.shards_ready(),
            self.store_reachable(),
            self.secrets(),
            self.secured(),
            self.tls(),
        ];
        all.extend([ready, degraded]);
        all.extend(stalled);
        all.extend(reconciling);
        if self.sight.db.spec.paused {
            all.push(Verdict::new(
                conditions::PAUSED,
                true,
                "Paused",
                "spec.paused is true: nothing but placement and status is changed",
            ));
        }
        if self.hibernated() {
            all.push(Verdict::new(
                conditions::HIBERNATED,
                true,
                "NoDataNodes",
                "dataNodes.replicas is 0; the data is in the bucket",
            ));
        }
        if self.update_pending {
            let how = format!(
                "this operator would run other pods; set annotation {} to roll them",
                names::RESTARTED_AT
            );
            all.push(Verdict::new(
                conditions::UPDATE_PENDING,
                true,
                "OperatorUpgraded",
                how,
            ));
        }
        all
    }

    /// The first thing in the way, in the order in which it has to be solved.
    fn ready_verdict(&self) -> Verdict {
        let not = |reason, message: String| Verdict::new(conditions::READY, false, reason, message);
        if let Some(refusal) = self.refusal {
            return not("Refused", refusal.what.clone());
        }
        if let Some(what) = self.sight.missing_secret() {
            return not("SecretMissing", what.to_owned());
        }
        if self.hibernated() {
            return not("Hibernated", "dataNodes.replicas is 0".into());
        }
        if let Some(failing) = &self.failing {
            return not("PodsFailing", failing.clone());
        }
        if let Some(refused) = &self.pods_refused {
            return not("PodsRefused", refused.clone());
        }
        if let Some((false, why)) = &self.store {
            return not("ObjectStoreUnreachable", why.clone());
        }
        if let Some(unscheduled) = &self.unscheduled {
            return not("PodsUnschedulable", unscheduled.clone());
        }
        if self.ready == 0 {
            return not("Starting", format!("0 of {} data nodes are ready", self.wanted));
        }
        if !self.all_led() {
            return not(
                "ShardsWithoutLeader",
                format!("{} of {} shards have a leader", self.led, self.shards),
            );
        }
        if let Some(rolling) = &self.rolling {
            return not("RollingOut", rolling.clone());
        }
        let message = format!("{} data nodes, {} shards", self.ready, self.led);
        Verdict::new(conditions::READY, true, "Serving", message)
    }

    fn available(&self) -> Verdict {
        let serving = self.ready > 0 && self.all_led();
        let (reason, message) = match (self.ready, self.all_led()) {
            (0, _) => ("NoDataNodeReady", "nothing serves".into()),
            (_, false) => (
                "ShardsWithoutLeader",
                format!("{} of {} shards have a leader", self.led, self.shards),
            ),
            (ready, true) => ("Serving", format!("{ready} data nodes serve")),
        };
        Verdict::new(conditions::AVAILABLE, serving, reason, message)
    }

    fn degraded(&self) -> Verdict {
        let no = Verdict::new(conditions::DEGRADED, false, "AsExpected", "");
        if self.hibernated() {
            return no;
        }
        let yes = |reason, message: &str| Verdict::new(conditions::DEGRADED, true, reason, message);
        let was_available = self.sight.db.status.as_ref().is_some_and(|status| {
            conditions::is_true(&status.conditions, conditions::AVAILABLE)
                || conditions::is_true(&status.conditions, conditions::DEGRADED)
        });
        match (&self.failing, &self.pods_refused, &self.store) {
            (Some(failing), _, _) => yes("PodsFailing", failing),
            (None, Some(refused), _) => yes("PodsRefused", refused),
            (None, None, Some((false, why))) => yes("ObjectStoreUnreachable", why),
            _ if was_available && self.ready == 0 => {
                yes("NoDataNodeReady", "it served before and nothing serves now")
            }
            _ if self.is_leaderless_for_long() => yes(
                "ShardsWithoutLeader",
                "shards lost their leaders and have no new ones yet",
            ),
            _ => no,
        }
    }

    /// A leader that dies is followed by another one within a Lease and some seconds.
    fn is_leaderless_for_long(&self) -> bool {
        let said = |kind| conditions::find(&self.sight.db.status.as_ref()?.conditions, kind);
        // Data nodes that start, or wake up, have not lost a leader.
        let is_awaited = said(conditions::READY).is_some_and(|ready| ready.reason == "ShardsWithoutLeader");
        let since = said(conditions::SHARDS_READY).filter(|said| said.status == "False");
        let for_long = |since| self.now.duration_since(since) >= SignedDuration::from_secs(LEADERLESS);
        // Nobody leads before somebody is ready to.
        let could_be_led = self.ready_since().is_some_and(for_long);
        !self.all_led()
            && is_awaited
            && could_be_led
            && since.is_some_and(|said| for_long(said.last_transition_time.0))
    }

    /// Since when there is a ready pod.
    fn ready_since(&self) -> Option<Timestamp> {
        let ready = self.sight.pods.iter().filter_map(|pod| holding(pod, "Ready"));
        let since = ready.filter_map(|ready| Some(ready.last_transition_time.as_ref()?.0));
        since.min()
    }

    fn shards_ready(&self) -> Verdict {
        let message = format!("{} of {} shards have a leader", self.led, self.shards);
        let reason = if self.all_led() {
            "AllLed"
        } else {
            "ShardsWithoutLeader"
        };
        Verdict::new(conditions::SHARDS_READY, self.all_led(), reason, message)
    }

    fn store_reachable(&self) -> Verdict {
        let kind = conditions::OBJECT_STORE_REACHABLE;
        match &self.store {
            Some((true, _)) => Verdict::new(kind, true, "Reachable", ""),
            Some((false, why)) => Verdict::new(kind, false, "Unreachable", why.clone()),
            None => Verdict::new(kind, None, "NotReported", "no data node has reported yet"),
        }
    }

    fn secrets(&self) -> Verdict {
        let kind = conditions::SECRETS_RESOLVED;
        if let Some(what) = self.sight.missing_secret() {
            return Verdict::new(kind, false, "SecretMissing", what);
        }
        match (&self.sight.credentials, &self.sight.admin_key) {
            (Credentials::Unneeded, AdminKey::Unneeded) => Verdict::new(kind, true, "NoneNeeded", ""),
            _ => Verdict::new(kind, true, "Found", ""),
        }
    }

    /// As its pods are, not as they shall be.
    fn secured(&self) -> Verdict {
        let no = |reason, message: String| Verdict::new(conditions::SECURED, false, reason, message);
        if self.sight.db.spec.security.clients == Clients::Open {
            let message =
                "spec.security.clients is Open: whoever reaches the Service reads and writes everything";
            return no("Open", message.into());
        }
        if let Some(message) = self.stands_open() {
            return no("DataNodesOpen", message);
        }
        let name = self.sight.name();
        let message = format!(
            "HTTPS and keys: the first key is in Secret {}, what to trust in Secret {}",
            names::admin(name),
            names::ca(name)
        );
        Verdict::new(conditions::SECURED, true, "KeysAndTLS", message)
    }

    fn scheme(&self) -> &'static str {
        match self.secured().status {
            Some(true) => "https",
            _ => "http",
        }
    }

    /// Although it should not: which data nodes, and what to do about it.
    fn stands_open(&self) -> Option<String> {
        let deployment = self.sight.deployment();
        let next_too = deployment.is_some_and(|live| pod::is_open(&json!(live.spec.template.spec)));
        let who = match (self.open, next_too) {
            (0, false) => return None,
            (0, true) => "data nodes will answer".to_owned(),
            (open, _) => format!("{open} data nodes answer"),
        };
        let how = if self.update_pending {
            format!(
                "set annotation {} to roll them, or spec.security.clients to Open to keep them so",
                names::RESTARTED_AT
            )
        } else if self.sight.db.spec.paused {
            "spec.paused keeps them so".to_owned()
        } else if self.open_by_override {
            "spec.dataNodes.podOverrides opens them".to_owned()
        } else {
            "they are being replaced".to_owned()
        };
        Some(format!("{who} whoever asks, over plain HTTP: {how}"))
    }

    /// Reconcile fails before it comes here when certificates cannot be made.
    fn tls(&self) -> Verdict {
        Verdict::new(conditions::TLS_READY, true, "Issued", "")
    }
}

fn is_led(shard: &Shard, pods: &[Pod]) -> bool {
    let leader = shard.status.as_ref().and_then(|status| status.leader.as_ref());
    leader.is_some_and(|leader| {
        pods.iter().any(|pod| {
            pod.metadata.name.as_ref() == Some(&leader.pod)
                && pod.metadata.uid.as_ref() == Some(&leader.pod_uid)
                && !has_ended(pod)
        })
    })
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Not one that is going or gone: autoscalers divide by these.
fn counts(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !has_ended(pod)
}

fn rolling(deployment: Option<&Deployment>, wanted: i32) -> Option<String> {
    let Some(deployment) = deployment else {
        return Some("the Deployment is not there yet".into());
    };
    let status = deployment.status.clone().unwrap_or_default();
    let replicas = deployment.spec.replicas;
    if status.observed_generation < deployment.metadata.generation || replicas != Some(wanted) {
        return Some("the Deployment has not seen the change yet".into());
    }
    let (updated, total) = (status.updated_replicas.unwrap_or(0), status.replicas.unwrap_or(0));
    let available = status.available_replicas.unwrap_or(0);
    (updated < wanted || total > wanted || available < wanted).then(|| {
        format!("{updated} of {wanted} data nodes are current, {available} are ready, {total} exist")
    })
}

fn pods_refused(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let refused = conditions
        .iter()
        .find(|c| c.type_.as_deref() == Some("ReplicaFailure") && c.status.as_deref() == Some("True"))?;
    Some(clipped(refused.message.clone().unwrap_or_default()))
}

fn failing(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    statuses.iter().find_map(|container| {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
        let reason = reason.filter(|reason| FAILING.contains(reason))?;
        let message = last_words(container).or(waiting.and_then(|waiting| waiting.message.clone()));
        Some(clipped(format!(
            "pod {name}: {reason}: {}",
            message.unwrap_or_default()
        )))
    })
}

/// How the process was ended, as for the memory it took; of one that ended by itself what it
/// said last: why it refused to start.
fn last_words(container: &ContainerStatus) -> Option<String> {
    let ended = container.last_state.as_ref()?.terminated.as_ref()?;
    let by_itself = |reason: &&str| matches!(*reason, "Error" | "Completed");
    if let Some(how) = ended.reason.as_deref().filter(|reason| !by_itself(reason)) {
        return Some(format!("{how} (exit {})", ended.exit_code));
    }
    let last = ended.message.as_deref()?.trim().lines().next_back()?;
    Some(last.trim().to_owned())
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let blocked = conditions.iter().find(|c| {
        c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable")
    })?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    Some(clipped(format!(
        "pod {name}: {}",
        blocked.message.as_deref().unwrap_or_default()
    )))
}

/// The leaders' word for it: one that cannot reach the store outweighs those that can.
fn store(shards: &[Shard]) -> Option<(bool, String)> {
    let said: Vec<_> = shards
        .iter()
        .filter_map(|shard| {
            let status = shard.status.as_ref()?;
            let said = conditions::find(&status.conditions, conditions::OBJECT_STORE_REACHABLE)?;
            Some((said.status == "True", said.message.clone()))
        })
        .collect();
    said.iter()
        .find(|(reachable, _)| !reachable)
        .or(said.first())
        .cloned()
}

fn clipped(mut text: String) -> String {
    if text.len() > WORDS_MAX {
        let end = (0..=WORDS_MAX)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}
