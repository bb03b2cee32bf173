//! Chance, handed down from one seed.

use std::sync::{Arc, Mutex, PoisonError};

use ::rand::rngs::StdRng;
use ::rand::{Rng, SeedableRng};

use crate::clock::Clock;

/// Cheap to clone; all clones draw from one stream.
#[derive(Clone, Debug)]
pub struct Rand(Arc<Mutex<StdRng>>);

impl Rand {
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub fn from_entropy() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    pub fn u64(&self) -> u64 {
        self.with(|r| r.random())
    }

    pub fn u128(&self) -> u128 {
        self.with(|r| r.random())
    }

    /// In `0..n`; 0 when `n` is 0.
    pub fn below(&self, n: u64) -> u64 {
        if n == 0 {
            0
        } else {
            self.with(|r| r.random_range(0..n))
        }
    }

    /// In `0.0..1.0`.
    pub fn unit(&self) -> f64 {
        self.with(|r| r.random())
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        // A panic elsewhere cannot leave a generator half-drawn.
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Mints ids: sortable by time, unique by chance.
#[derive(Clone, Debug)]
pub struct Ids {
    clock: Clock,
    rand: Rand,
}

impl Ids {
    pub fn new(clock: Clock, rand: Rand) -> Self {
        Self { clock, rand }
    }

    /// A ULID in its 26-letter form.
    pub fn ulid(&self) -> String {
        self.new_ulid().to_string()
    }

    /// A ULID as a number: later ones are larger.
    pub fn ulid_number(&self) -> u128 {
        self.new_ulid().0
    }

    fn new_ulid(&self) -> ulid::Ulid {
        ulid::Ulid::from_parts(self.clock.unix_ms().max(0) as u64, self.rand.u128())
    }
}
