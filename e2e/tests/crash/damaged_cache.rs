//! The cache folder is damaged in every way while queries run: answers stay right.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::compare::same;
use rhumb_e2e::data::b64;
use rhumb_e2e::{S3Server, Server, Spec, TempDir, env_number, seed};
use serde_json::{Value, json};

use crate::cache_damage;

const ROWS: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_cache_changes_no_answer() {
    let seed = seed();
    eprintln!("damaged_cache: seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let home = TempDir::new("cache").expect("a folder");
    let s3 = S3Server::start(home.path()).await.expect("an S3 server");
    let spec = Spec::new(s3.store("cached"), home.path()).expect("a port");
    let mut server = Server::start(spec).await.expect("the server starts");
    let client = server.client().clone();
    client
        .create(
            "c",
            &json!({"fields": {"v": {"type": "vector", "dim": 32}, "n": "int"}}),
        )
        .await
        .expect("created");
    let rows: Vec<Value> = (0..ROWS)
        .map(|n| json!({"id": format!("{n:05}"), "v": b64(&rhumb_e2e::data::vector(&mut rng, 32)), "n": n, "text": format!("row {n} ").repeat(20)}))
        .collect();
    client
        .write("c", &json!({"upsert": rows}))
        .await
        .expect("written");
    client.optimize("c").await.expect("settled");
    server.kill().expect("killed");
    cache_damage::strike(&server.spec().cache_dir, &mut rng);
    server.restart().await.expect("restarted");

    let question = json!({"vector": rhumb_e2e::data::vector(&mut rng, 32), "k": 50, "include": true, "filter": {"n": {"$gte": 100}}});
    let truth = client.scan("c", "limit=10000").await.expect("a scan");
    assert_eq!(truth.len(), ROWS);
    let hits = ask(&server, &question).await;
    for round in 0..env_number("RHUMB_CRASH_ROUNDS", 6) {
        cache_damage::strike(&server.spec().cache_dir, &mut rng);
        if round % 2 == 1 {
            server.kill().expect("killed");
            cache_damage::strike(&server.spec().cache_dir, &mut rng);
            server.restart().await.expect("restarted");
        }
        let now = client.scan("c", "limit=10000").await.expect("a scan");
        assert!(
            same(&Value::from(now), &Value::from(truth.clone())),
            "seed {seed}, round {round}: a scan differs"
        );
        let again = ask(&server, &question).await;
        assert!(
            same(&again, &hits),
            "seed {seed}, round {round}: a query differs\n{hits}\n{again}"
        );
    }
    assert!(server.process().panics().is_empty(), "{}", server.log_tail());
}

async fn ask(server: &Server, question: &Value) -> Value {
    let answer = server
        .client()
        .post("/v1/collections/c/query", question)
        .send()
        .await
        .expect("an answer");
    answer.expect(200).expect("a result").json()["hits"].clone()
}
