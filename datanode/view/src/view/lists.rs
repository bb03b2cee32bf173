//! The grids of a view's vector fields, and lists of its fresh rows on them.
//!
//! Segments get their lists attached by whoever loads or makes them; fresh rows get theirs
//! here.  None of it changes an answer's rows, only how fast and how surely it finds them.

use std::sync::Arc;

use rhumb_core::FieldName;

use crate::ann::Grid;
use crate::error::ViewError;
use crate::stretches::GROWTH;

use super::View;

impl View {
    /// Fresh rows of `field` are listed on this grid from now on.  Lists on the one before
    /// it serve until `list_fresh` has made new ones; without a grid they go at once.
    pub fn set_grid(&self, field: &FieldName, grid: Option<Arc<Grid>>) {
        let mut grids = self.grids.write();
        match grid {
            Some(grid) => {
                grids.insert(field.clone(), grid);
            }
            None => {
                grids.remove(field);
                let snapshot = self.snapshot();
                snapshot
                    .fresh
                    .iter()
                    .for_each(|group| group.rows.forget_lists(field));
            }
        }
    }

    pub fn grid(&self, field: &str) -> Option<Arc<Grid>> {
        self.grids.read().get(field).cloned()
    }

    /// Fresh rows, frozen ones included, that stand in no list of the field's grid: what a
    /// search scans one by one.  0 without a grid.
    pub fn fresh_backlog(&self, field: &str) -> u64 {
        let Some(grid) = self.grid(field) else { return 0 };
        let snapshot = self.snapshot();
        let backlog = snapshot
            .fresh
            .iter()
            .map(|group| group.rows.backlog(field, &grid));
        backlog.map(u64::from).sum()
    }

    /// Puts the backlog into lists, and merges lists that have become many.  Some 20 µs of
    /// one core per row; takes no lock that a write or a search waits for.  Returns how
    /// many rows it listed.  Searches find the new lists at once, older snapshots too.
    pub fn list_fresh(&self, field: &FieldName, cancel: &dyn Fn() -> bool) -> Result<u64, ViewError> {
        self.list_groups(field, GROWTH, cancel)
    }

    /// As `list_fresh`, and leaves one set of lists per group: for when nothing is written
    /// any more, and searches are all that counts.
    pub fn list_fresh_at_rest(&self, field: &FieldName, cancel: &dyn Fn() -> bool) -> Result<u64, ViewError> {
        self.list_groups(field, u32::MAX, cancel)
    }

    fn list_groups(
        &self,
        field: &FieldName,
        growth: u32,
        cancel: &dyn Fn() -> bool,
    ) -> Result<u64, ViewError> {
        let Some(grid) = self.grid(field.as_str()) else {
            return Ok(0);
        };
        let snapshot = self.snapshot();
        let mut listed = 0;
        for group in &snapshot.fresh {
            listed += u64::from(group.rows.make_lists(field, &grid, growth, cancel)?.0);
        }
        Ok(listed)
    }
}
