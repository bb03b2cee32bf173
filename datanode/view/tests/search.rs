//! Searches over thousands of rows are exact: every metric and element, ties, extremes.

mod support;

use std::sync::Arc;

use rhumb_core::filter::{Leaf, Path, Test};
use rhumb_core::query::Accuracy;
use rhumb_core::{
    DocId, Document, Element, FieldName, Filter, Metric, Seq, Value, Vector, VectorIndex, VectorType,
};
use rhumb_view::{Change, SearchSpec, View, ViewError};
use roaring::RoaringBitmap;

use support::documents::{self, Numbers};
use support::{Base, Oracle, Row, name};

const KINDS: [(Metric, Element); 10] = [
    (Metric::Cosine, Element::F32),
    (Metric::Dot, Element::F32),
    (Metric::L2, Element::F32),
    (Metric::Cosine, Element::F16),
    (Metric::Dot, Element::F16),
    (Metric::L2, Element::F16),
    (Metric::Cosine, Element::Int8),
    (Metric::Dot, Element::Int8),
    (Metric::L2, Element::Int8),
    (Metric::Hamming, Element::Binary),
];

struct Rows {
    field: FieldName,
    ty: VectorType,
    base: Base,
    view: View,
    oracle: Oracle,
}

impl Rows {
    /// Two thirds in two segments, the rest fresh; every 50th row has no vector, every
    /// 13th of the base is deleted.
    fn new(ty: VectorType, rows: u64, mut vector: impl FnMut(u64) -> Vector) -> Self {
        let field = name("v");
        let mut base = Base::default();
        let mut all: Vec<Row> = Vec::new();
        for i in 0..rows {
            let mut fields = vec![(name("n"), Value::Int(i as i64 % 10))];
            if i % 50 != 49 {
                fields.push((field.clone(), Value::Vector(vector(i))));
            }
            // Ids in another order than the rows, so that ties are not broken by position.
            let id = DocId::from(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            all.push((id, Seq(i + 1), Arc::new(Document::from_fields(fields))));
        }
        let fresh = all.split_off(rows as usize * 2 / 3);
        let second = all.split_off(rows as usize / 3);
        for part in [all, second] {
            let deleted = (0..part.len() as u32)
                .filter(|i| i % 13 == 5)
                .collect::<RoaringBitmap>();
            base.add(part, deleted);
        }
        let mut oracle = Oracle {
            live: base.live(),
            ..Oracle::default()
        };
        let view = base.open();
        let changes: Vec<Change> = fresh
            .into_iter()
            .map(|(id, seq, document)| Change {
                id,
                seq,
                document: Some(document),
            })
            .collect();
        changes
            .iter()
            .for_each(|change| oracle.apply(&change.id, change.seq, change.document.clone(), 0));
        view.apply(&changes);
        Self {
            field,
            ty,
            base,
            view,
            oracle,
        }
    }

    fn check(&self, query: &Vector, k: usize) -> u64 {
        let snapshot = self.view.snapshot();
        let filters = [
            Filter::everything(),
            Filter::Leaf(Leaf {
                path: Path::Field(name("n")),
                test: Test::Lt(Value::Int(3)),
            }),
        ];
        let mut schema = documents::schema();
        schema.fields.insert(name("n"), schema.fields["lex"].clone());
        let mut scanned = 0;
        for filter in &filters {
            let mask = (!filter.is_everything()).then(|| self.base.filter(&snapshot, filter, &schema));
            let spec = SearchSpec {
                field: &self.field,
                ty: &self.ty,
                query,
                k,
                mask: mask.as_ref(),
                accuracy: Accuracy::Exact,
                cancel: &|| false,
            };
            let hits = self.base.search(&snapshot, &spec);
            let found: Vec<(DocId, u32)> = hits
                .into_iter()
                .map(|hit| (hit.id, hit.score.to_bits()))
                .collect();
            assert_eq!(found, self.oracle.nearest(&spec, filter), "{:?} k {k}", self.ty);
            let candidates = snapshot.search(&spec).expect("loaded");
            scanned = scanned.max(candidates.uncertain.len() as u64);
        }
        scanned
    }
}

fn ty(dim: u32, metric: Metric, element: Element) -> VectorType {
    VectorType {
        dim,
        metric,
        element,
        index: VectorIndex::Auto,
    }
}

/// Values of f16 come to the view already rounded.
fn rounded(element: Element, vector: Vector) -> Vector {
    match (element, vector) {
        (Element::F16, Vector::F32(v)) => {
            Vector::F32(v.iter().map(|x| (x * 1024.0).round() / 1024.0).collect())
        }
        (_, vector) => vector,
    }
}

#[test]
fn searches_are_exact_for_every_metric_element_and_width() {
    for (metric, element) in KINDS {
        for dim in [1, 2, 31, 32, 100] {
            let mut numbers = Numbers(u64::from(dim));
            let rows = Rows::new(ty(dim, metric, element), 900, |_| {
                rounded(element, documents::vector(&mut numbers, dim, element))
            });
            let mut numbers = Numbers(99);
            for k in [1, 10, 250, 10_000] {
                rows.check(&documents::vector(&mut numbers, dim, element), k);
            }
            if element == Element::Int8 {
                rows.check(&documents::vector(&mut numbers, dim, Element::F32), 10);
            }
        }
    }
}

#[test]
fn ties_go_to_the_smaller_id_even_when_all_rows_are_the_same() {
    for (metric, element) in KINDS {
        let mut numbers = Numbers(3);
        let one = documents::vector(&mut numbers, 16, element);
        let rows = Rows::new(ty(16, metric, element), 4_000, |_| one.clone());
        for k in [1, 7, 2_000] {
            rows.check(&one, k);
            rows.check(&documents::vector(&mut numbers, 16, element), k);
        }
    }
}

#[test]
fn zero_queries_and_zero_rows_are_ordinary() {
    for (metric, element) in KINDS {
        let zero = match element {
            Element::F32 | Element::F16 => Vector::F32([0.0; 16].into()),
            Element::Int8 => Vector::I8([0; 16].into()),
            Element::Binary => Vector::Bits([0; 2].into()),
        };
        let mut numbers = Numbers(5);
        let rows = Rows::new(ty(16, metric, element), 1_500, |i| match i % 2 {
            0 => zero.clone(),
            _ => documents::vector(&mut numbers, 16, element),
        });
        rows.check(&zero, 10);
        rows.check(&documents::vector(&mut Numbers(8), 16, element), 1_200);
    }
}

#[test]
fn norms_from_the_smallest_to_the_largest_do_not_upset_the_order() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let sizes = [1e-45f32, 1e-40, 1e-30, 1e-10, 1.0, 1e10, 1e30, 3e38];
        let mut numbers = Numbers(11);
        let mut vector = |size: f32| Vector::F32((0..24).map(|_| numbers.unit() * size).collect());
        let rows = Rows::new(ty(24, metric, Element::F32), 1_200, |i| {
            vector(sizes[i as usize % sizes.len()])
        });
        let mut numbers = Numbers(12);
        for size in sizes {
            rows.check(&Vector::F32((0..24).map(|_| numbers.unit() * size).collect()), 20);
        }
    }
}

