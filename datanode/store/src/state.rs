//! What a partition is, in one small object: who may write it, which Lance version is its
//! base, and from which log slot a reader goes on.
//!
//! This file is pure: it says which states are whole (`check`) and which may follow which
//! (`may_become`).  The rules carry the numbers S1–S8 that `docs/protocol/` lists.  A
//! state read from the bucket that is not whole is `Corrupt`; a state we are about to
//! write that may not follow is a bug of ours and is never written.

use rhumb_core::{Epoch, Seq, Slot};
use serde::{Deserialize, Serialize};

/// Most fences a state names.  Beyond it the oldest leave, and with them the chance to
/// collect the slots below by number: those wait for the sweep.
pub const MAX_FENCES: usize = 1_024;

/// Identity of a log record: the hash of its trailer, which covers the checksum of the
/// body and the link to the record before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Link(pub u128);

impl Link {
    /// What the first record of a log links to.
    pub const GENESIS: Self = Self(0);
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        format!("{:032x}", link.0)
    }
}

impl TryFrom<String> for Link {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("a link is 32 lower-case hex digits".into());
        }
        u128::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|e| e.to_string())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Open,
    /// The collection is being deleted: no epoch will ever be claimed again.
    Sealed,
}

/// A file of idempotency keys that were folded out of the log (P5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdemFile {
    pub name: String,
    pub oldest_ms: i64,
    pub newest_ms: i64,
    pub keys: u64,
    /// Of the file's bytes.  Files of an older server have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<u64>,
}

impl IdemFile {
    pub fn checksum(body: &[u8]) -> u64 {
        xxhash_rust::xxh3::xxh3_64(body)
    }

    /// Whether `body` is what was written.
    pub fn is_of(&self, body: &[u8]) -> bool {
        self.checksum
            .is_none_or(|checksum| checksum == Self::checksum(body))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub epoch: Epoch,
    /// Who claimed the epoch, for people; the epoch alone decides.
    pub holder: String,
    pub status: Status,
    /// Set when the holder handed the partition back: it has nothing in flight, and this
    /// is the last slot it wrote.  The next claim then needs no fence.
    pub released: Option<Slot>,
    /// Every record up to here is in the base.
    pub applied: Slot,
    /// The link of record `applied`: where the chain of the tail starts.
    pub anchor: Link,
    /// Every DATA object up to here was deleted once; GC goes on behind it.
    pub collected: Slot,
    /// The FENCE slots in `collected + 1 ..= applied`, ascending.  GC spares them.
    pub fences: Vec<Slot>,
    /// High-water mark: no version below it is handed out again.
    pub next_seq: Seq,
    /// The Lance version that counts.
    pub base: Option<u64>,
    pub idem: Vec<IdemFile>,
}

impl State {
    /// A partition that nobody has written, claimed for the first time.
    pub fn born(holder: &str) -> Self {
        Self {
            epoch: Epoch(1),
            holder: holder.to_owned(),
            status: Status::Open,
            released: None,
            applied: Slot(0),
            anchor: Link::GENESIS,
            collected: Slot(0),
            fences: Vec::new(),
            next_seq: Seq(1),
            base: None,
            idem: Vec::new(),
        }
    }

    /// The state after `holder` takes the partition.  `None` once the epochs are used up.
    pub fn claimed_by(&self, holder: &str) -> Option<Self> {
        let epoch = Epoch(self.epoch.0.checked_add(1)?);
        Some(Self {
            epoch,
            holder: holder.to_owned(),
            released: None,
            ..self.clone()
        })
    }

    pub fn sealed(&self) -> Self {
        Self {
            status: Status::Sealed,
            ..self.clone()
        }
    }

    pub fn released_at(&self, tip: Slot, next_seq: Seq) -> Self {
        Self {
            released: Some(tip),
            next_seq: self.next_seq.max(next_seq),
            ..self.clone()
        }
    }

