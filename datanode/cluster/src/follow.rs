//! The Leases and Shards of one database, followed by watches.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::runtime::utils::Backoff;
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
pub struct Slots<K> {
    seen: Vec<watch::Sender<Seen<K>>>,
    /// False while the watch is interrupted: silence then says nothing.
    live: watch::Sender<bool>,
}

impl<K> Slots<K> {
    pub fn new(slots: u32) -> Self {
        Self {
            seen: (0..slots).map(|_| watch::Sender::new(Seen::Unknown)).collect(),
            live: watch::Sender::new(false),
        }
    }

    pub fn subscribe(&self, slot: u32) -> watch::Receiver<Seen<K>> {
        self.seen[slot as usize].subscribe()
    }

    pub fn live(&self) -> watch::Receiver<bool> {
        self.live.subscribe()
    }

    fn set(&self, slot: usize, seen: Seen<K>) {
        self.seen[slot].send_replace(seen);
    }

    fn set_live(&self, live: bool) {
        self.live
            .send_if_modified(|now| std::mem::replace(now, live) != live);
    }
}

/// Between two tries of a watch: a leader may have left meanwhile.
#[derive(Clone, Debug)]
struct Pauses(Duration);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST_PAUSE);
        Some(now)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

/// Keeps `slots` at what the watch says, for ever.
pub async fn follow<K>(api: Api<K>, database: String, slots: Arc<Slots<K>>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let config = watcher::Config::default().labels(&format!("{}={database}", names::DATABASE));
    let mut events = watch_objects(api, config).backoff(Pauses(FIRST_PAUSE)).boxed();
    let index = |object: &K| {
        let name = object.name_any();
        (0..slots.seen.len()).find(|slot| names::shard(&database, *slot as u32) == name)
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
                let missing = (0..slots.seen.len()).filter(|slot| !listed.contains(slot));
                missing.for_each(|slot| slots.set(slot, Seen::Missing));
                slots.set_live(true);
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
                let kind = std::any::type_name::<K>();
                tracing::warn!(%error, kind, "the watch was interrupted");
                slots.set_live(false);
            }
            Ok(None) => return,
        }
    }
}
