//! Short ways to what scenarios ask of Kubernetes objects.

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

pub fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

pub fn ip(pod: &Pod) -> Result<String> {
    let status = pod.status.as_ref().context("no status")?;
    status.pod_ip.clone().context("no address yet")
}

pub fn node(pod: &Pod) -> Result<String> {
    let spec = pod.spec.as_ref().context("no spec")?;
    spec.node_name.clone().context("not scheduled yet")
}

/// containerd's name of the running container.
pub fn container_id(pod: &Pod) -> Result<String> {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let id = statuses.and_then(|all| all.first()?.container_id.clone());
    let id = id.context("no container yet")?;
    Ok(id.trim_start_matches("containerd://").to_owned())
}

pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses
        .and_then(|all| Some(all.first()?.restart_count))
        .unwrap_or(0)
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Who leads, in the terms of the Lease: pod and uid.
pub fn holder(lease: &Lease) -> Option<(String, String)> {
    let identity = lease.spec.as_ref()?.holder_identity.as_deref()?;
    let mut parts = identity.split('_');
    let (pod, uid) = (parts.next()?, parts.next()?);
    // A third part tells one process of the pod from the next.
    parts.next()?;
    Some((pod.to_owned(), uid.to_owned()))
}
