//! The replaceable world and nothing else: time, chance and tasks.  Production builds them
//! from the machine; the simulator builds them from a seed.

mod clock;
mod rand;
mod tasks;

pub use clock::Clock;
pub use rand::{Ids, Rand};
pub use tasks::{OnExit, Tasks};
pub use tokio_util::sync::CancellationToken;
