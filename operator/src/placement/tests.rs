use proptest::prelude::*;

use super::*;

/// Pods, slots and data nodes that follow the placement as the protocol says they do.
#[derive(Clone, Debug)]
struct World {
    nodes: Vec<Node>,
    slots: Vec<Slot>,
    followers: usize,
    /// (slot, from, to) of every change of leadership.
    moves: Vec<(u32, Option<String>, String)>,
}

impl World {
    fn new(pods: usize, shards: u32, followers: usize) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            slots: (0..shards)
                .map(|index| Slot {
                    index,
                    ..Slot::default()
                })
                .collect(),
            followers,
            moves: Vec::new(),
        };
        for pod in 0..pods {
            world.add(&format!("pod-{pod}"));
        }
        world
    }

    fn add(&mut self, name: &str) {
        self.nodes.push(Node {
            name: name.into(),
            uid: format!("uid-of-{name}"),
            usable: true,
            current: true,
        });
    }

    fn lose(&mut self, name: &str) {
        self.nodes.retain(|node| node.name != name);
        for slot in &mut self.slots {
            slot.leader.take_if(|leader| leader == name);
            slot.warm.remove(name);
        }
    }

    fn place(&mut self) -> Placement {
        let placement = place(&self.nodes, &self.slots, self.followers);
        for (slot, nodes) in self.slots.iter_mut().zip(&placement.nodes) {
            slot.nodes = nodes.clone();
        }
        placement
    }

    /// Followers become warm; a leader gives way to a warm first node; a shard without a
    /// leader is taken by the first of its nodes.
    fn follow(&mut self) -> usize {
        let alive: BTreeSet<String> = self.nodes.iter().map(|n| n.name.clone()).collect();
        let mut changes = 0;
        for slot in &mut self.slots {
            slot.warm = slot
                .nodes
                .iter()
                .filter(|n| alive.contains(*n))
                .cloned()
                .collect();
            let first = slot.nodes.iter().find(|name| alive.contains(*name)).cloned();
            if let Some(first) = first.filter(|first| slot.leader.as_ref() != Some(first)) {
                self.moves
                    .push((slot.index, slot.leader.replace(first.clone()), first));
                changes += 1;
            }
        }
        changes
    }

    fn run(&mut self) -> usize {
        let mut most = 0;
        for _ in 0..500 {
            let before = self.slots.clone();
            self.place();
            most = most.max(self.follow());
            if before == self.slots {
                return most;
            }
        }
        panic!("never settles: {self:#?}");
    }

    fn settled(pods: usize, shards: u32, followers: usize) -> Self {
        let mut world = Self::new(pods, shards, followers);
        world.run();
        world.moves.clear();
        world
    }

    fn loads(&self) -> Vec<usize> {
        let led = |name: &str| {
            self.slots
                .iter()
                .filter(|s| s.leader.as_deref() == Some(name))
                .count()
        };
        self.nodes.iter().map(|node| led(&node.name)).collect()
    }

    fn assert_balanced(&self) {
        let loads = self.loads();
        let (least, most) = (loads.iter().min(), loads.iter().max());
        assert!(
            most.zip(least).is_some_and(|(most, least)| most - least <= 1),
            "{loads:?}"
        );
    }
}

#[test]
fn the_first_placement_is_balanced_and_has_followers() {
    let mut world = World::new(3, 7, 1);
    let placement = world.place();
    for nodes in &placement.nodes {
        assert_eq!(nodes.len(), 2);
        assert_ne!(nodes[0], nodes[1]);
    }
    world.run();
    world.assert_balanced();
}

#[test]
fn a_new_pod_takes_its_share_one_shard_at_a_time_and_only_once_warm() {
    let mut world = World::settled(2, 8, 1);
    world.add("new");
    let first = world.place();
    assert_eq!(first.expecting, BTreeSet::from(["new".to_owned()]));
    let led_by_new = |world: &World| world.slots.iter().filter(|s| s.nodes[0] == "new").count();
    assert_eq!(led_by_new(&world), 0, "it is not warm for anything yet");
    // Without a report of warmth nothing moves, however often the operator looks.
    world.place();
    assert_eq!(led_by_new(&world), 0);
    assert_eq!(world.run(), 1, "never two leaderships at once");
    world.assert_balanced();
    assert_eq!(world.moves.len(), 2);
    assert!(world.moves.iter().all(|(_, _, to)| to == "new"));
}

#[test]
fn a_hand_over_that_is_under_way_holds_back_the_next() {
    let mut world = World::settled(2, 8, 1);
    world.add("new");
    world.place();
    for slot in &mut world.slots {
        slot.warm.insert("new".into());
    }
    world.place();
    world.place();
    let first_by_new = world.slots.iter().filter(|slot| slot.nodes[0] == "new").count();
    assert_eq!(first_by_new, 1);
}

#[test]
fn a_lost_pods_shards_go_to_their_warm_followers_at_once_and_no_other_moves() {
    let mut world = World::settled(3, 9, 1);
    let lost = "pod-1";
    let before = world.slots.clone();
    world.lose(lost);
    world.place();
    for (old, new) in before.iter().zip(&world.slots) {
        if old.nodes[0] == lost {
            assert_eq!(new.nodes[0], old.nodes[1], "the warm follower is next");
        } else {
            assert_eq!(new.nodes[0], old.nodes[0]);
        }
    }
}

#[test]
fn nothing_moves_while_no_pod_is_usable() {
    let mut world = World::settled(2, 4, 1);
    let before = world.slots.clone();
    for node in &mut world.nodes {
        node.usable = false;
    }
    world.place();
    assert_eq!(world.slots, before);
}

