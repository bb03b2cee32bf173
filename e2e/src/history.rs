//! What concurrent clients did to one register (a document, or a group of documents that
//! is always written whole) and what they saw.
//!
//! Every write carries content that no other write carries, so an observed content names
//! the write it came from.  That makes "the version I read" and "the content I read" the
//! same thing, and a write that happened twice shows as old content that came back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// `tag` is set by whole writes, `n` by patches too.  Both are unique per write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Content {
    pub tag: u64,
    pub n: u64,
}

/// `None`: no such document.
pub type State = Option<Content>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Put(Content),
    /// Changes `n` of what is there, does nothing to what is not.
    Patch(u64),
    Delete,
    CreateIfAbsent(Content),
    /// Happens only to exactly this content; `None` deletes.
    Swap {
        from: Content,
        to: State,
    },
    /// Happens only to content with this tag.
    SwapTag {
        tag: u64,
        to: Content,
    },
    Read,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It happened.  For some verbs also whether there was a document before.
    Applied {
        existed: Option<bool>,
    },
    /// It was judged and changed nothing (412, 404, `skipped`).
    Declined,
    Saw(State),
    /// Any time from now on, or never.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Op {
    pub client: usize,
    pub action: Action,
    pub told: Told,
    /// Nanoseconds since the history began.
    pub invoked: u64,
    pub returned: u64,
    /// How it was asked, for reports: `PUT`, `query`, `key=…`.
    pub how: String,
}

impl Op {
    /// The state after this operation took effect on `state`; `None` when what the client
    /// was told contradicts `state`.
    pub fn applied_to(&self, state: State) -> Option<State> {
        let (next, happens) = effect(self.action, state);
        let agrees = match self.told {
            Told::Applied { existed } => happens && existed.is_none_or(|existed| existed == state.is_some()),
            Told::Declined => !happens,
            Told::Saw(seen) => seen == state,
            Told::Unknown => true,
        };
        agrees.then_some(next)
    }
}

fn effect(action: Action, state: State) -> (State, bool) {
    match (action, state) {
        (Action::Put(content), _) => (Some(content), true),
        (Action::Patch(n), Some(content)) => (Some(Content { n, ..content }), true),
        // Deleting nothing succeeds too.
        (Action::Delete, _) => (None, true),
        (Action::CreateIfAbsent(content), None) => (Some(content), true),
        (Action::Swap { from, to }, Some(content)) if content == from => (to, true),
        (Action::SwapTag { tag, to }, Some(content)) if content.tag == tag => (Some(to), true),
        _ => (state, false),
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            action,
            told,
            invoked,
            returned,
            how,
        } = self;
        let micros = |nanos: u64| nanos / 1_000;
        write!(
            f,
            "[{:>9}..{:>9} us] client {client} {how}: {action:?} -> {told:?}",
            micros(*invoked),
            micros(*returned)
        )
    }
}

/// All registers of a run.  Reads are only recorded when they were answered.
#[derive(Debug)]
pub struct History {
    begin: Instant,
    registers: Mutex<BTreeMap<String, Vec<Op>>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            registers: Mutex::default(),
        }
    }
}

impl History {
    pub fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    pub fn record(&self, register: &str, op: Op) {
        let mut registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        registers.entry(register.to_owned()).or_default().push(op);
    }

    pub fn registers(&self) -> BTreeMap<String, Vec<Op>> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
