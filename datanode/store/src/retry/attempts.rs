//! How often, and how long to wait in between.

use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::failure::Failure;
use crate::metrics::Event;

/// A store that throttles gets at least this much peace.
const THROTTLED_WAIT: Duration = Duration::from_millis(200);

pub(super) struct Attempts<'a> {
    shared: &'a Shared,
    started: Instant,
    made: u32,
    denied: bool,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            started: Instant::now(),
            made: 1,
            denied: false,
        }
    }

    /// For a count that somebody else keeps.
    pub(super) fn after(shared: &'a Shared, made: u32, elapsed: Duration) -> Self {
        let now = Instant::now();
        Self {
            shared,
            started: now.checked_sub(elapsed).unwrap_or(now),
            made,
            denied: false,
        }
    }

    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Whether to try again after `failure`; waits before it says yes.
    pub(super) async fn again(&mut self, failure: Failure) -> bool {
        let policy = &self.shared.policy;
        let worth_it = match failure {
            Failure::Refused | Failure::Ambiguous { again: false } => false,
            Failure::Denied => !std::mem::replace(&mut self.denied, true),
            Failure::Answer
            | Failure::NotApplied
            | Failure::Throttled
            | Failure::Ambiguous { again: true } => true,
        };
        let wait = self.wait(failure);
        if !worth_it || self.made >= policy.attempts || self.started.elapsed() + wait > policy.budget {
            return false;
        }
        if failure == Failure::Throttled {
            self.shared.metrics.count(Event::Throttled);
        }
        self.shared.metrics.count(Event::Retry);
        self.made += 1;
        tokio::time::sleep(wait).await;
        true
    }

    /// Doubling, and between half and all of it, so that those who failed together do not
    /// come back together.
    fn wait(&self, failure: Failure) -> Duration {
        let policy = &self.shared.policy;
        let doubled = policy
            .first_wait
            .saturating_mul(1 << (self.made - 1).min(16))
            .min(policy.longest_wait);
        let whole = if failure == Failure::Throttled {
            doubled.max(THROTTLED_WAIT)
        } else {
            doubled
        };
        whole.mul_f64(0.5 + self.shared.rand.unit() / 2.0)
    }
}
