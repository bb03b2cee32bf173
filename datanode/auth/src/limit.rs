//! How much one subject may ask for: requests per second, requests at once, bytes per
//! second.  Token buckets that fill with time; `now` is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Subject;

/// What is not named has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pace {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// Of request bodies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
}

impl Pace {
    pub fn is_boundless(&self) -> bool {
        *self == Self::default()
    }

    /// What this does not bound is bounded by `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            requests_per_s: self.requests_per_s.or(other.requests_per_s),
            concurrent: self.concurrent.or(other.concurrent),
            bytes_per_s: self.bytes_per_s.or(other.bytes_per_s),
        }
    }
}

/// When to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Duration);

#[derive(Debug)]
pub struct Buckets {
    of: BTreeMap<Subject, Bucket>,
    most: usize,
}

#[derive(Debug)]
struct Bucket {
    requests: Level,
    bytes: Level,
    running: u32,
    touched: Duration,
}

/// Filled at `rate` per second up to one second's worth.  May go below nothing: a body's
/// size is known only when it has come.
#[derive(Debug)]
struct Level {
    left: f64,
    at: Duration,
}

impl Level {
    fn full(rate: f64, now: Duration) -> Self {
        Self { left: rate, at: now }
    }

    fn fill(&mut self, rate: f64, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + passed * rate).min(rate.max(1.0));
        self.at = self.at.max(now);
    }

    /// Until `wanted` is there.
    fn wait(&self, wanted: f64, rate: f64) -> Option<Wait> {
        let lacking = wanted - self.left;
        (lacking > 0.0).then(|| Wait(Duration::from_secs_f64((lacking / rate.max(0.01)).min(3_600.0))))
    }
}

/// Told to somebody who has as many requests running as they may.
const RUNNING_WAIT: Duration = Duration::from_secs(1);

impl Buckets {
    /// Knows at most `most` subjects: of more, those that have asked for nothing longest are
    /// forgotten, and would be full by then anyway.
    pub fn new(most: usize) -> Self {
        Self {
            of: BTreeMap::new(),
            most: most.max(1),
        }
    }

    /// Takes one request in; [`Self::release`] gives its place back.
    pub fn admit(&mut self, subject: &Subject, pace: &Pace, now: Duration) -> Result<(), Wait> {
        if pace.is_boundless() {
            return Ok(());
        }
        self.make_room(subject);
        let (requests, bytes) = rates(pace);
        let bucket = self.of.entry(subject.clone()).or_insert_with(|| Bucket {
            requests: Level::full(requests, now),
            bytes: Level::full(bytes, now),
            running: 0,
            touched: now,
        });
        bucket.touched = now;
        bucket.requests.fill(requests, now);
        bucket.bytes.fill(bytes, now);
        if pace.concurrent.is_some_and(|most| bucket.running >= most) {
            return Err(Wait(RUNNING_WAIT));
        }
        if pace.requests_per_s.is_some()
            && let Some(wait) = bucket.requests.wait(1.0, requests)
        {
            return Err(wait);
        }
        // A debt of bytes is paid off before the next request.
        if pace.bytes_per_s.is_some()
            && let Some(wait) = bucket.bytes.wait(0.0, bytes)
        {
            return Err(wait);
        }
        bucket.requests.left -= 1.0;
        bucket.running += 1;
        Ok(())
    }

    pub fn spend_bytes(&mut self, subject: &Subject, bytes: u64) {
        if let Some(bucket) = self.of.get_mut(subject) {
            bucket.bytes.left -= bytes as f64;
        }
    }

    pub fn release(&mut self, subject: &Subject) {
        if let Some(bucket) = self.of.get_mut(subject) {
            bucket.running = bucket.running.saturating_sub(1);
        }
    }

    fn make_room(&mut self, subject: &Subject) {
        if self.of.len() < self.most || self.of.contains_key(subject) {
            return;
        }
        let idle = self.of.iter().filter(|(_, bucket)| bucket.running == 0);
        if let Some(idlest) = idle
            .min_by_key(|(_, bucket)| bucket.touched)
            .map(|(s, _)| s.clone())
        {
            self.of.remove(&idlest);
        }
    }
}

fn rates(pace: &Pace) -> (f64, f64) {
    (
        pace.requests_per_s.map_or(0.0, f64::from),
        pace.bytes_per_s.map_or(0.0, |n| n as f64),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn per_second(requests: u32) -> Pace {
        Pace {
            requests_per_s: Some(requests),
            ..Pace::default()
        }
    }

    #[test]
    fn a_burst_is_let_in_and_then_one_at_a_time() {
        let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
        let pace = per_second(10);
        for _ in 0..10 {
            assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()));
        }
        let Err(Wait(wait)) = buckets.admit(&ada, &pace, MS(0)) else {
            panic!("the bucket is empty")
        };
        assert_eq!(wait, MS(100));
        assert_eq!(buckets.admit(&Subject::user("bob"), &pace, MS(0)), Ok(()));
        assert_eq!(buckets.admit(&ada, &pace, MS(101)), Ok(()));
        assert!(buckets.admit(&ada, &pace, MS(101)).is_err());
    }

    #[test]
    fn no_more_run_at_once_than_may() {
        let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
        let pace = Pace {
            concurrent: Some(1),
            ..Pace::default()
        };
        assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()));
        assert!(buckets.admit(&ada, &pace, MS(0)).is_err());
        buckets.release(&ada);
        assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()));
    }

    #[test]
    fn a_large_body_is_paid_for_before_the_next_request() {
        let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
        let pace = Pace {
            bytes_per_s: Some(1_000),
            ..Pace::default()
        };
        assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()));
        buckets.spend_bytes(&ada, 3_000);
        assert_eq!(buckets.admit(&ada, &pace, MS(0)), Err(Wait(MS(2_000))));
        assert_eq!(buckets.admit(&ada, &pace, MS(2_000)), Ok(()));
    }

    #[test]
    fn whoever_is_unbounded_is_not_even_remembered() {
        let mut buckets = Buckets::new(2);
        assert_eq!(
            buckets.admit(&Subject::user("x"), &Pace::default(), MS(0)),
            Ok(())
        );
        assert!(buckets.of.is_empty());
        for n in 0..10 {
            let subject = Subject::user(&n.to_string());
            assert_eq!(buckets.admit(&subject, &per_second(1), MS(n)), Ok(()));
            buckets.release(&subject);
        }
        assert_eq!(buckets.of.len(), 2);
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_than_a_burst_and_the_rate_is_let_in(
            steps in prop::collection::vec(0u64..400, 1..200), rate in 1u32..20,
        ) {
            let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
            let (mut now, mut admitted) = (0, 0u64);
            for step in steps {
                now += step;
                admitted += u64::from(buckets.admit(&ada, &per_second(rate), MS(now)).is_ok());
                let most = u64::from(rate) + now * u64::from(rate) / 1_000 + 1;
                prop_assert!(admitted <= most, "{admitted} within {now} ms at {rate}/s");
            }
        }
    }
}
