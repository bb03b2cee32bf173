//! What to do about a database.  Pure: the same sight gives the same actions, and a sight
//! in which all is well gives none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::core::Status;
use rhumb_crds::names;
use rhumb_crds::shard::{Shard, ShardNode};
use rhumb_crds::vector_database::{Clients, VectorDatabase};
use serde_json::Value;

use super::admin::AdminKey;
use super::children;
use super::pod::{self, Image, Rollout};
use crate::cluster::{self, Live};
use crate::context::Settings;
use crate::placement::{self, Node, Placement, Slot};

/// The keys to the bucket, as far as we may know them.
#[derive(Clone, Debug, PartialEq)]
pub enum Credentials {
    /// The database names none.
    Unneeded,
    /// A fingerprint of both keys.
    Found(String),
    Missing(String),
}

/// A database and everything around it, as just read.
#[derive(Clone, Debug)]
pub struct Sight {
    pub db: VectorDatabase,
    pub live: Live,
    /// Kinds and names that are still taken.
    pub left_behind: BTreeSet<(String, String)>,
    pub pods: Vec<Pod>,
    pub credentials: Credentials,
    pub admin_key: AdminKey,
    pub operator: Settings,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It was not seen: nothing of somebody else's is to be overwritten.
    Create(Value),
    Apply(Value),
    Delete(Value),
    /// Shards of the pod are warm: it may serve.
    OpenGate {
        pod: String,
        uid: String,
    },
    /// Among pods, the cheapest is the first to go when the database shrinks.
    SetDeletionCost {
        pod: String,
        uid: String,
        cost: usize,
    },
    /// Forgets what pods that are gone said of a shard.
    Forget {
        shard: String,
        resource_version: String,
        left: Vec<ShardNode>,
    },
}

