//! A recursive-descent parser over the bytes of a body.
//!
//! UTF-8 is checked once for the whole text; strings are then slices of it.  Keys are
//! shared within one text, since a thousand documents name the same fields.

use std::borrow::Cow;
use std::sync::Arc;

use super::number::{Number, scan};
use super::{EXACT_IN_F64, Json, MAX_DEPTH};
use crate::limits::Limits;
use crate::problem::{Code, Problem, shorten};

/// Slots of the key cache.  A miss costs one allocation and nothing else.
const SHARED_KEYS: usize = 64;
/// Keys of one object that are compared with each other at once; more are sorted.
const FEW_KEYS: usize = 16;

pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Json, Problem> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(
            Problem::new(Code::Malformed, "the JSON starts with a byte order mark")
                .hint("send UTF-8 without a byte order mark"),
        );
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let (line, column) = line_and_column(bytes, e.valid_up_to());
        Problem::new(
            Code::Malformed,
            format!("line {line}, column {column}: the text is not UTF-8"),
        )
    })?;
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        budget: limits.body_bytes.saturating_mul(2),
        ints: Vec::new(),
        floats: Vec::new(),
        keys: vec![Arc::from(""); SHARED_KEYS],
    };
    parser.document().map_err(|fault| fault.problem(bytes))
}

/// Boxed: the hot path returns results, and an error there is rare.
type Fault = Box<FaultAt>;

struct FaultAt {
    at: usize,
    code: Code,
    what: Cow<'static, str>,
}

impl FaultAt {
    fn problem(&self, bytes: &[u8]) -> Problem {
        let (line, column) = line_and_column(bytes, self.at);
        Problem::new(self.code, format!("line {line}, column {column}: {}", self.what))
    }
}

