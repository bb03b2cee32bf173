//! Is what the objects say true, and do children stay what they should be?

mod children;
mod collections;
mod secured;
mod serving;
mod waiting;
