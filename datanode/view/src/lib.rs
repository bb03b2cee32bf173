//! The search structure of one partition: immutable segments, fresh rows, who is alive,
//! and search over them.  No I/O, no clock, no async.
//!
//! * A row is a [`RowRef`] (segment, ordinal) and never moves; it changes its name only in
//!   [`View::complete_freeze`] and [`View::replace_segments`].
//! * A [`View`] has one writer; any number of readers hold [`Snapshot`]s, which never change.
//! * Segments are dumb arrays in the order of a base fragment's rows.  What search and
//!   filters need beyond keys and versions ([`Codes`], [`Lists`], [`Column`]s) is attached
//!   when it has been loaded and detached to save memory.
//! * Every score is exact.  So is every answer where no lists are attached or `Exact` is
//!   asked for: codes only decide which rows cannot be hits.  Otherwise an answer may miss
//!   hits, as often as the wanted recall allows.
//!
//! Nothing here fails on data from outside: a caller's mistake is a [`ViewError`].

mod aggregate;
mod ann;
mod bits;
mod carry;
mod codes;
mod column;
mod error;
mod filter;
mod fresh;
mod fresh_masks;
mod kernels;
mod keymap;
mod keys;
mod masks;
mod ordered;
mod rows;
mod score;
mod search;
mod segment;
mod size;
mod snapshot;
mod span;
mod sparse;
mod stretches;
mod text;
mod view;

pub use ann::{Calibration, Grid, GridTrainer, Lists, ListsBuilder, Part as ListsPart};
pub use codes::{Codes, CodesBuilder, Proof};
pub use column::{Column, ColumnBuilder};
pub use error::ViewError;
pub use filter::RowMask;
pub use fresh::{FreshRow, Frozen, Killed};
pub use kernels::kernel_name;
pub use keys::{KeyRef, Keys, KeysBuilder};
pub use ordered::Bounds;
pub use rows::{RowRef, SegmentId};
pub use score::{Scorer, exact_score};
pub use search::{CalibrationQuery, Candidates, Hit, SearchSpec};
pub use segment::Segment;
pub use size::{HeapSize, SegmentSize};
pub use snapshot::{Sealed, Snapshot};
pub use sparse::{SparseFound, SparseIndex, SparseIndexBuilder, SparseSpec};
pub use text::{TextPart, TextSpec, search_text};
pub use view::{Change, FreshSize, Swap, View};
