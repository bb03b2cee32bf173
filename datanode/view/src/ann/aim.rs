//! One query as one grid sees it: products with every centroid, tables for the codes.

use std::sync::Arc;

use rhumb_core::Metric;

use crate::kernels::{BLOCK_ROWS, BlockScan, GROUP_BYTES, TABLE_MAX, kernels, prefetch};

use super::grid::{Grid, ListModel};
use super::lists::Lists;

/// What a key that is one spread further out weighs, against lists that were gone through.
/// Measured: text embeddings with questions and with held-out texts, clusters with queries
/// inside and outside.  From 3 to 7 it makes little difference.
const GAP: f32 = 5.0;

/// Hits are among the better rows of a list, the more so where rows are spread: by so much.
const LEAN: f32 = 0.2;

/// The first list is not infinitely nearer than the second.
const FIRST: f32 = 0.2;

#[derive(Debug)]
pub(crate) struct Aim {
    grid: Arc<Grid>,
    norm2: f32,
    /// q·c of every list.
    products: Vec<f32>,
    /// Of every list.
    keys: Vec<f32>,
    /// How far rows of a list near the query are spread, as a difference of keys.
    unit: f32,
    tables: Vec<u8>,
    step: f32,
    /// What every sum of table entries is too high by, in units of a product.
    excess: f32,
}

/// Rows of one list whose estimate may reach the bar.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    masks: Vec<u32>,
}

impl Aim {
    /// `None` when the query is too large for the grid's estimates.
    pub(crate) fn new(grid: &Arc<Grid>, query: &[f32]) -> Option<Self> {
        let mut prepared = vec![0.0; grid.width()];
        if !grid.prepare(query, &mut prepared) {
            return None;
        }
        let groups = grid.groups();
        let extent = (kernels().extent)(&prepared);
        let mut largest_group = 0.0;
        for [a, b, c, d] in prepared.as_chunks::<4>().0 {
            let group = (a.abs() + b.abs()) + (c.abs() + d.abs());
            largest_group = if group > largest_group {
                group
            } else {
                largest_group
            };
        }
        // Sums of all groups must fit 16 bits.
        let most = TABLE_MAX.min((f32::from(u16::MAX) / groups as f32).floor());
        let planes = grid.planes() as f32;
        let step = (2.0 * planes * largest_group / most).max(f32::MIN_POSITIVE);
        let mut tables = vec![0; groups * GROUP_BYTES];
        let plane = grid.width() / 4 * GROUP_BYTES;
        for (at, tables) in tables.chunks_exact_mut(plane).enumerate() {
            // The high plane, which comes first, counts twice.
            let weight = if planes == 2.0 && at == 0 { 2.0 } else { 1.0 };
            (kernels().fill_tables)(&prepared, weight / step, tables);
        }
        let products = grid.products(&prepared);
        let (keys, unit) = keys(grid, extent.norm2, &products);
        Some(Self {
            grid: grid.clone(),
            norm2: extent.norm2,
            products,
            keys,
            unit,
            tables,
            step,
            excess: extent.absolute * if planes == 2.0 { 3.0 } else { 1.0 },
        })
    }

    /// Of each list, how good its rows are: smaller is better.
    pub(crate) fn keys(&self) -> &[f32] {
        &self.keys
    }

    /// The key beyond which no list is worth a look when the k-th best score so far is `bar`
    /// and lists were gone through already.
    pub(crate) fn cut(&self, bar: f32, depth: f32, gone_through: f32) -> f32 {
        self.key_of(bar) + self.unit * (depth - rank(gone_through)) / GAP
    }

    /// The depth at which a list is just looked at, if it comes after so many.
    pub(crate) fn needed_depth(&self, list: usize, bar: f32, gone_through: f32) -> f32 {
        rank(gone_through) + GAP * (self.keys[list] - self.key_of(bar)) / self.unit
    }

    /// The key of a list whose rows mostly score `bar`.
    fn key_of(&self, bar: f32) -> f32 {
        let bar = bar * self.grid.score_scale();
        match self.grid.ty().metric {
            Metric::Dot | Metric::L2 => -bar,
            Metric::Cosine | Metric::Hamming => 2.0 - 2.0 * bar,
        }
    }

    /// What turns estimates of a list into scores: its base and how uncertain it is.
    fn terms(&self, list: usize) -> (f32, f32) {
        let product = self.products[list];
        let distance2 = (self.norm2 + self.grid.model()[list].norm2 - 2.0 * product).max(0.0);
        let base = match self.grid.ty().metric {
            Metric::L2 => -distance2,
            Metric::Cosine | Metric::Dot | Metric::Hamming => product,
        };
        (base, distance2.sqrt())
    }

    /// Estimates the rows of a list; `passing` gets those that may score `bar` or more.
    /// Returns how many were looked at.
    pub(crate) fn scan(
        &self,
        lists: &Lists,
        list: usize,
        bar: f32,
        margin: f32,
        passing: &mut Passing,
    ) -> u32 {
        let (start, end) = lists.range(list);
        passing.masks.clear();
        if start == end {
            return 0;
        }
        let (first, last) = (start / BLOCK_ROWS, end.div_ceil(BLOCK_ROWS));
        passing.masks.resize(last - first, 0);
        let (base, spread) = self.terms(list);
        let scan = BlockScan {
            tables: &self.tables,
            bits: lists.blocks(first, last),
            add: &lists.add[first * BLOCK_ROWS..last * BLOCK_ROWS],
            mul: &lists.mul[first * BLOCK_ROWS..last * BLOCK_ROWS],
            step: self.step,
            shift: margin * spread - self.excess,
            bar: bar * self.grid.score_scale() - base,
        };
        (kernels().scan_blocks)(&scan, &mut passing.masks);
        // Neighbours of the list share its first and last block.
        passing.masks[0] &= u32::MAX << (start % BLOCK_ROWS);
        if let (Some(mask), rest @ 1..) = (passing.masks.last_mut(), end % BLOCK_ROWS) {
            *mask &= (1 << rest) - 1;
        }
        (end - start) as u32
    }

