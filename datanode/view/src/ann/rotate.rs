//! A random rotation that costs n·log n: signs, a Hadamard transform of the largest power
//! of two that fits (of the first coordinates, then of the last, in turn), and a butterfly
//! between the halves where the width is no power of two.
//!
//! It spreads every direction over all coordinates, so that one bit or a table of four
//! bits loses the same share of any vector.  Lengths and products stay as they are.

use std::f32::consts::FRAC_1_SQRT_2;

use crate::kernels::kernels;

use super::random::Random;

/// Coordinates are padded to a multiple of this with zeros.
pub(super) const WIDTH_STEP: usize = 32;

const ROUNDS: usize = 4;

#[derive(Debug)]
pub(super) struct Rotation {
    width: usize,
    /// The transformed part of a round.
    part: usize,
    /// Per round and coordinate, the transform's scale included.
    signs: Vec<f32>,
}

impl Rotation {
    pub(super) fn new(dim: usize, seed: u64) -> Self {
        let width = dim.next_multiple_of(WIDTH_STEP);
        let part = 1 << width.ilog2();
        let mut random = Random::new(seed);
        let scale = (part as f32).sqrt().recip();
        let mut signs = Vec::with_capacity(ROUNDS * width);
        for round in 0..ROUNDS {
            let first = Self::start(width, part, round);
            signs.extend((0..width).map(|at| {
                let size = if (first..first + part).contains(&at) {
                    scale
                } else {
                    1.0
                };
                if random.next() >> 63 == 0 { size } else { -size }
            }));
        }
        Self { width, part, signs }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// `vector` has `width` coordinates.
    pub(super) fn apply(&self, vector: &mut [f32]) {
        for (round, signs) in self.signs.chunks_exact(self.width).enumerate() {
            for (x, sign) in vector.iter_mut().zip(signs) {
                *x *= sign;
            }
            let first = Self::start(self.width, self.part, round);
            (kernels().hadamard)(&mut vector[first..first + self.part]);
            if self.part < self.width {
                let (low, high) = vector.split_at_mut(self.width / 2);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = ((*a + *b) * FRAC_1_SQRT_2, (*a - *b) * FRAC_1_SQRT_2);
                }
            }
        }
    }

    fn start(width: usize, part: usize, round: usize) -> usize {
        if round.is_multiple_of(2) { 0 } else { width - part }
    }

    pub(super) fn heap_size(&self) -> usize {
        self.signs.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_products_survive_at_any_dimension() {
        for dim in [1, 7, 31, 32, 33, 64, 100, 129, 248, 384, 385, 768, 1000, 8192] {
            let rotation = Rotation::new(dim, 7);
            let mut random = Random::new(dim as u64);
            let mut padded = || {
                let mut vector: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
                vector.resize(rotation.width(), 0.0);
                vector
            };
            let (a, b) = (padded(), padded());
            let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            let (mut turned_a, mut turned_b) = (a.clone(), b.clone());
            rotation.apply(&mut turned_a);
            rotation.apply(&mut turned_b);
            let size = (product(&a, &a) * product(&b, &b)).sqrt();
            assert!(
                (product(&a, &b) - product(&turned_a, &turned_b)).abs() < 1e-4 * size,
                "{dim}"
            );
            assert!(
                (product(&a, &a) - product(&turned_a, &turned_a)).abs() < 1e-4 * product(&a, &a),
                "{dim}"
            );
        }
    }

    #[test]
    fn one_coordinate_is_spread_over_all() {
        for dim in [64, 96, 128, 248, 384, 1000, 1536] {
            let rotation = Rotation::new(dim, 3);
            for at in [0, dim / 2, dim - 1] {
                let mut vector = vec![0.0; rotation.width()];
                vector[at] = 1.0;
                rotation.apply(&mut vector);
                let largest = vector.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let even = (rotation.width() as f32).sqrt().recip();
                assert!(largest < 8.0 * even, "{dim} {at}: {largest} where {even} is even");
            }
        }
    }
}
