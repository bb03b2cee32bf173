//! Grids, lists and calibrations by themselves: files, merges, odd vectors.

use std::sync::Arc;

use proptest::prelude::*;
use rhumb_core::query::Accuracy;
use rhumb_core::{Element, Metric, Vector, VectorIndex, VectorType};

use super::calibrate::{Limits, Needed};
use super::random::Random;
use super::*;
use crate::codes::Codes;
use crate::error::ViewError;

fn ty(dim: u32, metric: Metric, element: Element) -> VectorType {
    VectorType {
        dim,
        metric,
        element,
        index: VectorIndex::Auto,
    }
}

fn vectors(seed: u64, rows: usize, dim: usize) -> Vec<Vec<f32>> {
    let mut random = Random::new(seed);
    (0..rows)
        .map(|_| (0..dim).map(|_| random.normal()).collect())
        .collect()
}

fn grid(ty: &VectorType, id: u128, vectors: &[Vec<f32>]) -> Arc<Grid> {
    let mut trainer = GridTrainer::new(ty, id, vectors.len(), 5).expect("lists are for this type");
    vectors
        .iter()
        .for_each(|vector| trainer.push_f32(vector).expect("the field's shape"));
    Arc::new(
        trainer
            .train(&|| false)
            .expect("not cancelled")
            .expect("some rows"),
    )
}

fn lists<'a>(grid: &Arc<Grid>, rows: u32, vectors: impl Iterator<Item = (u32, &'a Vec<f32>)>) -> Lists {
    let mut builder = ListsBuilder::new(grid.clone(), rows);
    for (ordinal, vector) in vectors {
        builder.push_f32(ordinal, vector).expect("the field's shape");
    }
    builder.finish()
}

/// Every single flipped bit of a byte, and every shorter or longer file, must be refused.
fn refuses_damage<T>(bytes: &[u8], read: impl Fn(&[u8]) -> Result<T, ViewError>) {
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        assert!(read(&flipped).is_err(), "byte {at} of {}", bytes.len());
        assert!(read(&bytes[..at]).is_err(), "{at} bytes of {}", bytes.len());
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(read(&longer).is_err());
}

#[test]
fn files_come_back_as_they_were_and_damaged_ones_are_refused() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let ty = ty(64, metric, Element::F32);
        let rows = vectors(3, 150, 64);
        let made = grid(&ty, 77, &rows);
        let bytes = made.to_bytes();
        let read = Arc::new(Grid::from_bytes(&bytes).expect("as written"));
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!((read.id(), read.lists(), read.ty()), (77, made.lists(), &ty));
        refuses_damage(&bytes, Grid::from_bytes);

        let listed = lists(&made, 200, (10..).zip(&rows));
        assert_eq!((listed.listed(), listed.rows()), (150, 200));
        let bytes = listed.to_bytes();
        let back = Lists::from_bytes(&bytes, read.clone()).expect("as written");
        assert_eq!(back.to_bytes(), bytes);
        refuses_damage(&bytes, |bytes| Lists::from_bytes(bytes, read.clone()));
        let other = grid(&ty, 78, &rows);
        assert_eq!(Lists::from_bytes(&bytes, other).err(), Some(ViewError::OtherGrid));

        let bytes = made.calibration().to_bytes();
        assert_eq!(Calibration::from_bytes(&bytes), Ok((*made.calibration()).clone()));
        refuses_damage(&bytes, Calibration::from_bytes);
    }
}

#[test]
fn codes_come_back_from_their_file_and_damaged_ones_are_refused() {
    let floats = vectors(8, 20, 33).into_iter().map(|v| Vector::F32(v.into()));
    let ints = (0..20i8).map(|i| Vector::I8([i; 33].into()));
    let bits = (0..20u8).map(|i| Vector::Bits([i, 1, 2, 3, 128].into()));
    let kinds: [(Metric, Element, Vec<Vector>); 3] = [
        (Metric::Cosine, Element::F32, floats.collect()),
        (Metric::L2, Element::Int8, ints.collect()),
        (Metric::Hamming, Element::Binary, bits.collect()),
    ];
    for (metric, element, rows) in kinds {
        let rows = rows.iter().map(Some).chain([None]);
        let codes = Codes::build(&ty(33, metric, element), rows).expect("the field's shape");
        let bytes = codes.to_bytes();
        let back = Codes::from_bytes(&bytes).expect("as written");
        assert_eq!((back.rows(), back.is_exact()), (21, codes.is_exact()));
        assert_eq!(back.to_bytes(), bytes);
        refuses_damage(&bytes, Codes::from_bytes);
    }
}

