//! From the rankings of several legs to one.
//!
//! * `rrf`: a hit's score is the sum over the legs of weight / (k + its rank there, from 1).
//!   Scores play no part, so legs need not be comparable.
//! * `score`: each leg's scores are stretched to 0–1 (its worst hit gets 0, its best 1; all
//!   get 1 when they are equal) and summed by weight.  Keeps how much better a hit is, but
//!   depends on how deep the leg was asked.
//!
//! A hit that a leg did not find gets nothing from it.  A leg of weight 0 takes no part: it
//! neither scores nor finds.  The order of the legs means nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Fuse {
    pub method: Method,
    /// One for each leg, finite, not negative, not all zero; empty means 1 for each.
    pub weights: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Rrf { k: u32 },
    Score,
}

impl Method {
    /// Cormack, Clarke and Büttcher found 60 good for all they tried.
    pub const USUAL: Self = Self::Rrf { k: 60 };
}

impl Default for Fuse {
    fn default() -> Self {
        Self {
            method: Method::USUAL,
            weights: Vec::new(),
        }
    }
}

/// The order of every ranking: the higher score, then the smaller id.
pub fn best_first<I: Ord>(a: (f32, I), b: (f32, I)) -> Ordering {
    b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1))
}

impl Fuse {
    /// One ranking of all that the legs found, best first.  Each leg is ranked already, has
    /// no id twice, and its scores are finite.
    pub fn fuse<I: Ord + Clone>(&self, legs: &[Vec<(I, f32)>]) -> Vec<(I, f32)> {
        let mut parts: BTreeMap<&I, Vec<f64>> = BTreeMap::new();
        for (at, leg) in legs.iter().enumerate() {
            let weight = f64::from(self.weights.get(at).copied().unwrap_or(1.0));
            if weight > 0.0 {
                for ((id, _), part) in leg.iter().zip(self.method.parts(leg)) {
                    parts.entry(id).or_default().push(weight * part);
                }
            }
        }
        let mut fused: Vec<(I, f32)> = parts
            .into_iter()
            .map(|(id, parts)| (id.clone(), sum(parts)))
            .collect();
        fused.sort_by(|a, b| best_first((a.1, &a.0), (b.1, &b.0)));
        fused
    }
}

/// The same whatever the order of the parts.
fn sum(mut parts: Vec<f64>) -> f32 {
    parts.sort_unstable_by(f64::total_cmp);
    parts.iter().sum::<f64>().min(f64::from(f32::MAX)) as f32
}

