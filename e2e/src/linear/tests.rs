//! The judge is judged: histories that must pass, histories that must not, and random
//! ones made by a correct register and then falsified.

use super::*;
use crate::history::{Action, Content};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn content(n: u64) -> Content {
    Content { tag: n, n }
}

fn op(invoked: u64, returned: u64, action: Action, told: Told) -> Op {
    Op {
        client: 0,
        action,
        told,
        invoked,
        returned,
        how: String::new(),
    }
}

const APPLIED: Told = Told::Applied { existed: None };

fn put(invoked: u64, returned: u64, n: u64) -> Op {
    op(invoked, returned, Action::Put(content(n)), APPLIED)
}

fn read(invoked: u64, returned: u64, seen: Option<u64>) -> Op {
    op(invoked, returned, Action::Read, Told::Saw(seen.map(content)))
}

fn fits(ops: &[Op]) -> bool {
    match check(ops, None) {
        Verdict::Linearizable => true,
        Verdict::Impossible(_) => false,
        Verdict::Undecided => panic!("undecided"),
    }
}

#[test]
fn a_stale_read_after_an_acknowledged_write_is_caught() {
    assert!(fits(&[put(0, 1, 1), put(2, 3, 2), read(4, 5, Some(2))]));
    assert!(!fits(&[put(0, 1, 1), put(2, 3, 2), read(4, 5, Some(1))]));
}

#[test]
fn a_lost_acknowledged_write_is_caught() {
    assert!(!fits(&[put(0, 1, 1), read(2, 3, None)]));
}

