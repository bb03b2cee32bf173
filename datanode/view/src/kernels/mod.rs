//! The inner loops, chosen once for this processor.
//!
//! Every kernel has a plain twin (`lanes`) that says what it computes.  Integer kernels
//! agree with their twin because integers do; floating-point kernels *are* their twin,
//! compiled for wider registers: they add in a fixed order of lanes and never fuse, so a
//! score is the same bits on every machine.
//!
//! The only module of the crate that may say `unsafe`: to call a function compiled for
//! instructions that `choose` has seen on this processor, to load whole registers from
//! slices whose length was checked, and to ask the kernel for huge pages.

#[cfg(target_arch = "x86_64")]
mod x86;

mod lanes;
mod pages;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

pub(crate) use lanes::{Extent, Quantised};
pub(crate) use pages::on_huge_pages;

/// Rows and columns of one tile of products.
pub(crate) const TILE_ROWS: usize = 6;
pub(crate) const TILE_COLUMNS: usize = 16;

/// Rows whose bits stand together in a block, and bytes of one group of four bits of them:
/// byte j holds the bits of row j below and of row j + 16 above.
pub(crate) const BLOCK_ROWS: usize = 32;
pub(crate) const GROUP_BYTES: usize = 16;

/// Entries of a table of sums are at most this, so that four of them fit a byte.
pub(crate) const TABLE_MAX: f32 = 63.0;

/// Codes per row are padded to a multiple of this, with zeros.
pub(crate) const CODE_BLOCK: usize = 32;

/// Over the rows named, in their order, one result each.
type RowKernel<Q, C, O> = fn(query: &[Q], codes: &[C], rows: &[u32], out: &mut [O]);

pub(crate) type Tile = [[f32; TILE_COLUMNS]; TILE_ROWS];

/// Blocks of bits, and what turns their table sums into scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockScan<'a> {
    /// 16 entries for each group of four bits; a multiple of 4 groups.
    pub(crate) tables: &'a [u8],
    /// Per block, `GROUP_BYTES` for each group.
    pub(crate) bits: &'a [u8],
    /// `BLOCK_ROWS` of each per block.
    pub(crate) add: &'a [f32],
    pub(crate) mul: &'a [f32],
    pub(crate) step: f32,
    pub(crate) shift: f32,
    pub(crate) bar: f32,
}

/// One implementation of every loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    /// `out[i]` = query · row `rows[i]` of `codes`; `query.len()` is the row stride, a
    /// multiple of `CODE_BLOCK`, and no product sum may leave i32.
    pub(crate) dot_rows: RowKernel<i16, i8, i32>,
    /// `out[i]` = bits in which the query and row `rows[i]` differ.
    pub(crate) hamming_rows: RowKernel<u64, u64, u32>,
    pub(crate) dot: fn(&[f32], &[f32]) -> f64,
    pub(crate) square_distance: fn(&[f32], &[f32]) -> f64,
    pub(crate) dot_i8: fn(&[f32], &[i8]) -> f64,
    pub(crate) square_distance_i8: fn(&[f32], &[i8]) -> f64,
    pub(crate) quantise: fn(&[f32], &mut [i8]) -> Quantised,
    /// `out[i]` = query · row i of `codes`, all rows.  Query and stride as for `dot_rows`,
    /// but the query's codes are at most 127.
    pub(crate) dot_all: fn(query: &[u8], codes: &[i8], out: &mut [i32]),
    /// Every sum and difference of a power of two of numbers, in place: the Hadamard
    /// transform, without its scale.
    pub(crate) hadamard: fn(&mut [f32]),
    /// Products of up to `TILE_ROWS` rows of `width` with `TILE_COLUMNS` columns, which
    /// stand interleaved in `panel`.  May fuse: training needs no particular last bit.
    pub(crate) tile: fn(rows: &[f32], width: usize, panel: &[f32], out: &mut Tile),
    /// The rows of each block, as bits, for which
    /// `add + mul · (step · sum of table entries + shift) ≥ bar`.
    pub(crate) scan_blocks: fn(&BlockScan<'_>, out: &mut [u32]),
    /// How long and how large; the length may be the infinite one.
    pub(crate) extent: fn(&[f32]) -> Extent,
    /// The 16 signed sums of each four numbers, quantised: entry = round((sum + Σ|x|) / step).
    pub(crate) fill_tables: fn(query: &[f32], inverse_step: f32, tables: &mut [u8]),
}

/// The first of these bytes are about to be read.
#[inline]
pub(crate) fn prefetch(first: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(first, bytes);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (first, bytes);
}

pub(crate) fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| *available().first().unwrap_or(&lanes::KERNELS))
}

/// Which kernels this process runs: `avx512_vnni`, `avx512`, `avx2` or `plain`.
pub fn kernel_name() -> &'static str {
    kernels().name
}

/// Fastest first; the plain ones are always there and last.
pub(crate) fn available() -> Vec<Kernels> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    found.extend(x86::available());
    found.push(lanes::KERNELS);
    found
}
