//! Rules of this crate that the simulator may switch off, one at a time, to show that its
//! checker sees what each of them is for.  Without the feature `deviations`, which only the simulator
//! asks for, `active` is a constant and nothing of this is in the binary.
//!
//! The switch is per thread: a simulated world lives on one.

/// A tempting shortcut, and where it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// A takeover claims the epoch but puts no FENCE into the log.
    NoFence,
    /// A takeover trusts its FENCE and does not re-read the state.
    NoValidate,
    /// A slot taken by somebody else is skipped, as MemWAL's writer does.
    NextSlotWhenLost,
    /// A log with a record on its way is handed back as if nothing were.
    HandBackInDoubt,
}

#[cfg(not(feature = "deviations"))]
pub(crate) const fn active(_: Deviation) -> bool {
    false
}

#[cfg(feature = "deviations")]
mod switch {
    use std::cell::Cell;

    use super::Deviation;

    thread_local! {
        static ACTIVE: Cell<Option<Deviation>> = const { Cell::new(None) };
    }

    pub(crate) fn active(deviation: Deviation) -> bool {
        ACTIVE.get() == Some(deviation)
    }

    /// Breaks one rule on this thread until the guard is dropped.
    pub fn deviate(deviation: Option<Deviation>) -> Deviating {
        Deviating {
            before: ACTIVE.replace(deviation),
        }
    }

    #[must_use]
    pub struct Deviating {
        before: Option<Deviation>,
    }

    impl Drop for Deviating {
        fn drop(&mut self) {
            ACTIVE.set(self.before);
        }
    }
}

#[cfg(feature = "deviations")]
pub(crate) use switch::active;
#[cfg(feature = "deviations")]
pub use switch::{Deviating, deviate};
