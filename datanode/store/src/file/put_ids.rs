//! Which PUT wrote an object, remembered for the last writes of this process.
//!
//! Only the process that issued a PUT ever asks whether it landed, and a folder has one
//! process: so memory is enough, and a restart forgets nothing that anyone could ask for.

use std::collections::{HashMap, VecDeque};

use object_store::{Attributes, Result};

use super::problem::FileProblem;
use crate::put_id::{self, PutId};

/// About 10 MiB.  A question comes within the retry budget of its PUT: seconds.
const REMEMBERED: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct PutIds {
    by_path: HashMap<String, Written>,
    oldest_first: VecDeque<(u64, String)>,
    next: u64,
}

#[derive(Debug)]
struct Written {
    turn: u64,
    etag: String,
    id: PutId,
}

impl PutIds {
    pub(super) fn remember(&mut self, path: &str, etag: &str, id: PutId) {
        let turn = self.next;
        self.next += 1;
        self.oldest_first.push_back((turn, path.to_owned()));
        self.by_path.insert(
            path.to_owned(),
            Written {
                turn,
                etag: etag.to_owned(),
                id,
            },
        );
        while self.oldest_first.len() > REMEMBERED {
            if let Some((turn, path)) = self.oldest_first.pop_front()
                && self
                    .by_path
                    .get(&path)
                    .is_some_and(|written| written.turn == turn)
            {
                self.by_path.remove(&path);
            }
        }
    }

    /// The ETag is part of the question: whoever replaced the object without a put-id
    /// must not inherit the one before.
    pub(super) fn of(&self, path: &str, etag: &str) -> Option<&PutId> {
        self.by_path
            .get(path)
            .filter(|written| written.etag == etag)
            .map(|written| &written.id)
    }
}

/// The put-id among `attributes`; anything else could not be given back and is refused.
pub(super) fn only_put_id(attributes: &Attributes, tagged: bool) -> Result<Option<PutId>> {
    if tagged || attributes.iter().any(|(key, _)| *key != put_id::attribute()) {
        return Err(FileProblem::Unsupported.into());
    }
    Ok(PutId::of(attributes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> PutId {
        PutId::parse(&format!("{n:026}")).expect("26 digits")
    }

    #[test]
    fn an_object_written_anew_without_a_put_id_has_none() {
        let mut ids = PutIds::default();
        ids.remember("a", "e1", id(1));
        assert_eq!(ids.of("a", "e1"), Some(&id(1)));
        assert_eq!(ids.of("a", "e2"), None);
        assert_eq!(ids.of("b", "e1"), None);
    }

    #[test]
    fn the_oldest_are_forgotten_and_a_rewritten_path_is_as_young_as_its_last_write() {
        let mut ids = PutIds::default();
        ids.remember("kept", "e", id(0));
        ids.remember("lost", "e", id(1));
        for n in 0..REMEMBERED - 2 {
            ids.remember(&format!("other{n}"), "e", id(2));
        }
        ids.remember("kept", "e'", id(3));
        ids.remember("one more", "e", id(4));
        assert_eq!(ids.of("kept", "e'"), Some(&id(3)));
        assert_eq!(ids.of("lost", "e"), None);
        assert!(ids.by_path.len() <= REMEMBERED && ids.oldest_first.len() <= REMEMBERED);
    }
}
