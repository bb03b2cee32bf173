//! Tests as spans of an order: what compares with an operand is what lies before, at or
//! after its place.  Numbers, dictionaries and ids are all asked this way.

use std::ops::Range;

use rhumb_core::Value;
use rhumb_core::filter::Test;

/// Something that has a place in an order of values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sought<'a> {
    Value(&'a Value),
    /// All strings that begin so.
    Prefix(&'a str),
}

/// The places that pass, or with `negated` those that do not.
#[derive(Debug)]
pub(crate) struct Spans {
    /// Ascending, apart, none of them empty.
    pub(crate) places: Vec<Range<u128>>,
    pub(crate) negated: bool,
}

/// Past every place: orders count in 64 bits.
const END: u128 = u128::MAX;

/// `place` says where values equal to what is sought begin and end, and `None` when they
/// do not compare with it; then the test has to be asked value by value.
pub(crate) fn spans(test: &Test, place: impl Fn(Sought<'_>) -> Option<Range<u128>>) -> Option<Spans> {
    let of = |value: &Value| place(Sought::Value(value));
    let each = |values: &[Value]| values.iter().map(of).collect::<Option<Vec<_>>>();
    let one = |place: Range<u128>| (vec![place], false);
    let (mut places, negated) = match test {
        Test::Eq(value) => one(of(value)?),
        Test::Ne(value) => (vec![of(value)?], true),
        Test::Lt(value) => one(0..of(value)?.start),
        Test::Lte(value) => one(0..of(value)?.end),
        Test::Gt(value) => one(of(value)?.end..END),
        Test::Gte(value) => one(of(value)?.start..END),
        Test::In(values) => (each(values)?, false),
        Test::NotIn(values) => (each(values)?, true),
        Test::Prefix(prefix) => one(place(Sought::Prefix(prefix))?),
        Test::Exists(_) | Test::ContainsAny(_) | Test::ContainsAll(_) | Test::Matches(_) => return None,
    };
    places.retain(|place| !place.is_empty());
    places.sort_by_key(|place| place.start);
    places.dedup();
    Some(Spans { places, negated })
}

/// The first of `len` places that is not `before` something, when those that are come
/// first.
pub(crate) fn partition(len: u32, before: impl Fn(u32) -> bool) -> u32 {
    let (mut start, mut end) = (0, len);
    while start < end {
        let middle = start + (end - start) / 2;
        match before(middle) {
            true => start = middle + 1,
            false => end = middle,
        }
    }
    start
}
