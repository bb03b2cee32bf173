//! x86-64: AVX-512 (with VNNI and VPOPCNTDQ where they are), AVX2.
#![allow(
    unsafe_code,
    reason = "calls into code for instructions that were detected, and whole-register loads"
)]

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{
    BLOCK_ROWS, BlockScan, CODE_BLOCK, Extent, GROUP_BYTES, Kernels, Quantised, TILE_COLUMNS, TILE_ROWS,
    Tile, lanes,
};

pub(super) fn available() -> Vec<Kernels> {
    let mut found = Vec::new();
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("popcnt");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    let newer = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vpopcntdq");
    if avx512 && newer {
        found.push(avx512_vnni::KERNELS);
    }
    if avx512 {
        found.push(avx512::KERNELS);
    }
    if avx2 {
        found.push(avx2::KERNELS);
    }
    found
}

/// The plain text, compiled for the features named, and a table of it.
macro_rules! compiled_for {
    ($module:ident, $features:literal, $dot_row:ident) => {
        mod $module {
            use super::*;

            pub(super) const KERNELS: Kernels = Kernels {
                name: stringify!($module),
                dot_rows: |query, codes, rows, out| {
                    // SAFETY: `available` lists this table only where the features are.
                    unsafe { dot_rows(query, codes, rows, out) }
                },
                hamming_rows: |query, codes, rows, out| {
                    // SAFETY: as above.
                    unsafe { hamming_rows(query, codes, rows, out) }
                },
                dot: |a, b| {
                    // SAFETY: as above.
                    unsafe { dot(a, b) }
                },
                square_distance: |a, b| {
                    // SAFETY: as above.
                    unsafe { square_distance(a, b) }
                },
                dot_i8: |a, b| {
                    // SAFETY: as above.
                    unsafe { dot_i8(a, b) }
                },
                square_distance_i8: |a, b| {
                    // SAFETY: as above.
                    unsafe { square_distance_i8(a, b) }
                },
                quantise: |row, codes| {
                    // SAFETY: as above.
                    unsafe { quantise(row, codes) }
                },
                dot_all: |query, codes, out| {
                    // SAFETY: as above.
                    unsafe { dot_all_avx2(query, codes, out) }
                },
                hadamard: |values| {
                    // SAFETY: as above.
                    unsafe { hadamard(values) }
                },
                tile: |rows, width, panel, out| {
                    // SAFETY: as above.
                    unsafe { tile_avx2(rows, width, panel, out) }
                },
                scan_blocks: |scan, out| {
                    // SAFETY: as above.
                    unsafe { scan_blocks_avx2(scan, out) }
                },
                extent: |values| {
                    // SAFETY: as above.
                    unsafe { extent(values) }
                },
                fill_tables: |query, inverse_step, tables| {
                    // SAFETY: as above.
                    unsafe { fill_tables(query, inverse_step, tables) }
                },
            };

            #[target_feature(enable = $features)]
            fn dot_rows(query: &[i16], codes: &[i8], rows: &[u32], out: &mut [i32]) {
                assert!(
                    query.len().is_multiple_of(CODE_BLOCK),
                    "codes are padded to whole blocks"
                );
                for (&row, out) in rows.iter().zip(out) {
                    let codes = &codes[row as usize * query.len()..][..query.len()];
                    *out = $dot_row(query, codes);
                }
            }

            #[target_feature(enable = $features)]
            fn hamming_rows(query: &[u64], codes: &[u64], rows: &[u32], out: &mut [u32]) {
                lanes::hamming_rows(query, codes, rows, out);
            }

            #[target_feature(enable = $features)]
            fn dot(a: &[f32], b: &[f32]) -> f64 {
                lanes::dot(a, b)
            }

            #[target_feature(enable = $features)]
            fn square_distance(a: &[f32], b: &[f32]) -> f64 {
                lanes::square_distance(a, b)
            }

            #[target_feature(enable = $features)]
            fn dot_i8(a: &[f32], b: &[i8]) -> f64 {
                lanes::dot_i8(a, b)
            }

            #[target_feature(enable = $features)]
            fn square_distance_i8(a: &[f32], b: &[i8]) -> f64 {
                lanes::square_distance_i8(a, b)
            }

            #[target_feature(enable = $features)]
            fn quantise(row: &[f32], codes: &mut [i8]) -> Quantised {
                lanes::quantise(row, codes)
            }

            #[target_feature(enable = $features)]
            fn hadamard(values: &mut [f32]) {
                lanes::hadamard(values);
            }

            #[target_feature(enable = $features)]
            fn extent(values: &[f32]) -> Extent {
                lanes::extent(values)
            }

            #[target_feature(enable = $features)]
            fn fill_tables(query: &[f32], inverse_step: f32, tables: &mut [u8]) {
                lanes::fill_tables(query, inverse_step, tables);
            }
        }
    };
}

