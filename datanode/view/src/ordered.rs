//! Rows in an order: by id for scans, by a field for `order_by`.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use rhumb_core::DocId;
use rhumb_core::order::{OrderBy, OrderKey, Seen};

use crate::error::ViewError;
use crate::filter::RowMask;
use crate::keys::KeyRef;
use crate::rows::RowRef;
use crate::snapshot::{Sealed, Snapshot, column_of};

/// Ids from `start` on, before `end`, beginning with `prefix`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub start: Option<DocId>,
    pub end: Option<DocId>,
    /// Numbers begin with no prefix but the empty one.
    pub prefix: Option<Arc<str>>,
}

impl Bounds {
    pub fn contains(&self, id: &DocId) -> bool {
        let key = KeyRef::of(id);
        !self.before(key) && !self.after(key)
    }

    fn is_unbounded(&self) -> bool {
        *self == Self::default()
    }

    /// Below all that is wanted.  True for a first part of the ids, then false.
    fn before(&self, key: KeyRef<'_>) -> bool {
        let too_small = self.start.as_ref().is_some_and(|start| key < KeyRef::of(start));
        too_small
            || self
                .prefix
                .as_deref()
                .is_some_and(|prefix| !key.starts_with(prefix) && key < KeyRef::Str(prefix))
    }

    /// Above all that is wanted.  False for a first part of the ids, then true.
    fn after(&self, key: KeyRef<'_>) -> bool {
        let too_large = self.end.as_ref().is_some_and(|end| key >= KeyRef::of(end));
        too_large
            || self
                .prefix
                .as_deref()
                .is_some_and(|prefix| !key.starts_with(prefix) && key > KeyRef::Str(prefix))
    }
}

impl Snapshot {
    /// Live rows in id order after `after`: O(segments · log rows + rows passed over).
    /// The first call on a segment may have to sort its keys, and the first on a snapshot
    /// sorts its fresh rows.
    pub fn ordered(
        &self,
        after: Option<&DocId>,
        bounds: &Bounds,
        mask: Option<&RowMask>,
        limit: usize,
    ) -> Vec<RowRef> {
        let after = after.map(KeyRef::of);
        let sealed = self.populated().map(Run::Sealed);
        let runs = sealed.chain([Run::Fresh(self, self.fresh_order())]);
        let mut cursors: Vec<Cursor<'_>> = runs.map(|run| Cursor::new(run, after, bounds)).collect();
        let mut heads: BinaryHeap<Reverse<(KeyRef<'_>, usize, RowRef)>> = BinaryHeap::new();
        let mut refill = |heads: &mut BinaryHeap<_>, at: usize| {
            let next = cursors[at].next(|row| mask.is_none_or(|mask| mask.contains(row)));
            heads.extend(next.map(|(key, row)| Reverse((key, at, row))));
        };
        (0..=self.populated().count()).for_each(|at| refill(&mut heads, at));
        let mut rows = Vec::with_capacity(limit.min(1_024));
        while rows.len() < limit
            && let Some(Reverse((_, at, row))) = heads.pop()
        {
            rows.push(row);
            refill(&mut heads, at);
        }
        rows
    }

    /// All live rows of `bounds` and `mask` in the order asked for: missing values last,
    /// ties by the smaller id.  O(rows · log rows).  `NotLoaded` when a column is missing,
    /// `ValueType` when the field's values have no order.
    pub fn sort_by(
        &self,
        order: &OrderBy,
        bounds: &Bounds,
        mask: Option<&RowMask>,
    ) -> Result<Vec<RowRef>, ViewError> {
        let OrderKey::Field(field) = &order.key else {
            let mut rows = self.ordered(None, bounds, mask, usize::MAX);
            if order.descending {
                rows.reverse();
            }
            return Ok(rows);
        };
        let mut columns = BTreeMap::new();
        for sealed in self.populated() {
            let column = column_of(&sealed.segment, field)?;
            if !column.is_ordered() {
                return Err(ViewError::ValueType);
            }
            columns.insert(sealed.id, column);
        }
        let seen = |row: RowRef| match columns.get(&row.segment) {
            Some(column) => column.seen(row.ordinal),
            None => self
                .fresh_row(row)?
                .document
                .as_ref()?
                .get(field.as_str())
                .and_then(Seen::value),
        };
        let mut rows: Vec<(Option<Seen<'_>>, KeyRef<'_>, RowRef)> = Vec::new();
        for row in self.rows(mask) {
            let Some(key) = self.key(row) else { continue };
            if bounds.is_unbounded() || !(bounds.before(key) || bounds.after(key)) {
                rows.push((seen(row), key, row));
            }
        }
        rows.sort_unstable_by(|(a, a_key, _), (b, b_key, _)| {
            let by_value = match (a, b) {
                (Some(a), Some(b)) if order.descending => b.order(*a),
                (Some(a), Some(b)) => a.order(*b),
                (a, b) => b.is_some().cmp(&a.is_some()),
            };
            by_value.then_with(|| a_key.cmp(b_key))
        });
        Ok(rows.into_iter().map(|(_, _, row)| row).collect())
    }

    /// Live fresh rows in id order, sorted once per snapshot.
    fn fresh_order(&self) -> &[RowRef] {
        self.fresh_order.get_or_init(|| {
            let of_group = |group: &crate::snapshot::FreshGroup| {
                let id = group.id;
                group
                    .live
                    .iter()
                    .map(move |ordinal| RowRef::new(id, ordinal))
                    .collect::<Vec<_>>()
            };
            let mut rows: Vec<RowRef> = self.fresh.iter().flat_map(of_group).collect();
            rows.sort_unstable_by(|&a, &b| self.key(a).cmp(&self.key(b)));
            rows
        })
    }
}

/// Rows in id order, by rank.
#[derive(Clone, Copy)]
enum Run<'a> {
    Sealed(&'a Sealed),
    Fresh(&'a Snapshot, &'a [RowRef]),
}

impl<'a> Run<'a> {
    fn len(self) -> u32 {
        match self {
            Self::Sealed(sealed) => sealed.segment.len(),
            Self::Fresh(_, order) => order.len() as u32,
        }
    }

