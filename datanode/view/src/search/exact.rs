//! Scans of codes, row by row: all rows of segments and of full chunks of fresh groups,
//! and documents where there are no codes yet.

use std::ops::Range;
use std::sync::Arc;

use rhumb_core::Vector;

use crate::ann::Limits;
use crate::bits::{LiveBits, Ones, mask_word, word_bit};
use crate::codes::{Codes, CodesRef, Packed, Probe, Scaled, pack_words};
use crate::error::ViewError;
use crate::kernels::kernels;
use crate::rows::{RowRef, SegmentId};
use crate::score::{Scorer, hamming_score};
use crate::snapshot::{FreshGroup, Sealed};

use super::SearchSpec;
use super::finalists::Finalists;

/// Rows per kernel call, and between two looks at `cancel`.
const BLOCK: usize = 1_024;

/// Rows that are fetched ahead: their codes fit the fastest cache together with the next ones.
const GROUP: usize = 32;

pub(super) struct Scan<'a> {
    pub(super) spec: &'a SearchSpec<'a>,
    pub(super) scorer: &'a Scorer<'a>,
    pub(super) finalists: Finalists<'a>,
    /// Instead of what the grid's calibration says.
    pub(super) limits: Option<Limits>,
    /// It is time to measure anew how far searches must go.
    pub(super) calibration_due: bool,
    /// Share of the rigorous bounds that is kept: 1 for exact answers.
    pub(super) trust: f64,
    /// Rows whose codes or documents were read.
    pub(super) rows: u64,
    /// The query as the field's codes see it.
    probe: Option<Probe>,
    dots: Vec<i32>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        spec: &'a SearchSpec<'a>,
        scorer: &'a Scorer<'a>,
        finalists: Finalists<'a>,
        trust: f64,
    ) -> Self {
        Self {
            spec,
            scorer,
            finalists,
            limits: None,
            calibration_due: false,
            trust,
            rows: 0,
            probe: None,
            dots: Vec::new(),
        }
    }

    /// The group's rows from ordinal `from` on.
    pub(super) fn fresh(&mut self, group: &'a FreshGroup, from: u32) -> Result<(), ViewError> {
        let mask = self.spec.mask.map(|mask| mask.part(group.id));
        for part in group.rows.parts(self.spec.field, self.spec.ty, from) {
            let part = part?;
            match &part.codes {
                Some(codes) => {
                    let (id, live, first) = (group.id, &group.live, part.rows.start);
                    self.stretch(&Stretch {
                        id,
                        first,
                        from,
                        live,
                        mask,
                        codes,
                    })?;
                }
                None => self.without_codes(group, part.rows.start.max(from)..part.rows.end, mask)?,
            }
        }
        Ok(())
    }

    fn without_codes(
        &mut self,
        group: &'a FreshGroup,
        rows: Range<u32>,
        mask: Option<&[u64]>,
    ) -> Result<(), ViewError> {
        self.look_at_cancel()?;
        for ordinal in rows {
            let wanted = group.live.get(ordinal) && mask.is_none_or(|words| word_bit(words, ordinal));
            if wanted {
                self.document(group, ordinal);
            }
        }
        Ok(())
    }

    /// Scores a fresh row from its document.
    pub(super) fn document(&mut self, group: &'a FreshGroup, ordinal: u32) {
        if let Some(score) = group.rows.row(ordinal).score(self.scorer, self.spec.field) {
            self.rows += 1;
            self.finalists.offer_exact(RowRef::new(group.id, ordinal), score);
        }
    }

    pub(super) fn sealed(&mut self, sealed: &'a Sealed) -> Result<(), ViewError> {
        let codes = self.codes_of(sealed)?;
        let mask = self.spec.mask.map(|mask| mask.part(sealed.id));
        self.wanted(sealed.id, &sealed.live, mask, &codes)
    }

    /// Rows of a segment that are alive and of the mask.
    pub(super) fn wanted(
        &mut self,
        id: SegmentId,
        live: &LiveBits,
        mask: Option<&[u64]>,
        codes: &Codes,
    ) -> Result<(), ViewError> {
        self.stretch(&Stretch {
            id,
            first: 0,
            from: 0,
            live,
            mask,
            codes,
        })
    }

    /// The codes of a segment; whoever finishes the search finds them again.
    pub(super) fn codes_of(&mut self, sealed: &Sealed) -> Result<Arc<Codes>, ViewError> {
        let segment = &sealed.segment;
        let Some(codes) = segment.codes(self.spec.field.as_str()) else {
            let field = self.spec.field.clone();
            return Err(ViewError::NotLoaded {
                fragment: segment.fragment(),
                field,
            });
        };
        if !codes.is_of(self.spec.ty) {
            return Err(ViewError::VectorShape);
        }
        self.finalists.scanned.insert(sealed.id, codes.clone());
        Ok(codes)
    }

    fn stretch(&mut self, stretch: &Stretch<'_>) -> Result<(), ViewError> {
        match stretch.codes.body() {
            CodesRef::Scaled(scaled) => self.blocks(stretch, |scan, rows| {
                scan.gather(stretch.id, stretch.first, scaled, rows)
            }),
            CodesRef::Packed(packed) => self.packed(stretch, packed),
        }
    }

    /// As `rank`, for rows that nobody has fetched: those of a mask lie far apart, so the next
    /// ones are on their way while these are worked on.
    fn gather(&mut self, id: SegmentId, first: u32, scaled: &Scaled, rows: &[u32]) -> Result<(), ViewError> {
        let fetch = |rows: &[u32]| {
            rows.iter().for_each(|&row| scaled.prefetch(row));
        };
        let mut groups = rows.chunks(GROUP).peekable();
        groups.peek().into_iter().for_each(|rows| fetch(rows));
        while let Some(rows) = groups.next() {
            groups.peek().into_iter().for_each(|rows| fetch(rows));
            self.rank(id, first, scaled, rows)?;
        }
        Ok(())
    }

    /// Offers rows of `scaled`, whose row 0 is ordinal `first`.
    pub(super) fn rank(
        &mut self,
        id: SegmentId,
        first: u32,
        scaled: &Scaled,
        rows: &[u32],
    ) -> Result<(), ViewError> {
        let probe = match &self.probe {
            Some(probe) => probe,
            None => {
                let probe = Probe::new(self.spec.ty.metric, self.scorer, scaled);
                self.probe.insert(probe.ok_or(ViewError::VectorShape)?)
            }
        };
        self.rows += rows.len() as u64;
        for rows in rows.chunks(BLOCK) {
            self.dots.resize(rows.len(), 0);
            (kernels().dot_rows)(&probe.query, &scaled.codes, rows, &mut self.dots);
            for (&row, &dot) in rows.iter().zip(self.dots.iter()) {
                let bounds = probe.bounds(&scaled.rows[row as usize], dot).within(self.trust);
                self.finalists.offer(RowRef::new(id, first + row), bounds);
            }
        }
        Ok(())
    }

    fn packed(&mut self, stretch: &Stretch<'_>, packed: &Packed) -> Result<(), ViewError> {
        let Vector::Bits(query) = self.spec.query else {
            return Err(ViewError::VectorShape);
        };
        let query: Vec<u64> = pack_words(query).collect();
        let mut differing = [0; BLOCK];
        self.blocks(stretch, |scan, rows| {
            scan.rows += rows.len() as u64;
            let differing = &mut differing[..rows.len()];
            (kernels().hamming_rows)(&query, &packed.words, rows, differing);
            for (&row, &differing) in rows.iter().zip(differing.iter()) {
                let row = RowRef::new(stretch.id, stretch.first + row);
                scan.finalists.offer_exact(row, hamming_score(differing));
            }
            Ok(())
        })
    }

    /// Rows of the codes that are alive and of the mask, a block at a time.
    fn blocks(
        &mut self,
        stretch: &Stretch<'_>,
        mut block: impl FnMut(&mut Self, &[u32]) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        let mut rows = Vec::with_capacity(BLOCK);
        for (at, &present) in stretch.codes.present().words().iter().enumerate() {
            rows.extend(Ones {
                word: present & stretch.wanted(at),
                base: at as u32 * u64::BITS,
            });
            if rows.len() + u64::BITS as usize > BLOCK {
                self.look_at_cancel()?;
                block(self, &rows)?;
                rows.clear();
            }
        }
        self.look_at_cancel()?;
        block(self, &rows)
    }

    pub(super) fn look_at_cancel(&self) -> Result<(), ViewError> {
        match (self.spec.cancel)() {
            true => Err(ViewError::Cancelled),
            false => Ok(()),
        }
    }
}

/// Codes and the rows they are of: a segment, or a full chunk of a fresh group.
struct Stretch<'a> {
    id: SegmentId,
    /// The ordinal of the codes' row 0, a multiple of 64.
    first: u32,
    /// Ordinals below this are left out.
    from: u32,
    live: &'a LiveBits,
    mask: Option<&'a [u64]>,
    codes: &'a Codes,
}

impl Stretch<'_> {
    /// Live rows of the mask among the 64 from row `64 * at` of the codes.
    fn wanted(&self, at: usize) -> u64 {
        let at = self.first as usize / u64::BITS as usize + at;
        let from = match (self.from as usize).saturating_sub(at * u64::BITS as usize) {
            late @ 0..64 => u64::MAX << late,
            _ => 0,
        };
        self.live.word(at) & mask_word(self.mask, at) & from
    }
}
