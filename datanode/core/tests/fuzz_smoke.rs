//! The fuzzers' entry points on stable.

#[path = "../fuzz/src/lib.rs"]
mod entry;
mod smoke;

use smoke::Smoke;

const SMOKE: Smoke = Smoke {
    fuzz: concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"),
    words: WORDS,
    mutations: 60_000,
    longest: 2_048,
};

/// Words of the grammars, so that mutations stay near what parses.
const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"'",
    b"(",
    b")",
    b"\\",
    b"\\u00e9",
    b"\\ud83d\\ude00",
    b"\\ud800",
    b"0",
    b"-1",
    b"1.5",
    b"1e400",
    b"1e-400",
    b"9223372036854775807",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-0",
    b"null",
    b"true",
    b"false",
    b"\"id\"",
    b"\"v\":[1,2]",
    b"\"b64:AACAPwAAAEA=\"",
    b"\"b64://8=\"",
    b"\"2026-01-31T12:00:00Z\"",
    b"\"$and\"",
    b"\"$or\"",
    b"\"$not\"",
    b"\"$in\"",
    b"\"$gt\"",
    b"\"$contains_all\"",
    b"\"$exists\"",
    b"\"$regex\"",
    b"\"$glob\"",
    b"\"lex\"",
    b"\"pos\"",
    b"\"tags\"",
    b"\"extra.c.0\"",
    b"lex",
    b"pos",
    b"extra.n",
    b"tags HAS",
    b" AND ",
    b" OR ",
    b" NOT ",
    b" IN ",
    b" LIKE ",
    b" IS NULL",
    b"=",
    b"!=",
    b"<=",
    b"'a%'",
    b"\"vector\"",
    b"\"dim\"",
    b"\"element\":\"int8\"",
    b"\"text\"",
    b"[\"string\"]",
    b"\0",
];

#[test]
fn json_survives_its_corpus_and_mutations_of_it() {
    SMOKE.run("json", entry::json);
}

#[test]
fn json_filters_survive_their_corpus_and_mutations_of_it() {
    SMOKE.run("filter_json", entry::filter_json);
}

#[test]
fn sql_filters_survive_their_corpus_and_mutations_of_it() {
    SMOKE.run("filter_sql", entry::filter_sql);
}

#[test]
fn documents_survive_their_corpus_and_mutations_of_it() {
    SMOKE.run("document", entry::document);
}

#[test]
fn definitions_survive_their_corpus_and_mutations_of_it() {
    SMOKE.run("fields_definition", entry::fields_definition);
}
