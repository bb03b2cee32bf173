//! One fetch per block: who comes first leads, the others wait for what it brings.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct Flights<K, V>(Mutex<BTreeMap<K, watch::Receiver<Option<V>>>>);

pub(super) enum Seat<'a, K: Ord + Copy, V> {
    Lead(Lead<'a, K, V>),
    Wait(Wait<V>),
}

/// Dropped without `land`, it sets those who wait free to lead themselves: a caller that
/// goes away takes nobody with it.
pub(super) struct Lead<'a, K: Ord + Copy, V> {
    flights: &'a Flights<K, V>,
    key: K,
    tell: watch::Sender<Option<V>>,
}

pub(super) struct Wait<V>(watch::Receiver<Option<V>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Copy, V> Flights<K, V> {
    pub(super) fn board(&self, key: K) -> Seat<'_, K, V> {
        let mut flights = self.0.lock();
        if let Some(tell) = flights.get(&key) {
            return Seat::Wait(Wait(tell.clone()));
        }
        let (tell, told) = watch::channel(None);
        flights.insert(key, told);
        Seat::Lead(Lead {
            flights: self,
            key,
            tell,
        })
    }
}

impl<K: Ord + Copy, V> Lead<'_, K, V> {
    pub(super) fn land(self, value: V) {
        self.tell.send_replace(Some(value));
    }
}

impl<K: Ord + Copy, V> Drop for Lead<'_, K, V> {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.key);
    }
}

impl<V: Clone> Wait<V> {
    /// `None` when the leader brought nothing.
    pub(super) async fn landed(mut self) -> Option<V> {
        self.0
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|value| value.clone())
    }
}
