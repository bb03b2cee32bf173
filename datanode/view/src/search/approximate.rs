//! Searches that look only where a grid says hits can be.
//!
//! Lists of all parts on one grid are visited by their keys, best first.  A list's rows
//! are estimated from their short codes; those that may reach the bar, are alive and of
//! the mask are ranked by their int8 codes while the next list is being estimated, and
//! raise the bar.  The first list whose key is beyond the bar ends it.

use std::sync::Arc;

use rhumb_core::query::Accuracy;

use crate::ann::{Aim, Calibration, Grid, Limits, Lists, Passing};
use crate::bits::{LiveBits, word_bit};
use crate::codes::{Codes, CodesRef};
use crate::error::ViewError;
use crate::fresh::Part as FreshPart;
use crate::rows::SegmentId;
use crate::snapshot::{FreshGroup, Sealed};

use super::calibrate::HITS;
use super::exact::Scan;

/// Lists between two looks at `cancel`.
const CANCEL_EVERY: usize = 16;

/// Lists that are visited before the others are sorted, at least.
const FIRST_LISTS: usize = 4;

/// Lists whose rows say how many pass a filter where the query is.
const NEARBY_LISTS: usize = 8;

/// Where so much fewer of the rows near a query pass than of all, its hits lie elsewhere and
/// nobody can tell how far: lists find none, so no bar ends the search and every row of a list
/// is looked up in the mask.
const SCARCER: u64 = 4;

/// Then survivors are scanned, when they are at most this part of the listed rows, or so many.
const SURVIVORS_PART: u64 = 20;
const SURVIVORS_MOST: u64 = 40_000;

/// One segment, or one stretch of a fresh group, with its lists.
pub(super) struct Listed<'a> {
    pub(super) id: SegmentId,
    pub(super) lists: Arc<Lists>,
    live: &'a LiveBits,
    mask: Option<&'a [u64]>,
    source: Source<'a>,
}

/// What rows are ranked by.
enum Source<'a> {
    Codes(Arc<Codes>),
    /// Codes of full chunks, documents of the rest.
    Fresh(&'a FreshGroup, Arc<Vec<FreshPart>>),
}

impl<'a> Listed<'a> {
    pub(super) fn sealed(
        scan: &mut Scan<'a>,
        sealed: &'a Sealed,
        lists: Arc<Lists>,
    ) -> Result<Self, ViewError> {
        Ok(Self {
            id: sealed.id,
            lists,
            live: &sealed.live,
            mask: scan.spec.mask.map(|mask| mask.part(sealed.id)),
            source: Source::Codes(scan.codes_of(sealed)?),
        })
    }

    pub(super) fn fresh(
        scan: &Scan<'a>,
        group: &'a FreshGroup,
        lists: Arc<Lists>,
        parts: Arc<Vec<FreshPart>>,
    ) -> Self {
        Self {
            id: group.id,
            lists,
            live: &group.live,
            mask: scan.spec.mask.map(|mask| mask.part(group.id)),
            source: Source::Fresh(group, parts),
        }
    }

    #[inline]
    fn wants(&self, ordinal: u32) -> bool {
        self.mask.is_none_or(|words| word_bit(words, ordinal)) && self.live.get(ordinal)
    }

    #[inline]
    fn prefetch(&self, ordinal: u32) {
        if let Source::Codes(codes) = &self.source
            && let CodesRef::Scaled(scaled) = codes.body()
        {
            scaled.prefetch(ordinal);
        }
    }

    /// All rows that are wanted, whatever list they are in.
    fn scan(&self, scan: &mut Scan<'a>) -> Result<(), ViewError> {
        match &self.source {
            Source::Codes(codes) => scan.wanted(self.id, self.live, self.mask, codes),
            Source::Fresh(..) => {
                let rows = self.lists.all().filter(|&row| self.wants(row));
                let mut rows: Vec<u32> = rows.collect();
                rows.sort_unstable();
                self.rank(scan, &rows)
            }
        }
    }

