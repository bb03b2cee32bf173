//! What a request costs whoever asks: rows, and time that the server works on it.
//!
//! The node that serves a request counts, since nobody else knows.  What is counted is a
//! debt, paid off before the next request (`rhumb_auth::Buckets`), so that no request is
//! cut off in the middle.

use std::sync::Arc;
use std::time::Duration;

use rhumb_auth::{Bound, Identity, Subject};
use tokio::time::Instant;

use crate::guard::Guard;

/// Where one caller's costs are put down.
#[derive(Clone)]
pub struct Meter {
    guard: Arc<Guard>,
    subject: Subject,
}

impl Meter {
    /// `None` when nothing of this caller is counted.
    pub fn of(guard: Option<&Arc<Guard>>, identity: &Identity) -> Option<Self> {
        let guard = guard.filter(|_| identity.pace.counts_where_served())?;
        Some(Self {
            guard: guard.clone(),
            subject: identity.subject.clone(),
        })
    }

    pub fn rows(&self, rows: u64) {
        self.guard.spend(&self.subject, Bound::Rows, rows as f64);
    }

    fn time(&self, worked: Duration) {
        let ms = worked.as_secs_f64() * 1e3;
        self.guard.spend(&self.subject, Bound::ServerMs, ms);
    }
}

/// Of one request.  Its time is put down when it is dropped: a client that leaves before
/// the answer pays for what was done until then.
pub struct Bill {
    meter: Option<Meter>,
    worked: Duration,
    since: Option<Instant>,
}

impl Bill {
    pub fn begin(meter: Option<Meter>) -> Self {
        Self {
            meter,
            worked: Duration::ZERO,
            since: Some(Instant::now()),
        }
    }

    /// For what goes on after the answer's head.
    pub fn meter(&self) -> Option<Meter> {
        self.meter.clone()
    }

    pub fn rows(&self, rows: u64) {
        if let Some(meter) = &self.meter {
            meter.rows(rows);
        }
    }

    /// The server waits for the client, or for a place that others have.
    pub fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            self.worked += since.elapsed();
        }
    }

    pub fn resume(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        self.pause();
        if let Some(meter) = &self.meter {
            meter.time(self.worked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_server_waits_is_not_counted() {
        let second = || tokio::time::sleep(Duration::from_secs(1));
        let mut bill = Bill::begin(None);
        second().await;
        bill.pause();
        bill.pause();
        second().await;
        bill.resume();
        second().await;
        bill.resume();
        second().await;
        bill.pause();
        assert_eq!(bill.worked, Duration::from_secs(3));
    }
}
