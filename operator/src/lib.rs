//! The operator: makes `VectorDatabase`s run and `Collection`s be as declared.
//!
//! Per kind a pure `plan` decides and a thin `reconcile` reads, executes and reports.  The
//! operator is not on the data path: with it down, data nodes elect leaders and serve; what
//! stops is placement, rollouts and status.

pub mod args;
mod cluster;
mod collection;
mod context;
mod database;
mod election;
mod http;
mod metrics;
pub mod placement;
mod run;

pub use run::run;
