//! What each pod says of itself, and whom it lets in.

use std::time::Duration;

use rhumb_crds::names;
use rhumb_e2e::Client;

use crate::harness::scenario::with_shared_database;
use crate::harness::{Cluster, objects};

#[tokio::test]
async fn every_pod_is_healthy_ready_and_measured() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        for client in database.clients().await {
            for path in ["/healthz", "/readyz", "/v1/status", "/openapi.json"] {
                let answer = client.get(path).send().await.expect("an answer");
                assert_eq!(answer.status, 200, "{answer}");
            }
            let metrics = client.get("/metrics").send().await.expect("an answer");
            assert!(
                metrics.status == 200 && metrics.body.starts_with(b"#"),
                "{metrics}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn the_service_reaches_every_ready_pod() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        // Connections are spread by chance: 60 of them miss one of two pods almost never.
        let url = database.client().await.base().to_owned();
        for _ in 0..60 {
            let client = Client::new(&url).expect("a client");
            let answer = client.get("/readyz").send().await.expect("an answer");
            assert_eq!(answer.status, 200, "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_port_between_pods_lets_no_stranger_in() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        for pod in database.ready_pods().await.expect("pods") {
            let ip = objects::ip(&pod).expect("an address");
            let plain = Client::impatient(
                &format!("http://{ip}:{}", names::PEER_PORT),
                Duration::from_secs(3),
            );
            let answer = plain.expect("a client").get("/v1/collections").send().await;
            assert!(answer.is_err(), "answered in plain text: {answer:?}");
            // TLS without a certificate of the database's own authority.
            let tls = reqwest::Client::builder()
                .danger_accept_invalid_certs(true)
                .timeout(Duration::from_secs(3))
                .build();
            let url = format!("https://{ip}:{}/v1/collections", names::PEER_PORT);
            let answer = tls.expect("a client").get(url).send().await;
            assert!(answer.is_err(), "a stranger is served: {answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_name_in_status_is_known_to_the_cluster() {
    let Some(cluster) = Cluster::connect_with_machine().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let client = database.client().await;
        let host = client.address().split(':').next().expect("an address").to_owned();
        let name = format!("shared.{}.svc.cluster.local", database.namespace);
        let found = crate::harness::machine::resolve(&name)
            .await
            .expect("the cluster's names are served");
        assert_eq!(found, host);
    })
    .await;
}
