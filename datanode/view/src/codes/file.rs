//! Codes as a file, so that a restart loads them instead of reading every vector.

use crate::ann::{Reader, Writer, read_type, write_type};
use crate::bits::Bits;
use crate::error::ViewError;
use crate::kernels::CODE_BLOCK;

use super::{Body, Codes, Packed, Scaled, ScaledRow};

const MAGIC: &[u8; 4] = b"RhCo";

const SCALED: u32 = 0;
const EXACT: u32 = 1;
const PACKED: u32 = 2;

impl Codes {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        write_type(&mut writer, &self.ty);
        writer.u64(self.present.len() as u64);
        writer.u64s(self.present.words());
        match &self.body {
            Body::Scaled(scaled) => {
                writer.u32(if scaled.exact { EXACT } else { SCALED });
                writer.i8s(&scaled.codes);
                let column = |of: fn(&ScaledRow) -> f32| scaled.rows.iter().map(of).collect::<Vec<_>>();
                writer.f32s(&column(|row| row.scale));
                writer.f32s(&column(|row| row.norm));
                writer.f32s(&column(|row| row.error));
                writer.u32s(&scaled.rows.iter().map(|row| row.code_norm2).collect::<Vec<_>>());
            }
            Body::Packed(packed) => {
                writer.u32(PACKED);
                writer.u64s(&packed.words);
            }
        }
        writer.finish()
    }

    /// `Damaged` unless the bytes are whole codes of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ViewError> {
        let mut reader = Reader::new("codes", MAGIC, bytes)?;
        let ty = read_type(&mut reader)?;
        let rows = usize::try_from(reader.u64()?).map_err(|_| reader.damaged())?;
        let present = Bits::from_words(reader.u64s()?, rows).ok_or(reader.damaged())?;
        let dim = ty.dim as usize;
        let kind = reader.u32()?;
        let body = match kind {
            SCALED | EXACT => {
                let stride = dim.next_multiple_of(CODE_BLOCK);
                let codes = reader.i8s()?;
                let (scales, norms, errors) = (reader.f32s()?, reader.f32s()?, reader.f32s()?);
                let code_norms2 = reader.u32s()?;
                let lengths = [scales.len(), norms.len(), errors.len(), code_norms2.len()];
                reader.check(lengths.iter().all(|len| *len == rows))?;
                reader.check(rows.checked_mul(stride) == Some(codes.len()))?;
                let row = |at: usize| ScaledRow {
                    scale: scales[at],
                    norm: norms[at],
                    error: errors[at],
                    code_norm2: code_norms2[at],
                };
                Body::Scaled(Scaled {
                    stride,
                    codes,
                    rows: (0..rows).map(row).collect(),
                    exact: kind == EXACT,
                })
            }
            PACKED => {
                let stride = dim.div_ceil(u64::BITS as usize);
                let words = reader.u64s()?;
                reader.check(rows.checked_mul(stride) == Some(words.len()))?;
                Body::Packed(Packed { stride, words })
            }
            _ => return Err(reader.damaged()),
        };
        let codes = Self { ty, present, body };
        reader.check(codes.fits_its_element())?;
        reader.finish()?;
        Ok(codes.settled())
    }

    fn fits_its_element(&self) -> bool {
        use rhumb_core::Element;
        match (self.ty.element, &self.body) {
            (Element::F32 | Element::F16, Body::Scaled(scaled)) => !scaled.exact,
            (Element::Int8, Body::Scaled(scaled)) => scaled.exact,
            (Element::Binary, Body::Packed(_)) => true,
            (_, Body::Scaled(_) | Body::Packed(_)) => false,
        }
    }
}
