//! After the storm, and after one more restart: nothing may be wrong.

use rhumb_e2e::Server;
use rhumb_e2e::workload::World;
use rhumb_e2e::workload::verify::{assert_nothing, examine, examine_again, judge};

/// Panics with everything that was found wrong.
pub async fn verify(name: &str, worlds: &[&World], server: &mut Server, seed: u64) {
    assert_nothing(&findings(name, worlds, server).await, name, seed);
}

/// The server must be up and calm and all clients gone.
pub async fn findings(name: &str, worlds: &[&World], server: &mut Server) -> Vec<String> {
    let client = server.client().fresh().expect("a client");
    for world in worlds {
        examine(name, world, &client).await;
    }
    server.kill().expect("killed");
    server.restart().await.expect("restarted");
    for world in worlds {
        examine_again(world, &client).await;
    }
    let mut wrong: Vec<String> = server.process().panics();
    for world in worlds {
        wrong.extend(judge(name, world));
    }
    wrong
}
