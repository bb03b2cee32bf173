//! One moment of a partition: which segments and fresh rows there are, and who is alive.
//! Immutable; queries and cursors pin it by holding it.

use std::sync::{Arc, OnceLock};

use rhumb_core::{DocId, Document, FieldName, Seq};
use rhumb_text::Split;

use crate::ann::{Grid, Lists};
use crate::bits::{LiveBits, Ones, mask_word};
use crate::codes::Codes;
use crate::column::Column;
use crate::error::ViewError;
use crate::filter::RowMask;
use crate::fresh::{FreshRow, FreshRows};
use crate::rows::{RowRef, SegmentId};
use crate::segment::Segment;
use crate::sparse::SparseIndex;

#[derive(Debug)]
pub struct Snapshot {
    /// By id, ascending.
    pub(crate) sealed: Arc<Vec<Sealed>>,
    /// Frozen groups, then the active one.
    pub(crate) fresh: Vec<FreshGroup>,
    pub(crate) fresh_order: OnceLock<Vec<RowRef>>,
}

/// A segment and its live rows at the snapshot's moment.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub(crate) id: SegmentId,
    pub(crate) segment: Arc<Segment>,
    pub(crate) live: LiveBits,
}

#[derive(Clone, Debug)]
pub(crate) struct FreshGroup {
    pub(crate) id: SegmentId,
    pub(crate) rows: FreshRows,
    pub(crate) live: LiveBits,
}

impl Sealed {
    pub fn id(&self) -> SegmentId {
        self.id
    }

    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub fn live_rows(&self) -> u64 {
        self.live.count()
    }

    pub fn is_live(&self, ordinal: u32) -> bool {
        self.live.get(ordinal)
    }
}

impl FreshGroup {
    /// Live rows and their documents.
    pub(crate) fn documents(&self) -> impl Iterator<Item = (u32, &FreshRow, &Arc<Document>)> {
        self.live.iter().filter_map(|at| {
            let row = self.rows.row(at);
            row.document.as_ref().map(|document| (at, row, document))
        })
    }
}

impl Snapshot {
    pub(crate) fn new(sealed: Arc<Vec<Sealed>>, fresh: Vec<FreshGroup>) -> Self {
        Self {
            sealed,
            fresh,
            fresh_order: OnceLock::new(),
        }
    }

    pub fn segments(&self) -> &[Sealed] {
        &self.sealed
    }

    pub fn segment(&self, id: SegmentId) -> Option<&Sealed> {
        let at = self.sealed.binary_search_by_key(&id, |sealed| sealed.id).ok()?;
        Some(&self.sealed[at])
    }

