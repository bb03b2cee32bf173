//! CSV (RFC 4180, quotes and line ends inside them included) with a header of names.

use std::sync::Arc;

use csv_core::ReadRecordResult;
use rhumb_core::problem::shorten;
use rhumb_core::{Code, FieldName, Problem};

use crate::chunk::{BYTES, Chunk, Failure, ROWS, Rows};

pub struct Records {
    longest: usize,
    reader: csv_core::Reader,
    /// The record at hand: its fields one after the other, and where each ends.
    text: Vec<u8>,
    text_len: usize,
    ends: Vec<usize>,
    ends_len: usize,
    /// Line on which the record at hand begins.
    begins: u64,
    header: Option<Arc<[String]>>,
    records: Vec<(u64, Vec<String>)>,
    bytes: usize,
    broken: Vec<Failure>,
}

/// More columns than this are no table.
const MOST_COLUMNS: usize = 4_096;

impl Records {
    pub fn new(longest: usize) -> Self {
        Self {
            longest,
            reader: csv_core::Reader::new(),
            text: vec![0; 4 << 10],
            text_len: 0,
            ends: vec![0; 64],
            ends_len: 0,
            begins: 1,
            header: None,
            records: Vec::new(),
            bytes: 0,
            broken: Vec::new(),
        }
    }

    pub fn has_header(&self) -> bool {
        self.header.is_some()
    }

    /// A problem here is one of the whole file.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Problem> {
        while !bytes.is_empty() {
            bytes = self.step(bytes)?;
        }
        Ok(())
    }

    pub fn finish(&mut self) -> Result<(), Problem> {
        // The reader ends on the second empty input: the first ends a record without a
        // line end.
        for _ in 0..2 {
            self.step(&[])?;
        }
        match self.header {
            Some(_) => Ok(()),
            None => Err(Problem::new(Code::Malformed, "the CSV has no header").hint(HEADER)),
        }
    }

    pub fn is_full(&self) -> bool {
        self.records.len() >= ROWS || self.bytes >= BYTES || self.broken.len() >= ROWS
    }

    pub fn take(&mut self) -> Option<Chunk> {
        let header = self.header.clone()?;
        if self.records.is_empty() && self.broken.is_empty() {
            return None;
        }
        self.bytes = 0;
        let rest = self.records.split_off(self.records.len().min(ROWS));
        let records = std::mem::replace(&mut self.records, rest);
        Some(Chunk {
            rows: Rows::Records { header, records },
            broken: std::mem::take(&mut self.broken),
        })
    }

    /// Reads up to the end of a record; returns what is left.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Problem> {
        // A line end before a record, such as the second half of CRLF when the first half
        // ended a piece, goes in alone: the record begins on the line after it.
        let between = self.text_len == 0 && self.ends_len == 0;
        let input = match bytes {
            [b'\n', ..] if between => &bytes[..1],
            all => all,
        };
        let (result, read, wrote, ended) = self.reader.read_record(
            input,
            &mut self.text[self.text_len..],
            &mut self.ends[self.ends_len..],
        );
        self.text_len += wrote;
        self.ends_len += ended;
        if between && wrote == 0 && ended == 0 && input.len() == 1 && input[0] == b'\n' {
            self.begins = self.reader.line();
        }
        match result {
            ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            ReadRecordResult::OutputFull if self.text.len() >= self.longest => {
                let detail = format!(
                    "the record that begins on line {} is longer than {} bytes",
                    self.begins, self.longest
                );
                return Err(Problem::new(Code::LimitExceeded, detail).hint("is a quote left open?"));
            }
            ReadRecordResult::OutputFull => self.text.resize((self.text.len() * 2).min(self.longest), 0),
            ReadRecordResult::OutputEndsFull if self.ends.len() >= MOST_COLUMNS => {
                let detail = format!("line {} has more than {MOST_COLUMNS} columns", self.begins);
                return Err(Problem::new(Code::LimitExceeded, detail));
            }
            ReadRecordResult::OutputEndsFull => self.ends.resize((self.ends.len() * 2).min(MOST_COLUMNS), 0),
            ReadRecordResult::Record => self.record()?,
        }
        Ok(&bytes[read..])
    }

    fn record(&mut self) -> Result<(), Problem> {
        let line = std::mem::replace(&mut self.begins, self.reader.line());
        let (text_len, ends_len) = (
            std::mem::take(&mut self.text_len),
            std::mem::take(&mut self.ends_len),
        );
        self.bytes += text_len;
        let Ok(text) = std::str::from_utf8(&self.text[..text_len]) else {
            let problem = Problem::new(Code::Malformed, "the line is not UTF-8");
            if self.header.is_none() {
                return Err(problem);
            }
            self.broken.push(Failure { line, problem });
            return Ok(());
        };
        let starts = std::iter::once(0).chain(self.ends[..ends_len].iter().copied());
        // A field may end inside a character only if the text was not UTF-8 as a whole.
        let fields = starts
            .zip(&self.ends[..ends_len])
            .map(|(start, end)| text.get(start..*end).unwrap_or_default());
        let record: Vec<String> = fields.map(str::to_owned).collect();
        match &self.header {
            Some(_) => self.records.push((line, record)),
            None => self.header = Some(header(record)?),
        }
        Ok(())
    }
}

