//! Bytes by part, for memory budgets.

/// What one segment keeps alive.  Codes, lists, columns and the order can be dropped and rebuilt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentSize {
    pub keys: usize,
    pub seqs: usize,
    /// Ordinals in id order, made by the first ordered scan.
    pub order: usize,
    pub codes: usize,
    pub lists: usize,
    pub columns: usize,
    /// Filters compiled for it; bounded.
    pub masks: usize,
    /// Inverted lists of sparse vectors.
    pub sparse: usize,
    /// Text indexes.
    pub text: usize,
}

impl SegmentSize {
    pub fn total(&self) -> usize {
        self.keys
            + self.seqs
            + self.order
            + self.codes
            + self.lists
            + self.columns
            + self.sparse
            + self.masks
            + self.text
    }
}

/// What one view keeps alive in its newest state.  Pinned older snapshots add what they
/// alone hold: live bitmaps and fresh rows since replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapSize {
    pub segments: SegmentSize,
    pub key_map: usize,
    pub live: usize,
    /// Fresh rows, frozen ones included.
    pub fresh: usize,
}

impl HeapSize {
    pub fn total(&self) -> usize {
        self.segments.total() + self.key_map + self.live + self.fresh
    }

    pub(crate) fn add_segment(&mut self, size: &SegmentSize) {
        self.segments.keys += size.keys;
        self.segments.seqs += size.seqs;
        self.segments.order += size.order;
        self.segments.codes += size.codes;
        self.segments.lists += size.lists;
        self.segments.columns += size.columns;
        self.segments.masks += size.masks;
        self.segments.sparse += size.sparse;
        self.segments.text += size.text;
    }
}
