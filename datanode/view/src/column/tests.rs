use proptest::prelude::*;
use rhumb_core::filter::Test;
use rhumb_core::{FieldType, Scalar};

use super::*;

fn column(ty: &FieldType, values: &[Option<Value>]) -> Column {
    let mut builder = ColumnBuilder::new(ty);
    for value in values {
        builder.push(value.as_ref()).expect("values of the type");
    }
    builder.finish()
}

fn check(column: &Column, values: &[Option<Value>], tests: &[Test]) {
    assert_eq!(column.len() as usize, values.len());
    for (at, value) in values.iter().enumerate() {
        assert_eq!(&column.value(at as u32), value);
        assert_eq!(column.is_present(at as u32), value.is_some());
    }
    let every_third = Bits::from_fn(values.len(), |at| at % 3 != 0);
    for within in [Bits::all(values.len()), every_third] {
        for test in tests {
            let selected: Vec<u32> = column.select(test, &within).iter().collect();
            let expected = within
                .iter()
                .filter(|&at| test.matches(values[at as usize].as_ref()));
            assert_eq!(selected, expected.collect::<Vec<u32>>(), "{test:?}");
        }
    }
}

fn tests_of(operands: &[Value]) -> Vec<Test> {
    let mut sorted = operands.to_vec();
    sorted.sort_by(rhumb_core::order::compare);
    sorted.dedup_by(|a, b| rhumb_core::order::compare(a, b).is_eq());
    let mut tests = vec![
        Test::In(sorted.clone()),
        Test::NotIn(sorted),
        Test::Exists(true),
        Test::Exists(false),
    ];
    for value in operands {
        tests.extend(
            [Test::Eq, Test::Ne, Test::Lt, Test::Lte, Test::Gt, Test::Gte].map(|make| make(value.clone())),
        );
    }
    tests
}

proptest! {
    #[test]
    fn numbers_are_kept_and_compared_whatever_the_operand(
        ints in proptest::collection::vec(proptest::option::of(prop_oneof![any::<i64>(), -3i64..3, Just(i64::MAX), Just(i64::MIN)]), 0..200),
        operands in proptest::collection::vec(prop_oneof![any::<i64>(), -3i64..3, Just(i64::MAX), Just(i64::MIN)], 1..4),
        odd in -4.0f64..4.0,
    ) {
        let as_int = |n: &i64| Value::Int(*n);
        let as_time = |n: &i64| Value::Time(*n);
        let as_float = |n: &i64| Value::Float(*n as f64 / 2.0);
        type Make = fn(&i64) -> Value;
        for (scalar, make) in [(Scalar::Int, as_int as Make), (Scalar::Timestamp, as_time), (Scalar::Float, as_float)] {
            let values: Vec<Option<Value>> = ints.iter().map(|n| n.as_ref().map(make)).collect();
            let mut operands: Vec<Value> = operands.iter().map(make).collect();
            operands.push(Value::Float(odd));
            check(&column(&FieldType::Scalar(scalar), &values), &values, &tests_of(&operands));
        }
    }

    #[test]
    fn strings_are_kept_and_matched_in_either_form(
        few in proptest::collection::vec(proptest::option::of(0u8..4), 0..200),
        many in proptest::collection::vec(proptest::option::of("[a-z]{20,40}"), 0..50),
    ) {
        let few: Vec<Option<Value>> = few.iter().map(|n| n.map(|n| Value::Str(["noun", "", "é", "verb"][usize::from(n)].into()))).collect();
        let many: Vec<Option<Value>> = many.iter().map(|s| s.as_deref().map(|s| Value::Str(s.into()))).collect();
        let ends_in_n = regex::Regex::new("n$").expect("a pattern");
        for values in [few, many] {
            let mut tests = tests_of(&[Value::Str("noun".into()), Value::Str("m".into())]);
            tests.push(Test::Prefix("no".into()));
            tests.push(Test::Matches(ends_in_n.clone()));
            check(&column(&FieldType::Scalar(Scalar::String), &values), &values, &tests);
        }
    }
}

/// Wide values over enough rows for buckets: clustered, or with one value again and again.
fn wide(seed: u64, rows: usize, often: Option<u64>) -> Vec<Option<u64>> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let value = |_| match next() % 10 {
        0 => None,
        1..=4 if often.is_some() => often,
        5 => Some(next() >> 44),
        _ => Some(next()),
    };
    (0..rows).map(value).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn buckets_answer_as_values_do(
        seed in any::<u64>(),
        rows in 2_000usize..4_000,
        often in proptest::option::of(any::<u64>()),
        picks in proptest::collection::vec(0usize..4_000, 1..4),
        many in 0usize..12,
    ) {
        let numbers = wide(seed, rows, often);
        let as_int = |n: u64| Value::Int(n as i64);
        let as_time = |n: u64| Value::Time(n as i64 / 3);
        let as_float = |n: u64| Value::Float((n as i64) as f64 / 1e12);
        let as_string = |n: u64| Value::Str(format!("https://{}{:x}", if n.is_multiple_of(2) { "a." } else { "" }, n).as_str().into());
        let ends_in_a_digit = regex::Regex::new("a[0-9]$").expect("a pattern");
        type Make = fn(u64) -> Value;
        for (scalar, make) in [
            (Scalar::Int, as_int as Make),
            (Scalar::Timestamp, as_time),
            (Scalar::Float, as_float),
            (Scalar::String, as_string),
        ] {
            let values: Vec<Option<Value>> = numbers.iter().map(|n| n.map(make)).collect();
            let mut operands: Vec<Value> = picks.iter().filter_map(|&at| values[at % rows].clone()).collect();
            operands.extend([0, 1, u64::MAX, 1 << 63].map(make));
            operands.extend(values.iter().flatten().take(many).cloned());
            let mut tests = tests_of(&operands);
            if scalar == Scalar::String {
                let whole = values.iter().flatten().next().cloned().unwrap_or(Value::Str("".into()));
                let Value::Str(whole) = whole else { panic!("a string") };
                for cut in [0, 3, 8, 9, 12, 15, whole.len()] {
                    tests.push(Test::Prefix(whole.chars().take(cut).collect::<String>().as_str().into()));
                }
                tests.extend(["https://zz", "http:", "i", "https://a.\u{0}"].map(|prefix| Test::Prefix(prefix.into())));
                tests.push(Test::Matches(ends_in_a_digit.clone()));
            }
            check(&column(&FieldType::Scalar(scalar), &values), &values, &tests);
        }
    }
}

