//! Building codes row by row, from documents or from slices of a larger array.

use rhumb_core::{Element, Vector, VectorType};

use super::{Body, Codes, Packed, Scaled, ScaledRow, pack_words};
use crate::bits::Bits;
use crate::error::ViewError;
use crate::kernels::{CODE_BLOCK, Kernels, kernels};
use crate::keys::MAX_ROWS;

/// Takes the rows of one segment in ordinal order.  A refused row leaves it as it was.
#[derive(Debug)]
pub struct CodesBuilder {
    codes: Codes,
    kernels: &'static Kernels,
}

impl Codes {
    pub(crate) fn with_room(ty: &VectorType, rows: usize) -> Self {
        CodesBuilder::new(ty, rows).codes
    }

    /// Appends a row of other codes of the same type.
    pub(crate) fn push_row(&mut self, from: &Self, ordinal: u32) {
        let at = ordinal as usize;
        match (&mut self.body, &from.body) {
            (Body::Scaled(to), Body::Scaled(from)) => {
                to.codes
                    .extend_from_slice(&from.codes[at * from.stride..][..from.stride]);
                to.rows.push(from.rows[at]);
            }
            (Body::Packed(to), Body::Packed(from)) => {
                to.words
                    .extend_from_slice(&from.words[at * from.stride..][..from.stride]);
            }
            (Body::Scaled(_), Body::Packed(_)) | (Body::Packed(_), Body::Scaled(_)) => {
                unreachable!("codes of one type have one kind of body")
            }
        }
        self.present.push(from.present.get(at));
    }
}

impl CodesBuilder {
    /// `rows` is a hint.
    pub fn new(ty: &VectorType, rows: usize) -> Self {
        let dim = ty.dim as usize;
        let body = match ty.element {
            Element::F32 | Element::F16 | Element::Int8 => {
                let stride = dim.next_multiple_of(CODE_BLOCK);
                Body::Scaled(Scaled {
                    stride,
                    codes: Vec::with_capacity(rows * stride),
                    rows: Vec::with_capacity(rows),
                    exact: ty.element == Element::Int8,
                })
            }
            Element::Binary => {
                let stride = dim.div_ceil(u64::BITS as usize);
                Body::Packed(Packed {
                    stride,
                    words: Vec::with_capacity(rows * stride),
                })
            }
        };
        Self {
            codes: Codes {
                ty: *ty,
                present: Bits::none(0),
                body,
            },
            kernels: kernels(),
        }
    }

    pub fn push(&mut self, vector: Option<&Vector>) -> Result<(), ViewError> {
        match vector {
            None => self.push_missing(),
            Some(Vector::F32(vector)) => self.push_f32(vector),
            Some(Vector::I8(vector)) => self.push_i8(vector),
            Some(Vector::Bits(vector)) => self.push_bits(vector),
        }
    }

    pub fn push_missing(&mut self) -> Result<(), ViewError> {
        self.check(true)?;
        match &mut self.codes.body {
            Body::Scaled(scaled) => {
                scaled.codes.resize(scaled.codes.len() + scaled.stride, 0);
                scaled.rows.push(ScaledRow::default());
            }
            Body::Packed(packed) => packed.words.resize(packed.words.len() + packed.stride, 0),
        }
        self.codes.present.push(false);
        Ok(())
    }

    /// Elements must be finite: codes of anything else would bound nothing.
    pub fn push_f32(&mut self, vector: &[f32]) -> Result<(), ViewError> {
        self.check(vector.len() == self.codes.ty.dim as usize)?;
        let finite = vector.iter().all(|x| x.is_finite());
        match &mut self.codes.body {
            Body::Scaled(scaled) if finite && !scaled.exact => {
                let start = scaled.codes.len();
                scaled.codes.resize(start + scaled.stride, 0);
                let quantised = (self.kernels.quantise)(vector, &mut scaled.codes[start..][..vector.len()]);
                scaled.rows.push(ScaledRow {
                    scale: quantised.scale,
                    norm: quantised.norm2.sqrt() as f32,
                    // Over what was measured by more than the measuring can be off.
                    error: (quantised.error2.sqrt() * (1.0 + 1e-5) + 1e-9) as f32,
                    code_norm2: quantised.code_norm2,
                });
            }
            _ => return Err(ViewError::VectorShape),
        }
        self.codes.present.push(true);
        Ok(())
    }

    pub fn push_i8(&mut self, vector: &[i8]) -> Result<(), ViewError> {
        self.check(vector.len() == self.codes.ty.dim as usize)?;
        match &mut self.codes.body {
            Body::Scaled(scaled) if scaled.exact => {
                let end = scaled.codes.len() + scaled.stride;
                scaled.codes.extend_from_slice(vector);
                scaled.codes.resize(end, 0);
                let norm2: u32 = vector.iter().map(|&x| (i32::from(x) * i32::from(x)) as u32).sum();
                let norm = f64::from(norm2).sqrt() as f32;
                scaled.rows.push(ScaledRow {
                    scale: 1.0,
                    norm,
                    error: 0.0,
                    code_norm2: norm2,
                });
            }
            _ => return Err(ViewError::VectorShape),
        }
        self.codes.present.push(true);
        Ok(())
    }

    /// Bits past the dimension must be zero, as `Vector::Bits` has them.
    pub fn push_bits(&mut self, vector: &[u8]) -> Result<(), ViewError> {
        self.check(vector.len() == (self.codes.ty.dim as usize).div_ceil(8))?;
        match &mut self.codes.body {
            Body::Packed(packed) => packed.words.extend(pack_words(vector)),
            Body::Scaled(_) => return Err(ViewError::VectorShape),
        }
        self.codes.present.push(true);
        Ok(())
    }

    pub fn finish(mut self) -> Codes {
        match &mut self.codes.body {
            Body::Scaled(scaled) => {
                scaled.codes.shrink_to_fit();
                scaled.rows.shrink_to_fit();
            }
            Body::Packed(packed) => packed.words.shrink_to_fit(),
        }
        self.codes.settled()
    }

    fn check(&self, shape_fits: bool) -> Result<(), ViewError> {
        if !shape_fits {
            return Err(ViewError::VectorShape);
        }
        match self.codes.present.len() < MAX_ROWS {
            true => Ok(()),
            false => Err(ViewError::TooManyRows),
        }
    }
}
