//! Which request is hit by what.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, PutOptions, PutPayload};
use parking_lot::Mutex;
use rhumb_seams::Rand;

use crate::metrics::Op;

/// Writes held back at most; beyond it the oldest is due at once.
const MAX_HELD: usize = 1_024;
/// Listings remembered for `StaleList`, by prefix.
const MAX_LISTINGS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error, and nothing was done.
    FailBefore,
    /// Done, and then an error.
    LoseAnswer,
    Delay(Duration),
    /// `503 SlowDown`.
    Throttle,
    /// A PUT answered with an error now and applied this many requests later.
    Hold {
        requests: u64,
    },
    /// A PUT applied now and once more this many requests later.
    Duplicate {
        requests: u64,
    },
    /// A body shorter than declared, or a listing that breaks off.
    Truncate,
    FlipBit,
    /// The previous listing of the same prefix.
    StaleList,
    /// Like `FailBefore`, for whatever the rule matches, until it is removed.
    Outage,
    /// A mistake in the code below: the request panics, and nothing was done.
    Panic,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Self::FailBefore => "fail_before",
            Self::LoseAnswer => "lose_answer",
            Self::Delay(_) => "delay",
            Self::Throttle => "throttle",
            Self::Hold { .. } => "hold",
            Self::Duplicate { .. } => "duplicate",
            Self::Truncate => "truncate",
            Self::FlipBit => "flip_bit",
            Self::StaleList => "stale_list",
            Self::Outage => "outage",
            Self::Panic => "panic",
        }
    }

    fn suits(self, op: Op) -> bool {
        match self {
            Self::FailBefore
            | Self::LoseAnswer
            | Self::Delay(_)
            | Self::Throttle
            | Self::Outage
            | Self::Panic => true,
            Self::Hold { .. } | Self::Duplicate { .. } => op == Op::Put,
            Self::Truncate => matches!(op, Op::Get | Op::List),
            Self::FlipBit => op == Op::Get,
            Self::StaleList => op == Op::List,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub fault: Fault,
    /// Any when absent.
    pub op: Option<Op>,
    /// A part of the path; all paths when empty.
    pub path: String,
    /// Of a matching request to be hit, in `0.0..=1.0`.
    pub chance: f64,
    /// Matching requests let through first.
    pub skip: u64,
    /// Hits before the rule is spent; no end when absent.
    pub times: Option<u64>,
}

impl Rule {
    /// Hits everything, always.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            op: None,
            path: String::new(),
            chance: 1.0,
            skip: 0,
            times: None,
        }
    }

    pub fn on(self, op: Op) -> Self {
        Self { op: Some(op), ..self }
    }

    pub fn at(self, path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            ..self
        }
    }

    pub fn chance(self, chance: f64) -> Self {
        Self { chance, ..self }
    }

    pub fn skip(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    pub fn times(self, times: u64) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }

    fn matches(&self, op: Op, path: &str) -> bool {
        self.op.is_none_or(|wanted| wanted == op) && self.fault.suits(op) && path.contains(&self.path)
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuleProblem {
    #[error("a rule starts with a fault, got `{0}`")]
    UnknownFault(String),
    #[error("`{0}` is not a setting of a fault rule")]
    UnknownKey(String),
    #[error("`{key}` cannot be `{value}`")]
    BadValue { key: String, value: String },
}

/// `lose_answer op=put path=/wal/ chance=0.05 skip=1 times=3`; `delay` takes `ms`, `hold`
/// and `duplicate` take `requests`.
impl FromStr for Rule {
    type Err = RuleProblem;

    fn from_str(text: &str) -> Result<Self, RuleProblem> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let mut rule = Self::new(Fault::FailBefore);
        let (mut ms, mut requests) = (10, 3);
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| RuleProblem::UnknownKey(word.to_owned()))?;
            let bad = || RuleProblem::BadValue {
                key: key.to_owned(),
                value: value.to_owned(),
            };
            match key {
                "op" => {
                    rule.op = Some(
                        Op::ALL
                            .into_iter()
                            .find(|op| op.name() == value)
                            .ok_or_else(bad)?,
                    )
                }
                "path" => rule.path = value.to_owned(),
                "chance" => {
                    rule.chance = value
                        .parse()
                        .ok()
                        .filter(|c| (0.0..=1.0).contains(c))
                        .ok_or_else(bad)?
                }
                "skip" => rule.skip = value.parse().map_err(|_| bad())?,
                "times" => rule.times = Some(value.parse().map_err(|_| bad())?),
                "ms" => ms = value.parse().map_err(|_| bad())?,
                "requests" => requests = value.parse().map_err(|_| bad())?,
                _ => return Err(RuleProblem::UnknownKey(key.to_owned())),
            }
        }
        rule.fault = match name {
            "fail_before" => Fault::FailBefore,
            "lose_answer" => Fault::LoseAnswer,
            "delay" => Fault::Delay(Duration::from_millis(ms)),
            "throttle" => Fault::Throttle,
            "hold" => Fault::Hold { requests },
            "duplicate" => Fault::Duplicate { requests },
            "truncate" => Fault::Truncate,
            "flip_bit" => Fault::FlipBit,
            "stale_list" => Fault::StaleList,
            "outage" => Fault::Outage,
            "panic" => Fault::Panic,
            other => return Err(RuleProblem::UnknownFault(other.to_owned())),
        };
        Ok(rule)
    }
}

