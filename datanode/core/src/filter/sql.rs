//! The SQL way to write a filter: `lex >= 3 AND pos IN ('n','v') AND NOT tags HAS 'x'`.
//!
//! ```text
//! or        = and { OR and }
//! and       = not { AND not }
//! not       = NOT not | '(' or ')' | path predicate
//! predicate = ( = | != | <> | < | <= | > | >= ) literal
//!           | IS [NOT] NULL
//!           | [NOT] IN '(' literal { ',' literal } ')'
//!           | [NOT] LIKE text | [NOT] HAS literal
//! path      = name { '.' name }          a name that is no plain word goes in "double quotes"
//! literal   = 'text' | number | TRUE | FALSE
//! ```
//! Key words are such only where the grammar has them, so a field may be called `has`.

use super::Filter;
use super::bind::{Binder, Op, Target};
use crate::json::{Json, parse_number};
use crate::limits::Limits;
use crate::problem::{Code, Problem, shorten};
use crate::schema::Schema;

pub(super) fn parse(text: &str, schema: &Schema, limits: &Limits) -> Result<Filter, Problem> {
    let tokens = tokens(text)?;
    let mut parser = Parser {
        text,
        tokens,
        at: 0,
        binder: Binder::new(schema, limits),
    };
    let filter = parser.or()?;
    match parser.peek() {
        Token::End => Ok(filter),
        Token::Close => Err(parser.expected("the end of the filter; there is one ')' too many")),
        _ => Err(parser.expected("AND, OR or the end of the filter")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    /// A name or a key word.
    Word(&'a str),
    /// In double quotes: a name, never a key word.
    Quoted(String),
    Text(String),
    Number(Json),
    Compare(Op),
    Open,
    Close,
    Comma,
    Dot,
    End,
}

fn wrong(text: &str, at: usize, what: impl AsRef<str>) -> Problem {
    let character = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
    Problem::new(
        Code::InvalidFilter,
        format!("character {character} of the filter: {}", what.as_ref()),
    )
}

/// The tokens and where they start; the last one is `End`.
fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, Problem> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = bytes.get(at) {
        let start = at;
        let second = bytes.get(at + 1);
        let (token, end) = match (first, second) {
            (b' ' | b'\t' | b'\r' | b'\n', _) => {
                at += 1;
                continue;
            }
            (b'(', _) => (Token::Open, at + 1),
            (b')', _) => (Token::Close, at + 1),
            (b',', _) => (Token::Comma, at + 1),
            (b'.', _) => (Token::Dot, at + 1),
            (b'!', Some(b'=')) | (b'<', Some(b'>')) => (Token::Compare(Op::Ne), at + 2),
            (b'<', Some(b'=')) => (Token::Compare(Op::Lte), at + 2),
            (b'>', Some(b'=')) => (Token::Compare(Op::Gte), at + 2),
            (b'=', Some(b'=')) => return Err(wrong(text, at, "'==' is not SQL").hint("use '='")),
            (b'=', _) => (Token::Compare(Op::Eq), at + 1),
            (b'<', _) => (Token::Compare(Op::Lt), at + 1),
            (b'>', _) => (Token::Compare(Op::Gt), at + 1),
            (b'\'', _) => quoted(text, at, '\'').map(|(text, end)| (Token::Text(text), end))?,
            (b'"', _) => quoted(text, at, '"').map(|(name, end)| (Token::Quoted(name), end))?,
            (b'-' | b'0'..=b'9', _) => number_or_step(text, at, &tokens)?,
            (b'A'..=b'Z' | b'a'..=b'z' | b'_', _) => {
                let end = word_end(bytes, at);
                (Token::Word(&text[at..end]), end)
            }
            _ => {
                let c = text[at..].chars().next().unwrap_or_default();
                let problem = wrong(text, at, format!("'{c}' means nothing here"));
                return Err(problem.hint("names that are no plain words go in \"double quotes\""));
            }
        };
        tokens.push((start, token));
        at = end;
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn word_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    at + rest
        .iter()
        .position(|b| !b.is_ascii_alphanumeric() && *b != b'_')
        .unwrap_or(rest.len())
}

/// What stands between two quotes; a doubled quote is one.
fn quoted(text: &str, start: usize, quote: char) -> Result<(String, usize), Problem> {
    let mut out = String::new();
    let mut at = start + 1;
    loop {
        let Some(end) = text[at..].find(quote) else {
            return Err(wrong(text, start, format!("this {quote} is never closed")));
        };
        out.push_str(&text[at..at + end]);
        at += end + 1;
        if !text[at..].starts_with(quote) {
            return Ok((out, at));
        }
        out.push(quote);
        at += 1;
    }
}

/// A number, or after a dot a step into json, which may start with a digit.
fn number_or_step<'a>(
    text: &'a str,
    at: usize,
    before: &[(usize, Token<'_>)],
) -> Result<(Token<'a>, usize), Problem> {
    let bytes = text.as_bytes();
    if bytes[at] != b'-' && matches!(before.last(), Some((_, Token::Dot))) {
        let end = word_end(bytes, at);
        return Ok((Token::Word(&text[at..end]), end));
    }
    let part_of_number = |at: usize| match bytes[at] {
        b'0'..=b'9' | b'.' | b'e' | b'E' => true,
        b'-' | b'+' => matches!(bytes[at - 1], b'e' | b'E'),
        _ => false,
    };
    let end = (at + 1..bytes.len())
        .find(|at| !part_of_number(*at))
        .unwrap_or(bytes.len());
    let written = &text[at..end];
    match parse_number(written) {
        Some(number) if word_end(bytes, end) == end => Ok((Token::Number(number), end)),
        _ => {
            let end = word_end(bytes, end);
            Err(wrong(
                text,
                at,
                format!("'{}' is not a number", shorten(&text[at..end])),
            ))
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token<'a>)>,
    at: usize,
    binder: Binder<'a>,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Filter, Problem> {
        let mut any = vec![self.and()?];
        while self.take_word("OR") {
            any.push(self.and()?);
        }
        Ok(if any.len() == 1 {
            any.remove(0)
        } else {
            Filter::Or(any)
        })
    }

    fn and(&mut self) -> Result<Filter, Problem> {
        let mut all = vec![self.not()?];
        while self.take_word("AND") {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 {
            all.remove(0)
        } else {
            Filter::And(all)
        })
    }

    fn not(&mut self) -> Result<Filter, Problem> {
        // A field may be called not: the operator after it tells.
        if self.is_word("NOT") && !matches!(self.tokens[self.at + 1].1, Token::Compare(_) | Token::Dot) {
            self.at += 1;
            let inner = self.deeper(Self::not)?;
            return Ok(Filter::Not(Box::new(inner)));
        }
        if self.take(&Token::Open) {
            let inner = self.deeper(Self::or)?;
            if !self.take(&Token::Close) {
                return Err(self.expected("AND, OR or ')'"));
            }
            return Ok(inner);
        }
        let target = self.path()?;
        self.predicate(&target)
    }

    fn deeper(&mut self, inner: fn(&mut Self) -> Result<Filter, Problem>) -> Result<Filter, Problem> {
        self.binder.descend()?;
        let filter = inner(self)?;
        self.binder.ascend();
        Ok(filter)
    }

    fn path(&mut self) -> Result<Target, Problem> {
        let mut steps = vec![self.name("a field's name, NOT or '('")?];
        while self.take(&Token::Dot) {
            steps.push(self.name("a name after '.'")?);
        }
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        self.binder.target(&steps)
    }

    fn name(&mut self, expected: &str) -> Result<String, Problem> {
        let name = match self.peek() {
            Token::Word(word) => (*word).to_owned(),
            Token::Quoted(name) => name.clone(),
            _ => return Err(self.expected(expected)),
        };
        self.at += 1;
        Ok(name)
    }

    fn predicate(&mut self, target: &Target) -> Result<Filter, Problem> {
        if let Token::Compare(op) = *self.peek() {
            self.at += 1;
            let operand = self.literal()?;
            return self.binder.leaf(target, op, &operand);
        }
        if self.take_word("IS") {
            let exists = self.take_word("NOT");
            if !self.take_word("NULL") {
                return Err(self.expected("NULL or NOT NULL"));
            }
            return self.binder.leaf(target, Op::Exists, &Json::Bool(exists));
        }
        let negated = self.take_word("NOT");
        if self.take_word("IN") {
            let items = self.literals()?;
            return self
                .binder
                .leaf(target, if negated { Op::Nin } else { Op::In }, &items);
        }
        let op = if self.take_word("LIKE") {
            Op::Like
        } else if self.take_word("HAS") {
            Op::Contains
        } else {
            let after = if negated {
                "IN, LIKE or HAS"
            } else {
                "an operator: = != < <= > >= IN LIKE HAS IS"
            };
            return Err(self.expected(after));
        };
        let operand = self.literal()?;
        let leaf = self.binder.leaf(target, op, &operand)?;
        Ok(if negated {
            Filter::Not(Box::new(leaf))
        } else {
            leaf
        })
    }

    fn literals(&mut self) -> Result<Json, Problem> {
        if !self.take(&Token::Open) {
            return Err(self.expected("'(' and a list of values"));
        }
        let mut items = vec![self.literal()?];
        while self.take(&Token::Comma) {
            items.push(self.literal()?);
        }
        if !self.take(&Token::Close) {
            return Err(self.expected("',' or ')' in a list of values"));
        }
        Ok(Json::list(items))
    }

    fn literal(&mut self) -> Result<Json, Problem> {
        let literal = match self.peek() {
            Token::Text(text) => Json::from(text.as_str()),
            Token::Number(number) => number.clone(),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Json::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Json::Bool(false),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => {
                return Err(self
                    .expected("a value")
                    .hint("nothing equals NULL; use IS NULL or IS NOT NULL"));
            }
            Token::Word(_) | Token::Quoted(_) => {
                return Err(self.expected("a value").hint("text goes in 'single quotes'"));
            }
            _ => return Err(self.expected("a value")),
        };
        self.at += 1;
        Ok(literal)
    }

    fn peek(&self) -> &Token<'_> {
        &self.tokens[self.at].1
    }

    fn place(&self) -> usize {
        self.tokens[self.at].0
    }

    fn take(&mut self, token: &Token<'_>) -> bool {
        let there = self.peek() == token;
        self.at += usize::from(there);
        there
    }

    fn is_word(&self, keyword: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let there = self.is_word(keyword);
        self.at += usize::from(there);
        there
    }

    fn expected(&self, what: &str) -> Problem {
        let found = match self.peek() {
            Token::End => "its end".to_owned(),
            _ => format!(
                "'{}'",
                shorten(self.rest().split_whitespace().next().unwrap_or_default())
            ),
        };
        wrong(self.text, self.place(), format!("expected {what}, found {found}"))
    }

    fn rest(&self) -> &str {
        self.text.get(self.place()..).unwrap_or_default()
    }
}
