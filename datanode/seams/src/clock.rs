//! Wall time on top of tokio's clock, so that a paused runtime moves the whole world.
//! Durations and timers go through `tokio::time`; only timestamps that leave the process
//! come from here.  No safety decision uses wall time.

use tokio::time::Instant;

#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    started_unix_ms: i64,
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
        }
    }

    pub fn unix_ms(&self) -> i64 {
        self.started_unix_ms + self.started.elapsed().as_millis() as i64
    }
}
