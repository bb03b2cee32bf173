//! Random histories of writes, freezes, merges and compactions against brute force: after
//! every step the view answers as the oracle does, pinned snapshots answer as they did,
//! and the base holds what the oracle held at the freeze.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use rhumb_core::aggregate::{Groups, Metric as Measure, Plan};
use rhumb_core::order::{OrderBy, OrderKey};
use rhumb_core::query::Accuracy;
use rhumb_core::{DocId, Element, Filter, Schema, Seq, Value};
use rhumb_view::{
    Bounds, Change, Frozen, GridTrainer, ListsBuilder, RowMask, RowRef, SearchSpec, SegmentId, Snapshot, View,
};
use roaring::RoaringBitmap;

use support::documents::{self, LISTED, Numbers, VECTORS};
use support::{Base, Oracle, Row, ids, name, segment_ids, vector_type};

#[derive(Clone, Debug)]
enum Step {
    /// (id, what to write or `None` to delete, how far behind the newest version)
    Apply(Vec<(u64, Option<u64>, u64)>),
    Freeze,
    Complete,
    /// Reads the segments picked by the bits, writes their rows anew, commits later.
    StartCompaction(u8),
    CommitCompaction,
    Pin,
    /// Drops all that was loaded of the segments.
    Evict,
    /// A new grid for the listed field, or none.
    Train(bool),
    /// Lists fresh rows, and the segments that have no lists on the grid.
    List,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (
        0u64..24,
        prop_oneof![3 => any::<u64>().prop_map(Some), 1 => Just(None)],
        prop_oneof![4 => Just(0u64), 1 => 1u64..4],
    );
    let step = prop_oneof![
        6 => proptest::collection::vec(write, 1..8).prop_map(Step::Apply),
        2 => Just(Step::Freeze),
        2 => Just(Step::Complete),
        1 => any::<u8>().prop_map(Step::StartCompaction),
        1 => Just(Step::CommitCompaction),
        1 => Just(Step::Pin),
        1 => Just(Step::Evict),
        1 => prop_oneof![3 => Just(true), 1 => Just(false)].prop_map(Step::Train),
        2 => Just(Step::List),
    ];
    proptest::collection::vec(step, 1..30)
}

struct Compaction {
    old: Vec<SegmentId>,
    mapping: Vec<RowRef>,
    rows: Vec<Row>,
    fragments: Vec<u64>,
}

struct World {
    schema: Schema,
    number_ids: bool,
    view: View,
    base: Base,
    oracle: Oracle,
    next_seq: u64,
    group: usize,
    /// Frozen groups, what the oracle held when they were, and their number.
    frozen: VecDeque<(Arc<Frozen>, Oracle, usize)>,
    compaction: Option<Compaction>,
    pinned: Vec<(Arc<Snapshot>, Oracle)>,
    /// A compaction has missed deletions that the base had; the next merge repeats them.
    base_is_behind: bool,
    /// Asked after every step, of pinned snapshots too: mostly answered from caches.
    favourites: Vec<Filter>,
    grids: u128,
}

impl World {
    /// Starts from a base of two fragments with some rows deleted.
    fn open(number_ids: bool, seed: u64) -> Self {
        let mut base = Base::default();
        let mut numbers = Numbers(seed);
        let row = |i: u64, seq: u64, numbers: &mut Numbers| {
            (
                documents::id(number_ids, i),
                Seq(seq),
                documents::document(numbers.next()),
            )
        };
        let first = (0..6).map(|i| row(i, i + 1, &mut numbers)).collect();
        base.add(first, RoaringBitmap::from_iter([1, 4]));
        let second = [1, 7, 8].map(|i| row(i, i + 20, &mut numbers)).to_vec();
        base.add(second, RoaringBitmap::from_iter([2]));
        let view = base.open();
        let oracle = Oracle {
            live: base.live(),
            deleted: BTreeMap::new(),
        };
        Self {
            schema: documents::schema(),
            number_ids,
            view,
            base,
            oracle,
            next_seq: 100,
            group: 0,
            frozen: VecDeque::new(),
            compaction: None,
            pinned: Vec::new(),
            base_is_behind: false,
            favourites: (0..4).map(|_| documents::filter(&mut numbers, 3)).collect(),
            grids: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Apply(writes) => self.apply(writes),
            Step::Freeze => self.freeze(),
            Step::Complete => self.complete(),
            Step::StartCompaction(pick) => self.start_compaction(*pick),
            Step::CommitCompaction => self.commit_compaction(),
            Step::Pin => self.pinned.push((self.view.snapshot(), self.oracle.clone())),
            Step::Train(true) => self.train(),
            Step::Train(false) => self.view.set_grid(&name(LISTED), None),
            Step::List => self.list(),
            Step::Evict => {
                for sealed in self.view.snapshot().segments() {
                    for field in self.schema.fields.keys() {
                        sealed.segment().detach_codes(field.as_str());
                        sealed.segment().detach_column(field.as_str());
                        sealed.segment().detach_lists(field.as_str());
                    }
                }
            }
        }
    }

