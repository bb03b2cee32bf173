//! Membership in lists, asked of the items: all lists in one go.

use rhumb_core::Value;
use rhumb_core::filter::Test;

use super::Column;
use crate::bits::Bits;

const NEAR: usize = 8;

/// Lists that hold one of `wanted`.
pub(super) fn holding(ends: &[u32], items: &Column, wanted: &[Value]) -> Bits {
    let every_item = Bits::all(items.len() as usize);
    let hits = items.select(&Test::In(wanted.to_vec()), &every_item);
    let mut rows = Bits::none(ends.len());
    let mut row = 0;
    for item in hits.iter() {
        if ends.get(row).is_some_and(|&end| end <= item) {
            row = leap(ends, row, item);
        }
        rows.set(row);
    }
    rows
}

/// Lists that hold each of `wanted`.
pub(super) fn holding_all(ends: &[u32], items: &Column, wanted: &[Value]) -> Bits {
    let mut rows = Bits::all(ends.len());
    for wanted in wanted {
        rows.and(&holding(ends, items, std::slice::from_ref(wanted)));
    }
    rows
}

/// The row of an item that lies after those of `row`: some rows are stepped over one by
/// one, then steps double.
fn leap(ends: &[u32], row: usize, item: u32) -> usize {
    let near = ends[row..]
        .iter()
        .take(NEAR)
        .take_while(|&&end| end <= item)
        .count();
    if near < NEAR {
        return row + near;
    }
    let row = row + near - 1;
    let mut step = 1;
    while ends.get(row + step).is_some_and(|&end| end <= item) {
        step *= 2;
    }
    let start = row + step / 2;
    let end = ends.len().min(row + step + 1);
    start + ends[start..end].partition_point(|&end| end <= item)
}
