//! How many queries run at once.  More wait a moment; those for whom it gets no better are
//! told 429, and so is at once who would have to stand behind too many others: a burst is
//! smoothed and an overload is not piled up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rhumb_core::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longer and the client would rather have asked another server.
const WAIT: Duration = Duration::from_secs(2);
/// Waiting per place: with more, the last would wait longer than `WAIT` for ordinary queries
/// of some ten milliseconds.
const QUEUE: usize = 64;

#[derive(Clone, Debug)]
pub struct Gate {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
}

/// One that waits; no longer counted when it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(at_once)),
            waiting: Arc::default(),
            most_waiting: at_once.saturating_mul(QUEUE),
        }
    }

    /// A place among those that run; it is free again when the permit is dropped.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let busy = || {
            Problem::new(Code::TooManyRequests, "too many queries are running")
                .hint("ask again in a moment, or with fewer connections")
        };
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.most_waiting {
            return Err(busy());
        }
        match tokio::time::timeout(WAIT, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_smoothed_and_an_overload_turned_away() {
        let gate = Gate::new(1);
        let first = gate.enter().await.expect("free");
        let refused = gate.enter().await.expect_err("taken");
        assert_eq!(refused.code, Code::TooManyRequests);
        let later = async {
            tokio::time::sleep(WAIT / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(gate.enter(), later);
        assert!(second.is_ok(), "free in time");
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_stand_behind_too_many_is_told_at_once() {
        let gate = Gate::new(1);
        let _first = gate.enter().await.expect("free");
        let mut queue: Vec<_> = (0..QUEUE).map(|_| Box::pin(gate.enter())).collect();
        for waiting in &mut queue {
            assert!(futures::poll!(waiting).is_pending());
        }
        let begun = tokio::time::Instant::now();
        let refused = gate.enter().await.expect_err("the queue is full");
        assert_eq!(refused.code, Code::TooManyRequests);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        queue.pop();
        assert!(
            futures::poll!(Box::pin(gate.enter())).is_pending(),
            "one has left"
        );
    }
}
