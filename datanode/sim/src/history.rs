//! What clients saw, and whether one log that never lost anything explains it.
//!
//! The checker knows the order in which calls began and ended, and at the end the one
//! sequence of operations that was recovered.  It then asks:
//!
//! - H1 every acknowledged operation is in the sequence;
//! - H2 none is in it twice;
//! - H3 none is in it that nobody invoked, or whose client was told "not applied";
//! - H4 every strong read is a prefix of it, at least as long as anything acknowledged or
//!   read before the read began;
//! - H5 positions are unique, and their order is the sequence's order;
//! - H6 the operations of one writer are in the order it invoked them;
//! - H7 versions rise along the sequence.
//!
//! H1 and H4 together are linearizability of an append-only register.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_core::Position;

use crate::base::Op;
use crate::trace::Trace;

#[derive(Clone)]
pub struct History(Arc<Mutex<Inner>>, Trace);

#[derive(Default)]
struct Inner {
    /// Counts calls and returns: the only time the checker knows.
    now: u64,
    incarnations: u64,
    ops: BTreeMap<u64, Ack>,
    reads: Vec<Read>,
    violations: Vec<String>,
    takeovers: u64,
    fenced: u64,
    checkpoints: u64,
    handed_back: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ack {
    /// No answer, or one that leaves it open.
    Open,
    Done {
        at: u64,
        position: Option<Position>,
    },
    Refused,
}

struct Read {
    who: String,
    began: u64,
    ended: u64,
    ops: Vec<Op>,
}

/// A read under way.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Began(u64);

/// How much a run did, so that a run that did nothing is not taken for a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub invoked: u64,
    pub acked: u64,
    pub refused: u64,
    pub reads: u64,
    pub takeovers: u64,
    pub fenced: u64,
    pub checkpoints: u64,
    pub handed_back: u64,
}

impl History {
    pub(crate) fn new(trace: Trace) -> Self {
        Self(Arc::default(), trace)
    }

    /// A number for a writer's life; operation ids start with it.
    pub fn incarnation(&self) -> u64 {
        let mut inner = self.0.lock();
        inner.incarnations += 1;
        inner.incarnations
    }

    pub fn invoked(&self, ops: &[Op]) {
        let mut inner = self.0.lock();
        for op in ops {
            inner.ops.insert(op.id, Ack::Open);
        }
    }

    pub fn acked(&self, ops: &[Op], position: Option<Position>) {
        self.1.note(format_args!("acked {ops:?} at {position:?}"));
        let mut inner = self.0.lock();
        inner.now += 1;
        let at = inner.now;
        for op in ops {
            inner.ops.insert(op.id, Ack::Done { at, position });
        }
    }

    /// The client was told: not applied, and never will be.
    pub fn refused(&self, ops: &[Op]) {
        self.1.note(format_args!("refused {ops:?}"));
        let mut inner = self.0.lock();
        for op in ops {
            inner.ops.insert(op.id, Ack::Refused);
        }
    }

    pub fn read_began(&self) -> Began {
        let mut inner = self.0.lock();
        inner.now += 1;
        Began(inner.now)
    }

    pub fn read_ended(&self, who: &str, began: Began, ops: Vec<Op>) {
        self.1.note(format_args!("{who} read {} ops", ops.len()));
        let mut inner = self.0.lock();
        inner.now += 1;
        let ended = inner.now;
        inner.reads.push(Read {
            who: who.to_owned(),
            began: began.0,
            ended,
            ops,
        });
    }

    pub fn violation(&self, what: String) {
        self.1.note(format_args!("violation {what}"));
        self.0.lock().violations.push(what);
    }

    pub(crate) fn took_over(&self) {
        self.0.lock().takeovers += 1;
    }

    pub(crate) fn was_fenced(&self) {
        self.0.lock().fenced += 1;
    }

    pub(crate) fn checkpointed(&self) {
        self.0.lock().checkpoints += 1;
    }

