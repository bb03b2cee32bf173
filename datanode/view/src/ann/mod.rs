//! Approximate search: where to look, learned from the vectors.
//!
//! * A [`Grid`] is trained once for a field of a partition ([`GridTrainer`]).
//! * [`Lists`] sort the rows of a segment, or of a stretch of fresh rows, by the grid's
//!   lists and hold short codes of them; made by a [`ListsBuilder`], merged without vectors.
//! * A [`Calibration`] says how far a search must go for a wanted recall, per grid.
//! * `Aim` is one query seen by one grid.
//!
//! Nothing here decides who is alive or what a score is: `search::approximate` does, over
//! the int8 codes.  All of it can be dropped and built again, or saved with `to_bytes`.

mod aim;
mod asked;
mod assign;
mod build;
mod bytes;
mod calibrate;
mod encode;
mod grid;
mod lists;
mod random;
mod rotate;
#[cfg(test)]
mod tests;
mod train;

pub use build::{ListsBuilder, Part};
pub use calibrate::Calibration;
pub use grid::Grid;
pub use lists::Lists;
pub use train::GridTrainer;

pub(crate) use aim::{Aim, Passing};
pub(crate) use bytes::{Reader, Writer};
pub(crate) use calibrate::{Limits, Needed};
pub(crate) use grid::{read_type, write_type};
