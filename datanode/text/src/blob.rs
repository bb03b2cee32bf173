//! One object that holds named sections.
//!
//! ```text
//! section … section | directory | tail (40 bytes)
//! directory: per section u16 name length, name, u64 start, u64 length, u64 xxh3 of its bytes
//! tail: u64 start of the directory, u64 its length, u64 its xxh3, u32 format, u32 0, "RHBTEXT\0"
//! ```
//! Little-endian throughout.  One read of the end of the object tells where everything
//! is; every byte is under a checksum, and nothing is handed on before it was verified.

use std::collections::BTreeMap;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::TextError;

const MAGIC: &[u8; 8] = b"RHBTEXT\0";
const FORMAT: u32 = 1;
const TAIL: usize = 40;

pub(crate) fn pack<'a>(sections: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let (mut blob, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in sections {
        directory.extend_from_slice(&(name.len() as u16).to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
        for number in [blob.len() as u64, bytes.len() as u64, xxh3_64(bytes)] {
            directory.extend_from_slice(&number.to_le_bytes());
        }
        blob.extend_from_slice(bytes);
    }
    let start = blob.len() as u64;
    blob.extend_from_slice(&directory);
    for number in [start, directory.len() as u64, xxh3_64(&directory)] {
        blob.extend_from_slice(&number.to_le_bytes());
    }
    blob.extend_from_slice(&FORMAT.to_le_bytes());
    blob.extend_from_slice(&0u32.to_le_bytes());
    blob.extend_from_slice(MAGIC);
    blob
}

/// Where each section is, all of them verified.
pub(crate) fn unpack(blob: &[u8]) -> Result<BTreeMap<String, Range<usize>>, TextError> {
    let body = blob
        .len()
        .checked_sub(TAIL)
        .ok_or_else(|| corrupt("it is too short"))?;
    let mut tail = Reader::new(&blob[body..]);
    let (start, length, sum) = (tail.u64()?, tail.u64()?, tail.u64()?);
    let (format, zero) = (tail.u32()?, tail.u32()?);
    if tail.rest != MAGIC {
        return Err(corrupt("it does not end as a split"));
    }
    if (format, zero) != (FORMAT, 0) {
        return Err(corrupt(&format!("format {format} is not known here")));
    }
    let directory = range(start, length, body)?;
    if directory.end != body || xxh3_64(&blob[directory.clone()]) != sum {
        return Err(corrupt("the checksum of its directory is wrong"));
    }
    let mut entries = Reader::new(&blob[directory.clone()]);
    let mut sections = BTreeMap::new();
    let mut covered = 0;
    while !entries.rest.is_empty() {
        let name = entries.str()?.to_owned();
        let section = range(entries.u64()?, entries.u64()?, directory.start)?;
        if xxh3_64(&blob[section.clone()]) != entries.u64()? {
            return Err(corrupt(&format!("the checksum of {name} is wrong")));
        }
        covered += section.len();
        sections.insert(name, section);
    }
    if covered != directory.start {
        return Err(corrupt("its sections do not fill it"));
    }
    Ok(sections)
}

fn range(start: u64, length: u64, end: usize) -> Result<Range<usize>, TextError> {
    let stop = start.checked_add(length).filter(|&stop| stop <= end as u64);
    let stop = stop.ok_or_else(|| corrupt("a section lies outside it"))?;
    Ok(start as usize..stop as usize)
}

pub(crate) fn corrupt(what: &str) -> TextError {
    TextError::Corrupt(what.to_owned())
}

/// Numbers and names, one after the other.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], TextError> {
        let cut = self.rest.split_at_checked(length);
        let (taken, rest) = cut.ok_or_else(|| corrupt("a section ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, TextError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, TextError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, TextError> {
        let length = self.array().map(u16::from_le_bytes)?;
        let bytes = self.bytes(length as usize)?;
        std::str::from_utf8(bytes).map_err(|_| corrupt("a name is not text"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TextError> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| corrupt("a number is cut"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<u8> {
        pack([("a", &b"first"[..]), ("b.c", b""), ("meta", b"the third one")])
    }

    #[test]
    fn sections_come_back() {
        let blob = sample();
        let sections = unpack(&blob).expect("whole");
        let bytes = |name: &str| &blob[sections[name].clone()];
        assert_eq!(
            (bytes("a"), bytes("b.c"), bytes("meta")),
            (&b"first"[..], &b""[..], &b"the third one"[..])
        );
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unseen() {
        let blob = sample();
        for length in 0..blob.len() {
            assert!(unpack(&blob[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..blob.len() * 8 {
            let mut damaged = blob.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&damaged).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unpack(&bytes).is_err());
        }
    }
}
