use std::collections::BTreeMap;

use proptest::prelude::*;
use rhumb_core::Value;

use super::*;
use crate::fresh::Killed;
use crate::keys::Keys;

fn segment(fragment: u64, rows: &[(u64, u64)]) -> Segment {
    let mut keys = Keys::builder();
    rows.iter()
        .for_each(|&(id, _)| keys.push_num(id).expect("numbers"));
    let seqs = rows.iter().map(|&(_, seq)| Seq(seq)).collect();
    Segment::new(fragment, keys.finish(), seqs).expect("as many keys as seqs")
}

fn segment_of(fragment: u64, frozen: &Frozen) -> Option<Segment> {
    let rows: Vec<(u64, u64)> = frozen
        .live_rows()
        .map(|row| (number(&row.id), row.seq.0))
        .collect();
    (!rows.is_empty()).then(|| segment(fragment, &rows))
}

fn number(id: &DocId) -> u64 {
    match id {
        DocId::Num(n) => *n,
        DocId::Str(s) => panic!("{s} is no number"),
    }
}

fn upsert(id: u64, seq: u64) -> Change {
    let field = rhumb_core::FieldName::parse("v").expect("a name");
    let document = Document::from_fields(vec![(field, Value::Int(seq as i64))]);
    Change {
        id: DocId::from(id),
        seq: Seq(seq),
        document: Some(Arc::new(document)),
    }
}

fn delete(id: u64, seq: u64) -> Change {
    Change {
        id: DocId::from(id),
        seq: Seq(seq),
        document: None,
    }
}

fn opened(segments: &[&[(u64, u64)]]) -> View {
    let view = View::new();
    for (fragment, rows) in (0..).zip(segments) {
        view.add_segment(segment(fragment, rows), &RoaringBitmap::new())
            .expect("unique ids");
    }
    view
}

/// id to version of all live rows.
fn contents(snapshot: &Snapshot) -> BTreeMap<u64, u64> {
    let row = |row| {
        (
            number(&snapshot.row_id(row).expect("of this")),
            snapshot.row_seq(row).expect("of this").0,
        )
    };
    snapshot.rows(None).map(row).collect()
}

fn seq_of(view: &View, id: u64) -> Option<u64> {
    view.lookup(&DocId::from(id)).map(|(_, seq)| seq.0)
}

#[test]
fn an_older_version_never_overwrites_a_newer_one_or_its_deletion() {
    let view = opened(&[&[(1, 10), (2, 10)]]);
    view.apply(&[
        upsert(1, 9),
        delete(1, 8),
        delete(2, 12),
        upsert(2, 11),
        upsert(3, 5),
        upsert(3, 4),
    ]);
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(1, 10), (3, 5)]));
    assert_eq!(
        (seq_of(&view, 1), seq_of(&view, 2), seq_of(&view, 3)),
        (Some(10), None, Some(5))
    );
    view.apply(&[upsert(2, 13)]);
    assert_eq!(seq_of(&view, 2), Some(13));
}

#[test]
fn several_writes_of_one_id_in_one_batch_leave_the_last() {
    let view = opened(&[&[(1, 1)]]);
    view.apply(&[upsert(1, 2), upsert(1, 3), delete(1, 4), upsert(1, 5)]);
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(1, 5)]));
    let frozen = view.freeze().expect("something fresh");
    assert_eq!(frozen.live_rows().map(|row| row.seq.0).collect::<Vec<_>>(), [5]);
    let killed = Killed {
        segment: SegmentId(0),
        fragment: 0,
        ordinals: RoaringBitmap::from_iter([0]),
    };
    assert_eq!(frozen.killed(), Ok(vec![killed]));
}

#[test]
fn a_snapshot_is_not_touched_by_later_writes() {
    let view = opened(&[&[(1, 1), (2, 1)]]);
    view.apply(&[upsert(3, 2)]);
    let before = view.snapshot();
    view.apply(&[delete(1, 3), upsert(3, 4), upsert(4, 5)]);
    let frozen = view.freeze().expect("something fresh");
    view.complete_freeze(&frozen, segment_of(9, &frozen))
        .expect("its own rows");
    assert_eq!(contents(&before), BTreeMap::from([(1, 1), (2, 1), (3, 2)]));
    assert_eq!(
        contents(&view.snapshot()),
        BTreeMap::from([(2, 1), (3, 4), (4, 5)])
    );
}

