//! Which pods lead which shards and keep them warm.  Pure.
//!
//! - **Sticky**: a shard stays where it is while its pod is usable; what must move goes to
//!   the highest rendezvous rank, so that equal inputs give equal answers everywhere.
//! - **Forced moves** (the pod is gone, going or not ready) happen at once, to a warm
//!   follower if there is one.
//! - **Voluntary moves** (balance) happen one at a time: the receiver joins as a follower,
//!   and goes first only when it is warm and no other hand-over is under way.
//! - A shard that nobody leads moves freely, unless a warm node waits to lead it.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_crds::Shard;
use sha2::{Digest, Sha256};

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    pub uid: String,
    /// Its containers are ready and it is not terminating.
    pub usable: bool,
    /// It runs what the Deployment now asks for; others will go soon and are given nothing.
    pub current: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    pub index: u32,
    /// Placement so far, the preferred leader first.
    pub nodes: Vec<String>,
    /// Who leads, if that pod still exists.
    pub leader: Option<String>,
    pub warm: BTreeSet<String>,
}

impl Slot {
    /// As its Shard says.
    pub fn of(index: u32, shard: Option<&Shard>, nodes: &[Node]) -> Self {
        let Some(shard) = shard else {
            return Self {
                index,
                ..Self::default()
            };
        };
        let status = shard.status.clone().unwrap_or_default();
        let leader = status.leader.as_ref().filter(|leader| {
            nodes
                .iter()
                .any(|node| node.name == leader.pod && node.uid == leader.pod_uid)
        });
        Self {
            index,
            nodes: shard.spec.nodes.clone(),
            leader: leader.map(|leader| leader.pod.clone()),
            warm: nodes
                .iter()
                .filter(|node| status.is_warm(&node.name, &node.uid))
                .map(|node| node.name.clone())
                .collect(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// New `nodes` for every slot, in the order of the input.
    pub nodes: Vec<Vec<String>>,
    /// Pods that balance still wants to give a shard to.
    pub expecting: BTreeSet<String>,
}

pub fn place(nodes: &[Node], slots: &[Slot], followers: usize) -> Placement {
    let usable: Vec<&Node> = nodes.iter().filter(|node| node.usable).collect();
    if usable.is_empty() {
        // Nobody to move to: whoever comes back first finds its place unchanged.
        return Placement {
            nodes: slots.iter().map(|slot| slot.nodes.clone()).collect(),
            expecting: BTreeSet::new(),
        };
    }
    let mut board = Board::new(&usable, slots);
    board.settle_orphans();
    board.move_free_slots();
    let wish = board.next_wish();
    let failing_over = board.failing_over();
    if let Some(wish) = &wish
        && !board.handing_over()
        && !failing_over
        && slots[wish.slot].warm.contains(&wish.to)
    {
        board.leaders[wish.slot] = Some(wish.to.clone());
    }
    Placement {
        nodes: (0..slots.len())
            .map(|i| board.members(i, followers, wish.as_ref()))
            .collect(),
        // Balance waits for a failover; pods that could help must not wait for balance.
        expecting: wish
            .into_iter()
            .filter(|_| !failing_over)
            .map(|wish| wish.to)
            .collect(),
    }
}

/// The readiness gate of a pod: everything placed on it is warm there and nothing more is
/// on its way.  True with nothing placed on it, or bootstrap and rollout would wait for
/// each other.
pub fn gate(node: &Node, placement: &Placement, slots: &[Slot]) -> bool {
    let settled = |(slot, members): (&Slot, &Vec<String>)| {
        !members.contains(&node.name)
            || slot.leader.as_ref() == Some(&node.name)
            || slot.warm.contains(&node.name)
    };
    node.usable
        && !placement.expecting.contains(&node.name)
        && slots.iter().zip(&placement.nodes).all(settled)
}

struct Wish {
    slot: usize,
    to: String,
}

struct Board<'a> {
    usable: &'a [&'a Node],
    slots: &'a [Slot],
    /// Preferred leaders.
    leaders: Vec<Option<String>>,
}

impl<'a> Board<'a> {
    fn new(usable: &'a [&'a Node], slots: &'a [Slot]) -> Self {
        let is_usable = |name: &&String| usable.iter().any(|node| node.name == **name);
        let leaders = slots
            .iter()
            .map(|slot| slot.nodes.first().filter(is_usable).cloned())
            .collect();
        Self {
            usable,
            slots,
            leaders,
        }
    }

    fn settle_orphans(&mut self) {
        for i in 0..self.slots.len() {
            if self.leaders[i].is_some() {
                continue;
            }
            let slot = &self.slots[i];
            // A leader that took over from an unusable first node is not disturbed.
            let leading = slot.leader.iter().find(|name| self.is_usable(name));
            let warm = slot
                .nodes
                .iter()
                .find(|name| self.is_usable(name) && slot.warm.contains(*name));
            let chosen = leading.or(warm).cloned();
            self.leaders[i] = chosen.or_else(|| self.best_with_room(slot.index));
        }
    }

