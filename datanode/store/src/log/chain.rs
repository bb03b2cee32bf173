//! The rules a sequence of log records obeys, without any I/O: what a takeover, a reader
//! and the simulator's checker all judge by.

use rhumb_core::{Epoch, Seq, Slot};

use super::record::Trailer;
use crate::state::Link;

/// Walks a log from the anchor of a state.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The epoch of whoever walks, if it holds one.
    ours: Option<Epoch>,
    /// The slot expected next.
    pub next: Slot,
    /// What the record in `next` must link to.
    pub prev: Link,
    highest: Epoch,
    /// High-water mark of the versions that the records handed out.
    pub next_seq: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Live,
    /// Written under an epoch that an earlier slot had already ended: it never happened.
    Void,
    /// A newer holder has been here: the walker is fenced.
    Newer(Epoch),
    /// Carries the walker's own epoch.  Fine when the put-id is the walker's too.
    Own,
}

impl Chain {
    pub fn after(applied: Slot, anchor: Link, ours: Option<Epoch>) -> Self {
        Self {
            ours,
            next: applied.next(),
            prev: anchor,
            highest: Epoch(0),
            next_seq: Seq(0),
        }
    }

    /// Judges the record in slot `next` and steps over it, unless it is `Newer`.
    pub fn step(&mut self, record: &Trailer) -> Result<Verdict, String> {
        if record.slot != self.next {
            return Err(format!("slot {} where {} was expected", record.slot, self.next));
        }
        if self.ours.is_some_and(|ours| record.epoch > ours) {
            return Ok(Verdict::Newer(record.epoch));
        }
        if record.epoch < self.highest {
            // Its writer did not know the record before it, so its own link says nothing;
            // whoever came after it did know it.
            self.pass(record);
            return Ok(Verdict::Void);
        }
        if record.prev != self.prev {
            return Err(format!(
                "slot {} does not link to the record before it",
                record.slot
            ));
        }
        if record.next_seq < self.next_seq {
            return Err(format!(
                "slot {} hands out versions below {}",
                record.slot, self.next_seq
            ));
        }
        self.highest = record.epoch;
        self.next_seq = record.next_seq;
        self.pass(record);
        Ok(if self.ours == Some(record.epoch) {
            Verdict::Own
        } else {
            Verdict::Live
        })
    }

    fn pass(&mut self, record: &Trailer) {
        self.prev = record.link();
        self.next = self.next.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PutId;
    use crate::log::record::Kind;

    fn record(slot: u64, epoch: u64, prev: Link) -> Trailer {
        Trailer {
            partition: 1,
            epoch: Epoch(epoch),
            slot: Slot(slot),
            prev,
            next_seq: Seq(slot),
            body_len: 1,
            body_crc: 0,
            put_id: PutId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").expect("a ULID"),
            kind: Kind::Data,
        }
    }

    fn walk(ours: Option<u64>) -> Chain {
        Chain::after(Slot(4), Link(7), ours.map(Epoch))
    }

    #[test]
    fn records_follow_each_other_from_the_anchor() {
        let mut chain = walk(Some(9));
        let first = record(5, 1, Link(7));
        assert_eq!(chain.step(&first), Ok(Verdict::Live));
        assert_eq!(chain.step(&record(6, 2, first.link())), Ok(Verdict::Live));
        assert_eq!((chain.next, chain.next_seq), (Slot(7), Seq(6)));
    }

    #[test]
    fn a_broken_link_stops_the_walk() {
        assert!(walk(None).step(&record(5, 1, Link(8))).is_err());
        assert!(
            walk(None).step(&record(6, 1, Link(7))).is_err(),
            "a slot out of turn"
        );
        let mut chain = walk(None);
        let first = record(5, 1, Link(7));
        chain.step(&first).expect("live");
        assert!(
            chain
                .step(&Trailer {
                    next_seq: Seq(4),
                    ..record(6, 1, first.link())
                })
                .is_err()
        );
    }

    #[test]
    fn a_record_of_an_ended_epoch_is_void_and_the_next_one_links_to_it() {
        let mut chain = walk(Some(9));
        let fence = record(5, 3, Link(7));
        let late = record(6, 2, Link(1234));
        chain.step(&fence).expect("live");
        assert_eq!(chain.step(&late), Ok(Verdict::Void));
        assert_eq!(chain.step(&record(7, 3, late.link())), Ok(Verdict::Live));
    }

    #[test]
    fn a_newer_epoch_is_not_stepped_over() {
        let mut chain = walk(Some(2));
        assert_eq!(chain.step(&record(5, 3, Link(0))), Ok(Verdict::Newer(Epoch(3))));
        assert_eq!(chain.next, Slot(5));
        assert_eq!(chain.step(&record(5, 2, Link(7))), Ok(Verdict::Own));
        assert_eq!(
            walk(None).step(&record(5, 3, Link(7))),
            Ok(Verdict::Live),
            "a reader holds no epoch"
        );
    }
}
