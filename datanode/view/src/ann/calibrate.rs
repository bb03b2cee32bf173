//! How far a search must go: measured on queries whose answers are known.
//!
//! Lists are gone through in the order of their keys.  Whether one more is worth a look is
//! told by two things that each fail alone: how many came before it, and how far its rows are
//! from the k-th best so far.  Real queries are near or far from everything, so a distance
//! means little by itself; and those outside all rows need many lists where others need few,
//! so neither does a number.  `Aim::needed_depth` is both as one number, the *depth*.
//!
//! A row is ranked when its estimate, raised by some *margin* of its uncertainty, gets to the
//! bar.  Both have a distribution over true hits; quantiles of it make a row of limits from
//! near to far.  What each of them really finds is then measured by searching with it: a
//! search sees a lower bar than the final one most of the time, and so finds more than the
//! quantiles promise.

use rhumb_core::VectorType;
use rhumb_core::query::Accuracy;

use crate::error::ViewError;

use super::bytes::{Reader, Writer};

/// Lists beyond `depth` and rows that miss by more than `margin` are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) depth: f32,
    pub(crate) margin: f32,
}

/// What limits reach what recall, per grid.
///
/// Under a filter the best rows left are further away and in more lists, and each of them
/// needs less depth: a search that went as far as an unfiltered one must would go nearly
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
const IN_HAND: f32 = 0.3;

/// The same under a filter, which is not one of those that it was measured with either.
const IN_HAND_FILTERED: f32 = 0.5;

/// Added to a depth that nobody who asks had a part in: `e` times as many lists.  Questions lie
/// further from what is stored than stored vectors from each other: those of our text
/// embeddings needed two to five times as many.
const STRANGERS: f32 = 1.5;

/// What an effort, which names no recall, takes its margin from.
const ORDINARY_RECALL: f32 = 0.95;

/// Nobody goes further: it is all lists there are, many spreads away.
const DEEPEST: f32 = 100.0;

const MAGIC: &[u8; 4] = b"RhCd";

impl Calibration {
    /// For fields that nobody has measured yet: on the far side.
    pub(super) fn shipped(_ty: &VectorType) -> Self {
        let level = |(recall, depth, margin): (f32, f32, f32)| (recall, Limits { depth, margin });
        let levels = [
            (0.5, 3.5, 0.5),
            (0.8, 4.5, 0.8),
            (0.9, 5.5, 1.1),
            (0.95, 6.5, 1.4),
            (0.97, 7.0, 1.6),
            (0.99, 8.0, 2.0),
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
    /// then fewer and fewer.  `try_out` says what share of the hits searches within some
    /// limits find.
    pub(crate) fn measure<E>(
        &mut self,
        share: f32,
        needed: &mut Needed,
        mut try_out: impl FnMut(Limits) -> Result<f32, E>,
    ) -> Result<(), E> {
        needed.sort();
        let last = target(share, LEVELS[LEVELS.len() - 1]);
        let mut tried: Vec<(Limits, f32)> = Vec::new();
        for promised in PROMISES {
            let limits = needed.limits(promised);
            let found = try_out(limits)?;
            tried.push((limits, found));
            if found >= last {
                break;
            }
        }
        let further = if self.asked > 0 { 0.0 } else { STRANGERS };
        let levels = LEVELS.into_iter().filter_map(|recall| {
            let mut limits = just_enough(&tried, target(share, recall))?;
            limits.depth += further;
            Some((recall, limits))
        });
        let levels = levels.collect();
        self.classes.push(Class { share, levels });
        Ok(())
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
            writer.f32s(&column(|(_, limits)| limits.depth));
            writer.f32s(&column(|(_, limits)| limits.margin));
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
        let (depths, margins) = (reader.f32s()?, reader.f32s()?);
        reader.check(
            [&depths, &margins]
                .iter()
                .all(|column| column.len() == recalls.len()),
        )?;
        reader.check(recalls.is_sorted_by(|a, b| a < b))?;
        let limits = depths.into_iter().zip(margins);
        let limits = limits.map(|(depth, margin)| Limits { depth, margin });
        let levels = recalls.into_iter().zip(limits).collect();
        Ok(Self { share, levels })
    }
}

/// The depth and the margin that each true hit of some queries needed.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    pub(crate) depths: Vec<f32>,
    pub(crate) margins: Vec<f32>,
}

impl Needed {
    fn sort(&mut self) {
        self.depths.sort_by(f32::total_cmp);
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
            depth: quantile(&self.depths, 1.0 - lost * LOST_LISTS).clamp(-DEEPEST, DEEPEST),
            margin: quantile(&self.margins, 1.0 - lost * LOST_ROWS).clamp(0.0, 16.0),
        }
    }
}

/// Between the nearest limits that find enough and those before them.
fn just_enough(tried: &[(Limits, f32)], target: f32) -> Option<Limits> {
    let at = tried.iter().position(|(_, found)| *found >= target)?;
    let (enough, found) = tried[at];
    let Some((less, before)) = at.checked_sub(1).map(|at| tried[at]) else {
        return Some(enough);
    };
    let share = (target - before) / (found - before);
    Some(Limits {
        depth: less.depth + share * (enough.depth - less.depth),
        margin: less.margin + share * (enough.margin - less.margin),
    })
}

/// What has to be found of the calibration's hits when a query asks for `recall`.
fn target(share: f32, recall: f32) -> f32 {
    let in_hand = if share < 1.0 { IN_HAND_FILTERED } else { IN_HAND };
    recall + (1.0 - recall) * in_hand
}

/// The limits of the first level that is enough.
fn at_least(levels: &[(f32, Limits)], wanted: f32) -> Option<Limits> {
    let enough = levels.iter().find(|(recall, _)| *recall >= wanted);
    enough.map(|(_, limits)| *limits)
}