    /// S1–S3: what holds of every state by itself.
    pub fn check(&self) -> Result<(), String> {
        if self.epoch == Epoch(0) {
            return Err("S1: no epoch was ever claimed".into());
        }
        if self.collected > self.applied {
            return Err(format!(
                "S2: collected {} is beyond applied {}",
                self.collected, self.applied
            ));
        }
        let ascending = self.fences.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = self
            .fences
            .iter()
            .all(|f| *f > self.collected && *f <= self.applied);
        if !ascending || !inside {
            return Err(format!(
                "S2: fences {:?} are not ascending within {}..={}",
                self.fences, self.collected, self.applied
            ));
        }
        if self.released.is_some_and(|tip| tip < self.applied) {
            return Err(format!(
                "S3: released at {:?} below applied {}",
                self.released, self.applied
            ));
        }
        if (self.applied == Slot(0)) != (self.anchor == Link::GENESIS) {
            return Err(format!("S3: applied {} and its anchor do not fit", self.applied));
        }
        Ok(())
    }

    /// S4–S8: what holds between a state and the next one.
    pub fn may_become(&self, next: &Self) -> Result<(), String> {
        next.check()?;
        if self.status == Status::Sealed {
            return Err("S4: a sealed partition changes no more".into());
        }
        if next.epoch < self.epoch {
            return Err(format!(
                "S5: epoch would fall from {} to {}",
                self.epoch, next.epoch
            ));
        }
        if next.epoch > self.epoch {
            return self.only_claimed(next);
        }
        if next.holder != self.holder {
            return Err(format!("S5: epoch {} would change its holder", self.epoch));
        }
        if self.released.is_some() {
            return Err(format!(
                "S6: epoch {} was handed back; only a claim may follow",
                self.epoch
            ));
        }
        if next.applied < self.applied || next.collected < self.collected || next.next_seq < self.next_seq {
            return Err(format!(
                "S7: a cursor would fall: applied {}→{}, collected {}→{}, next_seq {}→{}",
                self.applied, next.applied, self.collected, next.collected, self.next_seq, next.next_seq
            ));
        }
        if (next.applied == self.applied) != (next.anchor == self.anchor) {
            return Err("S7: applied and its anchor change together or not at all".into());
        }
        if next.base < self.base {
            return Err(format!(
                "S8: base would fall from {:?} to {:?}",
                self.base, next.base
            ));
        }
        Ok(())
    }

