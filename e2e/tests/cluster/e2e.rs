//! Changes that people and GitOps tools make, under load: nothing acknowledged may be lost,
//! and nobody should notice much.

mod life;
mod rollout;
mod scale;
mod secured;
mod upgrade;

use std::time::Duration;

/// A hand-over is planned: clients wait for it no longer than this, on two busy cores.
pub const PLANNED: Duration = Duration::from_secs(10);
