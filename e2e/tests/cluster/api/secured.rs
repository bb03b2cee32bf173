//! A secured database: who is let in, at whatever pod they knock.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rhumb_e2e::Client;
use serde_json::{Value, json};

use super::Ground;
use crate::harness::cluster::OPERATOR_NAMESPACE;
use crate::harness::database::SOON;
use crate::harness::scenario::with_secured_database;
use crate::harness::wait::expect_eq;
use crate::harness::{Cluster, Database, wait_for};

/// What `docs/security.md` promises.
const REVOKED_WITHIN: Duration = Duration::from_secs(2);

/// The Service and every pod, for the admin.
async fn doors(database: &Database<'_>) -> Vec<Client> {
    let mut doors = database.clients().await;
    assert!(doors.len() >= 2, "one pod shows nothing");
    doors.push(database.client().await);
    doors
}

/// Id and key, known to every pod.
async fn make_key(doors: &[Client], roles: &[&str], more: Value) -> (String, String) {
    let mut body = json!({"name": "e2e", "roles": roles});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let made = doors[0].post("/v1/keys", &body).send().await.expect("an answer");
    assert!(matches!(made.status, 200 | 201), "no key: {}", made.status);
    let text = |name: &str| made.json()[name].as_str().expect("text").to_owned();
    let (id, key) = (text("id"), text("key"));
    for door in doors {
        let door = door.with_key(Some(&key)).expect("a client");
        wait_for("every pod knows the key", SOON, async || {
            expect_eq(door.get("/v1/whoami").send().await?.status, 200)
        })
        .await;
    }
    (id, key)
}

async fn revoke(door: &Client, id: &str) {
    let gone = door
        .delete(&format!("/v1/keys/{id}"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(gone.status, 204, "{gone}");
}

#[tokio::test]
async fn whoever_has_no_key_is_refused_over_tls() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        for door in doors(database).await {
            let wrong = format!("rhk_admin_{}", "A".repeat(43));
            for key in [None, Some("password"), Some(wrong.as_str())] {
                let stranger = door.with_key(key).expect("a client");
                for path in [
                    "/v1/collections",
                    "/v1/collections/any",
                    "/v1/status",
                    "/metrics",
                    "/v1/keys",
                ] {
                    let answer = stranger.get(path).send().await.expect("an answer over TLS");
                    assert_eq!(
                        (answer.status, answer.code().as_str()),
                        (401, "unauthenticated"),
                        "{answer}"
                    );
                }
                let health = stranger.get("/healthz").send().await.expect("an answer");
                assert_eq!(health.status, 200, "probes have no key");
            }
            let admin = door.get("/v1/whoami").send().await.expect("an answer").json();
            assert_eq!(
                (&admin["subject"], &admin["roles"]),
                (&json!("key:admin"), &json!(["admin"]))
            );
        }
    })
    .await;
}

#[tokio::test]
async fn plain_http_is_refused_in_plain_words() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let at = wait_for("an address", SOON, async || database.address().await).await;
        let plain = Client::impatient(&format!("http://{at}"), Duration::from_secs(5)).expect("a client");
        let key = database.admin_key().await.expect("a key");
        for path in ["/v1/whoami", "/healthz"] {
            let answer = plain
                .get(path)
                .header("authorization", &format!("Bearer {key}"))
                .send()
                .await;
            let answer = answer.expect("a sentence");
            assert_eq!(answer.status, 400);
            let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(detail.contains("HTTPS"), "{detail}");
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_else_vouches_for_a_database() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let at = wait_for("an address", SOON, async || database.address().await).await;
        let name = format!("{}.{}.svc", database.name, database.namespace);
        let stranger = reqwest::Client::builder()
            .no_proxy()
            .resolve(&name, at)
            .build()
            .expect("a client");
        let url = format!("https://{name}:{}/healthz", at.port());
        let answer = stranger.get(url).send().await;
        assert!(
            answer.is_err(),
            "the world's authorities vouch for it: {answer:?}"
        );
        // Its own vouches for its own names alone.
        let ca = database.secret("secured-ca", "ca.crt").await.expect("a Secret");
        let trusted = reqwest::Certificate::from_pem_bundle(&ca).expect("PEM");
        let other = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(trusted)
            .resolve("other.example", at)
            .build()
            .expect("a client");
        let answer = other
            .get(format!("https://other.example:{}/healthz", at.port()))
            .send()
            .await;
        assert!(answer.is_err(), "it passes for another: {answer:?}");
    })
    .await;
}

