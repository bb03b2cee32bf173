//! What the operator asks of this pod for one slot, read from its Shard.

use rhumb_crds::Shard;

use crate::follow::Seen;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Place among the slot's nodes, or just behind them.
    pub rank: u32,
    pub is_listed: bool,
    /// The pod that should lead instead of this one, and can.
    pub successor: Option<String>,
    /// The uid that the bucket must have.
    pub database_uid: Option<String>,
}

impl Placement {
    pub fn read(seen: &Seen<Shard>, pod: &str) -> Self {
        let Seen::There(shard) = seen else {
            return Self::default();
        };
        let nodes = &shard.spec.nodes;
        let place = nodes.iter().position(|node| node == pod);
        let first = nodes.first().filter(|first| *first != pod);
        let is_warm = |first: &&String| {
            let entries = shard.status.iter().flat_map(|status| &status.nodes);
            entries
                .into_iter()
                .any(|entry| entry.pod == **first && entry.warm)
        };
        Self {
            rank: place.unwrap_or(nodes.len()) as u32,
            is_listed: place.is_some(),
            successor: first.filter(is_warm).cloned(),
            database_uid: shard.spec.database_uid.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rhumb_crds::shard::{ShardNode, ShardSpec, ShardStatus};

    use super::*;

    fn shard(nodes: &[&str], warm: &[&str]) -> Seen<Shard> {
        let spec = ShardSpec {
            database_ref: serde_json::from_value(serde_json::json!({ "name": "words" }))
                .expect("a reference"),
            index: 0,
            nodes: nodes.iter().map(|n| (*n).to_owned()).collect(),
            database_uid: None,
        };
        let mut shard = Shard::new("words-shard-0", spec);
        let entry = |pod: &&str| ShardNode {
            pod: (*pod).to_owned(),
            pod_uid: "1".into(),
            warm: true,
            lag_seconds: None,
        };
        shard.status = Some(ShardStatus {
            nodes: warm.iter().map(entry).collect(),
            ..ShardStatus::default()
        });
        Seen::There(Arc::new(shard))
    }

    #[test]
    fn the_first_pod_succeeds_once_it_is_warm() {
        let read = |warm: &[&str]| Placement::read(&shard(&["a", "b"], warm), "b");
        assert_eq!(read(&[]).successor, None);
        assert_eq!(read(&["b"]).successor, None);
        assert_eq!(read(&["a", "b"]).successor.as_deref(), Some("a"));
        assert_eq!(
            Placement::read(&shard(&["a", "b"], &["a", "b"]), "a").successor,
            None
        );
    }

    #[test]
    fn a_pod_that_is_not_named_comes_last() {
        let placement = Placement::read(&shard(&["a", "b"], &[]), "c");
        assert_eq!((placement.rank, placement.is_listed), (2, false));
        assert_eq!(Placement::read(&shard(&[], &[]), "c").rank, 0);
        assert_eq!(Placement::read(&Seen::Missing, "c"), Placement::default());
    }
}
