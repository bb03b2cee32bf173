//! What there is to see of a namespace in which a scenario failed.

use super::Cluster;
use super::cluster::OPERATOR_NAMESPACE;

/// Of a line; stores answer with pages of XML.
const WIDTH: usize = 400;

pub async fn namespace(cluster: &Cluster, namespace: &str) {
    let objects = "vdb,shards,collections.rhumb.dev,deployments,pods,leases";
    show(cluster, &["get", "-n", namespace, objects, "-o", "wide"]).await;
    show(cluster, &["describe", "-n", namespace, "vdb,shards"]).await;
    show(
        cluster,
        &["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"],
    )
    .await;
    let of_data_nodes = "app.kubernetes.io/component=data-node";
    logs(cluster, namespace, of_data_nodes, "80").await;
    logs(
        cluster,
        OPERATOR_NAMESPACE,
        "app.kubernetes.io/name=rhumb-operator",
        "40",
    )
    .await;
}

async fn logs(cluster: &Cluster, namespace: &str, selector: &str, tail: &str) {
    let select = [
        "logs", "-n", namespace, "-l", selector, "--prefix", "--tail", tail,
    ];
    show(cluster, &select).await;
    // Of the process before, where there was one.
    show(cluster, &[&select[..], &["--previous"]].concat()).await;
}

async fn show(cluster: &Cluster, arguments: &[&str]) {
    let said = match cluster.kubectl(arguments).await {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("{error:#}"),
    };
    eprintln!("--- kubectl {} ---", arguments.join(" "));
    for line in said.lines() {
        eprintln!("{}", line.chars().take(WIDTH).collect::<String>());
    }
}
