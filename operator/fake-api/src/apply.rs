//! Server-side apply, as far as our objects need it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Lists that are maps, by the field that tells their items apart.
fn key_of(field: &str) -> Option<&'static str> {
    match field {
        "conditions" => Some("type"),
        "nodes" => Some("pod"),
        _ => None,
    }
}

/// What each field manager last said of a status.  A unit is a field of the status or an
/// item of a list that is a map.
#[derive(Default)]
pub struct Owners(BTreeMap<(String, String), BTreeSet<Unit>>);

type Unit = (String, Option<String>);

impl Owners {
    /// Takes out of `live` what only this manager said, and says no longer.  What it says
    /// now is its own from here on: every write of ours is forced.
    pub fn apply(&mut self, path: &str, manager: &str, live: &mut Value, said: &Value) {
        let now = units(said);
        let key = (path.to_owned(), manager.to_owned());
        let before = self.0.remove(&key).unwrap_or_default();
        let others: Vec<&mut BTreeSet<Unit>> = self
            .0
            .iter_mut()
            .filter(|((of, _), _)| of == path)
            .map(|(_, units)| units)
            .collect();
        let is_kept = |unit: &Unit| now.contains(unit) || others.iter().any(|other| other.contains(unit));
        for unit in before.iter().filter(|unit| !is_kept(unit)) {
            remove(live, unit);
        }
        for other in others {
            other.retain(|unit| !now.contains(unit));
        }
        self.0.insert(key, now);
    }

    pub fn forget(&mut self, path: &str) {
        self.0.retain(|(of, _), _| of != path);
    }
}

fn units(status: &Value) -> BTreeSet<Unit> {
    let mut units = BTreeSet::new();
    for (field, value) in status.as_object().into_iter().flatten() {
        match (key_of(field), value) {
            (Some(key), Value::Array(items)) => {
                let names = items.iter().filter_map(|item| item[key].as_str());
                units.extend(names.map(|name| (field.clone(), Some(name.to_owned()))));
            }
            _ => {
                units.insert((field.clone(), None));
            }
        }
    }
    units
}

fn remove(status: &mut Value, (field, item): &Unit) {
    match (item, key_of(field)) {
        (Some(name), Some(key)) => {
            if let Some(items) = status[field].as_array_mut() {
                items.retain(|item| item[key] != *name);
            }
        }
        _ => {
            if let Some(status) = status.as_object_mut() {
                status.remove(field);
            }
        }
    }
}

/// Objects by key, lists that are maps by theirs, anything else replaced.
pub fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(into), Value::Object(patch)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (field, value) in patch {
        let slot = into.entry(field.clone()).or_insert(Value::Null);
        match (key_of(field), value) {
            (Some(key), Value::Array(new)) if is_map(key, slot) && is_map(key, value) => {
                merge_items(key, slot, new);
            }
            (_, Value::Object(_)) => {
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                merge(slot, value);
            }
            _ => *slot = value.clone(),
        }
    }
}

fn is_map(key: &str, list: &Value) -> bool {
    list.as_array()
        .is_some_and(|items| items.iter().all(|item| item[key].is_string()))
}

fn merge_items(key: &str, slot: &mut Value, new: &[Value]) {
    let Value::Array(old) = slot else { return };
    for item in new {
        match old.iter_mut().find(|known| known[key] == item[key]) {
            Some(found) => *found = item.clone(),
            None => old.push(item.clone()),
        }
    }
}
