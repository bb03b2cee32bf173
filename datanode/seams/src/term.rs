//! One term of leading a slot, as the process that leads knows it.
//!
//! Liveness and certainty only: what makes a stale leader harmless is the epoch in the
//! bucket.  A term is *certain* while no other process can have taken over by the rules of
//! the Lease; a strong read may then be answered without asking the bucket.  A term that
//! is not certain goes on writing until it is fenced or replaced (P16).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Clock;

/// Cheap to clone; all clones are one term.
#[derive(Clone, Debug)]
pub struct Term(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// On `Clock::steady`, in milliseconds.
    certain_until: AtomicU64,
    ended: CancellationToken,
    fenced: AtomicBool,
}

impl Term {
    /// Certain until `until`, of `clock.steady()`.
    pub fn new(clock: Clock, until: Duration) -> Self {
        Self(Arc::new(Inner {
            clock,
            certain_until: AtomicU64::new(millis(until)),
            ended: CancellationToken::new(),
            fenced: AtomicBool::new(false),
        }))
    }

    pub fn renew(&self, until: Duration) {
        self.0.certain_until.fetch_max(millis(until), Ordering::SeqCst);
    }

    pub fn is_certain(&self) -> bool {
        !self.has_ended() && millis(self.0.clock.steady()) < self.0.certain_until.load(Ordering::SeqCst)
    }

    pub fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    pub fn ended(&self) -> &CancellationToken {
        &self.0.ended
    }

    pub fn end(&self) {
        self.0.ended.cancel();
    }

    /// The bucket knows a newer leader of something this term covers: the term is over.
    pub fn fence(&self) {
        self.0.fenced.store(true, Ordering::SeqCst);
        self.end();
    }

    pub fn was_fenced(&self) -> bool {
        self.0.fenced.load(Ordering::SeqCst)
    }

    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

fn millis(of: Duration) -> u64 {
    of.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_term_is_certain_until_its_time_and_no_longer_once_it_ended() {
        let clock = Clock::starting_at(0);
        let term = Term::new(clock.clone(), Duration::from_secs(2));
        assert!(term.is_certain());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!term.is_certain() && !term.has_ended());
        term.renew(clock.steady() + Duration::from_secs(1));
        assert!(term.is_certain());
        // A late answer of an older renewal takes nothing away.
        term.renew(Duration::from_secs(1));
        assert!(term.is_certain());
        term.clone().fence();
        assert!(term.has_ended() && term.was_fenced() && !term.is_certain());
    }
}