impl Method {
    /// What each hit of a leg is worth, from 0 to 1.
    fn parts<I>(self, leg: &[(I, f32)]) -> impl Iterator<Item = f64> {
        let best = leg.first().map_or(0.0, |(_, score)| f64::from(*score));
        let worst = leg.last().map_or(0.0, |(_, score)| f64::from(*score));
        let range = best - worst;
        leg.iter().enumerate().map(move |(at, (_, score))| match self {
            Self::Rrf { k } => 1.0 / (f64::from(k) + (at + 1) as f64),
            Self::Score if range > 0.0 => (f64::from(*score) - worst) / range,
            Self::Score => 1.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rrf(weights: &[f32]) -> Fuse {
        Fuse {
            method: Method::USUAL,
            weights: weights.to_vec(),
        }
    }

    fn by_score(weights: &[f32]) -> Fuse {
        Fuse {
            method: Method::Score,
            weights: weights.to_vec(),
        }
    }

    #[test]
    fn the_example_of_the_paper_comes_out() {
        let legs = [
            vec![("a", 9.0), ("b", 8.0), ("c", 7.0)],
            vec![("c", 0.9), ("b", 0.8)],
        ];
        let fused = rrf(&[]).fuse(&legs);
        let score = |parts: &[f64]| parts.iter().map(|rank| 1.0 / (60.0 + rank)).sum::<f64>() as f32;
        assert_eq!(
            fused,
            [
                ("c", score(&[1.0, 3.0])),
                ("b", score(&[2.0, 2.0])),
                ("a", score(&[1.0]))
            ]
        );
    }

    #[test]
    fn scores_are_stretched_to_one_measure() {
        let legs = [
            vec![("a", 30.0), ("b", 20.0), ("c", 10.0)],
            vec![("c", -1.0), ("b", -3.0)],
        ];
        assert_eq!(
            by_score(&[1.0, 2.0]).fuse(&legs),
            [("c", 2.0), ("a", 1.0), ("b", 0.5)]
        );
    }

    #[test]
    fn equal_scores_of_a_leg_are_all_its_best() {
        assert_eq!(
            by_score(&[]).fuse(&[vec![("b", 5.0), ("d", 5.0)], vec![("a", 1.0)]]),
            [("a", 1.0), ("b", 1.0), ("d", 1.0)]
        );
    }

    #[test]
    fn extremes_stay_finite() {
        let leg = vec![("a", f32::MAX), ("b", 0.0), ("c", f32::MIN)];
        for fuse in [rrf(&[f32::MAX, f32::MAX]), by_score(&[f32::MAX, f32::MAX])] {
            let fused = fuse.fuse(&[leg.clone(), leg.clone()]);
            assert!(fused.iter().all(|(_, score)| score.is_finite()), "{fused:?}");
            assert_eq!(fused[0].0, "a");
        }
        let none = Fuse {
            method: Method::Rrf { k: 0 },
            weights: Vec::new(),
        };
        assert_eq!(none.fuse(&[vec![("a", 1.0)], Vec::new()]), [("a", 1.0)]);
    }

    fn any_leg() -> impl Strategy<Value = Vec<(u8, f32)>> {
        prop::collection::btree_map(any::<u8>(), -100_i32..100, 0..40).prop_map(|scores| {
            let mut leg: Vec<(u8, f32)> = scores.into_iter().map(|(id, s)| (id, s as f32)).collect();
            leg.sort_by(|a, b| best_first((a.1, a.0), (b.1, b.0)));
            leg
        })
    }

    fn any_fuse(legs: usize) -> impl Strategy<Value = Fuse> {
        let method = prop_oneof![(0_u32..100).prop_map(|k| Method::Rrf { k }), Just(Method::Score)];
        (method, prop::collection::vec(0_u8..5, legs)).prop_map(|(method, weights)| Fuse {
            method,
            weights: weights.into_iter().map(f32::from).collect(),
        })
    }

    proptest! {
        #[test]
        fn the_outcome_is_every_found_id_once_in_order(
            (legs, fuse) in (1_usize..5).prop_flat_map(|n| (prop::collection::vec(any_leg(), n), any_fuse(n)))
        ) {
            let fused = fuse.fuse(&legs);
            let mut found: Vec<u8> = legs
                .iter()
                .zip(&fuse.weights)
                .filter(|(_, weight)| **weight > 0.0)
                .flat_map(|(leg, _)| leg.iter().map(|(id, _)| *id))
                .collect();
            found.sort_unstable();
            found.dedup();
            let mut ids: Vec<u8> = fused.iter().map(|(id, _)| *id).collect();
            prop_assert!(fused.is_sorted_by(|a, b| best_first((a.1, a.0), (b.1, b.0)).is_lt()));
            ids.sort_unstable();
            prop_assert_eq!(ids, found);
        }

        #[test]
        fn one_leg_keeps_its_order(leg in any_leg(), k in 0_u32..100) {
            let ids: Vec<u8> = leg.iter().map(|(id, _)| *id).collect();
            let fuse = Fuse { method: Method::Rrf { k }, weights: vec![2.0] };
            let fused: Vec<u8> = fuse.fuse(std::slice::from_ref(&leg)).into_iter().map(|(id, _)| id).collect();
            prop_assert_eq!(fused, ids.clone());
            let stretched: Vec<u8> = by_score(&[]).fuse(&[leg]).into_iter().map(|(id, _)| id).collect();
            prop_assert_eq!(stretched, ids);
        }

        #[test]
        fn legs_may_come_in_any_order(
            (legs, fuse, turn) in (2_usize..5)
                .prop_flat_map(|n| (prop::collection::vec(any_leg(), n), any_fuse(n), 0..n))
        ) {
            let (mut turned, mut weights) = (legs.clone(), fuse.weights.clone());
            turned.rotate_left(turn);
            weights.rotate_left(turn);
            let other = Fuse { method: fuse.method, weights };
            prop_assert_eq!(fuse.fuse(&legs), other.fuse(&turned));
        }

        #[test]
        fn who_is_better_in_every_leg_is_better_in_all(
            (legs, k) in (prop::collection::vec(any_leg(), 1..4), 0_u32..100)
        ) {
            let fuse = Fuse { method: Method::Rrf { k }, weights: Vec::new() };
            let fused = fuse.fuse(&legs);
            let rank = |leg: &Vec<(u8, f32)>, id: u8| leg.iter().position(|(other, _)| *other == id);
            for (a, b) in fused.iter().zip(fused.iter().skip(1)) {
                let beaten = legs.iter().all(|leg| match (rank(leg, a.0), rank(leg, b.0)) {
                    (Some(a), Some(b)) => b < a,
                    (None, Some(_)) => true,
                    (_, None) => false,
                });
                prop_assert!(!beaten, "{:?} before {:?}", a, b);
            }
        }
    }
}
