//! The store protocol under a simulated world: one thread, one seed, virtual time.
//!
//! `World` is the object store and the network before it; `Node` and `Reader` are the
//! actors, built from the real `rhumb-store`; `History` is what they saw, and its checker
//! says whether that can be explained by one log that never lost anything.  `Simulation`
//! puts them together from a seed.  `README.md` tells how determinism works, how to replay
//! a seed, and what is not simulated.

mod base;
pub mod cluster;
mod history;
mod nemesis;
mod network;
mod node;
mod process;
mod reader;
mod sabotage;
mod simulation;
mod trace;
mod watch;
mod world;

pub use base::Op;
pub use history::{History, Summary};
pub use network::{Blow, Line, Weather};
pub use node::{Habits, Node};
pub use process::Process;
pub use reader::Reader;
pub use sabotage::Sabotage;
pub use simulation::{Plan, Report, Simulation, run_seed};
pub use world::{SimStore, World};