#[test]
fn near_duplicates_around_the_query_are_told_apart() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let mut numbers = Numbers(21);
        let centre: Vec<f32> = (0..48).map(|_| numbers.unit() + 100.0).collect();
        let mut near = |_| Vector::F32(centre.iter().map(|x| x + numbers.unit() * 1e-5).collect());
        let rows = Rows::new(ty(48, metric, Element::F32), 1_500, &mut near);
        rows.check(&Vector::F32(centre.as_slice().into()), 10);
    }
}

#[test]
fn ordinary_vectors_leave_few_rows_to_fetch() {
    let mut numbers = Numbers(31);
    let mut vector = || Vector::F32((0..384).map(|_| numbers.unit()).collect());
    let rows = Rows::new(ty(384, Metric::Cosine, Element::F32), 6_000, |_| vector());
    let fetched = rows.check(&Vector::F32((0..384).map(|i| (i as f32).sin()).collect()), 10);
    assert!((1..200).contains(&fetched), "{fetched} rows");
}

#[test]
fn rows_that_die_between_searches_are_no_hits_any_more() {
    for (metric, element) in KINDS {
        let mut numbers = Numbers(51);
        let mut rows = Rows::new(ty(20, metric, element), 6_000, |_| {
            documents::vector(&mut numbers, 20, element)
        });
        let query = documents::vector(&mut Numbers(52), 20, element);
        for round in 0..4 {
            rows.check(&query, 30);
            let best: Vec<DocId> = {
                let spec = SearchSpec {
                    field: &rows.field,
                    ty: &rows.ty,
                    query: &query,
                    k: 30,
                    mask: None,
                    accuracy: Accuracy::Exact,
                    cancel: &|| false,
                };
                rows.oracle
                    .nearest(&spec, &Filter::everything())
                    .into_iter()
                    .map(|(id, _)| id)
                    .collect()
            };
            let mut numbers = Numbers(round);
            let change = |(at, id): (usize, DocId)| {
                let vector = Value::Vector(documents::vector(&mut numbers, 20, element));
                let document = Document::from_fields(vec![(rows.field.clone(), vector)]);
                let document = (at % 2 == 0).then(|| Arc::new(document));
                Change {
                    id,
                    seq: Seq(10_000 * (round + 1) + at as u64),
                    document,
                }
            };
            let changes: Vec<Change> = best.into_iter().enumerate().map(change).collect();
            for change in &changes {
                rows.oracle
                    .apply(&change.id, change.seq, change.document.clone(), 0);
            }
            rows.view.apply(&changes);
        }
    }
}

