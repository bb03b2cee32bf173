//! Splits as bytes, fresh rows as memory.

use proptest::prelude::*;

use super::{Row, blob, fields, fresh, sealed, search, whole};
use crate::{FreshText, Index, Split, TextError, TextQuery};

fn some_rows(count: usize) -> Vec<Row> {
    (0..count)
        .map(|at| Row::body(format!("row {at} of many words w{}", at % 17)))
        .collect()
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let rows = some_rows(300);
    assert!(blob(&rows) == blob(&rows), "two splits of the same rows differ");
}

#[test]
fn damaged_bytes_are_an_error_and_never_a_panic() {
    let whole = blob(&some_rows(200));
    for length in (0..whole.len()).step_by(97) {
        assert!(
            matches!(Split::open(whole[..length].to_vec()), Err(TextError::Corrupt(_))),
            "cut to {length}"
        );
    }
    for at in (0..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert!(
            matches!(Split::open(damaged), Err(TextError::Corrupt(_))),
            "byte {at}"
        );
    }
}

#[test]
fn a_split_tells_its_rows_fields_and_size() {
    let split = sealed(&some_rows(130));
    assert_eq!(split.rows(), 130);
    let fields: Vec<(String, &str)> = split
        .fields()
        .map(|(name, language)| (name.to_string(), language))
        .collect();
    assert_eq!(
        fields,
        [("body".to_owned(), "english"), ("title".to_owned(), "english")]
    );
    assert!(split.heap_size() > 130 * 2);
}

#[test]
fn fresh_memory_is_counted_as_it_grows() {
    let mut last = FreshText::new().heap_size();
    for count in [10, 100, 1_000] {
        let size = fresh(&some_rows(count)).heap_size();
        assert!(size > last + count * 20, "{size} after {last}");
        last = size;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_snapshot_never_sees_a_later_row(before in 0usize..200, after in 0usize..200) {
        let (first, then) = (some_rows(before), some_rows(after));
        let both = fresh(&[&first[..], &then[..]].concat());
        let alone = fresh(&first);
        for words in ["row", "w3", "many words w16"] {
            let query = TextQuery::new(words);
            let of = |text| search(&[whole(Index::Fresh { text, rows: before as u32, live: None })], &query, 500);
            prop_assert_eq!(of(&both), of(&alone));
        }
    }
}

#[test]
fn readers_and_the_writer_do_not_wait_for_each_other_to_finish() {
    let (text, fields) = (FreshText::new(), fields());
    let rows = some_rows(3_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for row in &rows {
                text.push(&fields, |field| row.get(field)).expect("pushed");
            }
        });
        scope.spawn(|| {
            let mut last = 0;
            while last < 3_000 {
                let count = text.rows();
                let hits = search(
                    &[whole(Index::Fresh {
                        text: &text,
                        rows: count,
                        live: None,
                    })],
                    &TextQuery::new("many"),
                    5_000,
                );
                assert_eq!(hits.len(), count as usize);
                assert!(count >= last);
                last = count;
            }
        });
    });
}
