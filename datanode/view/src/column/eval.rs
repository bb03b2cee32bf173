//! Tests over whole columns.
//!
//! Most tests are a search among a column's distinct values or buckets and one scan of
//! narrow codes; what is left is asked row by row, of the rows that other tests left.

use std::sync::Arc;

use rhumb_core::filter::{Test, dig};

use super::numbers::{Numbers, float_of_key, int_of_key, place_of_float, place_of_int, place_of_time};
use super::{Column, Data, Presence, lists, parse};
use crate::bits::Bits;
use crate::span::{Sought, spans};

impl Column {
    /// Rows of `within` that pass the test.
    pub(crate) fn select(&self, test: &Test, within: &Bits) -> Bits {
        let mut selected = match self.passing(test) {
            Some(passing) => passing,
            None => self.one_by_one(test, within),
        };
        self.with_missing(&mut selected, test.matches_missing());
        selected.and(within);
        selected
    }

    /// As `select`, for what lies at the end of a path inside json.
    pub(crate) fn select_json(&self, steps: &[Arc<str>], test: &Test, within: &Bits) -> Bits {
        let mut selected = match &self.data {
            Data::Json(arena, paths) => {
                let row = |at| parse(arena.get(at));
                let wanted = within.count() as usize;
                match paths.passing(steps, test, (wanted, arena.len()), row) {
                    Some(passing) => passing,
                    None => self.each(within, |at| test.matches_json(dig(&row(at), steps))),
                }
            }
            _ => self.constant(test.matches_missing()),
        };
        self.with_missing(&mut selected, test.matches_missing());
        selected.and(within);
        selected
    }

    /// All rows whose value passes, where that can be told without asking each of them.
    /// Of rows without the field it says nothing.
    fn passing(&self, test: &Test) -> Option<Bits> {
        if let Test::Exists(wanted) = test {
            return Some(self.constant(*wanted));
        }
        match &self.data {
            // What is known of vectors is their presence, and no test compares them.
            Data::Nothing => Some(self.constant(matches!(test, Test::Ne(_) | Test::NotIn(_)))),
            Data::Bool(bits) => Some(select_bool(bits, test)),
            Data::Int(numbers) => in_order(numbers, test, place_of_int),
            Data::Time(numbers) => in_order(numbers, test, place_of_time),
            Data::Float(numbers) => in_order(numbers, test, place_of_float),
            Data::Dictionary(dictionary) => Some(dictionary.passing(test)),
            Data::Text(text) => text.passing(test, |at| self.present.holds(at)),
            Data::List { ends, items } => match test {
                Test::ContainsAny(wanted) => Some(lists::holding(ends, items, wanted)),
                Test::ContainsAll(wanted) => Some(lists::holding_all(ends, items, wanted)),
                _ => None,
            },
            Data::Json(..) => None,
        }
    }

    fn one_by_one(&self, test: &Test, within: &Bits) -> Bits {
        match &self.data {
            Data::Int(numbers) => self.each(within, |at| test.matches_int(int_of_key(numbers.key(at)))),
            Data::Time(numbers) => self.each(within, |at| test.matches_time(int_of_key(numbers.key(at)))),
            Data::Float(numbers) => self.each(within, |at| test.matches_float(float_of_key(numbers.key(at)))),
            Data::Text(text) => self.each(within, |at| test.matches_str(text.get(at))),
            Data::Nothing | Data::Bool(_) | Data::Dictionary(_) | Data::List { .. } | Data::Json(..) => {
                self.each(within, |at| test.matches(self.value(at as u32).as_ref()))
            }
        }
    }

    /// Rows of `within` that have the field and pass.
    fn each(&self, within: &Bits, passes: impl Fn(usize) -> bool) -> Bits {
        let mut selected = Bits::none(within.len());
        for row in within.iter().filter(|&row| self.is_present(row)) {
            if passes(row as usize) {
                selected.set(row as usize);
            }
        }
        selected
    }

    fn constant(&self, passes: bool) -> Bits {
        match passes {
            true => Bits::all(self.rows as usize),
            false => Bits::none(self.rows as usize),
        }
    }

    /// Rows without the field hold what means nothing: theirs is the test's word on
    /// missing.
    fn with_missing(&self, selected: &mut Bits, missing_passes: bool) {
        match (&self.present, missing_passes) {
            (Presence::Everywhere, _) => {}
            (Presence::Nowhere, passes) => *selected = self.constant(passes),
            (Presence::Some(present), false) => selected.and(present),
            (Presence::Some(present), true) => selected.or_not(present),
        }
    }
}

fn in_order(
    numbers: &Numbers,
    test: &Test,
    place: impl Fn(Sought<'_>) -> Option<std::ops::Range<u128>>,
) -> Option<Bits> {
    spans(test, place).map(|spans| numbers.within(&spans))
}

fn select_bool(bits: &Bits, test: &Test) -> Bits {
    let mut selected = bits.clone();
    match (test.matches_bool(true), test.matches_bool(false)) {
        (true, true) => selected = Bits::all(bits.len()),
        (true, false) => {}
        (false, true) => selected.invert(),
        (false, false) => selected = Bits::none(bits.len()),
    }
    selected
}
