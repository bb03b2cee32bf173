//! A network that loses, doubles, delays and damages what goes to the bucket and back,
//! under a server that is killed as well.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::{FaultProxy, Faults, Outage, S3Server, Server, Spec, TempDir, env_number, s3, seed};

use crate::rounds::die_and_return;
use crate::verify::verify;
use rhumb_e2e::workload::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_behind_a_faulty_network() {
    let seed = seed();
    let rounds = env_number("RHUMB_CRASH_ROUNDS", 1);
    eprintln!("faulty_network: seed {seed}, {rounds} rounds");
    let mut rng = StdRng::seed_from_u64(seed);
    let home = TempDir::new("faulty").expect("a folder");
    let s3_server = S3Server::start(home.path()).await.expect("an S3 server");
    let proxy = FaultProxy::start(&s3_server.address(), seed)
        .await
        .expect("a proxy");
    let spec = Spec::new(s3::store_at(&proxy.endpoint(), "faulty"), home.path()).expect("a port");
    let mut server = Server::start(spec).await.expect("the server starts");
    let one = World::create(server.client(), "one", 1).await.expect("created");
    let many = World::create(server.client(), "many", 2).await.expect("created");
    let actors = one.populate(&mut rng);
    let others = many.populate(&mut rng);
    for round in 0..rounds {
        for (name, faults) in weather() {
            eprintln!("faulty_network: round {round}, {name}");
            let gone = faults.outage.is_some();
            proxy.set(faults);
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            if gone {
                // Nothing can start without a bucket.
                proxy.calm();
            }
            die_and_return(&mut server, &mut rng, true).await;
        }
    }
    proxy.calm();
    one.stop();
    many.stop();
    actors.join_all().await;
    others.join_all().await;
    let hits = proxy.hits();
    eprintln!("faulty_network: {hits:?}");
    for (fault, least) in [
        ("lose_response", 3),
        ("duplicate", 3),
        ("slow_down", 3),
        ("fail_after", 3),
        ("outage", 1),
    ] {
        let struck = hits.get(fault).copied().unwrap_or_default();
        assert!(
            struck >= least,
            "{fault} struck {struck} times: this run shows nothing about it"
        );
    }
    verify("faulty_network", &[&one, &many], &mut server, seed).await;
}

fn weather() -> Vec<(&'static str, Faults)> {
    let calm = Faults::default;
    vec![
        (
            "lost answers",
            Faults {
                lose_response: 0.2,
                lose_request: 0.1,
                ..calm()
            },
        ),
        (
            "doubled writes",
            Faults {
                duplicate: 0.3,
                duplicate_late: 0.3,
                late_by: Duration::from_secs(3),
                ..calm()
            },
        ),
        (
            "a storm of 503",
            Faults {
                slow_down: 0.5,
                ..calm()
            },
        ),
        (
            "errors after success",
            Faults {
                fail_after: 0.25,
                ..calm()
            },
        ),
        (
            "delays",
            Faults {
                delay: 0.3,
                delay_by: Duration::from_millis(300),
                ..calm()
            },
        ),
        (
            "damaged reads",
            Faults {
                flip: 0.15,
                shorten: 0.1,
                truncate: 0.1,
                ..calm()
            },
        ),
        (
            "nobody there",
            Faults {
                outage: Some(Outage::Refuse),
                ..calm()
            },
        ),
        (
            "all at once",
            Faults {
                lose_response: 0.1,
                lose_request: 0.05,
                duplicate: 0.1,
                duplicate_late: 0.1,
                late_by: Duration::from_secs(2),
                delay: 0.1,
                delay_by: Duration::from_millis(100),
                slow_down: 0.1,
                fail_after: 0.1,
                flip: 0.05,
                shorten: 0.05,
                truncate: 0.05,
                outage: None,
            },
        ),
    ]
}