compiled_for!(
    avx512_vnni,
    "avx2,fma,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vpopcntdq",
    dot_row_vnni
);
compiled_for!(
    avx512,
    "avx2,fma,popcnt,avx512f,avx512bw,avx512vl,avx512dq",
    dot_row_avx512
);
compiled_for!(avx2, "avx2,fma,popcnt", dot_row_avx2);

/// 32 codes widened to i16, multiplied with 32 of the query and added pairwise to i32.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vnni")]
fn dot_row_vnni(query: &[i16], codes: &[i8]) -> i32 {
    let (query, _) = query.as_chunks::<CODE_BLOCK>();
    let (codes, _) = codes.as_chunks::<CODE_BLOCK>();
    let mut sums = [_mm512_setzero_si512(); 2];
    for (at, (query, codes)) in query.iter().zip(codes).enumerate() {
        let (query, codes) = (load_512(query), _mm512_cvtepi8_epi16(load_256(codes)));
        sums[at % 2] = _mm512_dpwssd_epi32(sums[at % 2], query, codes);
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw")]
fn dot_row_avx512(query: &[i16], codes: &[i8]) -> i32 {
    let (query, _) = query.as_chunks::<CODE_BLOCK>();
    let (codes, _) = codes.as_chunks::<CODE_BLOCK>();
    let mut sum = _mm512_setzero_si512();
    for (query, codes) in query.iter().zip(codes) {
        let (query, codes) = (load_512(query), _mm512_cvtepi8_epi16(load_256(codes)));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(query, codes));
    }
    _mm512_reduce_add_epi32(sum)
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot_row_avx2(query: &[i16], codes: &[i8]) -> i32 {
    let (query, _) = query.as_chunks::<{ CODE_BLOCK / 2 }>();
    let (codes, _) = codes.as_chunks::<{ CODE_BLOCK / 2 }>();
    let mut sum = _mm256_setzero_si256();
    for (query, codes) in query.iter().zip(codes) {
        // SAFETY: 16 i16 are the bits of one register.
        let query = unsafe { transmute::<[i16; 16], __m256i>(*query) };
        // SAFETY: 16 i8 are the bits of half a register.
        let codes = unsafe { transmute::<[i8; 16], __m128i>(*codes) };
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(query, _mm256_cvtepi8_epi16(codes)));
    }
    add_lanes(sum)
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_lanes(sum: __m256i) -> i32 {
    let halves = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let pairs = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b_01_00_11_10>(halves));
    _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32::<0b_10_11_00_01>(pairs)))
}

// Loads are made as copies of whole arrays: the intrinsics that take pointers check their
// preconditions in builds with debug assertions, once per load.

#[inline(always)]
fn load_512(block: &[i16; CODE_BLOCK]) -> __m512i {
    // SAFETY: 32 i16 are the bits of one register.
    unsafe { transmute::<[i16; CODE_BLOCK], __m512i>(*block) }
}

#[inline(always)]
fn load_256(block: &[i8; CODE_BLOCK]) -> __m256i {
    // SAFETY: 32 i8 are the bits of one register.
    unsafe { transmute::<[i8; CODE_BLOCK], __m256i>(*block) }
}

#[inline(always)]
fn load_bytes(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are the bits of one register.
    unsafe { transmute::<[u8; 32], __m256i>(*bytes) }
}

#[inline(always)]
fn load_ps(eight: &[f32; 8]) -> __m256 {
    // SAFETY: eight f32 are the bits of one register.
    unsafe { transmute::<[f32; 8], __m256>(*eight) }
}

#[inline(always)]
fn store_ps(eight: __m256) -> [f32; 8] {
    // SAFETY: one register is the bits of eight f32.
    unsafe { transmute::<__m256, [f32; 8]>(eight) }
}

/// Products of neighbours added as i16, which codes of at most 127 and ±127 cannot leave.
#[target_feature(enable = "avx2")]
fn dot_all_avx2(query: &[u8], codes: &[i8], out: &mut [i32]) {
    let (query, rest) = query.as_chunks::<CODE_BLOCK>();
    assert!(rest.is_empty(), "codes are padded to whole blocks");
    let (codes, _) = codes.as_chunks::<CODE_BLOCK>();
    let ones = _mm256_set1_epi16(1);
    for (codes, out) in codes.chunks_exact(query.len()).zip(out) {
        let mut sum = _mm256_setzero_si256();
        for (query, codes) in query.iter().zip(codes) {
            let pairs = _mm256_maddubs_epi16(load_bytes(query), load_256(codes));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
        }
        *out = add_lanes(sum);
    }
}