/// The first pod asks who it is, the leader believes it.
#[tokio::test]
async fn the_admin_key_of_the_secret_works_at_every_pod_for_every_leader() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        // Enough of them to be led by both pods.
        for _ in 0..6 {
            let ground = Ground::new(database, 1).await;
            let mut doors = ground.clients.clone();
            doors.push(database.client().await);
            for (n, door) in doors.iter().enumerate() {
                let row = json!({"upsert": [{"id": format!("from-{n}"), "n": n}]});
                door.write(&ground.name, &row).await.expect("written");
            }
            for door in &doors {
                assert_eq!(
                    door.scan(&ground.name, "").await.expect("scanned").len(),
                    doors.len()
                );
            }
            ground.done().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_revoked_at_one_pod_is_refused_by_the_other_within_two_seconds() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let pods = database.clients().await;
        for (here, there) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
            let (id, key) = make_key(&pods, &["reader"], json!({})).await;
            let holder = there.with_key(Some(&key)).expect("a client");
            revoke(here, &id).await;
            let begin = Instant::now();
            while holder.get("/v1/whoami").send().await.expect("an answer").status == 200 {
                assert!(
                    begin.elapsed() < REVOKED_WITHIN,
                    "still let in after {:?}",
                    begin.elapsed()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let refused = holder.get("/v1/collections").send().await.expect("an answer");
            assert_eq!(refused.status, 401, "{refused}");
        }
    })
    .await;
}

/// Nodes tell each other who asks in a header; nobody else is heard in it.
#[tokio::test]
async fn nobody_says_by_themselves_who_they_are() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let ground = Ground::new(database, 1).await;
        let doors = doors(database).await;
        let (id, reader) = make_key(&doors, &["reader"], json!({})).await;
        let claim = json!({"subject": "key:admin", "row_filter": null}).to_string();
        let claim = URL_SAFE_NO_PAD.encode(claim);
        let row = json!({"upsert": [{"id": "forged", "n": 1}]});
        for door in &doors {
            for (key, status) in [(None, 401), (Some(reader.as_str()), 403)] {
                let liar = door.with_key(key).expect("a client");
                // Named as a header of the connection it might be taken out at the wrong moment.
                for more in ["close", "Rhumb-Caller, close"] {
                    let request = liar.post(&ground.documents(), &row);
                    let request = request.header("rhumb-caller", &claim).header("connection", more);
                    let answer = request.send().await.expect("an answer");
                    assert_eq!(answer.status, status, "{answer}");
                }
            }
        }
        assert!(doors[0].scan(&ground.name, "").await.expect("scanned").is_empty());
        revoke(&doors[0], &id).await;
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn a_row_filter_holds_whoever_leads() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let ground = Ground::new(database, 1).await;
        let doors = doors(database).await;
        ground.fill(10).await;
        let role = format!("low-{:06x}", rand::random_range(0..0x100_0000));
        let grants = json!({"grants": [{
            "collections": ground.name, "operations": ["read", "write"], "row_filter": {"n": {"$lt": 3}}
        }]});
        let made = doors[0]
            .put(&format!("/v1/roles/{role}"), &grants)
            .send()
            .await
            .expect("an answer");
        assert!(matches!(made.status, 200 | 201), "{made}");
        let (id, key) = make_key(&doors, &[&role], json!({})).await;
        for door in &doors {
            let tenant = door.with_key(Some(&key)).expect("a client");
            assert_eq!(tenant.scan(&ground.name, "").await.expect("scanned").len(), 3);
            let hidden = tenant
                .get(&format!("{}/d07", ground.documents()))
                .send()
                .await
                .expect("an answer");
            assert_eq!(hidden.status, 404, "{hidden}");
            let beyond = tenant.post(
                &ground.documents(),
                &json!({"upsert": [{"id": "d99", "v": [1, 1], "n": 99}]}),
            );
            assert_eq!(beyond.send().await.expect("an answer").status, 403);
        }
        revoke(&doors[0], &id).await;
        let gone = doors[0]
            .delete(&format!("/v1/roles/{role}"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(gone.status, 204, "{gone}");
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn no_log_shows_the_admin_key() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_secured_database(&cluster, async |database| {
        let key = database.admin_key().await.expect("a key");
        let secret = key.splitn(3, '_').nth(2).expect("its secret").to_owned();
        for (namespace, selector) in [
            (database.namespace.as_str(), "rhumb.dev/database=secured"),
            (OPERATOR_NAMESPACE, "app.kubernetes.io/name=rhumb-operator"),
        ] {
            let logs = ["logs", "-n", namespace, "-l", selector, "--tail", "-1"];
            let logs = cluster.kubectl_says(&logs).await.expect("logs");
            assert!(!logs.is_empty(), "no logs of {selector}");
            assert!(!logs.contains(&secret), "{selector} shows it");
        }
    })
    .await;
}
