//! The replaceable world and nothing else: time, chance, tasks, and who leads.  Production
//! builds them from the machine; the simulator builds them from a seed.

mod clock;
mod rand;
mod tasks;
mod term;

pub use clock::Clock;
pub use rand::{Ids, Rand};
pub use tasks::{OnExit, Tasks};
pub use term::Term;
pub use tokio_util::sync::CancellationToken;