impl Action {
    /// Trying again would end the same.  Whoever forbids it may think better of it: a quota, an
    /// admission webhook, an API server that has just started.
    pub fn is_refused_by(&self, answer: &Status) -> bool {
        let taken = answer.is_conflict() && matches!(self, Self::Create(_));
        taken || answer.is_invalid() || answer.code == 400
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(object) | Self::Apply(object) | Self::Delete(object) => {
                let (kind, name) = cluster::key(object);
                write!(f, "{kind} {name}")
            }
            Self::OpenGate { pod, .. } | Self::SetDeletionCost { pod, .. } => write!(f, "Pod {pod}"),
            Self::Forget { shard, .. } => write!(f, "Shard {shard}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// `None` while there is nothing to run yet.
    pub rollout: Option<Rollout>,
    /// Leaderships that are given to another pod: shard, from, to.
    pub moves: Vec<(u32, String, String)>,
}

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Entries of pods that are gone do no harm; many of them do.
const FORGOTTEN_AT: usize = 4;

pub fn plan(sight: &Sight) -> Plan {
    let rollout = sight.rollout();
    let mut actions = Vec::new();
    if !sight.db.spec.paused {
        children(sight, rollout.as_ref(), &mut actions);
    }
    let moves = place(sight, &mut actions);
    Plan {
        actions,
        rollout,
        moves,
    }
}

fn children(sight: &Sight, rollout: Option<&Rollout>, actions: &mut Vec<Action>) {
    let db = &sight.db;
    // What will run, which is not what the spec says while an update is pending.
    let open = rollout.map_or(db.spec.security.clients == Clients::Open, Rollout::is_open);
    let mut wanted = children::fixed(db, &sight.operator.namespace, open);
    // Pods of a database without keys could not start; those that run keep theirs.
    wanted.extend(
        rollout
            .filter(|_| sight.missing_secret().is_none())
            .map(|rollout| children::deployment(db, rollout)),
    );
    wanted.extend(sight.shards().iter().filter_map(children::lease));
    actions.extend(wanted.into_iter().filter_map(|object| sight.bring_about(object)));
    if !db.spec.network_policy.enabled {
        // Somebody's own policy may carry the database's label.
        let is_ours = |policy: &Value| cluster::controller(policy) == db.metadata.uid.as_deref();
        let policies = sight.live.iter().filter(|((kind, _), _)| kind == "NetworkPolicy");
        let ours = policies.filter(|(_, policy)| is_ours(policy));
        actions.extend(ours.map(|(_, policy)| Action::Delete(policy.clone())));
    }
}

fn place(sight: &Sight, actions: &mut Vec<Action>) -> Vec<(u32, String, String)> {
    let db = &sight.db;
    let name = sight.name();
    let shards = sight.shards();
    let nodes = sight.nodes();
    let slots: Vec<Slot> = (0..db.spec.sharding.count)
        .map(|index| Slot::of(index, shards.iter().find(|s| s.spec.index == index), &nodes))
        .collect();
    let placement = placement::place(&nodes, &slots, db.spec.sharding.followers as usize);
    let uid = sight.database_uid();
    let mut moves = Vec::new();
    for (slot, members) in slots.iter().zip(&placement.nodes) {
        let wanted = children::shard(db, slot.index, members, uid.as_deref());
        actions.extend(sight.bring_about(wanted));
        if let (Some(from), Some(to)) = (slot.nodes.first(), members.first())
            && from != to
        {
            moves.push((slot.index, from.clone(), to.clone()));
        }
    }
    gates(sight, &nodes, &placement, &slots, actions);
    let uids: BTreeSet<&str> = nodes.iter().map(|node| node.uid.as_str()).collect();
    for index in 0..db.spec.sharding.count {
        let key = ("Shard".to_owned(), names::shard(name, index));
        if let Some(shard) = sight.live.get(&key).and_then(parse::<Shard>) {
            actions.extend(forget(&shard, &uids));
        }
    }
    moves
}

fn gates(sight: &Sight, nodes: &[Node], placement: &Placement, slots: &[Slot], actions: &mut Vec<Action>) {
    let led: BTreeMap<&str, usize> =
        placement
            .nodes
            .iter()
            .filter_map(|m| m.first())
            .fold(BTreeMap::new(), |mut led, first| {
                *led.entry(first.as_str()).or_default() += 1;
                led
            });
    for (pod, node) in sight.pods.iter().zip(nodes) {
        let (name, uid) = (node.name.clone(), node.uid.clone());
        // Once open it stays so: a pod that already serves must not leave the Service
        // because balance gave it one shard more.
        if !condition(pod, names::SHARDS_WARM) && placement::gate(node, placement, slots) {
            actions.push(Action::OpenGate {
                pod: name.clone(),
                uid: uid.clone(),
            });
        }
        let cost = led.get(node.name.as_str()).copied().unwrap_or(0);
        let known = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(DELETION_COST));
        let known = known.and_then(|cost| cost.parse().ok()).unwrap_or(0usize);
        if cost != known && pod.metadata.deletion_timestamp.is_none() {
            actions.push(Action::SetDeletionCost { pod: name, uid, cost });
        }
    }
}

fn forget(shard: &Shard, uids: &BTreeSet<&str>) -> Option<Action> {
    let said = &shard.status.as_ref()?.nodes;
    let left: Vec<ShardNode> = said
        .iter()
        .filter(|node| uids.contains(node.pod_uid.as_str()))
        .cloned()
        .collect();
    (said.len() - left.len() >= FORGOTTEN_AT).then(|| Action::Forget {
        shard: shard.metadata.name.clone().unwrap_or_default(),
        resource_version: shard.metadata.resource_version.clone().unwrap_or_default(),
        left,
    })
}

impl Sight {
    pub fn name(&self) -> &str {
        self.db.metadata.name.as_deref().unwrap_or_default()
    }

    /// The Secret that pods wait for, in words.
    pub fn missing_secret(&self) -> Option<&str> {
        if let Credentials::Missing(what) = &self.credentials {
            return Some(what);
        }
        match &self.admin_key {
            AdminKey::Unusable(what) => Some(what),
            AdminKey::Unneeded | AdminKey::Found | AdminKey::Due => None,
        }
    }

