//! After the storm: everything is read once more in every way, and the history is judged.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::Client;
use crate::compare::same;
use crate::history::Content;
use crate::linear::{Verdict, check};
use crate::suite::eventually;
use serde_json::{Value, json};

use super::audit::{all_of, audit};
use super::readers;
use super::repeats::repeat_all;
use super::world::{GROUPS, HOT_KEYS, Sighting, World, group, hot_key};

const VERIFIER: usize = 99;
const PATIENCE: Duration = Duration::from_secs(60);
/// More of the same say nothing new.
const SHOWN: usize = 20;

/// The server must be calm and all clients gone.  Sends answered requests again, reads,
/// settles, and reads once more: nothing may differ.
pub async fn examine(name: &str, world: &World, client: &Client) {
    world.serve_from(vec![client.clone()]);
    let repeated = repeat_all(world, client).await;
    let first = read_everything(world, client).await;
    client
        .optimize(&world.collection)
        .await
        .unwrap_or_else(|error| world.violation(format!("optimize: {error:#}")));
    compare(
        world,
        "before and after optimize",
        &first,
        &read_everything(world, client).await,
    );
    eprintln!(
        "{name} {}: {repeated} repeats, {} documents",
        world.collection,
        first.len()
    );
}

/// The same after a restart: repeats must find their first answers again.
pub async fn examine_again(world: &World, client: &Client) {
    world.serve_from(vec![client.clone()]);
    let settled = read_everything(world, client).await;
    repeat_all(world, client).await;
    compare(
        world,
        "before and after repeats",
        &settled,
        &read_everything(world, client).await,
    );
}

/// Panics with what was found wrong.
pub fn assert_nothing(wrong: &[String], name: &str, seed: u64) {
    let shown = wrong[..wrong.len().min(SHOWN)].join("\n\n");
    assert!(
        wrong.is_empty(),
        "{name}, seed {seed}: {} violations\n\n{shown}\n",
        wrong.len()
    );
}

/// All documents, after every kind of read was made and recorded.
async fn read_everything(world: &World, client: &Client) -> Vec<Value> {
    let audited = eventually(PATIENCE, || audit(world, client)).await;
    if !audited {
        world.violation("no scan succeeds although all is calm");
    }
    for key in (0..HOT_KEYS).map(hot_key) {
        let seen = readers::get(world, VERIFIER, client, &key).await;
        let found = readers::query_key(world, VERIFIER, client, &key).await;
        expect_answer(world, seen.and(found), &key);
    }
    for name in (0..GROUPS).map(group) {
        let scanned = readers::scan_group(world, VERIFIER, client, &name, 3).await;
        let found = readers::query_group(world, VERIFIER, client, &name).await;
        expect_answer(world, scanned.and(found), &name);
    }
    let many = readers::get_many(world, VERIFIER, client).await;
    let scanned = readers::scan_keys(world, VERIFIER, client).await;
    expect_answer(world, many.and(scanned), "all hot keys");
    let all = all_of(world, client, "").await.unwrap_or_default();
    counts_agree(world, client, all.len()).await;
    all
}

fn expect_answer(world: &World, answered: Option<()>, what: &str) {
    if answered.is_none() {
        world.violation(format!("a read of {what} fails although all is calm"));
    }
}

async fn counts_agree(world: &World, client: &Client, rows: usize) {
    let path = format!("/v1/collections/{}", world.collection);
    let count = json!({"metrics": {"n": {"count": true}}});
    let described = client
        .get(&path)
        .send()
        .await
        .map(|answer| answer.json()["rows"].clone());
    let counted = client.post(&format!("{path}/aggregate"), &count).send().await;
    let counted = counted.map(|answer| answer.json()["groups"][0]["n"].clone());
    for (how, found) in [("described", described), ("aggregated", counted)] {
        if !matches!(&found, Ok(found) if found.as_u64().unwrap_or(0) == rows as u64) {
            world.violation(format!("{rows} documents are {how} as {found:?}"));
        }
    }
}

fn compare(world: &World, what: &str, before: &[Value], after: &[Value]) {
    let alike = before.len() == after.len() && before.iter().zip(after).all(|(a, b)| same(a, b));
    if !alike {
        let first = before.iter().zip(after).find(|(a, b)| !same(a, b));
        world.violation(format!(
            "{what}: {} and {} documents, first difference {first:?}",
            before.len(),
            after.len()
        ));
    }
}

/// Everything that was found wrong, and every answer that no order of the operations explains.
pub fn judge(name: &str, world: &World) -> Vec<String> {
    let mut wrong = world.violations();
    let registers = world.history.registers();
    let operations: usize = registers.values().map(Vec::len).sum();
    for (register, ops) in &registers {
        match check(ops, None) {
            Verdict::Linearizable => {}
            Verdict::Undecided => wrong.push(format!(
                "{register}: {} operations are too tangled to judge",
                ops.len()
            )),
            Verdict::Impossible(why) => wrong.push(format!(
                "{register} of {} is not linearizable\n{why}",
                world.collection
            )),
        }
    }
    wrong.extend(versions_that_shrank(&world.sightings()));
    let counts = &world.counts;
    let acknowledged = counts.acknowledged.load(Ordering::Relaxed);
    eprintln!(
        "{name} {}: {acknowledged} acknowledged, {} refused, {} unknown, {} reads; {operations} operations on {} registers judged",
        world.collection,
        counts.refused.load(Ordering::Relaxed),
        counts.unknown.load(Ordering::Relaxed),
        counts.reads.load(Ordering::Relaxed),
        registers.len(),
    );
    if acknowledged < world.enough() {
        wrong.push(format!(
            "only {acknowledged} writes were acknowledged: this run shows nothing"
        ));
    }
    wrong
}

/// A version names one content of one document, and later sightings never have a lower one.
fn versions_that_shrank(sightings: &[Sighting]) -> Vec<String> {
    let mut by_key: BTreeMap<&str, Vec<&Sighting>> = BTreeMap::new();
    for sighting in sightings {
        by_key.entry(&sighting.key).or_default().push(sighting);
    }
    by_key
        .values()
        .flat_map(|of_key| shrank(of_key))
        .take(5)
        .collect()
}

fn shrank(sightings: &[&Sighting]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut content_of: BTreeMap<u64, Content> = BTreeMap::new();
    for sighting in sightings {
        let first = content_of.entry(sighting.version).or_insert(sighting.content);
        if *first != sighting.content {
            wrong.push(format!("one version, two contents: {first:?} and {sighting:?}"));
        }
    }
    let mut by_return = sightings.to_vec();
    by_return.sort_by_key(|sighting| sighting.returned);
    let mut by_call = sightings.to_vec();
    by_call.sort_by_key(|sighting| sighting.invoked);
    let mut earlier = by_return.iter().peekable();
    let mut highest: Option<&Sighting> = None;
    for sighting in by_call {
        while let Some(before) = earlier.next_if(|before| before.returned < sighting.invoked) {
            if highest.is_none_or(|highest| before.version > highest.version) {
                highest = Some(before);
            }
        }
        if let Some(before) = highest.filter(|before| before.version > sighting.version) {
            wrong.push(format!("a version shrank: {before:?}, then {sighting:?}"));
        }
    }
    wrong
}
