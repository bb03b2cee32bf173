//! Lists of fresh rows: stretches of a group, end to end from its first row, each made off
//! the write path and merged with its neighbours as they grow.
//!
//! All clones of a group share them.  A snapshot may so find rows in a list that came
//! after it: they are dead to its live set.  Rows after the last stretch are scanned.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rhumb_core::{FieldName, Value};

use crate::ann::{Grid, Lists, ListsBuilder};
use crate::error::ViewError;
use crate::fresh::{FreshRows, Frozen, NOWHERE};

/// Ordinals are of the group; `rows` of the one is where the next begins.
pub(crate) type Stretched = Arc<Vec<Arc<Lists>>>;

/// A stretch is merged into its elder once that is at most this many times as long.
pub(crate) const GROWTH: u32 = 4;

#[derive(Debug, Default)]
pub(crate) struct Stretches {
    by_field: RwLock<BTreeMap<FieldName, Stretched>>,
    /// Held while stretches are made: one maker at a time.
    making: Mutex<()>,
}

impl Stretches {
    pub(crate) fn get(&self, field: &str) -> Stretched {
        self.by_field.read().get(field).cloned().unwrap_or_default()
    }

    fn put(&self, field: &FieldName, stretches: Stretched) {
        self.by_field.write().insert(field.clone(), stretches);
    }

    pub(crate) fn clear(&self, field: &str) {
        self.by_field.write().remove(field);
    }

    pub(crate) fn heap_size(&self) -> usize {
        let by_field = self.by_field.read();
        by_field
            .values()
            .flat_map(|lists| lists.iter())
            .map(|lists| lists.heap_size())
            .sum()
    }
}

impl FreshRows {
    /// Rows that stand in no list of `grid` yet.
    pub(crate) fn backlog(&self, field: &str, grid: &Grid) -> u32 {
        self.len() - covered(&self.lists.get(field), grid).min(self.len())
    }

    /// Rows after the last stretch, whatever its grid.
    pub(crate) fn unlisted(&self, field: &str) -> u32 {
        let stretches = self.lists.get(field);
        let listed = stretches.last().map_or(0, |lists| lists.rows());
        self.len() - listed.min(self.len())
    }

    /// Puts the backlog into lists.  Returns how many rows that were, and all lists, each
    /// more than `growth` times as long as the next.
    pub(crate) fn make_lists(
        &self,
        field: &FieldName,
        grid: &Arc<Grid>,
        growth: u32,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(u32, Stretched), ViewError> {
        let _one = self.lists.making.lock();
        let before = self.lists.get(field.as_str());
        let start = covered(&before, grid);
        if start >= self.len() && (growth < u32::MAX || before.len() < 2) {
            return Ok((0, before));
        }
        // Searches rank listed rows by their codes, and should not be the ones to make them.
        self.parts(field, grid.ty(), start)
            .try_for_each(|part| part.map(drop))?;
        let mut stretches: Vec<Arc<Lists>> = match start {
            0 => Vec::new(),
            _ => before.to_vec(),
        };
        if start < self.len() {
            stretches.push(Arc::new(self.lists_of(field, grid, start..self.len(), cancel)?));
        }
        merge_neighbours(grid, &mut stretches, growth)?;
        let stretches = Arc::new(stretches);
        self.lists.put(field, stretches.clone());
        Ok((self.len().saturating_sub(start), stretches))
    }

    fn lists_of(
        &self,
        field: &FieldName,
        grid: &Arc<Grid>,
        rows: Range<u32>,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Lists, ViewError> {
        let mut builder = ListsBuilder::new(grid.clone(), rows.end);
        for ordinal in rows {
            if ordinal % 64 == 0 && cancel() {
                return Err(ViewError::Cancelled);
            }
            let document = self.row(ordinal).document.as_ref();
            if let Some(Value::Vector(vector)) = document.and_then(|document| document.get(field.as_str())) {
                // A vector of another shape counts as missing, as it does to codes.
                builder
                    .push(ordinal, Some(vector))
                    .or_else(|_| builder.push(ordinal, None))?;
            }
        }
        Ok(builder.finish())
    }
}

impl Frozen {
    /// Lists for the segment that will take this group's place: those that the group has on
    /// `grid` under their new ordinals, and the rest made now.
    pub fn lists(
        &self,
        field: &FieldName,
        grid: &Arc<Grid>,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Lists, ViewError> {
        let (_, stretches) = self.rows.make_lists(field, grid, GROWTH, cancel)?;
        let places = self.new_places();
        let place = |old: u32| places.get(old as usize).copied().filter(|new| *new != NOWHERE);
        let parts: Vec<_> = stretches
            .iter()
            .map(|lists| (&**lists, &place as &dyn Fn(u32) -> Option<u32>))
            .collect();
        Lists::merge(grid, self.live_rows().len() as u32, &parts)
    }
}

/// Rows from the first on that stand in lists of `grid`; lists of another grid do not
/// count, and go once those of this one are made.
fn covered(stretches: &[Arc<Lists>], grid: &Grid) -> u32 {
    match stretches.iter().all(|lists| lists.grid().id() == grid.id()) {
        true => stretches.last().map_or(0, |lists| lists.rows()),
        false => 0,
    }
}

/// Leaves stretches each more than `growth` times as long as the next.
fn merge_neighbours(grid: &Arc<Grid>, stretches: &mut Vec<Arc<Lists>>, growth: u32) -> Result<(), ViewError> {
    let start = |stretches: &[Arc<Lists>], at: usize| match at {
        0 => 0,
        at => stretches[at - 1].rows(),
    };
    let mut from = stretches.len().saturating_sub(1);
    let end = stretches.last().map_or(0, |lists| lists.rows());
    while from > 0 {
        let begins = start(stretches, from);
        let (young, elder) = (end - begins, begins - start(stretches, from - 1));
        if elder > growth.saturating_mul(young) {
            break;
        }
        from -= 1;
    }
    if from + 1 < stretches.len() {
        let same = |old: u32| Some(old);
        let parts: Vec<_> = stretches[from..]
            .iter()
            .map(|lists| (&**lists, &same as &dyn Fn(u32) -> Option<u32>))
            .collect();
        let merged = Lists::merge(grid, end, &parts)?;
        stretches.truncate(from);
        stretches.push(Arc::new(merged));
    }
    Ok(())
}
