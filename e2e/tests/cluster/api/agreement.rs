//! Whatever pod is asked, the answer is the same.

use rhumb_e2e::rules::rule_broken_by;
use serde_json::{Value, json};

use super::Ground;
use crate::harness::Cluster;
use crate::harness::scenario::with_shared_database;

#[tokio::test]
async fn what_one_pod_acknowledged_every_pod_shows_at_once() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 4).await;
        for n in 0..30 {
            let writer = &ground.clients[n % ground.clients.len()];
            let row = json!({"upsert": [{"id": "one", "n": n}]});
            writer.write(&ground.name, &row).await.expect("written");
            for reader in &ground.clients {
                let path = format!("{}/one", ground.documents());
                let seen = reader
                    .get(&path)
                    .send()
                    .await
                    .expect("an answer")
                    .expect(200)
                    .expect("found");
                assert_eq!(seen.json()["document"]["n"], n, "stale: {seen}");
            }
        }
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn every_pod_serves_every_collection() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        // Enough of them to be led by both pods.
        for _ in 0..6 {
            let ground = Ground::new(database, 1).await;
            for (n, client) in ground.clients.iter().enumerate() {
                let row = json!({"upsert": [{"id": format!("from-{n}"), "n": n}]});
                client.write(&ground.name, &row).await.expect("written");
            }
            for client in &ground.clients {
                let rows = client.scan(&ground.name, "").await.expect("scanned");
                assert_eq!(rows.len(), ground.clients.len());
            }
            ground.done().await;
        }
    })
    .await;
}

#[tokio::test]
async fn queries_aggregates_and_descriptions_agree() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 4).await;
        ground.fill(24).await;
        let query = json!({"vector": [7, 1], "k": 3, "filter": {"n": {"$gte": 5}}, "include": ["n"]});
        let aggregate = json!({"metrics": {"rows": {"count": true}, "sum": {"sum": "n"}}});
        let mut answers: Vec<[Value; 3]> = Vec::new();
        for client in &ground.clients {
            let path = ground.path();
            let ask = async |path: String, body: &Value| {
                let answer = client.post(&path, body).send().await.expect("an answer");
                answer.expect(200).expect("answered").json()
            };
            let hits = ask(format!("{path}/query"), &query).await["hits"].clone();
            let groups = ask(format!("{path}/aggregate"), &aggregate).await["groups"].clone();
            let described = client.get(&path).send().await.expect("an answer").json();
            assert_eq!(hits[0]["id"], "d07");
            assert_eq!(described["rows"], 24);
            answers.push([hits, groups, described["fields"].clone()]);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn collections_come_and_go_for_all_pods_at_once() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 1).await;
        let (path, clients, name) = (ground.path(), ground.clients.clone(), ground.name.clone());
        for client in &clients {
            let found = client.get(&path).send().await.expect("an answer");
            assert_eq!(found.status, 200, "{found}");
            let list = client
                .get("/v1/collections?limit=1000")
                .send()
                .await
                .expect("an answer");
            assert!(list.json().to_string().contains(&name), "{list}");
        }
        ground.done().await;
        for client in &clients {
            let gone = client.get(&path).send().await.expect("an answer");
            assert_eq!((gone.status, gone.code().as_str()), (404, "collection_not_found"));
        }
    })
    .await;
}

#[tokio::test]
async fn refusals_keep_their_form_on_every_way() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 4).await;
        let documents = ground.documents();
        for client in &ground.clients {
            let cases = [
                (client.get("/v1/collections/no-such-thing"), 404),
                (client.get(&format!("{documents}/no-such-document")), 404),
                (client.post(&documents, &json!({"upsert": [{"n": 1}]})), 422),
                (
                    client.post(
                        &format!("{}/query", ground.path()),
                        &json!({"vector": [1], "k": 1}),
                    ),
                    422,
                ),
                (
                    client.put(&ground.path(), &json!({"fields": {"n": "string"}})),
                    409,
                ),
                (
                    client
                        .put(&format!("{documents}/x"), &json!({"id": "x", "n": 1}))
                        .header("if-match", "\"1\""),
                    412,
                ),
                (client.get("/v1/no/such/route"), 404),
            ];
            for (request, status) in cases {
                let answer = request.send().await.expect("an answer");
                assert_eq!(answer.status, status, "{answer}");
                assert_eq!(rule_broken_by(&answer, false), None, "{answer}");
            }
        }
        ground.done().await;
    })
    .await;
}

#[tokio::test]
async fn an_import_by_one_pod_is_exported_by_the_other() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    with_shared_database(&cluster, async |database| {
        let ground = Ground::new(database, 4).await;
        let lines: String = (0..2_000)
            .map(|n| format!("{{\"id\": \"r{n}\", \"n\": {n}}}\n"))
            .collect();
        let path = ground.path();
        let import = ground.clients[0].request(reqwest::Method::POST, &format!("{path}/import"));
        let imported = import
            .body(lines, "application/x-ndjson")
            .timeout(std::time::Duration::from_secs(30));
        imported
            .send()
            .await
            .expect("an answer")
            .expect(200)
            .expect("imported");
        for client in &ground.clients {
            let export = client
                .get(&format!("{path}/export"))
                .timeout(std::time::Duration::from_secs(30));
            let export = export.send().await.expect("an answer");
            let rows = export.expect(200).expect("exported").lines().expect("NDJSON");
            assert_eq!(rows.len(), 2_000);
        }
        ground.done().await;
    })
    .await;
}
