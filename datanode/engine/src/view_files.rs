//! What a view would take long to work out, kept beside the table (V3).
//!
//! ```text
//! <partition>/view/<data file>.split                  texts of one fragment's rows, by word
//! <partition>/view/<data file>.<field>.codes          codes of one fragment's vectors
//! <partition>/view/<data file>.<field>.<grid>.lists   the same rows by list
//! <partition>/view/<field>.<grid>.grid                the grid
//! <partition>/view/<field>.<grid>.<rows>-<queries>.calibration  how far its searches must go
//! ```
//! `<data file>` is the random name Lance gave the fragment's file and `<grid>` a ULID's number, so a
//! name never means two things and nobody has to name a file in STATE.  `<field>` is the
//! column's number: no user's word is part of a path.  All of it can be made again from the
//! table: what is missing or damaged is, and is never a reason for an error.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use parking_lot::Mutex;
use rhumb_store::{Bucket, ErrorKind};
use rhumb_view::Calibration;

use crate::base::Base;
use crate::error::EngineError;
use crate::rows;

/// One file of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(String);

impl FileName {
    pub fn grid(field: i32, grid: u128) -> Self {
        Self(format!("{field}.{grid:032x}.grid"))
    }

    /// By how much it was measured with: the last in order is the one to take.
    pub fn calibration(field: i32, grid: u128, measured: &Calibration) -> Self {
        let (rows, asked) = (measured.rows(), measured.asked());
        Self(format!("{field}.{grid:032x}.{rows:016x}-{asked:08x}.calibration"))
    }

    /// Of all text fields together, so it goes by the file of the ids.
    pub fn split(base: &Base, fragment: u64) -> Option<Self> {
        let (stem, _) = stem(base, fragment, rows::ID)?;
        Some(Self(format!("{stem}.split")))
    }

    /// `None` where the fragment has no file with that column.
    pub fn codes(base: &Base, fragment: u64, column: &str) -> Option<Self> {
        let (stem, field) = stem(base, fragment, column)?;
        Some(Self(format!("{stem}.{field}.codes")))
    }

    /// As `codes`.
    pub fn lists(base: &Base, fragment: u64, column: &str, grid: u128) -> Option<Self> {
        let (stem, field) = stem(base, fragment, column)?;
        Some(Self(format!("{stem}.{field}.{grid:032x}.lists")))
    }
}

fn stem(base: &Base, fragment: u64, column: &str) -> Option<(String, i32)> {
    let (path, _, _) = base.column_file(fragment, column)?;
    let name = path.filename()?;
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    Some((stem.to_owned(), base.field_number(column)?))
}

/// The view files of one partition.
pub struct ViewFiles {
    bucket: Bucket,
    folder: String,
    /// What is there, once it was listed.
    names: Mutex<Option<BTreeSet<String>>>,
}

impl ViewFiles {
    pub fn new(bucket: Bucket, partition: &str) -> Self {
        Self {
            bucket,
            folder: format!("{partition}/view"),
            names: Mutex::new(None),
        }
    }

    /// The newest grid of a field: its id.
    pub async fn newest_grid(&self, field: i32) -> Result<Option<u128>, EngineError> {
        self.list().await?;
        let names = self.names.lock();
        let grids = names.iter().flatten().filter_map(|name| {
            let (of, rest) = name.split_once('.')?;
            let id = rest.strip_suffix(".grid")?;
            let id = u128::from_str_radix(id, 16).ok()?;
            (of.parse() == Ok(field)).then_some(id)
        });
        Ok(grids.max())
    }

    /// The calibration of a grid that was measured last, when there were most rows.
    pub async fn newest_calibration(&self, field: i32, grid: u128) -> Result<Option<FileName>, EngineError> {
        self.list().await?;
        let begins = format!("{field}.{grid:032x}.");
        let names = self.names.lock();
        let of_grid = names
            .iter()
            .flatten()
            .filter(|name| name.starts_with(&begins) && name.ends_with(".calibration"));
        Ok(of_grid.max().cloned().map(FileName))
    }

    pub async fn has(&self, name: &FileName) -> Result<bool, EngineError> {
        self.list().await?;
        Ok(self
            .names
            .lock()
            .as_ref()
            .is_some_and(|names| names.contains(&name.0)))
    }

    /// The file as `open` understands it.  One that it does not is damaged: it is reported and
    /// removed, to be made anew.
    pub async fn read<T, E: std::fmt::Display>(
        &self,
        name: &FileName,
        open: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Option<T>, EngineError> {
        if !self.has(name).await? {
            return Ok(None);
        }
        let path = self.path(name);
        let damage = match self.bucket.get_uncached(&path).await {
            Ok(Some((bytes, _))) => match open(&bytes) {
                Ok(opened) => return Ok(Some(opened)),
                Err(error) => error.to_string(),
            },
            Ok(None) => {
                self.forget(name);
                return Ok(None);
            }
            // As of an encrypted one that does not open.
            Err(error) if error.kind() == ErrorKind::Corrupt => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        tracing::warn!(%path, damage, "a view file is damaged: it is made anew from the table");
        self.bucket.delete(&path).await?;
        self.forget(name);
        Ok(None)
    }

    /// Whoever wrote the name before wrote the same.
    pub async fn write(&self, name: &FileName, bytes: Vec<u8>) -> Result<(), EngineError> {
        let put_id = self.bucket.mint_put_id();
        let path = self.path(name);
        match self.bucket.create(&path, Bytes::from(bytes), &put_id).await? {
            rhumb_store::Outcome::Landed(_) | rhumb_store::Outcome::Lost => {
                if let Some(names) = self.names.lock().as_mut() {
                    names.insert(name.0.clone());
                }
                Ok(())
            }
            rhumb_store::Outcome::Unknown => {
                Err(EngineError::Unavailable(format!("{path} may not be written")))
            }
        }
    }

    /// Deletes what belongs to no fragment of the base and to no grid in use.  Snapshots that
    /// still have such a fragment hold what they need, or make it again.
    pub async fn collect(&self, base: &Base, grids: &[u128]) -> Result<(), EngineError> {
        self.list().await?;
        let stems = base.data_file_stems();
        let names = self.names.lock().clone().unwrap_or_default();
        let is_used = |grid: &str| u128::from_str_radix(grid, 16).is_ok_and(|grid| grids.contains(&grid));
        for name in names {
            let parts: Vec<&str> = name.split('.').collect();
            let needed = match parts.as_slice() {
                [_, grid, "grid"] | [_, grid, _, "calibration"] => is_used(grid),
                [stem, "split"] => stems.contains(*stem),
                [stem, _, "codes"] => stems.contains(*stem),
                [stem, _, grid, "lists"] => stems.contains(*stem) && is_used(grid),
                _ => true,
            };
            if !needed {
                let name = FileName(name);
                self.bucket.delete(&self.path(&name)).await?;
                self.forget(&name);
            }
        }
        Ok(())
    }

    async fn list(&self) -> Result<(), EngineError> {
        if self.names.lock().is_some() {
            return Ok(());
        }
        let folder = self.bucket.path(&self.folder);
        let found: Vec<_> = self.bucket.list(&folder).try_collect().await?;
        let names = found.iter().filter_map(|meta| meta.location.filename());
        let names = names.map(str::to_owned).collect();
        self.names.lock().get_or_insert(names);
        Ok(())
    }

    fn path(&self, name: &FileName) -> Path {
        self.bucket.path(&format!("{}/{}", self.folder, name.0))
    }

    fn forget(&self, name: &FileName) {
        if let Some(names) = self.names.lock().as_mut() {
            names.remove(&name.0);
        }
    }
}