/// A checksum keeps chance out, not malice: what a file says of itself is checked too.
#[test]
fn files_that_contradict_themselves_are_refused() {
    let ty = ty(64, Metric::L2, Element::F32);
    let rows = vectors(4, 100, 64);
    let grid = grid(&ty, 1, &rows);
    let listed = lists(&grid, 100, (0..).zip(&rows));
    let bytes = listed.to_bytes();
    let mut random = Random::new(2);
    for _ in 0..3_000 {
        let mut bytes = bytes.clone();
        let body = bytes.len() - 8;
        let at = random.below(body);
        bytes[at] = random.next() as u8;
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum.to_le_bytes());
        if let Ok(lists) = Lists::from_bytes(&bytes, grid.clone()) {
            let aim = Aim::new(&grid, &rows[0]).expect("an ordinary query");
            let mut passing = Passing::default();
            for list in 0..grid.lists() {
                aim.scan(&lists, list, f32::NEG_INFINITY, 1.0, &mut passing);
                passing.each(&lists, list, |ordinal| assert!(ordinal < 100));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_merge_equals_lists_made_anew(seed in any::<u64>(), cut in 0usize..300, keep in 1u64..6, metric in 0usize..3) {
        let metric = [Metric::Cosine, Metric::Dot, Metric::L2][metric];
        let ty = ty(if seed.is_multiple_of(2) { 64 } else { 264 }, metric, Element::F32);
        let mut rows = vectors(seed, 300, ty.dim as usize);
        rows[7].fill(3e38);
        let grid = grid(&ty, 1, &rows);
        let first = lists(&grid, cut as u32, (0..).zip(&rows[..cut]));
        let second = lists(&grid, 300, (cut as u32..).zip(&rows[cut..]));
        // Rows are left out and turned round.
        let map = |old: u32| (!u64::from(old).is_multiple_of(keep + 1)).then_some(299 - old);
        let merged = Lists::merge(&grid, 300, &[(&first, &map), (&second, &map)]).expect("one grid");
        let kept = (0..300).rev().filter(|old| map(*old).is_some());
        let anew = lists(&grid, 300, kept.map(|old| (299 - old, &rows[old as usize])));
        prop_assert_eq!(&merged.starts, &anew.starts);
        prop_assert_eq!(&merged.ordinals, &anew.ordinals);
        prop_assert_eq!(&merged.add, &anew.add);
        prop_assert_eq!(&merged.mul, &anew.mul);
        prop_assert_eq!(&merged.bits, &anew.bits);
        prop_assert_eq!(&merged.strays, &anew.strays);
    }
}

#[test]
fn lists_of_two_grids_do_not_merge() {
    let ty = ty(64, Metric::Cosine, Element::F32);
    let rows = vectors(1, 50, 64);
    let (one, other) = (grid(&ty, 1, &rows), grid(&ty, 2, &rows));
    let listed = lists(&one, 50, (0..).zip(&rows));
    let merged = Lists::merge(&other, 50, &[(&listed, &Some)]);
    assert_eq!(merged.err(), Some(ViewError::OtherGrid));
}

#[test]
fn the_same_vectors_and_seed_give_the_same_grid() {
    let ty = ty(96, Metric::L2, Element::F32);
    let rows = vectors(6, 400, 96);
    assert_eq!(grid(&ty, 1, &rows).to_bytes(), grid(&ty, 1, &rows).to_bytes());
}

#[test]
fn training_and_listing_take_any_finite_vector() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        for size in [0.0, 1e-45, 1e-38, 1e-20, 1.0, 1e20, 3e38] {
            let ty = ty(70, metric, Element::F32);
            let mut rows = vectors(9, 60, 70);
            rows.iter_mut().flatten().for_each(|x| *x = (*x * 0.2) * size);
            rows[3].fill(0.0);
            rows[4].fill(f32::MAX);
            rows[5].fill(f32::MIN_POSITIVE);
            let grid = grid(&ty, 1, &rows);
            let listed = lists(&grid, 60, (0..).zip(&rows));
            assert_eq!(listed.listed() as usize + listed.strays.len(), 60);
            assert!(
                listed.add.iter().chain(&listed.mul).all(|x| x.is_finite()),
                "{metric:?} {size}"
            );
            assert!(Lists::from_bytes(&listed.to_bytes(), grid.clone()).is_ok());
            for query in &rows {
                if let Some(aim) = Aim::new(&grid, query) {
                    let cut = aim.cut(0.0, 1.0, 0.0);
                    assert!(
                        aim.keys().iter().chain([&cut]).all(|key| key.is_finite()),
                        "{metric:?} {size}"
                    );
                }
            }
        }
    }
}

