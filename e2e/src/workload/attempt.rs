//! One write as a careful client makes it, and what it may conclude from the answer.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, NoAnswer, Request};
use rand::rngs::StdRng;

use super::world::World;

/// How long a client with a key goes on asking after the run is over.
const SETTLE: Duration = Duration::from_secs(40);
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub enum Outcome {
    Done(Answer),
    /// 412 or 404: judged, and nothing changed.
    Declined,
    /// Not applied, and never will be.
    Refused,
    /// May have happened, or may still.
    Unknown,
}

/// Sends a write.  With an idempotency key it is sent again until the outcome is certain;
/// without one, an uncertain outcome stays uncertain.
pub async fn write<F>(world: &World, rng: &mut StdRng, key: Option<&str>, request: F) -> Outcome
where
    F: Fn(&Client) -> Request,
{
    let mut doubtful = false;
    let mut stopped_at: Option<Instant> = None;
    loop {
        let client = world.client(rng);
        let mut attempt = request(&client).at_most(TIMEOUT);
        if let Some(key) = key {
            attempt = attempt.header("idempotency-key", key);
        }
        match judge(world, attempt.send().await) {
            Outcome::Refused if !doubtful => return counted(world, Outcome::Refused),
            Outcome::Unknown if key.is_none() => return counted(world, Outcome::Unknown),
            Outcome::Refused => {}
            Outcome::Unknown => doubtful = true,
            certain => return counted(world, certain),
        }
        if world.stopping() && stopped_at.get_or_insert_with(Instant::now).elapsed() > SETTLE {
            return counted(world, Outcome::Unknown);
        }
        world.pause(rng, 50).await;
    }
}

fn counted(world: &World, outcome: Outcome) -> Outcome {
    let counter = match outcome {
        Outcome::Done(_) | Outcome::Declined => &world.counts.acknowledged,
        Outcome::Refused => &world.counts.refused,
        Outcome::Unknown => &world.counts.unknown,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    outcome
}

fn judge(world: &World, answer: Result<Answer, NoAnswer>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if error.sent => return Outcome::Unknown,
        Err(_) => return Outcome::Refused,
    };
    match answer.status {
        200 | 201 | 204 => Outcome::Done(answer),
        404 | 412 if answer.code() != "collection_not_found" => Outcome::Declined,
        429 | 503 => {
            if answer.header("retry-after").is_none() {
                world.violation(format!("no Retry-After:\n{answer}"));
            }
            match answer.code().as_str() {
                "outcome_unknown" | "partially_applied" => Outcome::Unknown,
                _ => Outcome::Refused,
            }
        }
        _ => {
            world.violation(format!("an answer that no valid write may get:\n{answer}"));
            Outcome::Unknown
        }
    }
}

/// An answered read; `None` when the server was away or busy.
pub async fn read(world: &World, request: Request) -> Option<Answer> {
    match request.at_most(TIMEOUT).send().await {
        Ok(answer) if answer.status == 200 => Some(answer),
        Ok(answer) if answer.status == 404 && answer.code() == "document_not_found" => Some(answer),
        // Busy, too slow, or a cursor that a restart ended.
        Ok(answer) if matches!(answer.status, 410 | 429 | 503 | 504) => None,
        Ok(answer) => {
            world.violation(format!("an answer that no valid read may get:\n{answer}"));
            None
        }
        Err(_) => None,
    }
}
