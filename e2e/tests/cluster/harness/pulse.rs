//! A small write every few milliseconds, each on a connection of its own, so that it goes to
//! any pod: how long was there no acknowledgement?

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rhumb_e2e::Client;
use serde_json::json;
use tokio::task::AbortHandle;

use super::wait_for;

const EVERY: Duration = Duration::from_millis(40);
/// A pulse that nobody answers goes on to the next pod.
const PATIENCE: Duration = Duration::from_secs(3);
/// Acknowledgements that show that all is well.
const ENOUGH: usize = 5;

#[derive(Clone, Copy, Debug)]
struct Beat {
    sent: Instant,
    acknowledged: Instant,
}

pub struct Pulse {
    beats: Arc<Mutex<Vec<Beat>>>,
    task: AbortHandle,
}

impl Pulse {
    /// Its collection is made; it beats when this returns.
    pub async fn start(client: &Client, collection: &str) -> Self {
        let fields = json!({"fields": {"beat": "int"}});
        wait_for("the pulse's collection", Duration::from_secs(30), async || {
            let created = client
                .put(&format!("/v1/collections/{collection}"), &fields)
                .send()
                .await?;
            anyhow::ensure!(matches!(created.status, 200 | 201), "{created}");
            Ok(())
        })
        .await;
        let beats = Arc::default();
        let task = tokio::spawn(beat(client.clone(), collection.to_owned(), Arc::clone(&beats)));
        let pulse = Self {
            beats,
            task: task.abort_handle(),
        };
        pulse.steady_since(Instant::now(), Duration::from_secs(30)).await;
        pulse
    }

    /// Waits until several writes that were sent after a moment are acknowledged.
    pub async fn steady_since(&self, moment: Instant, patience: Duration) {
        wait_for("writes are acknowledged again", patience, async || {
            let later = self.beats().into_iter().filter(|beat| beat.sent > moment).count();
            anyhow::ensure!(later >= ENOUGH, "{later} acknowledged since");
            Ok(())
        })
        .await;
    }

    /// The longest time between two acknowledgements, from a moment on.
    pub fn longest_silence(&self, from: Instant) -> Duration {
        let beats = self.beats();
        let moments = std::iter::once(from)
            .chain(beats.iter().map(|beat| beat.acknowledged).filter(|at| *at > from))
            .collect::<Vec<_>>();
        let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_else(|| from.elapsed())
    }

    fn beats(&self) -> Vec<Beat> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn beat(like: Client, collection: String, beats: Arc<Mutex<Vec<Beat>>>) {
    let path = format!("/v1/collections/{collection}/documents");
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0_u64.. {
        ticks.tick().await;
        let Ok(client) = like.within(PATIENCE) else {
            continue;
        };
        let sent = Instant::now();
        let answer = client
            .post(&path, &json!({"upsert": [{"id": "beat", "beat": n}]}))
            .send()
            .await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            let beat = Beat {
                sent,
                acknowledged: Instant::now(),
            };
            beats.lock().unwrap_or_else(PoisonError::into_inner).push(beat);
        }
    }
}
