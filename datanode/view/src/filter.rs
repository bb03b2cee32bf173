//! Filters over a snapshot: columns for segments, documents for fresh rows, one meaning.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use rhumb_core::filter::{Leaf, Path, Test};
use rhumb_core::order::Seen;
use rhumb_core::{DocId, FieldName, Filter};

use crate::bits::{Bits, LiveBits};
use crate::error::ViewError;
use crate::keys::KeyRef;
use crate::masks::Mask;
use crate::rows::{RowRef, SegmentId};
use crate::segment::Segment;
use crate::snapshot::{FreshGroup, Sealed, Snapshot, column_of};
use crate::span::{Sought, partition, spans};

/// Live rows of one snapshot that pass a filter.
#[derive(Clone, Debug)]
pub struct RowMask {
    /// By segment, ascending; a segment that is not here has no row in the mask.
    parts: Vec<Part>,
    count: u64,
}

#[derive(Clone, Debug)]
struct Part {
    id: SegmentId,
    passing: Passing,
    live: LiveBits,
}

/// Rows that pass, dead ones included: shared with every query of the same filter.
#[derive(Clone, Debug)]
enum Passing {
    Sealed(Arc<Mask>),
    Fresh(Arc<Bits>),
}

impl RowMask {
    /// The live rows that are wanted.
    pub(crate) fn choose(snapshot: &Snapshot, mut wanted: impl FnMut(RowRef) -> bool) -> Self {
        let mut chosen = Self {
            parts: Vec::new(),
            count: 0,
        };
        for (id, live) in snapshot.parts() {
            let len = live.words() * u64::BITS as usize;
            let rows = Bits::from_fn(len, |at| {
                let ordinal = at as u32;
                live.get(ordinal) && wanted(RowRef::new(id, ordinal))
            });
            chosen.count += live.count_among(rows.words());
            chosen.parts.push(Part {
                id,
                passing: Passing::Fresh(Arc::new(rows)),
                live: live.clone(),
            });
        }
        chosen.parts.sort_unstable_by_key(|part| part.id);
        chosen
    }

    /// Counted when the mask was made.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn contains(&self, row: RowRef) -> bool {
        self.find(row.segment)
            .is_some_and(|part| part.live.get(row.ordinal) && part.passing.rows().get(row.ordinal as usize))
    }

    /// What it shares with the view's caches counts in full.
    pub fn heap_size(&self) -> usize {
        let of = |part: &Part| size_of::<Part>() + part.passing.rows().heap_size();
        self.parts.iter().map(of).sum()
    }

    /// The segment's rows that pass, 64 to a word; may be shorter or longer than the
    /// segment.  Rows that are dead in the snapshot may be among them: whoever reads words
    /// reads them together with the live ones.
    pub(crate) fn part(&self, id: SegmentId) -> &[u64] {
        self.find(id).map_or(&[], |part| part.passing.rows().words())
    }

    fn find(&self, id: SegmentId) -> Option<&Part> {
        let at = self.parts.binary_search_by_key(&id, |part| part.id).ok()?;
        Some(&self.parts[at])
    }

    fn push_sealed(&mut self, sealed: &Sealed, mask: Arc<Mask>) {
        self.count += mask.count(&sealed.live);
        self.parts.push(Part {
            id: sealed.id,
            passing: Passing::Sealed(mask),
            live: sealed.live.clone(),
        });
    }

    fn push_fresh(&mut self, group: &FreshGroup, rows: Arc<Bits>) {
        self.count += group.live.count_among(rows.words());
        self.parts.push(Part {
            id: group.id,
            passing: Passing::Fresh(rows),
            live: group.live.clone(),
        });
    }
}

impl Passing {
    fn rows(&self) -> &Bits {
        match self {
            Self::Sealed(mask) => mask.rows(),
            Self::Fresh(rows) => rows,
        }
    }
}

/// Fresh rows that a query may ask itself, without a hop to another thread.
const FEW_FRESH: u32 = 1_024;

impl Snapshot {
    /// Columns that `filter` would need and does not find.
    pub fn missing_columns(&self, filter: &Filter) -> Vec<(Arc<Segment>, FieldName)> {
        let fields: Vec<FieldName> = filter.fields().into_iter().cloned().collect();
        self.missing_fields(&fields)
    }