    fn train(&mut self) {
        let ty = vector_type(&self.schema, LISTED);
        self.grids += 1;
        let mut trainer = GridTrainer::new(ty, self.grids, 100, self.grids as u64).expect("dim 64");
        for (_, document) in self.oracle.live.values() {
            if let Some(Value::Vector(vector)) = document.get(LISTED) {
                trainer.push(vector).expect("the field's shape");
            }
        }
        let grid = trainer.train(&|| false).expect("not cancelled").map(Arc::new);
        if let Some(grid) = &grid {
            assert_eq!(self.view.fresh_backlog("other"), 0);
            self.view.set_grid(&name(LISTED), Some(grid.clone()));
            let fresh = self.view.snapshot().fresh_rows();
            assert!(self.view.fresh_backlog(LISTED) >= fresh);
        }
    }

    fn list(&self) {
        let field = name(LISTED);
        let Some(grid) = self.view.grid(LISTED) else {
            return;
        };
        self.view.list_fresh(&field, &|| false).expect("not cancelled");
        assert_eq!(self.view.fresh_backlog(LISTED), 0);
        for segment in self.view.snapshot().missing_lists(LISTED, &grid) {
            let mut builder = ListsBuilder::new(grid.clone(), segment.len());
            for (ordinal, (_, _, document)) in
                (0..).zip(&self.base.fragments[segment.fragment() as usize].rows)
            {
                let vector = match document.get(LISTED) {
                    Some(Value::Vector(vector)) => Some(vector),
                    _ => None,
                };
                builder.push(ordinal, vector).expect("the field's shape");
            }
            segment
                .attach_lists(field.clone(), Arc::new(builder.finish()))
                .expect("as many rows");
        }
    }

    /// Searches that go by lists and may look at everything: nobody is found who should
    /// not be, every score is the exact one, and nobody is missing while fewer than k are.
    fn check_lists(
        &self,
        snapshot: &Arc<Snapshot>,
        oracle: &Oracle,
        filter: &Filter,
        mask: &RowMask,
        numbers: &mut Numbers,
    ) {
        let field = name(LISTED);
        let query = documents::vector(numbers, 64, Element::F32);
        let k = [1, 5, 10_000][numbers.below(3) as usize];
        for filter in [&Filter::everything(), filter] {
            let spec = SearchSpec {
                field: &field,
                ty: vector_type(&self.schema, LISTED),
                query: &query,
                k,
                mask: (!filter.is_everything()).then_some(mask),
                accuracy: Accuracy::Effort(1_000),
                cancel: &|| false,
            };
            let everyone: BTreeMap<DocId, u32> = oracle
                .nearest(
                    &SearchSpec {
                        k: usize::MAX,
                        ..spec
                    },
                    filter,
                )
                .into_iter()
                .collect();
            let hits = self.base.search(snapshot, &spec);
            assert_eq!(hits.len(), k.min(everyone.len()), "{filter:?}");
            assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
            let found: BTreeMap<DocId, u32> = hits
                .iter()
                .map(|hit| (hit.id.clone(), hit.score.to_bits()))
                .collect();
            assert_eq!(found.len(), hits.len(), "nobody twice");
            assert!(found.iter().all(|(id, score)| everyone.get(id) == Some(score)));
        }
    }

