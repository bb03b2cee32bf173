//! Patterns on strings: `$glob`, `LIKE`, `$regex`.
//!
//! All run in time linear in the string (the regex crate has no backtracking).  What a
//! pattern may cost in memory is bounded by its length and by the size of its program,
//! together with `MOST_PATTERNS` per filter.

use regex::{Regex, RegexBuilder};

use super::Test;
use crate::problem::{Code, Problem};
use crate::value::Value;

/// Patterns of one filter.
pub(super) const MOST_PATTERNS: usize = 64;
const PATTERN_BYTES: usize = 4096;
/// Of a compiled program, and of the automaton that is built as it runs.
const PROGRAM_BYTES: usize = 1 << 20;
/// Parentheses and repetitions inside one another.
const NESTED: u32 = 64;

/// A piece of a whole-string pattern.
#[derive(PartialEq)]
enum Piece {
    Literal(char),
    One,
    Any,
}

/// `*` is any text, `?` one character, all else itself.
pub(super) fn glob(pattern: &str) -> Result<Test, Problem> {
    let pieces = pattern.chars().map(|c| match c {
        '*' => Piece::Any,
        '?' => Piece::One,
        c => Piece::Literal(c),
    });
    whole_string(pattern, pieces.collect())
}

/// `%` is any text, `_` one character; a backslash makes either of them, or itself, plain.
pub(super) fn like(pattern: &str) -> Result<Test, Problem> {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '%' => Piece::Any,
            '_' => Piece::One,
            '\\' => Piece::Literal(chars.next_if(|c| matches!(c, '%' | '_' | '\\')).unwrap_or('\\')),
            c => Piece::Literal(c),
        });
    }
    whole_string(pattern, pieces)
}

/// Found anywhere in the string.
pub(super) fn regex(pattern: &str) -> Result<Test, Problem> {
    compile(pattern, pattern).map(Test::Matches)
}

fn whole_string(pattern: &str, mut pieces: Vec<Piece>) -> Result<Test, Problem> {
    pieces.dedup_by(|a, b| *a == Piece::Any && *b == Piece::Any);
    let plain: String = pieces
        .iter()
        .map_while(|piece| match piece {
            Piece::Literal(c) => Some(*c),
            Piece::One | Piece::Any => None,
        })
        .collect();
    // The two shapes that a column can answer without a regex.
    match &pieces[plain.chars().count()..] {
        [] => return Ok(Test::Eq(Value::Str(plain.into()))),
        [Piece::Any] => return Ok(Test::Prefix(plain.into())),
        _ => {}
    }
    let mut source = String::from(r"\A(?s:");
    for piece in pieces {
        match piece {
            Piece::Literal(c) => source.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            Piece::One => source.push('.'),
            Piece::Any => source.push_str(".*"),
        }
    }
    source.push_str(r")\z");
    compile(&source, pattern).map(Test::Matches)
}

fn compile(source: &str, written: &str) -> Result<Regex, Problem> {
    if written.len() > PATTERN_BYTES {
        return Err(Problem::new(
            Code::LimitExceeded,
            format!(
                "a pattern has at most {PATTERN_BYTES} bytes, this one has {}",
                written.len()
            ),
        ));
    }
    let built = RegexBuilder::new(source)
        .size_limit(PROGRAM_BYTES)
        .dfa_size_limit(PROGRAM_BYTES)
        .nest_limit(NESTED)
        .build();
    built.map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => {
            Problem::new(Code::LimitExceeded, "the pattern takes too much memory")
                .hint("use fewer repetitions")
        }
        other => {
            // The last line says what is wrong; the ones above draw the pattern.
            let text = other.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            Problem::new(Code::InvalidFilter, format!("the pattern is not valid: {reason}"))
                .hint("$regex takes RE2 syntax: no look-around, no back-references")
        }
    })
}
