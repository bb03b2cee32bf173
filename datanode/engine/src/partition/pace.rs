//! When to close a group commit: pure arithmetic, fed with what was measured.
//!
//! A flush starts on arrival when nothing is in flight (P6), so one writer never waits.
//! With several, the answers of one PUT send their writers back at about the same time;
//! closing the next group at the first of them would let the rest wait for a whole PUT.
//! So a group is held open until as many are back as the last one served, and never for
//! more than a fraction of what a PUT costs.

use std::time::Duration;

/// Of the PUT time: a group of eight gains seven PUTs for this much delay.
const HOLD_FRACTION: f64 = 0.25;
const MAX_HOLD: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub struct Pace {
    put: Duration,
    /// Requests that the last groups served, smoothed so that one small group does not
    /// forget the others.
    expected: f64,
}

impl Pace {
    pub fn served(&mut self, requests: usize, put: Duration) {
        self.put = if self.put.is_zero() {
            put
        } else {
            self.put.mul_f64(0.8) + put.mul_f64(0.2)
        };
        let served = requests as f64;
        self.expected = if served > self.expected {
            served
        } else {
            self.expected * 0.75 + served * 0.25
        };
    }

    /// How many requests to wait for, and how long at most.
    pub fn hold(&self) -> (usize, Duration) {
        (
            self.expected.round() as usize,
            self.put.mul_f64(HOLD_FRACTION).min(MAX_HOLD),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Duration = Duration::from_millis(4);

    #[test]
    fn a_lone_writer_is_never_held() {
        let mut pace = Pace::default();
        pace.served(1, PUT);
        assert_eq!(pace.hold().0, 1);
    }

    #[test]
    fn a_crowd_is_waited_for_briefly_and_forgotten_slowly() {
        let mut pace = Pace::default();
        pace.served(8, PUT);
        assert_eq!(pace.hold(), (8, Duration::from_millis(1)));
        pace.served(1, PUT);
        assert!(pace.hold().0 >= 6);
        for _ in 0..20 {
            pace.served(1, PUT);
        }
        assert_eq!(pace.hold().0, 1);
    }
}
