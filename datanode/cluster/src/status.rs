//! What this pod reports of one slot in `Shard.status`, under a field manager of its own.
//!
//! Who leads and who is warm is written at once; counters only every now and then.  Every
//! write states all that this pod says: what it no longer says goes away with it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use rhumb_crds::conditions::{self, OBJECT_STORE_REACHABLE, READY, Verdict};
use rhumb_crds::shard::{ShardLeader, ShardNode};
use rhumb_crds::{GROUP, Shard, ShardStatus, VERSION, names};
use rhumb_seams::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::board::Leader;
use crate::follow::Seen;
use crate::placement::Placement;
use crate::rules::Identity;
use crate::{Led, Report};

/// Between two looks at the counters and at the store.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two writes for the counters alone.
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// Changes that come together are written together.
const GATHER: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);
/// By then a successor has the Lease, or none is coming.
const HAND_OVER: Duration = Duration::from_secs(5);
/// A failed write is repeated after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Entries of pods that are gone are removed this long after they left the placement.
const STALE: Duration = Duration::from_secs(30);

pub struct Reporter {
    pub slot: u32,
    pub database: String,
    pub me: Identity,
    pub bucket_uid: String,
    pub shards: Api<Shard>,
    pub shard: watch::Receiver<Seen<Shard>>,
    pub leader: watch::Receiver<Leader>,
    pub led: Arc<dyn Led>,
    pub clock: Clock,
}

/// All that this pod says.
#[derive(Clone, Debug, PartialEq)]
struct Word {
    leads: bool,
    is_listed: bool,
    store: Result<(), String>,
    /// Of a leader.
    report: Report,
    foreign: Option<String>,
    generation: Option<i64>,
}

impl Word {
    fn says_nothing(&self) -> bool {
        !self.leads && !self.is_listed
    }

    /// Everything but the counters.
    fn gist(&self) -> Self {
        Self {
            report: Report {
                epoch: self.report.epoch,
                ..Report::default()
            },
            ..self.clone()
        }
    }
}

impl Reporter {
    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut said: Option<(Word, Instant)> = None;
        let mut stale: Option<(Vec<String>, Instant)> = None;
        loop {
            self.changed().await;
            if said.as_ref().is_some_and(|(last, _)| last.leads) {
                self.succeeded().await;
            }
            let Some(shard) = self.current() else { continue };
            let word = self.word(&shard).await;
            let is_due = match &said {
                None => !word.says_nothing() || mentions(&shard, &self.me.pod),
                Some((last, at)) => {
                    let may_repeat = at.elapsed() >= LOOK_EVERY;
                    last.gist() != word.gist()
                        || (*last != word && at.elapsed() >= COUNT_EVERY)
                        || (may_repeat && !is_heard(&word, &shard, &self.me))
                }
            };
            if is_due {
                match self
                    .apply(&self.me.pod, content(&word, &shard, self.speaker()))
                    .await
                {
                    Ok(()) => said = Some((word.clone(), Instant::now())),
                    Err(error) => {
                        tracing::warn!(slot = self.slot, %error, "Shard.status cannot be written");
                        sleep(AGAIN).await;
                    }
                }
            }
            if word.leads {
                self.tidy(&shard, &mut stale).await;
            }
        }
    }

    fn speaker(&self) -> Speaker<'_> {
        Speaker {
            me: &self.me,
            bucket_uid: &self.bucket_uid,
            now: Timestamp::from_millisecond(self.clock.unix_ms()).unwrap_or_default(),
        }
    }

    async fn changed(&mut self) {
        tokio::select! {
            biased;
            // The senders live as long as the cluster does.
            _ = self.shard.changed() => {}
            _ = self.leader.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
        sleep(GATHER).await;
    }

    /// Who led goes on saying so until somebody else does, for a while: a hand-over is no
    /// outage.
    async fn succeeded(&mut self) {
        let is_led = |leader: &Leader| !matches!(leader, Leader::Nobody);
        // The sender lives as long as the cluster does.
        let _ = timeout(HAND_OVER, self.leader.wait_for(is_led)).await;
    }

    fn current(&mut self) -> Option<Arc<Shard>> {
        match &*self.shard.borrow_and_update() {
            Seen::There(shard) if shard.metadata.deletion_timestamp.is_none() => Some(shard.clone()),
            Seen::There(_) | Seen::Unknown | Seen::Missing => None,
        }
    }

    async fn word(&mut self, shard: &Shard) -> Word {
        let placement = Placement::read(&Seen::There(Arc::new(shard.clone())), &self.me.pod);
        let leads = match &*self.leader.borrow_and_update() {
            Leader::Me(term) => !term.has_ended(),
            Leader::Nobody | Leader::Peer { .. } => false,
        };
        Word {
            leads,
            is_listed: placement.is_listed,
            store: self.led.store().await,
            report: match leads {
                true => self.led.report(self.slot),
                false => Report::default(),
            },
            foreign: placement.database_uid.filter(|uid| *uid != self.bucket_uid),
            generation: shard.meta().generation,
        }
    }

    async fn apply(&self, pod: &str, status: Value) -> Result<(), String> {
        let name = names::shard(&self.database, self.slot);
        let shard = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Shard",
            "metadata": { "name": name },
            "status": status
        });
        let params = PatchParams::apply(&manager(pod)).force();
        let patch = Patch::Apply(&shard);
        match timeout(PATIENCE, self.shards.patch_status(&name, &params, &patch)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".into()),
        }
    }

    /// The leader takes away what pods that are gone once said: nobody else would.
    async fn tidy(&self, shard: &Shard, stale: &mut Option<(Vec<String>, Instant)>) {
        let gone = strangers(shard, &self.me.pod);
        let since = match stale {
            Some((pods, since)) if *pods == gone => *since,
            _ => {
                *stale = Some((gone, Instant::now()));
                return;
            }
        };
        if since.elapsed() < STALE {
            return;
        }
        for pod in gone {
            if let Err(error) = self.apply(&pod, json!({})).await {
                tracing::debug!(slot = self.slot, pod, %error, "what a gone pod said is left for later");
            }
        }
    }
}

