//! How much one subject may ask for: requests at once, and per second requests, bytes, rows
//! and time of the server.  Token buckets that fill with time; `now` is an argument.
//!
//! What a request costs of bytes, rows and time shows while it runs: it is let in without,
//! and a debt is paid off before the next one.

use std::collections::BTreeMap;
use std::fmt;
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
    /// Written and returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_per_s: Option<u64>,
    /// Milliseconds that the server works on answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_ms_per_s: Option<u64>,
}

/// One bound of a [`Pace`]; those that fill with time come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Requests,
    Bytes,
    Rows,
    ServerMs,
    Concurrent,
}

/// The bounds that fill with time, in their own order: a bucket has a level for each.
const RATES: [Bound; 4] = [Bound::Requests, Bound::Bytes, Bound::Rows, Bound::ServerMs];
/// Those that only the node which serves a request can spend.
const SPENT_WHERE_SERVED: [Bound; 2] = [Bound::Rows, Bound::ServerMs];

impl Pace {
    pub fn is_boundless(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a bound of it lets nothing through.
    pub fn is_shut(&self) -> bool {
        let mut bounds = RATES.iter().chain(&[Bound::Concurrent]);
        bounds.any(|bound| self.most(*bound) == Some(0))
    }

    /// Whether whoever serves a request has to count what it costs.
    pub fn counts_where_served(&self) -> bool {
        SPENT_WHERE_SERVED.iter().any(|bound| self.most(*bound).is_some())
    }

    /// What this does not bound is bounded by `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            requests_per_s: self.requests_per_s.or(other.requests_per_s),
            concurrent: self.concurrent.or(other.concurrent),
            bytes_per_s: self.bytes_per_s.or(other.bytes_per_s),
            rows_per_s: self.rows_per_s.or(other.rows_per_s),
            server_ms_per_s: self.server_ms_per_s.or(other.server_ms_per_s),
        }
    }

    pub fn most(&self, bound: Bound) -> Option<u64> {
        match bound {
            Bound::Requests => self.requests_per_s.map(u64::from),
            Bound::Bytes => self.bytes_per_s,
            Bound::Rows => self.rows_per_s,
            Bound::ServerMs => self.server_ms_per_s,
            Bound::Concurrent => self.concurrent.map(u64::from),
        }
    }
}

impl Bound {
    /// What must be there before a request is let in: its own number is known, its other
    /// costs are not.
    fn entry(self) -> f64 {
        match self {
            Self::Requests => 1.0,
            Self::Bytes | Self::Rows | Self::ServerMs | Self::Concurrent => 0.0,
        }
    }
}

/// As it is called where it is set.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests_per_s",
            Self::Bytes => "bytes_per_s",
            Self::Rows => "rows_per_s",
            Self::ServerMs => "server_ms_per_s",
            Self::Concurrent => "concurrent",
        })
    }
}

/// Who is over which bound, and when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    pub bound: Bound,
    pub most: u64,
    pub wait: Duration,
}

#[derive(Debug)]
pub struct Buckets {
    of: BTreeMap<Subject, Bucket>,
    most: usize,
}

#[derive(Debug)]
struct Bucket {
    /// Of what is bounded alone: nobody runs up a debt under a bound that is set later.
    levels: [Option<Level>; RATES.len()],
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
    fn wait(&self, wanted: f64, rate: f64) -> Option<Duration> {
        let lacking = wanted - self.left;
        (lacking > 0.0).then(|| Duration::from_secs_f64((lacking / rate.max(0.01)).min(3_600.0)))
    }
}

impl Bucket {
    fn new(now: Duration) -> Self {
        Self {
            levels: [const { None }; RATES.len()],
            running: 0,
            touched: now,
        }
    }

    fn fill(&mut self, pace: &Pace, now: Duration) {
        self.touched = now;
        for (bound, level) in RATES.into_iter().zip(&mut self.levels) {
            match pace.most(bound) {
                None => *level = None,
                Some(most) => level
                    .get_or_insert_with(|| Level::full(most as f64, now))
                    .fill(most as f64, now),
            }
        }
    }

    /// The first of `bounds` that does not let the next request in.
    fn over(&self, pace: &Pace, bounds: &[Bound]) -> Option<Over> {
        bounds.iter().find_map(|&bound| {
            let (most, level) = (pace.most(bound)?, self.level(bound)?);
            let wait = level.wait(bound.entry(), most as f64)?;
            Some(Over { bound, most, wait })
        })
    }

    fn crowded(&self, pace: &Pace) -> Option<Over> {
        let most = pace.concurrent.filter(|most| self.running >= *most)?;
        Some(Over {
            bound: Bound::Concurrent,
            most: most.into(),
            wait: RUNNING_WAIT,
        })
    }

    fn level(&self, bound: Bound) -> Option<&Level> {
        self.levels.get(bound as usize)?.as_ref()
    }

    fn spend(&mut self, bound: Bound, amount: f64) {
        if let Some(Some(level)) = self.levels.get_mut(bound as usize) {
            level.left -= amount;
        }
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
    pub fn admit(&mut self, subject: &Subject, pace: &Pace, now: Duration) -> Result<(), Over> {
        if pace.is_boundless() {
            return Ok(());
        }
        let bucket = self.filled(subject, pace, now);
        if let Some(over) = bucket.crowded(pace).or_else(|| bucket.over(pace, &RATES)) {
            return Err(over);
        }
        bucket.spend(Bound::Requests, Bound::Requests.entry());
        bucket.running += 1;
        Ok(())
    }

    /// Judges a request that another node has let in, and that is served here.
    pub fn admit_passed_on(&mut self, subject: &Subject, pace: &Pace, now: Duration) -> Result<(), Over> {
        if !pace.counts_where_served() {
            return Ok(());
        }
        let over = self.filled(subject, pace, now).over(pace, &SPENT_WHERE_SERVED);
        over.map_or(Ok(()), Err)
    }

    pub fn spend(&mut self, subject: &Subject, bound: Bound, amount: f64) {
        if let Some(bucket) = self.of.get_mut(subject) {
            bucket.spend(bound, amount);
        }
    }

    pub fn release(&mut self, subject: &Subject) {
        if let Some(bucket) = self.of.get_mut(subject) {
            bucket.running = bucket.running.saturating_sub(1);
        }
    }

    fn filled(&mut self, subject: &Subject, pace: &Pace, now: Duration) -> &mut Bucket {
        self.make_room(subject);
        let bucket = self.of.entry(subject.clone()).or_insert_with(|| Bucket::new(now));
        bucket.fill(pace, now);
        bucket
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

#[cfg(test)]
mod tests;
