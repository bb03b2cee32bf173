//! A client whose documents nobody else touches: new ids only, in batches of one to
//! hundreds, some of them deleted later.  What it knows must always be so.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::{Answer, Client};
use crate::history::Content;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::attempt::{Outcome, read, write};
use super::repeats::Repeats;
use super::world::{World, document, lock};

/// All batches by number.
#[derive(Clone, Default)]
pub struct Ledger {
    pub batches: BTreeMap<u64, Batch>,
}

#[derive(Clone, Debug)]
pub struct Batch {
    pub ids: Vec<String>,
    pub content: Content,
    pub inserted: Fate,
    /// `None`: nobody asked for it.
    pub deleted: Option<Fate>,
    /// Some audit found it.
    pub seen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pending,
    Acknowledged,
    Refused,
    Unknown,
}

pub struct LedgerWriter {
    world: Arc<World>,
    client: usize,
    rng: StdRng,
    /// Acknowledged and not deleted.
    mine: Vec<u64>,
}

impl LedgerWriter {
    pub fn new(world: &Arc<World>, client: usize, rng: StdRng) -> Self {
        Self {
            world: Arc::clone(world),
            client,
            rng,
            mine: Vec::new(),
        }
    }

    pub async fn run(mut self) {
        while !self.world.stopping() {
            if !self.mine.is_empty() && self.rng.random_bool(0.2) {
                self.delete_one().await;
            } else {
                self.insert_one().await;
            }
            self.world.pause(&mut self.rng, 10).await;
        }
    }

    async fn insert_one(&mut self) {
        let number = self.world.unique();
        let content = self.world.fresh_content();
        let count = match self.rng.random_range(0..10) {
            0..=4 => self.rng.random_range(1..4),
            5..=8 => self.rng.random_range(4..50),
            _ => self.rng.random_range(50..400),
        };
        let ids: Vec<String> = (0..count)
            .map(|n| format!("l{}-{number:08}-{n:03}", self.client))
            .collect();
        let rows: Vec<Value> = ids.iter().map(|id| document(id, content)).collect();
        let last = ids[ids.len() - 1].clone();
        let batch = Batch {
            ids,
            content,
            inserted: Fate::Pending,
            deleted: None,
            seen: false,
        };
        lock(&self.world.ledger).batches.insert(number, batch);
        let outcome = self.send(json!({"upsert": rows})).await;
        let fate = fate_of(&outcome);
        self.update(number, |batch| batch.inserted = fate);
        if let Outcome::Done(answer) = outcome {
            self.mine.push(number);
            if answer.json()["upserted"] != rows.len() {
                self.world.violation(format!(
                    "{} rows upserted were counted as {}",
                    rows.len(),
                    answer.json()
                ));
            }
            self.read_back(&last, &answer).await;
        }
    }

    async fn delete_one(&mut self) {
        let number = self.mine.swap_remove(self.rng.random_range(0..self.mine.len()));
        self.update(number, |batch| batch.deleted = Some(Fate::Pending));
        let ids = lock(&self.world.ledger).batches[&number].ids.clone();
        let outcome = self.send(json!({"delete": ids})).await;
        let fate = fate_of(&outcome);
        self.update(number, |batch| batch.deleted = Some(fate));
        if let Outcome::Done(answer) = outcome
            && answer.json()["deleted"] != ids.len()
        {
            self.world.violation(format!(
                "{} documents of a client's own deleted were counted as {}",
                ids.len(),
                answer.json()
            ));
        }
    }

    async fn send(&mut self, body: Value) -> Outcome {
        let Self { world, rng, .. } = self;
        let key = rng
            .random_bool(0.5)
            .then(|| format!("key-{}-{}", world.collection, world.unique()));
        let path = world.documents();
        let outcome = write(world, rng, key.as_deref(), |to: &Client| to.post(&path, &body)).await;
        if let (Outcome::Done(answer), Some(key)) = (&outcome, &key) {
            lock(&world.repeats).keep(rng, Repeats::of(key, &body, answer));
        }
        outcome
    }

    /// A session sees its own writes.
    async fn read_back(&mut self, id: &str, written: &Answer) {
        let Some(token) = written.header("rhumb-session") else {
            return self
                .world
                .violation(format!("a write without a session token:\n{written}"));
        };
        let path = format!("{}/{id}?consistency=session", self.world.documents());
        let client = self.world.client(&mut self.rng);
        if let Some(answer) = read(&self.world, client.get(&path).header("rhumb-session", token)).await
            && answer.status != 200
        {
            self.world
                .violation(format!("a session does not see its own write:\n{answer}"));
        }
    }

    fn update(&self, number: u64, change: impl FnOnce(&mut Batch)) {
        if let Some(batch) = lock(&self.world.ledger).batches.get_mut(&number) {
            change(batch);
        }
    }
}

fn fate_of(outcome: &Outcome) -> Fate {
    match outcome {
        Outcome::Done(_) => Fate::Acknowledged,
        Outcome::Declined | Outcome::Refused => Fate::Refused,
        Outcome::Unknown => Fate::Unknown,
    }
}
