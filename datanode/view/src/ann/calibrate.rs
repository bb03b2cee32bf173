//! How far a search must go: measured on queries whose answers are known.
//!
//! A list is looked at while its key, at some *reach* z, is within the k-th best distance:
//! z is the cosine between the query's direction and the row's, seen from the centroid,
//! that a row in it would need to be a hit.  A row is ranked when its estimate, raised by
//! some *margin* of its uncertainty, gets to the bar.  Both have a distribution over true
//! hits; quantiles of it make a row of limits from near to far.  What each of them really
//! finds is then measured by searching with it: a search sees a lower bar than the final
//! one most of the time, and so finds more than the quantiles promise.

use rhumb_core::VectorType;
use rhumb_core::query::Accuracy;

use crate::error::ViewError;

use super::bytes::{Reader, Writer};

/// Lists further out than `reach` and rows that miss by more than `margin` are left out, and
/// so is what comes after a share `most` of all listed rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) reach: f32,
    pub(crate) margin: f32,
    pub(crate) most: f32,
}

/// What limits reach what recall, per grid.
///
/// Under a filter the best rows left are further away and in more lists, and each of them
/// needs less reach: a search that went as far as an unfiltered one must would go nearly
/// everywhere.  What counts is how many rows pass *where the query is*: a filter that goes
/// with the vectors may keep all of its neighbours, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// By the share of rows nearby that pass, descending; the first is of all rows.
    classes: Vec<Class>,
    /// Live rows when it was measured; 0 for the shipped one.
    rows: u64,
    /// Queries of those who ask that it was measured with; 0 when there were too few.
    asked: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Class {
    share: f32,
    /// By recall, ascending.
    levels: Vec<(f32, Limits)>,
}

/// Recalls that limits are kept for; anything above the last is searched exactly.
const LEVELS: [f32; 9] = [0.5, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995];

/// Of the hits that a search may lose, these shares go to lists not looked at and to rows
/// not ranked; what is left covers int8 and chance.
const LOST_LISTS: f32 = 0.7;
const LOST_ROWS: f32 = 0.15;

/// From near to far: what share of the hits quantiles promise.
const PROMISES: [f32; 14] = [
    0.3, 0.45, 0.6, 0.7, 0.78, 0.84, 0.88, 0.91, 0.935, 0.955, 0.97, 0.98, 0.99, 0.996,
];

/// Of the loss that a wanted recall allows, this much is kept in hand: queries to come are
/// not those that it was measured with.
const IN_HAND: f32 = 0.35;

/// The same when it was measured with queries of those who ask.
const IN_HAND_ASKED: f32 = 0.25;

/// No limit to the rows that are looked at.
pub(crate) const EVERYTHING: f32 = 1.0;

/// What an effort, which names no recall, takes its margin from.
const ORDINARY_RECALL: f32 = 0.95;

const MAGIC: &[u8; 4] = b"RhCc";

impl Calibration {
    /// For fields that nobody has measured yet: on the far side.
    pub(super) fn shipped(_ty: &VectorType) -> Self {
        let most = EVERYTHING;
        let level = |(recall, reach, margin): (f32, f32, f32)| (recall, Limits { reach, margin, most });
        let levels = [
            (0.5, 0.3, 0.5),
            (0.8, 0.45, 0.8),
            (0.9, 0.55, 1.1),
            (0.95, 0.65, 1.4),
            (0.97, 0.7, 1.6),
            (0.99, 0.8, 2.0),
        ];
        let class = Class {
            share: 1.0,
            levels: levels.map(level).into(),
        };
        Self {
            classes: vec![class],
            rows: 0,
            asked: 0,
        }
    }

    pub(crate) fn new(rows: u64, asked: u32) -> Self {
        Self {
            classes: Vec::new(),
            rows,
            asked,
        }
    }

    /// Adds the class of searches near which a `share` of the rows pass: all of them first,
    /// then fewer and fewer.  `try_out` says what searches within some limits find.
    pub(crate) fn measure<E>(
        &mut self,
        share: f32,
        needed: &mut Needed,
        mut try_out: impl FnMut(Limits) -> Result<Vec<Tried>, E>,
    ) -> Result<(), E> {
        needed.sort();
        let last = self.target(LEVELS[LEVELS.len() - 1]);
        let mut tried: Vec<(Limits, Tried)> = Vec::new();
        for promised in PROMISES {
            let limits = needed.limits(promised);
            let outcomes = try_out(limits)?;
            let enough = outcomes.iter().any(|tried| tried.found >= last);
            tried.extend(outcomes.into_iter().map(|of| {
                (
                    Limits {
                        most: of.most,
                        ..limits
                    },
                    of,
                )
            }));
            if enough {
                break;
            }
        }
        // Of all that find enough, what looks at the fewest rows; more recall never less.
        let cheapest = |recall: f32| {
            let enough = tried
                .iter()
                .filter(|(_, tried)| tried.found >= self.target(recall));
            let cheapest = enough.min_by(|a, b| a.1.rows.total_cmp(&b.1.rows));
            cheapest.map(|(limits, _)| (recall, *limits))
        };
        let levels = LEVELS.into_iter().filter_map(cheapest).collect();
        self.classes.push(Class { share, levels });
        Ok(())
    }