    fn apply(&mut self, writes: &[(u64, Option<u64>, u64)]) {
        let mut changes = Vec::new();
        for &(index, seed, behind) in writes {
            let id = documents::id(self.number_ids, index);
            self.next_seq += 1;
            let seq = match behind {
                0 => Seq(self.next_seq),
                _ => Seq(self.oracle.known_seq(&id).0.saturating_sub(behind - 1)),
            };
            let document = seed.map(documents::document);
            self.oracle.apply(&id, seq, document.clone(), self.group);
            changes.push(Change { id, seq, document });
        }
        self.view.apply(&changes);
    }

    fn freeze(&mut self) {
        let fresh = self.view.fresh_size();
        match self.view.freeze() {
            Some(frozen) => {
                self.frozen.push_back((frozen, self.oracle.clone(), self.group));
                self.group += 1;
            }
            None => assert_eq!(fresh.rows, 0),
        }
    }

    fn complete(&mut self) {
        if let Some((youngest, _, _)) = self.frozen.back().filter(|_| self.frozen.len() > 1) {
            assert!(
                self.view.complete_freeze(youngest, None).is_err(),
                "only the oldest may complete"
            );
        }
        let Some((frozen, then, group)) = self.frozen.pop_front() else {
            return;
        };
        let segment = self.base.merge(&frozen);
        if let (Some(segment), Some(grid)) = (&segment, self.view.grid(LISTED)) {
            let lists = frozen
                .lists(&name(LISTED), &grid, &|| false)
                .expect("not cancelled");
            segment
                .attach_lists(name(LISTED), Arc::new(lists))
                .expect("as many rows");
        }
        self.view
            .complete_freeze(&frozen, segment)
            .expect("the oldest group, its own rows");
        self.oracle.deleted.retain(|_, (_, of)| *of != group);
        self.frozen
            .iter_mut()
            .for_each(|(_, then, _)| then.deleted.retain(|_, (_, of)| *of != group));
        if !self.base_is_behind {
            assert_eq!(
                self.base.live(),
                then.live,
                "the base is the oracle at the freeze"
            );
        }
    }

    fn start_compaction(&mut self, pick: u8) {
        let snapshot = self.view.snapshot();
        let old: Vec<SegmentId> = segment_ids(&snapshot)
            .into_iter()
            .enumerate()
            .filter(|(at, _)| pick >> (at % 8) & 1 == 1)
            .map(|(_, id)| id)
            .collect();
        let mut plan = Compaction {
            old,
            mapping: Vec::new(),
            rows: Vec::new(),
            fragments: Vec::new(),
        };
        for id in &plan.old {
            let fragment = snapshot.segment(*id).expect("listed").segment().fragment();
            let stored = &self.base.fragments[fragment as usize];
            plan.fragments.push(fragment);
            for (ordinal, row) in (0..)
                .zip(&stored.rows)
                .filter(|(ordinal, _)| !stored.deleted.contains(*ordinal))
            {
                plan.mapping.push(RowRef::new(*id, ordinal));
                plan.rows.push(row.clone());
            }
        }
        if !plan.old.is_empty() {
            self.compaction = Some(plan);
        }
    }

    fn commit_compaction(&mut self) {
        let Some(plan) = self.compaction.take() else {
            return;
        };
        // Lance would refuse a compaction whose fragments changed; the view must survive
        // one that was let through.
        self.base_is_behind |= plan.mapping.iter().any(|row| {
            let at = plan
                .old
                .iter()
                .position(|id| *id == row.segment)
                .expect("of the plan");
            self.base.fragments[plan.fragments[at] as usize]
                .deleted
                .contains(row.ordinal)
        });
        for &fragment in &plan.fragments {
            self.base.fragments[fragment as usize].current = false;
        }
        let new = (!plan.rows.is_empty()).then(|| {
            let fragment = self.base.add(plan.rows, RoaringBitmap::new());
            self.base.segment(fragment)
        });
        self.view
            .replace_segments(&plan.old, new, &plan.mapping)
            .expect("all live rows are mapped");
    }

