//! Lists: rows sorted by the list of their grid, with codes that a search estimates
//! scores from, 32 rows at a time.
//!
//! They belong to one segment, or to one stretch of a fresh group, and only say where to
//! look: who is alive, and every score, is decided elsewhere.

use std::sync::Arc;

use crate::error::ViewError;
use crate::kernels::{BLOCK_ROWS, GROUP_BYTES, on_huge_pages};

use super::bytes::{Reader, Writer};
use super::grid::Grid;

#[derive(Debug)]
pub struct Lists {
    pub(super) grid: Arc<Grid>,
    /// Ordinals are below this.
    pub(super) rows: u32,
    /// Per list where it begins, and the end of the last.
    pub(super) starts: Vec<u32>,
    /// By position, as `add`, `mul` and the bits.
    pub(super) ordinals: Vec<u32>,
    /// Whole blocks.
    pub(super) add: Vec<f32>,
    pub(super) mul: Vec<f32>,
    pub(super) bits: Vec<u8>,
    /// Vectors too large for the grid, to be looked at every time.
    pub(super) strays: Vec<u32>,
    pub(super) mean_residual: f32,
}

const MAGIC: &[u8; 4] = b"RhLj";

impl Lists {
    pub fn grid(&self) -> &Arc<Grid> {
        &self.grid
    }

    /// Ordinals are below this: the rows of the segment, those without a vector included.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Rows that stand in a list.
    pub fn listed(&self) -> u32 {
        self.ordinals.len() as u32
    }

    /// Mean squared residual; far above the grid's it says that the grid is out of date.
    pub fn mean_residual(&self) -> f32 {
        self.mean_residual
    }

    pub fn heap_size(&self) -> usize {
        let numbers = self.starts.capacity()
            + self.ordinals.capacity()
            + self.strays.capacity()
            + self.add.capacity()
            + self.mul.capacity();
        numbers * size_of::<u32>() + self.bits.capacity()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.u128(self.grid.id());
        writer.u32(self.rows);
        writer.f32(self.mean_residual);
        writer.u32s(&self.starts);
        writer.u32s(&self.ordinals);
        writer.f32s(&self.add);
        writer.f32s(&self.mul);
        writer.raw(&self.bits);
        writer.u32s(&self.strays);
        writer.finish()
    }

    /// `OtherGrid` when the lists were made on another grid, `Damaged` unless the bytes are
    /// whole lists of this version.
    pub fn from_bytes(bytes: &[u8], grid: Arc<Grid>) -> Result<Self, ViewError> {
        let mut reader = Reader::new("lists", MAGIC, bytes)?;
        if reader.u128()? != grid.id() {
            return Err(ViewError::OtherGrid);
        }
        let lists = Self {
            rows: reader.u32()?,
            mean_residual: reader.f32()?,
            starts: reader.u32s()?,
            ordinals: reader.u32s()?,
            add: reader.f32s()?,
            mul: reader.f32s()?,
            bits: reader.raw()?,
            strays: reader.u32s()?,
            grid,
        };
        reader.check(lists.is_consistent())?;
        reader.finish()?;
        Ok(lists.settled())
    }

    /// Finished: from now on they are only read.
    pub(super) fn settled(self) -> Self {
        on_huge_pages(&self.bits);
        self
    }

    /// What every reader of the arrays relies on.
    fn is_consistent(&self) -> bool {
        let (lists, count) = (self.grid.lists(), self.ordinals.len());
        let padded = count.next_multiple_of(BLOCK_ROWS);
        let starts = self.starts.first() == Some(&0)
            && self.starts.len() == lists + 1
            && self.starts.is_sorted()
            && self.starts.last().is_some_and(|end| *end as usize == count);
        let known = |rows: &[u32]| rows.iter().all(|row| *row < self.rows);
        starts
            && known(&self.ordinals)
            && known(&self.strays)
            && count + self.strays.len() <= self.rows as usize
            && self.add.len() == padded
            && self.mul.len() == padded
            && self.bits.len() == padded / BLOCK_ROWS * self.block_bytes()
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.grid.groups() * GROUP_BYTES
    }

    /// Codes as the builder has them: half a byte per group.
    pub(super) fn code(&self, position: usize, out: &mut [u8]) {
        let block = &self.bits[position / BLOCK_ROWS * self.block_bytes()..][..self.block_bytes()];
        let row = position % BLOCK_ROWS;
        let (at, shift) = (row % GROUP_BYTES, row / GROUP_BYTES * 4);
        let (pairs, _) = block.as_chunks::<{ 2 * GROUP_BYTES }>();
        for (out, pair) in out.iter_mut().zip(pairs) {
            *out = (pair[at] >> shift & 15) | (pair[at + GROUP_BYTES] >> shift & 15) << 4;
        }
    }

    /// Empty lists of `counts` rows each, to be filled by `place`.
    pub(super) fn with_room(grid: Arc<Grid>, rows: u32, counts: &[u32]) -> Self {
        let mut starts = Vec::with_capacity(counts.len() + 1);
        let mut total = 0;
        starts.push(0);
        for count in counts {
            total += count;
            starts.push(total);
        }
        let padded = (total as usize).next_multiple_of(BLOCK_ROWS);
        let block_bytes = grid.groups() * GROUP_BYTES;
        Self {
            rows,
            starts,
            ordinals: vec![0; total as usize],
            add: vec![0.0; padded],
            mul: vec![0.0; padded],
            bits: vec![0; padded / BLOCK_ROWS * block_bytes],
            strays: Vec::new(),
            mean_residual: 0.0,
            grid,
        }
    }

    /// Each position once.
    pub(super) fn place(&mut self, position: usize, ordinal: u32, add: f32, mul: f32, code: &[u8]) {
        self.ordinals[position] = ordinal;
        self.add[position] = add;
        self.mul[position] = mul;
        let block_bytes = self.block_bytes();
        let block = &mut self.bits[position / BLOCK_ROWS * block_bytes..][..block_bytes];
        let row = position % BLOCK_ROWS;
        let (at, shift) = (row % GROUP_BYTES, row / GROUP_BYTES * 4);
        let (pairs, _) = block.as_chunks_mut::<{ 2 * GROUP_BYTES }>();
        for (code, pair) in code.iter().zip(pairs) {
            pair[at] |= (code & 15) << shift;
            pair[at + GROUP_BYTES] |= (code >> 4) << shift;
        }
    }
}
