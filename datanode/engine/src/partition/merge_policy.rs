//! Which fragments to merge: pure, size-tiered.
//!
//! Fragments fall into tiers of eightfold size; a full tier is merged into one fragment of
//! the next.  So a row is rewritten once per tier it climbs, and the number of fragments
//! stays below eight per tier.  A fragment that is mostly dead is rewritten alone.

/// Fragments of one tier that are merged together.
const FANOUT: usize = 8;
/// A merged fragment holds at most this many rows: merging is streamed, but its codes and
/// keys are rebuilt in memory.
const MAX_ROWS: u64 = 1 << 20;
const SMALLEST_TIER: u64 = 1_024;
/// Dead share above which a fragment is rewritten for its own sake.
const MAX_DEAD: f64 = 0.3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub id: u64,
    pub live: u64,
    pub dead: u64,
}

/// The fragments to merge next, in table order; `None` when all is well.
pub fn choose(fragments: &[Size]) -> Option<Vec<u64>> {
    if let Some(hollow) = fragments.iter().find(|f| is_hollow(f)) {
        return Some(vec![hollow.id]);
    }
    let highest = fragments.iter().map(|f| tier(f.live)).max()?;
    (0..=highest).find_map(|wanted| {
        let mut rows = 0;
        let members: Vec<u64> = fragments
            .iter()
            .filter(|f| tier(f.live) == wanted)
            .take_while(|f| {
                rows += f.live;
                rows <= MAX_ROWS
            })
            .take(FANOUT)
            .map(|f| f.id)
            .collect();
        (members.len() == FANOUT).then_some(members)
    })
}

/// As `choose`, for somebody who would rather wait now than search several fragments later:
/// as few fragments as can be, none above `MAX_ROWS`, and no dead rows to speak of.
pub fn choose_any(fragments: &[Size]) -> Option<Vec<u64>> {
    let mut members: Vec<u64> = Vec::new();
    let mut rows = 0;
    for fragment in fragments {
        if rows + fragment.live > MAX_ROWS {
            if members.len() > 1 {
                break;
            }
            (members, rows) = (Vec::new(), 0);
        }
        if fragment.live <= MAX_ROWS {
            members.push(fragment.id);
            rows += fragment.live;
        }
    }
    if members.len() > 1 {
        return Some(members);
    }
    let hollow = fragments.iter().find(|f| is_hollow(f));
    hollow.map(|f| vec![f.id])
}

/// Those with rows that nobody may read any more, a file's worth of them: for an erasure.
pub fn choose_dead(fragments: &[Size]) -> Option<Vec<u64>> {
    let mut rows = 0;
    let members: Vec<u64> = fragments
        .iter()
        .filter(|f| f.dead > 0)
        .take_while(|f| {
            let is_first = rows == 0;
            rows += f.live;
            is_first || rows <= MAX_ROWS
        })
        .map(|f| f.id)
        .collect();
    (!members.is_empty()).then_some(members)
}

fn is_hollow(f: &Size) -> bool {
    f.dead > SMALLEST_TIER && f.dead as f64 > MAX_DEAD * (f.live + f.dead) as f64
}

fn tier(live: u64) -> u32 {
    (live / SMALLEST_TIER + 1).ilog(FANOUT as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(id: u64, live: u64) -> Size {
        Size { id, live, dead: 0 }
    }

    #[test]
    fn a_full_tier_is_merged_and_a_part_of_one_is_not() {
        let seven: Vec<Size> = (0..7).map(|id| live(id, 100)).collect();
        assert_eq!(choose(&seven), None);
        let eight: Vec<Size> = (0..8).map(|id| live(id, 100)).collect();
        assert_eq!(choose(&eight), Some((0..8).collect()));
    }

    #[test]
    fn an_optimized_table_has_as_few_fragments_as_can_be() {
        let few = [live(1, 100), live(2, 50_000), live(3, 7)];
        assert_eq!(choose_any(&few), Some(vec![1, 2, 3]));
        assert_eq!(choose_any(&[live(1, 50_000)]), None);
        let large = [live(1, MAX_ROWS - 1), live(2, 10), live(3, 10)];
        assert_eq!(choose_any(&large), Some(vec![2, 3]));
        let full = [live(1, MAX_ROWS - 1), live(2, MAX_ROWS), live(3, 10)];
        assert_eq!(choose_any(&full), None);
        let hollow = Size {
            id: 1,
            live: 5_000,
            dead: 5_000,
        };
        assert_eq!(choose_any(&[hollow]), Some(vec![1]));
        assert_eq!(choose_any(&[]), None);
    }

    #[test]
    fn an_erasure_rewrites_every_fragment_with_a_dead_row_and_no_other() {
        let with_dead = |id, live, dead| Size { id, live, dead };
        let some = [
            live(1, 10),
            with_dead(2, 0, 3),
            live(3, 5),
            with_dead(4, MAX_ROWS + 5, 1),
        ];
        assert_eq!(choose_dead(&some), Some(vec![2, 4]));
        assert_eq!(choose_dead(&some[3..]), Some(vec![4]));
        let large = [with_dead(1, MAX_ROWS, 1), with_dead(2, 1, 1)];
        assert_eq!(choose_dead(&large), Some(vec![1]));
        assert_eq!(choose_dead(&[live(1, 10)]), None);
    }

    #[test]
    fn small_and_large_fragments_do_not_mix() {
        let mut mixed: Vec<Size> = (0..7).map(|id| live(id, 100)).collect();
        mixed.push(live(7, 50_000));
        assert_eq!(choose(&mixed), None);
    }

    #[test]
    fn a_hollow_fragment_goes_first() {
        let mut fragments: Vec<Size> = (0..8).map(|id| live(id, 100)).collect();
        fragments.push(Size {
            id: 9,
            live: 10_000,
            dead: 9_000,
        });
        assert_eq!(choose(&fragments), Some(vec![9]));
    }

    #[test]
    fn fragments_at_the_limit_are_left_alone() {
        let large: Vec<Size> = (0..16).map(|id| live(id, 300_000)).collect();
        assert_eq!(choose(&large), None);
    }

    #[test]
    fn a_long_life_of_equal_flushes_keeps_fragments_few() {
        let mut fragments: Vec<Size> = Vec::new();
        let mut most = 0;
        for id in 0..2_000 {
            fragments.push(live(id, 512));
            while let Some(chosen) = choose(&fragments) {
                let rows = fragments
                    .iter()
                    .filter(|f| chosen.contains(&f.id))
                    .map(|f| f.live)
                    .sum();
                fragments.retain(|f| !chosen.contains(&f.id));
                fragments.push(live(1_000_000 + id, rows));
            }
            most = most.max(fragments.len());
        }
        assert!(most <= 40, "{most} fragments at once");
    }
}