#[test]
fn without_followers_a_shard_still_warms_up_before_it_moves() {
    let mut world = World::settled(1, 2, 0);
    world.add("new");
    world.place();
    let moving: Vec<_> = world.slots.iter().filter(|slot| slot.nodes.len() == 2).collect();
    assert_eq!(moving.len(), 1);
    assert_eq!(moving[0].nodes, ["pod-0", "new"]);
    world.run();
    assert!(world.slots.iter().all(|slot| slot.nodes.len() == 1));
    world.assert_balanced();
}

#[test]
fn outdated_pods_are_given_nothing_while_there_are_current_ones() {
    let mut world = World::settled(2, 4, 1);
    world.nodes[0].current = false;
    world.nodes[1].current = false;
    world.add("new-0");
    world.run();
    world.lose("pod-0");
    world.add("new-1");
    world.moves.clear();
    world.run();
    let voluntary = world.moves.iter().filter(|(_, from, _)| from.is_some());
    assert!(voluntary.clone().all(|(_, _, to)| to.starts_with("new")));
    assert!(voluntary.count() > 0);
}

#[test]
fn a_gate_opens_with_nothing_to_do_or_with_everything_warm() {
    let mut world = World::settled(2, 4, 1);
    let placement = world.place();
    for node in &world.nodes {
        assert!(gate(node, &placement, &world.slots));
    }
    world.add("new");
    let placement = world.place();
    let new = world.nodes.last().expect("just added").clone();
    assert!(
        !gate(&new, &placement, &world.slots),
        "a shard is on its way to it"
    );
    world.run();
    let placement = world.place();
    assert!(gate(&new, &placement, &world.slots));
    let idle = World::settled(3, 1, 0);
    let placement = place(&idle.nodes, &idle.slots, 0);
    for node in &idle.nodes {
        assert!(
            gate(node, &placement, &idle.slots),
            "with one shard two pods have nothing to warm"
        );
    }
}

#[test]
fn a_pod_that_is_not_ready_has_no_open_gate() {
    let mut world = World::settled(1, 1, 0);
    let placement = world.place();
    world.nodes[0].usable = false;
    assert!(!gate(&world.nodes[0], &placement, &world.slots));
}

#[derive(Clone, Debug)]
enum Event {
    Add,
    Lose(usize),
    Unready(usize),
    Ready(usize),
    Outdate(usize),
    Reconcile,
    NodesAct,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Add),
        (0..8usize).prop_map(Event::Lose),
        (0..8usize).prop_map(Event::Unready),
        (0..8usize).prop_map(Event::Ready),
        (0..8usize).prop_map(Event::Outdate),
        Just(Event::Reconcile),
        Just(Event::NodesAct),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happened before: it settles, balanced over the pods that may take, with a
    /// usable leader for every shard, and then changes nothing any more.
    #[test]
    fn every_history_settles(
        events in proptest::collection::vec(event(), 0..30),
        shards in 1..17u32,
        followers in 0..3usize,
    ) {
        let mut world = World::new(2, shards, followers);
        for (n, event) in events.into_iter().enumerate() {
            let pick = |i: usize, len: usize| (len > 0).then(|| i % len);
            let len = world.nodes.len();
            match event {
                Event::Add => world.add(&format!("added-{n}")),
                Event::Lose(i) => if let Some(i) = pick(i, len) {
                    let name = world.nodes[i].name.clone();
                    world.lose(&name);
                },
                Event::Unready(i) => if let Some(i) = pick(i, len) { world.nodes[i].usable = false },
                Event::Ready(i) => if let Some(i) = pick(i, len) { world.nodes[i].usable = true },
                Event::Outdate(i) => if let Some(i) = pick(i, len) { world.nodes[i].current = false },
                Event::Reconcile => { world.place(); }
                Event::NodesAct => { world.follow(); }
            }
        }
        world.nodes.retain(|node| node.usable);
        world.add("last");
        let gone: BTreeSet<String> = world.slots.iter().flat_map(|s| s.leader.clone()).collect();
        for name in gone {
            if !world.nodes.iter().any(|node| node.name == name) {
                world.lose(&name);
            }
        }
        world.run();
        for slot in &world.slots {
            prop_assert_eq!(slot.leader.as_ref(), slot.nodes.first());
            let expected = world.nodes.len().min(followers + 1);
            prop_assert_eq!(slot.nodes.len(), expected);
        }
        let current: Vec<usize> = world.nodes.iter().zip(world.loads())
            .filter(|(node, _)| node.current).map(|(_, load)| load).collect();
        let (least, most) = (current.iter().min(), current.iter().max());
        prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{:?}", current);
        let placement = world.place();
        for node in &world.nodes {
            prop_assert!(gate(node, &placement, &world.slots));
        }
    }

    /// Losing one pod of a settled world moves the leaderships it had, and balance moves at
    /// most as many again.
    #[test]
    fn losing_a_pod_moves_little(pods in 2..7usize, shards in 1..33u32) {
        let mut world = World::settled(pods, shards, 1);
        let had = world.loads()[0];
        world.lose("pod-0");
        world.run();
        prop_assert!(world.moves.len() <= 2 * had, "{} moves for {had}", world.moves.len());
        world.assert_balanced();
    }

    /// The least number of moves that balance asks for, and not one more.
    #[test]
    fn adding_a_pod_moves_only_its_share(pods in 1..7usize, shards in 1..33u32) {
        let mut world = World::settled(pods, shards, 1);
        world.add("new");
        world.run();
        let share = (shards as usize) / (pods + 1);
        prop_assert!(world.moves.len() <= share + 1);
        prop_assert!(world.moves.iter().all(|(_, _, to)| to == "new"));
    }
}