    /// Sorts what was found: of a database of the same name that was deleted just now, some
    /// may still be there.  It cannot be taken over, and will be gone soon.
    pub fn claim(&mut self, found: Live) {
        let (leases, others): (Live, Live) = found.into_iter().partition(|((kind, _), _)| kind == "Lease");
        let own_uid = self.db.metadata.uid.clone();
        self.sort(others, &own_uid.into_iter().collect());
        // Leases belong to Shards.
        let shards = self
            .shards()
            .into_iter()
            .filter_map(|shard| shard.metadata.uid)
            .collect();
        self.sort(leases, &shards);
    }

    fn sort(&mut self, found: Live, owners: &BTreeSet<String>) {
        for (key, object) in found {
            if cluster::controller(&object).is_none_or(|owner| owners.contains(owner)) {
                self.live.insert(key, object);
            } else {
                self.left_behind.insert(key);
            }
        }
    }

    /// How it becomes so, if it is not and can be.
    fn bring_about(&self, wanted: Value) -> Option<Action> {
        let key = cluster::key(&wanted);
        if self.left_behind.contains(&key) {
            return None;
        }
        match self.live.get(&key) {
            None => Some(Action::Create(wanted)),
            Some(live) => (!cluster::covered(&wanted, live)).then_some(Action::Apply(wanted)),
        }
    }

    pub fn deployment(&self) -> Option<Deployment> {
        self.live
            .get(&("Deployment".to_owned(), self.name().to_owned()))
            .and_then(parse)
    }

    pub fn shards(&self) -> Vec<Shard> {
        let shards = self.live.iter().filter(|((kind, _), _)| kind == "Shard");
        shards.filter_map(|(_, shard)| parse(shard)).collect()
    }

    /// One node per pod, in the order of the pods.
    pub fn nodes(&self) -> Vec<Node> {
        let revision = self
            .deployment()
            .and_then(|deployment| deployment.metadata.annotations?.remove(pod::REVISION));
        self.pods
            .iter()
            .map(|pod| node(pod, revision.as_deref()))
            .collect()
    }

    /// The uid of the bucket: as recorded, else as a leader reports it.
    pub fn database_uid(&self) -> Option<String> {
        let recorded = self
            .db
            .status
            .as_ref()
            .and_then(|status| status.database_uid.clone());
        recorded.or_else(|| {
            self.shards()
                .into_iter()
                .find_map(|shard| shard.status?.database_uid)
        })
    }

    fn rollout(&self) -> Option<Rollout> {
        let live = self.deployment();
        let hash = match &self.credentials {
            Credentials::Unneeded => None,
            Credentials::Found(hash) => Some(hash.as_str()),
            Credentials::Missing(_) if live.is_none() => return None,
            Credentials::Missing(_) => None,
        };
        let image = self
            .db
            .spec
            .image
            .as_deref()
            .unwrap_or(&self.operator.data_node_image);
        let pulled = Image {
            reference: image,
            pull_policy: self.operator.pull_policy.as_deref(),
        };
        Some(pod::rollout(&self.db, pulled, hash, live.as_ref()))
    }
}

fn node(pod: &Pod, revision: Option<&str>) -> Node {
    let metadata = &pod.metadata;
    let own = metadata.annotations.as_ref().and_then(|a| a.get(pod::REVISION));
    Node {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        usable: condition(pod, "ContainersReady") && metadata.deletion_timestamp.is_none(),
        current: own.map(String::as_str) == revision,
    }
}

pub fn condition(pod: &Pod, kind: &str) -> bool {
    holding(pod, kind).is_some()
}

/// The condition of a pod, while it holds.
pub fn holding<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind && c.status == "True")
}

/// Objects of ours that do not parse were written by another version: they look absent
/// and are applied again.
fn parse<T: serde::de::DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone()).ok()
}
