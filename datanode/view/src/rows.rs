//! Names of rows inside one view.  They live as long as the process: nothing durable
//! holds one.

use std::fmt;

/// A segment of a view, or a group of fresh rows.  Given once, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

impl SegmentId {
    /// Groups of fresh rows count from here, so that a segment's id never meets one.
    const FIRST_FRESH: u32 = 1 << 31;

    pub(crate) fn sealed(number: u32) -> Self {
        assert!(
            number < Self::FIRST_FRESH,
            "a process would have to seal two billion segments"
        );
        Self(number)
    }

    pub(crate) fn fresh(generation: u32) -> Self {
        assert!(
            generation < Self::FIRST_FRESH,
            "a process would have to freeze two billion times"
        );
        Self(Self::FIRST_FRESH + generation)
    }

    /// True for rows that no fragment of the base holds yet.
    pub fn is_fresh(self) -> bool {
        self.0 >= Self::FIRST_FRESH
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_fresh() {
            true => write!(f, "fresh-{}", self.0 - Self::FIRST_FRESH),
            false => self.0.fmt(f),
        }
    }
}

/// One version of one document.  A row never moves; it is renamed only when its fresh
/// group becomes a segment or its segment is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowRef {
    pub segment: SegmentId,
    /// In a segment: the row's offset in its fragment.
    pub ordinal: u32,
}

impl RowRef {
    pub fn new(segment: SegmentId, ordinal: u32) -> Self {
        Self { segment, ordinal }
    }

    pub(crate) fn pack(self) -> u64 {
        u64::from(self.segment.0) << 32 | u64::from(self.ordinal)
    }

    pub(crate) fn unpack(packed: u64) -> Self {
        Self {
            segment: SegmentId((packed >> 32) as u32),
            ordinal: packed as u32,
        }
    }
}
