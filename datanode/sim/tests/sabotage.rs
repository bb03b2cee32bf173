//! The checker can fail: every rule of the protocol, broken on purpose, is noticed.

use rhumb_sim::{Plan, Sabotage, run_seed};

/// Seeds that a broken rule may survive.  The rarest needs a zombie, a collected slot and
/// bad timing at once.
const PATIENCE: u64 = 3_000;

/// The first seed that notices, and what it says.
fn noticed(sabotage: Sabotage) -> Option<(u64, String)> {
    (1..=PATIENCE).find_map(|seed| {
        let report = run_seed(
            seed,
            Plan {
                sabotage: Some(sabotage),
                ..Plan::default()
            },
        );
        report.violations.first().map(|first| (seed, first.clone()))
    })
}

#[test]
fn every_broken_rule_is_noticed() {
    let mut survived = Vec::new();
    for sabotage in Sabotage::ALL {
        match noticed(sabotage) {
            Some((seed, what)) => eprintln!("{sabotage:?}: seed {seed}: {what}"),
            None => survived.push(sabotage),
        }
    }
    assert!(
        survived.is_empty(),
        "not noticed within {PATIENCE} seeds: {survived:?}"
    );
}
