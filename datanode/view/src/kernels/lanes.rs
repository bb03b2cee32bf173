//! The plain kernels: the definition of what the others compute.
//!
//! `#[inline(always)]` so that `x86` can compile the same text for wider registers.

use super::{BLOCK_ROWS, BlockScan, GROUP_BYTES, Kernels, TILE_COLUMNS, Tile};

pub(super) const KERNELS: Kernels = Kernels {
    name: "plain",
    dot_rows,
    hamming_rows,
    dot,
    square_distance,
    dot_i8,
    square_distance_i8,
    quantise,
    dot_all,
    hadamard,
    tile,
    scan_blocks,
    extent,
    fill_tables,
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

#[inline(always)]
pub(super) fn dot_all(query: &[u8], codes: &[i8], out: &mut [i32]) {
    for (codes, out) in codes.chunks_exact(query.len()).zip(out) {
        let products = query
            .iter()
            .zip(codes)
            .map(|(&q, &c)| i32::from(q) * i32::from(c));
        *out = products.sum();
    }
}

#[inline(always)]
pub(super) fn hadamard(values: &mut [f32]) {
    let mut half = values.len() / 2;
    while half >= 8 {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half /= 2;
    }
    let (eights, rest) = values.as_chunks_mut::<8>();
    for eight in eights {
        let [a, b, c, d, e, f, g, h] = *eight;
        let [a, b, c, d, e, f, g, h] = [a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h];
        let [a, b, c, d, e, f, g, h] = [a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h];
        *eight = [a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h];
    }
    let mut half = rest.len() / 2;
    while half >= 1 {
        for pair in rest.chunks_exact_mut(2 * half) {
            for at in 0..half {
                (pair[at], pair[at + half]) = (pair[at] + pair[at + half], pair[at] - pair[at + half]);
            }
        }
        half /= 2;
    }
}

#[inline(always)]
pub(super) fn tile(rows: &[f32], width: usize, panel: &[f32], out: &mut Tile) {
    let (panel, _) = panel.as_chunks::<TILE_COLUMNS>();
    for (row, out) in rows.chunks_exact(width).zip(out) {
        let mut sums = [0.0; TILE_COLUMNS];
        for (x, columns) in row.iter().zip(panel) {
            for (sum, y) in sums.iter_mut().zip(columns) {
                *sum += x * y;
            }
        }
        *out = sums;
    }
}

#[inline(always)]
pub(super) fn scan_blocks(scan: &BlockScan<'_>, out: &mut [u32]) {
    let groups = scan.tables.len() / GROUP_BYTES;
    let blocks = scan.bits.chunks_exact(groups * GROUP_BYTES);
    for (at, (bits, out)) in blocks.zip(out).enumerate() {
        let sums = block_sums(scan.tables, bits);
        *out = 0;
        for (row, sum) in sums.iter().enumerate() {
            let (add, mul) = (scan.add[at * BLOCK_ROWS + row], scan.mul[at * BLOCK_ROWS + row]);
            let score = add + mul * (scan.step * f32::from(*sum) + scan.shift);
            *out |= u32::from(score >= scan.bar) << row;
        }
    }
}

/// The sum of the table entries of each row of a block.
#[inline(always)]
pub(super) fn block_sums(tables: &[u8], bits: &[u8]) -> [u16; BLOCK_ROWS] {
    let mut sums = [0u16; BLOCK_ROWS];
    for (table, group) in tables
        .chunks_exact(GROUP_BYTES)
        .zip(bits.chunks_exact(GROUP_BYTES))
    {
        for (row, byte) in group.iter().enumerate() {
            let (low, high) = (usize::from(byte & 15), usize::from(byte >> 4));
            sums[row] = sums[row].wrapping_add(u16::from(table[low]));
            sums[row + GROUP_BYTES] = sums[row + GROUP_BYTES].wrapping_add(u16::from(table[high]));
        }
    }
    sums
}

/// Of a vector: Σx², Σ|x| and the largest |x|.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Extent {
    pub(crate) norm2: f32,
    pub(crate) absolute: f32,
    pub(crate) largest: f32,
}

#[inline(always)]
pub(super) fn extent(values: &[f32]) -> Extent {
    let (mut norm2, mut absolute, mut largest) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    let (blocks, tail) = values.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    for block in blocks.iter().chain([&last]) {
        for lane in 0..LANES {
            let size = block[lane].abs();
            norm2[lane] += size * size;
            absolute[lane] += size;
            largest[lane] = if size > largest[lane] { size } else { largest[lane] };
        }
    }
    Extent {
        norm2: norm2.iter().sum(),
        absolute: absolute.iter().sum(),
        largest: largest.iter().fold(0.0, |a, &b| if b > a { b } else { a }),
    }
}

/// Bit b of entry e, for all entries.
const BITS: [[f32; GROUP_BYTES]; 4] = {
    let mut bits = [[0.0; GROUP_BYTES]; 4];
    let mut at = 0;
    while at < 4 * GROUP_BYTES {
        bits[at / GROUP_BYTES][at % GROUP_BYTES] = ((at % GROUP_BYTES) >> (at / GROUP_BYTES) & 1) as f32;
        at += 1;
    }
    bits
};

#[inline(always)]
pub(super) fn fill_tables(query: &[f32], inverse_step: f32, tables: &mut [u8]) {
    // Leaves no room for a fraction beside it, and the number in its low bits.
    const SHIFT: f32 = (1u32 << 23) as f32;
    let (query, _) = query.as_chunks::<4>();
    let (tables, _) = tables.as_chunks_mut::<GROUP_BYTES>();
    for (query, table) in query.iter().zip(tables) {
        // Σ|x| + Σ±x is 2x for every positive x whose bit is set and every negative one
        // whose bit is clear.
        let x = query.map(|x| 2.0 * x * inverse_step);
        let clear = (-x[0]).max(0.0) + (-x[1]).max(0.0) + (-x[2]).max(0.0) + (-x[3]).max(0.0);
        let mut sums = [0.0; GROUP_BYTES];
        for entry in 0..GROUP_BYTES {
            let pairs = [
                BITS[0][entry] * x[0] + BITS[1][entry] * x[1],
                BITS[2][entry] * x[2] + BITS[3][entry] * x[3],
            ];
            let sum = pairs[0] + pairs[1] + clear;
            sums[entry] = if sum > 0.0 { sum } else { 0.0 } + SHIFT;
        }
        for entry in 0..GROUP_BYTES {
            table[entry] = sums[entry].to_bits() as u8;
        }
    }
}
