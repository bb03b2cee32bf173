//! What happened, as one number: two runs of a seed that differ anywhere differ here.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    started: Instant,
    hash: Xxh3,
    lines: u64,
    kept: Option<Vec<String>>,
    line: String,
}

impl Trace {
    /// `keep` holds on to every line, to be read by people.
    pub fn new(keep: bool) -> Self {
        let (hash, kept) = (Xxh3::new(), keep.then(Vec::new));
        Self(Arc::new(Mutex::new(Inner {
            started: Instant::now(),
            hash,
            lines: 0,
            kept,
            line: String::new(),
        })))
    }

    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        let mut inner = self.0.lock();
        let mut line = std::mem::take(&mut inner.line);
        line.clear();
        let at = inner.started.elapsed().as_millis();
        // Writing to a String cannot fail.
        let _ = write!(line, "{at:>9} {what}");
        inner.hash.update(line.as_bytes());
        inner.lines += 1;
        if let Some(kept) = &mut inner.kept {
            kept.push(line.clone());
        }
        inner.line = line;
    }

    pub fn hash(&self) -> u64 {
        self.0.lock().hash.digest()
    }

    pub fn lines(&self) -> u64 {
        self.0.lock().lines
    }

    pub fn take_lines(&self) -> Vec<String> {
        self.0.lock().kept.take().unwrap_or_default()
    }
}
