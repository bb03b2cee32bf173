//! Filters over a snapshot: columns for segments, documents for fresh rows, one meaning.

use std::sync::Arc;

use rhumb_core::filter::{Leaf, Path};
use rhumb_core::{DocId, FieldName, Filter};

use crate::bits::Bits;
use crate::error::ViewError;
use crate::keys::KeyRef;
use crate::rows::{RowRef, SegmentId};
use crate::segment::Segment;
use crate::snapshot::{FreshGroup, Snapshot, column_of};

/// Live rows of one snapshot that pass a filter.
#[derive(Clone, Debug)]
pub struct RowMask {
    /// By segment, ascending; a segment that is not here has no row in the mask.
    parts: Vec<(SegmentId, Bits)>,
}

impl RowMask {
    pub fn count(&self) -> u64 {
        self.parts.iter().map(|(_, bits)| bits.count()).sum()
    }

    pub fn contains(&self, row: RowRef) -> bool {
        self.find(row.segment)
            .is_some_and(|bits| bits.get(row.ordinal as usize))
    }

    pub fn heap_size(&self) -> usize {
        self.parts.iter().map(|(_, bits)| bits.heap_size()).sum()
    }

    /// The segment's rows, 64 to a word; may be shorter than the segment.
    pub(crate) fn part(&self, id: SegmentId) -> &[u64] {
        self.find(id).map_or(&[], Bits::words)
    }

    fn find(&self, id: SegmentId) -> Option<&Bits> {
        let at = self.parts.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.parts[at].1)
    }
}

impl Snapshot {
    /// Columns that `filter` would need and does not find.
    pub fn missing_columns(&self, filter: &Filter) -> Vec<(Arc<Segment>, FieldName)> {
        let fields: Vec<FieldName> = filter.fields().into_iter().cloned().collect();
        self.missing_fields(&fields)
    }

    /// O(rows), far less for most leaves.  `NotLoaded` when a column is missing, see
    /// `missing_columns`.
    pub fn filter(&self, filter: &Filter) -> Result<RowMask, ViewError> {
        let mut parts = Vec::with_capacity(self.sealed.len() + self.fresh.len());
        for sealed in self.populated() {
            let live = sealed.live.to_bits();
            parts.push((sealed.id, select(filter, &sealed.segment, live)?));
        }
        for group in self.fresh.iter().filter(|group| group.live.count() > 0) {
            parts.push((group.id, select_fresh(filter, group)));
        }
        Ok(RowMask { parts })
    }
}

fn select_fresh(filter: &Filter, group: &FreshGroup) -> Bits {
    let mut selected = Bits::none(group.rows.len() as usize);
    for (ordinal, row, document) in group.documents() {
        if filter.matches(&row.id, document) {
            selected.set(ordinal as usize);
        }
    }
    selected
}

/// Rows of `within` that pass.  Each step looks only at what the steps before it left.
fn select(filter: &Filter, segment: &Segment, within: Bits) -> Result<Bits, ViewError> {
    match filter {
        Filter::And(all) => {
            let mut left = within;
            for filter in cheap_first(all) {
                left = select(filter, segment, left)?;
            }
            Ok(left)
        }
        Filter::Or(any) => {
            let mut left = within;
            let mut selected = Bits::none(left.len());
            for filter in cheap_first(any) {
                let more = select(filter, segment, left.clone())?;
                left.and_not(&more);
                selected.or(&more);
            }
            Ok(selected)
        }
        Filter::Not(inner) => {
            let mut rest = within.clone();
            rest.and_not(&select(inner, segment, within)?);
            Ok(rest)
        }
        Filter::Leaf(leaf) => select_leaf(leaf, segment, &within),
    }
}

fn select_leaf(leaf: &Leaf, segment: &Segment, within: &Bits) -> Result<Bits, ViewError> {
    let test = &leaf.test;
    match &leaf.path {
        Path::Id => {
            let mut selected = Bits::none(within.len());
            for row in within.iter() {
                let passes = match segment.keys().get(row) {
                    KeyRef::Num(n) => test.matches_id(&DocId::Num(n)),
                    KeyRef::Str(s) => test.matches_str(s),
                };
                if passes {
                    selected.set(row as usize);
                }
            }
            Ok(selected)
        }
        Path::Field(field) => Ok(column_of(segment, field)?.select(test, within)),
        Path::Json(field, steps) => Ok(column_of(segment, field)?.select_json(steps, test, within)),
    }
}

/// Paths into json are parsed row by row, so they come after all that may rule rows out.
fn cheap_first(filters: &[Filter]) -> impl Iterator<Item = &Filter> {
    let costly = |filter: &&Filter| filter.paths().iter().any(|path| matches!(path, Path::Json(..)));
    let cheap = filters.iter().filter(move |filter| !costly(filter));
    cheap.chain(filters.iter().filter(costly))
}