    fn check(&self, seed: u64) {
        let snapshot = self.view.snapshot();
        self.check_rows(&snapshot, &self.oracle);
        self.check_answers(&snapshot, &self.oracle, seed);
        let everyone: Vec<DocId> = (0..24)
            .map(|index| documents::id(self.number_ids, index))
            .collect();
        let (of, found) = self.view.lookup_with_snapshot(&everyone);
        for (id, found) in everyone.iter().zip(found) {
            assert_eq!(found, self.view.lookup(id));
            assert_eq!(
                found.map(|(_, seq)| seq),
                self.oracle.live.get(id).map(|(seq, _)| *seq),
                "{id}"
            );
            if let Some((row, seq)) = found {
                assert!(of.is_live(row));
                assert_eq!((of.row_id(row).as_ref(), of.row_seq(row)), (Some(id), Some(seq)));
            }
        }
    }

    fn check_rows(&self, snapshot: &Snapshot, oracle: &Oracle) {
        let mut rows = BTreeMap::new();
        for row in snapshot.rows(None) {
            assert!(snapshot.is_live(row));
            let id = snapshot.row_id(row).expect("of this snapshot");
            let seq = snapshot.row_seq(row).expect("of this snapshot");
            let before = rows.insert(id.clone(), (seq, self.base.document(snapshot, row)));
            assert_eq!(before, None, "{id} is live twice");
        }
        assert_eq!(rows, oracle.live);
        assert_eq!(snapshot.live_rows(), oracle.live.len() as u64);
    }

    fn check_answers(&self, snapshot: &Arc<Snapshot>, oracle: &Oracle, seed: u64) {
        let mut numbers = Numbers(seed);
        let filter = documents::filter(&mut numbers, 3);
        for favourite in &self.favourites {
            if let Some(known) = snapshot.known_filter(favourite) {
                check_mask(snapshot, oracle, favourite, &known);
            }
            let mask = self.base.filter(snapshot, favourite, &self.schema);
            check_mask(snapshot, oracle, favourite, &mask);
            let known = snapshot.known_filter(favourite).expect("asked just before");
            check_mask(snapshot, oracle, favourite, &known);
        }
        let mask = self.base.filter(snapshot, &filter, &self.schema);
        let matching = check_mask(snapshot, oracle, &filter, &mask);

        for (field, dim, _, element) in VECTORS {
            let query = documents::vector(&mut numbers, dim, element);
            let k = [1, 3, 10, 10_000][numbers.below(4) as usize];
            let field = name(field);
            let ty = vector_type(&self.schema, field.as_str());
            let spec = SearchSpec {
                field: &field,
                ty,
                query: &query,
                k,
                mask: None,
                accuracy: Accuracy::Exact,
                cancel: &|| false,
            };
            let bits = |hits: Vec<rhumb_view::Hit>| {
                hits.into_iter()
                    .map(|hit| (hit.id, hit.score.to_bits()))
                    .collect::<Vec<_>>()
            };
            let hits = bits(self.base.search(snapshot, &spec));
            assert_eq!(hits, oracle.nearest(&spec, &Filter::everything()), "{ty:?}");
            let spec = SearchSpec {
                mask: Some(&mask),
                ..spec
            };
            assert_eq!(
                bits(self.base.search(snapshot, &spec)),
                oracle.nearest(&spec, &filter),
                "{ty:?} {filter:?}"
            );
        }
        self.check_lists(snapshot, oracle, &filter, &mask, &mut numbers);
        self.check_orders(snapshot, oracle, &matching, &mask, &mut numbers);
        self.check_groups(snapshot, oracle, &matching, &mask);
    }

