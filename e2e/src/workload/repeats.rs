//! Requests that were answered once and are sent again at the end: the first answer must
//! come back, and nothing may happen.

use crate::client::{Answer, Client};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::world::{World, lock};

const KEPT: usize = 150;

#[derive(Default)]
pub struct Repeats {
    kept: Vec<Repeat>,
    offered: usize,
}

#[derive(Clone)]
pub struct Repeat {
    key: String,
    body: Value,
    first: Value,
}

impl Repeats {
    pub fn of(key: &str, body: &Value, answer: &Answer) -> Repeat {
        Repeat {
            key: key.to_owned(),
            body: body.clone(),
            first: answer.json(),
        }
    }

    /// A fair sample of all that were offered.
    pub fn keep(&mut self, rng: &mut StdRng, repeat: Repeat) {
        self.offered += 1;
        if self.kept.len() < KEPT {
            return self.kept.push(repeat);
        }
        let place = rng.random_range(0..self.offered);
        if place < KEPT {
            self.kept[place] = repeat;
        }
    }
}

pub async fn repeat_all(world: &World, client: &Client) -> usize {
    let repeats = lock(&world.repeats).kept.clone();
    let path = world.documents();
    for Repeat { key, body, first } in &repeats {
        match client
            .post(&path, body)
            .header("idempotency-key", key)
            .send()
            .await
        {
            Ok(answer) if answer.status == 200 && answer.json() == *first => {}
            Ok(answer) => world.violation(format!(
                "a repeat differs from its first answer {first}:\n{answer}"
            )),
            Err(error) => world.violation(format!("a repeat got {error}")),
        }
    }
    repeats.len()
}
