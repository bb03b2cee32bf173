//! Rows that no base fragment holds yet: the active group takes writes, frozen groups
//! wait to become segments.
//!
//! A deletion is a row without a document: it keeps the id's newest version known (P3)
//! until its group has reached the base.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use rhumb_core::{DocId, Document, FieldName, Seq, Value, VectorType};
use roaring::RoaringBitmap;

use crate::bits::LiveBits;
use crate::codes::{Codes, CodesBuilder};
use crate::error::ViewError;
use crate::fresh_masks::FreshMasks;
use crate::keys::{KeyRef, sort_by_key};
use crate::rows::{RowRef, SegmentId};
use crate::score::Scorer;
use crate::sparse::{SparseIndex, SparseIndexBuilder};
use crate::stretches::{Stretched, Stretches};
use crate::text::FreshTexts;

/// One write of one document.
#[derive(Clone, Debug)]
pub struct FreshRow {
    pub id: DocId,
    pub seq: Seq,
    /// `None` for a deletion.
    pub document: Option<Arc<Document>>,
}

impl FreshRow {
    /// `None` for a deletion, and without a vector of the query's shape.
    pub(crate) fn score(&self, scorer: &Scorer<'_>, field: &FieldName) -> Option<f32> {
        match self.document.as_ref()?.get(field.as_str())? {
            Value::Vector(vector) => scorer.score(vector),
            _ => None,
        }
    }

    fn heap_size(&self) -> usize {
        let id = match &self.id {
            DocId::Num(_) => 0,
            DocId::Str(s) => s.len() + 16,
        };
        size_of::<OnceLock<Self>>() + id + self.document.as_ref().map_or(0, |doc| 64 + doc.heap_size())
    }
}

/// The first chunk is small: most open collections have few fresh rows.  Both are whole
/// words of a live set.
const FIRST_CHUNK: usize = 64;
const CHUNK: usize = 1024;

#[derive(Debug)]
pub(crate) struct Chunk {
    slots: Box<[OnceLock<FreshRow>]>,
    /// Made by the first search after the chunk was full.
    codes: RwLock<BTreeMap<FieldName, Arc<Codes>>>,
    /// Likewise.
    sparse: RwLock<BTreeMap<FieldName, Arc<SparseIndex>>>,
}

impl Chunk {
    fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| OnceLock::new()).collect(),
            codes: RwLock::default(),
            sparse: RwLock::default(),
        }
    }

    /// Codes of a full chunk, so that a search need not follow a pointer per fresh row.
    /// Vectors of another shape count as missing: they are never hits.
    fn codes(&self, field: &FieldName, ty: &VectorType) -> Result<Arc<Codes>, ViewError> {
        if let Some(codes) = self.codes.read().get(field).filter(|codes| codes.is_of(ty)) {
            return Ok(codes.clone());
        }
        let mut builder = CodesBuilder::new(ty, self.slots.len());
        for slot in &self.slots {
            let document = slot.get().and_then(|row| row.document.as_ref());
            let pushed = match document.and_then(|document| document.get(field.as_str())) {
                Some(Value::Vector(vector)) => builder.push(Some(vector)),
                _ => builder.push_missing(),
            };
            pushed.or_else(|_| builder.push_missing())?;
        }
        let codes = Arc::new(builder.finish());
        self.codes.write().insert(field.clone(), codes.clone());
        Ok(codes)
    }
}

impl Chunk {
    /// The inverted lists of a full chunk; `None` if it cannot have any.
    fn sparse(&self, field: &FieldName) -> Option<Arc<SparseIndex>> {
        if let Some(index) = self.sparse.read().get(field) {
            return Some(index.clone());
        }
        let mut builder = SparseIndexBuilder::new();
        for slot in &self.slots {
            let document = slot.get().and_then(|row| row.document.as_ref());
            let vector = match document.and_then(|document| document.get(field.as_str())) {
                Some(Value::Sparse(vector)) => Some(vector),
                _ => None,
            };
            builder.push(vector).ok()?;
        }
        let index = Arc::new(builder.finish());
        self.sparse.write().insert(field.clone(), index.clone());
        Some(index)
    }
}

/// An append-only list.  A clone is a snapshot: it shares the chunks and keeps its length.
#[derive(Clone, Debug)]
pub(crate) struct FreshRows {
    chunks: Arc<Vec<Arc<Chunk>>>,
    len: u32,
    pub(crate) lists: Arc<Stretches>,
    masks: Arc<FreshMasks>,
    texts: Arc<FreshTexts>,
}

