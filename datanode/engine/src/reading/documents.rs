//! Documents of hits, of rows and of ids.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::try_join_all;
use rhumb_core::query::{Group, Hit, Hits, Include, Query, Stored};
use rhumb_core::{DocId, Document, Value};
use rhumb_view::RowRef;

use super::Reading;
use super::legs::{Found, Ranked};
use crate::error::EngineError;

impl Reading {
    /// Hits with what was asked for of their documents.
    pub(super) async fn hits(&self, ranked: Ranked, query: &Query) -> Result<Hits, EngineError> {
        let groups = match ranked {
            Ranked::Flat(found) => return Ok(Hits::Flat(self.with_documents(found, query).await?)),
            Ranked::Grouped(groups) => groups,
        };
        // All documents in one go, whatever their groups.
        let sizes: Vec<(Value, usize)> = groups
            .iter()
            .map(|(value, found)| (value.clone(), found.len()))
            .collect();
        let found = groups.into_iter().flat_map(|(_, found)| found).collect();
        let mut hits = self.with_documents(found, query).await?.into_iter();
        let group = |(value, size)| Group {
            value,
            hits: hits.by_ref().take(size).collect(),
        };
        Ok(Hits::Grouped(sizes.into_iter().map(group).collect()))
    }

    async fn with_documents(&self, found: Vec<Found>, query: &Query) -> Result<Vec<Hit>, EngineError> {
        let hit = |f: Found| Hit {
            id: f.id,
            score: f.score,
            document: None,
            highlights: Vec::new(),
        };
        let include = query.fetched();
        if include == Include::Nothing {
            return Ok(found.into_iter().map(hit).collect());
        }
        let rows: Vec<(usize, RowRef)> = found.iter().map(|f| (f.part, f.row)).collect();
        let documents = self.documents(&rows, &include).await?;
        let mut hits = Vec::with_capacity(found.len());
        for (f, document) in found.into_iter().zip(documents) {
            let highlights = match &query.highlight {
                Some(highlight) => self.highlights(highlight, &query.legs, &document)?,
                None => Vec::new(),
            };
            hits.push(Hit {
                document: (query.include != Include::Nothing).then(|| document.as_ref().clone()),
                highlights,
                ..hit(f)
            });
        }
        Ok(hits)
    }

    /// Documents of rows of any partition, in the order asked for.
    pub(super) async fn documents(
        &self,
        rows: &[(usize, RowRef)],
        include: &Include,
    ) -> Result<Vec<Arc<Document>>, EngineError> {
        let mut documents: Vec<Arc<Document>> = vec![Arc::default(); rows.len()];
        for (at, part) in self.parts.iter().enumerate() {
            let places: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].0 == at).collect();
            let of_part: Vec<RowRef> = places.iter().map(|i| rows[*i].1).collect();
            for (place, document) in places.into_iter().zip(part.documents(&of_part, include).await?) {
                documents[place] = document;
            }
        }
        Ok(documents)
    }

    /// In the order of `ids`; `None` where there is no such document.  Answered from the
    /// newest state, which is no older than the snapshot.
    pub async fn get(&self, ids: &[DocId], include: &Include) -> Result<Vec<Option<Stored>>, EngineError> {
        let count = self.partitions.len() as u32;
        let mut by_part: Vec<Vec<DocId>> = vec![Vec::new(); self.partitions.len()];
        for id in ids {
            by_part[id.partition(count) as usize].push(id.clone());
        }
        let gets = self
            .partitions
            .iter()
            .zip(by_part)
            .filter(|(_, ids)| !ids.is_empty());
        let found = try_join_all(gets.map(|(p, ids)| p.shared.stored(ids, |_| true, include))).await?;
        let mut by_id: HashMap<DocId, Stored> = HashMap::new();
        for (id, old) in found.into_iter().flatten() {
            let document = old.document.map(Arc::unwrap_or_clone).unwrap_or_default();
            by_id.insert(
                id.clone(),
                Stored {
                    id,
                    version: old.seq,
                    document,
                },
            );
        }
        Ok(ids.iter().map(|id| by_id.get(id).cloned()).collect())
    }
}
