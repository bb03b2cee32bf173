//! Documents of rows and of ids.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::try_join_all;
use rhumb_core::query::{Hit, Include, Stored};
use rhumb_core::{DocId, Document};
use rhumb_view::RowRef;

use super::Reading;
use super::legs::Found;
use crate::error::EngineError;

impl Reading {
    pub(super) async fn with_documents(
        &self,
        found: Vec<Found>,
        include: &Include,
    ) -> Result<Vec<Hit>, EngineError> {
        let hit = |f: Found, document| Hit {
            id: f.id,
            score: f.score,
            document,
        };
        if *include == Include::Nothing {
            return Ok(found.into_iter().map(|f| hit(f, None)).collect());
        }
        let rows: Vec<(usize, RowRef)> = found.iter().map(|f| (f.part, f.row)).collect();
        let documents = self.documents(&rows, include).await?;
        Ok(found
            .into_iter()
            .zip(documents)
            .map(|(f, d)| hit(f, Some(d.as_ref().clone())))
            .collect())
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
