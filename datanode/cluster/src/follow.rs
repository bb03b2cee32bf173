//! The Leases and Shards of one database, followed by watches.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Resource, ResourceExt};
use rhumb_crds::names;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// What is known of one object.
#[derive(Clone, Debug)]
pub enum Seen<K> {
    /// Nothing yet.
    Unknown,
    Missing,
    There(Arc<K>),
}

/// One per slot.
pub struct Slots<K>(Vec<watch::Sender<Seen<K>>>);

impl<K> Slots<K> {
    pub fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| watch::Sender::new(Seen::Unknown)).collect())
    }

    pub fn subscribe(&self, slot: u32) -> watch::Receiver<Seen<K>> {
        self.0[slot as usize].subscribe()
    }

    fn set(&self, slot: usize, seen: Seen<K>) {
        self.0[slot].send_replace(seen);
    }
}

/// Keeps `slots` at what the watch says, for ever.
pub async fn follow<K>(api: Api<K>, database: String, slots: Arc<Slots<K>>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let config = watcher::Config::default().labels(&format!("{}={database}", names::DATABASE));
    let mut events = watch_objects(api, config).default_backoff().boxed();
    let index = |object: &K| {
        let name = object.name_any();
        (0..slots.0.len()).find(|slot| names::shard(&database, *slot as u32) == name)
    };
    let mut listed = BTreeSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed.clear(),
            Ok(Some(Event::InitApply(object))) => {
                if let Some(slot) = index(&object) {
                    listed.insert(slot);
                    slots.set(slot, Seen::There(Arc::new(object)));
                }
            }
            Ok(Some(Event::InitDone)) => {
                let missing = (0..slots.0.len()).filter(|slot| !listed.contains(slot));
                missing.for_each(|slot| slots.set(slot, Seen::Missing));
            }
            Ok(Some(Event::Apply(object))) => {
                if let Some(slot) = index(&object) {
                    slots.set(slot, Seen::There(Arc::new(object)));
                }
            }
            Ok(Some(Event::Delete(object))) => {
                if let Some(slot) = index(&object) {
                    slots.set(slot, Seen::Missing);
                }
            }
            // The stream backs off and begins anew by itself.
            Err(error) => {
                tracing::warn!(%error, kind = std::any::type_name::<K>(), "the watch was interrupted")
            }
            Ok(None) => return,
        }
    }
}