#[test]
fn numbers_take_the_bytes_that_their_spread_or_variety_needs() {
    let bytes_per_row = |scalar: Scalar, value: fn(u64) -> Value| {
        let values: Vec<Option<Value>> = (0..10_000).map(|n| Some(value(n))).collect();
        let column = column(&FieldType::Scalar(scalar), &values);
        values
            .iter()
            .enumerate()
            .for_each(|(at, value)| assert_eq!(&column.value(at as u32), value));
        column.heap_size() / values.len()
    };
    assert_eq!(
        bytes_per_row(Scalar::Int, |n| Value::Int(1_000_000 + (n % 45) as i64)),
        1
    );
    assert_eq!(
        bytes_per_row(Scalar::Int, |n| Value::Int(n as i64 % 1_000 - 500)),
        2
    );
    let days = |n| Value::Time(1_700_000_000_000 + 86_400_000 * (n as i64 % 3_000));
    assert_eq!(bytes_per_row(Scalar::Timestamp, days), 2);
    assert_eq!(
        bytes_per_row(Scalar::Float, |n| Value::Float((n % 7) as f64 * 0.1)),
        1
    );
    assert_eq!(
        bytes_per_row(Scalar::Int, |n| Value::Int(n as i64 * 1_000_003 % 100_000_007)),
        4
    );
    let sparse = |n: u64| Value::Int((n as i64 % 9 - 4) * (i64::MAX / 5));
    assert_eq!(bytes_per_row(Scalar::Int, sparse), 1);
}

#[test]
fn repeated_strings_take_a_byte_a_row_and_distinct_ones_no_dictionary() {
    let repeated: Vec<Option<Value>> = (0..10_000)
        .map(|i| Some(Value::Str(format!("value {}", i % 200).as_str().into())))
        .collect();
    let column_of = |values: &[Option<Value>]| column(&FieldType::Scalar(Scalar::String), values);
    assert!(column_of(&repeated).heap_size() < 25_000);
    let distinct: Vec<Option<Value>> = (0..10_000)
        .map(|i| Some(Value::Str(format!("value {i:05}").as_str().into())))
        .collect();
    assert!(column_of(&distinct).heap_size() <= 10_000 * (11 + 4));
}

#[test]
fn more_distinct_strings_than_codes_are_spelled_out() {
    let values: Vec<Option<Value>> = (0..140_000u32)
        .map(|i| (i % 50 != 0).then(|| Value::Str(format!("{:x}", i % 70_000).as_str().into())))
        .collect();
    let tests = [
        Test::Eq(Value::Str("1".into())),
        Test::Prefix("ff".into()),
        Test::Exists(false),
    ];
    check(
        &column(
            &FieldType::Text {
                language: "english".into(),
            },
            &values,
        ),
        &values,
        &tests,
    );
}

#[test]
fn a_wide_dictionary_uses_two_byte_codes() {
    let values: Vec<Option<Value>> = (0..30_000u32)
        .map(|i| Some(Value::Str(format!("{:0>40}", i % 300).as_str().into())))
        .collect();
    let column = column(&FieldType::Scalar(Scalar::String), &values);
    assert!(column.heap_size() < 30_000 * 2 + 300 * 72 + 100);
    check(
        &column,
        &values,
        &[Test::Eq(Value::Str(format!("{:0>40}", 299).as_str().into()))],
    );
}

#[test]
fn a_column_that_no_row_has_is_free_and_missing() {
    let column = Column::missing(5);
    assert_eq!(column.heap_size(), 0);
    assert_eq!(column.value(0), None);
    let all = Bits::all(5);
    assert_eq!(column.select(&Test::Exists(false), &all).count(), 5);
    assert_eq!(column.select(&Test::Eq(Value::Int(1)), &all).count(), 0);
    assert_eq!(column.select(&Test::Ne(Value::Int(1)), &all).count(), 5);
}

#[test]
fn values_of_another_type_are_refused() {
    let mut builder = ColumnBuilder::new(&FieldType::Scalar(Scalar::Int));
    assert_eq!(
        builder.push(Some(&Value::Bool(true))),
        Err(crate::ViewError::ValueType)
    );
    assert_eq!(builder.push_time(3), Err(crate::ViewError::ValueType));
    let mut json = ColumnBuilder::new(&FieldType::Json);
    assert_eq!(json.push_json("{"), Err(crate::ViewError::ValueType));
}
