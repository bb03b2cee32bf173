//! Clients write and read through the Service while something breaks; afterwards their whole
//! history has to make sense.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rhumb_e2e::Client;
use rhumb_e2e::workload::World;
use rhumb_e2e::workload::verify::{assert_nothing, examine, judge};

use super::pulse::Pulse;
use super::scenario::{prepare, watched};
use super::{Cluster, Database, wait_for};

/// The namespace of the database that most faults strike, one after the other.
const NAMESPACE: &str = "e2e-storm";
/// Two cores serve the cluster, the database and the clients.
const SLOWNESS: u64 = 10;
const PULSES: usize = 3;
const RECOVERY: Duration = Duration::from_secs(90);

/// Three data nodes, two shards; each scenario finds it Ready and has collections of its own.
pub async fn with_storm_database(cluster: &Cluster, body: impl AsyncFnOnce(&Database<'_>)) {
    prepare(cluster, NAMESPACE).await;
    watched(cluster, NAMESPACE, async || {
        let database = Database::new(cluster, NAMESPACE, "storm").await;
        let database = database.with("spec.dataNodes.replicas", 3.into());
        database.apply().await;
        database.ready().await;
        database.settled().await;
        body(&database).await;
    })
    .await;
}

/// What the clients felt.
#[derive(Clone, Copy, Debug)]
pub struct Felt {
    /// The longest time in which no write to some collection was acknowledged.
    pub silence: Duration,
}

impl Felt {
    /// `longest`: with room for two busy cores; an idle cluster does better.
    pub fn silent_at_most(self, longest: Duration) {
        assert!(
            self.silence <= longest,
            "no write was acknowledged for {:?}, which is longer than {longest:?}",
            self.silence
        );
    }
}

/// Clients from before `fault` until all is well again; panics when anything that they were
/// told turns out to be wrong.
pub async fn storm(database: &Database<'_>, name: &str, fault: impl AsyncFnOnce()) -> Felt {
    let (seed, started) = (rhumb_e2e::seed(), Instant::now());
    let mut rng = StdRng::seed_from_u64(seed);
    let run = format!("{name}-{:06x}", rand::random_range(0..0x100_0000));
    let client = database.client().await;
    let patient = client.patient().expect("a client");
    let pulses = pulses(&client, &run).await;
    let worlds = [
        World::create_slow(&patient, &format!("{run}-one"), 1, SLOWNESS)
            .await
            .expect("created"),
        World::create_slow(&patient, &format!("{run}-two"), 2, SLOWNESS)
            .await
            .expect("created"),
    ];
    let connections = (0..3)
        .map(|_| client.fresh().expect("a client"))
        .collect::<Vec<_>>();
    let mut actors = Vec::new();
    for world in &worlds {
        world.serve_from(connections.clone());
        actors.push(world.populate_sparsely(&mut rng));
    }
    steady(&pulses, Instant::now()).await;

    let (begin, prepared) = (Instant::now(), started.elapsed());
    fault().await;
    steady(&pulses, Instant::now()).await;
    let struck = begin.elapsed();

    let silence = pulses.iter().map(|pulse| pulse.longest_silence(begin)).max();
    drop(pulses);
    for world in &worlds {
        world.stop();
    }
    for actors in actors {
        actors.join_all().await;
    }
    let mut wrong = panics(database).await;
    database.settled().await;
    for world in &worlds {
        examine(name, world, &patient).await;
        wrong.extend(judge(name, world));
    }
    assert_nothing(&wrong, name, seed);
    clean_up(&patient, &run).await;
    let felt = Felt {
        silence: silence.expect("there are pulses"),
    };
    eprintln!(
        "{name}: at most {:.2?} without an acknowledged write; {prepared:.1?} to prepare, {struck:.1?} of fault, {:.1?} to judge",
        felt.silence,
        begin.elapsed() - struck
    );
    felt
}

async fn pulses(client: &Client, run: &str) -> Vec<Pulse> {
    let mut pulses = Vec::new();
    for n in 0..PULSES {
        pulses.push(Pulse::start(client, &format!("{run}-pulse-{n}")).await);
    }
    pulses
}

async fn steady(pulses: &[Pulse], since: Instant) {
    for pulse in pulses {
        pulse.steady_since(since, RECOVERY).await;
    }
}

/// Lines that tell of a panic in a data node.  There must never be any.
async fn panics(database: &Database<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for more in [&[][..], &["--previous"]] {
        let selector = format!("rhumb.dev/database={}", database.name);
        let mut arguments = vec![
            "logs",
            "-n",
            &database.namespace,
            "-l",
            &selector,
            "--tail",
            "5000",
        ];
        arguments.extend(more);
        // Where nothing ran before there is no previous log.
        let Ok(logs) = database.cluster.kubectl_says(&arguments).await else {
            continue;
        };
        found.extend(
            logs.lines()
                .filter(|line| line.contains("panicked at"))
                .map(str::to_owned),
        );
    }
    found
}

async fn clean_up(client: &Client, run: &str) {
    let names = ["one", "two", "pulse-0", "pulse-1", "pulse-2"];
    for name in names {
        let path = format!("/v1/collections/{run}-{name}");
        wait_for("a collection is deleted", Duration::from_secs(20), async || {
            let answer = client.delete(&path).send().await?;
            anyhow::ensure!(matches!(answer.status, 200..=204 | 404), "{answer}");
            Ok(())
        })
        .await;
    }
}