    pub(crate) fn handed_back(&self) {
        self.0.lock().handed_back += 1;
    }

    pub fn summary(&self) -> Summary {
        let inner = self.0.lock();
        let count = |wanted: fn(&Ack) -> bool| inner.ops.values().filter(|ack| wanted(ack)).count() as u64;
        Summary {
            invoked: inner.ops.len() as u64,
            acked: count(|ack| matches!(ack, Ack::Done { .. })),
            refused: count(|ack| *ack == Ack::Refused),
            reads: inner.reads.len() as u64,
            takeovers: inner.takeovers,
            fenced: inner.fenced,
            checkpoints: inner.checkpoints,
            handed_back: inner.handed_back,
        }
    }

    /// Everything that `recovered` does not explain.
    pub fn check(&self, recovered: &[Op]) -> Vec<String> {
        let inner = self.0.lock();
        let mut wrong = inner.violations.clone();
        let mut place = BTreeMap::new();
        for (at, op) in recovered.iter().enumerate() {
            if place.insert(op.id, at).is_some() {
                wrong.push(format!("H2: {op:?} is there twice"));
            }
        }
        inner.check_ops(recovered, &place, &mut wrong);
        inner.check_order(recovered, &mut wrong);
        inner.check_reads(recovered, &place, &mut wrong);
        wrong
    }
}

impl Inner {
    fn check_ops(&self, recovered: &[Op], place: &BTreeMap<u64, usize>, wrong: &mut Vec<String>) {
        let mut groups: BTreeMap<Position, Vec<usize>> = BTreeMap::new();
        for (id, ack) in &self.ops {
            match (ack, place.get(id)) {
                (Ack::Done { position, .. }, None) => {
                    wrong.push(format!("H1: {id:x} was acknowledged at {position:?} and is lost"));
                }
                (
                    Ack::Done {
                        position: Some(position),
                        ..
                    },
                    Some(at),
                ) => {
                    groups.entry(*position).or_default().push(*at);
                }
                (Ack::Refused, Some(_)) => wrong.push(format!("H3: {id:x} was refused and is there")),
                (Ack::Done { position: None, .. }, Some(_)) | (Ack::Open, _) | (Ack::Refused, None) => {}
            }
        }
        for op in recovered.iter().filter(|op| !self.ops.contains_key(&op.id)) {
            wrong.push(format!("H3: {op:?} was never invoked"));
        }
        let mut by_slot: Vec<_> = groups.into_iter().collect();
        by_slot.sort_by_key(|(position, _)| position.slot);
        for ((first, early), (second, late)) in by_slot.iter().zip(by_slot.iter().skip(1)) {
            if first.slot == second.slot
                || first.epoch > second.epoch
                || early.iter().max() >= late.iter().min()
            {
                wrong.push(format!("H5: {first} and {second} are out of order"));
            }
        }
    }

    fn check_order(&self, recovered: &[Op], wrong: &mut Vec<String>) {
        let mut last_of: BTreeMap<u64, u64> = BTreeMap::new();
        for op in recovered {
            if last_of
                .insert(op.id >> 32, op.id)
                .is_some_and(|before| before > op.id)
            {
                wrong.push(format!("H6: {op:?} comes after a later operation of its writer"));
            }
        }
        for pair in recovered.windows(2).filter(|pair| pair[0].seq >= pair[1].seq) {
            wrong.push(format!("H7: {:?} and {:?} do not rise", pair[0], pair[1]));
        }
    }

