//! The checksums of one object, block by block, and the small object that keeps them:
//!
//! ```text
//! magic 8 | object size 8 | crc32 per block 4 … | crc32 of all before 4
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes};

const MAGIC: &[u8; 8] = b"rhsums01";
const HEAD: usize = 16;
const CRC: usize = 4;

/// Small enough that a row fetched alone drags in little, and a divisor of every block
/// size of the read cache.
pub(super) const BLOCK: u64 = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    pub size: u64,
    blocks: Vec<u32>,
}

impl Sums {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEAD + self.blocks.len() * 4 + CRC);
        out.put_slice(MAGIC);
        out.put_u64_le(self.size);
        self.blocks.iter().for_each(|crc| out.put_u32_le(*crc));
        out.put_u32_le(crc32fast::hash(&out));
        out.into()
    }

    /// `None` unless the bytes are exactly what `encode` made.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<CRC>()?;
        let (head, blocks) = body.split_first_chunk::<HEAD>()?;
        let (magic, size) = head.split_first_chunk::<8>()?;
        let size = u64::from_le_bytes(size.try_into().ok()?);
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) || magic != MAGIC || blocks.len() % 4 != 0 {
            return None;
        }
        let blocks: Vec<u32> = blocks
            .as_chunks()
            .0
            .iter()
            .map(|crc| u32::from_le_bytes(*crc))
            .collect();
        (blocks.len() as u64 == size.div_ceil(BLOCK)).then_some(Self { size, blocks })
    }

    /// The whole blocks that hold `range`.
    pub(super) fn around(&self, range: &Range<u64>) -> Range<u64> {
        range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK).min(self.size)
    }

    /// Whether `bytes` is what was written at `from`, which starts a block.
    pub(super) fn hold(&self, from: u64, bytes: &[u8]) -> bool {
        let first = (from / BLOCK) as usize;
        bytes
            .chunks(BLOCK as usize)
            .enumerate()
            .all(|(i, block)| self.blocks.get(first + i) == Some(&crc32fast::hash(block)))
    }

    pub(super) fn weight(&self) -> usize {
        64 + self.blocks.len() * 4
    }
}

/// Checksums of a body that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Digest {
    blocks: Vec<u32>,
    open: crc32fast::Hasher,
    size: u64,
}

impl Digest {
    pub(super) fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = BLOCK - self.size % BLOCK;
            let (now, later) = piece.split_at(piece.len().min(room as usize));
            self.open.update(now);
            self.size += now.len() as u64;
            if self.size.is_multiple_of(BLOCK) {
                self.blocks.push(std::mem::take(&mut self.open).finalize());
            }
            piece = later;
        }
    }

    pub(super) fn finish(mut self) -> Sums {
        if !self.size.is_multiple_of(BLOCK) {
            self.blocks.push(self.open.finalize());
        }
        Sums {
            size: self.size,
            blocks: self.blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums_of(body: &[u8]) -> Sums {
        let mut digest = Digest::default();
        digest.update(body);
        digest.finish()
    }

    fn body(length: u64) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn pieces_sum_up_like_the_whole() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK * 3 + 5] {
            let body = body(length);
            let whole = sums_of(&body);
            for piece in [1_000, BLOCK as usize, 50_000] {
                let mut digest = Digest::default();
                body.chunks(piece).for_each(|piece| digest.update(piece));
                assert_eq!(digest.finish(), whole, "{length} in pieces of {piece}");
            }
            assert!(whole.hold(0, &body));
            assert_eq!(Sums::decode(&whole.encode()), Some(whole));
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_of_the_checksums_is_seen() {
        let encoded = sums_of(&body(BLOCK * 2 + 1)).encode();
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Sums::decode(&flipped), None, "bit {bit}");
        }
        for length in 0..encoded.len() {
            assert_eq!(Sums::decode(&encoded[..length]), None, "cut to {length}");
        }
    }

    #[test]
    fn a_block_holds_only_at_its_place() {
        let body = body(BLOCK * 3);
        let sums = sums_of(&body);
        let second = &body[BLOCK as usize..2 * BLOCK as usize];
        assert!(sums.hold(BLOCK, second));
        assert!(!sums.hold(0, second));
        assert!(!sums.hold(BLOCK, &second[1..]));
        assert!(!sums.hold(BLOCK * 3, &[0]), "beyond the end");
    }

    #[test]
    fn whole_blocks_are_read_around_a_range() {
        let sums = sums_of(&body(BLOCK * 2 + 10));
        assert_eq!(sums.around(&(0..1)), 0..BLOCK);
        assert_eq!(sums.around(&(BLOCK - 1..BLOCK + 1)), 0..BLOCK * 2);
        assert_eq!(
            sums.around(&(BLOCK * 2 + 3..BLOCK * 2 + 5)),
            BLOCK * 2..BLOCK * 2 + 10
        );
    }
}
