//! How far a score can be from what codes say of it.
//!
//! With q̃ and x̃ the quantised query and row, Cauchy and Schwarz give
//! `|q·x − q̃·x̃| ≤ ‖q − q̃‖·‖x‖ + ‖q̃‖·‖x − x̃‖`, and the triangle gives
//! `|‖q − x‖ − ‖q̃ − x̃‖| ≤ ‖q − q̃‖ + ‖x − x̃‖`.  q̃·x̃ is an integer sum, exact.  What f64
//! loses along the way is far below the slacks added here.

use rhumb_core::Metric;

use super::{Scaled, ScaledRow};
use crate::kernels::kernels;
use crate::score::Scorer;

/// Largest code of a query: 12 bits, so that 8,192 products with −128 still fit i32.
const QUERY_MAX: f64 = 2047.0;

/// Too large to have a fraction beside it.
const SHIFT: f64 = (1u64 << 52) as f64 * 1.5;

/// Covers the f32 rounding of a stored norm (2^-24) several times over.
const NORM_SLACK: f64 = 3e-7;

/// Covers f64 sums of 8,192 terms (1e-12) in the estimate and in the score itself.
const SUM_SLACK: f64 = 1e-11;

/// A query made ready for one field's codes.
#[derive(Debug)]
pub(crate) struct Probe {
    metric: Metric,
    /// Padded with zeros to the codes' stride.
    pub(crate) query: Vec<i16>,
    scale: f64,
    /// ‖q‖, ‖q̃‖ and at least ‖q − q̃‖.
    norm: f64,
    code_norm: f64,
    error: f64,
}

/// Where a score must lie before it is rounded, ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Bounds {
    fn around(estimate: f64, slack: f64) -> Self {
        Self {
            low: estimate - slack,
            high: estimate + slack,
        }
    }

    /// The middle `share` of it.
    pub(crate) fn within(self, share: f64) -> Self {
        let (middle, half) = ((self.low + self.high) / 2.0, (self.high - self.low) / 2.0);
        match share < 1.0 {
            true => Self::around(middle, half * share),
            false => self,
        }
    }
}

impl Probe {
    /// `None` for a query of bits.
    pub(crate) fn new(metric: Metric, scorer: &Scorer<'_>, codes: &Scaled) -> Option<Self> {
        let query = scorer.query()?;
        let largest = f64::from((kernels().extent)(query).largest);
        let limit = QUERY_MAX.min((f64::from(i32::MAX) / (128.0 * codes.stride.max(1) as f64)).floor());
        let whole = query.iter().all(|x| x.fract() == 0.0) && largest <= limit;
        let scale = if whole { 1.0 } else { largest / limit };
        let inverse = scale.recip();
        let mut quantised = vec![0; codes.stride];
        let (mut error2, mut code_norm2) = (0.0, 0.0);
        for (code, &x) in quantised.iter_mut().zip(query) {
            // Rounded by adding what leaves no room for a fraction; any integer near will do.
            let nearest = ((f64::from(x) * inverse + SHIFT) - SHIFT).clamp(-limit, limit);
            let lost = f64::from(x) - scale * nearest;
            error2 += lost * lost;
            code_norm2 += nearest * nearest;
            *code = nearest as i16;
        }
        let norm = scorer.norm2().sqrt();
        let error = error2.sqrt() * (1.0 + 1e-9) + norm * 1e-14;
        Some(Self {
            metric,
            query: quantised,
            scale,
            norm,
            code_norm: scale * code_norm2.sqrt(),
            error,
        })
    }

    /// `dot` is the integer sum of this query and that row.
    #[inline]
    pub(crate) fn bounds(&self, row: &ScaledRow, dot: i32) -> Bounds {
        match self.metric {
            Metric::Cosine => self.cosine(row, dot),
            Metric::L2 => self.l2(row, dot),
            Metric::Dot | Metric::Hamming => self.dot(row, dot),
        }
    }

    fn cosine(&self, row: &ScaledRow, dot: i32) -> Bounds {
        if row.norm == 0.0 || self.norm == 0.0 {
            return Bounds::around(0.0, 0.0);
        }
        let inverse = 1.0 / (self.norm * f64::from(row.norm));
        let estimate = self.scale * f64::from(dot) * inverse;
        let lost = (self.error * f64::from(row.norm) + self.code_norm * f64::from(row.error)) * inverse;
        Bounds::around(
            estimate,
            lost * (1.0 + NORM_SLACK) + estimate.abs() * NORM_SLACK + SUM_SLACK,
        )
    }

