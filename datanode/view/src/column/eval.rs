//! Tests over whole columns.
//!
//! A test is asked once per dictionary entry, once per truth value, and row by row only
//! where values differ from row to row; bounds on numbers become plain comparisons.

use rhumb_core::Value;
use rhumb_core::filter::{Test, dig};

use super::{Column, Data, DictionaryCodes, Presence, parse, span};
use crate::bits::Bits;

impl Column {
    /// Rows of `within` that pass the test.
    pub(crate) fn select(&self, test: &Test, within: &Bits) -> Bits {
        let mut selected = match &self.data {
            Data::Nothing => constant(within, test_presence(test)),
            Data::Bool(bits) => select_bool(bits, test),
            Data::Int(values) => match IntRange::of(test, as_int) {
                Some(range) => Bits::from_fn(values.len(), |at| range.holds(values[at])),
                None => self.each(within, |at| test.matches_int(values[at])),
            },
            Data::Time(values) => match IntRange::of(test, as_time) {
                Some(range) => Bits::from_fn(values.len(), |at| range.holds(values[at])),
                None => self.each(within, |at| test.matches_time(values[at])),
            },
            Data::Float(values) => match FloatRange::of(test) {
                Some(range) => Bits::from_fn(values.len(), |at| range.holds(values[at])),
                None => self.each(within, |at| test.matches_float(values[at])),
            },
            Data::Dictionary { codes, entries } => {
                let passing: Vec<bool> = entries.iter().map(|entry| test.matches_str(entry)).collect();
                match codes {
                    DictionaryCodes::Byte(codes) => {
                        Bits::from_fn(codes.len(), |at| passing[usize::from(codes[at])])
                    }
                    DictionaryCodes::Short(codes) => {
                        Bits::from_fn(codes.len(), |at| passing[usize::from(codes[at])])
                    }
                }
            }
            Data::Text(arena) => self.each(within, |at| test.matches_str(arena.get(at))),
            Data::List { ends, items } => self.select_lists(ends, items, test, within),
            Data::Json(_) => self.each(within, |at| test.matches(self.value(at as u32).as_ref())),
        };
        selected.and(within);
        self.with_missing(selected, test, within)
    }

    /// As `select`, for what lies at the end of a path inside json.
    pub(crate) fn select_json(&self, steps: &[impl AsRef<str>], test: &Test, within: &Bits) -> Bits {
        let selected = match &self.data {
            Data::Json(arena) => self.each(within, |at| {
                let json = parse(arena.get(at));
                test.matches_json(dig(&json, steps))
            }),
            _ => constant(within, test.matches_missing()),
        };
        self.with_missing(selected, test, within)
    }

    /// Membership is asked of the items themselves, all lists in one go.
    fn select_lists(&self, ends: &[u32], items: &Column, test: &Test, within: &Bits) -> Bits {
        let every_item = Bits::all(items.rows as usize);
        let holding = |wanted: &[Value]| {
            let hits = items.select(&Test::In(wanted.to_vec()), &every_item);
            self.each(within, |at| span(ends, at).any(|item| hits.get(item)))
        };
        match test {
            Test::ContainsAny(wanted) => holding(wanted),
            Test::ContainsAll(wanted) => {
                let mut all = self.each(within, |_| true);
                wanted
                    .iter()
                    .for_each(|wanted| all.and(&holding(std::slice::from_ref(wanted))));
                all
            }
            Test::Exists(wanted) => constant(within, *wanted),
            _ => self.each(within, |at| test.matches(self.value(at as u32).as_ref())),
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

    /// Rows without the field hold a zero that means nothing: theirs is the test's word
    /// on missing.
    fn with_missing(&self, mut selected: Bits, test: &Test, within: &Bits) -> Bits {
        match (&self.present, test.matches_missing()) {
            (Presence::Everywhere, _) => selected,
            (Presence::Nowhere, passes) => constant(within, passes),
            (Presence::Some(present), false) => {
                selected.and(present);
                selected
            }
            (Presence::Some(present), true) => {
                let mut missing = within.clone();
                missing.and_not(present);
                selected.and(present);
                selected.or(&missing);
                selected
            }
        }
    }
}

/// For columns of which nothing but presence is known: vectors.
fn test_presence(test: &Test) -> bool {
    matches!(test, Test::Exists(true) | Test::Ne(_) | Test::NotIn(_))
}

fn constant(within: &Bits, passes: bool) -> Bits {
    if passes {
        within.clone()
    } else {
        Bits::none(within.len())
    }
}

fn select_bool(bits: &Bits, test: &Test) -> Bits {
    match (test.matches_bool(true), test.matches_bool(false)) {
        (true, true) => Bits::all(bits.len()),
        (true, false) => bits.clone(),
        (false, true) => {
            let mut rest = Bits::all(bits.len());
            rest.and_not(bits);
            rest
        }
        (false, false) => Bits::none(bits.len()),
    }
}

/// Both ends included; empty when they cross.
struct IntRange {
    low: i64,
    high: i64,
}

impl IntRange {
    /// `None` when the test is no range, or compares with something else.
    fn of(test: &Test, operand: impl Fn(&Value) -> Option<i64>) -> Option<Self> {
        let (low, high) = match test {
            Test::Eq(value) => (operand(value)?, operand(value)?),
            Test::Gte(value) => (operand(value)?, i64::MAX),
            Test::Lte(value) => (i64::MIN, operand(value)?),
            Test::Gt(value) => (operand(value)?.checked_add(1)?, i64::MAX),
            Test::Lt(value) => (i64::MIN, operand(value)?.checked_sub(1)?),
            _ => return None,
        };
        Some(Self { low, high })
    }

    fn holds(&self, value: i64) -> bool {
        (self.low <= value) & (value <= self.high)
    }
}

fn as_int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        _ => None,
    }
}

fn as_time(value: &Value) -> Option<i64> {
    match value {
        Value::Time(value) => Some(*value),
        _ => None,
    }
}

/// Both ends included.
struct FloatRange {
    low: f64,
    high: f64,
}

impl FloatRange {
    fn of(test: &Test) -> Option<Self> {
        let operand = |value: &Value| match value {
            Value::Float(value) if value.is_finite() => Some(*value),
            _ => None,
        };
        let (low, high) = match test {
            Test::Eq(value) => (operand(value)?, operand(value)?),
            Test::Gte(value) => (operand(value)?, f64::INFINITY),
            Test::Lte(value) => (f64::NEG_INFINITY, operand(value)?),
            Test::Gt(value) => (operand(value)?.next_up(), f64::INFINITY),
            Test::Lt(value) => (f64::NEG_INFINITY, operand(value)?.next_down()),
            _ => return None,
        };
        Some(Self { low, high })
    }

    fn holds(&self, value: f64) -> bool {
        (self.low <= value) & (value <= self.high)
    }
}
