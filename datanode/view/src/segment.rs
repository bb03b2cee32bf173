//! One immutable segment: the keys and versions of a base fragment's rows by offset, and
//! what has been loaded of its vectors and fields.
//!
//! Whether a row is alive is not the segment's business: snapshots pair it with a live set.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::RwLock;
use rhumb_core::{DocId, FieldName, Seq};
use rhumb_text::Split;

use crate::ann::Lists;
use crate::codes::Codes;
use crate::column::Column;
use crate::error::ViewError;
use crate::keys::Keys;
use crate::masks::Masks;
use crate::size::SegmentSize;
use crate::sparse::SparseIndex;

#[derive(Debug)]
pub struct Segment {
    fragment: u64,
    keys: Keys,
    seqs: Vec<Seq>,
    order: OnceLock<Option<Vec<u32>>>,
    codes: Parts<Codes>,
    lists: Parts<Lists>,
    columns: Parts<Column>,
    masks: Masks,
    sparse: Parts<SparseIndex>,
    split: Slot<Split>,
}

/// What has been loaded of all fields together.
#[derive(Debug)]
struct Slot<T>(RwLock<Option<Part<T>>>);

/// What has been loaded, by field.
#[derive(Debug)]
struct Parts<T>(RwLock<BTreeMap<FieldName, Part<T>>>);

#[derive(Debug)]
enum Part<T> {
    Attached(Arc<T>),
    /// Found for as long as somebody who needs it holds it.
    Detached(Weak<T>),
}

impl Segment {
    /// `keys` and `seqs` in the order of the fragment's rows, deleted ones included.
    pub fn new(fragment: u64, keys: Keys, seqs: Vec<Seq>) -> Result<Self, ViewError> {
        check_rows("seqs", keys.len(), seqs.len())?;
        Ok(Self {
            fragment,
            keys,
            seqs,
            order: OnceLock::new(),
            codes: Parts::new(),
            lists: Parts::new(),
            columns: Parts::new(),
            masks: Masks::default(),
            sparse: Parts::new(),
            split: Slot(RwLock::default()),
        })
    }

    /// The base fragment whose row offsets are this segment's ordinals.
    pub fn fragment(&self) -> u64 {
        self.fragment
    }

    /// Rows, dead ones included.
    pub fn len(&self) -> u32 {
        self.seqs.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Panics when `ordinal` is not below `len`, as a slice does; so does `seq`.
    pub fn id(&self, ordinal: u32) -> DocId {
        self.keys.id(ordinal)
    }

    pub fn seq(&self, ordinal: u32) -> Seq {
        self.seqs[ordinal as usize]
    }

    pub fn codes(&self, field: &str) -> Option<Arc<Codes>> {
        self.codes.get(field)
    }

    /// What approximate searches go by; they need the codes too.
    pub fn lists(&self, field: &str) -> Option<Arc<Lists>> {
        self.lists.get(field)
    }

    pub fn column(&self, field: &str) -> Option<Arc<Column>> {
        self.columns.get(field)
    }

    /// The inverted lists of a field of sparse vectors.
    pub fn sparse(&self, field: &str) -> Option<Arc<SparseIndex>> {
        self.sparse.get(field)
    }

    /// The text index of all text fields.
    pub fn split(&self) -> Option<Arc<Split>> {
        self.split.0.read().as_ref()?.get()
    }

    /// Replaces the one before.
    pub fn attach_split(&self, split: Arc<Split>) -> Result<(), ViewError> {
        check_rows("text index", self.seqs.len(), split.rows() as usize)?;
        *self.split.0.write() = Some(Part::Attached(split));
        Ok(())
    }

    /// As `detach_codes`.
    pub fn detach_split(&self) -> Option<Arc<Split>> {
        self.split.0.write().as_mut()?.detach()
    }

    /// Replaces what was attached under that name.
    pub fn attach_codes(&self, field: FieldName, codes: Arc<Codes>) -> Result<(), ViewError> {
        check_rows("codes", self.seqs.len(), codes.rows() as usize)?;
        self.codes.attach(field, codes);
        Ok(())
    }

    /// Replaces what was attached under that name.
    pub fn attach_lists(&self, field: FieldName, lists: Arc<Lists>) -> Result<(), ViewError> {
        check_rows("lists", self.seqs.len(), lists.rows() as usize)?;
        self.lists.attach(field, lists);
        Ok(())
    }

    /// Replaces what was attached under that name.
    pub fn attach_column(&self, field: FieldName, column: Arc<Column>) -> Result<(), ViewError> {
        check_rows("column", self.seqs.len(), column.len() as usize)?;
        if self.columns.attach(field, column) {
            self.masks.outdate();
        }
        Ok(())
    }

    /// Replaces what was attached under that name.
    pub fn attach_sparse(&self, field: FieldName, index: Arc<SparseIndex>) -> Result<(), ViewError> {
        check_rows("sparse index", self.seqs.len(), index.rows() as usize)?;
        self.sparse.attach(field, index);
        Ok(())
    }

    /// The memory goes when the last holder lets go of it; until then `codes` still finds
    /// it.  So a query that holds what it needs is never starved by a tight budget.
    pub fn detach_codes(&self, field: &str) -> Option<Arc<Codes>> {
        self.codes.detach(field)
    }

    /// As `detach_codes`.
    pub fn detach_lists(&self, field: &str) -> Option<Arc<Lists>> {
        self.lists.detach(field)
    }

    /// As `detach_codes`.
    pub fn detach_column(&self, field: &str) -> Option<Arc<Column>> {
        self.columns.detach(field)
    }

    /// As `detach_codes`.
    pub fn detach_sparse(&self, field: &str) -> Option<Arc<SparseIndex>> {
        self.sparse.detach(field)
    }

    pub fn size(&self) -> SegmentSize {
        let order = self.order.get().and_then(Option::as_ref);
        SegmentSize {
            keys: self.keys.heap_size(),
            seqs: self.seqs.capacity() * size_of::<Seq>(),
            order: order.map_or(0, |order| order.capacity() * size_of::<u32>()),
            codes: self.codes.sum(Codes::heap_size),
            lists: self.lists.sum(Lists::heap_size),
            columns: self.columns.sum(Column::heap_size),
            masks: self.masks.heap_size(),
            sparse: self.sparse.sum(SparseIndex::heap_size),
            text: self
                .split
                .0
                .read()
                .as_ref()
                .and_then(Part::attached)
                .map_or(0, |split| split.heap_size()),
        }
    }

    pub(crate) fn masks(&self) -> &Masks {
        &self.masks
    }

    /// The rows are in the order of their ids; false while that is not known.
    pub(crate) fn is_in_id_order(&self) -> bool {
        matches!(self.order.get(), Some(None))
    }

    /// The ordinal of the `rank`-th smallest id.  The first call sorts the keys, once,
    /// unless the fragment was written in id order.
    pub(crate) fn ranked(&self, rank: u32) -> u32 {
        match self.order.get_or_init(|| self.keys.sorted()) {
            Some(order) => order[rank as usize],
            None => rank,
        }
    }
}

impl<T> Part<T> {
    fn get(&self) -> Option<Arc<T>> {
        match self {
            Self::Attached(part) => Some(part.clone()),
            Self::Detached(part) => part.upgrade(),
        }
    }

