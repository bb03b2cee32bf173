//! NDJSON: a row on each line, empty lines between them as you like.

use bytes::{Buf, Bytes, BytesMut};
use rhumb_core::{Code, Problem};

use crate::chunk::{BYTES, Chunk, Failure, ROWS, Rows};

pub struct Lines {
    longest: usize,
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no end of line.
    searched: usize,
    /// Lines seen, the one at hand included.
    line: u64,
    /// The line at hand is too long: what is left of it is dropped.
    skipping: bool,
    lines: Vec<(u64, Bytes)>,
    bytes: usize,
    broken: Vec<Failure>,
}

impl Lines {
    pub fn new(longest: usize) -> Self {
        Self {
            longest,
            buffer: BytesMut::new(),
            searched: 0,
            line: 1,
            skipping: false,
            lines: Vec::new(),
            bytes: 0,
            broken: Vec::new(),
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            let line = self.buffer.split_to(self.searched + at).freeze();
            self.buffer.advance(1);
            self.searched = 0;
            if !std::mem::take(&mut self.skipping) {
                self.take_line(line);
            }
            self.line += 1;
        }
        self.searched = self.buffer.len();
        if self.buffer.len() > self.longest && !self.skipping {
            self.too_long();
            self.skipping = true;
        }
        if self.skipping {
            self.buffer.clear();
            self.searched = 0;
        }
    }

    /// The last line need not end.
    pub fn finish(&mut self) {
        let line = self.buffer.split().freeze();
        self.searched = 0;
        if !std::mem::take(&mut self.skipping) {
            self.take_line(line);
        }
    }

    pub fn is_full(&self) -> bool {
        self.lines.len() >= ROWS || self.bytes >= BYTES || self.broken.len() >= ROWS
    }

    pub fn take(&mut self) -> Option<Chunk> {
        if self.lines.is_empty() && self.broken.is_empty() {
            return None;
        }
        self.bytes = 0;
        let rest = self.lines.split_off(self.lines.len().min(ROWS));
        let rows = Rows::Lines(std::mem::replace(&mut self.lines, rest));
        Some(Chunk {
            rows,
            broken: std::mem::take(&mut self.broken),
        })
    }

    fn take_line(&mut self, mut line: Bytes) {
        if self.line == 1 && line.starts_with(b"\xEF\xBB\xBF") {
            line.advance(3);
        }
        let line = line.slice_ref(line.trim_ascii());
        if line.len() > self.longest {
            self.too_long();
        } else if !line.is_empty() {
            self.bytes += line.len();
            self.lines.push((self.line, line));
        }
    }

    fn too_long(&mut self) {
        let detail = format!("the line is longer than {} bytes", self.longest);
        self.broken.push(Failure {
            line: self.line,
            problem: Problem::new(Code::LimitExceeded, detail),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines and broken lines of `text`, pushed in pieces of `size` bytes.
    fn split(text: &str, size: usize, longest: usize) -> (Vec<(u64, String)>, Vec<u64>) {
        let mut splitter = Lines::new(longest);
        let (mut lines, mut broken) = (Vec::new(), Vec::new());
        let mut absorb = |chunk: Option<Chunk>| {
            let Some(chunk) = chunk else { return };
            let Rows::Lines(some) = chunk.rows else {
                panic!("lines make lines")
            };
            lines.extend(
                some.into_iter()
                    .map(|(n, text)| (n, String::from_utf8_lossy(&text).into_owned())),
            );
            broken.extend(chunk.broken.into_iter().map(|failure| failure.line));
        };
        for piece in text.as_bytes().chunks(size) {
            splitter.push(piece);
            absorb(splitter.take());
        }
        splitter.finish();
        absorb(splitter.take());
        (lines, broken)
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let text = "\u{FEFF}{\"a\":1}\r\n\n  \n{\"b\":2}\n{\"c\":3}";
        for size in 1..=text.len() {
            let (lines, broken) = split(text, size, 100);
            let expected = [(1, "{\"a\":1}"), (4, "{\"b\":2}"), (5, "{\"c\":3}")];
            assert_eq!(lines, expected.map(|(n, text)| (n, text.to_owned())), "{size}");
            assert!(broken.is_empty());
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_alone() {
        let text = format!("short\n{}\nshort\n{}", "x".repeat(50), "y".repeat(50));
        for size in [1, 7, 200] {
            let (lines, broken) = split(&text, size, 20);
            assert_eq!(
                lines.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
                [1, 3],
                "{size}"
            );
            assert_eq!(broken, [2, 4], "{size}");
        }
    }

    #[test]
    fn a_chunk_has_a_bounded_number_of_rows() {
        let mut splitter = Lines::new(100);
        splitter.push("{}\n".repeat(ROWS * 2 + 5).as_bytes());
        assert!(splitter.is_full());
        let sizes: Vec<usize> =
            std::iter::from_fn(|| splitter.take().map(|chunk| chunk.rows.count())).collect();
        assert_eq!(sizes, [ROWS, ROWS, 5]);
    }
}
