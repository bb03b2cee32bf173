//! x86-64: AVX-512 (with VNNI and VPOPCNTDQ where they are), AVX2.
#![allow(
    unsafe_code,
    reason = "calls into code for instructions that were detected, and whole-register loads"
)]

use std::arch::x86_64::*;

use super::{CODE_BLOCK, Kernels, Quantised, lanes};

pub(super) fn available() -> Vec<Kernels> {
    let mut found = Vec::new();
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt");
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
        }
    };
}

compiled_for!(
    avx512_vnni,
    "avx2,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vpopcntdq",
    dot_row_vnni
);
compiled_for!(
    avx512,
    "avx2,popcnt,avx512f,avx512bw,avx512vl,avx512dq",
    dot_row_avx512
);
compiled_for!(avx2, "avx2,popcnt", dot_row_avx2);

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
        // SAFETY: the array is 16 i16, one whole register; unaligned loads are allowed.
        let query = unsafe { _mm256_loadu_si256(query.as_ptr().cast()) };
        // SAFETY: the array is 16 i8, one whole half register.
        let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(query, _mm256_cvtepi8_epi16(codes)));
    }
    let halves = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let pairs = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b_01_00_11_10>(halves));
    _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32::<0b_10_11_00_01>(pairs)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_512(block: &[i16; CODE_BLOCK]) -> __m512i {
    // SAFETY: the array is 32 i16, one whole register; unaligned loads are allowed.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_256(block: &[i8; CODE_BLOCK]) -> __m256i {
    // SAFETY: the array is 32 i8, one whole register; unaligned loads are allowed.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}
