//! What people do to Leases with their own hands.

use serde_json::{Value, json};

use super::operator::{lease_path, make_lease};
use super::simulation::ClusterSim;

/// One edit of one Lease.
pub(super) fn meddle(sim: &ClusterSim) {
    let slot = sim.rand.below(u64::from(sim.slots)) as u32;
    let path = lease_path(slot);
    if sim.api.get(&path).is_none() {
        return make_lease(sim, slot);
    }
    let what = sim.rand.below(7);
    sim.trace.note(format_args!("a hand edits slot {slot}: {what}"));
    let edit = |edit: &dyn Fn(&mut Value)| sim.api.edit(&path, |lease| edit(lease));
    match what {
        0 => sim.api.remove(&path),
        1 => edit(&|lease| lease["spec"]["holderIdentity"] = "".into()),
        2 => edit(&|lease| lease["spec"] = json!({})),
        3 => edit(&|lease| lease["spec"]["holderIdentity"] = "somebody-else".into()),
        4 => edit(&|lease| lease["spec"]["leaseDurationSeconds"] = 1.into()),
        5 => edit(&|lease| lease["spec"]["leaseDurationSeconds"] = 20.into()),
        _ => {
            let pods = sim.pods.lock();
            let pod = &pods[sim.rand.below(pods.len() as u64) as usize];
            // A process that may well be alive.
            let holder = pod.identity();
            drop(pods);
            edit(&|lease| lease["spec"]["holderIdentity"] = holder.as_str().into());
        }
    }
}
