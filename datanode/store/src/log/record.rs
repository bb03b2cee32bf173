//! One log object: a body that the engine made, followed by a trailer of fixed size.
//!
//! The trailer stands last so that any Arrow reader can open the object: it stops at the
//! end-of-stream mark and never sees what follows.  Version and magic stand last in the
//! trailer, so a reader of an older format still recognises a newer one.
//!
//! Bytes from the bucket are foreign: `Trailer::decode` and `Record::decode` check every
//! field against the object's own length, its slot and its partition, and return `Corrupt`
//! for whatever does not fit.  They never panic and allocate nothing of foreign size.
//!
//! ```text
//! body …| partition 8 | epoch 8 | slot 8 | prev 16 | next_seq 8 | body_len 8 | body_crc 4 |
//!       | put-id 26 | kind 1 | zero 1 | sum 8 | version 4 | magic 4      little-endian, 104 bytes
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use object_store::path::Path;
use rhumb_core::{Epoch, Seq, Slot};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::state::Link;
use crate::{PutId, Result, StoreError};

pub const TRAILER_LEN: usize = 104;
const VERSION: u32 = 1;
const MAGIC: &[u8; 4] = b"RHLG";
/// Start of `sum`, and of what follows it.
const SUM_AT: usize = 88;
const VERSION_AT: usize = 96;
/// Letters of a put-id.
const PUT_ID_LEN: usize = 26;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One group commit of whole requests.
    Data,
    /// Written by a takeover: every lower epoch collides here.
    Fence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Hash of the partition's path: an object that strayed here is told apart.
    pub partition: u64,
    pub epoch: Epoch,
    pub slot: Slot,
    /// The record before, as its writer saw it.
    pub prev: Link,
    /// The first version not handed out when this was written.
    pub next_seq: Seq,
    pub body_len: u64,
    pub body_crc: u32,
    /// Who made this very PUT; equal bytes prove nothing (P1).
    pub put_id: PutId,
    pub kind: Kind,
}

