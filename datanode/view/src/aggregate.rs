//! Feeding aggregates from columns and fresh documents.

use std::collections::BTreeMap;

use rhumb_core::FieldName;
use rhumb_core::aggregate::{Groups, Plan};

use crate::error::ViewError;
use crate::filter::RowMask;
use crate::snapshot::{Snapshot, column_of};

impl Snapshot {
    /// The groups of all live rows, of `mask` if given; those of other partitions can be
    /// merged into them.  `NotLoaded` when a column is missing, see `missing_fields`.
    pub fn aggregate<'p>(&self, plan: &'p Plan, mask: Option<&RowMask>) -> Result<Groups<'p>, ViewError> {
        let mut groups = Groups::new(plan);
        for sealed in self.populated() {
            let mut columns = BTreeMap::new();
            for field in plan.fields() {
                columns.insert(field, column_of(&sealed.segment, field)?);
            }
            let mut rows = sealed.live.to_bits();
            if let Some(mask) = mask {
                rows.restrict(mask.part(sealed.id));
            }
            for ordinal in rows.iter() {
                groups.add(|field: &FieldName| columns.get(field)?.value(ordinal))?;
            }
        }
        for group in &self.fresh {
            let mask = mask.map(|mask| mask.part(group.id));
            for (ordinal, _, document) in group.documents() {
                if mask.is_none_or(|words| crate::bits::word_bit(words, ordinal)) {
                    groups.add_document(document)?;
                }
            }
        }
        Ok(groups)
    }
}
