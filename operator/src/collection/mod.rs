//! `Collection`: keeps a collection's schema as declared, over the database's REST API.

mod door;
mod plan;
mod reconcile;
mod retire;

pub use reconcile::reconcile;

#[cfg(test)]
mod tests;
