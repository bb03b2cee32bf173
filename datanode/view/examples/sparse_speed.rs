//! What sparse search costs: `cargo run --release -p rhumb-view --example sparse_speed`.
//!
//! Documents and queries look as learned sparse encoders make them: a Zipf-like choice of
//! indices, rare ones with more weight.  Compared with taking the dot product of every
//! row, and with itself when every row is fresh.

use std::sync::Arc;

use rhumb_core::{DocId, Document, FieldName, Seq, SparseVector, Value};
use rhumb_view::{Change, Keys, Segment, Snapshot, SparseIndexBuilder, SparseSpec, View};
use roaring::RoaringBitmap;

const ROWS: u64 = 100_000;
const DIMS: f64 = 30_000.0;
const QUERIES: usize = 200;

fn main() {
    let mut random = Random(7);
    let field = FieldName::parse("terms").expect("a name");
    let vectors: Vec<SparseVector> = (0..ROWS).map(|_| random.sparse(100)).collect();
    let queries: Vec<SparseVector> = (0..QUERIES).map(|_| random.sparse(30)).collect();
    let began = now();
    let sealed = sealed(&field, &vectors);
    report("lists built, rows/s", ROWS as f64 / (now() - began));
    let size = sealed.heap_size().segments.sparse;
    report("bytes of lists per element", size as f64 / elements(&vectors));
    let fresh = fresh(&field, &vectors);
    for k in [10, 100] {
        let one_by_one = per_second(&queries[..10], |query| brute_force(query, &vectors, k));
        for (name, view) in [("sealed", &sealed), ("fresh", &fresh)] {
            let snapshot = view.snapshot();
            search(&snapshot, &field, &queries[0], k);
            let rate = per_second(&queries, |query| search(&snapshot, &field, query, k));
            report(&format!("k {k}, {name}: queries/s"), rate);
            report(
                &format!("k {k}, {name}: times the rate of row by row"),
                rate / one_by_one,
            );
        }
    }
}

fn sealed(field: &FieldName, vectors: &[SparseVector]) -> View {
    let mut keys = Keys::builder();
    let mut lists = SparseIndexBuilder::new();
    for (id, vector) in (0..).zip(vectors) {
        keys.push(&DocId::from(id as u64)).expect("numbers");
        lists.push(Some(vector)).expect("few rows");
    }
    let seqs = (1..=vectors.len() as u64).map(Seq).collect();
    let segment = Segment::new(0, keys.finish(), seqs).expect("as many keys as seqs");
    segment
        .attach_sparse(field.clone(), Arc::new(lists.finish()))
        .expect("as many rows");
    let view = View::new();
    view.add_segment(segment, &RoaringBitmap::new())
        .expect("unique ids");
    view
}

fn fresh(field: &FieldName, vectors: &[SparseVector]) -> View {
    let view = View::new();
    let change = |(id, vector): (u64, &SparseVector)| Change {
        id: DocId::from(id),
        seq: Seq(id + 1),
        document: Some(Arc::new(Document::from_fields(vec![(
            field.clone(),
            Value::Sparse(vector.clone()),
        )]))),
    };
    let changes: Vec<Change> = (0..).zip(vectors).map(change).collect();
    view.apply(&changes);
    view
}

fn search(snapshot: &Snapshot, field: &FieldName, query: &SparseVector, k: usize) -> usize {
    let spec = SparseSpec {
        field,
        query,
        k,
        mask: None,
        cancel: &|| false,
    };
    snapshot
        .search_sparse(&spec)
        .expect("lists are loaded")
        .hits
        .len()
}

fn brute_force(query: &SparseVector, vectors: &[SparseVector], k: usize) -> usize {
    let dot = |vector: &SparseVector| {
        let (mut q, mut sum) = (query.elements().iter().peekable(), 0.0);
        for (index, value) in vector.elements() {
            while q.next_if(|(at, _)| at < index).is_some() {}
            if let Some((_, weight)) = q.next_if(|(at, _)| at == index) {
                sum += f64::from(*weight) * f64::from(*value);
            }
        }
        sum
    };
    let mut scores: Vec<f64> = vectors.iter().map(dot).collect();
    scores.select_nth_unstable_by(k, |a, b| b.total_cmp(a));
    scores[..k].iter().filter(|score| **score > 0.0).count()
}

fn elements(vectors: &[SparseVector]) -> f64 {
    vectors.iter().map(SparseVector::len).sum::<usize>() as f64
}

fn per_second(queries: &[SparseVector], mut ask: impl FnMut(&SparseVector) -> usize) -> f64 {
    let began = now();
    let hits: usize = queries.iter().map(&mut ask).sum();
    assert!(hits > 0, "queries find something");
    queries.len() as f64 / (now() - began)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn sparse(&mut self, count: usize) -> SparseVector {
        let mut elements: Vec<(u32, f32)> = (0..count)
            .map(|_| {
                let index = DIMS.powf(self.next()) as u32;
                let rarity = f64::from(index + 1).ln() / DIMS.ln();
                (index, (0.1 + 2.0 * rarity * self.next()) as f32)
            })
            .collect();
        elements.sort_by_key(|(index, _)| *index);
        elements.dedup_by_key(|(index, _)| *index);
        SparseVector::new(elements).expect("indices that differ")
    }
}

/// Processor seconds of this thread.
fn now() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn report(what: &str, value: f64) {
    use std::io::Write as _;
    // Nobody to tell when nobody listens.
    let _ = writeln!(std::io::stdout(), "{what:50} {value:.2}");
}
