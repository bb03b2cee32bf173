//! What happens to processes and lines while they work: kills, restarts, pauses from
//! milliseconds to days, outages, changing weather.

use std::time::Duration;

use rhumb_seams::{Rand, Tasks};

use crate::network::Weather;
use crate::node::Node;
use crate::process::Process;
use crate::reader::Reader;

/// One server: a node that can be started again, or a reader.
pub(crate) struct Victim {
    pub node: Node,
    pub reads_only: bool,
    pub process: Process,
}

impl Victim {
    pub(crate) fn start(node: Node, reads_only: bool, tasks: &Tasks) -> Self {
        let process = start(&node, reads_only, tasks);
        Self {
            node,
            reads_only,
            process,
        }
    }

    fn restart(&mut self, tasks: &Tasks) {
        self.process.kill();
        self.process = start(&self.node, self.reads_only, tasks);
    }
}

fn start(node: &Node, reads_only: bool, tasks: &Tasks) -> Process {
    let node = node.clone();
    if reads_only {
        Process::start(tasks, Reader(node).run())
    } else {
        Process::start(tasks, node.run())
    }
}

/// How violent a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temper {
    /// Longest time between two blows.
    pub every: Duration,
    /// Longest pause of a process.
    pub pause: Duration,
    /// Bits are flipped and bodies cut.
    pub damage: bool,
}

impl Temper {
    pub(crate) fn random(rand: &Rand) -> Self {
        let every = Duration::from_millis([500, 2_000, 8_000, 60_000][rand.below(4) as usize]);
        let pause = Duration::from_millis([500, 10_000, 120_000][rand.below(3) as usize]);
        Self {
            every,
            pause,
            damage: rand.below(4) == 0,
        }
    }
}

/// Strikes until `long` is over, then leaves everybody running in calm weather.
pub(crate) async fn strike(
    victims: &mut [Victim],
    temper: Temper,
    long: Duration,
    rand: &Rand,
    tasks: &Tasks,
) {
    let deadline = tokio::time::Instant::now() + long;
    while tokio::time::Instant::now() < deadline {
        tokio::time::sleep(temper.every.mul_f64(rand.unit())).await;
        let victim = &mut victims[rand.below(victims.len() as u64) as usize];
        match rand.below(12) {
            0..=2 => victim.restart(tasks),
            3..=5 => {
                victim.process.pause();
                // Time passes for the others, and for this one's lost requests.
                tokio::time::sleep(temper.pause.mul_f64(rand.unit())).await;
                victim.process.resume();
            }
            // Stays paused: wakes as a zombie when it is hit again, or when the others are gone.
            6 | 7 => victim.process.pause(),
            8 | 9 => victim.process.resume(),
            10 => victim.node.line.set_down(!victim.node.line.is_down()),
            _ => victim.node.line.set(weather(temper, rand)),
        }
    }
    for victim in victims {
        victim.node.line.set(Weather::calm());
        victim.process.resume();
    }
}

pub(crate) fn weather(temper: Temper, rand: &Rand) -> Weather {
    let mut weather = Weather::random(rand);
    if temper.damage {
        (weather.flip, weather.cut) = (rand.unit() * 0.05, rand.unit() * 0.05);
    }
    weather
}
