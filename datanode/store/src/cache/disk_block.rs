//! A block as it lies on disk:
//!
//! ```text
//! magic 8 | place 16 | object size 8 | modified ms 8 | etag length 2 | payload length 4
//! etag | payload | crc32 of all before 4
//! ```
//!
//! `place` is a hash of database, path, block number and block size: a file that was
//! renamed, or that belongs to another database, is as corrupt as a flipped one.

use bytes::{Buf, BufMut, Bytes};
use object_store::ObjectMeta;
use object_store::path::Path;
use xxhash_rust::xxh3::xxh3_128;

const MAGIC: &[u8; 8] = b"rhblock1";
const FIXED: usize = 8 + 16 + 8 + 8 + 2 + 4;
const CRC: usize = 4;

pub(super) struct Place<'a> {
    pub uid: &'a str,
    pub location: &'a Path,
    pub block: u64,
    pub block_bytes: u64,
}

pub(super) struct Block {
    pub meta: ObjectMeta,
    pub bytes: Bytes,
}

impl Place<'_> {
    fn hash(&self) -> u128 {
        let Self {
            uid,
            location,
            block,
            block_bytes,
        } = self;
        xxh3_128(format!("place\n{uid}\n{location}\n{block}\n{block_bytes}").as_bytes())
    }
}

pub(super) fn encode(meta: &ObjectMeta, payload: &[u8], place: &Place<'_>) -> Vec<u8> {
    let etag = meta.e_tag.as_deref().unwrap_or_default().as_bytes();
    let mut file = Vec::with_capacity(FIXED + etag.len() + payload.len() + CRC);
    file.put_slice(MAGIC);
    file.put_u128_le(place.hash());
    file.put_u64_le(meta.size);
    file.put_i64_le(meta.last_modified.timestamp_millis());
    file.put_u16_le(etag.len() as u16);
    file.put_u32_le(payload.len() as u32);
    file.put_slice(etag);
    file.put_slice(payload);
    file.put_u32_le(crc32fast::hash(&file));
    file
}

impl Block {
    /// `None` unless the file is exactly what `encode` made for this place.
    pub(super) fn decode(file: Bytes, place: &Place<'_>) -> Option<Self> {
        let body_end = file.len().checked_sub(CRC)?;
        let crc = u32::from_le_bytes(file.get(body_end..)?.try_into().ok()?);
        if body_end < FIXED || crc32fast::hash(&file[..body_end]) != crc {
            return None;
        }
        let mut head = &file[..FIXED];
        let magic = head.copy_to_bytes(MAGIC.len());
        let place_hash = head.get_u128_le();
        let size = head.get_u64_le();
        let modified_ms = head.get_i64_le();
        let etag_length = head.get_u16_le() as usize;
        let payload_length = head.get_u32_le() as usize;
        let expected = size
            .checked_sub(place.block.checked_mul(place.block_bytes)?)?
            .min(place.block_bytes);
        if magic != MAGIC.as_slice()
            || place_hash != place.hash()
            || payload_length as u64 != expected
            || FIXED + etag_length + payload_length != body_end
        {
            return None;
        }
        let etag = std::str::from_utf8(&file[FIXED..FIXED + etag_length]).ok()?;
        let meta = ObjectMeta {
            location: place.location.clone(),
            last_modified: chrono::DateTime::from_timestamp_millis(modified_ms)?,
            size,
            e_tag: (!etag.is_empty()).then(|| etag.to_owned()),
            version: None,
        };
        Some(Self {
            meta,
            bytes: file.slice(FIXED + etag_length..body_end),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> ObjectMeta {
        ObjectMeta {
            location: Path::from("c/1/table/data/x.lance"),
            last_modified: chrono::DateTime::from_timestamp_millis(1_700_000_000_123).expect("a date"),
            size: 250,
            e_tag: Some("\"abc\"".into()),
            version: None,
        }
    }

    fn place<'a>(uid: &'a str, location: &'a Path, block: u64) -> Place<'a> {
        Place {
            uid,
            location,
            block,
            block_bytes: 100,
        }
    }

    #[test]
    fn a_block_comes_back_with_its_object() {
        let meta = meta();
        let here = place("db", &meta.location, 2);
        let found = Block::decode(encode(&meta, &[7; 50], &here).into(), &here).expect("whole");
        assert_eq!(
            (found.meta, found.bytes.as_ref()),
            (meta.clone(), [7; 50].as_slice())
        );
    }

    #[test]
    fn any_flipped_bit_and_any_truncation_is_seen() {
        let meta = meta();
        let here = place("db", &meta.location, 2);
        let file = encode(&meta, &[7; 50], &here);
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::decode(flipped.into(), &here).is_none(), "bit {bit}");
        }
        for length in 0..file.len() {
            assert!(
                Block::decode(file[..length].to_vec().into(), &here).is_none(),
                "cut to {length}"
            );
        }
    }

    #[test]
    fn a_block_is_good_only_where_it_belongs() {
        let meta = meta();
        let file: Bytes = encode(&meta, &[7; 50], &place("db", &meta.location, 2)).into();
        let elsewhere = Path::from("c/2/table/data/x.lance");
        assert!(Block::decode(file.clone(), &place("other", &meta.location, 2)).is_none());
        assert!(Block::decode(file.clone(), &place("db", &elsewhere, 2)).is_none());
        assert!(Block::decode(file.clone(), &place("db", &meta.location, 1)).is_none());
        let other_size = Place {
            block_bytes: 200,
            ..place("db", &meta.location, 2)
        };
        assert!(Block::decode(file, &other_size).is_none());
    }

    #[test]
    fn a_payload_of_the_wrong_length_is_refused_even_with_a_good_checksum() {
        let meta = meta();
        let here = place("db", &meta.location, 2);
        assert!(Block::decode(encode(&meta, &[7; 49], &here).into(), &here).is_none());
        let beyond = place("db", &meta.location, 3);
        assert!(Block::decode(encode(&meta, &[], &beyond).into(), &beyond).is_none());
    }
}
