//! Full text over snapshots: one question to splits and fresh rows, one statistic over all
//! of them, several partitions included.

use std::cmp::Ordering;

use parking_lot::Mutex;
use rhumb_core::{Document, FieldName, Value};
use rhumb_text::{
    Allowed, FreshText, Index, Part, SearchSpec, Split, SplitBuilder, TextFields, TextQuery, TextRow,
};

use crate::bits::{LiveBits, mask_word};
use crate::error::ViewError;
use crate::filter::RowMask;
use crate::fresh::{FreshRows, Frozen};
use crate::rows::{RowRef, SegmentId};
use crate::search::Hit;
use crate::snapshot::Snapshot;
use crate::view::View;

/// A snapshot to search, and the rows of it that may be hits.
#[derive(Clone, Copy)]
pub struct TextPart<'a> {
    pub snapshot: &'a Snapshot,
    /// Of the same snapshot.
    pub mask: Option<&'a RowMask>,
}

pub struct TextSpec<'a> {
    pub query: &'a TextQuery,
    pub fields: &'a TextFields,
    pub k: usize,
}

/// The text index of one group of fresh rows, shared by all snapshots of it.
#[derive(Debug, Default)]
pub(crate) struct FreshTexts {
    text: FreshText,
    /// Held by whoever adds rows: each goes in once, in order.
    adding: Mutex<()>,
}

impl FreshTexts {
    /// The index with all rows of `rows` in it, and perhaps later ones.
    fn reaching(&self, rows: &FreshRows, fields: &TextFields) -> Result<&FreshText, ViewError> {
        if self.text.rows() < rows.len() {
            let _one = self.adding.lock();
            for at in self.text.rows()..rows.len() {
                let document = rows.row(at).document.as_deref();
                self.text.push(fields, |field| text_of(document, field))?;
            }
        }
        Ok(&self.text)
    }

    pub(crate) fn heap_size(&self) -> usize {
        match self.text.rows() {
            0 => 0,
            _ => self.text.heap_size(),
        }
    }
}

/// The best `k` rows of all snapshots, best first, with the part each is of; ties go to
/// the smaller id.  `NoTextIndex` when a segment has none, see `missing_splits`.
pub fn search_text(parts: &[TextPart<'_>], spec: &TextSpec<'_>) -> Result<Vec<(usize, Hit)>, ViewError> {
    let mut places = Vec::new();
    let mut splits = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        for sealed in part.snapshot.populated() {
            let split = sealed.segment.split();
            splits.push(split.ok_or_else(|| ViewError::NoTextIndex(sealed.segment.fragment()))?);
            let allowed = allowed(&sealed.live, sealed.segment.len(), part.mask, sealed.id);
            places.push((at, sealed.id, allowed, sealed.segment.is_in_id_order()));
        }
    }
    let fresh = || parts.iter().flat_map(|part| &part.snapshot.fresh);
    let lives: Vec<_> = fresh()
        .map(|group| allowed(&group.live, group.rows.len(), None, group.id))
        .collect();
    let mut lives = lives.iter().map(Option::as_deref);
    let mut indexes: Vec<Index<'_>> = splits.iter().map(|split| Index::Sealed(split)).collect();
    for (at, part) in parts.iter().enumerate() {
        for group in &part.snapshot.fresh {
            let rows = group.rows.len();
            let text = group.rows.texts().reaching(&group.rows, spec.fields)?;
            let live = lives.next().flatten();
            indexes.push(Index::Fresh { text, rows, live });
            let allowed = allowed(&group.live, rows, part.mask, group.id);
            places.push((at, group.id, allowed, false));
        }
    }
    let searched: Vec<Part<'_>> = indexes
        .into_iter()
        .zip(&places)
        .map(|(index, (_, _, allowed, ascending))| Part {
            index,
            allowed: allowed
                .as_ref()
                .map_or(Allowed::All, |words| Allowed::Words(words)),
            ascending: *ascending,
        })
        .collect();
    let row_of = |row: TextRow| {
        let (at, id, ..) = &places[row.part as usize];
        (*at, RowRef::new(*id, row.ordinal))
    };
    let tie = |a: TextRow, b: TextRow| -> Ordering {
        let ((a_part, a), (b_part, b)) = (row_of(a), row_of(b));
        parts[a_part].snapshot.key(a).cmp(&parts[b_part].snapshot.key(b))
    };
    let found = rhumb_text::search(
        &searched,
        &SearchSpec {
            query: spec.query,
            fields: spec.fields,
            k: spec.k,
            tie: &tie,
        },
    )?;
    let hit = |hit: rhumb_text::TextHit| {
        let (at, row) = row_of(hit.row);
        let id = parts[at].snapshot.row_id(row)?;
        let score = hit.score;
        Some((at, Hit { id, row, score }))
    };
    Ok(found.into_iter().filter_map(hit).collect())
}

/// Live rows of the mask, 64 to a word; `None` for all.
fn allowed(live: &LiveBits, rows: u32, mask: Option<&RowMask>, id: SegmentId) -> Option<Vec<u64>> {
    if mask.is_none() && live.count() == u64::from(rows) {
        return None;
    }
    let mask = mask.map(|mask| mask.part(id));
    let word = |at| live.word(at) & mask_word(mask, at);
    Some((0..live.words()).map(word).collect())
}

impl View {
    /// Adds all fresh rows to their text indexes, so that no search has to.
    pub fn index_texts(&self, fields: &TextFields) -> Result<(), ViewError> {
        for group in &self.snapshot().fresh {
            group.rows.texts().reaching(&group.rows, fields)?;
        }
        Ok(())
    }
}

impl Frozen {
    /// The text index of the new segment.
    pub fn split(&self, fields: &TextFields) -> Result<Split, ViewError> {
        let mut split = SplitBuilder::new(fields)?;
        for row in self.live_rows() {
            split.push(|field| text_of(row.document.as_deref(), field))?;
        }
        Ok(Split::open(split.finish()?)?)
    }
}

fn text_of<'d>(document: Option<&'d Document>, field: &FieldName) -> Option<&'d str> {
    match document?.get(field.as_str())? {
        Value::Str(text) => Some(text),
        _ => None,
    }
}
