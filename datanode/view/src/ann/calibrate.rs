//! How far a search must go: measured on queries whose answers are known.
//!
//! A list is looked at while its key, at some *reach* z, is within the k-th best distance:
//! z is the cosine between the query's direction and the row's, seen from the centroid,
//! that a row in it would need to be a hit.  A row is ranked when its estimate, raised by
//! some *margin* of its uncertainty, gets to the bar.  Both have a distribution over true
//! hits; a quantile of it is the limit for a wanted recall.

use rhumb_core::VectorType;
use rhumb_core::query::Accuracy;

use crate::error::ViewError;

use super::bytes::{Reader, Writer};

/// Lists further out than `reach` and rows that miss by more than `margin` are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) reach: f32,
    pub(crate) margin: f32,
}

/// What limits reach what recall, per grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// By recall, ascending.
    levels: Vec<(f32, Limits)>,
    /// Live rows when it was measured; 0 for the shipped one.
    rows: u64,
}

/// Recalls that limits are kept for; anything above the last is searched exactly.
const LEVELS: [f32; 9] = [0.5, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995];

/// Of the hits that a search may lose, these shares go to lists not looked at and to rows
/// not ranked; what is left covers int8 and chance.
const LOST_LISTS: f32 = 0.7;
const LOST_ROWS: f32 = 0.15;

/// What an effort, which names no recall, takes its margin from.
const ORDINARY_RECALL: f32 = 0.95;

const MAGIC: &[u8; 4] = b"RhCa";

impl Calibration {
    /// For fields that nobody has measured yet: on the far side.
    pub(super) fn shipped(_ty: &VectorType) -> Self {
        let level = |(recall, reach, margin): (f32, f32, f32)| (recall, Limits { reach, margin });
        let levels = [
            (0.5, 0.3, 0.5),
            (0.8, 0.45, 0.8),
            (0.9, 0.55, 1.1),
            (0.95, 0.65, 1.4),
            (0.97, 0.7, 1.6),
            (0.99, 0.8, 2.0),
        ];
        Self {
            levels: levels.map(level).into(),
            rows: 0,
        }
    }

    /// The reach and the margin that each true hit of some queries needed.
    pub(crate) fn from_needed(rows: u64, mut reaches: Vec<f32>, mut margins: Vec<f32>) -> Self {
        reaches.sort_by(f32::total_cmp);
        margins.sort_by(f32::total_cmp);
        let quantile = |sorted: &[f32], share: f32| {
            let at = (sorted.len() as f32 * share).ceil() as usize;
            sorted.get(at.min(sorted.len().saturating_sub(1))).copied()
        };
        let level = |recall: f32| {
            let lost = 1.0 - recall;
            let reach = quantile(&reaches, 1.0 - lost * LOST_LISTS)?;
            let margin = quantile(&margins, 1.0 - lost * LOST_ROWS)?;
            Some((
                recall,
                Limits {
                    reach: reach.clamp(0.0, 1.0),
                    margin: margin.clamp(0.0, 16.0),
                },
            ))
        };
        Self {
            levels: LEVELS.into_iter().filter_map(level).collect(),
            rows,
        }
    }

    /// Live rows when it was measured; 0 for the shipped one.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// `None` means that only an exact search is sure to reach it.
    pub(crate) fn limits(&self, accuracy: Accuracy) -> Option<Limits> {
        let wanted = match accuracy {
            Accuracy::Exact => return None,
            Accuracy::Effort(_) => ORDINARY_RECALL,
            Accuracy::Recall(recall) => recall,
        };
        let above = self.levels.iter().position(|(recall, _)| *recall >= wanted)?;
        let (high, upper) = self.levels[above];
        let Some((low, lower)) = above.checked_sub(1).map(|below| self.levels[below]) else {
            return Some(upper);
        };
        let share = (wanted - low) / (high - low);
        let between = |a: f32, b: f32| a + (b - a) * share;
        Some(Limits {
            reach: between(lower.reach, upper.reach),
            margin: between(lower.margin, upper.margin),
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.u64(self.rows);
        writer.f32s(&self.levels.iter().map(|(recall, _)| *recall).collect::<Vec<_>>());
        writer.f32s(
            &self
                .levels
                .iter()
                .map(|(_, limits)| limits.reach)
                .collect::<Vec<_>>(),
        );
        writer.f32s(
            &self
                .levels
                .iter()
                .map(|(_, limits)| limits.margin)
                .collect::<Vec<_>>(),
        );
        writer.finish()
    }

    /// `Damaged` unless the bytes are a whole calibration of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ViewError> {
        let mut reader = Reader::new("calibration", MAGIC, bytes)?;
        let rows = reader.u64()?;
        let (recalls, reaches, margins) = (reader.f32s()?, reader.f32s()?, reader.f32s()?);
        reader.check(recalls.len() == reaches.len() && recalls.len() == margins.len())?;
        reader.check(recalls.is_sorted_by(|a, b| a < b))?;
        reader.finish()?;
        let limits = reaches
            .into_iter()
            .zip(margins)
            .map(|(reach, margin)| Limits { reach, margin });
        Ok(Self {
            levels: recalls.into_iter().zip(limits).collect(),
            rows,
        })
    }
}