    pub fn live_rows(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.live.count()).sum::<u64>() + self.fresh_rows()
    }

    /// Live rows that no fragment holds yet.
    pub fn fresh_rows(&self) -> u64 {
        self.fresh.iter().map(|group| group.live.count()).sum()
    }

    /// `None` when the snapshot has no such row; dead rows have an id too.
    pub fn row_id(&self, row: RowRef) -> Option<DocId> {
        match row.segment.is_fresh() {
            true => self.fresh_row(row).map(|fresh| fresh.id.clone()),
            false => self.sealed_row(row).map(|segment| segment.id(row.ordinal)),
        }
    }

    pub fn row_seq(&self, row: RowRef) -> Option<Seq> {
        match row.segment.is_fresh() {
            true => self.fresh_row(row).map(|fresh| fresh.seq),
            false => self.sealed_row(row).map(|segment| segment.seq(row.ordinal)),
        }
    }

    pub fn is_live(&self, row: RowRef) -> bool {
        match row.segment.is_fresh() {
            true => self
                .group(row.segment)
                .is_some_and(|group| group.live.get(row.ordinal)),
            false => self
                .segment(row.segment)
                .is_some_and(|sealed| sealed.live.get(row.ordinal)),
        }
    }

    /// `None` for rows of segments (their documents are in the base) and for deletions.
    pub fn fresh_document(&self, row: RowRef) -> Option<Arc<Document>> {
        self.fresh_row(row)?.document.clone()
    }

    /// Live rows, of `mask` if given: segments first, each in its own order.
    pub fn rows<'a>(&'a self, mask: Option<&'a RowMask>) -> impl Iterator<Item = RowRef> + 'a {
        self.parts().flat_map(move |(id, live)| {
            let mask = mask.map(|mask| mask.part(id));
            (0..live.words()).flat_map(move |at| {
                Ones {
                    word: live.word(at) & mask_word(mask, at),
                    base: at as u32 * u64::BITS,
                }
                .map(move |ordinal| RowRef::new(id, ordinal))
            })
        })
    }

    /// Segments whose codes of `field` a search would need and that do not have them.
    pub fn missing_codes(&self, field: &str) -> Vec<Arc<Segment>> {
        let lacking = self
            .populated()
            .filter(|sealed| sealed.segment.codes(field).is_none());
        lacking.map(|sealed| sealed.segment.clone()).collect()
    }

    /// Segments whose inverted lists of `field` a sparse search would need and that do not
    /// have them.
    pub fn missing_sparse(&self, field: &str) -> Vec<Arc<Segment>> {
        let lacking = self
            .populated()
            .filter(|sealed| sealed.segment.sparse(field).is_none());
        lacking.map(|sealed| sealed.segment.clone()).collect()
    }

    /// Segments whose text index a text search would need and that do not have it.
    pub fn missing_splits(&self) -> Vec<Arc<Segment>> {
        let lacking = self.populated().filter(|sealed| sealed.segment.split().is_none());
        lacking.map(|sealed| sealed.segment.clone()).collect()
    }

    /// What `sort_by` and `aggregate` over these fields would need and do not have.
    pub fn missing_fields(&self, fields: &[FieldName]) -> Vec<(Arc<Segment>, FieldName)> {
        let mut missing = Vec::new();
        for sealed in self.populated() {
            for field in fields
                .iter()
                .filter(|field| sealed.segment.column(field.as_str()).is_none())
            {
                missing.push((sealed.segment.clone(), field.clone()));
            }
        }
        missing
    }

    /// Codes of `field` that are loaded.  A query that holds them, and those it loads for
    /// `missing_codes`, finds them all, whatever is detached meanwhile.
    pub fn hold_codes(&self, field: &str) -> Vec<Arc<Codes>> {
        self.populated()
            .filter_map(|sealed| sealed.segment.codes(field))
            .collect()
    }

    /// Segments that have no lists of `field` on this grid.
    pub fn missing_lists(&self, field: &str, grid: &Grid) -> Vec<Arc<Segment>> {
        let on_grid = |lists: Arc<Lists>| lists.grid().id() == grid.id();
        let lacking = self
            .populated()
            .filter(|sealed| !sealed.segment.lists(field).is_some_and(on_grid));
        lacking.map(|sealed| sealed.segment.clone()).collect()
    }

    /// Rows, dead ones included, that a search scans one by one because they are in no list.
    pub fn unlisted_rows(&self, field: &str) -> u64 {
        let sealed = self
            .populated()
            .filter(|sealed| sealed.segment.lists(field).is_none());
        let sealed = sealed.map(|sealed| u64::from(sealed.segment.len()));
        let fresh = self
            .fresh
            .iter()
            .map(|group| u64::from(group.rows.unlisted(field)));
        sealed.sum::<u64>() + fresh.sum::<u64>()
    }

    /// As `hold_codes`, for lists.
    pub fn hold_lists(&self, field: &str) -> Vec<Arc<Lists>> {
        self.populated()
            .filter_map(|sealed| sealed.segment.lists(field))
            .collect()
    }

    /// As `hold_codes`, for inverted lists.
    pub fn hold_sparse(&self, field: &str) -> Vec<Arc<SparseIndex>> {
        self.populated()
            .filter_map(|sealed| sealed.segment.sparse(field))
            .collect()
    }

    /// As `hold_codes`, for text indexes.
    pub fn hold_splits(&self) -> Vec<Arc<Split>> {
        self.populated()
            .filter_map(|sealed| sealed.segment.split())
            .collect()
    }

    /// As `hold_codes`, for the columns of these fields.
    pub fn hold_columns(&self, fields: &[FieldName]) -> Vec<Arc<Column>> {
        let of = |sealed: &Sealed| {
            let column = |field: &FieldName| sealed.segment.column(field.as_str());
            fields.iter().filter_map(column).collect::<Vec<_>>()
        };
        self.populated().flat_map(of).collect()
    }

    /// Segments with anyone alive: the others are never looked into.
    pub(crate) fn populated(&self) -> impl Iterator<Item = &Sealed> {
        self.sealed.iter().filter(|sealed| sealed.live.count() > 0)
    }

    pub(crate) fn group(&self, id: SegmentId) -> Option<&FreshGroup> {
        self.fresh.iter().find(|group| group.id == id)
    }

    pub(crate) fn fresh_row(&self, row: RowRef) -> Option<&FreshRow> {
        self.group(row.segment)?.rows.get(row.ordinal)
    }

    fn sealed_row(&self, row: RowRef) -> Option<&Arc<Segment>> {
        let segment = &self.segment(row.segment)?.segment;
        (row.ordinal < segment.len()).then_some(segment)
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = (SegmentId, &LiveBits)> {
        let sealed = self.sealed.iter().map(|sealed| (sealed.id, &sealed.live));
        sealed.chain(self.fresh.iter().map(|group| (group.id, &group.live)))
    }
}

/// The column of a segment, or the error that says what to load.
pub(crate) fn column_of(segment: &Segment, field: &FieldName) -> Result<Arc<Column>, ViewError> {
    let missing = || ViewError::NotLoaded {
        fragment: segment.fragment(),
        field: field.clone(),
    };
    segment.column(field.as_str()).ok_or_else(missing)
}
