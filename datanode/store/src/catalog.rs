//! Which collections there are: one object per collection, `catalog/<name>`.
//!
//! The object's name is the collection's name and nothing more: a suffix would make the
//! bucket's order (`a-b.json` before `a.json`) differ from the order of names, and pages
//! of a listing are cut along the bucket's order.
//!
//! Entries are changed by compare-and-swap and never deleted.  Object stores have no
//! conditional delete that all of them honour, so a DELETE that arrives late could take a
//! re-created collection away; instead the entry of a removed collection stays behind as
//! `Deleted`, a few hundred bytes, and is replaced when the name is used again.  Every
//! call after `create` names the collection by id, so none of them ever meets a namesake.
//!
//! Nothing is cached here: the engine decides how old a copy may be.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use rhumb_core::{CollectionId, CollectionName, Schema};
use serde::{Deserialize, Serialize};

use crate::cas::{Cas, Swap};
use crate::{Bucket, Result, StoreError};

/// Others that may come between the steps of one `create`.
const RACES: u32 = 64;
/// Entries of one page that are read at once.
const READS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogState {
    Active,
    /// Refused to every request; partitions are being sealed.
    Deleting,
    /// The name is free again.
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogEntry {
    pub id: CollectionId,
    pub name: CollectionName,
    pub created_at_ms: i64,
    pub schema: Schema,
    pub partitions: u32,
    pub state: CatalogState,
    /// In a cluster, the process that leads the collection: each one writes itself in
    /// before it serves, so that whatever an earlier one read can no longer be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// What the engine keeps per collection; not understood here.
    pub settings: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Creation {
    Created(CatalogEntry),
    /// Another entry has the name.  It may be on its way out (`Deleting`).
    Exists(CatalogEntry),
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    bucket: Bucket,
}

impl Catalog {
    pub fn new(bucket: &Bucket) -> Self {
        Self {
            bucket: bucket.clone(),
        }
    }

    /// One PUT when the name was never used.  After `Unknown` the same entry may be
    /// created again: its id tells.
    pub async fn create(&self, entry: CatalogEntry) -> Result<Creation> {
        let cas = self.entry(&entry.name);
        let mut swap = cas.create(entry.clone()).await?;
        for _ in 0..RACES {
            let current = match swap {
                Swap::Landed(now) => now,
                Swap::Unknown => {
                    return Err(StoreError::Unknown {
                        path: cas.path().clone(),
                    });
                }
                Swap::Lost(now) => now,
            };
            if current.value.id == entry.id {
                return Ok(Creation::Created(current.value));
            }
            if current.value.state != CatalogState::Deleted {
                return Ok(Creation::Exists(current.value));
            }
            swap = cas.replace(&current, entry.clone()).await?;
        }
        Err(StoreError::Conflict {
            path: cas.path().clone(),
        })
    }

    /// The entry, also while it is being deleted.  One GET.
    pub async fn load(&self, name: &CollectionName) -> Result<Option<CatalogEntry>> {
        let cas = self.entry(name);
        let found = cas.load().await?.map(|found| found.value);
        if let Some(entry) = found.as_ref().filter(|entry| entry.name != *name) {
            return Err(StoreError::Corrupt {
                path: cas.path().clone(),
                reason: format!("it is the entry of '{}'", entry.name),
            });
        }
        Ok(found.filter(|entry| entry.state != CatalogState::Deleted))
    }

    /// Edits the entry of an active collection.  `edit` may run several times, always on
    /// the newest entry; what it changes of name, id and state is put back.
    pub async fn update(
        &self,
        name: &CollectionName,
        id: &CollectionId,
        mut edit: impl FnMut(&mut CatalogEntry) -> Result<()>,
    ) -> Result<CatalogEntry> {
        let cas = self.entry(name);
        let changed = cas
            .update(|current| {
                if current.id != *id || current.state != CatalogState::Active {
                    return Err(StoreError::NotFound {
                        path: cas.path().clone(),
                    });
                }
                let mut next = current.clone();
                edit(&mut next)?;
                Ok(CatalogEntry {
                    id: current.id.clone(),
                    name: current.name.clone(),
                    state: current.state,
                    ..next
                })
            })
            .await?;
        Ok(changed.value)
    }

    /// First step of a removal: from here on no request is accepted.  Repeating it is fine.
    /// `may` judges the entry that is there, each time before it is replaced.
    pub async fn start_removal(
        &self,
        name: &CollectionName,
        id: &CollectionId,
        may: impl Fn(&CatalogEntry) -> Result<()>,
    ) -> Result<CatalogEntry> {
        self.advance(name, id, CatalogState::Deleting, may).await
    }

    /// Last step, once every partition is sealed: the name is free.  Repeating it is fine.
    pub async fn finish_removal(&self, name: &CollectionName, id: &CollectionId) -> Result<()> {
        self.advance(name, id, CatalogState::Deleted, |_| Ok(()))
            .await
            .map(drop)
    }

    /// Entries that are not deleted, in order of name: those that start with `prefix` and
    /// come after `after`, at most `limit`.  A LIST, and a GET per entry.
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Result<Vec<CatalogEntry>> {
        // The bucket lists what comes *after* a path, so a name that is the prefix itself
        // has to be asked for.
        let exact = match (prefix, CollectionName::parse(prefix)) {
            ("", _) => None,
            (_, Ok(name)) => Some(name),
            // No name starts like that, and only names may reach a path.
            (_, Err(_)) => return Ok(Vec::new()),
        };
        let after = after.map_or("", CollectionName::as_str);
        let named = exact.filter(|name| name.as_str() > after);
        let listed = self.names_after(prefix.max(after));
        let names = futures::stream::iter(named.map(Ok))
            .chain(listed)
            .try_take_while(|name| std::future::ready(Ok(name.as_str().starts_with(prefix))));
        let entries = names
            .map_ok(|name| async move { self.load(&name).await })
            .try_buffered(READS);
        entries
            .try_filter_map(|entry| std::future::ready(Ok(entry)))
            .take(limit)
            .try_collect()
            .await
    }

    fn names_after(&self, start: &str) -> impl futures::Stream<Item = Result<CollectionName>> {
        let folder = self.bucket.path("catalog");
        let store = self.bucket.object_store();
        let listed = if start.is_empty() {
            store.list(Some(&folder))
        } else {
            store.list_with_offset(Some(&folder), &self.bucket.path(&format!("catalog/{start}")))
        };
        listed.map_err(StoreError::from).try_filter_map(|object| {
            let name = object
                .location
                .filename()
                .and_then(|name| CollectionName::parse(name).ok());
            std::future::ready(Ok(name))
        })
    }

    async fn advance(
        &self,
        name: &CollectionName,
        id: &CollectionId,
        to: CatalogState,
        may: impl Fn(&CatalogEntry) -> Result<()>,
    ) -> Result<CatalogEntry> {
        let cas = self.entry(name);
        let missing = || StoreError::NotFound {
            path: cas.path().clone(),
        };
        let found = cas.load().await?.ok_or_else(missing)?;
        if found.value.id == *id && found.value.state == to {
            return Ok(found.value);
        }
        let changed = cas
            .update(|current| {
                let from_here = match (current.state, to) {
                    (CatalogState::Active | CatalogState::Deleting, CatalogState::Deleting) => true,
                    (CatalogState::Deleting | CatalogState::Deleted, CatalogState::Deleted) => true,
                    // Sealing comes before deleting, and nothing comes back.
                    _ => false,
                };
                if current.id != *id || !from_here {
                    return Err(missing());
                }
                may(current)?;
                Ok(CatalogEntry {
                    state: to,
                    ..current.clone()
                })
            })
            .await?;
        Ok(changed.value)
    }

    fn entry(&self, name: &CollectionName) -> Cas<CatalogEntry> {
        let path: Path = self.bucket.path(&format!("catalog/{name}"));
        Cas::new(self.bucket.clone(), path)
    }
}

#[cfg(test)]
mod tests;