    /// Balances the slots that nobody leads and nobody is warm for: nothing is lost by it.
    fn move_free_slots(&mut self) {
        for _ in 0..self.slots.len() {
            let free = |slot: &Slot| slot.leader.is_none() && slot.warm.is_empty();
            let Some(wish) = self.wish(free) else { return };
            self.leaders[wish.slot] = Some(wish.to);
        }
    }

    fn next_wish(&self) -> Option<Wish> {
        self.wish(|slot| slot.leader.is_some())
    }

    /// The move that helps balance most, of the slots that `may` move.
    fn wish(&self, may: impl Fn(&Slot) -> bool) -> Option<Wish> {
        let loads = self.loads();
        let receivers = self.receivers();
        let to = receivers
            .iter()
            .min_by_key(|node| (loads[node.name.as_str()], &node.name))?;
        let least = loads[to.name.as_str()];
        let candidates = (0..self.slots.len()).filter(|&i| {
            let from = self.leaders[i].as_deref().unwrap_or_default();
            may(&self.slots[i]) && loads.get(from).is_some_and(|load| *load > least + 1)
        });
        // The fullest donor first; of its slots one that is warm over there, then one that
        // is on its way already: a move once begun is the move that is finished.
        let slot = candidates.max_by_key(|&i| {
            let slot = &self.slots[i];
            let from = self.leaders[i].as_deref().unwrap_or_default();
            (
                loads[from],
                slot.warm.contains(&to.name),
                slot.nodes.contains(&to.name),
                rank(slot.index, to),
            )
        })?;
        Some(Wish {
            slot,
            to: to.name.clone(),
        })
    }

    /// A preferred leader that is usable but does not lead yet, while somebody else does.
    fn handing_over(&self) -> bool {
        self.slots
            .iter()
            .zip(&self.leaders)
            .any(|(slot, preferred)| slot.leader.is_some() && slot.leader != *preferred)
    }

    /// A shard that nobody leads while a warm node is about to.
    fn failing_over(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.leader.is_none() && !slot.warm.is_empty())
    }

    fn members(&self, i: usize, followers: usize, wish: Option<&Wish>) -> Vec<String> {
        let slot = &self.slots[i];
        let mut members: Vec<String> = self.leaders[i].iter().cloned().collect();
        let add = |members: &mut Vec<String>, name: &str| {
            if !members.iter().any(|member| member == name) {
                members.push(name.to_owned());
            }
        };
        let mut must: Vec<&str> = Vec::new();
        // It leads until it has handed over.
        must.extend(slot.leader.as_deref().filter(|leader| self.is_usable(leader)));
        must.extend(wish.filter(|wish| wish.slot == i).map(|wish| wish.to.as_str()));
        for name in &must {
            add(&mut members, name);
        }
        let kept = slot
            .nodes
            .iter()
            .map(String::as_str)
            .filter(|name| self.is_usable(name));
        let ranked = self.ranked(slot.index);
        for name in kept.chain(ranked) {
            if members.len() > followers {
                break;
            }
            add(&mut members, name);
        }
        // Order as it was, so that a list changes only where it must.
        let place = |name: &String| {
            slot.nodes
                .iter()
                .position(|old| old == name)
                .unwrap_or(usize::MAX)
        };
        if let Some(rest) = members.get_mut(1..) {
            rest.sort_by_key(place);
        }
        members
    }

    fn is_usable(&self, name: &str) -> bool {
        self.usable.iter().any(|node| node.name == name)
    }

    /// Outdated pods are given something only when there is nobody else.
    fn receivers(&self) -> Vec<&'a Node> {
        let current: Vec<&Node> = self.usable.iter().copied().filter(|node| node.current).collect();
        if current.is_empty() {
            self.usable.to_vec()
        } else {
            current
        }
    }

    fn loads(&self) -> BTreeMap<&str, usize> {
        let mut loads: BTreeMap<&str, usize> = self.usable.iter().map(|n| (n.name.as_str(), 0)).collect();
        for name in self.leaders.iter().flatten() {
            if let Some(load) = loads.get_mut(name.as_str()) {
                *load += 1;
            }
        }
        loads
    }

    fn best_with_room(&self, index: u32) -> Option<String> {
        let loads = self.loads();
        let receivers = self.receivers();
        let room = self.slots.len().div_ceil(receivers.len().max(1));
        let open = receivers.iter().filter(|node| loads[node.name.as_str()] < room);
        let best = open.max_by_key(|node| rank(index, node));
        best.or(receivers.first()).map(|node| node.name.clone())
    }

    fn ranked(&self, index: u32) -> Vec<&'a str> {
        let mut ranked: Vec<&Node> = self.usable.to_vec();
        ranked.sort_by_key(|node| (!node.current, std::cmp::Reverse(rank(index, node))));
        ranked.into_iter().map(|node| node.name.as_str()).collect()
    }
}

/// Rendezvous weight.  The uid, not the name: a new pod of an old name is another pod.
fn rank(index: u32, node: &Node) -> u64 {
    let mut hash = Sha256::new();
    hash.update(index.to_be_bytes());
    hash.update(node.uid.as_bytes());
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