    fn check_orders(
        &self,
        snapshot: &Snapshot,
        oracle: &Oracle,
        matching: &BTreeSet<DocId>,
        mask: &RowMask,
        numbers: &mut Numbers,
    ) {
        let some_id = |numbers: &mut Numbers| {
            (numbers.below(2) == 0).then(|| documents::id(self.number_ids, numbers.below(24)))
        };
        let prefix = [None, None, Some("d"), Some("doc"), Some("")][numbers.below(5) as usize];
        let bounds = Bounds {
            start: some_id(numbers),
            end: some_id(numbers),
            prefix: prefix.map(Arc::from),
        };
        let wanted: Vec<DocId> = matching
            .iter()
            .filter(|id| bounds.contains(id))
            .cloned()
            .collect();
        let (mut scanned, page) = (Vec::new(), numbers.below(5) as usize + 1);
        loop {
            let rows = snapshot.ordered(scanned.last(), &bounds, Some(mask), page);
            let more = rows.len() == page;
            scanned.extend(ids(snapshot, rows));
            if !more {
                break;
            }
        }
        assert_eq!(scanned, wanted, "{bounds:?}");
        let all: Vec<DocId> = oracle.live.keys().cloned().collect();
        assert_eq!(
            ids(
                snapshot,
                snapshot.ordered(None, &Bounds::default(), None, usize::MAX)
            ),
            all
        );

        let field = ["pos", "lex", "price", "live", "at", "gloss"][numbers.below(6) as usize];
        let key = if numbers.below(7) == 0 {
            OrderKey::Id
        } else {
            OrderKey::Field(name(field))
        };
        let order = OrderBy {
            key,
            descending: numbers.below(2) == 0,
        };
        self.base
            .load_columns(snapshot.missing_fields(&[name(field)]), &self.schema);
        let sorted = snapshot
            .sort_by(&order, &bounds, Some(mask))
            .expect("the column is loaded");
        let mut expected = wanted;
        let value = |id: &DocId| {
            oracle
                .live
                .get(id)
                .and_then(|(_, document)| order.value(document))
        };
        expected.sort_by(|a, b| order.compare((value(a), a), (value(b), b)));
        assert_eq!(ids(snapshot, sorted), expected, "{order:?}");
    }

    fn check_groups(&self, snapshot: &Snapshot, oracle: &Oracle, matching: &BTreeSet<DocId>, mask: &RowMask) {
        let metrics = [
            ("n", Measure::Count(None)),
            ("s", Measure::Sum(name("lex"))),
            ("lo", Measure::Min(name("price"))),
            ("hi", Measure::Max(name("pos"))),
        ];
        let plan = Plan {
            by: vec![name("pos"), name("live")],
            metrics: metrics.map(|(n, m)| (n.into(), m)).into(),
        };
        let fields: Vec<_> = plan.fields().into_iter().cloned().collect();
        self.base
            .load_columns(snapshot.missing_fields(&fields), &self.schema);
        let found = snapshot
            .aggregate(&plan, Some(mask))
            .expect("columns are loaded")
            .into_json();
        let mut expected = Groups::new(&plan);
        for id in matching {
            expected.add_document(&oracle.live[id].1).expect("few groups");
        }
        assert_eq!(found, expected.into_json());
    }

    /// Everything reaches the base, and a view opened from it is the same.
    fn close(mut self, seed: u64) {
        self.commit_compaction();
        self.freeze();
        while !self.frozen.is_empty() {
            self.complete();
        }
        self.check(seed);
        assert_eq!(self.base.live(), self.oracle.live);
        self.oracle.deleted.clear();
        self.view = self.base.open();
        self.check(seed);
        for (snapshot, oracle) in std::mem::take(&mut self.pinned) {
            self.check_rows(&snapshot, &oracle);
            self.check_answers(&snapshot, &oracle, seed);
        }
    }
}

/// Whatever made the mask, it has the rows that brute force finds.
fn check_mask(snapshot: &Snapshot, oracle: &Oracle, filter: &Filter, mask: &RowMask) -> BTreeSet<DocId> {
    let matching = oracle.matching(filter);
    assert_eq!(mask.count(), matching.len() as u64, "{filter:?}");
    let found: BTreeSet<DocId> = ids(snapshot, snapshot.rows(Some(mask))).into_iter().collect();
    assert_eq!(found, matching, "{filter:?}");
    assert!(
        snapshot
            .rows(None)
            .all(|row| mask.contains(row) == matching.contains(&snapshot.row_id(row).expect("of this")))
    );
    matching
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_view_answers_as_brute_force_does_whatever_happened(number_ids in any::<bool>(), seed in any::<u64>(), steps in steps()) {
        let mut world = World::open(number_ids, seed);
        world.check(seed);
        for (at, step) in steps.iter().enumerate() {
            world.step(step);
            world.check(seed ^ at as u64);
        }
        world.close(seed);
    }
}
