//! kill -9 over a real S3 server.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::{S3Server, Server, Spec, TempDir, env_number, seed};

use crate::rounds::die_and_return;
use crate::verify::verify;
use rhumb_e2e::workload::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_killed_over_s3() {
    let seed = seed();
    let rounds = env_number("RHUMB_CRASH_ROUNDS", 6);
    eprintln!("kill_s3: seed {seed}, {rounds} rounds");
    let mut rng = StdRng::seed_from_u64(seed);
    let home = TempDir::new("kill-s3").expect("a folder");
    let s3 = S3Server::start(home.path()).await.expect("an S3 server");
    let spec = Spec::new(s3.store("killed"), home.path()).expect("a port");
    let mut server = Server::start(spec).await.expect("the server starts");
    let one = World::create(server.client(), "one", 1).await.expect("created");
    let many = World::create(server.client(), "many", 2).await.expect("created");
    let actors = one.populate(&mut rng);
    let others = many.populate(&mut rng);
    for _ in 0..rounds {
        die_and_return(&mut server, &mut rng, false).await;
    }
    one.stop();
    many.stop();
    actors.join_all().await;
    others.join_all().await;
    verify("kill_s3", &[&one, &many], &mut server, seed).await;
}