/// All segments into one, of the rows alive now.
fn compaction(view: &View, fragment: u64) -> Swap {
    let snapshot = view.snapshot();
    let old: Vec<SegmentId> = snapshot.segments().iter().map(|sealed| sealed.id()).collect();
    let mapping: Vec<RowRef> = snapshot
        .rows(None)
        .filter(|row| !row.segment.is_fresh())
        .collect();
    let seq = |row: RowRef| snapshot.row_seq(row).expect("of this").0;
    let row = |&row: &RowRef| (number(&snapshot.row_id(row).expect("of this")), seq(row));
    let rows: Vec<(u64, u64)> = mapping.iter().map(row).collect();
    let new = (!rows.is_empty()).then(|| segment(fragment, &rows));
    Swap::segments(snapshot.clone(), &old, new, &mapping).expect("all live rows")
}

#[test]
fn rows_that_die_while_a_swap_is_prepared_stay_dead() {
    let view = opened(&[&[(1, 1), (2, 1)], &[(3, 1)]]);
    let prepared = compaction(&view, 4);
    view.apply(&[delete(2, 2), upsert(3, 3)]);
    let segment = view
        .swap(prepared)
        .expect("nothing else was swapped")
        .expect("rows");
    view.settle();
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(1, 1), (3, 3)]));
    let frozen = view.freeze().expect("two writes");
    let killed = Killed {
        segment,
        fragment: 4,
        ordinals: RoaringBitmap::from_iter([1, 2]),
    };
    assert_eq!(frozen.killed(), Ok(vec![killed]));
    let late = Swap::freeze(&frozen, segment_of(5, &frozen)).expect("its own rows");
    view.apply(&[delete(3, 4)]);
    view.swap(late).expect("the oldest");
    view.settle();
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(1, 1)]));
}

#[test]
fn a_swap_of_segments_that_are_gone_is_refused() {
    let view = opened(&[&[(1, 1), (2, 1)]]);
    let (first, second) = (compaction(&view, 1), compaction(&view, 2));
    view.swap(first).expect("nothing else was swapped");
    assert_eq!(view.swap(second), Err(ViewError::UnknownSegment(SegmentId(0))));
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(1, 1), (2, 1)]));
}

#[test]
fn a_segment_with_a_known_id_is_refused_and_leaves_no_trace() {
    let view = opened(&[&[(1, 1), (2, 1)]]);
    let refused = view.add_segment(segment(1, &[(3, 1), (2, 2), (4, 1)]), &RoaringBitmap::new());
    let (first, second) = (RowRef::new(SegmentId(0), 1), RowRef::new(SegmentId(1), 1));
    assert_eq!(
        refused,
        Err(ViewError::DuplicateKey {
            id: DocId::from(2),
            first,
            second
        })
    );
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(1, 1), (2, 1)]));
    assert_eq!(seq_of(&view, 3), None);
    let twice = view.add_segment(segment(1, &[(3, 1), (3, 2)]), &RoaringBitmap::new());
    assert!(matches!(twice, Err(ViewError::DuplicateKey { .. })));
    // The same id is fine when only one of its rows is alive.
    view.add_segment(segment(2, &[(3, 1), (3, 2)]), &RoaringBitmap::from_iter([0]))
        .expect("one live row");
    assert_eq!(seq_of(&view, 3), Some(2));
    let dead_past_end = view.add_segment(segment(3, &[(7, 1)]), &RoaringBitmap::from_iter([1]));
    assert!(matches!(dead_past_end, Err(ViewError::RowCount { .. })));
}