const HEADER: &str = "the first line names the columns, and one of them is id";

fn header(mut names: Vec<String>) -> Result<Arc<[String]>, Problem> {
    if let Some(first) = names.first_mut()
        && let Some(rest) = first.strip_prefix('\u{FEFF}')
    {
        *first = rest.to_owned();
    }
    for name in &mut names {
        *name = name.trim().to_owned();
    }
    for (at, name) in names.iter().enumerate() {
        if name != "id" {
            FieldName::parse(name).map_err(|problem| problem.hint(HEADER))?;
        }
        if names[..at].contains(name) {
            let detail = format!("two columns are called '{}'", shorten(name));
            return Err(Problem::new(Code::Malformed, detail).field(name.clone()));
        }
    }
    if names.iter().any(|name| name == "id") {
        return Ok(names.into());
    }
    Err(Problem::new(Code::InvalidId, "no column is called id")
        .field("id")
        .hint(HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Split = (Vec<(u64, Vec<String>)>, Vec<u64>);

    fn split(text: &[u8], size: usize) -> Result<Split, Problem> {
        let mut splitter = Records::new(1 << 20);
        let (mut rows, mut broken) = (Vec::new(), Vec::new());
        let pieces: Vec<&[u8]> = text.chunks(size).collect();
        for at in 0..=pieces.len() {
            match pieces.get(at) {
                Some(piece) => splitter.push(piece)?,
                None => splitter.finish()?,
            }
            if let Some(chunk) = splitter.take() {
                let Rows::Records { records, .. } = chunk.rows else {
                    panic!("records make records")
                };
                rows.extend(records);
                broken.extend(chunk.broken.into_iter().map(|failure| failure.line));
            }
        }
        Ok((rows, broken))
    }

    fn row(line: u64, cells: &[&str]) -> (u64, Vec<String>) {
        (line, cells.iter().map(|cell| (*cell).to_owned()).collect())
    }

    #[test]
    fn records_are_the_same_however_the_bytes_arrive() {
        let text = "\u{FEFF}id, pos\r\na,\"x, \"\"y\"\"\nz\"\nb,ü\n";
        for size in 1..=text.len() {
            let (rows, broken) = split(text.as_bytes(), size).expect("valid");
            assert_eq!(
                rows,
                [row(2, &["a", "x, \"y\"\nz"]), row(4, &["b", "ü"])],
                "{size}"
            );
            assert!(broken.is_empty());
        }
    }

    #[test]
    fn the_last_line_need_not_end_and_wide_records_are_read() {
        assert_eq!(split(b"id\na", 3).expect("valid").0, [row(2, &["a"])]);
        let wide = format!("id\n{}\n", vec!["1"; 500].join(","));
        assert_eq!(split(wide.as_bytes(), 64).expect("read").0[0].1.len(), 500);
        let long = format!("id\n{}\n", "x".repeat(100_000));
        assert_eq!(split(long.as_bytes(), 64).expect("read").0[0].1[0].len(), 100_000);
    }

    #[test]
    fn a_header_names_every_column_once_and_the_id_among_them() {
        for (text, code) in [
            ("", Code::Malformed),
            ("pos,lex\na,1\n", Code::InvalidId),
            ("id,pos,pos\n", Code::Malformed),
            ("id,a b\n", Code::InvalidName),
            ("id,\n", Code::InvalidName),
        ] {
            assert_eq!(split(text.as_bytes(), 5).expect_err(text).code, code, "{text}");
        }
        assert!(split(b"id,pos\n", 3).expect("no rows").0.is_empty());
    }

    #[test]
    fn a_line_that_is_not_utf8_is_broken_alone() {
        let (rows, broken) = split(b"id\na\n\xFF\nb\n", 2).expect("read");
        assert_eq!((rows.len(), broken), (2, vec![3]));
    }

    #[test]
    fn an_open_quote_does_not_swallow_more_than_a_record_may_hold() {
        let mut splitter = Records::new(64 << 10);
        splitter.push(b"id,pos\na,\"open\n").expect("so far");
        let rest = "b,1\n".repeat(50_000);
        assert_eq!(
            splitter.push(rest.as_bytes()).expect_err("too long").code,
            Code::LimitExceeded
        );
    }
}
