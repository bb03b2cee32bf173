//! Idempotency keys of one partition: a repeat within 24 hours gets the first answer (P5).
//!
//! A key travels in the log object of the very write it guards (its Arrow schema's
//! metadata), so the two can never be parted by a crash.  At a checkpoint the keys of the
//! flushed log objects move into a file under `idem/` that STATE names; opening a
//! partition loads those files and then meets the rest in the log tail.  None is dropped
//! early: over the cap, new keys are refused instead.

use std::collections::{BTreeMap, HashMap};

use rhumb_core::write::{Counts, Idempotency};
use rhumb_core::{Code, Position, Problem, Slot};
use serde::{Deserialize, Serialize};

use crate::error::EngineError;

pub const WINDOW_MS: i64 = 24 * 60 * 60 * 1000;
/// Key of the log object's Arrow schema metadata that holds `Vec<Entry>` as JSON.
pub const METADATA_KEY: &str = "rhumb.idempotency";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub key: String,
    pub body_hash: u64,
    pub at_ms: i64,
    pub counts: Counts,
    /// Filled in when the slot is known: by the writer, and by replay from the slot.
    #[serde(default)]
    pub position: Position,
}

#[derive(Debug, Default)]
pub struct Index {
    by_key: HashMap<String, Entry>,
    /// In order of expiry; the slot tells apart entries of one millisecond.
    by_age: BTreeMap<(i64, String), ()>,
}

impl Index {
    /// The first answer to this key, when it was seen.  The same key with another body is
    /// the caller's mistake.
    pub fn find(&self, idempotency: &Idempotency, now_ms: i64) -> Result<Option<&Entry>, Problem> {
        match self.by_key.get(&idempotency.key) {
            Some(entry) if entry.at_ms + WINDOW_MS <= now_ms => Ok(None),
            Some(entry) => check(entry, idempotency).map(|()| Some(entry)),
            None => Ok(None),
        }
    }

    pub fn insert(&mut self, entry: Entry) {
        if let Some(old) = self.by_key.get(&entry.key) {
            self.by_age.remove(&(old.at_ms, old.key.clone()));
        }
        self.by_age.insert((entry.at_ms, entry.key.clone()), ());
        self.by_key.insert(entry.key.clone(), entry);
    }

    pub fn expire(&mut self, now_ms: i64) {
        while let Some(((at_ms, key), ())) = self.by_age.first_key_value() {
            if at_ms + WINDOW_MS > now_ms {
                break;
            }
            self.by_key.remove(key);
            self.by_age.pop_first();
        }
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Entries whose log object lies in `(after, upto]`: what a checkpoint must save
    /// before those slots may be collected.
    pub fn between(&self, after: Slot, upto: Slot) -> Vec<&Entry> {
        self.by_age
            .keys()
            .filter_map(|(_, key)| self.by_key.get(key))
            .filter(|e| e.position.slot > after && e.position.slot <= upto)
            .collect()
    }
}

pub fn check(entry: &Entry, idempotency: &Idempotency) -> Result<(), Problem> {
    if entry.body_hash == idempotency.body_hash {
        return Ok(());
    }
    Err(Problem::new(
        Code::IdempotencyMismatch,
        "this Idempotency-Key was used with another request within the last 24 hours",
    )
    .field("Idempotency-Key")
    .hint("use a new key for a new request"))
}

pub fn to_json(entries: &[Entry]) -> Result<String, EngineError> {
    serde_json::to_string(entries).map_err(|e| EngineError::Bug(format!("idempotency entries: {e}")))
}

pub fn from_json(text: &[u8]) -> Result<Vec<Entry>, EngineError> {
    serde_json::from_slice(text).map_err(|e| EngineError::Corrupt(format!("idempotency entries: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, at_ms: i64, slot: u64) -> Entry {
        let position = Position {
            slot: Slot(slot),
            ..Position::default()
        };
        Entry {
            key: key.into(),
            body_hash: 7,
            at_ms,
            counts: Counts::default(),
            position,
        }
    }

    fn asked(key: &str, body_hash: u64) -> Idempotency {
        Idempotency {
            key: key.into(),
            body_hash,
        }
    }

    #[test]
    fn a_key_is_found_for_a_day_and_then_forgotten() {
        let mut index = Index::default();
        index.insert(entry("a", 1_000, 1));
        assert!(
            index
                .find(&asked("a", 7), 1_000 + WINDOW_MS - 1)
                .expect("same body")
                .is_some()
        );
        assert!(
            index
                .find(&asked("a", 7), 1_000 + WINDOW_MS)
                .expect("expired")
                .is_none()
        );
        index.expire(1_000 + WINDOW_MS);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn another_body_under_the_same_key_is_refused() {
        let mut index = Index::default();
        index.insert(entry("a", 0, 1));
        let refused = index.find(&asked("a", 8), 1).expect_err("another body");
        assert_eq!(refused.code, Code::IdempotencyMismatch);
    }

    #[test]
    fn a_checkpoint_saves_exactly_the_keys_of_its_slots() {
        let mut index = Index::default();
        for slot in 1..=5 {
            index.insert(entry(&format!("k{slot}"), slot as i64, slot));
        }
        let saved: Vec<&str> = index
            .between(Slot(1), Slot(4))
            .iter()
            .map(|e| e.key.as_str())
            .collect();
        assert_eq!(saved, ["k2", "k3", "k4"]);
    }
}
