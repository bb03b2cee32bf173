//! BM25 in integers.
//!
//! A score is a sum of one contribution per list; contributions are rounded to whole
//! units, and sums of whole numbers do not depend on their order.  So bounds, pruning,
//! split or fresh never change a bit of a score.

use tantivy::fieldnorm::FieldNormReader;

const K1: f32 = 1.2;
const B: f32 = 0.75;
/// The largest score of a query in units; leaves room for rounding up.
const TOP_UNITS: f64 = (1u64 << 31) as f64;

pub(crate) fn norm_id(length: u32) -> u8 {
    FieldNormReader::fieldnorm_to_id(length)
}

/// How rare a term is: `docs` have the field, `found` of them the term.
pub(crate) fn idf(found: u64, docs: u64) -> f32 {
    let found = found.min(docs);
    let x = ((docs - found) as f64 + 0.5) / (found as f64 + 0.5);
    x.ln_1p() as f32
}

/// Documents that have the field, and its tokens in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldStats {
    pub(crate) docs: u64,
    pub(crate) tokens: u64,
}

impl FieldStats {
    pub(crate) fn add(&mut self, other: Self) {
        self.docs += other.docs;
        self.tokens += other.tokens;
    }

    pub(crate) fn remove(&mut self, other: Self) {
        self.docs -= other.docs;
        self.tokens -= other.tokens;
    }
}

/// What a field's length takes off, by norm id.
pub(crate) struct Norms([f32; 256]);

impl Norms {
    pub(crate) fn of(stats: FieldStats) -> Self {
        let average = stats.tokens.max(1) as f32 / stats.docs.max(1) as f32;
        let of = |id: usize| {
            let length = FieldNormReader::id_to_fieldnorm(id as u8) as f32;
            K1 * (1.0 - B + B * length / average)
        };
        Self(std::array::from_fn(of))
    }
}

/// Units per point of score, chosen for one query from the most it can give.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale(f64);

impl Scale {
    pub(crate) fn of(weights: impl Iterator<Item = f32>) -> Self {
        let most: f64 = weights.map(|w| f64::from(w) * f64::from(K1 + 1.0)).sum();
        Self(if most > 0.0 { TOP_UNITS / most } else { 1.0 })
    }

    pub(crate) fn score(self, units: u32) -> f32 {
        (f64::from(units) / self.0) as f32
    }
}

/// What one list gives to a row: at most `scaled`, growing with the term's frequency and
/// shrinking with the field's length, monotone in both whatever is rounded.
#[derive(Clone, Copy)]
pub(crate) struct Weight<'n> {
    scaled: f32,
    norms: &'n Norms,
}

impl<'n> Weight<'n> {
    pub(crate) fn new(weight: f32, scale: Scale, norms: &'n Norms) -> Self {
        let scaled = (f64::from(weight) * f64::from(K1 + 1.0) * scale.0) as f32;
        Self { scaled, norms }
    }

    #[inline]
    pub(crate) fn units(&self, frequency: u32, norm: u8) -> u32 {
        let norm = self.norms.0[norm as usize];
        (self.scaled / (1.0 + norm / frequency as f32)) as u32
    }

    /// For frequency 1, which nearly all postings of short texts have.
    pub(crate) fn table(&self) -> [u32; 256] {
        std::array::from_fn(|norm| self.units(1, norm as u8))
    }
}

/// The shortest field per frequency (1, 2, 3, more) that a list has, and its largest
/// frequency: enough to bound what it can give under any statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peaks {
    pub(crate) shortest: [u8; 4],
    pub(crate) most: u32,
}

impl Peaks {
    pub(crate) const NONE: Self = Self {
        shortest: [u8::MAX; 4],
        most: 0,
    };

    pub(crate) fn see(&mut self, frequency: u32, norm: u8) {
        let class = &mut self.shortest[frequency.clamp(1, 4) as usize - 1];
        *class = norm.min(*class);
        self.most = self.most.max(frequency);
    }

    pub(crate) fn bound(&self, weight: &Weight<'_>) -> u32 {
        let of = |frequency: u32| {
            let norm = self.shortest[frequency.min(4) as usize - 1];
            weight.units(frequency, norm)
        };
        let few = (1..=self.most.min(3)).map(of);
        few.chain((self.most > 3).then(|| of(self.most)))
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_posting_gives_more_than_its_peaks_say(
            postings in proptest::collection::vec((1u32..40, any::<u8>()), 1..40),
            docs in 1u64..1_000_000, length in 1u64..500, weight in 0.001f32..50.0,
        ) {
            let norms = Norms::of(FieldStats { docs, tokens: docs * length });
            let weight = Weight::new(weight, Scale::of([weight].into_iter()), &norms);
            let mut peaks = Peaks::NONE;
            postings.iter().for_each(|&(frequency, norm)| peaks.see(frequency, norm));
            let most = postings.iter().map(|&(frequency, norm)| weight.units(frequency, norm)).max();
            prop_assert!(peaks.bound(&weight) >= most.expect("not empty"));
        }

        #[test]
        fn units_say_what_the_formula_says(
            frequency in 1u32..100, length in 0u32..40, found in 1u64..1000, average in 1u64..60,
        ) {
            let docs = 1_000;
            let stats = FieldStats { docs, tokens: docs * average };
            let norms = Norms::of(stats);
            let idf = idf(found, docs);
            let scale = Scale::of([idf].into_iter());
            let units = Weight::new(idf, scale, &norms).units(frequency, norm_id(length));
            let (tf, dl, avg) = (f64::from(frequency), f64::from(length), average as f64);
            let expected = f64::from(idf) * 2.2 * tf / (tf + 1.2 * (0.25 + 0.75 * dl / avg));
            prop_assert!((f64::from(scale.score(units)) - expected).abs() <= 1e-6 * f64::from(idf).max(1e-3) + 1e-6 * expected);
        }
    }
}
