//! RaBitQ: a residual as one or two bits per dimension, and the two numbers that make an
//! unbiased estimate of a score from the product of its code with a query.
//!
//! With r = x − c the row's residual, s its code and f = ‖r‖² / ⟨s, r⟩, the product of r
//! with any v is about f·⟨s, v⟩.  Taken for v = q − c, everything but ⟨s, q⟩ is known of
//! the row, so a score is `base(list) + add + mul·⟨s, q⟩`:
//!
//! * cosine and dot: q·x = q·c + c·r + f·(⟨s, q⟩ − ⟨s, c⟩),
//! * l2: −‖q − x‖² = −‖q − c‖² − ‖r‖² + 2f·(⟨s, q⟩ − ⟨s, c⟩).
//!
//! Its error is near normal and grows with mul·‖q − c‖.

use rhumb_core::Metric;

/// What stands beside the code of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Factors {
    pub(super) add: f32,
    pub(super) mul: f32,
    /// ‖r‖².
    pub(super) residual2: f32,
}

/// Thresholds between the inner and outer of two-bit codes to choose from, in units of
/// the root mean square of the residual.
const THRESHOLDS: [f32; 5] = [0.7, 0.85, 1.0, 1.15, 1.3];

/// `row` and `centroid` are prepared; `residual` is scratch of the same width; `code` has
/// half a byte for each group of four dimensions of each plane, the high plane first.
pub(super) fn encode(
    metric: Metric,
    planes: usize,
    row: &[f32],
    centroid: &[f32],
    residual: &mut [f32],
    code: &mut [u8],
) -> Factors {
    for ((r, x), c) in residual.iter_mut().zip(row).zip(centroid) {
        *r = x - c;
    }
    let residual2 = product(residual, residual);
    let bytes = row.len() / 8;
    let outer = match planes {
        1 => f32::INFINITY,
        _ => threshold(residual, residual2),
    };
    let (mut with_r, mut with_c) = ([0.0f32; 8], [0.0f32; 8]);
    let (residuals, _) = residual.as_chunks::<8>();
    let (centroids, _) = centroid.as_chunks::<8>();
    for (at, (r, c)) in residuals.iter().zip(centroids).enumerate() {
        let (mut high, mut low) = (0, 0);
        for lane in 0..8 {
            let positive = r[lane] >= 0.0;
            let far = r[lane].abs() >= outer;
            let size = if planes == 1 {
                1.0
            } else if far {
                3.0
            } else {
                1.0
            };
            let value = if positive { size } else { -size };
            with_r[lane] += value * r[lane];
            with_c[lane] += value * c[lane];
            high |= u8::from(positive) << lane;
            low |= u8::from(positive == far) << lane;
        }
        code[at] = high;
        if planes == 2 {
            code[bytes + at] = low;
        }
    }
    let (with_r, with_c) = (with_r.iter().sum::<f32>(), with_c.iter().sum::<f32>());
    let f = if with_r > 0.0 { residual2 / with_r } else { 0.0 };
    let (add, mul) = match metric {
        Metric::L2 => (-residual2 - 2.0 * f * with_c, 2.0 * f),
        Metric::Cosine | Metric::Dot | Metric::Hamming => (product(centroid, residual) - f * with_c, f),
    };
    Factors { add, mul, residual2 }
}

/// Of the candidates, the one whose code lies closest to the residual's direction.
fn threshold(residual: &[f32], residual2: f32) -> f32 {
    let unit = (residual2 / residual.len() as f32).sqrt();
    let (mut best, mut best_cosine2) = (f32::INFINITY, -1.0);
    for candidate in THRESHOLDS {
        let outer = candidate * unit;
        let (mut with_r, mut norm2) = (0.0f32, 0.0f32);
        for r in residual {
            let size = if r.abs() >= outer { 3.0 } else { 1.0 };
            with_r += size * r.abs();
            norm2 += size * size;
        }
        let cosine2 = with_r * with_r / norm2;
        if cosine2 > best_cosine2 {
            (best, best_cosine2) = (outer, cosine2);
        }
    }
    best
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}