    fn attached(&self) -> Option<&Arc<T>> {
        match self {
            Self::Attached(part) => Some(part),
            Self::Detached(_) => None,
        }
    }

    fn detach(&mut self) -> Option<Arc<T>> {
        let part = self.attached()?.clone();
        *self = Self::Detached(Arc::downgrade(&part));
        Some(part)
    }
}

impl<T> Parts<T> {
    fn new() -> Self {
        Self(RwLock::default())
    }

    fn get(&self, field: &str) -> Option<Arc<T>> {
        self.0.read().get(field)?.get()
    }

    /// True when there was another of that name, even one let go of since.
    fn attach(&self, field: FieldName, part: Arc<T>) -> bool {
        self.0.write().insert(field, Part::Attached(part)).is_some()
    }

    fn detach(&self, field: &str) -> Option<Arc<T>> {
        self.0.write().get_mut(field)?.detach()
    }

    /// Over what is attached: the rest is its holders'.
    fn sum(&self, size: impl Fn(&T) -> usize) -> usize {
        let parts = self.0.read();
        parts
            .values()
            .filter_map(Part::attached)
            .map(|part| size(part))
            .sum()
    }
}

fn check_rows(what: &'static str, expected: usize, found: usize) -> Result<(), ViewError> {
    match expected == found {
        true => Ok(()),
        false => Err(ViewError::RowCount {
            what,
            expected: expected as u64,
            found: found as u64,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_rows() -> Segment {
        let mut keys = Keys::builder();
        (0..2).for_each(|n| keys.push_num(n).expect("numbers"));
        Segment::new(0, keys.finish(), vec![Seq(1), Seq(2)]).expect("as many keys as seqs")
    }

    #[test]
    fn what_was_detached_is_found_while_somebody_holds_it() {
        let segment = two_rows();
        let field = FieldName::parse("a").expect("a name");
        segment
            .attach_column(field.clone(), Arc::new(Column::missing(2)))
            .expect("as many rows");
        let held = segment.column("a").expect("attached");
        assert!(segment.detach_column("a").is_some());
        assert!(segment.detach_column("a").is_none(), "once is enough");
        assert!(Arc::ptr_eq(&held, &segment.column("a").expect("held")));
        assert_eq!(segment.size().columns, 0);
        drop(held);
        assert!(segment.column("a").is_none());
        segment
            .attach_column(field, Arc::new(Column::missing(2)))
            .expect("as many rows");
        assert!(segment.column("a").is_some());
    }

    #[test]
    fn parts_of_another_length_are_refused() {
        let segment = two_rows();
        let field = FieldName::parse("a").expect("a name");
        let refused = segment.attach_column(field, Arc::new(Column::missing(3)));
        assert_eq!(
            refused,
            Err(ViewError::RowCount {
                what: "column",
                expected: 2,
                found: 3
            })
        );
        let short = Segment::new(0, Keys::builder().finish(), vec![Seq(1)]);
        assert!(matches!(short, Err(ViewError::RowCount { what: "seqs", .. })));
    }
}