fn line_and_column(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = &bytes[..at.min(bytes.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    (line, column)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Bytes the tree may still take.
    budget: usize,
    /// Scratch of the list being read: lists of numbers do not nest in each other.
    ints: Vec<i64>,
    floats: Vec<f64>,
    keys: Vec<Arc<str>>,
}

impl<'a> Parser<'a> {
    fn document(&mut self) -> Result<Json, Fault> {
        let json = self.value()?;
        self.skip_space();
        match self.peek() {
            None => Ok(json),
            Some(_) => Err(self.fault("there is more text after the end of the JSON")),
        }
    }

    fn value(&mut self) -> Result<Json, Fault> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                self.spend(text.len() + 16)?;
                Ok(Json::Str(text.into()))
            }
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => Ok(match self.number()? {
                Number::Int(n) => Json::Int(n),
                Number::UInt(n) => Json::UInt(n),
                Number::Float(x) => Json::Float(x),
            }),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'N' | b'I') => Err(self.fault("expected a value; JSON numbers are finite")),
            Some(_) => Err(self.fault("expected a value")),
            None => Err(self.fault("the text ends where a value is expected")),
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Result<Json, Fault>) -> Result<Json, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(self.fault(format!("lists and objects nest deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        self.at += 1;
        let json = inner(self)?;
        self.depth -= 1;
        Ok(json)
    }

    fn object(&mut self) -> Result<Json, Fault> {
        let mut entries: Vec<(Arc<str>, Json)> = Vec::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Json::Object(entries));
        }
        loop {
            self.skip_space();
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.fault("expected a key in double quotes"));
            }
            let key = self.key()?;
            if entries.len() < FEW_KEYS && entries.iter().any(|(k, _)| *k == key) {
                self.at = key_at;
                return Err(self.twice(&key));
            }
            self.skip_space();
            if !self.take(b':') {
                return Err(self.fault("expected ':' after a key"));
            }
            self.spend(size_of::<(Arc<str>, Json)>())?;
            entries.push((key, self.value()?));
            self.skip_space();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(self.fault("expected ',' or '}' in an object"));
            }
        }
        match repeated(&entries) {
            Some(key) => Err(self.twice(&key)),
            None => Ok(Json::Object(entries)),
        }
    }

    fn twice(&self, key: &str) -> Fault {
        self.fault(format!("the key '{}' is there twice", shorten(key)))
    }

    fn array(&mut self) -> Result<Json, Fault> {
        self.skip_space();
        if self.take(b']') {
            return Ok(Json::Array(Vec::new()));
        }
        let start = self.at;
        if matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            if let Some(packed) = self.numbers()? {
                return Ok(packed);
            }
            // Read again as a list of anything: integers stay integers there.
            self.at = start;
        }
        let mut items = Vec::new();
        loop {
            self.spend(size_of::<Json>())?;
            items.push(self.value()?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Json::Array(items));
            }
            if !self.take(b',') {
                return Err(self.fault("expected ',' or ']' in a list"));
            }
        }
    }

    /// The list at the cursor when it holds only numbers that pack together.
    fn numbers(&mut self) -> Result<Option<Json>, Fault> {
        self.ints.clear();
        self.floats.clear();
        loop {
            match self.number()? {
                Number::Float(x) if self.ints.is_empty() => self.floats.push(x),
                Number::Int(n) if self.floats.is_empty() => self.ints.push(n),
                Number::Int(n) if n.unsigned_abs() <= EXACT_IN_F64 => self.floats.push(n as f64),
                Number::Float(x) if self.ints.iter().all(|n| n.unsigned_abs() <= EXACT_IN_F64) => {
                    self.floats.extend(self.ints.drain(..).map(|n| n as f64));
                    self.floats.push(x);
                }
                Number::Int(_) | Number::UInt(_) | Number::Float(_) => return Ok(None),
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return self.packed().map(Some);
                }
                _ => return Err(self.fault("expected ',' or ']' in a list")),
            }
            self.skip_space();
            if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
                return Ok(None);
            }
        }
    }

    fn packed(&mut self) -> Result<Json, Fault> {
        self.spend((self.ints.len() + self.floats.len()) * 8)?;
        // Copied out to its exact size; the scratch keeps its room for the next list.
        Ok(if self.floats.is_empty() {
            Json::Ints(self.ints.clone())
        } else {
            Json::Floats(self.floats.clone())
        })
    }

    #[inline]
    fn number(&mut self) -> Result<Number, Fault> {
        match scan(self.text, self.at) {
            Ok((number, end)) => {
                self.at = end;
                Ok(number)
            }
            Err(e) => {
                self.at = e.at;
                Err(self.fault(e.why))
            }
        }
    }

    fn key(&mut self) -> Result<Arc<str>, Fault> {
        let key = self.string()?;
        let bytes = key.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            return Ok(key.into());
        };
        let slot = (bytes.len() * 31 + usize::from(*first) * 7 + usize::from(*last)) % SHARED_KEYS;
        if *self.keys[slot] != *key {
            self.spend(key.len() + 16)?;
            self.keys[slot] = key.into();
        }
        Ok(Arc::clone(&self.keys[slot]))
    }

    /// The string at the cursor, which stands on its opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at + 1;
        let end = self.plain_until(start);
        self.at = end;
        match self.peek() {
            Some(b'"') => {
                self.at = end + 1;
                Ok(Cow::Borrowed(&self.text[start..end]))
            }
            Some(b'\\') => self.escaped(start).map(Cow::Owned),
            _ => Err(self.bad_end_of_string()),
        }
    }

    fn escaped(&mut self, start: usize) -> Result<String, Fault> {
        let mut out = self.text[start..self.at].to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                _ => return Err(self.bad_end_of_string()),
            }
            let end = self.plain_until(self.at);
            out.push_str(&self.text[self.at..end]);
            self.at = end;
        }
    }

    fn bad_end_of_string(&self) -> Fault {
        match self.peek() {
            None => self.fault("the text ends inside a string"),
            Some(_) => self.fault("a control character in a string must be escaped"),
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match letter {
            Some(b'u') => return self.unicode_escape(),
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => return Err(self.fault("there is no such escape in JSON")),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let unit = self.four_hex(self.at)?;
        if let Some(c) = char::from_u32(unit) {
            self.at += 6;
            return Ok(c);
        }
        let low = if unit < 0xDC00 {
            self.four_hex(self.at + 6).ok()
        } else {
            None
        };
        match low {
            Some(low @ 0xDC00..=0xDFFF) => {
                self.at += 12;
                let point = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                Ok(char::from_u32(point).expect("a surrogate pair is always a character"))
            }
            _ => Err(self.fault("half of a surrogate pair is not a character")),
        }
    }

    fn four_hex(&self, at: usize) -> Result<u32, Fault> {
        let bytes = self.text.as_bytes();
        let digits = bytes
            .get(at..at + 2)
            .filter(|b| *b == b"\\u")
            .and_then(|_| bytes.get(at + 2..at + 6));
        let unit = digits.and_then(|d| {
            d.iter()
                .try_fold(0, |unit, b| Some(unit * 16 + char::from(*b).to_digit(16)?))
        });
        unit.ok_or_else(|| self.fault("\\u takes four hexadecimal digits"))
    }

    /// Where the plain part of a string ends: at a quote, a backslash, a control character
    /// or the end.  Eight bytes at a time.
    fn plain_until(&self, mut at: usize) -> usize {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        let bytes = self.text.as_bytes();
        let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        while let Some(eight) = bytes.get(at..at + 8).and_then(|b| <[u8; 8]>::try_from(b).ok()) {
            let word = u64::from_le_bytes(eight);
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            let quote = zero_bytes(word ^ (ONES * u64::from(b'"')));
            let backslash = zero_bytes(word ^ (ONES * u64::from(b'\\')));
            // A borrow can only mark bytes above a true one, so the lowest mark is true.
            let marks = control | quote | backslash;
            if marks != 0 {
                return at + (marks.trailing_zeros() / 8) as usize;
            }
            at += 8;
        }
        let rest = &bytes[at..];
        at + rest
            .iter()
            .position(|b| matches!(b, b'"' | b'\\' | 0..0x20))
            .unwrap_or(rest.len())
    }

    fn word(&mut self, word: &'static str, json: Json) -> Result<Json, Fault> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(json);
        }
        Err(self.fault(if word == "null" {
            "expected a value; JSON numbers are finite"
        } else {
            "expected a value"
        }))
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.budget.checked_sub(bytes) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(Box::new(FaultAt {
                at: self.at,
                code: Code::BodyTooLarge,
                what: "the body takes too much memory as a tree; send less at once".into(),
            })),
        }
    }

    fn fault(&self, what: impl Into<Cow<'static, str>>) -> Fault {
        Box::new(FaultAt {
            at: self.at,
            code: Code::Malformed,
            what: what.into(),
        })
    }
}

/// A key that is there twice, among more keys than `object` compares one by one.
fn repeated(entries: &[(Arc<str>, Json)]) -> Option<Arc<str>> {
    if entries.len() <= FEW_KEYS {
        return None;
    }
    let mut keys: Vec<&Arc<str>> = entries.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| Arc::clone(pair[0]))
}