#[test]
fn a_freeze_completes_only_with_its_own_rows_and_after_older_ones() {
    let view = opened(&[&[(1, 1)]]);
    assert!(view.freeze().is_none());
    view.apply(&[upsert(2, 2), upsert(3, 3)]);
    let older = view.freeze().expect("something fresh");
    view.apply(&[upsert(2, 4)]);
    let younger = view.freeze().expect("something fresh");
    assert_eq!(younger.killed(), Err(ViewError::NotOldestFrozen(older.id)));
    let too_early = view.complete_freeze(&younger, segment_of(2, &younger));
    assert_eq!(too_early, Err(ViewError::NotOldestFrozen(younger.id)));
    let short = view.complete_freeze(&older, Some(segment(1, &[(2, 2)])));
    assert!(matches!(
        short,
        Err(ViewError::RowCount {
            expected: 2,
            found: 1,
            ..
        })
    ));
    let other = view.complete_freeze(&older, Some(segment(1, &[(2, 2), (4, 3)])));
    assert!(matches!(other, Err(ViewError::KeyMismatch { ordinal: 1, .. })));
    assert_eq!(
        contents(&view.snapshot()),
        BTreeMap::from([(1, 1), (2, 4), (3, 3)])
    );

    let sealed = view
        .complete_freeze(&older, segment_of(7, &older))
        .expect("its own rows")
        .expect("rows");
    let killed = Killed {
        segment: sealed,
        fragment: 7,
        ordinals: RoaringBitmap::from_iter([0]),
    };
    assert_eq!(younger.killed(), Ok(vec![killed]));
    assert!(
        view.complete_freeze(&older, segment_of(7, &older)).is_err(),
        "once is enough"
    );
    view.complete_freeze(&younger, segment_of(8, &younger))
        .expect("the oldest now");
    assert_eq!(
        contents(&view.snapshot()),
        BTreeMap::from([(1, 1), (2, 4), (3, 3)])
    );
}

#[test]
fn a_group_of_deletions_alone_becomes_no_segment() {
    let view = opened(&[&[(1, 1), (2, 1)]]);
    view.apply(&[delete(1, 2), delete(9, 3)]);
    let frozen = view.freeze().expect("deletions are writes");
    assert_eq!(frozen.live_rows().len(), 0);
    assert_eq!(
        frozen.killed().expect("the oldest")[0].ordinals,
        RoaringBitmap::from_iter([0])
    );
    assert_eq!(view.complete_freeze(&frozen, None), Ok(None));
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(2, 1)]));
    assert_eq!(view.snapshot().fresh_rows(), 0);
    view.apply(&[upsert(1, 4)]);
    assert_eq!(seq_of(&view, 1), Some(4));
}

#[test]
fn a_replacement_that_would_lose_rows_is_refused() {
    let view = opened(&[&[(1, 1), (2, 1)], &[(3, 1)]]);
    let row = |segment, ordinal| RowRef::new(SegmentId(segment), ordinal);
    let old = [SegmentId(0), SegmentId(1)];
    let replace = |rows: &[(u64, u64)], mapping: &[RowRef]| {
        view.replace_segments(&old, Some(segment(5, rows)), mapping)
            .expect_err("refused")
    };
    assert_eq!(
        replace(&[(1, 1), (3, 1)], &[row(0, 0), row(1, 0)]),
        ViewError::LostRows(1)
    );
    assert_eq!(
        replace(&[(1, 1), (1, 1)], &[row(0, 0), row(0, 0)]),
        ViewError::BadMapping(row(0, 0))
    );
    assert_eq!(replace(&[(1, 1)], &[row(0, 2)]), ViewError::BadMapping(row(0, 2)));
    assert!(matches!(
        replace(&[(1, 1)], &[row(0, 1)]),
        ViewError::KeyMismatch { ordinal: 0, .. }
    ));
    assert!(matches!(
        replace(&[(1, 2)], &[row(0, 0)]),
        ViewError::KeyMismatch { ordinal: 0, .. }
    ));
    assert!(matches!(replace(&[(1, 1)], &[]), ViewError::RowCount { .. }));
    assert_eq!(
        view.replace_segments(&[SegmentId(4)], None, &[]),
        Err(ViewError::UnknownSegment(SegmentId(4)))
    );
    assert_eq!(
        view.replace_segments(&old, None, &[]),
        Err(ViewError::LostRows(3))
    );
    assert_eq!(contents(&view.snapshot()).len(), 3);

    view.apply(&[delete(3, 2)]);
    assert_eq!(view.replace_segments(&[SegmentId(1)], None, &[]), Ok(None));
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(1, 1), (2, 1)]));
    assert_eq!(view.snapshot().segments().len(), 1);
}

