//! The plain kernels: the definition of what the others compute.
//!
//! `#[inline(always)]` so that `x86` can compile the same text for wider registers.

use super::Kernels;

pub(super) const KERNELS: Kernels = Kernels {
    name: "plain",
    dot_rows,
    hamming_rows,
    dot,
    square_distance,
    dot_i8,
    square_distance_i8,
    quantise,
};

/// Sums are kept in this many lanes: element i goes to lane i mod `LANES`.
const LANES: usize = 32;

/// What quantising a row has lost, in units of its scale except for `scale` itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Quantised {
    pub(crate) scale: f32,
    /// ‖x‖², ‖x − x̃‖².
    pub(crate) norm2: f64,
    pub(crate) error2: f64,
    /// ‖x̃‖², exact.
    pub(crate) code_norm2: u32,
}

#[inline(always)]
pub(super) fn dot_rows(query: &[i16], codes: &[i8], rows: &[u32], out: &mut [i32]) {
    for (&row, out) in rows.iter().zip(out) {
        let codes = &codes[row as usize * query.len()..][..query.len()];
        let products = query
            .iter()
            .zip(codes)
            .map(|(&q, &c)| i32::from(q) * i32::from(c));
        *out = products.fold(0, i32::wrapping_add);
    }
}

#[inline(always)]
pub(super) fn hamming_rows(query: &[u64], codes: &[u64], rows: &[u32], out: &mut [u32]) {
    for (&row, out) in rows.iter().zip(out) {
        let codes = &codes[row as usize * query.len()..][..query.len()];
        let differing = query.iter().zip(codes).map(|(q, c)| (q ^ c).count_ones());
        *out = differing.fold(0, u32::wrapping_add);
    }
}

#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    lane_sum(a, b, |x, y| x * y)
}

#[inline(always)]
pub(super) fn square_distance(a: &[f32], b: &[f32]) -> f64 {
    lane_sum(a, b, |x, y| (x - y) * (x - y))
}

#[inline(always)]
pub(super) fn dot_i8(a: &[f32], b: &[i8]) -> f64 {
    lane_sum(a, b, |x, y| x * y)
}

#[inline(always)]
pub(super) fn square_distance_i8(a: &[f32], b: &[i8]) -> f64 {
    lane_sum(a, b, |x, y| (x - y) * (x - y))
}

/// f64 throughout: the product of two f32 is exact in it, and a sum of 8,192 of them
/// loses less than f32 can show.
#[inline(always)]
fn lane_sum<B: Copy + Into<f64>>(a: &[f32], b: &[B], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += term(f64::from(x[lane]), y[lane].into());
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(a_tail).zip(b_tail) {
        *lane += term(f64::from(x), y.into());
    }
    fold(lanes)
}

#[inline(always)]
fn fold(mut lanes: [f64; LANES]) -> f64 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// Symmetric, one scale per row, nearest integer.  `codes` is as long as `row`.
#[inline(always)]
pub(super) fn quantise(row: &[f32], codes: &mut [i8]) -> Quantised {
    let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    // The floor keeps the reciprocal finite; such rows lose precision, not correctness.
    let scale = (largest / 127.0).max(f32::MIN_POSITIVE);
    let inverse = 1.0 / f64::from(scale);
    let (mut norm2, mut error2) = ([0.0; LANES], [0.0; LANES]);
    let mut code_norm2 = [0u32; LANES];
    let mut put = |lane: usize, x: f32, code: &mut i8| {
        let x = f64::from(x) * inverse;
        let nearest = nearest(x as f32);
        let lost = x - f64::from(nearest);
        norm2[lane] += x * x;
        error2[lane] += lost * lost;
        code_norm2[lane] = code_norm2[lane].wrapping_add((nearest * nearest) as u32);
        *code = nearest as i8;
    };
    let (blocks, tail) = row.as_chunks::<LANES>();
    let (code_blocks, code_tail) = codes.as_chunks_mut::<LANES>();
    for (xs, codes) in blocks.iter().zip(code_blocks) {
        for lane in 0..LANES {
            put(lane, xs[lane], &mut codes[lane]);
        }
    }
    for (lane, (&x, code)) in tail.iter().zip(code_tail).enumerate() {
        put(lane, x, code);
    }
    let code_norm2 = code_norm2
        .iter()
        .fold(0, |sum: u32, &lane| sum.wrapping_add(lane));
    Quantised {
        scale,
        norm2: fold(norm2),
        error2: fold(error2),
        code_norm2,
    }
}

/// The nearest integer within ±127, by adding what leaves no room for a fraction: plain
/// rounding would be a call, and the cast a branch.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    const SHIFT: f32 = (1u32 << 23) as f32 * 1.5;
    let whole = (x + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32;
    whole.clamp(-127, 127)
}
