//! A server that dies again and again, at moments nobody chose.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rhumb_e2e::Server;

use crate::cache_damage;

const READY: Duration = Duration::from_secs(60);
/// Starts that may fail in a row while the store is made to fail.
const STARTS: usize = 20;

/// Lets the server run for a random while, ends it in a random way and starts it again.
/// `store_is_faulty`: a start may then be given up by the server itself.
pub async fn die_and_return(server: &mut Server, rng: &mut StdRng, store_is_faulty: bool) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(50..1_000))).await;
    if rng.random_bool(0.2) {
        cache_damage::strike(&server.spec().cache_dir, rng);
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..300))).await;
    }
    if !store_is_faulty && rng.random_bool(0.15) {
        let end = server.terminate().await.expect("SIGTERM ends the server");
        assert_eq!(
            end.code(),
            Some(0),
            "SIGTERM is a clean end\n{}",
            server.log_tail()
        );
    } else {
        server.kill().expect("killed");
    }
    if rng.random_bool(0.4) {
        cache_damage::strike(&server.spec().cache_dir, rng);
    }
    // Also while it recovers.
    while rng.random_bool(0.25) {
        server.respawn().expect("spawned");
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
        server.kill().expect("killed");
    }
    start_again(server, store_is_faulty).await;
}

async fn start_again(server: &mut Server, store_is_faulty: bool) {
    let mut last = None;
    for _ in 0..if store_is_faulty { STARTS } else { 1 } {
        server.respawn().expect("spawned");
        match server.ready_within(READY).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
        server.kill().expect("killed");
    }
    panic!("the server does not come back: {:#}", last.expect("it was tried"));
}
