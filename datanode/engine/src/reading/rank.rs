//! What comes after the legs: re-ranking by fields, and groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rhumb_core::query::{GroupBy, Rerank, group};
use rhumb_core::{FieldName, Value};
use rhumb_view::{Column, RowMask};

use super::Reading;
use super::legs::{Found, sort};
use crate::error::EngineError;

impl Reading {
    /// The same hits with their new scores, best first.
    pub(super) async fn reranked(
        &self,
        rerank: &Rerank,
        mut found: Vec<Found>,
    ) -> Result<Vec<Found>, EngineError> {
        let fields: Vec<FieldName> = rerank.fields().into_iter().cloned().collect();
        let _held = self.hold(&found, &fields).await?;
        let mut masks: BTreeMap<usize, Vec<RowMask>> = BTreeMap::new();
        for at in parts_of(&found) {
            let mut of_part = Vec::new();
            for filter in rerank.filters() {
                of_part.push(self.parts[at].mask(filter).await?);
            }
            masks.insert(at, of_part);
        }
        for hit in &mut found {
            let (part, masks) = (&self.parts[hit.part], &masks[&hit.part]);
            let value = |field: &FieldName| part.value(hit.row, field);
            hit.score = rerank.score(hit.score, value, |filter| masks[filter].contains(hit.row));
        }
        sort(&mut found);
        Ok(found)
    }

    /// `found` is best first, and so are the groups and their hits.
    pub(super) async fn grouped(
        &self,
        found: Vec<Found>,
        group_by: &GroupBy,
        k: usize,
    ) -> Result<Vec<(Value, Vec<Found>)>, EngineError> {
        let _held = self.hold(&found, std::slice::from_ref(&group_by.field)).await?;
        let valued = found
            .into_iter()
            .map(|hit| (self.parts[hit.part].value(hit.row, &group_by.field), hit));
        Ok(group(valued, k, group_by.size))
    }

    /// The columns that the values of these hits are in.
    async fn hold(&self, found: &[Found], fields: &[FieldName]) -> Result<Vec<Arc<Column>>, EngineError> {
        let mut held = Vec::new();
        for at in parts_of(found) {
            held.extend(self.parts[at].load_columns(fields).await?);
        }
        Ok(held)
    }
}

fn parts_of(found: &[Found]) -> BTreeSet<usize> {
    found.iter().map(|hit| hit.part).collect()
}