    fn get(self, rank: u32) -> (KeyRef<'a>, RowRef) {
        match self {
            Self::Sealed(sealed) => {
                let ordinal = sealed.segment.ranked(rank);
                (
                    sealed.segment.keys().get(ordinal),
                    RowRef::new(sealed.id, ordinal),
                )
            }
            Self::Fresh(snapshot, order) => {
                let row = order[rank as usize];
                let key = snapshot.key(row).expect("the order holds rows of this snapshot");
                (key, row)
            }
        }
    }

    fn is_live(self, row: RowRef) -> bool {
        match self {
            Self::Sealed(sealed) => sealed.live.get(row.ordinal),
            Self::Fresh(..) => true,
        }
    }

    /// The first rank whose key is not `low`, when all that are come first.
    fn partition(self, low: impl Fn(KeyRef<'a>) -> bool) -> u32 {
        let (mut start, mut end) = (0, self.len());
        while start < end {
            let middle = start + (end - start) / 2;
            match low(self.get(middle).0) {
                true => start = middle + 1,
                false => end = middle,
            }
        }
        start
    }
}

struct Cursor<'a> {
    run: Run<'a>,
    rank: u32,
    end: u32,
}

impl<'a> Cursor<'a> {
    fn new(run: Run<'a>, after: Option<KeyRef<'_>>, bounds: &Bounds) -> Self {
        let passed = |key: KeyRef<'a>| after.is_some_and(|after| key.cmp(&after) != Ordering::Greater);
        let rank = run.partition(|key| passed(key) || bounds.before(key));
        let end = run.partition(|key| !bounds.after(key));
        Self { run, rank, end }
    }

    fn next(&mut self, wanted: impl Fn(RowRef) -> bool) -> Option<(KeyRef<'a>, RowRef)> {
        while self.rank < self.end {
            let (key, row) = self.run.get(self.rank);
            self.rank += 1;
            if self.run.is_live(row) && wanted(row) {
                return Some((key, row));
            }
        }
        None
    }
}
