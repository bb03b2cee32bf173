//! Approximate searches against brute force: recall where it is promised, and for any
//! vectors no wrong row and no wrong score.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rhumb_core::filter::{Leaf, Path, Test};
use rhumb_core::query::Accuracy;
use rhumb_core::{
    DocId, Document, Element, FieldName, Filter, Metric, Schema, Seq, Value, Vector, VectorIndex, VectorType,
};
use rhumb_view::{CalibrationQuery, Change, GridTrainer, ListsBuilder, SearchSpec, View};
use roaring::RoaringBitmap;

use support::documents::{self, Numbers};
use support::{Base, Oracle, Row, name};

const ROWS: u64 = 9_000;

struct Rows {
    field: FieldName,
    ty: VectorType,
    schema: Schema,
    base: Base,
    view: View,
    oracle: Oracle,
}

impl Rows {
    /// Two segments, one row in 13 of them deleted, a sixth of all rows fresh, of which
    /// the last hundred stand in no list; every 50th row has no vector.
    fn new(ty: VectorType, mut vector: impl FnMut(u64) -> (Vector, i64)) -> Self {
        let field = name("v");
        let mut base = Base::default();
        let mut all: Vec<Row> = Vec::new();
        for i in 0..ROWS {
            let (vector, cluster) = vector(i);
            let mut fields = vec![
                (
                    name("any"),
                    Value::Int((i.wrapping_mul(0x9e37_79b9) >> 7) as i64 % 100),
                ),
                (name("cluster"), Value::Int(cluster)),
            ];
            if i % 50 != 49 {
                fields.push((field.clone(), Value::Vector(vector)));
            }
            all.push((
                DocId::from(i),
                Seq(i + 1),
                Arc::new(Document::from_fields(fields)),
            ));
        }
        let fresh = all.split_off(ROWS as usize * 5 / 6);
        let second = all.split_off(ROWS as usize / 3);
        for part in [all, second] {
            let deleted = (0..part.len() as u32)
                .filter(|i| i % 13 == 5)
                .collect::<RoaringBitmap>();
            base.add(part, deleted);
        }
        let oracle = Oracle {
            live: base.live(),
            ..Oracle::default()
        };
        let mut schema = documents::schema();
        for int in ["any", "cluster"] {
            schema.fields.insert(name(int), schema.fields["lex"].clone());
        }
        let mut rows = Self {
            view: base.open(),
            field,
            ty,
            schema,
            base,
            oracle,
        };
        rows.list(&fresh);
        rows
    }

    fn list(&mut self, fresh: &[Row]) {
        let snapshot = self.view.snapshot();
        let mut trainer = GridTrainer::new(&self.ty, 1, ROWS as usize, 3).expect("lists are for this type");
        for (_, document) in self.oracle.live.values() {
            if let Some(Value::Vector(vector)) = document.get("v") {
                trainer.push(vector).expect("the field's shape");
            }
        }
        let grid = Arc::new(trainer.train(&|| false).expect("not cancelled").expect("rows"));
        for segment in snapshot.missing_lists("v", &grid) {
            let mut builder = ListsBuilder::new(grid.clone(), segment.len());
            for (ordinal, (_, _, document)) in
                (0..).zip(&self.base.fragments[segment.fragment() as usize].rows)
            {
                if let Some(Value::Vector(vector)) = document.get("v") {
                    builder.push(ordinal, Some(vector)).expect("the field's shape");
                }
            }
            segment
                .attach_lists(self.field.clone(), Arc::new(builder.finish()))
                .expect("as many rows");
        }
        self.view.set_grid(&self.field, Some(grid));
        let (listed, late) = fresh.split_at(fresh.len() - 100);
        // By and by, so that there are several stretches.
        for part in listed.chunks(400).chain([late]) {
            self.view
                .list_fresh(&self.field, &|| false)
                .expect("not cancelled");
            self.write(part);
        }
    }

    fn write(&mut self, rows: &[Row]) {
        let change = |(id, seq, document): &Row| Change {
            id: id.clone(),
            seq: *seq,
            document: Some(document.clone()),
        };
        let changes: Vec<Change> = rows.iter().map(change).collect();
        for change in &changes {
            self.oracle
                .apply(&change.id, change.seq, change.document.clone(), 0);
        }
        self.view.apply(&changes);
    }