#[test]
fn types_without_lists_have_no_trainer() {
    let short = ty(63, Metric::L2, Element::F32);
    let bits = ty(512, Metric::Hamming, Element::Binary);
    assert!(GridTrainer::new(&short, 1, 1_000, 1).is_none());
    assert!(GridTrainer::new(&bits, 1, 1_000, 1).is_none());
    for element in [Element::F32, Element::F16, Element::Int8] {
        assert!(GridTrainer::new(&ty(64, Metric::Dot, element), 1, 1_000, 1).is_some());
    }
}

#[test]
fn training_stops_when_told_to() {
    let ty = ty(64, Metric::L2, Element::F32);
    let mut trainer = GridTrainer::new(&ty, 1, 1_000, 1).expect("lists are for this type");
    vectors(1, 200, 64)
        .iter()
        .for_each(|vector| trainer.push_f32(vector).expect("the field's shape"));
    assert_eq!(trainer.train(&|| true).err(), Some(ViewError::Cancelled));
}

#[test]
fn more_recall_never_looks_at_less() {
    let mut random = Random::new(4);
    let mut draws = || (0..500).map(|_| random.normal()).collect::<Vec<f32>>();
    let mut needed = Needed {
        depths: draws(),
        margins: draws(),
    };
    // Searches that find a little more the further they go, up to all but some.
    let try_out = |limits: Limits| {
        let found = 0.3 + 0.6985 * limits.depth.clamp(0.0, 1.0);
        Ok::<_, ()>(found)
    };
    let mut measured = Calibration::new(50, 0);
    measured
        .measure(1.0, &mut needed, try_out)
        .expect("nothing fails");
    let limits = |recall: f32| measured.limits(Accuracy::Recall(recall), 1.0);
    let mut last = limits(0.01).expect("low");
    for recall in 1..=99 {
        let next = limits(recall as f32 / 100.0).expect("within the table");
        assert!(next.depth >= last.depth && next.margin >= last.margin);
        last = next;
    }
    assert_eq!(
        limits(0.999),
        None,
        "above the table only exact searches are sure"
    );
    assert_eq!(measured.limits(Accuracy::Exact, 1.0), None);
}

fn all(_: Limits) -> Result<f32, ()> {
    Ok(1.0)
}

fn needing(depth: f32) -> Needed {
    Needed {
        depths: vec![depth; 100],
        margins: vec![1.0; 100],
    }
}

#[test]
fn the_fewer_rows_pass_nearby_the_more_their_class_counts() {
    let mut measured = Calibration::new(50, 100);
    for (share, depth) in [(1.0, 0.8), (0.1, 0.4)] {
        measured
            .measure(share, &mut needing(depth), all)
            .expect("nothing fails");
    }
    assert_eq!(
        Calibration::from_bytes(&measured.to_bytes()),
        Ok(measured.clone())
    );
    let depth = |share: f32| {
        let limits = measured.limits(Accuracy::Recall(0.9), share).expect("measured");
        (limits.depth * 100.0).round() as u32
    };
    assert_eq!((depth(1.0), depth(0.11)), (80, 80));
    assert_eq!((depth(0.1), depth(0.0)), (40, 40));
}

#[test]
fn searches_go_further_until_they_were_measured_with_what_is_asked() {
    let depth = |asked| {
        let mut measured = Calibration::new(50, asked);
        measured
            .measure(1.0, &mut needing(2.0), all)
            .expect("nothing fails");
        let limits = measured.limits(Accuracy::Recall(0.9), 1.0);
        limits.expect("measured").depth
    };
    assert!(depth(0) > depth(100) + 0.5);
}
