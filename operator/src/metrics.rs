//! Counters of this process in the Prometheus text format.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Metrics {
    leads: AtomicBool,
    reconciled: AtomicU64,
    failed: AtomicU64,
}

impl Metrics {
    pub fn leads(&self, leads: bool) {
        self.leads.store(leads, Relaxed);
    }

    pub fn reconciled(&self) {
        self.reconciled.fetch_add(1, Relaxed);
    }

    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub fn render(&self) -> String {
        format!(
            "# HELP rhumb_operator_leader Whether this process holds the operator's lease.\n\
             # TYPE rhumb_operator_leader gauge\n\
             rhumb_operator_leader {}\n\
             # HELP rhumb_operator_reconciles_total Reconciles by result.\n\
             # TYPE rhumb_operator_reconciles_total counter\n\
             rhumb_operator_reconciles_total{{result=\"ok\"}} {}\n\
             rhumb_operator_reconciles_total{{result=\"error\"}} {}\n",
            u8::from(self.leads.load(Relaxed)),
            self.reconciled.load(Relaxed),
            self.failed.load(Relaxed),
        )
    }
}
