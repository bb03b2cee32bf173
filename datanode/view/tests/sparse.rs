//! Sparse searches are exact: fresh and sealed rows, deletions, filters, ties, any signs.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use rhumb_core::filter::{Leaf, Path, Test};
use rhumb_core::{DocId, Document, FieldName, FieldType, Filter, Seq, SparseVector, Value};
use rhumb_view::{Change, Snapshot, SparseIndexBuilder, SparseSpec, View, ViewError};
use roaring::RoaringBitmap;

use support::documents;
use support::{Base, Oracle, Row, name};

fn sparse(elements: Vec<(u32, f32)>) -> SparseVector {
    SparseVector::new(elements).expect("indices that differ")
}

fn load(base: &Base, snapshot: &Snapshot, field: &FieldName) {
    for segment in snapshot.missing_sparse(field.as_str()) {
        let mut builder = SparseIndexBuilder::new();
        for (_, _, document) in &base.fragments[segment.fragment() as usize].rows {
            let vector = match document.get(field.as_str()) {
                Some(Value::Sparse(vector)) => Some(vector),
                _ => None,
            };
            builder.push(vector).expect("few rows");
        }
        segment
            .attach_sparse(field.clone(), Arc::new(builder.finish()))
            .expect("as many rows");
    }
}

fn product(query: &SparseVector, vector: &SparseVector) -> Option<f32> {
    let mut sum = None;
    for (index, weight) in query.elements() {
        if let Some((_, value)) = vector.elements().iter().find(|(other, _)| other == index) {
            sum = Some(sum.unwrap_or(0.0) + f64::from(*weight) * f64::from(*value));
        }
    }
    // Never minus zero.
    sum.map(|sum: f64| sum.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32 + 0.0)
}

struct Rows {
    field: FieldName,
    base: Base,
    view: View,
    oracle: Oracle,
}