    fn calibrate(&self, queries: &[Vector]) {
        let snapshot = self.view.snapshot();
        self.base.load_codes(&snapshot, &self.field, &self.ty);
        let grid = self.view.grid("v").expect("set");
        let query = |vector: &Vector| CalibrationQuery {
            vector: vector.clone(),
            source: None,
        };
        let queries: Vec<_> = queries.iter().map(query).collect();
        let measured = snapshot
            .calibrate(&self.field, &grid, &queries, &|| false)
            .expect("loaded");
        grid.calibrate(measured.expect("hits"));
    }

    /// The share of the true best k that was found, over all queries; every hit is checked.
    fn recall(&self, queries: &[Vector], k: usize, filter: &Filter, accuracy: Accuracy) -> (f64, u64) {
        let snapshot = self.view.snapshot();
        let mask = (!filter.is_everything()).then(|| self.base.filter(&snapshot, filter, &self.schema));
        let (mut found, mut wanted, mut estimated) = (0, 0, 0);
        for query in queries {
            let spec = SearchSpec {
                field: &self.field,
                ty: &self.ty,
                query,
                k,
                mask: mask.as_ref(),
                accuracy,
                cancel: &|| false,
            };
            let hits = self.base.search(&snapshot, &spec);
            let all: Vec<(DocId, u32)> = self.oracle.nearest(
                &SearchSpec {
                    k: usize::MAX,
                    ..spec
                },
                filter,
            );
            assert_eq!(hits.len(), k.min(all.len()));
            assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
            let scores: BTreeMap<&DocId, u32> = all.iter().map(|(id, score)| (id, *score)).collect();
            let ids: BTreeSet<&DocId> = hits.iter().map(|hit| &hit.id).collect();
            assert_eq!(ids.len(), hits.len(), "nobody twice");
            assert!(
                hits.iter()
                    .all(|hit| scores.get(&hit.id) == Some(&hit.score.to_bits()))
            );
            let best = &all[..k.min(all.len())];
            // Of equals any will do.
            let last = best.last().map(|(_, score)| f32::from_bits(*score));
            found += hits.iter().filter(|hit| Some(hit.score) >= last).count();
            wanted += best.len();
            estimated += snapshot.search(&spec).expect("loaded").rows_estimated;
        }
        (
            found as f64 / wanted.max(1) as f64,
            estimated / queries.len() as u64,
        )
    }
}

fn less(field: &str, than: i64) -> Filter {
    Filter::Leaf(Leaf {
        path: Path::Field(name(field)),
        test: Test::Lt(Value::Int(than)),
    })
}

fn ty(dim: u32, metric: Metric, element: Element) -> VectorType {
    VectorType {
        dim,
        metric,
        element,
        index: VectorIndex::Auto,
    }
}

fn normal(numbers: &mut Numbers) -> f32 {
    (0..4).map(|_| numbers.unit()).sum::<f32>() * 0.87
}

fn of(element: Element, vector: Vec<f32>) -> Vector {
    match element {
        Element::Int8 => Vector::I8(
            vector
                .iter()
                .map(|x| (x * 30.0).clamp(-127.0, 127.0) as i8)
                .collect(),
        ),
        Element::F16 => Vector::F32(vector.iter().map(|x| (x * 256.0).round() / 256.0).collect()),
        Element::F32 | Element::Binary => Vector::F32(vector.into()),
    }
}

/// 100 clusters of unequal spread along few directions, and noise in all of them.
struct Clusters {
    numbers: Numbers,
    centres: Vec<Vec<f32>>,
    factors: Vec<Vec<f32>>,
    element: Element,
}

impl Clusters {
    fn new(dim: u32, element: Element) -> Self {
        let mut numbers = Numbers(u64::from(dim));
        let mut many = |n: usize| -> Vec<Vec<f32>> {
            (0..n)
                .map(|_| (0..dim).map(|_| normal(&mut numbers)).collect())
                .collect()
        };
        let (centres, factors) = (many(100), many(12));
        Self {
            numbers,
            centres,
            factors,
            element,
        }
    }

    fn vector(&mut self, cluster: Option<usize>) -> Vector {
        let mut vector = match cluster {
            Some(cluster) => self.centres[cluster].clone(),
            None => self.centres[0]
                .iter()
                .map(|_| normal(&mut self.numbers))
                .collect(),
        };
        for factor in &self.factors {
            let weight = 0.4 * normal(&mut self.numbers);
            vector.iter_mut().zip(factor).for_each(|(x, f)| *x += weight * f);
        }
        vector
            .iter_mut()
            .for_each(|x| *x += 0.4 * normal(&mut self.numbers));
        of(self.element, vector)
    }

