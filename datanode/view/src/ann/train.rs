//! Training a grid: k-means on a sample, first coarse, then within each coarse cluster,
//! then two full steps over all lists.

use rhumb_core::{Metric, Vector, VectorType};

use crate::error::ViewError;
use crate::kernels::kernels;

use super::assign::Assigner;
use super::grid::{Grid, MOST_LISTS, Trained, prepare};
use super::random::Random;
use super::rotate::Rotation;

/// Sample rows per list.
const SAMPLE: usize = 40;

/// Steps of each of the two coarse levels, and over all lists at the end.
const COARSE_STEPS: usize = 8;
const FULL_STEPS: usize = 2;

/// Rows between two looks at `cancel`.
const SLICE: usize = 384;

/// Takes a stream of vectors, keeps a sample, makes a grid of it.
#[derive(Debug)]
pub struct GridTrainer {
    ty: VectorType,
    id: u128,
    seed: u64,
    lists: usize,
    random: Random,
    seen: u64,
    /// `dim` per row.
    sample: Vec<f32>,
}

impl GridTrainer {
    /// For about `rows` vectors.  `None` for a field that has no lists, see
    /// [`Grid::supports`].  The same vectors in the same order with the same seed give the
    /// same grid on the same kind of processor.
    pub fn new(ty: &VectorType, id: u128, rows: usize, seed: u64) -> Option<Self> {
        Grid::supports(ty).then(|| Self {
            ty: *ty,
            id,
            seed,
            lists: lists_for(rows),
            random: Random::new(seed),
            seen: 0,
            sample: Vec::new(),
        })
    }

    pub fn push(&mut self, vector: &Vector) -> Result<(), ViewError> {
        match vector {
            Vector::F32(vector) => self.push_f32(vector),
            Vector::I8(vector) => self.push_f32(&vector.iter().map(|&x| f32::from(x)).collect::<Vec<_>>()),
            Vector::Bits(_) => Err(ViewError::VectorShape),
        }
    }

    /// Cheap: most rows of a long stream are only counted.
    pub fn push_f32(&mut self, vector: &[f32]) -> Result<(), ViewError> {
        let dim = self.ty.dim as usize;
        if vector.len() != dim || !vector.iter().all(|x| x.is_finite()) {
            return Err(ViewError::VectorShape);
        }
        self.seen += 1;
        let wanted = self.lists * SAMPLE;
        if self.sample.len() < wanted * dim {
            self.sample.extend_from_slice(vector);
        } else {
            let at = self.random.below(self.seen as usize);
            if at < wanted {
                self.sample[at * dim..][..dim].copy_from_slice(vector);
            }
        }
        Ok(())
    }

    /// `None` when no vector was pushed.  Seconds of one core; `cancel` is asked every few
    /// milliseconds, and true ends it with `Cancelled`.
    pub fn train(self, cancel: &dyn Fn() -> bool) -> Result<Option<Grid>, ViewError> {
        if self.sample.is_empty() {
            return Ok(None);
        }
        let Self {
            ty,
            id,
            seed,
            lists,
            mut random,
            sample,
            ..
        } = self;
        let scale = scale_of(&ty, &sample);
        let rotation = Rotation::new(ty.dim as usize, seed);
        let width = rotation.width();
        let mut rows = vec![0.0; sample.len() / ty.dim as usize * width];
        let mut kept = 0;
        for vector in sample.chunks_exact(ty.dim as usize) {
            let prepared = &mut rows[kept * width..][..width];
            kept += usize::from(prepare(&ty, scale, &rotation, vector, prepared));
        }
        drop(sample);
        if kept == 0 {
            rows[..width].fill(0.0);
        }
        rows.truncate(kept.max(1) * width);
        let mut means = Means { width, cancel };
        let centroids = means.hierarchical(&rows, lists, &mut random)?;
        let trained = means.measure(&rows, centroids)?;
        Ok(Some(Grid::new(id, ty, seed, scale, &trained)))
    }
}

/// A little more than 3·√rows: half the work of a search is in finding the lists.
fn lists_for(rows: usize) -> usize {
    ((3.3 * (rows as f64).sqrt()) as usize).clamp(16, MOST_LISTS / 2)
}

/// The power of two that brings the typical vector to about length 1.
fn scale_of(ty: &VectorType, sample: &[f32]) -> f32 {
    if ty.metric == Metric::Cosine {
        return 1.0;
    }
    let mut norms2: Vec<f64> = sample
        .chunks_exact(ty.dim as usize)
        .map(|vector| (kernels().dot)(vector, vector))
        .filter(|norm2| *norm2 > 0.0)
        .collect();
    if norms2.is_empty() {
        return 1.0;
    }
    let middle = norms2.len() / 2;
    let (_, median, _) = norms2.select_nth_unstable_by(middle, f64::total_cmp);
    // Within f32 together with its square.
    (-median.log2() / 2.0).round().clamp(-60.0, 60.0).exp2() as f32
}