impl FreshRows {
    fn new() -> Self {
        Self {
            chunks: Arc::new(Vec::new()),
            len: 0,
            lists: Arc::default(),
            masks: Arc::default(),
            texts: Arc::default(),
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn masks(&self) -> &FreshMasks {
        &self.masks
    }

    pub(crate) fn texts(&self) -> &FreshTexts {
        &self.texts
    }

    pub(crate) fn get(&self, at: u32) -> Option<&FreshRow> {
        if at >= self.len {
            return None;
        }
        let (chunk, slot) = place(at as usize);
        self.chunks[chunk].slots[slot].get()
    }

    /// For ordinals that came from this list.
    pub(crate) fn row(&self, at: u32) -> &FreshRow {
        self.get(at)
            .expect("fresh ordinals are below the length of every list that shares them")
    }

    /// The list in parts: where each begins and ends, and the codes of those that are full.
    /// Parts that end at `from` or before are left out.
    pub(crate) fn parts(
        &self,
        field: &FieldName,
        ty: &VectorType,
        from: u32,
    ) -> impl Iterator<Item = Result<Part, ViewError>> {
        let mut first = 0;
        let placed = self.chunks.iter().map(move |chunk| {
            let start = first;
            first += chunk.slots.len() as u32;
            (chunk, start, first)
        });
        let wanted = placed.skip_while(move |(_, _, end)| *end <= from);
        wanted.map_while(move |(chunk, start, end)| {
            let part = |codes| Part {
                rows: start..end.min(self.len),
                codes,
            };
            let full = end <= self.len;
            (start < self.len).then(|| match full {
                true => chunk.codes(field, ty).map(|codes| part(Some(codes))),
                false => Ok(part(None)),
            })
        })
    }

    /// Stretches of the list that have lists, from its first row on.
    pub(crate) fn stretches(&self, field: &FieldName) -> Stretched {
        self.lists.get(field.as_str())
    }

    pub(crate) fn forget_lists(&self, field: &FieldName) {
        self.lists.clear(field.as_str());
    }

    /// As `parts`, with inverted lists instead of codes.
    pub(crate) fn sparse_parts(
        &self,
        field: &FieldName,
    ) -> impl Iterator<Item = (Range<u32>, Option<Arc<SparseIndex>>)> {
        let mut first = 0;
        self.chunks.iter().map_while(move |chunk| {
            let (start, end) = (first, first + chunk.slots.len() as u32);
            first = end;
            (start < self.len).then(|| match end <= self.len {
                true => (start..end, chunk.sparse(field)),
                false => (start..self.len, None),
            })
        })
    }

    /// Of everything that was made of the rows.
    pub(crate) fn codes_size(&self) -> usize {
        let of = |chunk: &Arc<Chunk>| {
            chunk
                .codes
                .read()
                .values()
                .map(|codes| codes.heap_size())
                .sum::<usize>()
                + chunk
                    .sparse
                    .read()
                    .values()
                    .map(|index| index.heap_size())
                    .sum::<usize>()
        };
        self.chunks.iter().map(of).sum::<usize>()
            + self.lists.heap_size()
            + self.masks.heap_size()
            + self.texts.heap_size()
    }

    /// Only the list that every clone was taken from is ever pushed to.
    fn push(&mut self, row: FreshRow) {
        let (chunk, slot) = place(self.len as usize);
        if chunk == self.chunks.len() {
            let slots = if chunk == 0 { FIRST_CHUNK } else { CHUNK };
            Arc::make_mut(&mut self.chunks).push(Arc::new(Chunk::new(slots)));
        }
        self.chunks[chunk].slots[slot]
            .set(row)
            .expect("a slot past the length was never written");
        self.len += 1;
    }
}

/// Some rows of a list; `codes` has one row for each of them.
pub(crate) struct Part {
    pub(crate) rows: Range<u32>,
    pub(crate) codes: Option<Arc<Codes>>,
}

fn place(at: usize) -> (usize, usize) {
    match at.checked_sub(FIRST_CHUNK) {
        None => (0, at),
        Some(rest) => (1 + rest / CHUNK, rest % CHUNK),
    }
}

/// Older rows that a group's writes killed, and that the base still has to delete.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    by_segment: BTreeMap<SegmentId, Killed>,
    /// A merge has read them and is on its way to the base.
    taken: bool,
}

/// Rows of one base fragment that a frozen group has superseded or deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Killed {
    pub segment: SegmentId,
    pub fragment: u64,
    pub ordinals: RoaringBitmap,
}

