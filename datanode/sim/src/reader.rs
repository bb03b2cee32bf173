//! A process that never leads and still wants strong reads: from the state, its base and
//! the log alone.

use rhumb_core::Epoch;
use rhumb_store::cas::Cas;
use rhumb_store::log::{PartitionFolder, Tail, read_verified};
use rhumb_store::state::State;
use rhumb_store::{ErrorKind, StoreError};

use crate::base::{self, Op};
use crate::node::{Node, base_of};
use crate::sabotage::Sabotage;

#[derive(Clone)]
pub struct Reader(pub Node);

impl Reader {
    /// Runs until it is killed.
    pub async fn run(self) {
        let folder = self.0.folder().await;
        loop {
            self.0.sleep(self.0.habits.read).await;
            let began = self.0.history.read_began();
            let read = match self.0.sabotage {
                Some(Sabotage::NoRecheck) => read_once(&folder).await,
                _ => read_strong(&folder).await,
            };
            match read {
                Ok(Some(ops)) => self.0.history.read_ended(&self.0.name, began, ops),
                Ok(None) => {}
                Err(e) => self.0.note(&e, "reading"),
            }
        }
    }
}

/// `None` when the partition is not there, or moves on too fast.
async fn read_strong(folder: &PartitionFolder) -> Result<Option<Vec<Op>>, StoreError> {
    for _ in 0..8 {
        let Some(reading) = read_verified(folder).await? else {
            return Ok(None);
        };
        match base_of(folder, &reading.state).await {
            Ok(mut ops) => {
                ops.extend(base::ops_of(&reading.tail));
                return Ok(Some(ops));
            }
            // Two checkpoints later the base is deleted: then the reading is old anyway.
            Err(e) if e.kind() == ErrorKind::Corrupt && state_moved(folder, &reading.state).await? => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

async fn state_moved(folder: &PartitionFolder, from: &State) -> Result<bool, StoreError> {
    let cas = Cas::<State>::new(folder.bucket().clone(), folder.state_path());
    Ok(cas.load().await?.is_none_or(|now| now.value.base != from.base))
}

/// What `Sabotage::NoRecheck` reads: up to the first missing slot, and that is believed.
async fn read_once(folder: &PartitionFolder) -> Result<Option<Vec<Op>>, StoreError> {
    let cas = Cas::<State>::new(folder.bucket().clone(), folder.state_path());
    let Some(state) = cas.load().await? else {
        return Ok(None);
    };
    let Ok(mut ops) = base_of(folder, &state.value).await else {
        return Ok(None);
    };
    let mut highest = Epoch(0);
    let mut slot = state.value.applied.next();
    while let Ok(Some(found)) = Tail::read_from(folder, slot).until(slot).next().await {
        if found.trailer.epoch >= highest {
            highest = found.trailer.epoch;
            let object = folder.bucket().get_uncached(&folder.slot_path(slot)).await?;
            if let Some((bytes, _)) = object {
                ops.extend(base::decode(&bytes[..found.trailer.body_len as usize]));
            }
        }
        slot = slot.next();
    }
    Ok(Some(ops))
}