    /// What has to be found of the calibration's hits when a query asks for `recall`.
    fn target(&self, recall: f32) -> f32 {
        let in_hand = if self.asked > 0 { IN_HAND_ASKED } else { IN_HAND };
        recall + (1.0 - recall) * in_hand
    }

    /// Live rows when it was measured; 0 for the shipped one.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Queries of those who ask that it was measured with.
    pub fn asked(&self) -> u32 {
        self.asked
    }

    /// For a search near which a `share` of the rows pass.  `None` means that only an exact
    /// one is sure to reach the recall.
    pub(crate) fn limits(&self, accuracy: Accuracy, share: f32) -> Option<Limits> {
        let wanted = match accuracy {
            Accuracy::Exact => return None,
            Accuracy::Effort(_) => ORDINARY_RECALL,
            Accuracy::Recall(recall) => recall,
        };
        // Of the least share that is enough: between two of them anything may happen, as when
        // a cluster has just k rows left.
        let share = share.min(1.0);
        let classes = self.classes.iter().rev().filter(|class| class.share >= share);
        classes.filter_map(|class| at_least(&class.levels, wanted)).next()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.u64(self.rows);
        writer.u32(self.asked);
        writer.u32(self.classes.len() as u32);
        for class in &self.classes {
            let column = |of: fn(&(f32, Limits)) -> f32| class.levels.iter().map(of).collect::<Vec<_>>();
            writer.f32(class.share);
            writer.f32s(&column(|(recall, _)| *recall));
            writer.f32s(&column(|(_, limits)| limits.reach));
            writer.f32s(&column(|(_, limits)| limits.margin));
            writer.f32s(&column(|(_, limits)| limits.most));
        }
        writer.finish()
    }

    /// `Damaged` unless the bytes are a whole calibration of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ViewError> {
        let mut reader = Reader::new("calibration", MAGIC, bytes)?;
        let (rows, asked, classes) = (reader.u64()?, reader.u32()?, reader.u32()?);
        let classes = (0..classes)
            .map(|_| Class::read(&mut reader))
            .collect::<Result<Vec<_>, _>>()?;
        reader.check(classes.first().is_some_and(|class| class.share == 1.0))?;
        reader.check(classes.is_sorted_by(|a, b| a.share > b.share && b.share > 0.0))?;
        reader.finish()?;
        Ok(Self { classes, rows, asked })
    }
}

impl Class {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ViewError> {
        let share = reader.f32()?;
        let recalls = reader.f32s()?;
        let (reaches, margins, most) = (reader.f32s()?, reader.f32s()?, reader.f32s()?);
        let count = recalls.len();
        reader.check(
            [&reaches, &margins, &most]
                .iter()
                .all(|column| column.len() == count),
        )?;
        reader.check(recalls.is_sorted_by(|a, b| a < b))?;
        let limits = reaches.into_iter().zip(margins).zip(most);
        let limits = limits.map(|((reach, margin), most)| Limits { reach, margin, most });
        let levels = recalls.into_iter().zip(limits).collect();
        Ok(Self { share, levels })
    }
}

/// What searches within some limits came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    /// Share of the listed rows after which they ended, whatever was left.
    pub(crate) most: f32,
    /// Share of the hits that they found.
    pub(crate) found: f32,
    /// Rows that they looked at, on average.
    pub(crate) rows: f32,
}

/// The reach and the margin that each true hit of some queries needed.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    pub(crate) reaches: Vec<f32>,
    pub(crate) margins: Vec<f32>,
}

impl Needed {
    fn sort(&mut self) {
        self.reaches.sort_by(f32::total_cmp);
        self.margins.sort_by(f32::total_cmp);
    }

    /// Within which so many of the hits lie, whatever the bar was when they were met.
    fn limits(&self, promised: f32) -> Limits {
        let quantile = |sorted: &[f32], share: f32| {
            let at = (sorted.len() as f32 * share).ceil() as usize;
            let last = sorted.len().saturating_sub(1);
            sorted.get(at.min(last)).copied().unwrap_or_default()
        };
        let lost = 1.0 - promised;
        Limits {
            reach: quantile(&self.reaches, 1.0 - lost * LOST_LISTS).clamp(0.0, 1.0),
            margin: quantile(&self.margins, 1.0 - lost * LOST_ROWS).clamp(0.0, 16.0),
            most: EVERYTHING,
        }
    }
}

/// The limits of the first level that is enough.
fn at_least(levels: &[(f32, Limits)], wanted: f32) -> Option<Limits> {
    let enough = levels.iter().find(|(recall, _)| *recall >= wanted);
    enough.map(|(_, limits)| *limits)
}
