//! Flat files of the view: a magic, a version, sections at 64-byte steps, a checksum.
//!
//! They are rebuilt from the base at any time, so a damaged one is only an error; what a
//! reader takes is bounded by the bytes it was given.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::ViewError;

const ALIGN: usize = 64;
const VERSION: u32 = 1;

/// Writes a file; every section begins at a multiple of `ALIGN`.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(magic: &[u8; 4]) -> Self {
        let mut bytes = magic.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        Self { bytes }
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn u128(&mut self, value: u128) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    pub(crate) fn raw(&mut self, values: &[u8]) {
        self.section(values.len());
        self.bytes.extend(values);
    }

    pub(crate) fn i8s(&mut self, values: &[i8]) {
        self.section(values.len());
        self.bytes.extend(values.iter().map(|x| *x as u8));
    }

    pub(crate) fn u32s(&mut self, values: &[u32]) {
        self.section(values.len());
        self.bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }

    pub(crate) fn u64s(&mut self, values: &[u64]) {
        self.section(values.len());
        self.bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }

    pub(crate) fn f32s(&mut self, values: &[f32]) {
        self.section(values.len());
        self.bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let sum = xxh3_64(&self.bytes);
        self.u64(sum);
        self.bytes
    }

    fn section(&mut self, items: usize) {
        self.u64(items as u64);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

/// Reads what `Writer` wrote; every step may find the file damaged.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, magic: &[u8; 4], bytes: &'a [u8]) -> Result<Self, ViewError> {
        let damaged = ViewError::Damaged { what };
        let (all, sum) = bytes.split_last_chunk::<8>().ok_or(damaged)?;
        let mut reader = Self { what, all, at: 0 };
        if xxh3_64(all) != u64::from_le_bytes(*sum)
            || reader.take::<4>()? != *magic
            || reader.u32()? != VERSION
        {
            return Err(reader.damaged());
        }
        Ok(reader)
    }

    pub(crate) fn damaged(&self) -> ViewError {
        ViewError::Damaged { what: self.what }
    }

    /// An error unless `holds`: for what the file says of itself.
    pub(crate) fn check(&self, holds: bool) -> Result<(), ViewError> {
        if holds { Ok(()) } else { Err(self.damaged()) }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ViewError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ViewError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, ViewError> {
        Ok(u128::from_le_bytes(self.take()?))
    }

    /// Finite.
    pub(crate) fn f32(&mut self) -> Result<f32, ViewError> {
        let value = f32::from_bits(self.u32()?);
        self.check(value.is_finite())?;
        Ok(value)
    }

    pub(crate) fn raw(&mut self) -> Result<Vec<u8>, ViewError> {
        Ok(self.section(1)?.to_vec())
    }

    pub(crate) fn i8s(&mut self) -> Result<Vec<i8>, ViewError> {
        Ok(self.section(1)?.iter().map(|x| *x as i8).collect())
    }

    pub(crate) fn u32s(&mut self) -> Result<Vec<u32>, ViewError> {
        let (items, _) = self.section(4)?.as_chunks::<4>();
        Ok(items.iter().map(|x| u32::from_le_bytes(*x)).collect())
    }

    pub(crate) fn u64s(&mut self) -> Result<Vec<u64>, ViewError> {
        let (items, _) = self.section(8)?.as_chunks::<8>();
        Ok(items.iter().map(|x| u64::from_le_bytes(*x)).collect())
    }

    /// All finite.
    pub(crate) fn f32s(&mut self) -> Result<Vec<f32>, ViewError> {
        let (items, _) = self.section(4)?.as_chunks::<4>();
        let values: Vec<f32> = items.iter().map(|x| f32::from_le_bytes(*x)).collect();
        self.check(values.iter().all(|x| x.is_finite()))?;
        Ok(values)
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), ViewError> {
        self.check(self.at == self.all.len())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ViewError> {
        let rest = self.all.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let taken = *rest.ok_or(self.damaged())?;
        self.at += N;
        Ok(taken)
    }

    fn section(&mut self, item: usize) -> Result<&'a [u8], ViewError> {
        let items = usize::try_from(self.u64()?).map_err(|_| self.damaged())?;
        let start = self.at.next_multiple_of(ALIGN);
        let end = items.checked_mul(item).and_then(|bytes| bytes.checked_add(start));
        let section = end
            .and_then(|end| self.all.get(start..end))
            .ok_or(self.damaged())?;
        self.at = start + section.len();
        Ok(section)
    }
}
