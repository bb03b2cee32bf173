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
use rhumb_seams::Rand;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// A connection that died in silence is noticed this late, and a little more.  Elections
/// go on meanwhile; a planned hand-over waits for it.
const WATCH_SECONDS: u32 = 20;
/// Between two tries, at least, and at most twice as long.
const PAUSE: Duration = Duration::from_millis(500);

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

/// The default ones grow to a minute, and what a leader is asked would wait for that.
struct Pauses(Rand);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(PAUSE.mul_f64(1.0 + self.0.unit()))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {}
}

/// Keeps `slots` at what the watch says, for ever.
pub async fn follow<K>(api: Api<K>, database: String, slots: Arc<Slots<K>>, rand: Rand)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let config = watcher::Config::default()
        .labels(&format!("{}={database}", names::DATABASE))
        .timeout(WATCH_SECONDS);
    let mut events = watch_objects(api, config).backoff(Pauses(rand)).boxed();
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
