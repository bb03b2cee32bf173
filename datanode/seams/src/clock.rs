//! Wall time on top of tokio's clock, so that a paused runtime moves the whole world.
//! Durations and timers go through `tokio::time`; only timestamps that leave the process
//! come from here.  No safety decision uses wall time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    started_unix_ms: i64,
    /// What the machine had slept by then.
    slept: Duration,
}

impl Clock {
    /// Reads the machine's wall clock once.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    pub fn system() -> Self {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self::starting_at(since_epoch.as_millis() as i64)
    }

    pub fn starting_at(unix_ms: i64) -> Self {
        Self {
            started: Instant::now(),
            started_unix_ms: unix_ms,
            slept: slept(),
        }
    }

    /// Time since this clock began, the machine's sleep included: what a Lease is measured
    /// with (P17).  No step of the wall clock moves it.
    pub fn steady(&self) -> Duration {
        self.started.elapsed() + slept().saturating_sub(self.slept)
    }

    pub fn unix_ms(&self) -> i64 {
        self.started_unix_ms + self.started.elapsed().as_millis() as i64
    }
}

/// How long the machine has been suspended since it booted: tokio's clock stops there.
fn slept() -> Duration {
    let read = |id| {
        let now = clock_gettime(id);
        Duration::new(now.tv_sec.max(0) as u64, now.tv_nsec.max(0) as u32)
    };
    // In this order the time between the two readings counts as no sleep.
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}