    /// A claim takes the partition as it is: it changes the epoch, the holder and the mark
    /// of release, and the epoch by one.
    fn only_claimed(&self, next: &Self) -> Result<(), String> {
        if self.claimed_by(&next.holder).as_ref() == Some(next) {
            Ok(())
        } else {
            Err(format!(
                "S5: epoch {} → {} changes more than a claim may",
                self.epoch, next.epoch
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn working() -> State {
        State {
            applied: Slot(9),
            anchor: Link(77),
            collected: Slot(3),
            fences: vec![Slot(4), Slot(9)],
            next_seq: Seq(40),
            base: Some(5),
            ..State::born("a")
        }
    }

    /// Applies `change` to a working state and says whether it may follow.
    fn verdict(change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut next = working();
        change(&mut next);
        working().may_become(&next)
    }

    #[test]
    fn a_damaged_file_of_keys_is_noticed() {
        let file = IdemFile {
            name: "a.json".into(),
            oldest_ms: 1,
            newest_ms: 2,
            keys: 1,
            checksum: Some(IdemFile::checksum(b"[1]")),
        };
        assert!(file.is_of(b"[1]") && !file.is_of(b"[2]"));
        let older = IdemFile {
            checksum: None,
            ..file
        };
        assert!(older.is_of(b"[2]"), "it cannot tell");
    }

    #[test]
    fn a_new_partition_and_its_first_claims_are_whole() {
        let born = State::born("a");
        born.check().expect("whole");
        let claimed = born.claimed_by("b").expect("epochs are left");
        born.may_become(&claimed).expect("a claim may follow");
        assert_eq!((claimed.epoch, claimed.holder.as_str()), (Epoch(2), "b"));
    }

    #[test]
    fn cursors_only_rise() {
        verdict(|s| {
            s.applied = Slot(12);
            s.anchor = Link(78);
            s.next_seq = Seq(41);
            s.base = Some(6);
        })
        .expect("a checkpoint");
        verdict(|s| s.base = Some(6)).expect("maintenance alone");
        for (rule, fall) in [
            ("S5", (|s| s.epoch = Epoch(0)) as fn(&mut State)),
            ("S7", |s| {
                (s.applied, s.anchor, s.fences) = (Slot(8), Link(1), vec![Slot(4)])
            }),
            ("S7", |s| s.collected = Slot(2)),
            ("S7", |s| s.next_seq = Seq(39)),
            ("S8", |s| s.base = Some(4)),
            ("S8", |s| s.base = None),
        ] {
            let refused = verdict(fall).expect_err("a fall");
            assert!(
                refused.starts_with(rule) || rule == "S5" && refused.starts_with("S1"),
                "{refused}"
            );
        }
    }

    #[test]
    fn the_anchor_moves_with_applied_and_never_alone() {
        assert!(verdict(|s| s.anchor = Link(1)).is_err());
        assert!(verdict(|s| s.applied = Slot(10)).is_err());
    }

    #[test]
    fn fences_lie_between_collected_and_applied() {
        assert!(verdict(|s| s.fences = vec![Slot(3)]).is_err());
        assert!(verdict(|s| s.fences = vec![Slot(10)]).is_err());
        assert!(verdict(|s| s.fences = vec![Slot(9), Slot(4)]).is_err());
        assert!(verdict(|s| s.collected = Slot(10)).is_err());
    }

    #[test]
    fn sealed_is_final() {
        let sealed = working().sealed();
        working().may_become(&sealed).expect("sealing");
        assert!(
            sealed
                .may_become(&sealed.claimed_by("b").expect("epochs are left"))
                .is_err()
        );
        assert!(
            sealed
                .may_become(&State {
                    status: Status::Open,
                    ..sealed.clone()
                })
                .is_err()
        );
    }

    #[test]
    fn a_released_partition_can_only_be_claimed() {
        let released = working().released_at(Slot(11), Seq(44));
        working().may_become(&released).expect("releasing");
        assert_eq!(released.next_seq, Seq(44));
        assert!(
            released
                .may_become(&State {
                    base: Some(9),
                    ..released.clone()
                })
                .is_err()
        );
        let claimed = released.claimed_by("b").expect("epochs are left");
        released.may_become(&claimed).expect("a claim");
        assert_eq!(claimed.released, None);
        assert!(working().released_at(Slot(8), Seq(44)).check().is_err());
    }

    #[test]
    fn a_claim_changes_nothing_else() {
        let mut next = working().claimed_by("b").expect("epochs are left");
        next.base = Some(9);
        assert!(working().may_become(&next).is_err());
        let skipping = State {
            epoch: Epoch(3),
            ..working().claimed_by("b").expect("epochs are left")
        };
        assert!(working().may_become(&skipping).is_err());
        assert!(
            verdict(|s| s.holder = "b".into()).is_err(),
            "one epoch has one holder"
        );
    }

    #[test]
    fn epochs_end_without_wrapping() {
        assert_eq!(
            State {
                epoch: Epoch(u64::MAX),
                ..working()
            }
            .claimed_by("b"),
            None
        );
    }

    #[test]
    fn a_link_survives_its_text_and_refuses_anything_else() {
        let text = String::from(Link(0xabc));
        assert_eq!(Link::try_from(text.clone()), Ok(Link(0xabc)));
        for bad in [
            "",
            "abc",
            &text[1..],
            &text.to_uppercase(),
            "+0000000000000000000000000000abc",
        ] {
            assert!(Link::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
