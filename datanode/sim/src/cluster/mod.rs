//! The cluster part under a simulated world: the real electors, reporters, watches and
//! placement, over an API server, pods and a bucket that all come from a seed.
//!
//! What is checked, in every run:
//! - C1 no acknowledged write is lost, and every strong read shows what was acknowledged
//!   before it began: `History`, one per slot;
//! - C2 at most one pod's term of a slot is certain at any time;
//! - C3 after the last failure every slot is led, by the pod that should lead it;
//! - C4 a planned hand-over and a failover are quick;
//! - C5 while nothing fails, no leader loses its certainty.

mod bucket;
mod engine;
mod hand;
mod line;
mod node;
mod operator;
mod sabotage;
mod simulation;
mod storm;

pub use line::{ApiLine, ApiWeather};
pub use node::{Kind, Pod, TIMING};
pub use sabotage::Sabotage as ClusterSabotage;
pub use simulation::{ClusterPlan, ClusterSim};
pub use storm::{ClusterReport, play, run_cluster_seed};
