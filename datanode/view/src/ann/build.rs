//! Making lists: from vectors, or from other lists of the same grid.

use std::sync::Arc;

use rhumb_core::Vector;

use crate::error::ViewError;

use super::assign::Assigner;
use super::encode::encode;
use super::grid::Grid;
use super::lists::Lists;

/// Rows that are assigned together: one or two milliseconds of work at 384 × 1,024.
const BATCH: usize = 96;

/// Takes vectors in ordinal order.  Work is done as they come, in slices of a few
/// milliseconds, so a caller on a low-priority thread yields or stops between two pushes.
#[derive(Debug)]
pub struct ListsBuilder {
    grid: Arc<Grid>,
    rows: u32,
    assigner: Assigner,
    centroids: Vec<f32>,
    /// Prepared vectors not assigned yet, and their ordinals.
    waiting: Vec<f32>,
    waiting_ordinals: Vec<u32>,
    residual: Vec<f32>,
    placed: Vec<Placed>,
    codes: Vec<u8>,
    strays: Vec<u32>,
    residuals: f64,
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    list: u32,
    ordinal: u32,
    add: f32,
    mul: f32,
}

impl ListsBuilder {
    /// For ordinals below `rows`.
    pub fn new(grid: Arc<Grid>, rows: u32) -> Self {
        let centroids = grid.all_centroids();
        Self {
            rows,
            assigner: Assigner::new(&centroids, grid.width()),
            centroids,
            waiting: Vec::with_capacity(BATCH * grid.width()),
            waiting_ordinals: Vec::with_capacity(BATCH),
            residual: vec![0.0; grid.width()],
            placed: Vec::new(),
            codes: Vec::new(),
            strays: Vec::new(),
            residuals: 0.0,
            grid,
        }
    }

    /// `None` for a row without a vector.  Each ordinal once, ascending.
    pub fn push(&mut self, ordinal: u32, vector: Option<&Vector>) -> Result<(), ViewError> {
        match vector {
            None => self.check(ordinal),
            Some(Vector::F32(vector)) => self.push_f32(ordinal, vector),
            Some(Vector::I8(vector)) => {
                self.push_f32(ordinal, &vector.iter().map(|&x| f32::from(x)).collect::<Vec<_>>())
            }
            Some(Vector::Bits(_)) => Err(ViewError::VectorShape),
        }
    }

    pub fn push_f32(&mut self, ordinal: u32, vector: &[f32]) -> Result<(), ViewError> {
        self.check(ordinal)?;
        if vector.len() != self.grid.ty().dim as usize || !vector.iter().all(|x| x.is_finite()) {
            return Err(ViewError::VectorShape);
        }
        let start = self.waiting.len();
        self.waiting.resize(start + self.grid.width(), 0.0);
        if !self.grid.prepare(vector, &mut self.waiting[start..]) {
            self.waiting.truncate(start);
            self.strays.push(ordinal);
            return Ok(());
        }
        self.waiting_ordinals.push(ordinal);
        if self.waiting_ordinals.len() == BATCH {
            self.flush();
        }
        Ok(())
    }

    pub fn finish(mut self) -> Lists {
        self.flush();
        let mut counts = vec![0; self.grid.lists()];
        for row in &self.placed {
            counts[row.list as usize] += 1;
        }
        let mut lists = Lists::with_room(self.grid.clone(), self.rows, &counts);
        let mut next = lists.starts.clone();
        let bytes = code_bytes(&self.grid);
        for (row, code) in self.placed.iter().zip(self.codes.chunks_exact(bytes)) {
            let position = &mut next[row.list as usize];
            lists.place(*position as usize, row.ordinal, row.add, row.mul, code);
            *position += 1;
        }
        self.strays.shrink_to_fit();
        lists.strays = self.strays;
        lists.mean_residual = (self.residuals / self.placed.len().max(1) as f64) as f32;
        lists.settled()
    }