    /// How many margins a row's estimate is below the score `bar`: what `scan` must be
    /// given to let it pass.
    pub(crate) fn needed_margin(&self, lists: &Lists, list: usize, position: usize, bar: f32) -> f32 {
        let (base, spread) = self.terms(list);
        let mut code = vec![0; self.grid.groups() / 2];
        lists.code(position, &mut code);
        let nibbles = code.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        let tables = self.tables.chunks_exact(GROUP_BYTES);
        let sum: u32 = nibbles
            .zip(tables)
            .map(|(nibble, table)| u32::from(table[usize::from(nibble)]))
            .sum();
        let (add, mul) = (lists.add[position], lists.mul[position]);
        let estimate = base + add + mul * (self.step * sum as f32 - self.excess);
        let missing = bar * self.grid.score_scale() - estimate;
        let unit = mul * spread;
        match (missing <= 0.0, unit > 0.0) {
            (_, true) => missing / unit,
            (true, false) => f32::NEG_INFINITY,
            (false, false) => f32::INFINITY,
        }
    }
}

fn rank(gone_through: f32) -> f32 {
    (gone_through + FIRST).ln()
}

/// Of each list the mean score of its rows, turned so that smaller is better; and the spread.
fn keys(grid: &Grid, norm2: f32, products: &[f32]) -> (Vec<f32>, f32) {
    let mean_radius = grid.mean_residual().sqrt();
    let models = grid.model().iter().zip(products);
    if grid.ty().metric == Metric::Dot {
        let norm = norm2.sqrt();
        let key = |(model, product): (&ListModel, &f32)| -(product + LEAN * norm * model.radius);
        return (
            models.map(key).collect(),
            (norm * mean_radius).max(f32::MIN_POSITIVE),
        );
    }
    let mut nearest = f32::INFINITY;
    let keys = models.map(|(model, product)| {
        let distance2 = (norm2 + model.norm2 - 2.0 * product).max(0.0);
        nearest = if distance2 < nearest { distance2 } else { nearest };
        distance2 + model.radius * (model.radius - 2.0 * LEAN * distance2.sqrt())
    });
    let keys = keys.collect();
    // On top of a centroid its rows are as far away as they are from each other.
    let distance = nearest.sqrt().max(mean_radius);
    (keys, (2.0 * distance * mean_radius).max(f32::MIN_POSITIVE))
}

impl Passing {
    /// Ordinals of the rows that passed the last scan, which was of this list.
    #[inline]
    pub(crate) fn each(&self, lists: &Lists, list: usize, mut row: impl FnMut(u32)) {
        let first = lists.range(list).0 / BLOCK_ROWS * BLOCK_ROWS;
        for (block, &mask) in self.masks.iter().enumerate() {
            let mut left = mask;
            while left != 0 {
                let at = first + block * BLOCK_ROWS + left.trailing_zeros() as usize;
                left &= left - 1;
                row(lists.ordinals[at]);
            }
        }
    }
}

impl Lists {
    /// Positions of a list's rows.
    pub(crate) fn range(&self, list: usize) -> (usize, usize) {
        (self.starts[list] as usize, self.starts[list + 1] as usize)
    }

    /// A list lies in one piece, but far from the others.
    pub(crate) fn prefetch(&self, list: usize) {
        let (start, end) = self.range(list);
        let blocks = self.blocks(start / BLOCK_ROWS, end.div_ceil(BLOCK_ROWS));
        prefetch(blocks.as_ptr(), blocks.len());
        prefetch(self.add[start..end].as_ptr().cast(), 4 * (end - start));
        prefetch(self.mul[start..end].as_ptr().cast(), 4 * (end - start));
    }

    /// Ordinals of a list's rows.
    pub(crate) fn rows_of(&self, list: usize) -> &[u32] {
        let (start, end) = self.range(list);
        &self.ordinals[start..end]
    }

    /// Ordinals of all rows, of those in no list too.
    pub(crate) fn all(&self) -> impl Iterator<Item = u32> {
        self.ordinals.iter().chain(&self.strays).copied()
    }

    pub(crate) fn strays(&self) -> &[u32] {
        &self.strays
    }

    fn blocks(&self, first: usize, last: usize) -> &[u8] {
        &self.bits[first * self.block_bytes()..last * self.block_bytes()]
    }

    /// The list and position of each row, for calibration.
    pub(crate) fn places(&self) -> Vec<(u32, u32)> {
        let mut places = vec![(u32::MAX, 0); self.rows as usize];
        for list in 0..self.grid.lists() {
            let (start, end) = self.range(list);
            for position in start..end {
                places[self.ordinals[position] as usize] = (list as u32, position as u32);
            }
        }
        places
    }
}
