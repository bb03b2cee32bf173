//! What scenarios are made of: a cluster, a namespace that goes away, a database in it,
//! clients under load, and the ways to break things.

pub mod cluster;
pub mod database;
pub mod dump;
pub mod machine;
pub mod objects;
pub mod pulse;
pub mod rows;
pub mod scenario;
pub mod storm;
pub mod wait;

pub use cluster::Cluster;
pub use database::Database;
pub use machine::Machine;
pub use wait::wait_for;