    /// Every tenth outside of all clusters.
    fn queries(&mut self, n: usize) -> Vec<Vector> {
        (0..n)
            .map(|i| self.vector((i % 10 != 9).then_some(i * 7 % 100)))
            .collect()
    }
}

#[test]
fn recall_holds_for_every_metric_element_and_filter() {
    let kinds = [
        (64, Metric::Cosine, Element::F32),
        (64, Metric::L2, Element::Int8),
        (100, Metric::L2, Element::F32),
        (100, Metric::Dot, Element::F32),
        (64, Metric::Dot, Element::Int8),
        (270, Metric::Cosine, Element::F16),
        (270, Metric::Dot, Element::F32),
        (270, Metric::L2, Element::F16),
    ];
    for (dim, metric, element) in kinds {
        let mut clusters = Clusters::new(dim, element);
        let ty = ty(dim, metric, element);
        let rows = Rows::new(ty, |i| {
            let cluster = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % 100;
            (clusters.vector(Some(cluster)), cluster as i64)
        });
        rows.calibrate(&clusters.queries(100));
        let queries = clusters.queries(40);
        let filters = [
            Filter::everything(),
            less("any", 50),
            less("any", 25),
            less("cluster", 40),
            less("any", 2),
        ];
        for filter in filters {
            let (recall, estimated) = rows.recall(&queries, 10, &filter, Accuracy::Recall(0.95));
            assert!(recall >= 0.93, "{ty:?} {filter:?}: {recall}");
            assert!(estimated < ROWS, "{estimated}");
        }
        let (recall, _) = rows.recall(&queries, 300, &Filter::everything(), Accuracy::Recall(0.95));
        assert!(recall >= 0.93, "{ty:?} k 300: {recall}");
        let (exact, estimated) = rows.recall(&queries[..5], 10, &Filter::everything(), Accuracy::Exact);
        assert_eq!((exact, estimated), (1.0, 0));
    }
}

#[test]
fn vectors_without_clusters_are_found_too() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let mut numbers = Numbers(17);
        let mut vector = || Vector::F32((0..64).map(|_| numbers.unit()).collect());
        let rows = Rows::new(ty(64, metric, Element::F32), |_| (vector(), 0));
        let queries: Vec<Vector> = (0..100).map(|_| vector()).collect();
        rows.calibrate(&queries[..60]);
        let (recall, _) = rows.recall(&queries[60..], 10, &Filter::everything(), Accuracy::Recall(0.95));
        assert!(recall >= 0.92, "{metric:?}: {recall}");
    }
}

/// Stored vectors know nothing of queries that lie far from all rows.
#[test]
fn what_was_asked_says_how_far_to_go() {
    let mut clusters = Clusters::new(64, Element::F32);
    let ty = ty(64, Metric::Cosine, Element::F32);
    let rows = Rows::new(ty, |i| {
        let cluster = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % 100;
        (clusters.vector(Some(cluster)), cluster as i64)
    });
    rows.calibrate(&clusters.queries(100));
    let mut far = |n: usize| -> Vec<Vector> {
        (0..n)
            .map(|i| clusters.vector((i % 3 == 0).then_some(i * 7 % 100)))
            .collect()
    };
    let (accuracy, all) = (Accuracy::Recall(0.95), Filter::everything());
    let (_, before) = rows.recall(&far(150), 10, &all, accuracy);
    let grid = rows.view.grid("v").expect("set");
    assert!(grid.is_measuring_due());
    rows.calibrate(&[]);
    assert!(!grid.is_measuring_due() && grid.calibration().asked() >= 128);
    let (recall, after) = rows.recall(&far(150), 10, &all, accuracy);
    assert!(recall >= 0.93, "{recall}");
    assert!(after < before, "{after} rows, {before} before");
    for k in [30, 100, 300] {
        let (recall, _) = rows.recall(&far(60), k, &all, accuracy);
        assert!(recall >= 0.93, "k {k}: {recall}");
    }
    for filter in [less("any", 50), less("any", 20), less("cluster", 40)] {
        let (recall, _) = rows.recall(&far(100), 10, &filter, accuracy);
        assert!(recall >= 0.92, "{filter:?}: {recall}");
    }
}

