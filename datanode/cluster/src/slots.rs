//! Which slot a collection belongs to.

/// By the collection's name, so that a node finds the leader without asking the catalog;
/// by rendezvous, so that another number of slots would move as few collections as can be.
pub fn slot_of(collection: &str, slots: u32) -> u32 {
    (0..slots)
        .max_by_key(|slot| score(collection, *slot))
        .unwrap_or_default()
}

/// FNV-1a with a last mix: stable for ever, which no standard hasher promises.
fn score(collection: &str, slot: u32) -> u64 {
    let bytes = collection.bytes().chain(slot.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // Without it the slot, being last, moves only the low bits.
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_names_never_change() {
        let slots: Vec<u32> = ["a", "words", "notes", "team-a-docs"]
            .iter()
            .map(|n| slot_of(n, 8))
            .collect();
        assert_eq!(slots, [5, 2, 6, 0]);
    }

    #[test]
    fn names_spread_evenly_and_few_move_when_a_slot_is_added() {
        let names: Vec<String> = (0..8_000).map(|n| format!("collection-{n}")).collect();
        let mut counts = [0_u32; 8];
        names
            .iter()
            .for_each(|name| counts[slot_of(name, 8) as usize] += 1);
        assert!(
            counts.iter().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
        let moved = names
            .iter()
            .filter(|name| slot_of(name, 8) != slot_of(name, 9))
            .count();
        assert!((700..1_100).contains(&moved), "{moved}");
    }
}
