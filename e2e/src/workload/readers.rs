//! Clients that read in every way there is, all strong unless said otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Client;
use crate::history::State;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::attempt::read;
use super::audit::audit;
use super::groups::registers;
use super::keys::seen_in;
use super::world::{GROUPS, HOT_KEYS, MEMBERS, World, group, hot_key, members};

pub struct Reader {
    world: Arc<World>,
    client: usize,
    rng: StdRng,
}

impl Reader {
    pub fn new(world: &Arc<World>, client: usize, rng: StdRng) -> Self {
        Self {
            world: Arc::clone(world),
            client,
            rng,
        }
    }

    pub async fn run(mut self) {
        while !self.world.stopping() {
            let client = self.world.client(&mut self.rng);
            let key = hot_key(self.rng.random_range(0..HOT_KEYS));
            let chosen = group(self.rng.random_range(0..GROUPS));
            let seen = match self.rng.random_range(0..8) {
                0 | 1 => get(&self.world, self.client, &client, &key).await,
                2 => get_many(&self.world, self.client, &client).await,
                3 => scan_keys(&self.world, self.client, &client).await,
                4 => query_key(&self.world, self.client, &client, &key).await,
                5 => scan_group(&self.world, self.client, &client, &chosen, 100).await,
                6 => scan_group(&self.world, self.client, &client, &chosen, 2).await,
                _ => query_group(&self.world, self.client, &client, &chosen).await,
            };
            // A server that is away is asked less often.
            let up_to_ms = if seen.is_some() { 8 } else { 40 };
            self.world.pause(&mut self.rng, up_to_ms).await;
        }
    }
}

/// Compares the ledger with the database again and again.
pub struct Auditor {
    world: Arc<World>,
    rng: StdRng,
}

impl Auditor {
    pub fn new(world: &Arc<World>, rng: StdRng) -> Self {
        Self {
            world: Arc::clone(world),
            rng,
        }
    }

    pub async fn run(mut self) {
        while !self.world.stopping() {
            let client = self.world.client(&mut self.rng);
            audit(&self.world, &client).await;
            self.world.pause(&mut self.rng, 400).await;
        }
    }
}

pub async fn get(world: &World, who: usize, client: &Client, key: &str) -> Option<()> {
    let invoked = world.history.now();
    let answer = read(world, client.get(&format!("{}/{key}", world.documents()))).await?;
    let (state, _) = seen_in(world, key, &answer, invoked);
    world.record_read(who, key, state, invoked, "GET");
    Some(())
}

pub async fn get_many(world: &World, who: usize, client: &Client) -> Option<()> {
    let keys: Vec<String> = (0..HOT_KEYS).map(hot_key).collect();
    let invoked = world.history.now();
    let answer = read(
        world,
        client.post(&format!("{}/get", world.documents()), &json!({"ids": keys})),
    )
    .await?;
    let found = answer.json()["documents"].as_array().cloned().unwrap_or_default();
    if found.len() != keys.len() {
        world.violation(format!("get-many of {} ids:\n{answer}", keys.len()));
    }
    for (key, entry) in keys.iter().zip(&found) {
        let state = if entry.is_null() {
            None
        } else {
            world.content_of(key, &entry["document"])
        };
        world.record_read(who, key, state, invoked, "get-many");
    }
    Some(())
}

pub async fn scan_keys(world: &World, who: usize, client: &Client) -> Option<()> {
    let invoked = world.history.now();
    let answer = read(
        world,
        client.get(&format!("{}?prefix=h&limit=1000", world.documents())),
    )
    .await?;
    let found = by_id(world, &answer.json()["documents"], "document");
    for key in (0..HOT_KEYS).map(hot_key) {
        world.record_read(who, &key, found.get(&key).copied().flatten(), invoked, "scan");
    }
    Some(())
}

pub async fn query_key(world: &World, who: usize, client: &Client, key: &str) -> Option<()> {
    let invoked = world.history.now();
    let body = json!({"vector": [1, 2, 3, 4], "k": 5, "filter": {"id": key}, "include": ["tag", "n", "pad"]});
    let answer = read(world, client.post(&world.query(), &body)).await?;
    let found = by_id(world, &answer.json()["hits"], "document");
    if found.keys().any(|id| id != key) {
        world.violation(format!("a query found what its filter excludes:\n{answer}"));
    }
    world.record_read(who, key, found.get(key).copied().flatten(), invoked, "query");
    Some(())
}

/// All pages show what the first one saw, so the read happened during the first.
pub async fn scan_group(world: &World, who: usize, client: &Client, group: &str, limit: usize) -> Option<()> {
    let invoked = world.history.now();
    let mut path = format!("{}?prefix={group}-&limit={limit}", world.documents());
    let mut found = BTreeMap::new();
    loop {
        let page = read(world, client.get(&path)).await?.json();
        found.extend(by_id(world, &page["documents"], "document"));
        let Some(cursor) = page["cursor"].as_str() else {
            break;
        };
        let cursor = crate::client::escape(cursor);
        path = format!(
            "{}?prefix={group}-&limit={limit}&cursor={cursor}",
            world.documents()
        );
    }
    record_group(world, who, group, &found, invoked, "scan");
    Some(())
}

pub async fn query_group(world: &World, who: usize, client: &Client, group: &str) -> Option<()> {
    let invoked = world.history.now();
    let body = json!({"vector": [0, 0, 0, 0], "k": 100, "filter": {"group": group}, "include": ["tag", "n", "pad"], "exact": true});
    let answer = read(world, client.post(&world.query(), &body)).await?;
    let found = by_id(world, &answer.json()["hits"], "document");
    record_group(world, who, group, &found, invoked, "query");
    Some(())
}

fn by_id(world: &World, list: &Value, member: &str) -> BTreeMap<String, State> {
    let mut found = BTreeMap::new();
    for entry in list.as_array().into_iter().flatten() {
        let id = entry["id"].as_str().unwrap_or_default();
        let state = world.content_of(id, &entry[member]);
        if found.insert(id.to_owned(), state).is_some() {
            world.violation(format!("{id} appears twice in one answer: {list}"));
        }
    }
    found
}

/// Where batches are atoms, all members must be alike in any one answer.
fn record_group(
    world: &World,
    who: usize,
    group: &str,
    found: &BTreeMap<String, State>,
    invoked: u64,
    how: &str,
) {
    let states: Vec<State> = members(group)
        .iter()
        .map(|id| found.get(id).copied().flatten())
        .collect();
    if !world.batches_are_atoms() {
        for (register, state) in registers(world, group).iter().zip(states) {
            world.record_read(who, register, state, invoked, how);
        }
        return;
    }
    if states.iter().any(|state| *state != states[0]) {
        return world.violation(format!(
            "a {how} saw half a batch in {group} of {MEMBERS}: {found:?}"
        ));
    }
    world.record_read(who, group, states[0], invoked, how);
}
