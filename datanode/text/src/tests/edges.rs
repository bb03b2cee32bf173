//! What a client may send, and what texts may be.

use rhumb_core::problem::Code;

use super::{Dice, Row, fields, fresh, name, sealed, search, whole};
use crate::{
    Allowed, Boosted, FreshText, HighlightSpec, Index, Operator, Part, SearchSpec, TextError, TextFields,
    TextQuery, TextRow, highlight, matching,
};

fn both<R>(rows: &[Row], check: impl Fn(&[Part<'_>]) -> R) -> [R; 2] {
    let (split, text) = (sealed(rows), fresh(rows));
    let rows = rows.len() as u32;
    [
        check(&[whole(Index::Sealed(&split))]),
        check(&[whole(Index::Fresh {
            text: &text,
            rows,
            live: None,
        })]),
    ]
}

fn ordinals(parts: &[Part<'_>], query: &TextQuery) -> Vec<u32> {
    search(parts, query, 10)
        .iter()
        .map(|hit| hit.row.ordinal)
        .collect()
}

#[test]
fn no_words_and_only_stop_words_match_nothing() {
    let rows = [Row::body("the boat of the sea"), Row::body(""), Row::default()];
    for words in ["", "   ", "the of", "!?", "the, AND of!"] {
        for operator in [Operator::Or, Operator::And, Operator::Phrase] {
            let query = TextQuery {
                operator,
                ..TextQuery::new(words)
            };
            for (hits, sets) in both(&rows, |parts| {
                (ordinals(parts, &query), matching(parts, &query, &fields()))
            }) {
                assert!(hits.is_empty(), "{words:?}");
                assert_eq!(sets.expect("matched"), [[0]], "{words:?}");
            }
        }
    }
}

#[test]
fn no_parts_and_empty_parts_have_no_hits() {
    assert!(search(&[], &TextQuery::new("boat"), 10).is_empty());
    for hits in both(&[], |parts| ordinals(parts, &TextQuery::new("boat"))) {
        assert!(hits.is_empty());
    }
}

#[test]
fn a_stop_word_inside_a_phrase_keeps_its_place() {
    let rows = [
        Row::body("ship of war"),
        Row::body("ship war"),
        Row::body("a ship in war"),
        Row::body("war ship"),
        Row::body("ship of the war"),
    ];
    let phrase = |words: &str| TextQuery {
        operator: Operator::Phrase,
        ..TextQuery::new(words)
    };
    assert_eq!(
        both(&rows, |parts| ordinals(parts, &phrase("ships of wars"))),
        [vec![0, 2], vec![0, 2]]
    );
    assert_eq!(
        both(&rows, |parts| ordinals(parts, &phrase("ship war"))),
        [vec![1], vec![1]]
    );
    let begun = TextQuery {
        prefix: true,
        ..phrase("ship wa")
    };
    assert_eq!(both(&rows, |parts| ordinals(parts, &begun)), [vec![1], vec![1]]);
}

#[test]
fn all_words_may_come_from_different_fields() {
    let row = |title: &str, body: &str| Row {
        title: Some(title.into()),
        body: Some(body.into()),
    };
    let rows = [
        row("boat", "red"),
        row("boat", "blue"),
        row("red", "x"),
        row("x", "red boat"),
    ];
    let query = TextQuery {
        operator: Operator::And,
        ..TextQuery::new("red boat")
    };
    for mut hits in both(&rows, |parts| ordinals(parts, &query)) {
        hits.sort_unstable();
        assert_eq!(hits, [0, 3]);
    }
}

#[test]
fn misspelled_words_and_beginnings_are_found_after_the_words_themselves() {
    let rows = [
        Row::body("harbour lights"),
        Row::body("harbor lights"),
        Row::body("harpoon"),
    ];
    let near = TextQuery {
        fuzzy: 2,
        ..TextQuery::new("harbor")
    };
    assert_eq!(
        both(&rows, |parts| ordinals(parts, &near)),
        [vec![1, 0], vec![1, 0]]
    );
    let begun = TextQuery {
        prefix: true,
        ..TextQuery::new("harb")
    };
    assert_eq!(
        both(&rows, |parts| ordinals(parts, &begun)),
        [vec![0, 1], vec![0, 1]]
    );
}

#[test]
fn a_row_of_a_megabyte_and_ten_thousand_hits_are_nothing_special() {
    let mut dice = Dice(7);
    let words: Vec<String> = (0..160_000).map(|_| format!("w{}", dice.below(30_000))).collect();
    let mut rows = vec![Row::body(words.join(" ") + " needle pin")];
    assert!(rows[0].body.as_ref().is_some_and(|text| text.len() > 900_000));
    rows.extend((0..12_000).map(|at| Row::body(format!("hay {}", at % 7))));
    let phrase = TextQuery {
        operator: Operator::Phrase,
        ..TextQuery::new("needle pin")
    };
    assert_eq!(both(&rows, |parts| ordinals(parts, &phrase)), [vec![0], vec![0]]);
    for hits in both(&rows, |parts| search(parts, &TextQuery::new("hay"), 10_000)) {
        let rows: Vec<u32> = hits.iter().map(|hit| hit.row.ordinal).collect();
        assert_eq!(rows, (1..=10_000).collect::<Vec<u32>>());
    }
}

#[test]
fn ties_at_the_last_place_go_by_the_callers_order() {
    let rows: Vec<Row> = (0..1_000).map(|_| Row::body("same words")).collect();
    let (split, fields) = (sealed(&rows), fields());
    let query = TextQuery::new("words");
    let allowed = |word: usize| if word == 3 { 0 } else { u64::MAX };
    let part = Part {
        allowed: Allowed::By(&allowed),
        ascending: false,
        ..whole(Index::Sealed(&split))
    };
    let spec = SearchSpec {
        query: &query,
        fields: &fields,
        k: 3,
        tie: &|a: TextRow, b: TextRow| {
            (a.ordinal % 256)
                .cmp(&(b.ordinal % 256))
                .then(b.cmp(&a))
                .reverse()
        },
    };
    let hits = crate::search(&[part], &spec).expect("searched");
    assert_eq!(
        hits.iter().map(|hit| hit.row.ordinal).collect::<Vec<_>>(),
        [511, 767, 510]
    );
}

#[test]
fn a_field_that_no_row_has_and_one_that_came_late() {
    let mut more = fields();
    more.add(name("late"), "german").expect("known");
    let text = FreshText::new();
    text.push(&fields(), |_| Some("boat")).expect("pushed");
    text.push(&more, |field| (field.as_str() == "late").then_some("Häuser"))
        .expect("pushed");
    text.push(&more, |_| None).expect("pushed");
    let split = sealed(&[Row::body("boat")]);
    let parts = [
        whole(Index::Sealed(&split)),
        whole(Index::Fresh {
            text: &text,
            rows: 3,
            live: None,
        }),
    ];
    let find = |words: &str| {
        let query = TextQuery::new(words);
        let spec = SearchSpec {
            query: &query,
            fields: &more,
            k: 9,
            tie: &|a: TextRow, b: TextRow| a.cmp(&b),
        };
        let hits = crate::search(&parts, &spec).expect("searched");
        hits.iter()
            .map(|hit| (hit.row.part, hit.row.ordinal))
            .collect::<Vec<_>>()
    };
    assert_eq!(find("haus"), [(1, 1)]);
    assert_eq!(find("boat").len(), 2);
}

#[test]
fn a_refusal_names_the_field_and_the_fix() {
    let boosted = |field: &str, boost: f32| TextQuery {
        fields: vec![Boosted {
            field: name(field),
            boost,
        }],
        ..TextQuery::new("boat")
    };
    let refusal = |query: TextQuery| query.check(&fields()).expect_err("refused");
    let unknown = refusal(boosted("bodi", 1.0));
    assert_eq!(
        (unknown.code, unknown.field.as_deref()),
        (Code::UnknownField, Some("fields[0]"))
    );
    assert_eq!(unknown.hint.as_deref(), Some("did you mean 'body'?"));
    for boost in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e9] {
        assert_eq!(
            refusal(boosted("body", boost)).code,
            Code::InvalidValue,
            "{boost}"
        );
    }
    assert_eq!(
        refusal(TextQuery {
            fuzzy: 3,
            ..TextQuery::new("boat")
        })
        .field
        .as_deref(),
        Some("fuzzy")
    );
    let many: Vec<String> = (0..2_000).map(|n| format!("w{n}")).collect();
    assert_eq!(refusal(TextQuery::new(many.join(" "))).code, Code::LimitExceeded);
    let fuzzy_phrase = TextQuery {
        fuzzy: 1,
        operator: Operator::Phrase,
        ..TextQuery::new("boat")
    };
    assert!(refusal(fuzzy_phrase).hint.is_some());
}

#[test]
fn a_split_of_another_language_is_refused() {
    let split = sealed(&[Row::body("boat")]);
    let mut german = TextFields::default();
    german.add(name("body"), "german").expect("known");
    let found = matching(&[whole(Index::Sealed(&split))], &TextQuery::new("boat"), &german);
    assert!(matches!(found, Err(TextError::Corrupt(_))));
}

#[test]
fn highlights_mark_the_words_and_cut_between_words() {
    let text = "Long ago, in a café by the harbour, sailors spoke of boats; nobody sailed. ".repeat(4);
    let spec = HighlightSpec {
        fragments: 2,
        fragment_bytes: 60,
    };
    let query = TextQuery {
        fuzzy: 1,
        prefix: true,
        ..TextQuery::new("BOAT cafe sailin")
    };
    let found = highlight(&text, &name("body"), &query, &fields(), spec).expect("asked");
    assert_eq!(found.len(), 2);
    for fragment in &found {
        let piece = &text[fragment.range.clone()];
        assert!(!fragment.marks.is_empty() && piece.len() <= 64, "{piece}");
        assert!(
            !text[..fragment.range.start].ends_with(char::is_alphanumeric),
            "{piece}"
        );
        assert!(
            !text[fragment.range.end..].starts_with(char::is_alphanumeric),
            "{piece}"
        );
        for mark in &fragment.marks {
            assert!(
                ["café", "sailors", "boats", "sailed"].contains(&&text[mark.clone()]),
                "{}",
                &text[mark.clone()]
            );
        }
    }
    assert!(found[0].range.end <= found[1].range.start);
    let none = highlight("nothing here", &name("body"), &query, &fields(), spec).expect("asked");
    assert!(none.is_empty());
}

proptest::proptest! {
    #[test]
    fn any_unicode_is_indexed_found_and_highlighted_without_a_panic(
        texts in proptest::collection::vec("\\PC{0,60}", 1..8), words in "\\PC{0,30}", bytes in 0usize..50,
    ) {
        let rows: Vec<Row> = texts.iter().map(Row::body).collect();
        let query = TextQuery { prefix: true, fuzzy: 1, ..TextQuery::new(words) };
        let [a, b] = both(&rows, |parts| search(parts, &query, 10));
        proptest::prop_assert_eq!(a, b);
        for text in &texts {
            let own = TextQuery::new(text.clone());
            let spec = HighlightSpec { fragments: 3, fragment_bytes: bytes };
            for fragment in highlight(text, &name("body"), &own, &fields(), spec).expect("asked") {
                for mark in &fragment.marks {
                    proptest::prop_assert!(fragment.range.start <= mark.start && mark.end <= fragment.range.end);
                }
                proptest::prop_assert!(text.get(fragment.range).is_some());
            }
        }
    }
}

#[test]
fn rows_that_died_while_fresh_count_for_nothing() {
    let others = || {
        let fillers = (0..200).map(|_| Row::body("filler w"));
        [Row::body("beta y"), Row::body("beta z z")]
            .into_iter()
            .chain(fillers)
    };
    let written = |times: usize| {
        let again = (0..times).map(|_| Row::body("alpha x"));
        fresh(&again.chain(others()).collect::<Vec<_>>())
    };
    let scores = |times: usize| {
        let text = written(times);
        let rows = text.rows();
        let mut live = vec![u64::MAX; rows.div_ceil(64) as usize];
        (0..times - 1).for_each(|row| live[row / 64] &= !(1 << (row % 64)));
        let part = Part {
            allowed: Allowed::Words(&live),
            ..whole(Index::Fresh {
                text: &text,
                rows,
                live: Some(&live),
            })
        };
        let hits = search(&[part], &TextQuery::new("alpha beta"), 10);
        hits.iter().map(|hit| hit.score).collect::<Vec<_>>()
    };
    let once = scores(1);
    assert_eq!(once.len(), 3);
    for times in [2, 64, 100] {
        assert_eq!(scores(times), once, "written {times} times");
    }
}
