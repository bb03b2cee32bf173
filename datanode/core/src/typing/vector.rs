//! Vectors: from arrays or base64 to the element type they are stored with.
//!
//! f32 vectors are read as f64 and rounded once to f32.  Whatever is not finite after that
//! rounding is refused (F64): neither NaN nor an infinity ever reaches an index.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use half::f16;

use crate::json::Json;
use crate::problem::{Code, Problem};
use crate::schema::{Element, VectorType};
use crate::value::Vector;

/// The standard alphabet; padding may be left out.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A vector as a document holds it, in the element type of its field.
pub(super) fn stored(ty: &VectorType, json: Json) -> Result<Vector, Problem> {
    match json {
        Json::Str(text) => {
            let mut rows = decode(ty, &text, 1)?;
            rows.pop().ok_or_else(|| dimension_mismatch(ty, 0))
        }
        json => from_numbers(ty, json),
    }
}

/// A query's vector.  An int8 field may be asked with floats: the query keeps them.  An
/// f16 field is asked with unrounded f32.
pub fn query_vector(ty: &VectorType, json: Json) -> Result<Vector, Problem> {
    match ty.element {
        Element::F16 => stored(
            &VectorType {
                element: Element::F32,
                ..*ty
            },
            json,
        ),
        Element::Int8 => {
            let narrow = stored(ty, json.clone());
            narrow.or_else(|_| {
                stored(
                    &VectorType {
                        element: Element::F32,
                        ..*ty
                    },
                    json,
                )
            })
        }
        Element::F32 | Element::Binary => stored(ty, json),
    }
}

fn from_numbers(ty: &VectorType, json: Json) -> Result<Vector, Problem> {
    match json {
        Json::Floats(items) => from_iter(ty, items.len(), items.iter().copied()),
        Json::Ints(items) => from_iter(ty, items.len(), items.iter().map(|n| *n as f64)),
        Json::Array(items) => {
            check_dim(ty, items.len())?;
            let each = items.iter().map(|item| {
                item.as_f64().ok_or_else(|| {
                    Problem::new(
                        Code::TypeMismatch,
                        format!("a vector holds numbers, not {}", item.kind()),
                    )
                })
            });
            let items: Vec<f64> = each.collect::<Result<_, _>>()?;
            from_iter(ty, items.len(), items.iter().copied())
        }
        other => Err(Problem::new(
            Code::TypeMismatch,
            format!("a vector is a list of numbers, not {}", other.kind()),
        )
        .hint(FORMS)),
    }
}

const FORMS: &str = "send a list of numbers, or \"b64:\" and the base64 of little-endian f32";

fn from_iter(ty: &VectorType, len: usize, numbers: impl Iterator<Item = f64>) -> Result<Vector, Problem> {
    check_dim(ty, len)?;
    match ty.element {
        Element::F32 => finite(numbers.map(|x| x as f32).collect()),
        Element::F16 => finite(numbers.map(|x| f16::from_f64(x).to_f32()).collect()),
        Element::Int8 => Ok(Vector::I8(
            whole(numbers, i8::MIN.into(), i8::MAX.into())?.collect(),
        )),
        Element::Binary => Ok(Vector::Bits(pack(whole(numbers, 0.0, 1.0)?, len))),
    }
}

fn finite(vector: Arc<[f32]>) -> Result<Vector, Problem> {
    // Without an early exit, so that it runs on whole SIMD words.
    if vector.iter().fold(true, |all, x| all & x.is_finite()) {
        return Ok(Vector::F32(vector));
    }
    let at = vector.iter().position(|x| !x.is_finite()).unwrap_or_default();
    Err(Problem::new(
        Code::NotFinite,
        format!("element {at} is NaN, infinite or beyond the element type"),
    ))
}

