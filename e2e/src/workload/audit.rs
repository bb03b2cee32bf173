//! The ledger against what the database holds.

use std::collections::{BTreeMap, BTreeSet};

use crate::Client;
use serde_json::Value;

use super::attempt::read;
use super::ledger::{Batch, Fate};
use super::world::{World, lock};

/// Reads all ledger documents in one snapshot and compares.  False when the server was
/// away in between: nothing was judged.
pub async fn audit(world: &World, client: &Client) -> bool {
    let before = lock(&world.ledger).clone();
    let Some(found) = all_of(world, client, "l").await else {
        return false;
    };
    let mut present: BTreeMap<String, Value> = BTreeMap::new();
    for entry in found {
        let id = entry["id"].as_str().unwrap_or_default().to_owned();
        if present.insert(id.clone(), entry["document"].clone()).is_some() {
            world.violation(format!("{id} appears twice in one scan"));
        }
    }
    let mut ledger = lock(&world.ledger);
    let known: BTreeSet<&String> = ledger.batches.values().flat_map(|batch| &batch.ids).collect();
    if let Some(stranger) = present.keys().find(|id| !known.contains(id)) {
        world.violation(format!("{stranger} was never written"));
    }
    drop(known);
    for (number, then) in &before.batches {
        let count = then.ids.iter().filter(|id| present.contains_key(*id)).count();
        let Some(now) = ledger.batches.get_mut(number) else {
            continue;
        };
        if let Some(what) = wrong_with(world, then, now, count) {
            world.violation(format!(
                "{what}: {count} of {} documents are there, {then:?}",
                then.ids.len()
            ));
        }
        if count == then.ids.len() {
            now.seen = true;
        }
        for id in then.ids.iter().filter(|id| present.contains_key(*id)) {
            if world.content_of(id, &present[id]) != Some(then.content) {
                world.violation(format!("{id} holds what was not written to it: {}", present[id]));
            }
        }
    }
    true
}

/// `then`: what was known before the scan began; `now`: after it ended.
fn wrong_with(world: &World, then: &Batch, now: &Batch, count: usize) -> Option<&'static str> {
    let whole = count == then.ids.len();
    let never_deleted = now.deleted.is_none() || now.deleted == Some(Fate::Refused);
    if then.inserted == Fate::Acknowledged && never_deleted && !whole {
        return Some("acknowledged and lost");
    }
    if then.seen && never_deleted && !whole {
        return Some("seen once and lost");
    }
    if then.deleted == Some(Fate::Acknowledged) && count > 0 {
        return Some("deleted and back again");
    }
    if now.inserted == Fate::Refused && count > 0 {
        return Some("refused, but there");
    }
    (world.batches_are_atoms() && count > 0 && !whole).then_some("half a batch")
}

/// Every document with a prefix, in one snapshot over as many pages as it takes.
pub async fn all_of(world: &World, client: &Client, prefix: &str) -> Option<Vec<Value>> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("{}?prefix={prefix}&limit=2000{cursor}", world.documents());
        let page = read(world, client.get(&path)).await?.json();
        all.extend(page["documents"].as_array()?.iter().cloned());
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", crate::client::escape(next)),
            None => return Some(all),
        }
    }
}
