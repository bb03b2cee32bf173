//! What a client carries from one request to the next, whichever pod it meets: session
//! tokens, idempotency keys, versions, cursors.

use std::collections::BTreeSet;

use rhumb_e2e::client::escape;
use serde_json::json;

use super::Ground;
use crate::harness::Cluster;
use crate::harness::scenario::with_shared_database;

#[tokio::test]
async fn a_session_sees_its_own_writes_on_every_pod() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 1).await;
        for n in 0..20 {
            let writer = &ground.clients[n % ground.clients.len()];
            let body = json!({"upsert": [{"id": "mine", "n": n}]});
            let written = writer
                .post(&ground.documents(), &body)
                .send()
                .await
                .expect("an answer");
            let written = written.expect(200).expect("written");
            let token = written.header("rhumb-session").expect("a token").to_owned();
            for reader in &ground.clients {
                let path = format!("{}/mine?consistency=session", ground.documents());
                let seen = reader
                    .get(&path)
                    .header("rhumb-session", &token)
                    .send()
                    .await
                    .expect("an answer");
                assert_eq!(seen.json()["document"]["n"], n, "not its own write: {seen}");
            }
        }
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn a_repeat_at_another_pod_gets_the_first_answer() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 4).await;
        let body = json!({"upsert": [{"id": "a", "n": 1}, {"id": "b", "n": 2}], "delete": ["c"]});
        let send = async |at: usize, body: &serde_json::Value| {
            let request = ground.clients[at].post(&ground.documents(), body);
            request
                .header("idempotency-key", "once")
                .send()
                .await
                .expect("an answer")
        };
        let first = send(0, &body).await.expect(200).expect("written");
        // In between somebody else writes: a second application would show.
        ground.clients[0]
            .write(&ground.name, &json!({"upsert": [{"id": "a", "n": 9}]}))
            .await
            .expect("written");
        for at in 0..ground.clients.len() {
            let again = send(at, &body).await.expect(200).expect("answered");
            assert_eq!(again.json(), first.json());
        }
        let path = format!("{}/a", ground.documents());
        let seen = ground.clients[1].get(&path).send().await.expect("an answer");
        assert_eq!(seen.json()["document"]["n"], 9, "it happened twice: {seen}");
        let other = send(1, &json!({"upsert": [{"id": "z", "n": 1}]})).await;
        assert_eq!(other.code(), "idempotency_mismatch", "{other}");
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn of_clients_at_different_pods_one_wins_each_condition() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 1).await;
        let path = format!("{}/raced", ground.documents());
        for round in 0..10 {
            let body = json!({"id": "raced", "n": round});
            let version = match ground.clients[0].get(&path).send().await.expect("an answer") {
                found if found.status == 200 => Some(found.json()["version"].clone()),
                _ => None,
            };
            let races = ground.clients.iter().map(|client| {
                let request = client.put(&path, &body);
                match &version {
                    Some(version) => request.header("if-match", &format!("\"{version}\"")),
                    None => request.header("if-none-match", "*"),
                }
                .send()
            });
            let answers = futures::future::join_all(races).await;
            let statuses: Vec<u16> = answers
                .into_iter()
                .map(|answer| answer.expect("an answer").status)
                .collect();
            let won = statuses
                .iter()
                .filter(|status| matches!(status, 200 | 201))
                .count();
            assert_eq!(won, 1, "round {round}: {statuses:?}");
        }
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn pages_of_one_scan_may_be_fetched_from_any_pod() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 4).await;
        ground.fill(23).await;
        let mut seen = BTreeSet::new();
        let mut cursor = String::new();
        for n in 0.. {
            let client = &ground.clients[n % ground.clients.len()];
            let path = format!("{}?limit=5{cursor}", ground.documents());
            let page = client
                .get(&path)
                .send()
                .await
                .expect("an answer")
                .expect(200)
                .expect("a page");
            let page = page.json();
            for entry in page["documents"].as_array().expect("documents") {
                assert!(seen.insert(entry["id"].to_string()), "twice: {entry}");
            }
            let Some(next) = page["cursor"].as_str() else {
                break;
            };
            cursor = format!("&cursor={}", escape(next));
        }
        assert_eq!(seen.len(), 23);
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn a_bulk_write_over_all_shards_is_counted_whole() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 8).await;
        let rows: Vec<_> = (0..500)
            .map(|n| json!({"id": format!("b{n}"), "v": [n, 0], "n": n}))
            .collect();
        for client in &ground.clients {
            let answer = client
                .write(&ground.name, &json!({"upsert": rows}))
                .await
                .expect("written");
            assert_eq!(answer["upserted"], 500);
        }
        let last = ground.clients.last().expect("a pod");
        let gone = last
            .write(&ground.name, &json!({"delete_by_filter": {"n": {"$lt": 100}}}))
            .await;
        assert_eq!(gone.expect("deleted")["deleted"], 100);
        for client in &ground.clients {
            let rows = client.scan(&ground.name, "limit=1000").await.expect("scanned");
            assert_eq!(rows.len(), 400);
        }
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn an_optimize_at_any_pod_settles_all_partitions() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 4).await;
        ground.fill(20).await;
        for client in &ground.clients {
            client.optimize(&ground.name).await.expect("optimized");
            let rows = client.scan(&ground.name, "").await.expect("scanned");
            assert_eq!(rows.len(), 20);
        }
        ground.done().await;
    })
    .await;
}