    fn dot(&self, row: &ScaledRow, dot: i32) -> Bounds {
        let (scale, norm) = (f64::from(row.scale), f64::from(row.norm) * (1.0 + NORM_SLACK));
        let estimate = self.scale * scale * f64::from(dot);
        let lost = scale * (self.error * norm + self.code_norm * f64::from(row.error));
        Bounds::around(
            estimate,
            lost * (1.0 + NORM_SLACK) + self.norm * scale * norm * SUM_SLACK,
        )
    }

    fn l2(&self, row: &ScaledRow, dot: i32) -> Bounds {
        let scale = f64::from(row.scale);
        let query2 = self.code_norm * self.code_norm;
        let row2 = scale * scale * f64::from(row.code_norm2);
        let distance2 = query2 + row2 - 2.0 * self.scale * scale * f64::from(dot);
        let slack = (query2 + row2) * 1e-14;
        let lost = self.error + scale * f64::from(row.error);
        let far = (distance2 + slack).max(0.0).sqrt() + lost;
        let near = ((distance2 - slack).max(0.0).sqrt() - lost).max(0.0);
        Bounds {
            low: -far * far * (1.0 + SUM_SLACK),
            high: -near * near * (1.0 - SUM_SLACK),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhumb_core::{Element, Vector, VectorIndex, VectorType};

    use super::*;
    use crate::codes::{Codes, CodesRef};
    use crate::score::score_of;

    fn numbers(dim: usize) -> impl Strategy<Value = Vec<f32>> {
        let size = prop_oneof![
            Just(0.0f32),
            Just(1.0),
            Just(1e-44),
            Just(1e-38),
            Just(1e-20),
            Just(1e20),
            Just(3e38)
        ];
        let unit = prop_oneof![4 => -1.0f32..1.0, 1 => Just(0.0f32), 1 => Just(1.0f32)];
        (size, proptest::collection::vec(unit, dim))
            .prop_map(|(size, v)| v.iter().map(|x| x * size).collect())
    }

    fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        (1usize..80)
            .prop_flat_map(|dim| (numbers(dim), numbers(dim), any::<bool>()))
            .prop_map(|(a, b, close)| {
                let near = a.iter().zip(&b).map(|(x, y)| x + y * 1e-3).collect();
                if close { (a, near) } else { (a, b) }
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_score_lies_within_its_bounds((query, row) in pair(), ints in any::<bool>()) {
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                let element = if ints { Element::Int8 } else { Element::F32 };
                let ty = VectorType { dim: query.len() as u32, metric, element, index: VectorIndex::Auto };
                let row: Vector = match ints {
                    true => Vector::I8(row.iter().map(|x| (x * 100.0) as i8).collect()),
                    false => Vector::F32(row.as_slice().into()),
                };
                let query = Vector::F32(query.as_slice().into());
                let scorer = Scorer::new(&ty, &query).expect("same shape");
                let codes = Codes::build(&ty, [Some(&row)].into_iter()).expect("same shape");
                let CodesRef::Scaled(scaled) = codes.body() else { unreachable!("numbers") };
                let probe = Probe::new(metric, &scorer, scaled).expect("numbers");
                let mut dot = [0];
                (kernels().dot_rows)(&probe.query, &scaled.codes, &[0], &mut dot);
                let bounds = probe.bounds(&scaled.rows[0], dot[0]);
                let score = scorer.score(&row).expect("same shape");
                let (low, high) = (score_of(bounds.low), score_of(bounds.high));
                prop_assert!(low <= score && score <= high, "{metric:?} {score} not in {bounds:?}");
            }
        }
    }

    #[test]
    fn bounds_of_ordinary_vectors_are_narrow() {
        let unit = |seed: f32| (0..384).map(|i| (i as f32 * seed).sin()).collect::<Vec<f32>>();
        let ty = VectorType {
            dim: 384,
            metric: Metric::Cosine,
            element: Element::F32,
            index: VectorIndex::Auto,
        };
        let (query, row) = (Vector::F32(unit(0.7).into()), Vector::F32(unit(1.3).into()));
        let scorer = Scorer::new(&ty, &query).expect("same shape");
        let codes = Codes::build(&ty, [Some(&row)].into_iter()).expect("same shape");
        let CodesRef::Scaled(scaled) = codes.body() else {
            unreachable!("numbers")
        };
        let probe = Probe::new(ty.metric, &scorer, scaled).expect("numbers");
        let mut dot = [0];
        (kernels().dot_rows)(&probe.query, &scaled.codes, &[0], &mut dot);
        let bounds = probe.bounds(&scaled.rows[0], dot[0]);
        assert!(bounds.high - bounds.low < 0.01, "{bounds:?}");
    }
}
