//! How many queries run at once.  More wait a moment; those for whom it gets no better are
//! told 429, so that a burst is smoothed and an overload is not piled up.

use std::sync::Arc;
use std::time::Duration;

use rhumb_core::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longer and the client would rather have asked another server.
const WAIT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// A place among those that run; it is free again when the permit is dropped.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = || Problem::new(Code::TooManyRequests, "too many queries are running");
        match tokio::time::timeout(WAIT, self.0.clone().acquire_owned()).await {
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
}
