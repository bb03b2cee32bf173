//! `VectorDatabase`: `plan` and `status` decide, purely; `reconcile` reads, executes and
//! reports.

mod children;
mod overrides;
mod plan;
mod pod;
mod reconcile;
mod status;
mod tls;

pub use reconcile::{error_policy, reconcile};

#[cfg(test)]
mod tests;
