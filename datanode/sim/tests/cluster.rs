//! The cluster part, seed by seed.  `RHUMB_SIM_SEEDS=n` runs more of them, `RHUMB_SIM_SEED=n`
//! replays one and prints its trace.

use rhumb_sim::cluster::{ClusterPlan, ClusterReport, ClusterSabotage, run_cluster_seed};

const SEEDS: u64 = 100;
/// Seeds that a broken rule may survive.
const PATIENCE: u64 = 1_500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn check(report: &ClusterReport) {
    let lines: String = report
        .violations
        .iter()
        .take(20)
        .map(|v| format!("  {v}\n"))
        .collect();
    let seed = report.seed;
    assert!(
        lines.is_empty(),
        "seed {seed} (replay: RHUMB_SIM_SEED={seed}):\n{lines}"
    );
}

#[test]
fn no_seed_reads_stale_loses_a_write_or_stays_without_a_leader() {
    if let Some(seed) = number("RHUMB_SIM_SEED") {
        let plan = ClusterPlan {
            keep_trace: true,
            ..ClusterPlan::default()
        };
        let report = run_cluster_seed(seed, plan);
        report.trace.iter().for_each(|line| eprintln!("{line}"));
        return check(&report);
    }
    let first = number("RHUMB_SIM_FIRST").unwrap_or(1);
    let (mut acknowledged, mut reads, mut epochs) = (0, 0, 0);
    let count = number("RHUMB_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + count {
        let report = run_cluster_seed(seed, ClusterPlan::default());
        check(&report);
        acknowledged += report.acknowledged;
        reads += report.reads;
        epochs += report.epochs;
    }
    eprintln!("{count} seeds: {acknowledged} writes, {reads} reads, {epochs} epochs");
    // A run in which nobody could write or lead proves nothing.
    assert!(acknowledged > 200 * count && reads > 200 * count && epochs > 6 * count);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 1..=6 {
        let run = || run_cluster_seed(seed, ClusterPlan::default());
        let (once, again) = (run(), run());
        assert_eq!(once.trace_hash, again.trace_hash, "seed {seed}");
        assert_eq!(once.acknowledged, again.acknowledged, "seed {seed}");
    }
}

#[test]
fn every_broken_rule_is_noticed() {
    let mut survived = Vec::new();
    for sabotage in ClusterSabotage::ALL {
        let noticed = (1..=PATIENCE).find_map(|seed| {
            let plan = ClusterPlan {
                sabotage: Some(sabotage),
                ..ClusterPlan::default()
            };
            let report = run_cluster_seed(seed, plan);
            let shows = |what: &&String| sabotage.shows().iter().any(|shown| what.contains(shown));
            report
                .violations
                .iter()
                .find(shows)
                .map(|what| (seed, what.clone()))
        });
        match noticed {
            Some((seed, what)) => eprintln!("{sabotage:?}: seed {seed}: {what}"),
            None => survived.push(sabotage),
        }
    }
    assert!(
        survived.is_empty(),
        "not noticed within {PATIENCE} seeds: {survived:?}"
    );
}