/// Six rows times sixteen columns in twelve registers.
#[target_feature(enable = "avx2,fma")]
fn tile_avx2(rows: &[f32], width: usize, panel: &[f32], out: &mut Tile) {
    if rows.len() != TILE_ROWS * width {
        return lanes::tile(rows, width, panel, out);
    }
    let (panel, _) = panel[..width * TILE_COLUMNS].as_chunks::<8>();
    let rows: [&[f32]; TILE_ROWS] = std::array::from_fn(|row| &rows[row * width..][..width]);
    let mut sums = [[_mm256_setzero_ps(); 2]; TILE_ROWS];
    for (at, columns) in panel.as_chunks::<2>().0.iter().enumerate() {
        let (left, right) = (load_ps(&columns[0]), load_ps(&columns[1]));
        for (sums, row) in sums.iter_mut().zip(&rows) {
            let x = _mm256_set1_ps(row[at]);
            sums[0] = _mm256_fmadd_ps(x, left, sums[0]);
            sums[1] = _mm256_fmadd_ps(x, right, sums[1]);
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        let (halves, _) = out.as_chunks_mut::<8>();
        for (half, sum) in halves.iter_mut().zip(sums) {
            *half = store_ps(sum);
        }
    }
}

/// Table look-ups of 32 rows at a time: two groups to a register, four entries added as
/// bytes before they are widened.
#[target_feature(enable = "avx2,fma")]
fn scan_blocks_avx2(scan: &BlockScan<'_>, out: &mut [u32]) {
    let groups = scan.tables.len() / GROUP_BYTES;
    assert!(groups.is_multiple_of(4), "groups come in fours");
    let tables = scan
        .tables
        .as_chunks::<{ 2 * GROUP_BYTES }>()
        .0
        .as_chunks::<2>()
        .0;
    let (add, _) = scan.add.as_chunks::<8>().0.as_chunks::<{ BLOCK_ROWS / 8 }>();
    let (mul, _) = scan.mul.as_chunks::<8>().0.as_chunks::<{ BLOCK_ROWS / 8 }>();
    let blocks = scan.bits.chunks_exact(groups * GROUP_BYTES);
    for (((bits, out), add), mul) in blocks.zip(out).zip(add).zip(mul) {
        let sums = block_sums_avx2(tables, bits);
        let (step, shift) = (_mm256_set1_ps(scan.step), _mm256_set1_ps(scan.shift));
        let bar = _mm256_set1_ps(scan.bar);
        *out = 0;
        for eight in 0..4 {
            let half = match eight % 2 {
                0 => _mm256_castsi256_si128(sums[eight / 2]),
                _ => _mm256_extracti128_si256::<1>(sums[eight / 2]),
            };
            let sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(half));
            let inner = _mm256_add_ps(_mm256_mul_ps(step, sum), shift);
            let (add, mul) = (load_ps(&add[eight]), load_ps(&mul[eight]));
            let score = _mm256_add_ps(add, _mm256_mul_ps(mul, inner));
            let passes = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(score, bar));
            *out |= (passes as u32) << (8 * eight);
        }
    }
}

/// Rows 0 to 15 in the first register, 16 to 31 in the second.
#[inline]
#[target_feature(enable = "avx2")]
fn block_sums_avx2(tables: &[[[u8; 2 * GROUP_BYTES]; 2]], bits: &[u8]) -> [__m256i; 2] {
    let bits = bits.as_chunks::<{ 2 * GROUP_BYTES }>().0.as_chunks::<2>().0;
    let nibble = _mm256_set1_epi8(15);
    // Sums of whole words (their low bytes spill over) and of high bytes alone.
    let mut words = [_mm256_setzero_si256(); 2];
    let mut highs = [_mm256_setzero_si256(); 2];
    for (table, bits) in tables.iter().zip(bits) {
        let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for pair in 0..2 {
            let (table, bits) = (load_bytes(&table[pair]), load_bytes(&bits[pair]));
            let below = _mm256_and_si256(bits, nibble);
            let above = _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble);
            low = _mm256_add_epi8(low, _mm256_shuffle_epi8(table, below));
            high = _mm256_add_epi8(high, _mm256_shuffle_epi8(table, above));
        }
        words[0] = _mm256_add_epi16(words[0], low);
        words[1] = _mm256_add_epi16(words[1], high);
        highs[0] = _mm256_add_epi16(highs[0], _mm256_srli_epi16::<8>(low));
        highs[1] = _mm256_add_epi16(highs[1], _mm256_srli_epi16::<8>(high));
    }
    let mut sums = [_mm256_setzero_si256(); 2];
    for (sums, (words, highs)) in sums.iter_mut().zip(words.into_iter().zip(highs)) {
        let evens = _mm256_sub_epi16(words, _mm256_slli_epi16::<8>(highs));
        let evens = _mm_add_epi16(
            _mm256_castsi256_si128(evens),
            _mm256_extracti128_si256::<1>(evens),
        );
        let odds = _mm_add_epi16(
            _mm256_castsi256_si128(highs),
            _mm256_extracti128_si256::<1>(highs),
        );
        *sums = _mm256_set_m128i(_mm_unpackhi_epi16(evens, odds), _mm_unpacklo_epi16(evens, odds));
    }
    sums
}

/// Every x86-64 has this one: inlined, it costs a cycle a line.
#[inline]
pub(crate) fn prefetch(first: *const u8, bytes: usize) {
    for line in (0..bytes.min(512)).step_by(64) {
        // SAFETY: a hint, at whatever address: nothing is read and nothing faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(line).cast()) };
    }
}
