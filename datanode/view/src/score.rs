//! The one definition of a score: higher is better, always finite, the same bits on every
//! path and every processor.
//!
//! Sums are taken in f64 and rounded to f32 once.  Rounding keeps order, so a bound on
//! the true value, rounded the same way, bounds the score.

use std::borrow::Cow;

use rhumb_core::{Element, Metric, Vector, VectorType};

use crate::error::ViewError;
use crate::kernels::{Kernels, kernels};

/// Scores vectors of one field against one query.
#[derive(Clone, Debug)]
pub struct Scorer<'a> {
    metric: Metric,
    query: Query<'a>,
    norm2: f64,
    kernels: &'static Kernels,
}

#[derive(Clone, Debug)]
enum Query<'a> {
    Numbers(Cow<'a, [f32]>),
    Bits(&'a [u8]),
}

impl<'a> Scorer<'a> {
    /// An error when the query has another shape than the field.  An int8 field may be
    /// asked with f32 and the other way round; a binary one only with bits.
    pub fn new(ty: &VectorType, query: &'a Vector) -> Result<Self, ViewError> {
        let query = match (query, ty.element == Element::Binary) {
            (Vector::F32(query), false) => Query::Numbers(Cow::Borrowed(query)),
            (Vector::I8(query), false) => {
                Query::Numbers(query.iter().map(|&x| f32::from(x)).collect::<Vec<_>>().into())
            }
            (Vector::Bits(query), true) => Query::Bits(query),
            _ => return Err(ViewError::VectorShape),
        };
        let expected = match query {
            Query::Numbers(_) => ty.dim as usize,
            Query::Bits(_) => (ty.dim as usize).div_ceil(8),
        };
        let kernels = kernels();
        let (len, norm2) = match &query {
            Query::Numbers(query) => (query.len(), (kernels.dot)(query, query)),
            Query::Bits(query) => (query.len(), 0.0),
        };
        if len != expected || !norm2.is_finite() {
            return Err(ViewError::VectorShape);
        }
        Ok(Self {
            metric: ty.metric,
            query,
            norm2,
            kernels,
        })
    }

    /// `None` when the vector has another shape than the query.
    pub fn score(&self, vector: &Vector) -> Option<f32> {
        match (vector, &self.query) {
            (Vector::F32(vector), _) => self.score_f32(vector),
            (Vector::I8(vector), _) => self.score_i8(vector),
            (Vector::Bits(vector), Query::Bits(query)) if vector.len() == query.len() => {
                let differing = query.iter().zip(vector.iter()).map(|(q, v)| (q ^ v).count_ones());
                Some(hamming_score(differing.sum()))
            }
            (Vector::Bits(_), _) => None,
        }
    }

    /// As `score`, for a vector that is a slice of something larger.
    pub fn score_f32(&self, vector: &[f32]) -> Option<f32> {
        let query = self.numbers(vector.len())?;
        let kernels = self.kernels;
        Some(match self.metric {
            Metric::L2 => score_of(-(kernels.square_distance)(query, vector)),
            Metric::Cosine => self.cosine((kernels.dot)(query, vector), (kernels.dot)(vector, vector)),
            Metric::Dot | Metric::Hamming => score_of((kernels.dot)(query, vector)),
        })
    }

    /// As `score`, for a vector that is a slice of something larger.
    pub fn score_i8(&self, vector: &[i8]) -> Option<f32> {
        let query = self.numbers(vector.len())?;
        let kernels = self.kernels;
        Some(match self.metric {
            Metric::L2 => score_of(-(kernels.square_distance_i8)(query, vector)),
            Metric::Cosine => {
                let norm2: i64 = vector.iter().map(|&x| i64::from(x) * i64::from(x)).sum();
                self.cosine((kernels.dot_i8)(query, vector), norm2 as f64)
            }
            Metric::Dot | Metric::Hamming => score_of((kernels.dot_i8)(query, vector)),
        })
    }

    /// The query as numbers; `None` for bits.
    pub(crate) fn query(&self) -> Option<&[f32]> {
        match &self.query {
            Query::Numbers(query) => Some(query),
            Query::Bits(_) => None,
        }
    }

    pub(crate) fn norm2(&self) -> f64 {
        self.norm2
    }

    fn numbers(&self, len: usize) -> Option<&[f32]> {
        self.query().filter(|query| query.len() == len)
    }

    fn cosine(&self, dot: f64, norm2: f64) -> f32 {
        if self.norm2 == 0.0 || norm2 == 0.0 {
            return 0.0;
        }
        score_of((dot / (self.norm2 * norm2).sqrt()).clamp(-1.0, 1.0))
    }
}

/// `None` when the shapes do not fit each other or the field.
pub fn exact_score(ty: &VectorType, query: &Vector, vector: &Vector) -> Option<f32> {
    Scorer::new(ty, query).ok()?.score(vector)
}

/// Rounds to f32 inside its range; never minus zero, which would tie with zero and print
/// differently.
pub(crate) fn score_of(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32 + 0.0
}

pub(crate) fn hamming_score(differing: u32) -> f32 {
    score_of(-f64::from(differing))
}

#[cfg(test)]
mod tests {
    use rhumb_core::VectorIndex;

    use super::*;

    fn ty(dim: u32, metric: Metric, element: Element) -> VectorType {
        VectorType {
            dim,
            metric,
            element,
            index: VectorIndex::Auto,
        }
    }

    fn f32s(values: &[f32]) -> Vector {
        Vector::F32(values.into())
    }

    #[test]
    fn each_metric_has_its_score() {
        let (q, v) = (f32s(&[1.0, 2.0, 2.0]), f32s(&[2.0, 0.0, 4.0]));
        let score = |metric| exact_score(&ty(3, metric, Element::F32), &q, &v).expect("same shape");
        assert_eq!(score(Metric::Dot), 10.0);
        assert_eq!(score(Metric::L2), -9.0);
        assert_eq!(score(Metric::Cosine), (10.0 / (9.0f64 * 20.0).sqrt()) as f32);
        let bits = |byte: u8| Vector::Bits([byte, 0x80].into());
        let hamming = ty(9, Metric::Hamming, Element::Binary);
        assert_eq!(
            exact_score(&hamming, &bits(0b1010_0000), &bits(0b0110_0000)),
            Some(-2.0)
        );
    }

    #[test]
    fn zero_vectors_have_cosine_zero_and_no_score_is_minus_zero_or_out_of_range() {
        let zero = f32s(&[0.0, 0.0]);
        let huge = f32s(&[f32::MAX, f32::MAX]);
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            for (q, v) in [(&zero, &huge), (&huge, &zero), (&huge, &huge), (&zero, &zero)] {
                let score = exact_score(&ty(2, metric, Element::F32), q, v).expect("same shape");
                assert!(
                    score.is_finite() && score.to_bits() != (-0.0f32).to_bits(),
                    "{metric:?} {score}"
                );
            }
            assert_eq!(
                exact_score(&ty(2, Metric::Cosine, Element::F32), &zero, &huge),
                Some(0.0)
            );
        }
        assert_eq!(
            exact_score(&ty(2, Metric::Dot, Element::F32), &huge, &huge),
            Some(f32::MAX)
        );
    }

    #[test]
    fn other_shapes_have_no_score() {
        let three = ty(3, Metric::Dot, Element::F32);
        assert_eq!(exact_score(&three, &f32s(&[1.0, 2.0]), &f32s(&[1.0, 2.0])), None);
        assert_eq!(
            exact_score(&three, &f32s(&[1.0, 2.0, 3.0]), &f32s(&[1.0, 2.0])),
            None
        );
        assert_eq!(
            exact_score(&three, &f32s(&[1.0, 2.0, 3.0]), &Vector::Bits([1].into())),
            None
        );
    }

    #[test]
    fn an_int8_vector_scores_the_same_asked_with_either_kind_of_number() {
        let stored = Vector::I8([-128, 127, 3].into());
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let ty = ty(3, metric, Element::Int8);
            let ints = exact_score(&ty, &Vector::I8([1, -2, 100].into()), &stored);
            assert_eq!(ints, exact_score(&ty, &f32s(&[1.0, -2.0, 100.0]), &stored));
            assert!(ints.is_some());
        }
    }
}
