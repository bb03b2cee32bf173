//! `VectorDatabase`: `plan` and `status` decide, purely; `reconcile` reads, executes and
//! reports.

mod admin;
mod children;
mod overrides;
mod plan;
mod pod;
mod reconcile;
mod status;
mod tls;

pub use admin::read as admin_key_in;
pub use reconcile::{error_policy, reconcile};

#[cfg(test)]
mod tests;
