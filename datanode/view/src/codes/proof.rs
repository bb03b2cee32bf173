//! Whether a vector can be a row's: what its code proves of its score.

use super::{Codes, CodesRef, Probe};
use crate::kernels::kernels;
use crate::score::{Scorer, score_of};

/// One query against the codes of one field.
pub struct Proof(Probe);

impl Proof {
    /// `None` for codes that are the vectors: there is nothing to prove.
    pub fn new(scorer: &Scorer<'_>, codes: &Codes) -> Option<Self> {
        match codes.body() {
            CodesRef::Scaled(scaled) if !scaled.exact => {
                Probe::new(codes.ty.metric, scorer, scaled).map(Self)
            }
            CodesRef::Scaled(_) | CodesRef::Packed(_) => None,
        }
    }

    /// False when no vector with this code scores so: what was read is not the row's vector.
    /// `codes` are of the field that the proof was made for.
    pub fn allows(&self, codes: &Codes, ordinal: u32, score: f32) -> bool {
        let CodesRef::Scaled(scaled) = codes.body() else {
            return true;
        };
        let Some(row) = scaled.rows.get(ordinal as usize) else {
            return false;
        };
        let mut dot = [0];
        (kernels().dot_rows)(&self.0.query, &scaled.codes, &[ordinal], &mut dot);
        let bounds = self.0.bounds(row, dot[0]);
        (score_of(bounds.low)..=score_of(bounds.high)).contains(&score)
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Element, Metric, Vector, VectorIndex, VectorType};

    use super::*;

    #[test]
    fn the_rows_own_vector_is_allowed_and_another_is_not() {
        let wave = |seed: f32| -> Vector {
            Vector::F32(
                (0..96)
                    .map(|i| (i as f32 * seed).sin())
                    .collect::<Vec<_>>()
                    .into(),
            )
        };
        let (query, own, other) = (wave(0.31), wave(0.7), wave(0.3));
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let ty = VectorType {
                dim: 96,
                metric,
                element: Element::F32,
                index: VectorIndex::Auto,
            };
            let codes = Codes::build(&ty, [Some(&other), Some(&own)].into_iter()).expect("same shape");
            let scorer = Scorer::new(&ty, &query).expect("same shape");
            let proof = Proof::new(&scorer, &codes).expect("codes of f32");
            let score = |vector| scorer.score(vector).expect("same shape");
            assert!(proof.allows(&codes, 1, score(&own)), "{metric:?}");
            assert!(!proof.allows(&codes, 1, score(&other)), "{metric:?}");
            assert!(!proof.allows(&codes, 2, score(&own)), "no such row");
        }
    }
}