fn mentions(shard: &Shard, pod: &str) -> bool {
    shard
        .status
        .iter()
        .flat_map(|status| &status.nodes)
        .any(|node| node.pod == pod)
}

/// Whether the Shard still says it: a leader that saw an older placement may have taken the
/// word of this pod away, and an earlier leader may have written itself in once more.
fn is_heard(word: &Word, shard: &Shard, me: &Identity) -> bool {
    let status = shard.status.as_ref();
    let leader = status.and_then(|status| status.leader.as_ref());
    let leads = leader.is_some_and(|leader| leader.pod == me.pod && leader.pod_uid == me.uid);
    (word.says_nothing() || mentions(shard, &me.pod)) && (!word.leads || leads)
}

/// Pods that say something of the slot and have no place in it.
fn strangers(shard: &Shard, me: &str) -> Vec<String> {
    let entries = shard.status.iter().flat_map(|status| &status.nodes);
    let has_no_place = |pod: &&String| pod.as_str() != me && !shard.spec.nodes.contains(pod);
    entries
        .map(|node| &node.pod)
        .filter(has_no_place)
        .cloned()
        .collect()
}

/// A field manager's name has at most 128 bytes; the end of a pod's name tells it apart.
fn manager(pod: &str) -> String {
    let start = pod.len().saturating_sub(110);
    format!("rhumb-node-{}", pod.get(start..).unwrap_or(pod))
}

#[derive(Clone, Copy)]
struct Speaker<'a> {
    me: &'a Identity,
    bucket_uid: &'a str,
    now: Timestamp,
}

fn content(word: &Word, shard: &Shard, speaker: Speaker<'_>) -> Value {
    if word.says_nothing() {
        return json!({});
    }
    let mut status = ShardStatus::default();
    if word.is_listed || word.leads {
        status.nodes = vec![ShardNode {
            pod: speaker.me.pod.clone(),
            pod_uid: speaker.me.uid.clone(),
            warm: word.store.is_ok() && word.foreign.is_none(),
            lag_seconds: None,
        }];
    }
    if word.leads {
        status.observed_generation = word.generation;
        status.leader = Some(ShardLeader {
            pod: speaker.me.pod.clone(),
            pod_uid: speaker.me.uid.clone(),
        });
        status.epoch = Some(word.report.epoch as i64);
        status.position = Some(word.report.position as i64);
        status.partitions = Some(word.report.partitions as i64);
        status.rows = Some(word.report.rows as i64);
        status.bytes = Some(word.report.bytes as i64);
        status.database_uid = Some(speaker.bucket_uid.to_owned());
    }
    if word.leads || word.foreign.is_some() {
        status.conditions = conditions(word, shard, speaker);
    }
    let mut value = json!(status);
    // An empty list would be a statement of its own.
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
    }
    value
}

fn conditions(word: &Word, shard: &Shard, speaker: Speaker<'_>) -> Vec<Condition> {
    let store = match &word.store {
        Ok(()) => Verdict::new(OBJECT_STORE_REACHABLE, true, "Reachable", "the bucket answers"),
        Err(why) => Verdict::new(OBJECT_STORE_REACHABLE, false, "Unreachable", why.as_str()),
    };
    let ready = match (&word.foreign, &word.store) {
        (Some(uid), _) => {
            let ours = speaker.bucket_uid;
            let message = format!("the bucket holds database {ours}, and this Shard belongs to {uid}");
            Verdict::new(READY, false, "ForeignBucket", message)
        }
        (None, Err(why)) => Verdict::new(READY, false, "ObjectStoreUnreachable", why.as_str()),
        (None, Ok(())) => Verdict::new(READY, true, "Led", format!("{} leads", speaker.me.pod)),
    };
    let old = shard.status.as_ref().map_or(&[][..], |status| &status.conditions);
    conditions::merge(old, &[ready, store], word.generation, speaker.now)
}

#[cfg(test)]
mod tests {
    use rhumb_crds::shard::ShardSpec;

