//! What a merge of segments need not make anew: the same rows have the same codes and stand
//! in the same lists, whatever their ordinals.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhumb_core::{FieldName, VectorType};

use crate::ann::{Grid, Lists};
use crate::codes::Codes;
use crate::error::ViewError;
use crate::fresh::NOWHERE;
use crate::rows::{RowRef, SegmentId};
use crate::segment::Segment;

impl Codes {
    /// Codes of rows that were, in order, the rows of `mapping` in the segments of `old`.
    /// `None` unless all of those have codes.
    pub fn carried(
        field: &FieldName,
        ty: &VectorType,
        old: &[(SegmentId, Arc<Segment>)],
        mapping: &[RowRef],
    ) -> Result<Option<Self>, ViewError> {
        let of = |(id, segment): &(SegmentId, Arc<Segment>)| {
            let codes = segment.codes(field.as_str()).filter(|codes| codes.is_of(ty))?;
            Some((*id, codes))
        };
        let Some(parts) = old.iter().map(of).collect::<Option<BTreeMap<_, _>>>() else {
            return Ok(None);
        };
        let mut carried = Self::with_room(ty, mapping.len());
        for row in mapping {
            let codes = parts.get(&row.segment).filter(|codes| row.ordinal < codes.rows());
            carried.push_row(codes.ok_or(ViewError::BadMapping(*row))?, row.ordinal);
        }
        Ok(Some(carried.settled()))
    }
}

impl Lists {
    /// Lists of rows that were, in order, the rows of `mapping` in the segments of `old`.
    /// `None` unless all of those stand in lists of `grid`.
    pub fn carried(
        field: &FieldName,
        grid: &Arc<Grid>,
        old: &[(SegmentId, Arc<Segment>)],
        mapping: &[RowRef],
    ) -> Result<Option<Self>, ViewError> {
        let of = |(id, segment): &(SegmentId, Arc<Segment>)| {
            let lists = segment.lists(field.as_str())?;
            (lists.grid().id() == grid.id()).then(|| (*id, lists, vec![NOWHERE; segment.len() as usize]))
        };
        let Some(mut parts) = old.iter().map(of).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        for (new, row) in (0u32..).zip(mapping) {
            let places = parts.iter_mut().find(|(id, ..)| *id == row.segment);
            let place = places.and_then(|(_, _, places)| places.get_mut(row.ordinal as usize));
            *place.ok_or(ViewError::BadMapping(*row))? = new;
        }
        let place =
            |places: &[u32], old: u32| places.get(old as usize).copied().filter(|new| *new != NOWHERE);
        let maps: Vec<_> = parts
            .iter()
            .map(|(_, _, places)| move |old: u32| place(places, old))
            .collect();
        let parts: Vec<_> = parts
            .iter()
            .zip(&maps)
            .map(|((_, lists, _), map)| (&**lists, map as &dyn Fn(u32) -> Option<u32>))
            .collect();
        Self::merge(grid, mapping.len() as u32, &parts).map(Some)
    }
}
