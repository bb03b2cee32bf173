//! Rhumb on a real control plane: what only a real API server, real kubelets and a real
//! network can show.
//!
//! `RHUMB_E2E_KUBECONFIG` names the cluster, in which the operator is installed and Secret
//! `default/s3-credentials` has the keys of bucket `rhumb` at `RHUMB_E2E_S3`
//! (`http://s3.s3.svc:9000`).  `RHUMB_E2E_MACHINE` is the work folder of `e2e/cluster/up.sh`:
//! with it, processes of the cluster are killed, stopped and cut off too.  Without either,
//! scenarios skip themselves and say so.  `make e2e` sets both.
//!
//! - `admit`: what the API server refuses.  `status`: is what objects say true.
//! - `api`: the REST API through any pod.  `e2e`: changes under load.
//! - `gitops`: under a real Argo CD, where `e2e/cluster/argocd.sh` started one.
//! - `chaos`: faults under load.  `failover`: how long they are felt; asked for by
//!   `RHUMB_E2E_ROUNDS`.
//!
//! Names of test modules matter: `.config/nextest.toml` lets `e2e`, `gitops`,
//! `chaos` and `failover` have the cluster for themselves.
#![allow(
    clippy::disallowed_methods,
    reason = "a black box lives in real time, with real chance and real processes: nothing here is simulated"
)]

mod admit;
mod api;
mod chaos;
mod e2e;
mod failover;
mod gitops;
mod harness;
mod status;
