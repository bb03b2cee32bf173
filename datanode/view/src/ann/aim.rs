//! One query as one grid sees it: products with every centroid, tables for the codes.

use std::sync::Arc;

use rhumb_core::Metric;

use crate::kernels::{BLOCK_ROWS, BlockScan, GROUP_BYTES, TABLE_MAX, kernels};

use super::calibrate::Limits;
use super::grid::Grid;
use super::lists::Lists;

#[derive(Debug)]
pub(crate) struct Aim {
    grid: Arc<Grid>,
    norm2: f32,
    /// q·c of every list.
    products: Vec<f32>,
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
        Some(Self {
            grid: grid.clone(),
            norm2: extent.norm2,
            products: grid.products(&prepared),
            tables,
            step,
            excess: extent.absolute * if planes == 2.0 { 3.0 } else { 1.0 },
        })
    }

    /// Of each list, how good its rows could be: smaller is better.  `reach` is of dot
    /// lists, the longest residual in any part.
    pub(crate) fn keys(&self, limits: &Limits, reach: &[f32]) -> Vec<f32> {
        let norm = self.norm2.sqrt();
        let models = self.grid.model().iter().zip(&self.products);
        match self.grid.ty().metric {
            Metric::Dot => {
                let key = |(product, reach): (&f32, &f32)| -(product + norm * reach * limits.reach);
                self.products.iter().zip(reach).map(key).collect()
            }
            Metric::Cosine | Metric::L2 | Metric::Hamming => models
                .map(|(model, product)| {
                    let distance2 = (self.norm2 + model.norm2 - 2.0 * product).max(0.0);
                    let radius = model.radius;
                    distance2 + radius * radius - 2.0 * distance2.sqrt() * radius * limits.reach
                })
                .collect(),
        }
    }

    /// The key from which on no list can hold a row better than the score `bar`.
    pub(crate) fn cut(&self, bar: f32) -> f32 {
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

    /// The reach at which a list's key is just at the cut of `bar`.
    pub(crate) fn needed_reach(&self, list: usize, reach: &[f32], bar: f32) -> f32 {
        let at = |limit: f32| self.keys_of(list, reach, limit);
        let (none, one) = (at(0.0), at(1.0));
        match none - one > 0.0 {
            true => (none - self.cut(bar)) / (none - one),
            false => f32::NEG_INFINITY,
        }
    }

    fn keys_of(&self, list: usize, reach: &[f32], limit: f32) -> f32 {
        let (model, product) = (&self.grid.model()[list], self.products[list]);
        match self.grid.ty().metric {
            Metric::Dot => -(product + self.norm2.sqrt() * reach[list] * limit),
            Metric::Cosine | Metric::L2 | Metric::Hamming => {
                let distance2 = (self.norm2 + model.norm2 - 2.0 * product).max(0.0);
                distance2 + model.radius * model.radius - 2.0 * distance2.sqrt() * model.radius * limit
            }
        }
    }
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

    pub(crate) fn reach(&self) -> &[f32] {
        &self.reach
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