/// The handle: rules may come and go while requests run.  Clones share them.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rand: Rand,
    rules: Vec<(u64, Rule)>,
    next_rule: u64,
    hits: BTreeMap<&'static str, u64>,
    requests: u64,
    held: VecDeque<(u64, Held)>,
    listings: BTreeMap<Path, Vec<ObjectMeta>>,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub location: Path,
    pub payload: PutPayload,
    pub options: PutOptions,
}

#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub delay: Option<Duration>,
    pub fault: Option<Fault>,
}

impl Faults {
    pub fn new(rand: Rand) -> Self {
        Self(Arc::new(Mutex::new(State {
            rand,
            rules: Vec::new(),
            next_rule: 0,
            hits: BTreeMap::new(),
            requests: 0,
            held: VecDeque::new(),
            listings: BTreeMap::new(),
        })))
    }

    /// Rules as text, `;` between them: the hidden setting of the server.
    pub fn parse(rules: &str, rand: Rand) -> Result<Self, RuleProblem> {
        let faults = Self::new(rand);
        for rule in rules.split(';').filter(|text| !text.trim().is_empty()) {
            faults.add_rule(rule.parse()?);
        }
        Ok(faults)
    }

    /// The number takes it away again.
    pub fn add_rule(&self, rule: Rule) -> u64 {
        let mut state = self.0.lock();
        let number = state.next_rule;
        state.next_rule += 1;
        state.rules.push((number, rule));
        number
    }

    pub fn remove_rule(&self, number: u64) {
        self.0.lock().rules.retain(|(n, _)| *n != number);
    }

    /// Rules only: writes held back are still to come.
    pub fn clear(&self) {
        self.0.lock().rules.clear();
    }

    /// Everything held back is applied before the next request.
    pub fn release(&self) {
        self.0.lock().held.iter_mut().for_each(|(due, _)| *due = 0);
    }

    /// How often each kind of fault struck.
    pub fn hits(&self) -> Vec<(&'static str, u64)> {
        self.0
            .lock()
            .hits
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect()
    }

    pub fn hits_of(&self, fault: Fault) -> u64 {
        self.0.lock().hits.get(fault.name()).copied().unwrap_or(0)
    }

    /// All delays that apply, and the first other fault.
    pub(super) fn judge(&self, op: Op, path: &str) -> Verdict {
        let mut state = self.0.lock();
        let State {
            rand, rules, hits, ..
        } = &mut *state;
        let mut verdict = Verdict::default();
        for (_, rule) in rules.iter_mut() {
            let delays = matches!(rule.fault, Fault::Delay(_));
            if !rule.matches(op, path) || (!delays && verdict.fault.is_some()) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.times == Some(0) || (rule.chance < 1.0 && rand.unit() >= rule.chance) {
                continue;
            }
            rule.times = rule.times.map(|left| left - 1);
            *hits.entry(rule.fault.name()).or_default() += 1;
            match rule.fault {
                Fault::Delay(by) => verdict.delay = Some(verdict.delay.unwrap_or_default() + by),
                other => verdict.fault = Some(other),
            }
        }
        verdict
    }

    pub(super) fn hold(&self, requests: u64, location: &Path, payload: PutPayload, options: PutOptions) {
        let mut state = self.0.lock();
        let due = state.requests + requests;
        state.held.push_back((
            due,
            Held {
                location: location.clone(),
                payload,
                options,
            },
        ));
        if state.held.len() > MAX_HELD
            && let Some((due, _)) = state.held.front_mut()
        {
            *due = 0;
        }
    }

    /// Counts a request and hands out the writes whose time has come.
    pub(super) fn due(&self) -> Vec<Held> {
        let mut state = self.0.lock();
        let now = state.requests;
        state.requests += 1;
        let (due, later) = std::mem::take(&mut state.held)
            .into_iter()
            .partition(|(due, _)| *due <= now);
        state.held = later;
        let due: VecDeque<(u64, Held)> = due;
        due.into_iter().map(|(_, held)| held).collect()
    }

    pub(super) fn wants_listings(&self) -> bool {
        self.0
            .lock()
            .rules
            .iter()
            .any(|(_, rule)| rule.fault == Fault::StaleList)
    }

    pub(super) fn remember_listing(&self, prefix: Path, listing: Vec<ObjectMeta>) {
        let mut state = self.0.lock();
        if state.listings.len() >= MAX_LISTINGS {
            state.listings.pop_first();
        }
        state.listings.insert(prefix, listing);
    }

    pub(super) fn earlier_listing(&self, prefix: &Path) -> Option<Vec<ObjectMeta>> {
        self.0.lock().listings.get(prefix).cloned()
    }

    pub(super) fn spoil(&self, fault: Option<Fault>, bytes: Bytes) -> Bytes {
        let rand = self.0.lock().rand.clone();
        match fault {
            Some(Fault::Truncate) => bytes.slice(..rand.below(bytes.len() as u64) as usize),
            Some(Fault::FlipBit) if !bytes.is_empty() => {
                let bit = rand.below(bytes.len() as u64 * 8) as usize;
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                flipped.into()
            }
            _ => bytes,
        }
    }
}