    fn rank(&self, scan: &mut Scan<'a>, ordinals: &[u32]) -> Result<(), ViewError> {
        match &self.source {
            Source::Codes(codes) => match codes.body() {
                CodesRef::Scaled(scaled) => scan.rank(self.id, 0, scaled, ordinals),
                CodesRef::Packed(_) => Err(ViewError::VectorShape),
            },
            Source::Fresh(group, parts) => self.rank_fresh(scan, group, parts, ordinals),
        }
    }
}

impl<'a> Listed<'a> {
    /// Neighbours mostly lie in one chunk, and are ranked together.
    fn rank_fresh(
        &self,
        scan: &mut Scan<'a>,
        group: &'a FreshGroup,
        parts: &[FreshPart],
        mut ordinals: &[u32],
    ) -> Result<(), ViewError> {
        let mut rows = Vec::new();
        while let Some(&first) = ordinals.first() {
            let at = parts.partition_point(|part| part.rows.end <= first);
            let codes = parts.get(at).and_then(|part| Some((part, part.codes.as_ref()?)));
            let Some((part, codes)) = codes else {
                scan.document(group, first);
                ordinals = &ordinals[1..];
                continue;
            };
            let CodesRef::Scaled(scaled) = codes.body() else {
                return Err(ViewError::VectorShape);
            };
            let together = ordinals.iter().take_while(|&ordinal| part.rows.contains(ordinal));
            rows.clear();
            rows.extend(together.map(|ordinal| ordinal - part.rows.start));
            ordinals = &ordinals[rows.len()..];
            scan.rank(self.id, part.rows.start, scaled, &rows)?;
        }
        Ok(())
    }
}

/// What one walk over the lists of a grid may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub(super) limits: Limits,
    /// Rows to estimate, whatever the keys say.
    pub(super) rows: Option<u64>,
    /// Rows in lists.
    listed: u64,
    /// Rows in a list, more for those who want more hits than was measured with.
    list_rows: f32,
}

impl Reach {
    /// `None` when only an exact search will do.
    fn of(scan: &Scan<'_>, grid: &Grid, calibration: &Calibration, listed: u64) -> Option<Self> {
        let accuracy = scan.spec.accuracy;
        let limits = match scan.limits {
            Some(limits) => limits,
            None => calibration.limits(accuracy, 1.0)?,
        };
        let rows = match accuracy {
            Accuracy::Effort(effort) => Some(u64::from(effort) * listed.div_ceil(grid.lists() as u64)),
            Accuracy::Recall(_) | Accuracy::Exact => None,
        };
        Some(Self {
            limits,
            rows,
            listed,
            list_rows: rows_per_list(listed, grid.lists()) * (scan.spec.k as f32 / HITS as f32).max(1.0),
        })
    }
}

/// What a list is when it is said how many were gone through.
pub(super) fn rows_per_list(listed: u64, lists: usize) -> f32 {
    (listed as f32 / lists as f32).max(1.0)
}

/// Parts on one grid that can place the query.
pub(super) struct Course<'a> {
    pub(super) parts: Vec<Listed<'a>>,
    aim: Aim,
    reach: Reach,
    calibration: Arc<Calibration>,
}

impl<'a> Course<'a> {
    /// Sorts parts by their grids.  Those of a grid that cannot place the query, or is not
    /// sure enough of itself, are left out.
    pub(super) fn plan(scan: &mut Scan<'a>, mut listed: Vec<Listed<'a>>) -> Vec<Self> {
        let mut courses = Vec::new();
        while let Some(grid) = listed.first().map(|part| part.lists.grid().clone()) {
            let (parts, others) = listed
                .into_iter()
                .partition::<Vec<_>, _>(|part| part.lists.grid().id() == grid.id());
            listed = others;
            let rows = parts.iter().map(|part| u64::from(part.lists.listed())).sum();
            let aim = scan.scorer.query().and_then(|query| Aim::new(&grid, query));
            let calibration = grid.calibration();
            if scan.limits.is_none() {
                let again = calibration.asked() > 0;
                scan.calibration_due |= grid.asked().note(scan.spec.query, again);
            }
            let reach = Reach::of(scan, &grid, &calibration, rows);
            if let (Some(aim), Some(reach)) = (aim, reach) {
                courses.push(Self {
                    parts,
                    aim,
                    reach,
                    calibration,
                });
            }
        }
        courses
    }