#[test]
fn a_search_that_cannot_answer_says_why() {
    let mut numbers = Numbers(41);
    let kind = ty(8, Metric::Cosine, Element::F32);
    let rows = Rows::new(kind, 5_000, |_| documents::vector(&mut numbers, 8, Element::F32));
    let snapshot = rows.view.snapshot();
    let query = documents::vector(&mut Numbers(1), 8, Element::F32);
    let spec = SearchSpec {
        field: &rows.field,
        ty: &kind,
        query: &query,
        k: 3,
        mask: None,
        accuracy: Accuracy::Exact,
        cancel: &|| false,
    };
    let not_loaded = ViewError::NotLoaded {
        fragment: 0,
        field: rows.field.clone(),
    };
    assert_eq!(snapshot.search(&spec).err(), Some(not_loaded));
    rows.base.load_codes(&snapshot, &rows.field, &kind);
    assert_eq!(
        snapshot
            .search(&SearchSpec {
                cancel: &|| true,
                ..spec
            })
            .err(),
        Some(ViewError::Cancelled)
    );
    let late = std::cell::Cell::new(0);
    let third = || {
        late.set(late.get() + 1);
        late.get() > 3
    };
    assert_eq!(
        snapshot
            .search(&SearchSpec {
                cancel: &third,
                ..spec
            })
            .err(),
        Some(ViewError::Cancelled)
    );
    let short = Vector::F32([1.0; 7].into());
    assert_eq!(
        snapshot
            .search(&SearchSpec {
                query: &short,
                ..spec
            })
            .err(),
        Some(ViewError::VectorShape)
    );
    let other = ty(8, Metric::L2, Element::F32);
    assert_eq!(
        snapshot.search(&SearchSpec { ty: &other, ..spec }).err(),
        Some(ViewError::VectorShape)
    );
    let candidates = snapshot.search(&spec).expect("loaded");
    let missing = candidates.uncertain[0];
    assert_eq!(candidates.finish(&[]).err(), Some(ViewError::Unscored(missing)));
    let none = snapshot.search(&SearchSpec { k: 0, ..spec }).expect("loaded");
    assert_eq!(none.finish(&[]), Ok(Vec::new()));
}
