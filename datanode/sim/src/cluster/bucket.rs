//! The bucket, as far as leadership shows in it: per slot an epoch that is claimed by
//! compare-and-swap, and a log that only the newest epoch appends to.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::Seq;
use rhumb_seams::Rand;
use tokio::time::sleep;

use super::sabotage::Sabotage;
use crate::base::Op;

/// Cheap to clone; all clones are one bucket.
#[derive(Clone)]
pub struct Bucket {
    slots: Arc<Mutex<Vec<Slot>>>,
    rand: Rand,
    /// Some requests take seconds.
    is_slow: Arc<Mutex<bool>>,
    sabotage: Option<Sabotage>,
}

#[derive(Clone, Default)]
struct Slot {
    epoch: u64,
    log: Vec<Op>,
}

/// Somebody newer has the slot.
#[derive(Debug)]
pub struct Fenced;

impl Bucket {
    pub(super) fn new(slots: u32, rand: &Rand, sabotage: Option<Sabotage>) -> Self {
        Self {
            slots: Arc::new(Mutex::new(vec![Slot::default(); slots as usize])),
            rand: Rand::from_seed(rand.u64()),
            is_slow: Arc::default(),
            sabotage,
        }
    }

    pub fn slow(&self, is_slow: bool) {
        *self.is_slow.lock() = is_slow;
    }

    /// A new epoch, and everything that was acknowledged before it.  A claim that loses the
    /// race reads again, as the store's does.
    pub async fn claim(&self, slot: u32) -> (u64, Vec<Op>) {
        loop {
            self.travel().await;
            let seen = self.slots.lock()[slot as usize].epoch;
            self.travel().await;
            let claimed = {
                let mut slots = self.slots.lock();
                let state = &mut slots[slot as usize];
                let is_first = state.epoch == seen;
                if is_first {
                    state.epoch += 1;
                }
                is_first.then_some(state.epoch)
            };
            self.travel().await;
            if let Some(epoch) = claimed {
                let log = self.slots.lock()[slot as usize].log.clone();
                return (epoch, log);
            }
        }
    }

    pub async fn append(&self, slot: u32, epoch: u64, id: u64) -> Result<Op, Fenced> {
        self.travel().await;
        let op = {
            let mut slots = self.slots.lock();
            let state = &mut slots[slot as usize];
            if state.epoch != epoch && self.sabotage != Some(Sabotage::NoFence) {
                return Err(Fenced);
            }
            let op = Op {
                id,
                seq: Seq(state.log.len() as u64 + 1),
            };
            state.log.push(op);
            op
        };
        self.travel().await;
        Ok(op)
    }

    /// The bucket barrier: whether `epoch` was the newest after this was asked (P15).
    pub async fn verify(&self, slot: u32, epoch: u64) -> Result<(), Fenced> {
        self.travel().await;
        let is_newest = self.slots.lock()[slot as usize].epoch == epoch;
        self.travel().await;
        is_newest.then_some(()).ok_or(Fenced)
    }

    pub fn log(&self, slot: u32) -> Vec<Op> {
        self.slots.lock()[slot as usize].log.clone()
    }

    pub fn epoch(&self, slot: u32) -> u64 {
        self.slots.lock()[slot as usize].epoch
    }

    async fn travel(&self) {
        let ms = match self.rand.below(100) {
            0 if *self.is_slow.lock() => self.rand.below(6_000),
            _ => 1 + self.rand.below(15),
        };
        sleep(Duration::from_millis(ms)).await;
    }
}
