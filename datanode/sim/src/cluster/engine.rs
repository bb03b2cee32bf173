//! What a node serves, as `datanode/engine` does it: a slot is claimed and replayed once
//! per term; a write is acknowledged once it is in the log under the newest epoch; a
//! strong read takes its snapshot and then either is under a certain term or asks the
//! bucket.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rhumb_cluster::{Led, Report};
use rhumb_seams::{Rand, Term};
use tokio::time::sleep;

use super::bucket::{Bucket, Fenced};
use super::sabotage::Sabotage;
use crate::base::Op;
use crate::history::History;

pub(super) struct Engine {
    pub name: String,
    pub bucket: Bucket,
    /// One per slot: slots share nothing.
    pub histories: Vec<History>,
    pub rand: Rand,
    pub sabotage: Option<Sabotage>,
    pub slots: Vec<Cell>,
}

#[derive(Default)]
pub(super) struct Cell {
    open: Mutex<Option<Arc<Open>>>,
    /// Serialises opening and closing.
    changing: tokio::sync::Mutex<()>,
}

struct Open {
    term: Term,
    epoch: u64,
    view: Mutex<Vec<Op>>,
    /// One PUT at a time.
    appending: tokio::sync::Mutex<()>,
}

/// The request was not served; a write may be in the log all the same.
#[derive(Debug)]
pub(super) struct Unserved;

impl Engine {
    pub async fn write(&self, slot: u32, term: &Term) -> Result<(), Unserved> {
        let history = &self.histories[slot as usize];
        let id = history.incarnation() << 32;
        let open = self.open(slot, term).await?;
        let _turn = open.appending.lock().await;
        if term.has_ended() {
            return Err(Unserved);
        }
        let op = Op {
            id,
            seq: rhumb_core::Seq(0),
        };
        history.invoked(&[op]);
        let op = self.bucket.append(slot, open.epoch, id).await;
        let op = op.map_err(|Fenced| fenced(term))?;
        open.view.lock().push(op);
        history.acked(&[op], None);
        Ok(())
    }

    pub async fn read(&self, slot: u32, term: &Term) -> Result<(), Unserved> {
        let history = &self.histories[slot as usize];
        let began = history.read_began();
        let open = self.open(slot, term).await?;
        let view = open.view.lock().clone();
        let is_certain = match self.sabotage {
            Some(Sabotage::CertainForEver) => !term.has_ended(),
            _ => term.is_certain(),
        };
        if !is_certain {
            let verified = self.bucket.verify(slot, open.epoch).await;
            verified.map_err(|Fenced| fenced(term))?;
        }
        let who = format!("{} at epoch {}, certain {is_certain},", self.name, open.epoch);
        history.read_ended(&who, began, view);
        Ok(())
    }

    async fn open(&self, slot: u32, term: &Term) -> Result<Arc<Open>, Unserved> {
        let cell = &self.slots[slot as usize];
        let sound = || {
            let open = cell.open.lock();
            let kept = self.sabotage == Some(Sabotage::KeepOpen);
            open.clone().filter(|open| kept || open.term.is_same(term))
        };
        if let Some(open) = sound() {
            return Ok(open);
        }
        let _changing = cell.changing.lock().await;
        if let Some(open) = sound() {
            return Ok(open);
        }
        // A stalled process must not take the slot from whoever replaced it meanwhile.
        if !term.is_certain() {
            return Err(Unserved);
        }
        if self.sabotage == Some(Sabotage::LateClaim) {
            // Rare as it is, it takes a slow store besides.
            sleep(Duration::from_millis(self.rand.below(10_000))).await;
        }
        let (epoch, log) = self.bucket.claim(slot).await;
        // Nor may it serve what it claimed in somebody else's time: that one would not ask.
        if !term.is_certain() && self.sabotage != Some(Sabotage::LateClaim) {
            return Err(Unserved);
        }
        let open = Arc::new(Open {
            term: term.clone(),
            epoch,
            view: Mutex::new(log),
            appending: tokio::sync::Mutex::default(),
        });
        *cell.open.lock() = Some(open.clone());
        if term.has_ended() {
            cell.open.lock().take();
            return Err(Unserved);
        }
        Ok(open)
    }
}

fn fenced(term: &Term) -> Unserved {
    term.fence();
    Unserved
}

impl Led for Engine {
    fn flush(&self, _slot: u32) -> BoxFuture<'_, ()> {
        let time = match self.sabotage {
            Some(Sabotage::EndlessFlush) => Duration::from_secs(3_600),
            _ => Duration::from_millis(self.rand.below(100)),
        };
        sleep(time).boxed()
    }

    fn settle(&self, slot: u32) -> BoxFuture<'_, ()> {
        async move {
            let cell = &self.slots[slot as usize];
            if self.sabotage == Some(Sabotage::KeepOpen) {
                return;
            }
            let _changing = cell.changing.lock().await;
            let open = cell.open.lock().take();
            if let Some(open) = open {
                let _last = open.appending.lock().await;
            }
        }
        .boxed()
    }

    fn report(&self, slot: u32) -> Report {
        let open = self.slots[slot as usize].open.lock();
        let epoch = open.as_ref().map_or(0, |open| open.epoch);
        Report {
            epoch,
            ..Report::default()
        }
    }

    fn store(&self) -> BoxFuture<'_, Result<(), String>> {
        std::future::ready(Ok(())).boxed()
    }
}