    use super::*;

    fn shard(nodes: &[&str], database_uid: Option<&str>) -> Shard {
        let reference = json!({ "name": "words" });
        let spec = ShardSpec {
            database_ref: serde_json::from_value(reference).expect("a reference"),
            index: 0,
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            database_uid: database_uid.map(str::to_owned),
        };
        Shard::new("words-shard-0", spec)
    }

    fn word(leads: bool, is_listed: bool) -> Word {
        Word {
            leads,
            is_listed,
            store: Ok(()),
            report: Report {
                epoch: 7,
                rows: 3,
                ..Report::default()
            },
            foreign: None,
            generation: Some(2),
        }
    }

    fn said(word: &Word) -> Value {
        let me = Identity::parse("a_1_x").expect("an identity");
        let speaker = Speaker {
            me: &me,
            bucket_uid: "b1",
            now: Timestamp::UNIX_EPOCH,
        };
        content(word, &shard(&["a", "b"], None), speaker)
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        let all = status["conditions"].as_array().expect("conditions");
        all.iter().find(|c| c["type"] == kind).expect("it is said")
    }

    #[test]
    fn a_leader_says_who_it_is_what_it_holds_and_that_it_is_ready() {
        let status = said(&word(true, true));
        assert_eq!(status["leader"], json!({ "pod": "a", "podUID": "1" }));
        assert_eq!(
            status["nodes"],
            json!([{ "pod": "a", "podUID": "1", "warm": true }])
        );
        let numbers = [&status["epoch"], &status["rows"], &status["observedGeneration"]];
        assert_eq!(numbers, [7, 3, 2]);
        assert_eq!(status["databaseUID"], "b1");
        assert_eq!(condition(&status, READY)["status"], "True");
    }

    #[test]
    fn a_follower_says_only_that_it_is_warm() {
        let status = said(&word(false, true));
        assert_eq!(
            status,
            json!({ "nodes": [{ "pod": "a", "podUID": "1", "warm": true }] })
        );
    }

    #[test]
    fn who_neither_leads_nor_is_listed_takes_back_all_it_said() {
        assert_eq!(said(&word(false, false)), json!({}));
        // Who leads without being listed is still to be seen.
        assert_eq!(said(&word(true, false))["leader"]["pod"], "a");
    }

    #[test]
    fn a_bucket_that_is_away_makes_cold_and_not_ready() {
        let away = Word {
            store: Err("no route".into()),
            ..word(true, true)
        };
        let status = said(&away);
        assert_eq!(status["nodes"][0]["warm"], false);
        assert_eq!(condition(&status, OBJECT_STORE_REACHABLE)["status"], "False");
        assert_eq!(condition(&status, READY)["message"], "no route");
    }

    #[test]
    fn a_bucket_of_another_database_is_said_by_followers_too() {
        let foreign = Word {
            foreign: Some("b2".into()),
            ..word(false, true)
        };
        let status = said(&foreign);
        assert_eq!(status["nodes"][0]["warm"], false);
        assert_eq!(condition(&status, READY)["reason"], "ForeignBucket");
        assert!(status.get("leader").is_none());
    }

    #[test]
    fn what_others_took_away_is_not_heard() {
        let me = Identity::parse("a_1_x").expect("an identity");
        let mut shard = shard(&["a"], None);
        let spoken = [word(true, true), word(false, true)];
        assert!(spoken.iter().all(|word| !is_heard(word, &shard, &me)));
        assert!(is_heard(&word(false, false), &shard, &me));
        shard.status = serde_json::from_value(said(&word(false, true))).ok();
        assert!(!is_heard(&word(true, true), &shard, &me), "nobody leads");
        assert!(is_heard(&word(false, true), &shard, &me));
        shard.status = serde_json::from_value(said(&word(true, true))).ok();
        assert!(is_heard(&word(true, true), &shard, &me));
    }

    #[test]
    fn counters_alone_are_no_news() {
        let mut later = word(true, true);
        later.report.rows += 1;
        assert_eq!(later.gist(), word(true, true).gist());
        later.report.epoch += 1;
        assert_ne!(later.gist(), word(true, true).gist());
    }

    #[test]
    fn pods_without_a_place_are_strangers() {
        let mut shard = shard(&["a"], None);
        let entry = |pod: &str| ShardNode {
            pod: pod.into(),
            pod_uid: "1".into(),
            warm: true,
            lag_seconds: None,
        };
        shard.status = Some(ShardStatus {
            nodes: ["a", "me", "gone"].map(entry).into(),
            ..ShardStatus::default()
        });
        assert_eq!(strangers(&shard, "me"), ["gone"]);
        assert!(mentions(&shard, "gone") && !mentions(&shard, "b"));
    }

    #[test]
    fn managers_of_long_names_differ_and_fit() {
        let (one, two) = (format!("{}-x", "a".repeat(200)), format!("{}-y", "a".repeat(200)));
        assert_ne!(manager(&one), manager(&two));
        assert!(manager(&one).len() <= 128);
    }
}