#[test]
fn odd_vectors_are_ordinary() {
    let sizes = [0.0, 1e-45f32, 1e-38, 1e-20, 1.0, 1.0, 1.0, 1e10, 1e20, 3e38];
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let mut numbers = Numbers(23);
        let mut sized = |size: f32| Vector::F32((0..64).map(|_| numbers.unit() * size).collect());
        let rows = Rows::new(ty(64, metric, Element::F32), |i| {
            (sized(sizes[i as usize % 10]), 0)
        });
        let queries: Vec<Vector> = sizes.iter().map(|size| sized(*size)).collect();
        for accuracy in [Accuracy::Recall(0.95), Accuracy::Effort(3)] {
            rows.recall(&queries, 10, &Filter::everything(), accuracy);
            rows.recall(&queries, 10, &less("any", 50), accuracy);
        }
    }
}

#[test]
fn rows_that_are_all_the_same_are_ordinary() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let mut numbers = Numbers(29);
        let mut vector = || Vector::F32((0..64).map(|_| numbers.unit()).collect());
        let one = vector();
        let rows = Rows::new(ty(64, metric, Element::F32), |_| (one.clone(), 0));
        let queries = [one, vector(), Vector::F32([0.0; 64].into())];
        for k in [1, 10, 500] {
            let (recall, _) = rows.recall(&queries, k, &Filter::everything(), Accuracy::Recall(0.95));
            assert_eq!(recall, 1.0, "{metric:?}: equals are as good as each other");
        }
    }
}

#[test]
fn more_effort_looks_at_more_and_finds_more() {
    let mut clusters = Clusters::new(64, Element::F32);
    let rows = Rows::new(ty(64, Metric::L2, Element::F32), |i| {
        (clusters.vector(Some(i as usize % 100)), 0)
    });
    let queries = clusters.queries(30);
    let of = |effort: u32| rows.recall(&queries, 10, &Filter::everything(), Accuracy::Effort(effort));
    let (low, high) = (of(2), of(300));
    assert!(low.1 < high.1 && low.0 <= high.0, "{low:?} {high:?}");
    assert!(high.0 > 0.97, "{high:?}");
}

#[test]
fn a_segment_may_lack_lists_or_stand_on_another_grid() {
    let mut clusters = Clusters::new(64, Element::F32);
    let rows = Rows::new(ty(64, Metric::Cosine, Element::F32), |i| {
        (clusters.vector(Some(i as usize % 100)), 0)
    });
    let queries = clusters.queries(20);
    let snapshot = rows.view.snapshot();
    let first = snapshot.segments()[0].segment();
    rows.calibrate(&clusters.queries(60));
    first.detach_lists("v");
    let (recall, _) = rows.recall(&queries, 10, &Filter::everything(), Accuracy::Recall(0.95));
    assert!(recall >= 0.93, "{recall}");
    let mut trainer = GridTrainer::new(&rows.ty, 2, 3_000, 3).expect("lists are for this type");
    let vectors: Vec<Vector> = (0..3_000).map(|i| clusters.vector(Some(i % 100))).collect();
    vectors
        .iter()
        .for_each(|vector| trainer.push(vector).expect("the field's shape"));
    let other = Arc::new(trainer.train(&|| false).expect("not cancelled").expect("rows"));
    let mut builder = ListsBuilder::new(other.clone(), first.len());
    for (ordinal, (_, _, document)) in (0..).zip(&rows.base.fragments[0].rows) {
        if let Some(Value::Vector(vector)) = document.get("v") {
            builder.push(ordinal, Some(vector)).expect("the field's shape");
        }
    }
    first
        .attach_lists(rows.field.clone(), Arc::new(builder.finish()))
        .expect("as many rows");
    let (recall, _) = rows.recall(&queries, 10, &Filter::everything(), Accuracy::Recall(0.95));
    assert!(recall >= 0.93, "{recall}");
    // Fresh rows go over to the new grid with the next listing.
    rows.view.set_grid(&rows.field, Some(other));
    assert!(rows.view.fresh_backlog("v") >= ROWS / 6);
    rows.view
        .list_fresh(&rows.field, &|| false)
        .expect("not cancelled");
    assert_eq!(rows.view.fresh_backlog("v"), 0);
    let (recall, _) = rows.recall(&queries, 10, &Filter::everything(), Accuracy::Recall(0.95));
    assert!(recall >= 0.93, "{recall}");
}
