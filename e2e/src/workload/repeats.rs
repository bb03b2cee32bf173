//! Requests that were answered once and are sent again at the end: the first answer must
//! come back, and nothing may happen.

use std::time::{Duration, Instant};

use crate::client::{Answer, Client, NoAnswer};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::world::{World, lock};

const KEPT: usize = 150;
const PATIENCE: Duration = Duration::from_secs(60);
/// A connection to a pod that is gone with its address hangs until TCP gives up.
const ONE_TRY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

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

/// A request with a key may be sent until it is answered: a network that is not quite well
/// yet is not what is judged here.
async fn answered(client: &Client, path: &str, key: &str, body: &Value) -> Result<Answer, NoAnswer> {
    let until = Instant::now() + PATIENCE;
    loop {
        let request = client.post(path, body).header("idempotency-key", key);
        let answer = request.at_most(ONE_TRY).send().await;
        if answer.is_ok() || Instant::now() >= until {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub async fn repeat_all(world: &World, client: &Client) -> usize {
    let repeats = lock(&world.repeats).kept.clone();
    let path = world.documents();
    for Repeat { key, body, first } in &repeats {
        match answered(client, &path, key, body).await {
            Ok(answer) if answer.status == 200 && answer.json() == *first => {}
            Ok(answer) => world.violation(format!(
                "a repeat differs from its first answer {first}:\n{answer}"
            )),
            Err(error) => world.violation(format!("a repeat got {error}")),
        }
    }
    repeats.len()
}
