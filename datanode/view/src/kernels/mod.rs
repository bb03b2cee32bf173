//! The inner loops, chosen once for this processor.
//!
//! Every kernel has a plain twin (`lanes`) that says what it computes.  Integer kernels
//! agree with their twin because integers do; floating-point kernels *are* their twin,
//! compiled for wider registers: they add in a fixed order of lanes and never fuse, so a
//! score is the same bits on every machine.
//!
//! The only module of the crate that may say `unsafe`: to call a function compiled for
//! instructions that `choose` has seen on this processor, and to load whole registers
//! from slices whose length was checked.

#[cfg(target_arch = "x86_64")]
mod x86;

mod lanes;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

pub(crate) use lanes::Quantised;

/// Codes per row are padded to a multiple of this, with zeros.
pub(crate) const CODE_BLOCK: usize = 32;

/// Over the rows named, in their order, one result each.
type RowKernel<Q, C, O> = fn(query: &[Q], codes: &[C], rows: &[u32], out: &mut [O]);

/// One implementation of every loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    /// `out[i]` = query · row `rows[i]` of `codes`; `query.len()` is the row stride, a
    /// multiple of `CODE_BLOCK`, and no product sum may leave i32.
    pub(crate) dot_rows: RowKernel<i16, i8, i32>,
    /// `out[i]` = bits in which the query and row `rows[i]` differ.
    pub(crate) hamming_rows: RowKernel<u64, u64, u32>,
    pub(crate) dot: fn(&[f32], &[f32]) -> f64,
    pub(crate) square_distance: fn(&[f32], &[f32]) -> f64,
    pub(crate) dot_i8: fn(&[f32], &[i8]) -> f64,
    pub(crate) square_distance_i8: fn(&[f32], &[i8]) -> f64,
    pub(crate) quantise: fn(&[f32], &mut [i8]) -> Quantised,
}

pub(crate) fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| *available().first().unwrap_or(&lanes::KERNELS))
}

/// Which kernels this process runs: `avx512_vnni`, `avx512`, `avx2` or `plain`.
pub fn kernel_name() -> &'static str {
    kernels().name
}

/// Fastest first; the plain ones are always there and last.
pub(crate) fn available() -> Vec<Kernels> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    found.extend(x86::available());
    found.push(lanes::KERNELS);
    found
}
