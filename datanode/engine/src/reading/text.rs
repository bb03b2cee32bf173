//! The text leg, and what of a hit's texts it was found by.

use std::sync::Arc;

use rhumb_core::query::{Highlight, Leg, Operator, TextLeg};
use rhumb_core::{Document, FieldName, Value};
use rhumb_text::{Boosted, Fragment, HighlightSpec, TextFields, TextQuery, highlight};
use rhumb_view::{TextPart, TextSpec, ViewError, search_text};

use super::Reading;
use super::legs::{Found, Masks};
use crate::error::EngineError;

/// Of a query and a collection that are searched on the request's own thread.
const INLINE_BYTES: usize = 128;
const INLINE_ROWS: u64 = 200_000;

impl Reading {
    /// The best `depth` rows by BM25, with one statistic over all partitions.
    pub(super) async fn text(
        &self,
        leg: &TextLeg,
        depth: usize,
        masks: &Masks,
    ) -> Result<Vec<Found>, EngineError> {
        let (Some(first), Some(fields)) = (self.parts.first(), self.text_fields()?) else {
            return Ok(Vec::new());
        };
        let query = asked(leg);
        // Held until the answer: under memory pressure one load may evict another.
        let mut held = Vec::new();
        for part in &self.parts {
            held.extend(part.load_splits(&fields).await?);
        }
        let snapshots: Vec<_> = self.parts.iter().map(|part| part.snapshot.clone()).collect();
        let masks = masks.to_vec();
        let search = move || {
            let parts: Vec<TextPart<'_>> = snapshots
                .iter()
                .zip(&masks)
                .map(|(snapshot, mask)| TextPart {
                    snapshot,
                    mask: mask.as_ref(),
                })
                .collect();
            let spec = TextSpec {
                query: &query,
                fields: &fields,
                k: depth,
            };
            search_text(&parts, &spec)
        };
        let rows: u64 = self.parts.iter().map(|part| part.snapshot.live_rows()).sum();
        let found = match is_quick(leg, rows) {
            true => search(),
            false => first.compute(search).await?,
        };
        let found = found.map_err(|e| match e {
            ViewError::Refused(problem) => EngineError::from(problem.within("text")),
            e => EngineError::Bug(e.to_string()),
        })?;
        let found = found.into_iter().map(|(part, hit)| Found {
            part,
            row: hit.row,
            id: hit.id,
            score: hit.score,
        });
        Ok(found.collect())
    }

    /// Passages of a hit's fields in which words of its text legs were found.
    pub(super) fn highlights(
        &self,
        wanted: &Highlight,
        legs: &[Leg],
        document: &Document,
    ) -> Result<Vec<(FieldName, Vec<String>)>, EngineError> {
        let Some(fields) = self.text_fields()? else {
            return Ok(Vec::new());
        };
        let spec = HighlightSpec {
            fragments: wanted.passages,
            fragment_bytes: wanted.length,
        };
        let texts = legs.iter().filter_map(|leg| match leg {
            Leg::Text(leg) => Some(asked(leg)),
            Leg::Vector(_) | Leg::Sparse(_) => None,
        });
        let queries: Vec<TextQuery> = texts.collect();
        let mut highlights = Vec::new();
        for field in &wanted.fields {
            let Some(Value::Str(text)) = document.get(field.as_str()) else {
                continue;
            };
            let mut passages = Vec::new();
            for query in &queries {
                for fragment in highlight(text, field, query, &fields, spec)? {
                    let passage = marked(text, &fragment, wanted);
                    if passages.len() < wanted.passages && !passages.contains(&passage) {
                        passages.push(passage);
                    }
                }
            }
            if !passages.is_empty() {
                highlights.push((field.clone(), passages));
            }
        }
        Ok(highlights)
    }

    /// `None` without a partition.
    fn text_fields(&self) -> Result<Option<Arc<TextFields>>, EngineError> {
        let first = self.partitions.first();
        first.map(|partition| partition.shared.schema.texts()).transpose()
    }
}

/// Whether it takes some hundred microseconds at most, and so not much longer than a hop to
/// another thread.
fn is_quick(leg: &TextLeg, rows: u64) -> bool {
    let expands = leg.prefix || leg.fuzzy > 0 || leg.operator == Operator::Phrase;
    !expands && leg.query.len() <= INLINE_BYTES && rows <= INLINE_ROWS
}

fn asked(leg: &TextLeg) -> TextQuery {
    let boosted = |(field, boost): &(FieldName, f32)| Boosted {
        field: field.clone(),
        boost: *boost,
    };
    TextQuery {
        query: leg.query.to_string(),
        fields: leg.fields.iter().map(boosted).collect(),
        operator: match leg.operator {
            Operator::Or => rhumb_text::Operator::Or,
            Operator::And => rhumb_text::Operator::And,
            Operator::Phrase => rhumb_text::Operator::Phrase,
        },
        prefix: leg.prefix,
        fuzzy: leg.fuzzy,
    }
}

/// The passage with its words marked.
fn marked(text: &str, fragment: &Fragment, wanted: &Highlight) -> String {
    let mut marked = String::new();
    let mut from = fragment.range.start;
    for mark in &fragment.marks {
        marked.push_str(&text[from..mark.start]);
        marked.push_str(&wanted.before);
        marked.push_str(&text[mark.clone()]);
        marked.push_str(&wanted.after);
        from = mark.end;
    }
    marked.push_str(&text[from..fragment.range.end]);
    marked
}