    fn check_reads(&self, recovered: &[Op], place: &BTreeMap<u64, usize>, wrong: &mut Vec<String>) {
        // How long a read must be at least, by when it began.
        let acks = self.ops.iter().filter_map(|(id, ack)| match ack {
            Ack::Done { at, .. } => place.get(id).map(|place| (*at, place + 1)),
            Ack::Open | Ack::Refused => None,
        });
        let reads = self.reads.iter().map(|read| (read.ended, read.ops.len()));
        let mut due: Vec<(u64, usize)> = acks.chain(reads).collect();
        due.sort_unstable();
        let mut longest = 0;
        for (_, length) in &mut due {
            longest = longest.max(*length);
            *length = longest;
        }
        for read in &self.reads {
            if recovered.get(..read.ops.len()) != Some(read.ops.as_slice()) {
                wrong.push(format!(
                    "H4: {} read {} operations that are no prefix",
                    read.who,
                    read.ops.len()
                ));
            }
            let at_least = due
                .partition_point(|(at, _)| *at < read.began)
                .checked_sub(1)
                .map_or(0, |n| due[n].1);
            if read.ops.len() < at_least {
                let (who, got) = (&read.who, read.ops.len());
                wrong.push(format!(
                    "H4: {who} read {got} operations where {at_least} were there"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::{Epoch, Seq, Slot};

    use super::*;

    fn op(n: u64) -> Op {
        Op {
            id: (1 << 32) + n,
            seq: Seq(n),
        }
    }

    fn at(slot: u64) -> Option<Position> {
        Some(Position {
            epoch: Epoch(1),
            slot: Slot(slot),
        })
    }

    async fn history() -> History {
        let history = History::new(Trace::new(false));
        for n in 1..=3 {
            history.invoked(&[op(n)]);
        }
        history.acked(&[op(1)], at(1));
        history
    }

    fn rule(history: &History, recovered: &[Op]) -> String {
        let wrong = history.check(recovered);
        wrong.first().map_or(String::new(), |w| w[..2].to_owned())
    }

    #[tokio::test]
    async fn what_one_log_explains_is_fine() {
        let history = history().await;
        let began = history.read_began();
        history.acked(&[op(2)], at(2));
        history.read_ended("r", began, vec![op(1)]);
        assert_eq!(
            rule(&history, &[op(1), op(2), op(3)]),
            "",
            "3 was open, so it may be there"
        );
        assert_eq!(rule(&history, &[op(1), op(2)]), "");
    }

    #[tokio::test]
    async fn each_rule_can_fail() {
        assert_eq!(rule(&history().await, &[]), "H1");
        assert_eq!(rule(&history().await, &[op(1), op(1)]), "H2");
        assert_eq!(rule(&history().await, &[op(1), op(9)]), "H3");
        let h = history().await;
        h.refused(&[op(2)]);
        assert_eq!(rule(&h, &[op(1), op(2)]), "H3");
        let h = history().await;
        let began = h.read_began();
        h.read_ended("r", began, vec![]);
        assert_eq!(rule(&h, &[op(1)]), "H4", "stale");
        let h = history().await;
        let (first, second) = (h.read_began(), h.read_began());
        h.read_ended("r", first, vec![op(1), op(2)]);
        h.read_ended("r", second, vec![op(1)]);
        assert_eq!(rule(&h, &[op(1), op(2)]), "", "they overlapped");
        let third = h.read_began();
        h.read_ended("r", third, vec![op(1)]);
        assert_eq!(rule(&h, &[op(1), op(2)]), "H4", "back in time");
        let h = history().await;
        let began = h.read_began();
        h.read_ended("r", began, vec![op(1), op(2)]);
        assert_eq!(rule(&h, &[op(1), op(3)]), "H4", "no prefix");
        let h = history().await;
        h.acked(&[op(2)], at(1));
        assert_eq!(rule(&h, &[op(1), op(2)]), "", "one group may hold both");
        let h = history().await;
        h.acked(&[op(2)], at(3));
        h.acked(&[op(3)], at(2));
        assert_eq!(rule(&h, &[op(1), op(2), op(3)]), "H5");
        assert_eq!(rule(&history().await, &[op(1), op(3), op(2)]), "H6");
        let again = Op {
            id: (2 << 32) + 1,
            seq: Seq(1),
        };
        let h = history().await;
        h.invoked(&[again]);
        assert_eq!(rule(&h, &[op(1), again]), "H7");
    }
}