#[test]
fn deaths_that_a_compaction_missed_are_told_to_the_base_again() {
    let view = opened(&[&[(1, 1), (2, 1), (3, 1)]]);
    let mapping = [0, 1, 2].map(|ordinal| RowRef::new(SegmentId(0), ordinal));
    view.apply(&[delete(1, 2)]);
    let merged = view.freeze().expect("a deletion");
    merged.killed().expect("the oldest");
    view.complete_freeze(&merged, None).expect("no rows");
    view.apply(&[delete(2, 3)]);
    // It read all three rows before the first deletion reached the base.
    let new = view.replace_segments(
        &[SegmentId(0)],
        Some(segment(4, &[(1, 1), (2, 1), (3, 1)])),
        &mapping,
    );
    let segment = new.expect("all rows").expect("rows");
    assert_eq!(contents(&view.snapshot()), BTreeMap::from([(3, 1)]));
    let frozen = view.freeze().expect("a deletion");
    let killed = Killed {
        segment,
        fragment: 4,
        ordinals: RoaringBitmap::from_iter([0, 1]),
    };
    assert_eq!(frozen.killed(), Ok(vec![killed]));
}

#[test]
fn a_merge_under_way_during_a_compaction_has_its_deletions_repeated() {
    let view = opened(&[&[(1, 1), (2, 1)]]);
    view.apply(&[delete(1, 2)]);
    let under_way = view.freeze().expect("a deletion");
    under_way.killed().expect("the oldest");
    let mapping = [0, 1].map(|ordinal| RowRef::new(SegmentId(0), ordinal));
    let new = view.replace_segments(&[SegmentId(0)], Some(segment(4, &[(1, 1), (2, 1)])), &mapping);
    let segment = new.expect("all rows").expect("rows");
    view.complete_freeze(&under_way, None).expect("no rows");
    let next = view.freeze().expect("the repeated deletion");
    let killed = Killed {
        segment,
        fragment: 4,
        ordinals: RoaringBitmap::from_iter([0]),
    };
    assert_eq!(next.killed(), Ok(vec![killed]));
}

#[test]
fn an_old_name_leads_over_several_swaps_until_it_is_forgotten() {
    let view = opened(&[]);
    view.apply(&[upsert(1, 1), upsert(2, 2), delete(3, 3)]);
    let frozen = view.freeze().expect("something fresh");
    view.swap(Swap::freeze(&frozen, segment_of(0, &frozen)).expect("its own rows"))
        .expect("its own rows");
    let mapping = [1, 0].map(|ordinal| RowRef::new(SegmentId(0), ordinal));
    view.swap(
        Swap::segments(
            view.snapshot(),
            &[SegmentId(0)],
            Some(segment(1, &[(2, 2), (1, 1)])),
            &mapping,
        )
        .expect("mapped"),
    )
    .expect("all live rows");
    let mut more = true;
    while more {
        assert_eq!(
            view.lookup(&DocId::from(1)),
            Some((RowRef::new(SegmentId(1), 1), Seq(1)))
        );
        assert_eq!(
            view.lookup(&DocId::from(2)),
            Some((RowRef::new(SegmentId(1), 0), Seq(2)))
        );
        assert_eq!(seq_of(&view, 3), None);
        more = view.settle_slice(1);
    }
    assert_eq!(
        view.lookup(&DocId::from(1)),
        Some((RowRef::new(SegmentId(1), 1), Seq(1)))
    );
    view.apply(&[upsert(3, 1)]);
    assert_eq!(
        seq_of(&view, 3),
        Some(1),
        "the deletion has reached the base and is forgotten"
    );
}

