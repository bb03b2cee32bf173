//! Fragments of the base become one, and so do their segments: rows move, values do not.
//! Which ones: `merge_policy`.

use std::sync::Arc;

use rhumb_core::{FieldName, VectorType};
use rhumb_view::{Codes, Grid, Keys, Lists, RowRef, Segment, SegmentId, Snapshot, Swap, ViewError};
use roaring::RoaringBitmap;

use crate::base::{self, Base, Change};
use crate::error::EngineError;
use crate::partition::maintain::Maintenance;
use crate::partition::merge_policy;
use crate::pinned::{Pinned, bug};

impl Maintenance {
    /// Merges fragments while the policy finds some, one commit each.
    pub(super) async fn merge(&mut self) -> Result<(), EngineError> {
        while self.jobs.is_empty() && self.merge_chosen(merge_policy::choose).await? {}
        Ok(())
    }

    pub(super) async fn merge_all(&mut self) -> Result<(), EngineError> {
        while self.merge_chosen(merge_policy::choose_any).await? {}
        Ok(())
    }

    /// Leaves no row in the base that is not there for readers.
    pub(super) async fn rewrite_dead(&mut self) -> Result<(), EngineError> {
        while self.merge_chosen(merge_policy::choose_dead).await? {}
        Ok(())
    }

    /// False when nothing was chosen.
    async fn merge_chosen(
        &mut self,
        choose: fn(&[merge_policy::Size]) -> Option<Vec<u64>>,
    ) -> Result<bool, EngineError> {
        let Some(base) = self.shared.base.read().clone() else {
            return Ok(false);
        };
        let fragments = base.fragments().await?;
        let sizes: Vec<merge_policy::Size> = fragments
            .iter()
            .map(|f| merge_policy::Size {
                id: f.id,
                live: u64::from(f.physical_rows) - f.dead.len(),
                dead: f.dead.len(),
            })
            .collect();
        let Some(chosen) = choose(&sizes) else {
            return Ok(false);
        };
        self.merge_fragments(&base, &chosen, &fragments).await?;
        Ok(true)
    }

    async fn merge_fragments(
        &mut self,
        base: &Base,
        chosen: &[u64],
        fragments: &[base::FragmentInfo],
    ) -> Result<(), EngineError> {
        let shared = self.shared.clone();
        let schema = shared.schema.schema();
        let base = base.on_top().await?.with_columns(&schema).await?;
        let file = base.rewrite(chosen).await?;
        let upto = shared.position.borrow().slot;
        let change = Change {
            drop: chosen.to_vec(),
            properties: self.properties("merge", upto),
            ..Change::default()
        };
        let (base, fragment) = base.commit(change, file).await?;
        let version = base.version();
        self.claim
            .checkpoint(|state| {
                state.base = Some(version);
                Ok(())
            })
            .await?;
        let snapshot = shared.view.snapshot();
        let merging = fragments.iter().filter(|f| chosen.contains(&f.id));
        let old = merging.map(|info| {
            let mut segments = snapshot.segments().iter();
            let found = segments.find(|s| s.segment().fragment() == info.id);
            let found = found.ok_or_else(|| {
                let id = info.id;
                EngineError::Bug(format!("fragment {id} of the base has no segment in the view"))
            })?;
            Ok((found.id(), found.segment().clone(), info.dead.clone()))
        });
        let old = Old(old.collect::<Result<_, EngineError>>()?);
        let merged = Pinned {
            base: Some(base.clone()),
            ..shared.pin().quietly()
        };
        let vectors = schema.vectors().map(|(field, ty)| (field.clone(), *ty));
        let vectors: Vec<_> = vectors
            .map(|(field, ty)| (shared.view.grid(field.as_str()), field, ty))
            .collect();
        let swap = match fragment {
            None => {
                shared
                    .env
                    .quietly("merge", move || old.replaced(snapshot, None, &[]))
                    .await?
            }
            Some(fragment) => {
                let (segment, mapping, old) = shared
                    .env
                    .quietly("merge", move || {
                        let (segment, mapping) = old.merged(fragment)?;
                        for (grid, field, ty) in &vectors {
                            old.carry_over(&segment, field, ty, grid.as_ref(), &mapping)?;
                        }
                        Ok((segment, mapping, old))
                    })
                    .await?;
                self.complete_parts(&segment, &merged, &old).await?;
                shared
                    .env
                    .quietly("merge", move || old.replaced(snapshot, Some(segment), &mapping))
                    .await?
            }
        };
        self.show(swap, Some(base)).await
    }

    /// What could not be carried over and searches are going to ask for at once.
    async fn complete_parts(&self, segment: &Segment, merged: &Pinned, old: &Old) -> Result<(), EngineError> {
        for (field, ty) in merged.schema.vectors() {
            let in_use = old
                .0
                .iter()
                .any(|(_, old, _)| old.codes(field.as_str()).is_some());
            if in_use && segment.codes(field.as_str()).is_none() {
                let codes = merged.made_codes(segment, field, ty).await?;
                segment
                    .attach_codes(field.clone(), Arc::new(codes))
                    .map_err(bug)?;
            }
        }
        let texts = self.shared.schema.texts()?;
        if !texts.is_empty() {
            let split = merged.made_split(segment, &texts).await?;
            segment.attach_split(Arc::new(split)).map_err(bug)?;
        }
        Ok(())
    }
}

/// The segments that are merged, with the rows that are dead in the base.
struct Old(Vec<(SegmentId, Arc<Segment>, RoaringBitmap)>);

impl Old {
    /// The segment of the new fragment, and which old row each of its rows was.
    fn merged(&self, fragment: u64) -> Result<(Segment, Vec<RowRef>), ViewError> {
        let (mut keys, mut seqs, mut mapping) = (Keys::builder(), Vec::new(), Vec::new());
        for (id, segment, dead) in &self.0 {
            for ordinal in (0..segment.len()).filter(|ordinal| !dead.contains(*ordinal)) {
                keys.push(&segment.id(ordinal))?;
                seqs.push(segment.seq(ordinal));
                mapping.push(RowRef::new(*id, ordinal));
            }
        }
        Ok((Segment::new(fragment, keys.finish(), seqs)?, mapping))
    }

    /// Codes and lists under the new ordinals, where all old segments have them: such a
    /// merge reads no vector and slows no search.
    fn carry_over(
        &self,
        segment: &Segment,
        field: &FieldName,
        ty: &VectorType,
        grid: Option<&Arc<Grid>>,
        mapping: &[RowRef],
    ) -> Result<(), ViewError> {
        let old: Vec<_> = self.0.iter().map(|(id, old, _)| (*id, old.clone())).collect();
        if let Some(codes) = Codes::carried(field, ty, &old, mapping)? {
            segment.attach_codes(field.clone(), Arc::new(codes))?;
        }
        if let Some(grid) = grid
            && let Some(lists) = Lists::carried(field, grid, &old, mapping)?
        {
            segment.attach_lists(field.clone(), Arc::new(lists))?;
        }
        Ok(())
    }

    fn replaced(
        &self,
        before: Arc<Snapshot>,
        new: Option<Segment>,
        mapping: &[RowRef],
    ) -> Result<Swap, ViewError> {
        let ids: Vec<_> = self.0.iter().map(|(id, ..)| *id).collect();
        Swap::segments(before, &ids, new, mapping)
    }
}
