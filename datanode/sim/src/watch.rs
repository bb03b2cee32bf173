//! What the store itself can see going wrong, request by request, whatever the actors
//! believe: a state that may not follow the one before, a fence that is deleted.

use std::collections::BTreeSet;

use bytes::Bytes;
use object_store::path::Path;
use rhumb_core::Slot;
use rhumb_store::log::{Kind, TRAILER_LEN, Trailer};
use rhumb_store::state::State;

#[derive(Default)]
pub(crate) struct Watch {
    applied: Slot,
    /// Fences that went into the tail; one that went into a collected slot guards nothing.
    fences: BTreeSet<Path>,
    pub(crate) violations: Vec<String>,
}

impl Watch {
    pub(crate) fn saw_put(&mut self, path: &Path, before: Option<&Bytes>, after: &Bytes) {
        if path.filename() == Some("state.json") {
            self.saw_state(before.and_then(state_of), after);
        } else if path.as_ref().contains("/wal/") {
            self.saw_record(path, before, after);
        }
    }

    pub(crate) fn saw_delete(&mut self, path: &Path, gone: &Bytes) {
        if self.fences.remove(path) {
            self.violations.push(format!("the fence {path} was deleted"));
        }
        let data_above = path.as_ref().contains("/wal/")
            && Trailer::decode(path, gone).is_ok_and(|t| t.kind == Kind::Data && t.slot > self.applied);
        if data_above {
            self.violations
                .push(format!("{path} was deleted above applied {}", self.applied));
        }
        if path.filename() == Some("state.json") {
            self.violations.push("the state was deleted".into());
        }
    }

    fn saw_state(&mut self, before: Option<State>, after: &Bytes) {
        let Some(after) = state_of(after) else {
            self.violations
                .push("a state that cannot be read was written".into());
            return;
        };
        let verdict = before.map_or_else(|| after.check(), |before| before.may_become(&after));
        if let Err(reason) = verdict {
            self.violations.push(reason);
        }
        self.applied = after.applied;
    }

    fn saw_record(&mut self, path: &Path, before: Option<&Bytes>, after: &Bytes) {
        if before.is_some() {
            self.violations.push(format!("{path} was overwritten"));
        }
        if after.len() != TRAILER_LEN {
            return;
        }
        if Trailer::decode(path, after).is_ok_and(|fence| fence.slot > self.applied) {
            self.fences.insert(path.clone());
        }
    }
}

fn state_of(bytes: &Bytes) -> Option<State> {
    let envelope: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    serde_json::from_value(envelope.get("value")?.clone()).ok()
}
