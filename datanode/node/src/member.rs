//! This node as a member of a cluster: what it leads, as the election sees it, and the
//! wires to its peers.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use rhumb_cluster::{Cluster, Led, Peers, Report, slot_of};
use rhumb_core::CollectionName;
use rhumb_engine::Database;
use rhumb_store::Bucket;

use crate::readiness::Readiness;

/// Cheap to clone.
#[derive(Clone)]
pub struct Member {
    pub cluster: Cluster,
    pub peers: Peers,
    /// The name in the peers' certificates, and in the requests to them.
    pub peer_name: Arc<str>,
}

impl Member {
    pub fn slot_of(&self, collection: &str) -> u32 {
        slot_of(collection, self.cluster.board.slots())
    }
}

/// The collections of a slot are those whose names fall into it.
pub struct Collections {
    pub db: Database,
    pub bucket: Bucket,
    pub readiness: Arc<Readiness>,
    pub slots: u32,
}

impl Collections {
    fn of(&self, slot: u32) -> impl Fn(&CollectionName) -> bool {
        let slots = self.slots;
        move |name| slot_of(name.as_str(), slots) == slot
    }
}

impl Led for Collections {
    fn flush(&self, slot: u32) -> BoxFuture<'_, ()> {
        self.db.flush_where(self.of(slot)).boxed()
    }

    fn settle(&self, slot: u32) -> BoxFuture<'_, ()> {
        self.db.close_where(self.of(slot)).boxed()
    }

    fn report(&self, slot: u32) -> Report {
        let stats = self.db.open_stats(self.of(slot));
        Report {
            epoch: stats.epoch,
            position: stats.position,
            partitions: stats.partitions,
            rows: stats.rows,
            bytes: stats.bytes,
        }
    }

    fn store(&self) -> BoxFuture<'_, Result<(), String>> {
        self.readiness.of(&self.bucket).boxed()
    }
}