    fn check(&self, ordinal: u32) -> Result<(), ViewError> {
        match ordinal < self.rows {
            true => Ok(()),
            false => Err(ViewError::RowCount {
                what: "lists",
                expected: u64::from(self.rows),
                found: u64::from(ordinal) + 1,
            }),
        }
    }

    fn flush(&mut self) {
        let width = self.grid.width();
        let mut nearest = [0; BATCH];
        let nearest = &mut nearest[..self.waiting_ordinals.len()];
        self.assigner.assign(&self.waiting, nearest);
        let rows = self.waiting.chunks_exact(width).zip(&self.waiting_ordinals);
        for ((row, &ordinal), &list) in rows.zip(nearest.iter()) {
            let centroid = &self.centroids[list as usize * width..][..width];
            let start = self.codes.len();
            self.codes.resize(start + code_bytes(&self.grid), 0);
            let (metric, planes) = (self.grid.ty().metric, self.grid.planes());
            let factors = encode(
                metric,
                planes,
                row,
                centroid,
                &mut self.residual,
                &mut self.codes[start..],
            );
            self.residuals += f64::from(factors.residual2);
            let (add, mul) = (factors.add, factors.mul);
            self.placed.push(Placed {
                list,
                ordinal,
                add,
                mul,
            });
        }
        self.waiting.clear();
        self.waiting_ordinals.clear();
    }
}

/// Lists and what their ordinals become; `None` leaves a row out.
pub type Part<'a> = (&'a Lists, &'a dyn Fn(u32) -> Option<u32>);

impl Lists {
    /// The rows of all parts under new ordinals below `rows`, without their vectors: codes
    /// are copied.  No two rows may get one ordinal.
    pub fn merge(grid: &Arc<Grid>, rows: u32, parts: &[Part<'_>]) -> Result<Self, ViewError> {
        if parts.iter().any(|(lists, _)| lists.grid.id() != grid.id()) {
            return Err(ViewError::OtherGrid);
        }
        let mut chosen: Vec<(u32, u32, u32)> = Vec::new();
        let mut counts = vec![0; grid.lists()];
        for (list, count) in counts.iter_mut().enumerate() {
            let before = chosen.len();
            for (part, (lists, map)) in (0..).zip(parts) {
                for position in lists.starts[list]..lists.starts[list + 1] {
                    if let Some(ordinal) = map(lists.ordinals[position as usize]) {
                        chosen.push((ordinal, part, position));
                    }
                }
            }
            chosen[before..].sort_unstable();
            *count = (chosen.len() - before) as u32;
        }
        let mut strays: Vec<u32> = Vec::new();
        for (lists, map) in parts {
            strays.extend(lists.strays.iter().filter_map(|&stray| map(stray)));
        }
        strays.sort_unstable();
        let known = |ordinal: &u32| *ordinal < rows;
        if !chosen.iter().map(|(ordinal, ..)| ordinal).all(known) || !strays.iter().all(known) {
            return Err(ViewError::TooManyRows);
        }
        let mut merged = Self::with_room(grid.clone(), rows, &counts);
        let mut code = vec![0; code_bytes(grid)];
        for (at, &(ordinal, part, position)) in chosen.iter().enumerate() {
            let (lists, position) = (parts[part as usize].0, position as usize);
            lists.code(position, &mut code);
            merged.place(at, ordinal, lists.add[position], lists.mul[position], &code);
        }
        merged.strays = strays;
        merged.describe(parts);
        Ok(merged.settled())
    }

    /// Residuals are those of the parts, rows left out included.
    fn describe(&mut self, parts: &[Part<'_>]) {
        let total: f64 = parts.iter().map(|(lists, _)| f64::from(lists.listed())).sum();
        let residuals = parts
            .iter()
            .map(|(lists, _)| f64::from(lists.mean_residual) * f64::from(lists.listed()));
        self.mean_residual = (residuals.sum::<f64>() / total.max(1.0)) as f32;
    }
}

/// Of one row's code.
fn code_bytes(grid: &Grid) -> usize {
    grid.groups() / 2
}
