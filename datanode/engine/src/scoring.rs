//! Scores of a search's candidates, from their stored vectors.
//!
//! The quick way first: bytes straight from the base's file, believed only when the score
//! they give is one that the row's code allows.  What fails there is read through Lance,
//! which checks every block.

use std::sync::Arc;

use rhumb_core::{FieldName, Vector, VectorType};
use rhumb_view::{Codes, Proof, RowRef, Scorer, SegmentId};

use crate::error::EngineError;
use crate::pinned::{Pinned, bug};
use crate::raw::RawVectors;

/// One segment's vectors of a field, as far as they can be read quickly.
struct Source {
    segment: SegmentId,
    raw: Option<Arc<RawVectors>>,
    codes: Option<Arc<Codes>>,
}

impl Pinned {
    /// Every row that has a vector, in no particular order.
    pub async fn scores(
        &self,
        field: &FieldName,
        ty: &VectorType,
        query: &Vector,
        rows: &[RowRef],
    ) -> Result<Vec<(RowRef, f32)>, EngineError> {
        let scorer = Scorer::new(ty, query).map_err(bug)?;
        let sources = self.sources(field, ty, rows).await?;
        let proof = sources
            .iter()
            .find_map(|source| Proof::new(&scorer, source.codes.as_ref()?));
        let mut scored = Vec::with_capacity(rows.len());
        let mut left = Vec::new();
        if let Some(proof) = &proof {
            let (mut bytes, mut vector) = (Vec::new(), Vec::new());
            for row in rows {
                let source = sources.iter().find(|source| source.segment == row.segment);
                let score = source.and_then(|source| {
                    let (raw, codes) = (source.raw.as_ref()?, source.codes.as_ref()?);
                    let found = raw.read_now(row.ordinal, &mut bytes, &mut vector);
                    let score = found.then(|| scorer.score_f32(&vector)).flatten()?;
                    proof.allows(codes, row.ordinal, score).then_some(score)
                });
                match score {
                    Some(score) => scored.push((*row, score)),
                    None => left.push(*row),
                }
            }
            self.fetched(&sources, &scorer, proof, &mut left, &mut scored)
                .await?;
        } else {
            left.extend_from_slice(rows);
        }
        let vectors = self.vectors(field, ty, &left).await?;
        let score = |(row, vector): (&RowRef, &Option<Vector>)| Some((*row, scorer.score(vector.as_ref()?)?));
        scored.extend(left.iter().zip(&vectors).filter_map(score));
        Ok(scored)
    }

    async fn sources(
        &self,
        field: &FieldName,
        ty: &VectorType,
        rows: &[RowRef],
    ) -> Result<Vec<Source>, EngineError> {
        let mut sources: Vec<Source> = Vec::new();
        for row in rows {
            if sources.iter().any(|source| source.segment == row.segment) {
                continue;
            }
            let Some(sealed) = self.snapshot.segment(row.segment) else {
                continue;
            };
            let (segment, base) = (sealed.segment(), self.base()?);
            let raw = self
                .raws
                .find(base, &self.env.bucket, segment.fragment(), field, ty)
                .await?;
            sources.push(Source {
                segment: row.segment,
                raw,
                codes: segment.codes(field.as_str()),
            });
        }
        Ok(sources)
    }

    /// What was not in memory, in one round trip per segment, all at once.
    async fn fetched(
        &self,
        sources: &[Source],
        scorer: &Scorer<'_>,
        proof: &Proof,
        left: &mut Vec<RowRef>,
        scored: &mut Vec<(RowRef, f32)>,
    ) -> Result<(), EngineError> {
        let of = |source: &Source| -> Vec<u32> {
            let rows = left.iter().filter(|row| row.segment == source.segment);
            rows.map(|row| row.ordinal).collect()
        };
        let reads = sources.iter().map(|source| async move {
            let ordinals = of(source);
            match &source.raw {
                Some(raw) if !ordinals.is_empty() => {
                    let vectors = raw.read(&self.env.bucket, &ordinals).await?;
                    Ok((source, ordinals, vectors.unwrap_or_default()))
                }
                _ => Ok((source, Vec::new(), Vec::new())),
            }
        });
        let read: Vec<_> = futures::future::try_join_all(reads)
            .await
            .map_err(|e: EngineError| e)?;
        let before = scored.len();
        for (source, ordinals, vectors) in read {
            let Some(codes) = &source.codes else { continue };
            for (ordinal, vector) in ordinals.into_iter().zip(vectors) {
                let score = scorer.score_f32(&vector);
                if let Some(score) = score.filter(|score| proof.allows(codes, ordinal, *score)) {
                    scored.push((RowRef::new(source.segment, ordinal), score));
                }
            }
        }
        left.retain(|row| !scored[before..].iter().any(|(done, _)| done == row));
        Ok(())
    }
}
