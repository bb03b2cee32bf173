//! Faults under load.  Each finds the same database Ready, breaks something, mends it, and
//! leaves a history that is judged as a whole.

mod control_plane;
mod lease;
mod network;
mod nodes;
mod pods;
mod secured;
mod store;

use std::time::Duration;

/// The Lease (4 s), a look at it, the log's tail, a client that comes back: an unplanned
/// change of leaders, with room for two busy cores.
pub const UNPLANNED: Duration = Duration::from_secs(20);
/// Longer than a Lease, so that it is certainly lost.
pub const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(6);
