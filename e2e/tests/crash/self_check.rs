//! Would all this notice a loss?  The store is put back to what it was a moment ago, as a
//! server would leave it that acknowledges from memory, and the judge has to object.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::{Server, Spec, Store, TempDir, seed};

use crate::verify::findings;
use rhumb_e2e::workload::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_judge_notices_a_store_that_went_back_in_time() {
    let seed = seed();
    eprintln!("self_check: seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let home = TempDir::new("self-check").expect("a folder");
    let store = home.folder("store").expect("a folder");
    let spec = Spec::new(Store::Folder(store.clone()), home.path()).expect("a port");
    let mut server = Server::start(spec).await.expect("the server starts");
    let world = World::create(server.client(), "one", 1).await.expect("created");
    let actors = world.populate(&mut rng);
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.freeze().expect("frozen");
    let earlier = home.path().join("earlier");
    copy(&store, &earlier).expect("copied");
    server.thaw().expect("awake");
    tokio::time::sleep(Duration::from_millis(700)).await;
    world.stop();
    actors.join_all().await;

    server.kill().expect("killed");
    fs::remove_dir_all(&store).expect("removed");
    fs::rename(&earlier, &store).expect("put back");
    server.restart().await.expect("an old store is still a store");
    let wrong = findings("self_check", &[&world], &mut server).await.join("\n");
    for expected in [
        "acknowledged and lost",
        "not linearizable",
        "differs from its first answer",
    ] {
        assert!(
            wrong.contains(expected),
            "seed {seed}: '{expected}' was not noticed:\n{wrong}"
        );
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