impl Trailer {
    /// Hash over the whole trailer, and through the checksum over the body too.
    pub fn link(&self) -> Link {
        Link(xxh3_128(&self.encode()))
    }

    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut out = BytesMut::with_capacity(TRAILER_LEN);
        out.put_u64_le(self.partition);
        out.put_u64_le(self.epoch.0);
        out.put_u64_le(self.slot.0);
        out.put_u128_le(self.prev.0);
        out.put_u64_le(self.next_seq.0);
        out.put_u64_le(self.body_len);
        out.put_u32_le(self.body_crc);
        out.put_slice(self.put_id.as_str().as_bytes());
        out.put_u8(match self.kind {
            Kind::Data => 1,
            Kind::Fence => 2,
        });
        out.put_u8(0);
        out.put_u64_le(0);
        out.put_u32_le(VERSION);
        out.put_slice(MAGIC);
        let mut trailer = [0; TRAILER_LEN];
        trailer.copy_from_slice(&out);
        let sum = sum_of(&trailer);
        trailer[SUM_AT..VERSION_AT].copy_from_slice(&sum.to_le_bytes());
        trailer
    }

    /// Reads the trailer off the end of `object` (or of its last bytes).
    pub fn decode(path: &Path, object: &[u8]) -> Result<Self> {
        let corrupt = |reason: &str| StoreError::Corrupt {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        let Some(trailer) = object.last_chunk::<TRAILER_LEN>() else {
            return Err(corrupt("shorter than a trailer"));
        };
        let mut fields = Fields(trailer);
        let partition = fields.u64();
        let epoch = Epoch(fields.u64());
        let slot = Slot(fields.u64());
        let prev = Link(fields.u128());
        let next_seq = Seq(fields.u64());
        let body_len = fields.u64();
        let body_crc = fields.u32();
        let put_id = fields.take::<PUT_ID_LEN>();
        let kind = fields.take::<2>();
        let sum = fields.u64();
        let version = fields.u32();
        if fields.0 != MAGIC {
            return Err(corrupt("no trailer at the end"));
        }
        if version > VERSION {
            return Err(StoreError::NewerFormat {
                found: version,
                known: VERSION,
            });
        }
        if sum != sum_of(trailer) || version == 0 {
            return Err(corrupt("the trailer's checksum does not fit"));
        }
        let kind = match kind {
            [1, 0] => Kind::Data,
            [2, 0] => Kind::Fence,
            _ => return Err(corrupt("unknown kind of record")),
        };
        if (kind == Kind::Fence) != (body_len == 0) {
            return Err(corrupt("a fence has no body, and nothing else has none"));
        }
        let put_id = std::str::from_utf8(&put_id).ok().and_then(PutId::parse);
        let put_id = put_id.ok_or_else(|| corrupt("the put-id is not one"))?;
        Ok(Self {
            partition,
            epoch,
            slot,
            prev,
            next_seq,
            body_len,
            body_crc,
            put_id,
            kind,
        })
    }

    /// Checks that this trailer belongs where it was found, in an object of `size` bytes.
    pub fn check_place(&self, path: &Path, partition: u64, slot: Slot, size: u64) -> Result<()> {
        let reason = if self.partition != partition {
            "it belongs to another partition".to_owned()
        } else if self.slot != slot {
            format!("it belongs to slot {}", self.slot)
        } else if self.body_len.checked_add(TRAILER_LEN as u64) != Some(size) {
            format!(
                "{size} bytes, but the trailer tells of a body of {}",
                self.body_len
            )
        } else {
            return Ok(());
        };
        Err(StoreError::Corrupt {
            path: path.clone(),
            reason,
        })
    }

    pub fn check_body(&self, path: &Path, body: &[u8]) -> Result<()> {
        if body.len() as u64 == self.body_len && crc32fast::hash(body) == self.body_crc {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            path: path.clone(),
            reason: "the body's checksum does not fit".into(),
        })
    }
}

fn sum_of(trailer: &[u8; TRAILER_LEN]) -> u64 {
    let mut covered = [0; TRAILER_LEN - 8];
    covered[..SUM_AT].copy_from_slice(&trailer[..SUM_AT]);
    covered[SUM_AT..].copy_from_slice(&trailer[VERSION_AT..]);
    xxh3_64(&covered)
}

/// Reads numbers off a trailer; the fixed length of what it starts from is the proof that
/// each read is inside.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .expect("a trailer holds all of its fields");
        self.0 = rest;
        *head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.take())
    }
}

/// A whole log object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub trailer: Trailer,
    pub body: Bytes,
}

impl Record {
    /// The object's bytes: the body, then its trailer.
    pub fn encode(&self) -> Bytes {
        let mut object = BytesMut::with_capacity(self.body.len() + TRAILER_LEN);
        object.put_slice(&self.body);
        object.put_slice(&self.trailer.encode());
        object.freeze()
    }

