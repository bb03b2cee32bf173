//! The fuzzers' entry points on stable.

#[path = "../fuzz/src/lib.rs"]
mod entry;
#[path = "../../core/tests/smoke/mod.rs"]
mod smoke;

use smoke::Smoke;

const SMOKE: Smoke = Smoke {
    fuzz: concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"),
    words: WORDS,
    mutations: 20_000,
    longest: 8_192,
};

/// Words of the texts, lengths and markers of the binaries.
const WORDS: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b",",
    b"\"",
    b"\"\"",
    b"id",
    b"{\"id\":\"a\"}\n",
    b"{\"id\":1,\"lex\":2}\n",
    b"v",
    b"[1,2]",
    b"b64:AACAPwAAAEA=",
    b"null",
    b"1e400",
    b"\xEF\xBB\xBF",
    b"\xFF\xFF\xFF\xFF",
    b"\x00\x00\x00\x00",
    b"\xFF\xFF\xFF\x7F",
    b"\x01\x00\x00\x00",
    b"\x00\x00\x00\x00\x00\x00\x00\x80",
    b"PAR1",
];

#[test]
fn ndjson_survives_its_corpus_and_mutations_of_it() {
    SMOKE.run("ndjson", entry::ndjson);
}

#[test]
fn csv_survives_its_corpus_and_mutations_of_it() {
    SMOKE.run("csv", entry::csv);
}

#[test]
fn arrow_survives_its_corpus_and_mutations_of_it() {
    SMOKE.run("arrow", entry::arrow);
}

#[test]
fn parquet_survives_its_corpus_and_mutations_of_it() {
    SMOKE.run("parquet", entry::parquet);
}
