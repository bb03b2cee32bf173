use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const PLACE: Place<'_> = Place {
    purpose: Purpose::Object,
    uid: "01arz3ndektsv4rrffq69g5fav",
    path: "c/01ARZ3NDEKTSV4RRFFQ69G5FAV/p0/wal/1.arrow",
};

fn body(length: u64) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn sealed_with(data: &DataKey, salt: Salt, body: &[u8]) -> Vec<u8> {
    seal(data, salt, &PLACE, &PutPayload::from(body.to_vec()))
}

fn open_at(data: &DataKey, place: &Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, NotSealed> {
    let footer = Footer::at_end_of(sealed)?;
    let opener = Opener::new(data, &footer, place, sealed.len() as u64)?;
    let whole = 0..opener.length;
    let chunks = opener.around(&whole);
    opener.open(&whole, &sealed[chunks.start as usize..chunks.end as usize])
}

fn open(data: &DataKey, sealed: &[u8]) -> Result<Vec<u8>, NotSealed> {
    open_at(data, &PLACE, sealed)
}

/// Every size at which something changes.
fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..200u64,
        (CHUNK - 20)..(CHUNK + 20),
        (2 * CHUNK - 20)..(2 * CHUNK + 20),
        0..5 * CHUNK,
    ]
}

proptest! {
    #[test]
    fn every_body_in_any_pieces_comes_back_and_has_the_size_foretold(
        length in sizes(),
        cuts in prop::collection::vec(1..40_000usize, 0..8),
    ) {
        let (data, body) = (DataKey::mint(), body(length));
        let mut sealer = Sealer::new(&data, DataKey::random_salt(), &PLACE);
        let (mut rest, mut sealed) = (body.as_slice(), Vec::new());
        for cut in cuts {
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            sealer.update(piece);
            sealed.extend(sealer.take());
            rest = later;
        }
        sealer.update(rest);
        sealed.extend(sealer.finish());
        prop_assert_eq!(sealed.len() as u64, sealed_size(length));
        prop_assert_eq!(body_size(sealed.len() as u64), Some(length));
        prop_assert_eq!(open(&data, &sealed), Ok(body));
    }

    #[test]
    fn any_range_opens_from_the_chunks_around_it_alone(
        length in 1..5 * CHUNK,
        start in any::<prop::sample::Index>(),
        end in any::<prop::sample::Index>(),
    ) {
        let (data, body) = (DataKey::mint(), body(length));
        let sealed = sealed_with(&data, DataKey::random_salt(), &body);
        let footer = Footer::at_end_of(&sealed).expect("a footer");
        let opener = Opener::new(&data, &footer, &PLACE, sealed.len() as u64).expect("a good footer");
        let start = start.index(length as usize) as u64;
        let range = start..start + 1 + end.index((length - start) as usize) as u64;
        let around = opener.around(&range);
        let most = (range.end - range.start).div_ceil(CHUNK) + 1;
        prop_assert!(around.end - around.start <= most * SEALED_CHUNK);
        let opened = opener.open(&range, &sealed[around.start as usize..around.end as usize]);
        prop_assert_eq!(opened, Ok(body[range.start as usize..range.end as usize].to_vec()));
    }

    #[test]
    fn no_two_sizes_of_bodies_seal_to_one_and_other_sizes_are_refused(sealed in 0..3 * SEALED_CHUNK + 200) {
        match body_size(sealed) {
            Some(length) => prop_assert_eq!(sealed_size(length), sealed),
            None => {
                let near = sealed.saturating_sub(FOOTER + 64);
                prop_assert!((near..=sealed).all(|length| sealed_size(length) != sealed));
            }
        }
    }

    #[test]
    fn foreign_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&DataKey::mint(), &bytes).is_err());
    }

    #[test]
    fn a_flipped_bit_anywhere_is_seen(length in sizes(), bit in any::<prop::sample::Index>()) {
        let data = DataKey::mint();
        let mut sealed = sealed_with(&data, DataKey::random_salt(), &body(length));
        let bit = bit.index(sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(open(&data, &sealed), Err(NotSealed));
    }

    #[test]
    fn a_cut_anywhere_is_seen(length in sizes(), cut in any::<prop::sample::Index>()) {
        let data = DataKey::mint();
        let sealed = sealed_with(&data, DataKey::random_salt(), &body(length));
        prop_assert_eq!(open(&data, &sealed[..cut.index(sealed.len())]), Err(NotSealed));
    }
}