    /// Decodes an object found in `slot` of `partition`, without copying the body.
    pub fn decode(path: &Path, object: &Bytes, partition: u64, slot: Slot) -> Result<Self> {
        let trailer = Trailer::decode(path, object)?;
        trailer.check_place(path, partition, slot, object.len() as u64)?;
        let body = object.slice(..object.len() - TRAILER_LEN);
        trailer.check_body(path, &body)?;
        Ok(Self { trailer, body })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    const PARTITION: u64 = 0xfeed;
    const SLOT: Slot = Slot(7);

    fn record(body: &'static [u8]) -> Record {
        let kind = if body.is_empty() { Kind::Fence } else { Kind::Data };
        let trailer = Trailer {
            partition: PARTITION,
            epoch: Epoch(3),
            slot: SLOT,
            put_id: put_id("01ARZ3NDEKTSV4RRFFQ69G5FAV"),
            prev: Link(99),
            next_seq: Seq(12),
            body_len: body.len() as u64,
            body_crc: crc32fast::hash(body),
            kind,
        };
        Record {
            trailer,
            body: Bytes::from_static(body),
        }
    }

    fn put_id(text: &str) -> PutId {
        PutId::parse(text).expect("a ULID")
    }

    fn decode(object: &Bytes) -> Result<Record> {
        Record::decode(&Path::from("wal/7"), object, PARTITION, SLOT)
    }

    fn kind_of(object: &Bytes) -> ErrorKind {
        decode(object).expect_err("refused").kind()
    }

    #[test]
    fn a_record_survives_its_bytes_and_its_body_comes_first() {
        for body in [b"arrow bytes".as_slice(), b""] {
            let object = record(body).encode();
            assert_eq!(object.len(), body.len() + TRAILER_LEN);
            assert!(object.starts_with(body));
            assert_eq!(decode(&object).expect("whole"), record(body));
        }
    }

    #[test]
    fn the_layout_never_moves() {
        let object = record(b"body").encode();
        let trailer = &object[4..];
        assert_eq!(trailer[..8], PARTITION.to_le_bytes());
        assert_eq!(trailer[8..16], 3u64.to_le_bytes());
        assert_eq!(trailer[48..56], 4u64.to_le_bytes());
        assert_eq!(&trailer[60..86], b"01ARZ3NDEKTSV4RRFFQ69G5FAV");
        assert_eq!(trailer[86], 1);
        assert_eq!(&trailer[96..], b"\x01\0\0\0RHLG");
    }

    #[test]
    fn an_object_of_another_place_is_corrupt_here() {
        let object = record(b"body").encode();
        let path = Path::from("wal/8");
        assert!(Record::decode(&path, &object, PARTITION, Slot(8)).is_err());
        assert!(Record::decode(&path, &object, PARTITION + 1, SLOT).is_err());
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut bytes = record(b"body").encode().to_vec();
        let at = bytes.len() - 8;
        bytes[at] = 2;
        assert_eq!(kind_of(&bytes.into()), ErrorKind::Invalid);
    }

    #[test]
    fn the_link_changes_with_every_field_and_with_the_body() {
        let link = record(b"body").trailer.link();
        assert_ne!(link, record(b"bodY").trailer.link());
        assert_ne!(
            link,
            Trailer {
                prev: Link(98),
                ..record(b"body").trailer
            }
            .link()
        );
        assert_ne!(
            link,
            Trailer {
                put_id: put_id("01ARZ3NDEKTSV4RRFFQ69G5FAW"),
                ..record(b"body").trailer
            }
            .link()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_flipped_bit_is_seen(bit in 0usize..(11 + TRAILER_LEN) * 8) {
            let mut bytes = record(b"arrow bytes").encode().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes.into()).is_err());
        }

        #[test]
        fn any_cut_is_seen(keep in 0usize..11 + TRAILER_LEN, front in any::<bool>()) {
            let object = record(b"arrow bytes").encode();
            let cut = if front { object.slice(..keep) } else { object.slice(object.len() - keep..) };
            prop_assert!(decode(&cut).is_err());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), sealed in any::<bool>()) {
            // Half of the cases get a fitting sum, version and magic, to reach the fields behind them.
            let mut bytes = bytes;
            if sealed && bytes.len() >= TRAILER_LEN {
                let at = bytes.len() - TRAILER_LEN;
                let mut trailer = [0; TRAILER_LEN];
                trailer.copy_from_slice(&bytes[at..]);
                trailer[VERSION_AT..].copy_from_slice(b"\x01\0\0\0RHLG");
                let sum = sum_of(&trailer);
                trailer[SUM_AT..VERSION_AT].copy_from_slice(&sum.to_le_bytes());
                bytes[at..].copy_from_slice(&trailer);
            }
            prop_assert!(decode(&bytes.into()).is_err());
        }
    }
}