#[test]
fn concurrent_writes_may_end_either_way_but_not_both() {
    let both = |first, then| {
        fits(&[
            put(0, 9, 1),
            put(0, 9, 2),
            read(10, 11, first),
            read(12, 13, then),
        ])
    };
    assert!(both(Some(1), Some(1)));
    assert!(both(Some(2), Some(2)));
    assert!(!both(Some(1), Some(2)));
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_not_twice() {
    let unknown = op(0, 1, Action::Put(content(9)), Told::Unknown);
    assert!(fits(&[unknown.clone(), put(2, 3, 1), read(4, 5, Some(1))]));
    assert!(fits(&[
        unknown.clone(),
        put(2, 3, 1),
        read(4, 5, Some(1)),
        read(6, 7, Some(9))
    ]));
    let twice = [
        unknown,
        put(2, 3, 1),
        read(4, 5, Some(9)),
        put(6, 7, 2),
        read(8, 9, Some(9)),
    ];
    assert!(!fits(&twice));
}

#[test]
fn a_resurrected_delete_is_caught() {
    let deleted = op(2, 3, Action::Delete, Told::Applied { existed: Some(true) });
    assert!(fits(&[put(0, 1, 1), deleted.clone(), read(4, 5, None)]));
    assert!(!fits(&[put(0, 1, 1), deleted, read(4, 5, Some(1))]));
}

#[test]
fn a_declined_condition_must_have_been_false() {
    let declined = op(2, 3, Action::CreateIfAbsent(content(2)), Told::Declined);
    assert!(fits(&[put(0, 1, 1), declined.clone()]));
    assert!(!fits(&[declined]));
    let swap = op(
        2,
        3,
        Action::Swap {
            from: content(1),
            to: Some(content(5)),
        },
        Told::Declined,
    );
    assert!(!fits(&[put(0, 1, 1), swap]));
}

#[test]
fn content_that_nobody_wrote_is_caught() {
    assert!(!fits(&[put(0, 1, 1), read(0, 9, Some(77))]));
}

/// A register that works, used by overlapping clients; some of the answers get lost.
fn honest_history(rng: &mut StdRng, length: u64) -> Vec<Op> {
    let mut state: State = None;
    let mut ops = Vec::new();
    for at in 1..=length {
        let fresh = content(at);
        let from = state.unwrap_or(fresh);
        let action = match rng.random_range(0..7) {
            0 => Action::Put(fresh),
            1 => Action::Patch(at),
            2 => Action::Delete,
            3 => Action::CreateIfAbsent(fresh),
            4 => Action::Swap {
                from,
                to: Some(fresh),
            },
            _ => Action::Read,
        };
        let (next, happens) = effect_of(action, state);
        let mut told = match (action, happens) {
            (Action::Read, _) => Told::Saw(state),
            (_, true) => Told::Applied {
                existed: Some(state.is_some()),
            },
            (_, false) => Told::Declined,
        };
        let lost = action != Action::Read && rng.random_bool(0.05);
        if lost {
            told = Told::Unknown;
        }
        if !lost || rng.random_bool(0.5) {
            state = next;
        }
        // Took effect at 10 * at; the interval around it overlaps its neighbours.
        let around = |rng: &mut StdRng| rng.random_range(1..40);
        ops.push(op(
            (10 * at).saturating_sub(around(rng)),
            10 * at + around(rng),
            action,
            told,
        ));
    }
    ops
}

fn effect_of(action: Action, state: State) -> (State, bool) {
    let probe = op(0, 0, action, Told::Unknown);
    let next = probe.applied_to(state).expect("unknown fits everything");
    let told = Op {
        told: Told::Declined,
        ..probe
    };
    (next, told.applied_to(state).is_none())
}

#[test]
fn honest_histories_pass_whatever_overlaps_in_them() {
    for seed in 0..200 {
        let ops = honest_history(&mut StdRng::seed_from_u64(seed), 120);
        assert!(fits(&ops), "seed {seed}");
    }
}

#[test]
fn a_read_falsified_beyond_all_overlap_is_found() {
    let mut falsified = 0;
    for seed in 0..200 {
        let mut ops = honest_history(&mut StdRng::seed_from_u64(seed), 120);
        // Content of a write that was replaced long ago.
        let old = ops[..20].iter().find_map(|op| match (op.action, op.told) {
            (Action::Put(content), Told::Applied { .. }) => Some(content),
            _ => None,
        });
        let late = ops[60..].iter().position(|op| op.action == Action::Read);
        if let (Some(old), Some(late)) = (old, late)
            && ops[60 + late].told != Told::Saw(Some(old))
        {
            ops[60 + late].told = Told::Saw(Some(old));
            assert!(!fits(&ops), "seed {seed}");
            falsified += 1;
        }
    }
    assert!(falsified > 100);
}

#[test]
fn many_unknown_outcomes_are_decided_quickly() {
    let mut ops = Vec::new();
    for at in 0..2_000 {
        ops.push(put(10 * at, 10 * at + 1, at));
        ops.push(read(10 * at + 2, 10 * at + 3, Some(at)));
        if at % 5 == 0 {
            ops.push(op(
                10 * at,
                10 * at + 1,
                Action::Put(content(100_000 + at)),
                Told::Unknown,
            ));
            ops.push(op(
                10 * at,
                10 * at + 1,
                Action::Patch(200_000 + at),
                Told::Unknown,
            ));
        }
    }
    // One of them did happen, late.
    ops.push(read(30_000, 30_001, Some(100_005)));
    assert!(fits(&ops));
    ops.push(put(30_002, 30_003, 300_000));
    ops.push(read(30_004, 30_005, Some(100_005)));
    assert!(!fits(&ops), "it happened twice");
}

#[test]
fn unknown_operations_may_need_each_other() {
    let unknown = |action| op(0, 1, action, Told::Unknown);
    let chain = [
        put(0, 1, 1),
        unknown(Action::Delete),
        unknown(Action::CreateIfAbsent(content(2))),
        unknown(Action::Patch(9)),
        op(4, 5, Action::Read, Told::Saw(Some(Content { tag: 2, n: 9 }))),
    ];
    assert!(fits(&chain));
    let without_delete: Vec<Op> = chain
        .iter()
        .filter(|op| op.action != Action::Delete)
        .cloned()
        .collect();
    assert!(!fits(&without_delete));
}

/// Every order, without any cleverness.
fn fits_some_order(ops: &[Op], used: &mut Vec<bool>, state: State) -> bool {
    let open = |used: &[bool]| (0..ops.len()).filter(|at| !used[*at]).collect::<Vec<_>>();
    let waiting: Vec<usize> = open(used)
        .into_iter()
        .filter(|at| ops[*at].told != Told::Unknown)
        .collect();
    let Some(earliest) = waiting.iter().map(|at| ops[*at].returned).min() else {
        return true;
    };
    for at in open(used) {
        if ops[at].invoked > earliest {
            continue;
        }
        if let Some(next) = ops[at].applied_to(state) {
            used[at] = true;
            let fits = fits_some_order(ops, used, next);
            used[at] = false;
            if fits {
                return true;
            }
        }
    }
    false
}

#[test]
fn the_clever_search_agrees_with_the_plain_one() {
    let mut verdicts = [0, 0];
    for seed in 0..6_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut ops = honest_history(&mut rng, 8);
        for op in &mut ops {
            if op.action != Action::Read && rng.random_bool(0.4) {
                op.told = Told::Unknown;
            }
            // Some lies, which may or may not be possible truths.
            if op.action == Action::Read && rng.random_bool(0.3) {
                let seen = Content {
                    tag: rng.random_range(1..9),
                    n: rng.random_range(1..9),
                };
                op.told = Told::Saw(rng.random_bool(0.7).then_some(seen));
            }
        }
        let plain = fits_some_order(&ops, &mut vec![false; ops.len()], None);
        assert_eq!(fits(&ops), plain, "seed {seed}: {ops:#?}");
        verdicts[usize::from(plain)] += 1;
    }
    assert!(
        verdicts.iter().all(|count| *count > 500),
        "{verdicts:?}: both verdicts have to occur"
    );
}