impl Kills {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_segment.is_empty()
    }

    /// `fragment` is of no meaning while the row itself is fresh.
    pub(crate) fn record(&mut self, row: RowRef, fragment: u64) {
        let killed = self.by_segment.entry(row.segment).or_insert_with(|| Killed {
            segment: row.segment,
            fragment,
            ordinals: RoaringBitmap::new(),
        });
        killed.ordinals.insert(row.ordinal);
    }

    pub(crate) fn contains(&self, row: RowRef) -> bool {
        self.by_segment
            .get(&row.segment)
            .is_some_and(|killed| killed.ordinals.contains(row.ordinal))
    }

    /// The rows of `from` have new names, or are gone.  Returns those that a merge under
    /// way believes to be deleted under their old names.
    pub(crate) fn rename(
        &mut self,
        from: SegmentId,
        fragment: u64,
        to: impl Fn(u32) -> Option<RowRef>,
    ) -> Vec<RowRef> {
        let Some(killed) = self.by_segment.remove(&from) else {
            return Vec::new();
        };
        let renamed: Vec<RowRef> = killed.ordinals.iter().filter_map(to).collect();
        renamed.iter().for_each(|&row| self.record(row, fragment));
        if self.taken { renamed } else { Vec::new() }
    }
}

/// The group that takes writes.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: SegmentId,
    pub(crate) rows: FreshRows,
    pub(crate) live: LiveBits,
    pub(crate) kills: Kills,
    pub(crate) bytes: usize,
}

impl Active {
    pub(crate) fn new(id: SegmentId) -> Self {
        Self {
            id,
            rows: FreshRows::new(),
            live: LiveBits::empty(),
            kills: Kills::default(),
            bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 0 && self.kills.is_empty()
    }

    pub(crate) fn push(&mut self, row: FreshRow) -> RowRef {
        let at = RowRef::new(self.id, self.rows.len());
        self.bytes += row.heap_size();
        self.live.push(row.document.is_some());
        self.rows.push(row);
        at
    }
}

/// Fresh rows on their way into the base.  They stay searchable in the view, where later
/// writes may kill some of them; what was alive at the freeze is what the base will get.
#[derive(Debug)]
pub struct Frozen {
    pub(crate) id: SegmentId,
    pub(crate) rows: FreshRows,
    live_at_freeze: LiveBits,
    kills: Mutex<Kills>,
    bytes: usize,
    places: OnceLock<Places>,
}

/// Where rows go: the new segment is in id order, which spares it a sorted copy and keeps
/// neighbours of a scan together in the base.
#[derive(Debug)]
struct Places {
    by_new: Vec<u32>,
    by_old: Vec<u32>,
}

/// In a table of ordinals: the row goes nowhere.
pub(crate) const NOWHERE: u32 = u32::MAX;

impl Frozen {
    pub(crate) fn new(active: Active) -> Self {
        Self {
            id: active.id,
            rows: active.rows,
            live_at_freeze: active.live,
            kills: Mutex::new(active.kills),
            bytes: active.bytes,
            places: OnceLock::new(),
        }
    }

    /// The newest write of each id, deletions left out, in the order in which the new
    /// segment must have them.  The first call sorts by id.
    pub fn live_rows(&self) -> impl ExactSizeIterator<Item = &FreshRow> {
        self.places().by_new.iter().map(|&old| self.rows.row(old))
    }

    /// What the base must delete in the commit that adds this group.  An error while an
    /// older frozen group is not complete: its rows have no place in the base yet.
    pub fn killed(&self) -> Result<Vec<Killed>, ViewError> {
        let mut kills = self.kills.lock();
        if let Some(fresh) = kills.by_segment.keys().find(|segment| segment.is_fresh()) {
            return Err(ViewError::NotOldestFrozen(*fresh));
        }
        kills.taken = true;
        Ok(kills.by_segment.values().cloned().collect())
    }

    pub fn heap_size(&self) -> usize {
        self.bytes + self.rows.codes_size()
    }

    pub(crate) fn live_at_freeze(&self) -> &LiveBits {
        &self.live_at_freeze
    }

    pub(crate) fn kills(&self) -> parking_lot::MutexGuard<'_, Kills> {
        self.kills.lock()
    }

    /// Frozen ordinal to ordinal in the new segment, or `NOWHERE`.
    pub(crate) fn new_places(&self) -> &[u32] {
        &self.places().by_old
    }

    fn places(&self) -> &Places {
        self.places.get_or_init(|| {
            let key = |at: u32| (KeyRef::of(&self.rows.row(at).id), at);
            let by_new = sort_by_key(self.live_at_freeze.iter().map(key).collect());
            let mut by_old = vec![NOWHERE; self.rows.len() as usize];
            for (new, &old) in by_new.iter().enumerate() {
                by_old[old as usize] = new as u32;
            }
            Places { by_new, by_old }
        })
    }
}

/// A frozen group as the view holds it: `live` goes on changing.
#[derive(Debug)]
pub(crate) struct FrozenGroup {
    pub(crate) frozen: Arc<Frozen>,
    pub(crate) live: LiveBits,
}

pub(crate) type FrozenGroups = VecDeque<FrozenGroup>;
