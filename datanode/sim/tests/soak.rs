//! Random seeds.  `RHUMB_SIM_SEEDS=n` runs more of them, `RHUMB_SIM_SEED=n` replays one
//! and prints its trace.

use rhumb_sim::{Plan, Report, run_seed};

const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn fail(report: &Report) -> ! {
    let lines = report
        .violations
        .iter()
        .take(20)
        .map(|v| format!("  {v}\n"))
        .collect::<String>();
    panic!(
        "seed {} (replay: RHUMB_SIM_SEED={}):\n{lines}",
        report.seed, report.seed
    );
}

#[test]
fn no_seed_loses_doubles_or_reorders_anything() {
    if let Some(seed) = number("RHUMB_SIM_SEED") {
        let report = run_seed(
            seed,
            Plan {
                keep_trace: true,
                ..Plan::default()
            },
        );
        for line in &report.trace {
            eprintln!("{line}");
        }
        eprintln!("{:?} trace {:016x}", report.summary, report.trace_hash);
        if !report.violations.is_empty() {
            fail(&report);
        }
        return;
    }
    let first = number("RHUMB_SIM_FIRST").unwrap_or(1);
    let mut total = Totals::default();
    for seed in first..first + number("RHUMB_SIM_SEEDS").unwrap_or(SEEDS) {
        let report = run_seed(seed, Plan::default());
        if !report.violations.is_empty() {
            fail(&report);
        }
        total.add(&report);
    }
    eprintln!("{total:?}");
    total.must_have_done_something();
}

#[test]
fn no_seed_loses_doubles_or_reorders_anything_under_encryption() {
    let mut total = Totals::default();
    for seed in 1..=SEEDS / 3 {
        let plan = Plan {
            encrypted: true,
            ..Plan::default()
        };
        let report = run_seed(seed, plan);
        if !report.violations.is_empty() {
            fail(&report);
        }
        total.add(&report);
    }
    eprintln!("{total:?}");
    total.must_have_done_something();
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 1..=12 {
        let (once, again) = (run_seed(seed, Plan::default()), run_seed(seed, Plan::default()));
        assert_eq!(once.trace_hash, again.trace_hash, "seed {seed}");
        assert_eq!(
            (once.requests, once.summary),
            (again.requests, again.summary),
            "seed {seed}"
        );
        assert_ne!(once.trace_hash, run_seed(seed + 100, Plan::default()).trace_hash);
    }
}

#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    requests: u64,
    simulated_hours: f64,
    invoked: u64,
    acked: u64,
    refused: u64,
    reads: u64,
    takeovers: u64,
    fenced: u64,
    checkpoints: u64,
    handed_back: u64,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        let done = report.summary;
        self.seeds += 1;
        self.requests += report.requests;
        self.simulated_hours += report.simulated.as_secs_f64() / 3_600.0;
        self.invoked += done.invoked;
        self.acked += done.acked;
        self.refused += done.refused;
        self.reads += done.reads;
        self.takeovers += done.takeovers;
        self.fenced += done.fenced;
        self.checkpoints += done.checkpoints;
        self.handed_back += done.handed_back;
    }

    /// A soak in which nobody could write proves nothing.
    fn must_have_done_something(&self) {
        assert!(self.acked > 20 * self.seeds, "{self:?}");
        assert!(self.reads > 20 * self.seeds, "{self:?}");
        assert!(self.takeovers > 3 * self.seeds, "{self:?}");
        assert!(self.fenced > self.seeds, "{self:?}");
        assert!(self.checkpoints > 2 * self.seeds, "{self:?}");
        assert!(self.handed_back > self.seeds / 4, "{self:?}");
        // One seed in eight has one: a hundred of them have eight to seventeen.
        assert!(self.refused > self.seeds / 20, "{self:?}");
    }
}
