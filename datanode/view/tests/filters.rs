//! Filters over thousands of rows, asked again and again: sealed and fresh rows, while
//! rows die, rows are added and columns come and go.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use rhumb_core::filter::{Leaf, Path, Test};
use rhumb_core::{DocId, Filter, Schema, Seq, Value};
use rhumb_view::{Change, ColumnBuilder, RowMask, Snapshot, View, ViewError};
use roaring::RoaringBitmap;

use support::documents::{self, Numbers};
use support::{Base, Oracle, Row, name};

struct World {
    schema: Schema,
    base: Base,
    view: View,
    oracle: Oracle,
    seq: u64,
}

impl World {
    fn open(seed: u64, rows: u64) -> Self {
        let mut numbers = Numbers(seed);
        let mut base = Base::default();
        let all: Vec<Row> = (0..rows)
            .map(|i| {
                let id = DocId::from(format!("doc{i}").as_str());
                (id, Seq(i + 1), documents::document(numbers.next()))
            })
            .collect();
        base.add(all, (0..rows as u32).step_by(17).collect::<RoaringBitmap>());
        let view = base.open();
        let oracle = Oracle {
            live: base.live(),
            ..Oracle::default()
        };
        Self {
            schema: documents::schema(),
            base,
            view,
            oracle,
            seq: rows + 1,
        }
    }

    /// Writes or deletes some of the first `ids` documents.
    fn write(&mut self, numbers: &mut Numbers, writes: u64, ids: u64) {
        let mut changes = Vec::new();
        for _ in 0..writes {
            self.seq += 1;
            let id = DocId::from(format!("doc{}", numbers.below(ids)).as_str());
            let document = (numbers.below(5) > 0).then(|| documents::document(numbers.next()));
            self.oracle.apply(&id, Seq(self.seq), document.clone(), 0);
            changes.push(Change {
                id,
                seq: Seq(self.seq),
                document,
            });
        }
        self.view.apply(&changes);
    }

    fn ask(&self, filter: &Filter) -> RowMask {
        self.base.filter(&self.view.snapshot(), filter, &self.schema)
    }
}

fn check(snapshot: &Snapshot, oracle: &Oracle, filter: &Filter, mask: &RowMask) {
    let mut found = support::ids(snapshot, snapshot.rows(Some(mask)));
    found.sort();
    let expected: Vec<DocId> = oracle.matching(filter).into_iter().collect();
    assert_eq!(found, expected, "{filter:?}");
    assert_eq!(mask.count(), expected.len() as u64, "{filter:?}");
    let contained = snapshot.rows(None).filter(|row| mask.contains(*row)).count();
    assert_eq!(contained, expected.len(), "{filter:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_filter_asked_again_answers_for_the_rows_of_its_snapshot(seed in any::<u64>(), rows in 100u64..5_000) {
        let mut numbers = Numbers(seed);
        let mut world = World::open(seed, rows);
        let filters: Vec<Filter> = (0..8).map(|_| documents::filter(&mut numbers, 3)).collect();
        let mut pinned = Vec::new();
        for step in 0..4 {
            for filter in &filters {
                let mask = world.ask(filter);
                check(&world.view.snapshot(), &world.oracle, filter, &mask);
            }
            pinned.push((world.view.snapshot(), world.oracle.clone()));
            world.write(&mut numbers, [3, 900, 1_500][step % 3], rows * 2);
            if step == 2 {
                for sealed in world.view.snapshot().segments() {
                    documents::schema().fields.keys().for_each(|field| {
                        sealed.segment().detach_column(field.as_str());
                    });
                }
            }
        }
        for (snapshot, oracle) in &pinned {
            for filter in &filters {
                let mask = world.base.filter(snapshot, filter, &world.schema);
                check(snapshot, oracle, filter, &mask);
            }
        }
    }
}

fn lex_is(n: i64) -> Filter {
    Filter::Leaf(Leaf {
        path: Path::Field(name("lex")),
        test: Test::Eq(Value::Int(n)),
    })
}

#[test]
fn a_column_attached_anew_is_asked_anew() {
    let world = World::open(1, 50);
    let snapshot = world.view.snapshot();
    let segment = snapshot.segments()[0].segment();
    let attach = |n: i64| {
        let mut column = ColumnBuilder::new(&world.schema.fields["lex"].ty);
        (0..segment.len()).for_each(|_| column.push_i64(n).expect("an int column"));
        segment
            .attach_column(name("lex"), Arc::new(column.finish()))
            .expect("as many rows");
    };
    attach(1);
    let all = snapshot.live_rows();
    assert_eq!(snapshot.filter(&lex_is(1)).expect("loaded").count(), all);
    assert_eq!(snapshot.filter(&lex_is(2)).expect("loaded").count(), 0);
    segment.detach_column("lex");
    attach(2);
    assert_eq!(snapshot.filter(&lex_is(1)).expect("loaded").count(), 0);
    assert_eq!(snapshot.filter(&lex_is(2)).expect("loaded").count(), all);
}

#[test]
fn a_known_filter_needs_no_column_and_an_unknown_one_names_what_it_needs() {
    let world = World::open(2, 50);
    let snapshot = world.view.snapshot();
    assert!(snapshot.known_filter(&lex_is(1)).is_none());
    assert!(matches!(
        snapshot.filter(&lex_is(1)),
        Err(ViewError::NotLoaded { .. })
    ));
    let count = world.ask(&lex_is(1)).count();
    snapshot.segments()[0].segment().detach_column("lex");
    let known = snapshot.known_filter(&lex_is(1)).expect("asked before");
    assert_eq!(known.count(), count);
    assert!(snapshot.known_filter(&lex_is(7)).is_none());
}

#[test]
fn masks_and_what_columns_learn_are_counted_and_bounded() {
    let rows = 20_000u64;
    let mut base = Base::default();
    let document = |i: u64| {
        let fields = vec![(
            name("lex"),
            Value::Int((i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as i64),
        )];
        Arc::new(rhumb_core::Document::from_fields(fields))
    };
    let all = (0..rows).map(|i| (DocId::from(i), Seq(i + 1), document(i)));
    base.add(all.collect(), RoaringBitmap::new());
    let view = base.open();
    let schema = documents::schema();
    let ask = |n: i64| base.filter(&view.snapshot(), &lex_is(n), &schema);
    ask(0);
    let first = view.heap_size().segments;
    assert!(first.masks >= rows as usize / 8, "{first:?}");
    assert!(
        first.columns >= rows as usize * 9,
        "values and buckets: {first:?}"
    );
    (0..500).for_each(|n| {
        ask(n);
    });
    let many = view.heap_size().segments;
    assert!(many.masks <= rows as usize * 4, "{many:?}");
    assert_eq!(many.columns, first.columns);
}