    /// Some ns a segment for a filter that was asked before; else O(rows), most often a
    /// byte or two of each.  `NotLoaded` when a column is missing, see `missing_columns`.
    pub fn filter(&self, filter: &Filter) -> Result<RowMask, ViewError> {
        let key = filter.key();
        let mut mask = self.no_rows();
        for sealed in self.populated() {
            let segment = &sealed.segment;
            let make = || select(filter, segment, Bits::all(segment.len() as usize));
            mask.push_sealed(sealed, segment.masks().get_or_make(&key, segment.len(), make)?);
        }
        for group in self.fresh.iter().filter(|group| group.live.count() > 0) {
            mask.push_fresh(group, group.rows.masks().passing(&key, filter, &group.rows));
        }
        Ok(mask)
    }

    /// The mask, if microseconds and no column are enough to have it: the filter was asked
    /// of every segment and, but for the last of them, of the fresh rows.
    pub fn known_filter(&self, filter: &Filter) -> Option<RowMask> {
        let key = filter.key();
        let mut mask = self.no_rows();
        for sealed in self.populated() {
            mask.push_sealed(sealed, sealed.segment.masks().get(&key)?);
        }
        for group in self.fresh.iter().filter(|group| group.live.count() > 0) {
            let masks = group.rows.masks();
            if masks.unasked(&key, &group.rows) > FEW_FRESH {
                return None;
            }
            mask.push_fresh(group, masks.passing(&key, filter, &group.rows));
        }
        Some(mask)
    }

    fn no_rows(&self) -> RowMask {
        RowMask {
            parts: Vec::with_capacity(self.sealed.len() + self.fresh.len()),
            count: 0,
        }
    }
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
        Path::Id => Ok(select_ids(test, segment, within)),
        Path::Field(field) => Ok(column_of(segment, field)?.select(test, within)),
        Path::Json(field, steps) => Ok(column_of(segment, field)?.select_json(steps, test, within)),
    }
}

/// Ids are asked by their rank, or one by one when operands are of another kind.
fn select_ids(test: &Test, segment: &Segment, within: &Bits) -> Bits {
    let mut selected = Bits::none(within.len());
    match spans(test, |sought| place_of_id(segment, sought)) {
        Some(spans) => {
            let last = u128::from(segment.len());
            for ranks in spans.places {
                let ranks = ranks.start.min(last) as u32..ranks.end.min(last) as u32;
                ranks.for_each(|rank| selected.set(segment.ranked(rank) as usize));
            }
            if spans.negated {
                selected.invert();
            }
            selected.and(within);
        }
        None => {
            for row in within.iter() {
                let passes = match segment.keys().get(row) {
                    KeyRef::Num(n) => test.matches_id(&DocId::Num(n)),
                    KeyRef::Str(s) => test.matches_str(s),
                };
                if passes {
                    selected.set(row as usize);
                }
            }
        }
    }
    selected
}

fn place_of_id(segment: &Segment, sought: Sought<'_>) -> Option<Range<u128>> {
    let keys = segment.keys();
    if keys.is_empty() {
        return Some(0..0);
    }
    let first = |before: &dyn Fn(KeyRef<'_>) -> bool| {
        let before = |rank| before(keys.get(segment.ranked(rank)));
        u128::from(partition(segment.len(), before))
    };
    match (sought, keys.get(0)) {
        (Sought::Value(value), kind) => {
            let value = Seen::value(value)?;
            kind.seen().compare(value)?;
            let against = |key: KeyRef<'_>| key.seen().compare(value).unwrap_or(Ordering::Equal);
            Some(first(&|key| against(key).is_lt())..first(&|key| against(key).is_le()))
        }
        (Sought::Prefix(prefix), KeyRef::Str(_)) => {
            let low = first(&|key| key < KeyRef::Str(prefix));
            Some(low..first(&|key| key < KeyRef::Str(prefix) || key.starts_with(prefix)))
        }
        (Sought::Prefix(_), KeyRef::Num(_)) => None,
    }
}

/// Paths into json are parsed row by row, so they come after all that may rule rows out.
fn cheap_first(filters: &[Filter]) -> impl Iterator<Item = &Filter> {
    let costly = |filter: &&Filter| filter.paths().iter().any(|path| matches!(path, Path::Json(..)));
    let cheap = filters.iter().filter(move |filter| !costly(filter));
    cheap.chain(filters.iter().filter(costly))
}
