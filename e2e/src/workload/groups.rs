//! A client that writes several documents at once, always with the same content, so that
//! half of a batch can be told from a whole one.

use std::sync::Arc;

use crate::history::{Action, Content, Op, Told};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::attempt::{Outcome, write};
use super::repeats::Repeats;
use super::world::{GROUPS, MEMBERS, World, document, group, lock, members};

pub struct GroupWriter {
    world: Arc<World>,
    client: usize,
    rng: StdRng,
    last_tag: u64,
}

impl GroupWriter {
    pub fn new(world: &Arc<World>, client: usize, rng: StdRng) -> Self {
        Self {
            world: Arc::clone(world),
            client,
            rng,
            last_tag: 0,
        }
    }

    pub async fn run(mut self) {
        while !self.world.stopping() {
            let group = self.choose();
            let content = self.world.fresh_content();
            let (action, counter, body) = self.plan(&group, content);
            self.execute(&group, action, counter, body).await;
            self.last_tag = content.tag;
            self.world.pause(&mut self.rng, 10).await;
        }
    }

    /// Over several partitions a group belongs to one client: what two clients write at
    /// once may end in a different order in each partition.
    fn choose(&mut self) -> String {
        if self.world.batches_are_atoms() {
            return group(self.rng.random_range(0..GROUPS));
        }
        group(self.client as u64 % GROUPS)
    }

    /// The action, the count that tells whether it happened, and the request.
    fn plan(&mut self, group: &str, content: Content) -> (Action, &'static str, Value) {
        let ids = members(group);
        let whole: Vec<Value> = ids.iter().map(|id| document(id, content)).collect();
        let patches: Vec<Value> = ids.iter().map(|id| json!({"id": id, "n": content.n})).collect();
        // Conditions and patches of a torn state would count some members and not others.
        let choices = if self.world.batches_are_atoms() { 8 } else { 4 };
        match self.rng.random_range(0..choices) {
            0..=2 => (Action::Put(content), "upserted", json!({"upsert": whole})),
            3 => (Action::Delete, "deleted", json!({"delete": ids})),
            4 => (Action::Patch(content.n), "patched", json!({"patch": patches})),
            5 => (
                Action::Delete,
                "deleted",
                json!({"delete_by_filter": {"group": group}}),
            ),
            6 => (
                Action::CreateIfAbsent(content),
                "upserted",
                json!({"upsert": whole, "if": {"absent": true}}),
            ),
            _ => {
                let tag = self.last_tag;
                (
                    Action::SwapTag { tag, to: content },
                    "upserted",
                    json!({"upsert": whole, "if": {"filter": {"tag": tag}}}),
                )
            }
        }
    }

    async fn execute(&mut self, group: &str, action: Action, counter: &str, body: Value) {
        let Self {
            world, client, rng, ..
        } = self;
        let key = rng
            .random_bool(0.5)
            .then(|| format!("key-{}-{}", world.collection, world.unique()));
        let path = world.documents();
        let invoked = world.history.now();
        let outcome = write(world, rng, key.as_deref(), |to| to.post(&path, &body)).await;
        let told = match &outcome {
            Outcome::Done(answer) => {
                if let Some(key) = &key {
                    lock(&world.repeats).keep(rng, Repeats::of(key, &body, answer));
                }
                told_by(world, action, &answer.json()[counter], &answer.json())
            }
            Outcome::Declined => Told::Declined,
            Outcome::Refused => return,
            Outcome::Unknown => Told::Unknown,
        };
        let returned = world.history.now();
        let how = format!("batch{}", if key.is_some() { " with a key" } else { "" });
        for register in registers(world, group) {
            world.history.record(
                &register,
                Op {
                    client: *client,
                    action,
                    told,
                    invoked,
                    returned,
                    how: how.clone(),
                },
            );
        }
    }
}

/// One register per group where batches are atoms, else one per member.
pub fn registers(world: &World, group: &str) -> Vec<String> {
    if world.batches_are_atoms() {
        vec![group.to_owned()]
    } else {
        members(group)
    }
}

fn told_by(world: &World, action: Action, count: &Value, answer: &Value) -> Told {
    if !world.batches_are_atoms() {
        return Told::Applied { existed: None };
    }
    match (action, count.as_u64()) {
        (Action::Delete, Some(0)) => Told::Applied { existed: Some(false) },
        (Action::Delete, Some(MEMBERS)) => Told::Applied { existed: Some(true) },
        (_, Some(0)) => Told::Declined,
        (_, Some(MEMBERS)) => Told::Applied { existed: None },
        _ => {
            world.violation(format!("half of a group was counted for {action:?}: {answer}"));
            Told::Unknown
        }
    }
}