    /// Returns how many rows were estimated.
    pub(super) fn walk(&self, scan: &mut Scan<'a>) -> Result<u64, ViewError> {
        let none = || vec![Vec::new(); self.parts.len()];
        let mut walk = Walk {
            scan,
            parts: &self.parts,
            aim: &self.aim,
            reach: self.reach,
            waiting: [none(), none()],
            passing: Passing::default(),
            estimated: 0,
        };
        match walk.suit(&self.calibration) {
            Hits::Near => walk.run()?,
            Hits::Elsewhere => self.parts.iter().try_for_each(|part| part.scan(walk.scan))?,
        }
        Ok(walk.estimated)
    }
}

/// A walk over the lists of all parts on one grid.
struct Walk<'w, 'a> {
    scan: &'w mut Scan<'a>,
    parts: &'w [Listed<'a>],
    aim: &'w Aim,
    reach: Reach,
    /// Rows to be ranked, by part: found in the last list, and in this one.
    waiting: [Vec<Vec<u32>>; 2],
    passing: Passing,
    /// Rows estimated.
    estimated: u64,
}

/// Where rows that pass a filter are, as the lists near the query tell.
enum Hits {
    Near,
    /// And few enough to be scanned.
    Elsewhere,
}

impl Walk<'_, '_> {
    /// Goes as far as a filter asks for: see [`Calibration`].
    fn suit(&mut self, calibration: &Calibration) -> Hits {
        let spec = self.scan.spec;
        let Some(mask) = spec.mask.filter(|_| self.scan.limits.is_none()) else {
            return Hits::Near;
        };
        let mut keys = self.aim.keys().to_vec();
        let nearby = take_least::<NEARBY_LISTS>(&mut keys).map(|packed| unpack(packed).1);
        let (mut passing, mut all) = (0, 0);
        for part in self.parts {
            for list in nearby {
                let rows = part.lists.rows_of(list as usize);
                all += rows.len();
                passing += rows.iter().filter(|&&row| part.wants(row)).count();
            }
        }
        if let Some(limits) = calibration.limits(spec.accuracy, passing as f32 / all.max(1) as f32) {
            self.reach.limits = limits;
        }
        let (survivors, listed) = (mask.count(), self.reach.listed);
        let few = survivors <= (listed / SURVIVORS_PART).min(SURVIVORS_MOST);
        let scarce = passing as u64 * listed * SCARCER < all as u64 * survivors;
        match few && scarce && self.reach.rows.is_none() {
            true => Hits::Elsewhere,
            false => Hits::Near,
        }
    }

    fn run(&mut self) -> Result<(), ViewError> {
        self.strays()?;
        let mut keys = self.aim.keys().to_vec();
        let lists = keys.len();
        let mean = self.reach.listed as usize / lists;
        // Enough lists for a first bar, then only those that it leaves.
        let first = FIRST_LISTS.max(2 * self.scan.spec.k / mean.max(1));
        let pack_all =
            |keys: &[f32]| -> Vec<u64> { keys.iter().zip(0..).map(|(key, list)| pack(*key, list)).collect() };
        let mut order = match first {
            FIRST_LISTS if lists > 4 * FIRST_LISTS => {
                let nearest = take_least::<FIRST_LISTS>(&mut keys);
                self.visit(&nearest)?;
                self.rank_waiting()?;
                let cut = self.cut();
                let left = keys
                    .iter()
                    .zip(0u32..)
                    .filter(|(key, _)| **key <= cut && **key < f32::INFINITY);
                left.map(|(key, list)| pack(*key, list)).collect()
            }
            first if first < lists / 2 => {
                let mut order = pack_all(&keys);
                order.select_nth_unstable(first);
                let mut rest = order.split_off(first);
                order.sort_unstable();
                self.visit(&order)?;
                self.rank_waiting()?;
                let cut = self.cut();
                rest.retain(|packed| unpack(*packed).0 <= cut);
                rest
            }
            _ => pack_all(&keys),
        };
        order.sort_unstable();
        self.visit(&order)?;
        self.rank_waiting()
    }

