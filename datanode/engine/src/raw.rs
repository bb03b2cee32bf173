//! Vectors straight from the base's files.
//!
//! Lance's reader costs a millisecond a call, most of it planning: too much for the twenty
//! vectors that decide a search.  A vector above 256 bytes lies in its page as it is, at a
//! fixed stride, so one read of a few hundred bytes finds it.
//!
//! Nothing is trusted: pages that look otherwise are left to Lance, and a vector from here
//! counts only when the score it gives lies within what the row's codes prove
//! ([`rhumb_view::Candidates`]).  Damage, and a layout that only looked right, therefore
//! cost time and never change an answer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use lance_file::reader::FileReader;
use lance_io::scheduler::{ScanScheduler, SchedulerConfig};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parking_lot::RwLock;
use rhumb_core::{Element, FieldName, VectorType};
use rhumb_store::Bucket;
use rhumb_store::local::LocalFile;

use crate::base::Base;
use crate::error::EngineError;
use crate::rows;

/// Of a file's metadata, while it is read once.
const METADATA_BUFFER: u64 = 8 << 20;

/// Where the vectors of one fragment and field lie.
pub struct RawVectors {
    object: Path,
    /// Where objects are files.
    file: Option<LocalFile>,
    element: Element,
    /// Bytes of one vector.
    width: u64,
    /// By first row, ascending, without a gap.
    pages: Vec<Page>,
}

/// Those of one open partition that were looked for, by fragment and field; `None` where
/// there is nothing to find.  Within one partition's life a fragment's number means one file.
#[derive(Default)]
pub struct Raws(RwLock<Found>);

type Found = BTreeMap<(u64, FieldName), Option<Arc<RawVectors>>>;

/// Fragments that a partition has at most, more or less: older ones are forgotten beyond it.
const MOST: usize = 256;

impl Raws {
    /// What is known already.
    pub fn known(&self, fragment: u64, field: &FieldName) -> Option<Option<Arc<RawVectors>>> {
        self.0.read().get(&(fragment, field.clone())).cloned()
    }

    pub async fn find(
        &self,
        base: &Base,
        bucket: &Bucket,
        fragment: u64,
        field: &FieldName,
        ty: &VectorType,
    ) -> Result<Option<Arc<RawVectors>>, EngineError> {
        if let Some(known) = self.known(fragment, field) {
            return Ok(known);
        }
        let column = rows::column_name(field);
        let found = RawVectors::find(base, bucket, fragment, &column, ty)
            .await?
            .map(Arc::new);
        let mut all = self.0.write();
        if all.len() >= MOST {
            all.pop_first();
        }
        all.insert((fragment, field.clone()), found.clone());
        Ok(found)
    }
}

struct Page {
    rows: Range<u32>,
    offset: u64,
    /// Bytes from one vector to the next: its own, and a byte for nulls where there are any.
    stride: u64,
}

impl RawVectors {
    /// `None` when they do not lie as expected.
    pub async fn find(
        base: &Base,
        bucket: &Bucket,
        fragment: u64,
        column: &str,
        ty: &VectorType,
    ) -> Result<Option<Self>, EngineError> {
        let Some(width) = width(ty) else { return Ok(None) };
        let Some((object, at, size)) = base.column_file(fragment, column) else {
            return Ok(None);
        };
        let store = base.object_store().await?;
        let scheduler = ScanScheduler::new(store, SchedulerConfig::new(METADATA_BUFFER));
        let file = scheduler.open_file(&object, &size).await?;
        let metadata = FileReader::read_all_metadata(&file).await?;
        let Some(column) = metadata.column_metadatas.get(at) else {
            return Ok(None);
        };
        let mut pages = Vec::with_capacity(column.pages.len());
        let mut first = 0;
        for page in &column.pages {
            let (Some(&offset), Some(&bytes)) = (page.buffer_offsets.first(), page.buffer_sizes.first())
            else {
                return Ok(None);
            };
            let Some(page) = Page::of(first, page.length, offset, bytes, width) else {
                return Ok(None);
            };
            first = page.rows.end;
            pages.push(page);
        }
        Ok(Some(Self {
            file: bucket.local_file(&object),
            object,
            element: ty.element,
            width,
            pages,
        }))
    }

    /// A vector that is in memory already.  False when it is not, and `vector` then means
    /// nothing.
    pub fn read_now(&self, row: u32, bytes: &mut Vec<u8>, vector: &mut Vec<f32>) -> bool {
        let (Some(file), Some(range)) = (&self.file, self.place(row)) else {
            return false;
        };
        bytes.resize(self.width as usize, 0);
        if !file.read_now(bytes, range.start) {
            return false;
        }
        self.decode(bytes, vector);
        true
    }

    /// Vectors of these rows, in one round trip.  `None` when a row is not where it should be.
    pub async fn read(&self, bucket: &Bucket, rows: &[u32]) -> Result<Option<Vec<Vec<f32>>>, EngineError> {
        let Some(ranges) = rows
            .iter()
            .map(|row| self.place(*row))
            .collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        let store = bucket.object_store();
        let reads = ranges
            .into_iter()
            .map(|range| store.get_range(&self.object, range));
        let read: Vec<Bytes> = try_join_all(reads).await.map_err(rhumb_store::StoreError::from)?;
        let decoded = read.iter().map(|bytes| {
            let mut vector = Vec::new();
            self.decode(bytes, &mut vector);
            vector
        });
        Ok(Some(decoded.collect()))
    }

    fn place(&self, row: u32) -> Option<Range<u64>> {
        let at = self.pages.partition_point(|page| page.rows.end <= row);
        let page = self.pages.get(at)?;
        let end = page.offset + u64::from(row - page.rows.start + 1) * page.stride;
        Some(end - self.width..end)
    }

    fn decode(&self, bytes: &[u8], vector: &mut Vec<f32>) {
        vector.clear();
        match self.element {
            Element::F16 => vector.extend(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|half| half::f16::from_le_bytes(*half).to_f32()),
            ),
            _ => vector.extend(bytes.as_chunks().0.iter().map(|float| f32::from_le_bytes(*float))),
        }
    }
}

impl Page {
    fn of(first: u32, rows: u64, offset: u64, bytes: u64, width: u64) -> Option<Self> {
        let end = u32::try_from(u64::from(first) + rows).ok()?;
        let stride = [width, width + 1]
            .into_iter()
            .find(|stride| rows.checked_mul(*stride) == Some(bytes))?;
        Some(Self {
            rows: first..end,
            offset,
            stride,
        })
    }
}

/// `None` for vectors that their codes hold exactly.
fn width(ty: &VectorType) -> Option<u64> {
    let element = match ty.element {
        Element::F32 => 4,
        Element::F16 => 2,
        Element::Int8 | Element::Binary => return None,
    };
    Some(u64::from(ty.dim) * element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_only_when_its_size_fits() {
        let page = |bytes| Page::of(10, 100, 4_096, bytes, 512);
        assert_eq!(page(51_200).map(|p| (p.rows, p.stride)), Some((10..110, 512)));
        assert_eq!(page(51_300).map(|p| p.stride), Some(513));
        assert!(page(51_299).is_none() && page(0).is_none());
        assert!(Page::of(u32::MAX, 1, 0, 512, 512).is_none());
    }
}
