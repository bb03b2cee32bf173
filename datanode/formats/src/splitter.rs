//! The formats that can be read while they arrive, behind one face.

use rhumb_core::{Limits, Problem};

use crate::chunk::Chunk;
use crate::csv::Records;
use crate::frames::Frames;
use crate::lines::Lines;

pub enum Splitter {
    Ndjson(Lines),
    Csv(Box<Records>),
    Arrow(Box<Frames>),
}

impl Splitter {
    pub fn ndjson(limits: &Limits) -> Self {
        Self::Ndjson(Lines::new(longest_row(limits)))
    }

    pub fn csv(limits: &Limits) -> Self {
        Self::Csv(Box::new(Records::new(longest_row(limits))))
    }

    pub fn arrow(limits: &Limits) -> Self {
        Self::Arrow(Box::new(Frames::new(limits.body_bytes)))
    }

    /// `None` is the end.
    pub fn push(&mut self, bytes: Option<&[u8]>) -> Result<(), Problem> {
        match (self, bytes) {
            (Self::Ndjson(lines), Some(bytes)) => lines.push(bytes),
            (Self::Ndjson(lines), None) => lines.finish(),
            (Self::Csv(records), Some(bytes)) => records.push(bytes)?,
            (Self::Csv(records), None) => records.finish()?,
            (Self::Arrow(frames), Some(bytes)) => {
                frames.push(bytes);
                frames.advance()?;
            }
            (Self::Arrow(frames), None) => frames.finish()?,
        }
        Ok(())
    }

    /// Whether enough is there to say that the file is what it is said to be.
    pub fn has_head(&self) -> bool {
        match self {
            Self::Ndjson(_) => true,
            Self::Csv(records) => records.has_header(),
            Self::Arrow(frames) => frames.has_schema(),
        }
    }

    pub fn is_full(&self) -> bool {
        match self {
            Self::Ndjson(lines) => lines.is_full(),
            Self::Csv(records) => records.is_full(),
            Self::Arrow(frames) => frames.has_rows(),
        }
    }

    /// What is there, a full chunk at most.
    pub fn take(&mut self) -> Result<Option<Chunk>, Problem> {
        match self {
            Self::Ndjson(lines) => Ok(lines.take()),
            Self::Csv(records) => Ok(records.take()),
            Self::Arrow(frames) => frames.take(),
        }
    }
}

/// A row may take twice what its document may, being text.
fn longest_row(limits: &Limits) -> usize {
    limits.document_bytes.saturating_mul(2)
}
