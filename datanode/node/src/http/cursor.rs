//! Cursors of scans: each names a pinned snapshot and where its next page starts.
//!
//! A snapshot lives 10 minutes after it was last asked for a page and an hour in all; of
//! more than the limit the one that was idle longest goes first (most are first pages that
//! nobody follows up).  Whoever comes later gets `cursor_expired`, as after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::query::Include;
use rhumb_core::{Code, CollectionId, Problem, Schema};
use rhumb_engine::{PageStart, ScanSnapshot};
use rhumb_seams::Rand;
use tokio::time::Instant;

use super::token;

const IDLE: Duration = Duration::from_secs(10 * 60);
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// A scan between two pages.
pub struct Pinned {
    pub snapshot: ScanSnapshot,
    pub collection: CollectionId,
    pub schema: Arc<Schema>,
    pub include: Include,
    /// The parameters that made it, to refuse a cursor among others.
    pub asked: Vec<(String, String)>,
    /// Whose scan it is.
    pub caller: String,
}

pub struct Cursors {
    open: Mutex<BTreeMap<u128, Entry<Arc<Pinned>>>>,
    most: usize,
    rand: Rand,
}

struct Entry<T> {
    pinned: T,
    born: Instant,
    used: Instant,
}

impl<T> Entry<T> {
    fn lives(&self, now: Instant) -> bool {
        now.duration_since(self.used) < IDLE && now.duration_since(self.born) < LIFETIME
    }
}

impl Cursors {
    pub fn new(most: usize, rand: Rand) -> Self {
        Self {
            open: Mutex::default(),
            most,
            rand,
        }
    }

    /// Keeps a scan; its number goes into the cursors of its pages.
    pub fn pin(&self, pinned: Arc<Pinned>) -> u128 {
        let number = self.rand.u128();
        let now = Instant::now();
        let mut open = self.open.lock();
        retain(&mut open, self.most.saturating_sub(1), now);
        open.insert(
            number,
            Entry {
                pinned,
                born: now,
                used: now,
            },
        );
        number
    }

    pub fn find(&self, number: u128) -> Result<Arc<Pinned>, Problem> {
        let now = Instant::now();
        let mut open = self.open.lock();
        match open.get_mut(&number).filter(|entry| entry.lives(now)) {
            Some(entry) => {
                entry.used = now;
                Ok(entry.pinned.clone())
            }
            None => Err(
                Problem::new(Code::CursorExpired, "the snapshot of this cursor is gone")
                    .field("cursor")
                    .hint("start the scan again, without a cursor"),
            ),
        }
    }

    /// Lets go of what has expired, so that an idle server does not hold old snapshots.
    pub fn sweep(&self) {
        retain(&mut self.open.lock(), self.most, Instant::now());
    }

    /// Of a collection, all: what their snapshots show is going to be erased.
    pub fn end(&self, collection: &CollectionId) {
        self.open
            .lock()
            .retain(|_, entry| entry.pinned.collection != *collection);
    }

    pub fn len(&self) -> usize {
        self.open.lock().len()
    }
}

fn retain<T>(open: &mut BTreeMap<u128, Entry<T>>, most: usize, now: Instant) {
    open.retain(|_, entry| entry.lives(now));
    while open.len() > most {
        let Some(idlest) = open
            .iter()
            .min_by_key(|(_, entry)| entry.used)
            .map(|(number, _)| *number)
        else {
            break;
        };
        open.remove(&idlest);
    }
}

/// The cursor of the page that starts at `start` of the scan with this number.
pub fn write(number: u128, start: &PageStart) -> String {
    let mut bytes = number.to_le_bytes().to_vec();
    super::answer::write_json(&mut bytes, start);
    token::seal(bytes)
}

pub fn read(cursor: &str) -> Result<(u128, PageStart), Problem> {
    let parsed = token::open(cursor).and_then(|bytes| {
        let (number, start) = bytes.split_first_chunk::<16>()?;
        Some((u128::from_le_bytes(*number), serde_json::from_slice(start).ok()?))
    });
    parsed.ok_or_else(bad_cursor)
}

/// The cursor of a list of names: where it goes on, and nothing kept here.
pub fn write_name(name: &str) -> String {
    token::seal(name.as_bytes().to_vec())
}

pub fn read_name(cursor: &str) -> Result<String, Problem> {
    token::open(cursor)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(bad_cursor)
}

pub fn bad_cursor() -> Problem {
    Problem::new(Code::BadCursor, "this is not a cursor of this list")
        .field("cursor")
        .hint("send the cursor of the page before as it came")
}

#[cfg(test)]
mod tests {
    use rhumb_core::DocId;

    use super::*;

    #[test]
    fn a_cursor_brings_back_its_scan_and_its_place() {
        for start in [
            PageStart::First,
            PageStart::After(DocId::from("n1")),
            PageStart::After(DocId::Num(u64::MAX)),
            PageStart::At(7),
        ] {
            assert_eq!(read(&write(u128::MAX - 5, &start)), Ok((u128::MAX - 5, start)));
        }
        assert_eq!(read_name(&write_name("wordnet")), Ok("wordnet".into()));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "x", "n1", &write_name("wordnet"), &token::seal(vec![0; 17])] {
            assert_eq!(read(text).expect_err(text).code, Code::BadCursor);
        }
        assert_eq!(
            read_name("wordnet").expect_err("a plain name").code,
            Code::BadCursor
        );
    }

    fn entries(used_s: &[u64]) -> (BTreeMap<u128, Entry<()>>, Instant) {
        let begin = Instant::now();
        let each = used_s.iter().zip(0_u128..).map(|(s, number)| {
            (
                number,
                Entry {
                    pinned: (),
                    born: begin,
                    used: begin + Duration::from_secs(*s),
                },
            )
        });
        (each.collect(), begin)
    }

    #[test]
    fn idle_and_old_snapshots_are_let_go() {
        let (mut open, begin) = entries(&[0, 599, 1_200]);
        retain(&mut open, 10, begin + Duration::from_secs(600));
        assert_eq!(open.keys().copied().collect::<Vec<_>>(), [1, 2]);
        // Asked for again and again, and still gone after an hour.
        let (mut open, begin) = entries(&[3_599]);
        retain(&mut open, 10, begin + Duration::from_secs(3_600));
        assert!(open.is_empty());
    }

    #[test]
    fn over_the_limit_the_idlest_goes_first() {
        let (mut open, begin) = entries(&[5, 1, 3]);
        retain(&mut open, 2, begin + Duration::from_secs(6));
        assert_eq!(open.keys().copied().collect::<Vec<_>>(), [0, 2]);
    }
}
