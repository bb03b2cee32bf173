//! Codes: what a scan reads of a vector field instead of its vectors.
//!
//! f32 and f16 become int8 with one scale per row; beside them stands what that lost, so
//! a scan knows how far a score can be from its estimate (`bound`).  int8 and binary
//! vectors are their own codes.  Codes belong to one segment and one field, in ordinal
//! order, and can be dropped and built again.

mod bound;
mod builder;
mod file;
mod proof;

pub use builder::CodesBuilder;
pub use proof::Proof;

pub(crate) use bound::{Bounds, Probe};

use rhumb_core::{Vector, VectorType};

use crate::bits::Bits;
use crate::error::ViewError;
use crate::kernels::{on_huge_pages, prefetch};
use crate::score::Scorer;

#[derive(Debug)]
pub struct Codes {
    ty: VectorType,
    /// Rows that have a vector.
    present: Bits,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Scaled(Scaled),
    Packed(Packed),
}

/// One int8 per dimension.
#[derive(Debug)]
pub(crate) struct Scaled {
    /// Codes per row, a multiple of the kernels' block.
    pub(crate) stride: usize,
    pub(crate) codes: Vec<i8>,
    pub(crate) rows: Vec<ScaledRow>,
    /// The codes are the vectors: a scan can score its finalists itself.
    pub(crate) exact: bool,
}

impl Scaled {
    /// A row's codes and figures are about to be read.
    #[inline]
    pub(crate) fn prefetch(&self, row: u32) {
        let row = row as usize;
        let (codes, figures) = (self.codes.get(row * self.stride..), self.rows.get(row));
        if let (Some(codes), Some(figures)) = (codes, figures) {
            prefetch(codes.as_ptr().cast(), self.stride);
            prefetch(std::ptr::from_ref(figures).cast(), size_of::<ScaledRow>());
        }
    }
}

/// x̃ = scale · code.  The other figures are in units of `scale`, which keeps vectors of
/// any size inside f32.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScaledRow {
    pub(crate) scale: f32,
    /// ‖x‖, to the nearest f32.
    pub(crate) norm: f32,
    /// ‖x − x̃‖ or more.
    pub(crate) error: f32,
    /// ‖x̃‖², exact.
    pub(crate) code_norm2: u32,
}

/// One bit per dimension.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Words per row.
    pub(crate) stride: usize,
    pub(crate) words: Vec<u64>,
}

/// The codes as a scan sees them.
#[derive(Clone, Copy)]
pub(crate) enum CodesRef<'a> {
    Scaled(&'a Scaled),
    Packed(&'a Packed),
}

impl Codes {
    /// One item per row, `None` where the document has no such vector.
    pub fn build<'a>(
        ty: &VectorType,
        vectors: impl Iterator<Item = Option<&'a Vector>>,
    ) -> Result<Self, ViewError> {
        let mut builder = CodesBuilder::new(ty, vectors.size_hint().0);
        for vector in vectors {
            builder.push(vector)?;
        }
        Ok(builder.finish())
    }

    pub fn rows(&self) -> u32 {
        self.present.len() as u32
    }

    /// True when a search over these codes needs no vectors to be fetched.
    pub fn is_exact(&self) -> bool {
        match &self.body {
            Body::Scaled(scaled) => scaled.exact,
            Body::Packed(_) => true,
        }
    }

    pub fn heap_size(&self) -> usize {
        let body = match &self.body {
            Body::Scaled(scaled) => scaled.codes.capacity() + scaled.rows.capacity() * size_of::<ScaledRow>(),
            Body::Packed(packed) => packed.words.capacity() * size_of::<u64>(),
        };
        self.present.heap_size() + body
    }

    /// How a field is indexed does not change its codes.
    pub fn is_of(&self, ty: &VectorType) -> bool {
        (self.ty.dim, self.ty.metric, self.ty.element) == (ty.dim, ty.metric, ty.element)
    }

    /// Finished: from now on they are only read.
    pub(crate) fn settled(self) -> Self {
        match &self.body {
            Body::Scaled(scaled) => on_huge_pages(&scaled.codes),
            Body::Packed(packed) => on_huge_pages(&packed.words),
        }
        self
    }

    pub(crate) fn present(&self) -> &Bits {
        &self.present
    }

    /// The row's score, when the codes are the vectors.
    pub(crate) fn own_score(&self, scorer: &Scorer<'_>, ordinal: u32) -> Option<f32> {
        match &self.body {
            Body::Scaled(scaled) if scaled.exact => {
                let codes = &scaled.codes[ordinal as usize * scaled.stride..];
                scorer.score_i8(&codes[..self.ty.dim as usize])
            }
            Body::Scaled(_) | Body::Packed(_) => None,
        }
    }

    pub(crate) fn body(&self) -> CodesRef<'_> {
        match &self.body {
            Body::Scaled(scaled) => CodesRef::Scaled(scaled),
            Body::Packed(packed) => CodesRef::Packed(packed),
        }
    }
}

/// Bits most significant first in bytes, eight bytes to a word, zeros past the end.
pub(crate) fn pack_words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(8).map(|bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_be_bytes(word)
    })
}
