//! `Rhumb-Session`: what a client has seen, so that its next read sees at least that.
//!
//! A token holds positions of the few collections the client used last.  Each answer
//! carries the request's token with what this request saw merged in, so a session is
//! monotonic over all of them.  A position only ever grows.

use rhumb_core::{Code, CollectionId, Epoch, Position, Problem, Slot};
use xxhash_rust::xxh3::xxh3_64;

use super::token;

pub const HEADER: &str = "rhumb-session";
const VERSION: u8 = 1;
/// Collections that a token remembers, and their partitions together: a token stays a
/// header of a few kilobytes.
const COLLECTIONS: usize = 8;
const POSITIONS: usize = 256;

pub type Positions = Vec<(u32, Position)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// By the hash of the collection's id, the last used first.
    seen: Vec<(u64, Positions)>,
}

impl Session {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        token::open(text.trim())
            .and_then(|bytes| decode(&bytes))
            .ok_or_else(|| {
                Problem::new(Code::Malformed, "the session token is not one of this server's")
                    .field("Rhumb-Session")
                    .hint("send the header of an earlier answer as it came, or leave it out")
            })
    }

    pub fn positions(&self, collection: &CollectionId) -> &[(u32, Position)] {
        let key = key(collection);
        self.seen
            .iter()
            .find(|(k, _)| *k == key)
            .map_or(&[], |(_, positions)| positions)
    }

    /// Adds what was seen of a collection just now.
    pub fn saw(&mut self, collection: &CollectionId, positions: &[(u32, Position)]) {
        let key = key(collection);
        let before = self
            .seen
            .iter()
            .position(|(k, _)| *k == key)
            .map(|at| self.seen.remove(at));
        let mut merged = before.map(|(_, positions)| positions).unwrap_or_default();
        for (partition, position) in positions {
            match merged.iter_mut().find(|(p, _)| p == partition) {
                Some((_, known)) => *known = (*known).max(*position),
                None => merged.push((*partition, *position)),
            }
        }
        self.seen.insert(0, (key, merged));
        self.seen.truncate(COLLECTIONS);
        let mut room = POSITIONS;
        // The collection just used always stays, whole.
        self.seen.retain(|(k, positions)| {
            let fits = *k == key || positions.len() <= room;
            room = room.saturating_sub(positions.len());
            fits
        });
    }

    pub fn token(&self) -> String {
        let mut bytes = vec![VERSION];
        for (key, positions) in &self.seen {
            bytes.extend_from_slice(&key.to_le_bytes());
            put(&mut bytes, positions.len() as u64);
            for (partition, position) in positions {
                put(&mut bytes, u64::from(*partition));
                put(&mut bytes, position.epoch.0);
                put(&mut bytes, position.slot.0);
            }
        }
        token::seal(bytes)
    }
}

/// A position as answers show it: `partition:epoch.slot`, joined by commas.
pub fn position_text(positions: &[(u32, Position)]) -> String {
    let each = positions
        .iter()
        .map(|(partition, position)| format!("{partition}:{position}"));
    each.collect::<Vec<_>>().join(",")
}

fn key(collection: &CollectionId) -> u64 {
    xxh3_64(collection.as_str().as_bytes())
}

fn decode(bytes: &[u8]) -> Option<Session> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_first_chunk::<8>()?;
        rest = after;
        let count = take(&mut rest)?;
        let mut positions = Vec::new();
        for _ in 0..count {
            let partition = u32::try_from(take(&mut rest)?).ok()?;
            positions.push((
                partition,
                Position {
                    epoch: Epoch(take(&mut rest)?),
                    slot: Slot(take(&mut rest)?),
                },
            ));
        }
        seen.push((u64::from_le_bytes(*key), positions));
    }
    Some(Session { seen })
}

/// LEB128: most numbers here are small.
fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7F);
        n |= bits
            .checked_shl(shift)
            .filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> CollectionId {
        CollectionId::parse(&format!("{n:026}")).expect("26 digits")
    }

    fn at(epoch: u64, slot: u64) -> Position {
        Position {
            epoch: Epoch(epoch),
            slot: Slot(slot),
        }
    }

    #[test]
    fn a_token_brings_back_what_was_seen() {
        let mut session = Session::default();
        session.saw(&id(1), &[(0, at(1, 300)), (1, at(2, u64::MAX))]);
        session.saw(&id(2), &[(0, at(1, 1))]);
        let back = Session::parse(&session.token()).expect("our own token");
        assert_eq!(back, session);
        assert_eq!(back.positions(&id(1)), [(0, at(1, 300)), (1, at(2, u64::MAX))]);
        assert_eq!(back.positions(&id(3)), []);
    }

    #[test]
    fn positions_only_grow() {
        let mut session = Session::default();
        session.saw(&id(1), &[(0, at(1, 9))]);
        session.saw(&id(1), &[(0, at(1, 4))]);
        assert_eq!(session.positions(&id(1)), [(0, at(1, 9))]);
        session.saw(&id(1), &[(0, at(2, 1)), (3, at(1, 1))]);
        assert_eq!(session.positions(&id(1)), [(0, at(2, 1)), (3, at(1, 1))]);
    }

    #[test]
    fn a_token_stays_small_and_keeps_the_collections_used_last() {
        let mut session = Session::default();
        let wide: Positions = (0..200).map(|p| (p, at(1, 1))).collect();
        (1..=20).for_each(|n| session.saw(&id(n), &[(0, at(1, 1))]));
        assert_eq!(session.seen.len(), COLLECTIONS);
        session.saw(&id(21), &wide);
        session.saw(&id(22), &wide);
        assert_eq!(session.positions(&id(22)).len(), 200);
        assert_eq!(session.positions(&id(21)), []);
        assert!(session.token().len() < 4096);
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        for text in [
            "",
            "abc",
            "0:1.5",
            "Ag",
            &token::seal(vec![]),
            &token::seal(vec![2]),
            &token::seal(vec![1, 2, 3]),
        ] {
            assert_eq!(Session::parse(text).expect_err(text).code, Code::Malformed);
        }
        // A count that promises more than there is, and a number beyond 64 bits.
        let mut lying = vec![VERSION];
        lying.extend([0; 8]);
        lying.extend([0xFF; 10]);
        assert!(Session::parse(&token::seal(lying)).is_err());
    }

    #[test]
    fn a_position_reads_as_partition_epoch_and_slot() {
        assert_eq!(position_text(&[(0, at(1, 5)), (3, at(2, 7))]), "0:1.5,3:2.7");
    }
}
