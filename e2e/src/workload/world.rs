//! What the clients of one collection share: its address, the record of everything that
//! happened, and the rules that were seen broken.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Client;
use crate::history::{Action, Content, History, Op, State, Told};
use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::groups::GroupWriter;
use super::keys::KeyWriter;
use super::ledger::{Ledger, LedgerWriter};
use super::readers::{Auditor, Reader};
use super::repeats::Repeats;

pub const HOT_KEYS: u64 = 10;
pub const GROUPS: u64 = 3;
pub const MEMBERS: u64 = 6;
/// A server that is wrong about everything must not fill the memory.
const VIOLATIONS_KEPT: usize = 1_000;

pub struct World {
    pub collection: String,
    pub partitions: u32,
    slowness: u64,
    pub history: History,
    pub ledger: Mutex<Ledger>,
    pub repeats: Mutex<Repeats>,
    pub counts: Counts,
    clients: Mutex<Vec<Client>>,
    sightings: Mutex<Vec<Sighting>>,
    violations: Mutex<Vec<String>>,
    unique: AtomicU64,
    stopping: AtomicBool,
}

#[derive(Default)]
pub struct Counts {
    pub acknowledged: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
    pub reads: AtomicU64,
}

/// A version that was told together with a content.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub key: String,
    pub content: Content,
    pub version: u64,
    pub invoked: u64,
    pub returned: u64,
}

impl World {
    /// Creates the collection, which must be new.
    pub async fn create(client: &Client, collection: &str, partitions: u32) -> Result<Arc<Self>> {
        Self::create_slow(client, collection, partitions, 1).await
    }

    /// Its clients take `slowness` times as long between two requests.
    pub async fn create_slow(
        client: &Client,
        collection: &str,
        partitions: u32,
        slowness: u64,
    ) -> Result<Arc<Self>> {
        let fields = json!({"v": {"type": "vector", "dim": 4, "metric": "l2"}, "tag": "int", "n": "int", "pad": "string", "group": "string"});
        client
            .create(collection, &json!({"fields": fields, "partitions": partitions}))
            .await?;
        Ok(Arc::new(Self {
            collection: collection.to_owned(),
            partitions,
            slowness,
            history: History::default(),
            ledger: Mutex::default(),
            repeats: Mutex::default(),
            counts: Counts::default(),
            clients: Mutex::new(vec![client.clone()]),
            sightings: Mutex::default(),
            violations: Mutex::default(),
            unique: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Clients that write and read until [`World::stop`]; joining the set waits until
    /// each has settled what it had begun.
    pub fn populate(self: &Arc<Self>, rng: &mut StdRng) -> JoinSet<()> {
        let mut actors = JoinSet::new();
        for client in 0..3 {
            actors.spawn(KeyWriter::new(self, client, fork(rng)).run());
        }
        for client in 10..12 {
            actors.spawn(GroupWriter::new(self, client, fork(rng)).run());
        }
        for client in 20..22 {
            actors.spawn(LedgerWriter::new(self, client, fork(rng)).run());
        }
        for client in 30..32 {
            actors.spawn(Reader::new(self, client, fork(rng)).run());
        }
        actors.spawn(Auditor::new(self, fork(rng)).run());
        actors
    }

    /// Half of them: one of each that writes, and those who look.
    pub fn populate_sparsely(self: &Arc<Self>, rng: &mut StdRng) -> JoinSet<()> {
        let mut actors = JoinSet::new();
        actors.spawn(KeyWriter::new(self, 0, fork(rng)).run());
        actors.spawn(KeyWriter::new(self, 1, fork(rng)).run());
        actors.spawn(GroupWriter::new(self, 10, fork(rng)).run());
        actors.spawn(LedgerWriter::new(self, 20, fork(rng)).run());
        actors.spawn(Reader::new(self, 30, fork(rng)).run());
        actors.spawn(Auditor::new(self, fork(rng)).run());
        actors
    }

    /// The pace of a client: two cores serve all of them and the server.
    pub async fn pause(&self, rng: &mut StdRng, up_to_ms: u64) {
        let longest = up_to_ms * self.slowness;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..=longest))).await;
    }

    /// Acknowledged writes without which a run shows nothing.
    pub fn enough(&self) -> u64 {
        50 / self.slowness.min(5)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// All clients may use any of these servers from now on.
    pub fn serve_from(&self, clients: Vec<Client>) {
        *lock(&self.clients) = clients;
    }

    pub fn client(&self, rng: &mut StdRng) -> Client {
        let clients = lock(&self.clients);
        clients[rng.random_range(0..clients.len())].clone()
    }

    pub fn documents(&self) -> String {
        format!("/v1/collections/{}/documents", self.collection)
    }

    pub fn query(&self) -> String {
        format!("/v1/collections/{}/query", self.collection)
    }

    pub fn unique(&self) -> u64 {
        self.unique.fetch_add(1, Ordering::SeqCst)
    }

    pub fn fresh_content(&self) -> Content {
        Content {
            tag: self.unique(),
            n: self.unique(),
        }
    }

    /// A batch over one partition is one atom; over several each document is its own.
    pub fn batches_are_atoms(&self) -> bool {
        self.partitions == 1
    }

    pub fn violation(&self, what: impl Display) {
        let mut violations = lock(&self.violations);
        if violations.len() < VIOLATIONS_KEPT {
            violations.push(format!("{}: {what}", self.collection));
        }
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    pub fn saw(&self, sighting: Sighting) {
        lock(&self.sightings).push(sighting);
    }

    pub fn sightings(&self) -> Vec<Sighting> {
        lock(&self.sightings).clone()
    }

    pub fn record_read(&self, client: usize, register: &str, state: State, invoked: u64, how: &str) {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let told = Told::Saw(state);
        let returned = self.history.now();
        self.history.record(
            register,
            Op {
                client,
                action: Action::Read,
                told,
                invoked,
                returned,
                how: how.to_owned(),
            },
        );
    }

    /// The content of a document as read, checked to be one that was ever written whole.
    pub fn content_of(&self, id: &str, document: &Value) -> Option<Content> {
        let content = document["tag"]
            .as_u64()
            .zip(document["n"].as_u64())
            .map(|(tag, n)| Content { tag, n });
        let whole = content.is_some_and(|content| document["pad"] == pad(content.tag));
        if !whole {
            self.violation(format!("{id} is torn: {document}"));
        }
        content
    }
}

/// `group` is the id without what follows its last dash, so that filters can find it.
pub fn document(id: &str, content: Content) -> Value {
    json!({
        "id": id, "tag": content.tag, "n": content.n, "pad": pad(content.tag), "group": group_of(id), "v": [content.tag % 97, content.n % 89, 1, 0],
    })
}

/// Between a few bytes and a few hundred, decided by the tag.
fn pad(tag: u64) -> String {
    format!("pad-{tag}-").repeat(1 + (tag % 31) as usize)
}

fn group_of(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(group, _)| group)
}

pub fn hot_key(n: u64) -> String {
    format!("h{n}")
}

pub fn group(n: u64) -> String {
    format!("g{n}")
}

pub fn members(group: &str) -> Vec<String> {
    (0..MEMBERS).map(|n| format!("{group}-{n}")).collect()
}

pub fn fork(rng: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(rng.random())
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