/// Whole numbers from `low` to `high`, which lie within i8.
fn whole(
    numbers: impl Iterator<Item = f64>,
    low: f64,
    high: f64,
) -> Result<impl ExactSizeIterator<Item = i8>, Problem> {
    let mut elements = Vec::new();
    for (at, x) in numbers.enumerate() {
        if !x.is_finite() {
            return Err(Problem::new(
                Code::NotFinite,
                format!("element {at} is not finite"),
            ));
        }
        if x.fract() != 0.0 || x < low || x > high {
            let detail = format!("element {at} is {x}: this vector takes integers from {low} to {high}");
            return Err(Problem::new(Code::InvalidValue, detail));
        }
        elements.push(x as i8);
    }
    Ok(elements.into_iter())
}

fn pack(bits: impl Iterator<Item = i8>, len: usize) -> Arc<[u8]> {
    let mut bytes = vec![0_u8; len.div_ceil(8)];
    for (at, bit) in bits.enumerate() {
        bytes[at / 8] |= (bit as u8) << (7 - at % 8);
    }
    bytes.into()
}

fn check_dim(ty: &VectorType, found: usize) -> Result<(), Problem> {
    if found == ty.dim as usize {
        return Ok(());
    }
    Err(dimension_mismatch(ty, found))
}

fn dimension_mismatch(ty: &VectorType, found: usize) -> Problem {
    Problem::new(
        Code::DimensionMismatch,
        format!("the vector has {found} elements, the field takes {}", ty.dim),
    )
}

/// `rows` vectors, one after the other, from `b64:…`: little-endian f32; one byte an
/// element is taken for int8 too; packed bits for binary.
pub(super) fn decode(ty: &VectorType, text: &str, rows: usize) -> Result<Vec<Vector>, Problem> {
    let Some(encoded) = text.strip_prefix("b64:") else {
        return Err(Problem::new(Code::TypeMismatch, "a vector is not a plain string").hint(FORMS));
    };
    let bytes = BASE64
        .decode(encoded)
        .map_err(|e| Problem::new(Code::InvalidValue, format!("the vector is not base64: {e}")))?;
    let dim = ty.dim as usize;
    let per_row = match ty.element {
        Element::Binary => dim.div_ceil(8),
        // A row of bytes cannot be mistaken for a row of f32: it has a quarter of the length.
        Element::Int8 if bytes.len() == rows * dim => dim,
        Element::F32 | Element::F16 | Element::Int8 => dim * 4,
    };
    if bytes.len() != rows * per_row {
        let detail = format!(
            "base64 of {} bytes, but {rows} × {} takes {}",
            bytes.len(),
            ty.dim,
            rows * per_row
        );
        return Err(Problem::new(Code::DimensionMismatch, detail).hint(FORMS));
    }
    let many = rows > 1;
    // A dimension of 0 can only come from a corrupt schema; it must not panic.
    let each = bytes
        .chunks_exact(per_row.max(1))
        .enumerate()
        .map(|(row, bytes)| {
            let vector = from_bytes(ty, bytes);
            vector.map_err(|problem| {
                if many {
                    problem.within(&format!("[{row}]"))
                } else {
                    problem
                }
            })
        });
    each.collect()
}

fn from_bytes(ty: &VectorType, bytes: &[u8]) -> Result<Vector, Problem> {
    let dim = ty.dim as usize;
    let floats = || bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    match ty.element {
        Element::F32 => finite(floats().collect()),
        Element::Int8 if bytes.len() == dim => Ok(Vector::I8(bytes.iter().map(|b| *b as i8).collect())),
        Element::F16 | Element::Int8 => from_iter(ty, dim, floats().map(f64::from)),
        Element::Binary => {
            let tail_bits = bytes.len() * 8 - dim;
            let tail = bytes
                .last()
                .map_or(0, |last| last & ((1_u16 << tail_bits) - 1) as u8);
            if tail != 0 {
                let detail = format!("the {tail_bits} bits after the last dimension are not zero");
                return Err(Problem::new(Code::InvalidValue, detail));
            }
            Ok(Vector::Bits(bytes.into()))
        }
    }
}