#[test]
fn every_byte_of_a_small_object_counts() {
    let data = DataKey::mint();
    let sealed = sealed_with(&data, DataKey::random_salt(), b"attack at dawn");
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&data, &flipped), Err(NotSealed), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert_eq!(open(&data, &sealed[..length]), Err(NotSealed), "cut to {length}");
    }
}

#[test]
fn an_object_opens_only_at_its_place() {
    let data = DataKey::mint();
    let sealed = sealed_with(&data, DataKey::random_salt(), b"body");
    assert_eq!(open(&data, &sealed).as_deref(), Ok(b"body".as_slice()));
    for elsewhere in [
        Place {
            path: "c/01ARZ3NDEKTSV4RRFFQ69G5FAV/p0/wal/2.arrow",
            ..PLACE
        },
        Place {
            uid: "01arz3ndektsv4rrffq69g5faw",
            ..PLACE
        },
        Place {
            purpose: Purpose::CacheBlock,
            ..PLACE
        },
    ] {
        assert_eq!(
            open_at(&data, &elsewhere, &sealed),
            Err(NotSealed),
            "{elsewhere:?}"
        );
    }
    let other = DataKey::new(data.id, Zeroizing::new([9; 32]));
    assert_eq!(open(&other, &sealed), Err(NotSealed), "another key of that name");
}

#[test]
fn chunks_that_are_swapped_dropped_doubled_or_of_another_version_do_not_open() {
    let data = DataKey::mint();
    let body = vec![7; 3 * CHUNK as usize];
    let one = sealed_with(&data, DataKey::random_salt(), &body);
    let two = sealed_with(&data, DataKey::random_salt(), &body);
    let chunk = |from: &[u8], number: usize| {
        let at = number * SEALED_CHUNK as usize;
        from[at..at + SEALED_CHUNK as usize].to_vec()
    };
    let footer = |from: &[u8]| from[3 * SEALED_CHUNK as usize..].to_vec();
    let [a, b, c] = [0, 1, 2].map(|number| chunk(&one, number));
    let end = footer(&one);
    assert_eq!(open(&data, &[&*a, &*b, &*c, &*end].concat()), Ok(body));
    for (what, forged) in [
        ("swapped", [&*b, &*a, &*c, &*end].concat()),
        ("dropped", [&*a, &*b, &*end].concat()),
        ("doubled", [&*a, &*b, &*b, &*end].concat()),
        ("added", [&*a, &*b, &*c, &*c, &*end].concat()),
        ("of another version", [&*a, &*chunk(&two, 1), &*c, &*end].concat()),
        ("under another footer", [&*a, &*b, &*c, &*footer(&two)].concat()),
    ] {
        assert_eq!(open(&data, &forged), Err(NotSealed), "{what}");
    }
}

#[test]
fn a_repeated_write_is_the_same_bytes_and_another_body_shares_nothing_with_it() {
    let data = DataKey::mint();
    let seal_as = |put_id: &str, pieces: &[&'static str]| {
        let payload: PutPayload = pieces
            .iter()
            .map(|piece| Bytes::from_static(piece.as_bytes()))
            .collect();
        seal(&data, data.salt_of(put_id, &PLACE, &payload), &PLACE, &payload)
    };
    let first = seal_as("A", &["same ", "body"]);
    assert_eq!(seal_as("A", &["sa", "me body"]), first);
    let others = [seal_as("B", &["same body"]), seal_as("A", &["same bodY"])];
    for other in others {
        // The key stream of a shared key would show in what the bodies share.
        assert_ne!(other[..8], first[..8]);
        assert_ne!(
            Footer::at_end_of(&other).expect("a footer").salt,
            Footer::at_end_of(&first).expect("a footer").salt
        );
    }
}

/// The format itself: what was sealed by any version of this code must open for ever.
#[test]
fn the_first_format_still_opens() {
    let data = DataKey::new(KeyId([1; 16]), Zeroizing::new([2; 32]));
    let sealed = sealed_with(&data, [3; 32], b"as it was in the beginning");
    let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    let as_first_written = [
        "cfc9bdf602e46482f027b956df134e69485ae6c79ae60ff38be7", // body
        "ce8387989ea9379a7828d57b1628f2a0",                     // its tag
        "7268637279707431",                                     // magic
        "01010101010101010101010101010101",                     // key
        "0303030303030303030303030303030303030303030303030303030303030303", // salt
        "000000000000001a",                                     // length
        "0b622b46009cd66038941b7ac3ff250e",                     // tag
    ]
    .concat();
    assert_eq!(hex, as_first_written);
    assert_eq!(
        open(&data, &sealed).as_deref(),
        Ok(b"as it was in the beginning".as_slice())
    );
}
