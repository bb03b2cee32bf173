//! A server is frozen, another takes over its bucket, and the first wakes up.
//!
//! What it was sent while it slept cannot have reached the bucket before the other's
//! claim, so not one of those writes may be acknowledged; and it has to stop, status 3.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::{Client, S3Server, Server, Spec, TempDir, seed};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::verify::verify;
use rhumb_e2e::workload::{HOT_KEYS, World, document, hot_key};

const FENCED: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_that_wakes_acknowledges_nothing_and_ends_with_status_3() {
    let seed = seed();
    eprintln!("zombie: seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let home = TempDir::new("zombie").expect("a folder");
    let s3 = S3Server::start(home.path()).await.expect("an S3 server");
    let start =
        || async { Server::start(Spec::new(s3.store("fought-over"), home.path()).expect("a port")).await };
    let mut first = start().await.expect("the first server starts");
    let world = World::create(first.client(), "one", 1).await.expect("created");
    let actors = world.populate(&mut rng);
    run_for(1_000).await;

    first.freeze().expect("frozen");
    let into_the_void = send_writes(&world, &first.client().fresh().expect("a client"));
    let mut second = start().await.expect("the second server starts");
    world.serve_from(vec![second.client().clone()]);
    touch_every_key(&world, second.client()).await;
    run_for(1_500).await;

    first.thaw().expect("awake");
    // Both are asked now.  What the first one answers is judged with everything else.
    world.serve_from(vec![first.client().clone(), second.client().clone()]);
    let after_waking = send_writes(&world, &first.client().fresh().expect("a client"));
    let end = first.process().end_within(PATIENCE).await;
    let end = end.unwrap_or_else(|error| panic!("the fenced server goes on: {error}\n{}", first.log_tail()));
    assert_eq!(end.code(), Some(FENCED), "{}", first.log_tail());
    world.serve_from(vec![second.client().clone()]);
    for acknowledged in join_all(into_the_void.into_iter().chain(after_waking)).await {
        if let Some(answer) = acknowledged.expect("a task") {
            world.violation(format!("the zombie acknowledged a write:\n{answer}"));
        }
    }
    run_for(500).await;
    world.stop();
    actors.join_all().await;
    assert!(first.process().panics().is_empty(), "{}", first.log_tail());
    verify("zombie", &[&world], &mut second, seed).await;
}

/// Servers that all believe in themselves: each start ends the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_living_servers_the_later_one_wins_and_nothing_is_lost() {
    let seed = seed();
    eprintln!("usurper: seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let home = TempDir::new("usurper").expect("a folder");
    let s3 = S3Server::start(home.path()).await.expect("an S3 server");
    let start =
        || async { Server::start(Spec::new(s3.store("fought-over"), home.path()).expect("a port")).await };
    let mut current = start().await.expect("the first server starts");
    let world = World::create(current.client(), "one", 1).await.expect("created");
    let actors = world.populate(&mut rng);
    for _ in 0..3 {
        run_for(700).await;
        let next = start().await.expect("the next server starts");
        let mut previous = std::mem::replace(&mut current, next);
        world.serve_from(vec![previous.client().clone(), current.client().clone()]);
        touch_every_key(&world, current.client()).await;
        let end = previous.process().end_within(PATIENCE).await;
        let end =
            end.unwrap_or_else(|error| panic!("the fenced server goes on: {error}\n{}", previous.log_tail()));
        assert_eq!(end.code(), Some(FENCED), "{}", previous.log_tail());
        assert!(previous.process().panics().is_empty(), "{}", previous.log_tail());
        world.serve_from(vec![current.client().clone()]);
    }
    run_for(500).await;
    world.stop();
    actors.join_all().await;
    verify("usurper", &[&world], &mut current, seed).await;
}

/// Plain upserts of documents nobody else writes; each task ends with the answer that
/// acknowledged its write, if any did.
fn send_writes(world: &Arc<World>, client: &Client) -> Vec<JoinHandle<Option<String>>> {
    let writes = (0..8).map(|n| {
        let (client, path, content) = (client.clone(), world.documents(), world.fresh_content());
        tokio::spawn(async move {
            let body = json!({"upsert": [document(&format!("void{n}"), content)]});
            let answer = client
                .post(&path, &body)
                .timeout(PATIENCE * 2)
                .send()
                .await
                .ok()?;
            (answer.status < 300).then(|| answer.to_string())
        })
    });
    writes.collect()
}

/// One write through this server to the partition, so that it has claimed it.
async fn touch_every_key(world: &World, client: &Client) {
    for n in 0..HOT_KEYS {
        let body = json!({"delete": [format!("untouched-{}", hot_key(n))]});
        let answer = client
            .post(&world.documents(), &body)
            .send()
            .await
            .expect("an answer");
        answer
            .expect(200)
            .expect("the server that took over takes writes");
    }
}

async fn run_for(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