#[test]
fn sizes_follow_what_is_held() {
    let view = View::new();
    let empty = view.heap_size();
    let rows: Vec<(u64, u64)> = (0..10_000).map(|id| (id, 1)).collect();
    view.add_segment(segment(0, &rows), &RoaringBitmap::new())
        .expect("unique ids");
    let opened = view.heap_size();
    assert_eq!(opened.segments.keys, 80_000);
    assert_eq!(opened.segments.seqs, 80_000);
    let per_row = (opened.key_map - empty.key_map) as f64 / 10_000.0;
    assert!((9.0..24.0).contains(&per_row), "{per_row} bytes per row");
    view.apply(&[upsert(1, 2), upsert(20_000, 3)]);
    let fresh = view.fresh_size();
    assert_eq!(fresh.rows, 2);
    assert_eq!(view.heap_size().fresh, fresh.bytes);
    assert!(fresh.bytes > 2 * 48);
    let frozen = view.freeze().expect("two rows");
    assert_eq!(view.fresh_size(), FreshSize::default());
    assert_eq!(view.heap_size().fresh, fresh.bytes);
    view.complete_freeze(&frozen, segment_of(1, &frozen))
        .expect("its own rows");
    assert_eq!(view.heap_size().fresh, 0);
    assert!(view.heap_size().total() > opened.segments.keys);
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(u64, bool)>),
    Freeze,
    Complete,
    PrepareCompaction,
    SwapCompaction,
    Settle(u32),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn lookups_and_writes_are_right_before_the_key_map_has_learned_new_names(
        steps in proptest::collection::vec(prop_oneof![
            4 => proptest::collection::vec((0u64..40, prop_oneof![3 => Just(true), 1 => Just(false)]), 1..12).prop_map(Step::Apply),
            1 => Just(Step::Freeze),
            1 => Just(Step::Complete),
            1 => Just(Step::PrepareCompaction),
            1 => Just(Step::SwapCompaction),
            2 => (1u32..9).prop_map(Step::Settle),
        ], 1..60),
    ) {
        let view = opened(&[&[(1, 1), (3, 1), (2, 1)], &[(9, 1)]]);
        let mut expected = contents(&view.snapshot());
        let (mut seq, mut fragment, mut frozen) = (1, 1, std::collections::VecDeque::new());
        let mut prepared = None;
        for step in steps {
            match step {
                Step::Apply(writes) => {
                    let changes: Vec<Change> = writes.iter().map(|&(id, keep)| {
                        seq += 1;
                        match keep {
                            true => { expected.insert(id, seq); upsert(id, seq) }
                            false => { expected.remove(&id); delete(id, seq) }
                        }
                    }).collect();
                    view.apply(&changes);
                }
                Step::Freeze => frozen.extend(view.freeze()),
                Step::Complete => if let Some(oldest) = frozen.pop_front() {
                    fragment += 1;
                    view.swap(Swap::freeze(&oldest, segment_of(fragment, &oldest)).expect("its own rows")).expect("the oldest, its own rows");
                },
                Step::PrepareCompaction => if prepared.is_none() {
                    fragment += 1;
                    prepared = Some(compaction(&view, fragment));
                },
                Step::SwapCompaction => if let Some(prepared) = prepared.take() {
                    view.swap(prepared).expect("segments go in no other way");
                },
                Step::Settle(slice) => { view.settle_slice(slice); }
            }
            prop_assert_eq!(&contents(&view.snapshot()), &expected);
            for id in 0..40 {
                prop_assert_eq!(seq_of(&view, id), expected.get(&id).copied());
            }
        }
        while view.settle_slice(3) {}
        for id in 0..40 {
            prop_assert_eq!(seq_of(&view, id), expected.get(&id).copied());
        }
        let state = view.state.read();
        let entries = (0..40).filter(|&id| state.entry(&DocId::from(id)).is_some()).count();
        prop_assert!(entries >= expected.len());
        prop_assert!(state.rows.forwards.is_empty());
    }
}

#[test]
fn a_lookup_and_its_snapshot_agree_while_a_writer_works() {
    let view = opened(&[]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let everyone: Vec<DocId> = (0..64).map(DocId::from).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut looked = 0u64;
                while !done.load(std::sync::atomic::Ordering::Acquire) || looked == 0 {
                    let (snapshot, rows) = view.lookup_with_snapshot(&everyone);
                    let found = rows.iter().flatten().count() as u64;
                    assert_eq!(found, snapshot.live_rows());
                    for (id, row) in everyone.iter().zip(&rows) {
                        if let Some((row, seq)) = *row {
                            assert!(snapshot.is_live(row));
                            assert_eq!(
                                (snapshot.row_id(row).as_ref(), snapshot.row_seq(row)),
                                (Some(id), Some(seq))
                            );
                        }
                    }
                    looked += 1;
                }
            });
        }
        let (mut seq, mut random) = (0, 7u64);
        for round in 0..3_000u64 {
            let changes: Vec<Change> = (0..30)
                .map(|_| {
                    seq += 1;
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let id = random >> 58;
                    if random >> 40 & 3 == 0 {
                        delete(id, seq)
                    } else {
                        upsert(id, seq)
                    }
                })
                .collect();
            view.apply(&changes);
            if round % 7 == 0
                && let Some(frozen) = view.freeze()
            {
                view.complete_freeze(&frozen, segment_of(round, &frozen))
                    .expect("its own rows");
            }
            if round % 50 == 0 {
                view.swap(compaction(&view, round))
                    .expect("segments go in no other way");
                view.settle();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
}