    fn visit(&mut self, order: &[u64]) -> Result<(), ViewError> {
        for (at, packed) in order.iter().enumerate() {
            let (key, list) = unpack(*packed);
            if key > self.cut() || self.is_spent() {
                break;
            }
            if at % CANCEL_EVERY == 0 {
                self.scan.look_at_cancel()?;
            }
            if let Some(next) = order.get(at + 1) {
                let next = unpack(*next).1 as usize;
                self.parts.iter().for_each(|part| part.lists.prefetch(next));
            }
            self.list(list as usize)?;
        }
        Ok(())
    }

    /// Keys above this are of no use; none is while there are not k rows yet.
    fn cut(&self) -> f32 {
        let bar = self.scan.finalists.bar;
        match self.reach.rows {
            None if bar > f32::NEG_INFINITY => {
                let gone_through = self.estimated as f32 / self.reach.list_rows;
                self.aim.cut(bar, self.reach.limits.depth, gone_through)
            }
            _ => f32::INFINITY,
        }
    }

    fn is_spent(&self) -> bool {
        let enough = self.scan.finalists.bar > f32::NEG_INFINITY;
        enough && self.reach.rows.is_some_and(|most| self.estimated >= most)
    }

    fn list(&mut self, list: usize) -> Result<(), ViewError> {
        let bar = self.scan.finalists.bar;
        let (parts, margin) = (self.parts, self.reach.limits.margin);
        for (part, waiting) in parts.iter().zip(&mut self.waiting[1]) {
            let rows = self.aim.scan(&part.lists, list, bar, margin, &mut self.passing);
            self.estimated += u64::from(rows);
            self.passing.each(&part.lists, list, |ordinal| {
                if part.wants(ordinal) {
                    part.prefetch(ordinal);
                    waiting.push(ordinal);
                }
            });
        }
        self.rank_waiting()?;
        self.waiting.swap(0, 1);
        // Without a bar everything passes: better to have one before the next list.
        if bar == f32::NEG_INFINITY {
            self.rank_waiting()
        } else {
            Ok(())
        }
    }

    fn rank_waiting(&mut self) -> Result<(), ViewError> {
        for (part, waiting) in self.parts.iter().zip(&mut self.waiting[0]) {
            if !waiting.is_empty() {
                part.rank(self.scan, waiting)?;
                waiting.clear();
            }
        }
        Ok(())
    }

    fn strays(&mut self) -> Result<(), ViewError> {
        for part in self.parts {
            let strays: Vec<u32> = part
                .lists
                .strays()
                .iter()
                .copied()
                .filter(|&row| part.wants(row))
                .collect();
            if !strays.is_empty() {
                part.rank(self.scan, &strays)?;
            }
        }
        Ok(())
    }
}

/// The N least keys, least first; they become infinite.
fn take_least<const N: usize>(keys: &mut [f32]) -> [u64; N] {
    std::array::from_fn(|_| {
        let mut lanes = [f32::INFINITY; 16];
        let (blocks, tail) = keys.as_chunks::<16>();
        for block in blocks {
            for (lane, key) in lanes.iter_mut().zip(block) {
                *lane = if *key < *lane { *key } else { *lane };
            }
        }
        let least = lanes
            .iter()
            .chain(tail)
            .fold(f32::INFINITY, |a, &b| if b < a { b } else { a });
        let at = keys.iter().position(|key| *key == least).unwrap_or(0);
        keys[at] = f32::INFINITY;
        pack(least, at as u32)
    })
}

/// A key and its list as one number, in the order of keys; they are finite.
fn pack(key: f32, list: u32) -> u64 {
    let bits = key.to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(list)
}

fn unpack(packed: u64) -> (f32, u32) {
    let ordered = (packed >> 32) as u32;
    let bits = if ordered >> 31 == 1 {
        ordered & !(1 << 31)
    } else {
        !ordered
    };
    (f32::from_bits(bits), packed as u32)
}
