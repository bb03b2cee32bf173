//! The text leg.  Nothing is indexed for it yet: a query with one is refused, whatever
//! else it asks.

use rhumb_core::query::{Highlight, Leg, TextLeg, Touched};
use rhumb_core::{Code, Document, FieldName, Problem};
use tokio::time::Instant;

use super::Reading;
use super::legs::{Found, Masks};
use crate::error::EngineError;

impl Reading {
    /// The best `depth` rows of each partition by BM25.
    pub(super) async fn text(
        &self,
        _leg: &TextLeg,
        _depth: usize,
        _masks: &Masks,
        _deadline: Option<Instant>,
        _touched: &mut Touched,
    ) -> Result<Vec<Found>, EngineError> {
        let problem = Problem::new(Code::InvalidValue, "this server does not search texts yet");
        Err(problem
            .field("text")
            .hint("leave the text leg out; a filter with $prefix, $glob or $regex finds strings")
            .into())
    }

    /// Passages of a hit's fields in which words of its text legs were found.
    pub(super) fn highlights(
        &self,
        _highlight: &Highlight,
        _legs: &[Leg],
        _document: &Document,
    ) -> Result<Vec<(FieldName, Vec<String>)>, EngineError> {
        Ok(Vec::new())
    }
}
