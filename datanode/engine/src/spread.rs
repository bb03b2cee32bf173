//! A write over the partitions of a collection: its parts, and one answer out of theirs.

use rhumb_core::DocId;
use rhumb_core::write::{Counts, Write};

use crate::collection::Written;
use crate::error::{EngineError, Outcome, PartOutcome};
use crate::partition::writer::Applied;

/// The partition that every request with this key asks.
pub fn home(key: &str, partitions: u32) -> u32 {
    DocId::from(key).partition(partitions)
}

/// Each document goes to the partition that owns its id; a filter goes to all; a key also
/// goes to the partition it hashes to, so that it is found again whatever the body says.
pub fn split(write: Write, home: Option<u32>, partitions: u32) -> Vec<(u32, Write)> {
    let empty = Write {
        delete_by_filter: write.delete_by_filter.clone(),
        condition: write.condition.clone(),
        new_fields: write.new_fields.clone(),
        idempotency: write.idempotency.clone(),
        all_or_nothing: write.all_or_nothing,
        scope: write.scope.clone(),
        ..Write::default()
    };
    let mut parts = vec![empty; partitions as usize];
    let mut touched = vec![write.delete_by_filter.is_some(); partitions as usize];
    if let Some(home) = home {
        touched[home as usize] = true;
    }
    let mut place = |id: &DocId| {
        let part = id.partition(partitions) as usize;
        touched[part] = true;
        part
    };
    for id in write.delete {
        parts[place(&id)].delete.push(id);
    }
    for (id, document) in write.upsert {
        parts[place(&id)].upsert.push((id, document));
    }
    for patch in write.patch {
        parts[place(&patch.id)].patch.push(patch);
    }
    if !touched.contains(&true) {
        touched[0] = true;
    }
    let all = (0..partitions).zip(parts);
    all.zip(touched)
        .filter(|(_, touched)| *touched)
        .map(|(part, _)| part)
        .collect()
}

/// One answer out of the partitions' answers.
pub fn combine(answers: Vec<(u32, Result<Applied, EngineError>)>) -> Result<Written, EngineError> {
    let applied = answers.iter().filter(|(_, a)| a.is_ok()).count();
    if applied == answers.len() {
        let mut written = Written {
            counts: Counts::default(),
            positions: Vec::new(),
        };
        for (index, answer) in answers {
            let Applied { counts, position } = answer?;
            written.counts = sum(written.counts, counts);
            written.positions.push((index, position));
        }
        return Ok(written);
    }
    let outcome = |answer: &Result<Applied, EngineError>| match answer {
        Ok(_) => Outcome::Applied,
        Err(EngineError::OutcomeUnknown) => Outcome::Unknown,
        Err(_) => Outcome::NotApplied,
    };
    let outcomes: Vec<PartOutcome> = answers
        .iter()
        .map(|(partition, a)| PartOutcome {
            partition: *partition,
            outcome: outcome(a),
        })
        .collect();
    if outcomes.iter().any(|o| o.outcome == Outcome::Applied) {
        return Err(EngineError::PartiallyApplied(outcomes));
    }
    // Nothing was applied for certain, or nothing is certain: the graver word wins.
    let errors = answers.into_iter().filter_map(|(_, a)| a.err());
    let gravest = errors.reduce(|a, b| {
        if matches!(b, EngineError::OutcomeUnknown) {
            b
        } else {
            a
        }
    });
    Err(gravest.unwrap_or_else(|| EngineError::Bug("a write without partitions".into())))
}

fn sum(a: Counts, b: Counts) -> Counts {
    Counts {
        upserted: a.upserted + b.upserted,
        patched: a.patched + b.patched,
        deleted: a.deleted + b.deleted,
        skipped: a.skipped + b.skipped,
        version: b.version.or(a.version),
        created: a.created || b.created,
    }
}

/// Bytes a write will hold in the memtable.
pub fn weight(write: &Write) -> usize {
    let id = |id: &DocId| match id {
        DocId::Num(_) => 64,
        DocId::Str(s) => 80 + s.len(),
    };
    let upserts: usize = write.upsert.iter().map(|(i, d)| id(i) + 64 + d.heap_size()).sum();
    let patches: usize = write
        .patch
        .iter()
        .map(|p| {
            id(&p.id)
                + p.set
                    .iter()
                    .filter_map(|(_, v)| v.as_ref())
                    .map(|v| 48 + v.heap_size())
                    .sum::<usize>()
        })
        .sum();
    let deletes: usize = write.delete.iter().map(id).sum();
    upserts + patches + deletes + 64
}