struct Means<'a> {
    width: usize,
    cancel: &'a dyn Fn() -> bool,
}

impl Means<'_> {
    fn hierarchical(
        &mut self,
        rows: &[f32],
        lists: usize,
        random: &mut Random,
    ) -> Result<Vec<f32>, ViewError> {
        let width = self.width;
        let count = rows.len() / width;
        let coarse_lists = (lists as f64).sqrt().ceil() as usize;
        let coarse = self.flat(rows, coarse_lists, COARSE_STEPS, random)?;
        let of = self.nearest(rows, &coarse)?;
        let mut centroids = Vec::with_capacity(lists * width);
        for cluster in 0..coarse_lists as u32 {
            let members = of.iter().enumerate().filter(|(_, nearest)| **nearest == cluster);
            let members: Vec<f32> = members
                .flat_map(|(row, _)| &rows[row * width..][..width])
                .copied()
                .collect();
            let share = members.len() / width * lists;
            if share > 0 {
                centroids.extend(self.flat(&members, share.div_ceil(count), COARSE_STEPS, random)?);
            }
        }
        for _ in 0..FULL_STEPS {
            self.step(rows, &mut centroids, random)?;
        }
        Ok(centroids)
    }

    /// At most `lists` centroids, from random rows.
    fn flat(
        &mut self,
        rows: &[f32],
        lists: usize,
        steps: usize,
        random: &mut Random,
    ) -> Result<Vec<f32>, ViewError> {
        let (width, count) = (self.width, rows.len() / self.width);
        let mut order: Vec<usize> = (0..count).collect();
        let lists = lists.min(count);
        let mut centroids = Vec::with_capacity(lists * width);
        for at in 0..lists {
            order.swap(at, at + random.below(count - at));
            centroids.extend_from_slice(&rows[order[at] * width..][..width]);
        }
        for _ in 0..steps {
            self.step(rows, &mut centroids, random)?;
        }
        Ok(centroids)
    }

    /// One step of Lloyd's.  A centroid that lost all its rows starts anew at a random one.
    fn step(&mut self, rows: &[f32], centroids: &mut [f32], random: &mut Random) -> Result<(), ViewError> {
        let (width, count) = (self.width, rows.len() / self.width);
        let nearest = self.nearest(rows, centroids)?;
        let mut members = vec![0u32; centroids.len() / width];
        centroids.fill(0.0);
        for (row, &list) in rows.chunks_exact(width).zip(&nearest) {
            members[list as usize] += 1;
            let centroid = &mut centroids[list as usize * width..][..width];
            for (sum, x) in centroid.iter_mut().zip(row) {
                *sum += x;
            }
        }
        for (centroid, &members) in centroids.chunks_exact_mut(width).zip(&members) {
            match members {
                0 => centroid.copy_from_slice(&rows[random.below(count) * width..][..width]),
                _ => centroid.iter_mut().for_each(|x| *x /= members as f32),
            }
        }
        Ok(())
    }

    fn nearest(&self, rows: &[f32], centroids: &[f32]) -> Result<Vec<u32>, ViewError> {
        let assigner = Assigner::new(centroids, self.width);
        let mut nearest = vec![0; rows.len() / self.width];
        for (rows, nearest) in rows.chunks(SLICE * self.width).zip(nearest.chunks_mut(SLICE)) {
            if (self.cancel)() {
                return Err(ViewError::Cancelled);
            }
            assigner.assign(rows, nearest);
        }
        Ok(nearest)
    }

    /// Radii; lists that no row of the sample chose are dropped.
    fn measure(&mut self, rows: &[f32], centroids: Vec<f32>) -> Result<Trained, ViewError> {
        let width = self.width;
        let nearest = self.nearest(rows, &centroids)?;
        let mut sums = vec![(0.0f64, 0u32); centroids.len() / width];
        for (row, &list) in rows.chunks_exact(width).zip(&nearest) {
            let (sum, members) = &mut sums[list as usize];
            *sum += (kernels().square_distance)(row, &centroids[list as usize * width..][..width]);
            *members += 1;
        }
        let mut trained = Trained {
            centroids: Vec::with_capacity(centroids.len()),
            radii: Vec::new(),
            mean_residual: (sums.iter().map(|(sum, _)| sum).sum::<f64>() / nearest.len() as f64) as f32,
        };
        for (centroid, (sum, members)) in centroids.chunks_exact(width).zip(sums) {
            if members > 0 {
                trained.centroids.extend_from_slice(centroid);
                trained.radii.push((sum / f64::from(members)).sqrt() as f32);
            }
        }
        Ok(trained)
    }
}
