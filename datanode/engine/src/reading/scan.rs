//! Ordered scans: pages over one snapshot, by id or by an attribute.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhumb_core::order::{OrderBy, OrderKey};
use rhumb_core::query::{Include, Stored};
use rhumb_core::{DocId, Filter, Position};
use rhumb_view::{Bounds, RowMask, RowRef};

use super::{Reading, lost_column};
use crate::error::EngineError;

#[derive(Clone, Debug)]
pub struct Scan {
    /// Included.
    pub start: Option<DocId>,
    /// Excluded.
    pub end: Option<DocId>,
    pub prefix: Option<String>,
    pub filter: Option<Filter>,
    pub order_by: OrderBy,
    pub include: Include,
}

/// Where a page starts.  Small, and meaningful only to the scan that made it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PageStart {
    First,
    After(DocId),
    At(u64),
}

pub struct Page {
    pub documents: Vec<Stored>,
    /// `None` on the last page.
    pub next: Option<PageStart>,
}

/// A pinned scan: pages of it can be asked for again and in any order.
pub struct ScanSnapshot {
    reading: Reading,
    masks: Vec<Option<RowMask>>,
    scan: Scan,
    /// With `order_by`: all rows in their final order, as (partition, row).
    sorted: Option<Vec<(u32, RowRef)>>,
}

impl Reading {
    pub async fn scan(&self, scan: Scan) -> Result<ScanSnapshot, EngineError> {
        let masks = self.masks(scan.filter.as_ref()).await?;
        let sorted = match scan.order_by == OrderBy::id() {
            true => None,
            false => Some(self.sorted(&scan, &masks).await?),
        };
        Ok(ScanSnapshot {
            reading: self.clone(),
            masks,
            scan,
            sorted,
        })
    }

    /// All rows of the scan in their final order.
    async fn sorted(
        &self,
        scan: &Scan,
        masks: &[Option<RowMask>],
    ) -> Result<Vec<(u32, RowRef)>, EngineError> {
        let order = &scan.order_by;
        let field = match &order.key {
            OrderKey::Id => None,
            OrderKey::Field(field) => Some(field.clone()),
        };
        let mut sorted: Vec<Vec<RowRef>> = Vec::new();
        for (part, mask) in self.parts.iter().zip(masks) {
            let _held = part.load_columns(field.as_slice()).await?;
            sorted.push(
                part.snapshot
                    .sort_by(order, &bounds(scan), mask.as_ref())
                    .map_err(lost_column)?,
            );
        }
        if let [only] = sorted.as_slice() {
            return Ok(only.iter().map(|row| (0, *row)).collect());
        }
        let mut all = Vec::new();
        for (at, row) in (0u32..)
            .zip(sorted)
            .flat_map(|(at, rows)| rows.into_iter().map(move |row| (at, row)))
        {
            let part = &self.parts[at as usize];
            let value = field.as_ref().and_then(|f| part.value(row, f));
            let id = part
                .snapshot
                .row_id(row)
                .ok_or_else(|| EngineError::Bug("a row without an id".into()))?;
            all.push((value, id, at, row));
        }
        all.sort_by(|a, b| order.compare((a.0.as_ref(), &a.1), (b.0.as_ref(), &b.1)));
        Ok(all.into_iter().map(|(_, _, at, row)| (at, row)).collect())
    }
}

impl ScanSnapshot {
    pub async fn page(&self, start: &PageStart, limit: usize) -> Result<Page, EngineError> {
        let (rows, next) = match &self.sorted {
            Some(sorted) => self.sorted_page(sorted, start, limit),
            None => self.ordered_page(start, limit).await?,
        };
        let places: Vec<(usize, RowRef)> = rows.iter().map(|(at, row)| (*at as usize, *row)).collect();
        let documents = self.reading.documents(&places, &self.scan.include).await?;
        let stored = rows.iter().zip(documents).map(|((at, row), document)| {
            let snapshot = &self.reading.parts[*at as usize].snapshot;
            let id = snapshot.row_id(*row)?;
            let version = snapshot.row_seq(*row)?;
            Some(Stored {
                id,
                version,
                document: Arc::unwrap_or_clone(document),
            })
        });
        let documents: Option<Vec<Stored>> = stored.collect();
        let documents = documents.ok_or_else(|| EngineError::Bug("a scanned row without an id".into()))?;
        Ok(Page { documents, next })
    }

    fn sorted_page(
        &self,
        sorted: &[(u32, RowRef)],
        start: &PageStart,
        limit: usize,
    ) -> (Vec<(u32, RowRef)>, Option<PageStart>) {
        let from = match start {
            PageStart::At(at) => (*at as usize).min(sorted.len()),
            PageStart::First | PageStart::After(_) => 0,
        };
        let to = (from + limit).min(sorted.len());
        let next = (to < sorted.len()).then_some(PageStart::At(to as u64));
        (sorted[from..to].to_vec(), next)
    }

    async fn ordered_page(
        &self,
        start: &PageStart,
        limit: usize,
    ) -> Result<(Vec<(u32, RowRef)>, Option<PageStart>), EngineError> {
        let after = match start {
            PageStart::After(id) => Some(id.clone()),
            PageStart::First | PageStart::At(_) => None,
        };
        // One more than asked for: whether there is a next page is then known.
        let mut merged: BTreeMap<DocId, (u32, RowRef)> = BTreeMap::new();
        for (at, part) in self.reading.parts.iter().enumerate() {
            let (snapshot, mask, bounds, after) = (
                part.snapshot.clone(),
                self.masks[at].clone(),
                bounds(&self.scan),
                after.clone(),
            );
            let rows = part
                .compute(move || snapshot.ordered(after.as_ref(), &bounds, mask.as_ref(), limit + 1))
                .await?;
            for row in rows {
                let id = part.snapshot.row_id(row);
                merged.extend(id.map(|id| (id, (at as u32, row))));
            }
        }
        let more = merged.len() > limit;
        let last = merged.keys().take(limit).next_back().cloned();
        let rows: Vec<(u32, RowRef)> = merged.into_values().take(limit).collect();
        Ok((rows, last.filter(|_| more).map(PageStart::After)))
    }

    pub fn positions(&self) -> Vec<(u32, Position)> {
        self.reading.positions()
    }
}

fn bounds(scan: &Scan) -> Bounds {
    Bounds {
        start: scan.start.clone(),
        end: scan.end.clone(),
        prefix: scan.prefix.as_deref().map(Into::into),
    }
}