impl Rows {
    /// Two thirds in two segments, the rest fresh; some of the base deleted, some of it
    /// written again.
    fn new(vectors: Vec<Option<SparseVector>>) -> Self {
        let field = name("terms");
        let rows = vectors.len();
        let document = |i: usize, vector: Option<SparseVector>| {
            let mut fields = vec![(name("n"), Value::Int(i as i64 % 10))];
            fields.extend(vector.map(|vector| (field.clone(), Value::Sparse(vector))));
            Arc::new(Document::from_fields(fields))
        };
        let id = |i: usize| DocId::from((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut all: Vec<Row> = vectors
            .into_iter()
            .enumerate()
            .map(|(i, vector)| (id(i), Seq(i as u64 + 1), document(i, vector)))
            .collect();
        let fresh = all.split_off(rows * 2 / 3);
        let again: Vec<Row> = all
            .iter()
            .step_by(17)
            .map(|(id, seq, _)| {
                (
                    id.clone(),
                    Seq(seq.0 + rows as u64),
                    document(3, Some(sparse(vec![(1, 0.5)]))),
                )
            })
            .collect();
        let second = all.split_off(rows / 3);
        let mut base = Base::default();
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
            .chain(again)
            .map(|(id, seq, document)| Change {
                id,
                seq,
                document: Some(document),
            })
            .collect();
        for change in &changes {
            oracle.apply(&change.id, change.seq, change.document.clone(), 0);
        }
        view.apply(&changes);
        Self {
            field,
            base,
            view,
            oracle,
        }
    }

    fn expected(&self, query: &SparseVector, k: usize, filter: &Filter) -> Vec<(DocId, u32)> {
        let mut scored: Vec<(DocId, f32)> = Vec::new();
        for (id, (_, document)) in &self.oracle.live {
            if let Some(Value::Sparse(vector)) = document.get(self.field.as_str())
                && filter.matches(id, document)
            {
                scored.extend(product(query, vector).map(|score| (id.clone(), score)));
            }
        }
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        scored.truncate(k);
        scored
            .into_iter()
            .map(|(id, score)| (id, score.to_bits()))
            .collect()
    }

    fn check(&self, query: &SparseVector, k: usize) -> u64 {
        let snapshot = self.view.snapshot();
        load(&self.base, &snapshot, &self.field);
        let mut schema = documents::schema();
        schema.fields.insert(name("n"), schema.fields["lex"].clone());
        let few = Filter::Leaf(Leaf {
            path: Path::Field(name("n")),
            test: Test::Lt(Value::Int(2)),
        });
        let mut scanned = 0;
        for filter in [Filter::everything(), few] {
            let mask = (!filter.is_everything()).then(|| self.base.filter(&snapshot, &filter, &schema));
            let spec = SparseSpec {
                field: &self.field,
                query,
                k,
                mask: mask.as_ref(),
                cancel: &|| false,
            };
            let found = snapshot.search_sparse(&spec).expect("lists are loaded");
            let hits: Vec<(DocId, u32)> = found
                .hits
                .into_iter()
                .map(|hit| (hit.id, hit.score.to_bits()))
                .collect();
            assert_eq!(hits, self.expected(query, k, &filter), "k {k}, {query:?}");
            scanned = scanned.max(found.rows_scanned);
        }
        scanned
    }
}

/// Small numbers, so that scores tie; of both signs, so that they cancel.
fn vector() -> impl Strategy<Value = SparseVector> {
    let elements = prop::collection::btree_map(0_u32..12, -4_i8..8, 0..6);
    elements.prop_map(|elements| {
        sparse(
            elements
                .into_iter()
                .map(|(i, v)| (i, f32::from(v) / 4.0))
                .collect(),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn hits_are_those_of_brute_force(
        vectors in prop::collection::vec(prop::option::weighted(0.9, vector()), 0..400),
        query in vector(),
        k in 0_usize..40,
    ) {
        Rows::new(vectors).check(&query, k);
    }
}

/// As learned sparse encoders give them: few common indices of little weight, many rare
/// ones of much.
fn skewed(i: u32) -> SparseVector {
    let mut elements: Vec<(u32, f32)> = (0..8).map(|n| (n, 0.01 + (i % 7) as f32 * 0.001)).collect();
    elements.push((100 + i % 500, 2.0 + (i % 11) as f32));
    elements.push((1_000 + i % 37, 1.0));
    sparse(elements)
}

#[test]
fn many_rows_are_found_exactly_and_common_words_are_not_read_for_nothing() {
    let rows = Rows::new((0..30_000).map(|i| Some(skewed(i))).collect());
    let query = sparse(
        (0..8)
            .map(|n| (n, 1.0))
            .chain([(123, 1.5), (1_003, 0.5)])
            .collect(),
    );
    for k in [1, 10, 100, 1_000] {
        rows.check(&query, k);
    }
    let scanned = rows.check(&query, 10);
    assert!(scanned < 15_000, "{scanned} of 30,000 rows were looked at");
}

#[test]
fn extremes_stay_finite_and_exact() {
    let huge = sparse(vec![(0, f32::MAX), (1, f32::MAX), (u32::MAX, f32::MIN)]);
    let rows = Rows::new(vec![
        Some(huge.clone()),
        Some(sparse(vec![(0, 1e-38), (5, 1.0)])),
        Some(SparseVector::default()),
        None,
        Some(sparse(vec![(u32::MAX, f32::MIN)])),
    ]);
    rows.check(&huge, 10);
    rows.check(&sparse(vec![(7, 1.0)]), 10);
}

#[test]
fn a_search_says_what_is_missing_and_can_be_called_off() {
    let rows = Rows::new((0..3_000).map(|i| Some(skewed(i))).collect());
    let (snapshot, query) = (rows.view.snapshot(), skewed(1));
    let spec = |cancel| SparseSpec {
        field: &rows.field,
        query: &query,
        k: 10,
        mask: None,
        cancel,
    };
    let missing = snapshot
        .search_sparse(&spec(&|| false))
        .expect_err("nothing is loaded");
    assert!(matches!(missing, ViewError::NotLoaded { .. }));
    load(&rows.base, &snapshot, &rows.field);
    let cancelled = snapshot.search_sparse(&spec(&|| true)).expect_err("at once");
    assert_eq!(cancelled, ViewError::Cancelled);
    assert!(rows.view.heap_size().segments.sparse > 0);
}

#[test]
fn a_sparse_field_is_filtered_by_its_presence() {
    let mut schema = documents::schema();
    let field = name("terms");
    schema.fields.insert(
        field.clone(),
        rhumb_core::schema::Field {
            ty: FieldType::Sparse,
            declared: true,
        },
    );
    let rows = Rows::new((0..300).map(|i| (i % 3 != 0).then(|| skewed(i))).collect());
    let there = Filter::Leaf(Leaf {
        path: Path::Field(field),
        test: Test::Exists(true),
    });
    let snapshot = rows.view.snapshot();
    let mask = rows.base.filter(&snapshot, &there, &schema);
    assert_eq!(mask.count(), rows.oracle.matching(&there).len() as u64);
}
