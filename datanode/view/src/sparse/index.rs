//! The inverted lists of one field: of a segment, or of a full chunk of fresh rows.

use std::collections::HashMap;
use std::ops::Range;

use rhumb_core::SparseVector;

use crate::error::ViewError;

#[derive(Debug)]
pub struct SparseIndex {
    rows: u32,
    /// Ascending.
    indices: Vec<u32>,
    /// Where the list of each index ends.
    ends: Vec<usize>,
    /// Of each list: its least and its greatest value.
    ranges: Vec<(f32, f32)>,
    /// List after list, ascending within one.
    ordinals: Vec<u32>,
    values: Vec<f32>,
}

/// The rows that have one index, and its values.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'a> {
    pub(super) ordinals: &'a [u32],
    pub(super) values: &'a [f32],
    /// The least and the greatest value.
    pub(super) range: (f32, f32),
}

impl SparseIndex {
    pub fn rows(&self) -> u32 {
        self.rows
    }

    pub fn heap_size(&self) -> usize {
        let indices = self.indices.capacity() * size_of::<u32>();
        let ends = self.ends.capacity() * size_of::<usize>();
        let ranges = self.ranges.capacity() * size_of::<(f32, f32)>();
        let ordinals = self.ordinals.capacity() * size_of::<u32>();
        indices + ends + ranges + ordinals + self.values.capacity() * size_of::<f32>()
    }

    pub(super) fn list(&self, index: u32) -> Option<List<'_>> {
        let at = self.indices.binary_search(&index).ok()?;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        let span: Range<usize> = start..self.ends[at];
        Some(List {
            ordinals: &self.ordinals[span.clone()],
            values: &self.values[span],
            range: self.ranges[at],
        })
    }
}

#[derive(Debug, Default)]
pub struct SparseIndexBuilder {
    rows: u32,
    lists: HashMap<u32, Vec<(u32, f32)>>,
    elements: usize,
}

impl SparseIndexBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next row's vector, `None` when it has none.
    pub fn push(&mut self, vector: Option<&SparseVector>) -> Result<(), ViewError> {
        let ordinal = self.rows;
        self.rows = ordinal.checked_add(1).ok_or(ViewError::TooManyRows)?;
        for (index, value) in vector.map_or(&[][..], SparseVector::elements) {
            self.lists.entry(*index).or_default().push((ordinal, *value));
            self.elements += 1;
        }
        Ok(())
    }

    pub fn push_missing(&mut self) -> Result<(), ViewError> {
        self.push(None)
    }

    pub fn finish(self) -> SparseIndex {
        let mut lists: Vec<(u32, Vec<(u32, f32)>)> = self.lists.into_iter().collect();
        lists.sort_unstable_by_key(|(index, _)| *index);
        let mut index = SparseIndex {
            rows: self.rows,
            indices: Vec::with_capacity(lists.len()),
            ends: Vec::with_capacity(lists.len()),
            ranges: Vec::with_capacity(lists.len()),
            ordinals: Vec::with_capacity(self.elements),
            values: Vec::with_capacity(self.elements),
        };
        for (at, list) in lists {
            index.indices.push(at);
            let range = (f32::INFINITY, f32::NEG_INFINITY);
            let widened =
                |(low, high): (f32, f32), (_, value): &(u32, f32)| (low.min(*value), high.max(*value));
            index.ranges.push(list.iter().fold(range, widened));
            index.ordinals.extend(list.iter().map(|(ordinal, _)| *ordinal));
            index.values.extend(list.iter().map(|(_, value)| *value));
            index.ends.push(index.ordinals.len());
        }
        index
    }
}
