//! A Lease as an object, and as the rules see it.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use rhumb_crds::names;

use crate::rules::Record;

/// Where the holder answers its peers.
pub const ADDRESS: &str = "rhumb.dev/address";
/// Who blanked the record on leaving.
pub const RELEASED_BY: &str = "rhumb.dev/released-by";

/// Who should lead and is there to do it.
pub const ASKED_BY: &str = "rhumb.dev/asked-by";

pub fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default().max(0);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        released_by: annotation(lease, RELEASED_BY).map(str::to_owned),
        asked_by: annotation(lease, ASKED_BY).map(str::to_owned),
        duration: Duration::from_secs(seconds as u64),
    }
}

/// Which takeover the record goes back to.
pub fn acquired(lease: &Lease) -> Option<&MicroTime> {
    lease.spec.as_ref()?.acquire_time.as_ref()
}

pub fn address(lease: &Lease) -> Option<SocketAddr> {
    annotation(lease, ADDRESS)?.parse().ok()
}

/// Whether holders wrote nothing between the two: each renewal has a time of its own.
pub fn says_the_same(a: &Lease, b: &Lease) -> bool {
    let written = |lease: &Lease, name| annotation(lease, name).map(str::to_owned);
    let same = |name| written(a, name) == written(b, name);
    a.metadata.uid == b.metadata.uid && a.spec == b.spec && same(RELEASED_BY) && same(ADDRESS)
}

/// Resource versions of one object grow; one that is no number counts as new.
pub fn version(lease: &Lease) -> Option<u64> {
    lease.metadata.resource_version.as_deref()?.parse().ok()
}

fn annotation<'a>(lease: &'a Lease, name: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// What a Lease is made from when there is none.
pub fn blank(database: &str, slot: u32) -> Lease {
    let labels = [
        (names::DATABASE.to_owned(), database.to_owned()),
        (names::SHARD.to_owned(), slot.to_string()),
    ];
    Lease {
        metadata: ObjectMeta {
            name: Some(names::shard(database, slot)),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        spec: None,
    }
}

/// `lease` held by `holder` since `acquired`.  Its resource version stays: the write is a
/// compare-and-swap.
pub fn held(
    mut lease: Lease,
    (holder, address): (&str, SocketAddr),
    duration: Duration,
    acquired: &MicroTime,
    unix_ms: i64,
) -> Lease {
    let old = lease.spec.take().unwrap_or_default();
    let goes_on = old.holder_identity.as_deref() == Some(holder);
    let transitions = old.lease_transitions.unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(seconds(duration)),
        acquire_time: Some(acquired.clone()),
        renew_time: Some(moment(unix_ms)),
        lease_transitions: Some(transitions.saturating_add(i32::from(!goes_on))),
        ..LeaseSpec::default()
    });
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.remove(RELEASED_BY);
    if !goes_on {
        annotations.remove(ASKED_BY);
    }
    annotations.insert(ADDRESS.into(), address.to_string());
    lease
}

/// `lease` as it is, and `who` asks for it.
pub fn asked(mut lease: Lease, who: &str) -> Lease {
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert(ASKED_BY.into(), who.to_owned());
    lease
}

/// `lease` let go by its holder: the next one need not wait.
pub fn released(mut lease: Lease, holder: &str, unix_ms: i64) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = None;
    spec.renew_time = Some(moment(unix_ms));
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.remove(ADDRESS);
    annotations.insert(RELEASED_BY.into(), holder.to_owned());
    lease
}

pub fn moment(unix_ms: i64) -> MicroTime {
    MicroTime(Timestamp::from_millisecond(unix_ms).unwrap_or_default())
}

/// The record counts in whole seconds; it may only ever promise more.
fn seconds(duration: Duration) -> i32 {
    duration.as_millis().div_ceil(1_000) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_the_slot_is_no_word_of_its_holder() {
        let acquired = moment(0);
        let holder = ("a_1_x", "10.0.0.1:7481".parse().expect("an address"));
        let at = |ms| held(blank("words", 0), holder, Duration::from_secs(4), &acquired, ms);
        assert!(says_the_same(&at(0), &asked(at(0), "b_1_y")));
        assert!(!says_the_same(&at(0), &at(800)), "a renewal");
        assert!(!says_the_same(&at(0), &released(at(0), "a_1_x", 0)));
        let mut anew = at(0);
        anew.metadata.uid = Some("another".into());
        assert!(!says_the_same(&at(0), &anew));
    }
}
