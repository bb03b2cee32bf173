//! The schema of one open collection, and the only way it grows; its quota too.
//!
//! A new field is in the catalog before the first row that has it is in the log, so that
//! recovery always knows every column it meets; and it gets there only once a write is
//! certain to apply (P20).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rhumb_core::schema::NewFields;
use rhumb_core::{Code, CollectionName, FieldName, FieldType, Limits, Problem, Quota, Schema};
use rhumb_store::catalog::{Catalog, CatalogEntry, CatalogState};
use rhumb_store::{ErrorKind, StoreError};
use rhumb_text::TextFields;
use serde::Deserialize;
use serde_json::json;

use crate::error::EngineError;
use crate::lead::Lead;

pub struct SchemaCell {
    catalog: Catalog,
    lead: Lead,
    limits: Limits,
    name: CollectionName,
    entry: RwLock<Arc<CatalogEntry>>,
    schema: RwLock<Arc<Schema>>,
    /// How the texts of a schema are analyzed: made once for each schema.
    texts: Mutex<Option<(Arc<Schema>, Arc<TextFields>)>>,
    /// One change at a time: the catalog would refuse the second anyway.
    changing: tokio::sync::Mutex<()>,
}

impl SchemaCell {
    pub fn new(catalog: Catalog, lead: Lead, entry: CatalogEntry, limits: Limits) -> Self {
        let schema = Arc::new(entry.schema.clone());
        Self {
            catalog,
            lead,
            limits,
            name: entry.name.clone(),
            entry: RwLock::new(Arc::new(entry)),
            schema: RwLock::new(schema),
            texts: Mutex::new(None),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    pub fn entry(&self) -> Arc<CatalogEntry> {
        self.entry.read().clone()
    }

    pub fn schema(&self) -> Arc<Schema> {
        self.schema.read().clone()
    }

    pub fn quota(&self) -> Result<Quota, EngineError> {
        quota_of(&self.entry())
    }

    pub fn texts(&self) -> Result<Arc<TextFields>, EngineError> {
        let schema = self.schema();
        let mut known = self.texts.lock();
        match known.as_ref() {
            Some((of, texts)) if Arc::ptr_eq(of, &schema) => Ok(texts.clone()),
            _ => {
                let texts = Arc::new(TextFields::of(&schema)?);
                *known = Some((schema, texts.clone()));
                Ok(texts)
            }
        }
    }

    /// Adds what a write infers and the schema has not.  What another write fixed
    /// meanwhile in another way is `SchemaMoved`: the request is typed again, and told
    /// then what is wrong with it.
    pub async fn extend(&self, new: &NewFields) -> Result<(), EngineError> {
        if self.schema().covers(new) {
            return Ok(());
        }
        let extend = |entry: &CatalogEntry| {
            let schema = entry.schema.extend(new, &self.limits)?;
            Ok(CatalogEntry {
                schema,
                ..entry.clone()
            })
        };
        match self.change(extend).await {
            Err(EngineError::Refused(problem)) if problem.code != Code::CollectionNotFound => {
                Err(EngineError::SchemaMoved)
            }
            changed => changed,
        }
    }

    /// Adds declared fields, changes those settings of a field that may change, and sets the
    /// quota if there is one.
    pub async fn declare(
        &self,
        fields: &BTreeMap<FieldName, FieldType>,
        quota: Option<Quota>,
    ) -> Result<(), EngineError> {
        let declare = |entry: &CatalogEntry| {
            let declared = entry.schema.declare(fields, &self.limits);
            let mut next = CatalogEntry {
                schema: declared.map_err(|problem| problem.within("fields"))?,
                ..entry.clone()
            };
            if let Some(quota) = quota {
                set_quota(&mut next, quota);
            }
            Ok(next)
        };
        self.change(declare).await
    }

    async fn change(
        &self,
        change: impl Fn(&CatalogEntry) -> Result<CatalogEntry, Problem>,
    ) -> Result<(), EngineError> {
        let _one = self.changing.lock().await;
        let known = self.entry();
        if change(&known).is_ok_and(|same| same == *known) {
            return Ok(());
        }
        let mut refused = None;
        let updated = self
            .catalog
            .update(&self.name, &known.id, |entry| match change(entry) {
                Ok(next) => {
                    *entry = next;
                    self.lead.sign(entry)
                }
                Err(problem) => {
                    refused = Some((problem, entry.clone()));
                    Err(StoreError::Conflict {
                        path: Default::default(),
                    })
                }
            });
        let updated = updated.await;
        match (updated, refused) {
            (Ok(entry), _) => self.adopt(entry),
            (Err(_), Some((problem, entry))) => {
                // Another server's fields, perhaps: the next request is typed under them.
                self.adopt(entry);
                return Err(problem.into());
            }
            (Err(e), None) if e.kind() == ErrorKind::NotFound => return Err(deleted(&self.name)),
            (Err(e), None) => return Err(e.into()),
        }
        Ok(())
    }

    /// As the catalog has it now: for whoever does not make the changes.
    pub async fn refresh(&self) -> Result<(), EngineError> {
        let found = self.catalog.load(&self.name).await?;
        let same = found.filter(|entry| entry.state == CatalogState::Active && entry.id == self.entry().id);
        self.adopt(same.ok_or_else(|| deleted(&self.name))?);
        Ok(())
    }

    fn adopt(&self, entry: CatalogEntry) {
        *self.schema.write() = Arc::new(entry.schema.clone());
        *self.entry.write() = Arc::new(entry);
    }
}

/// Where the catalog keeps the quota among the settings of a collection.
const QUOTA: &str = "quota";

/// The quota of a collection; none has no bound.
pub fn quota_of(entry: &CatalogEntry) -> Result<Quota, EngineError> {
    match entry.settings.get(QUOTA) {
        None => Ok(Quota::default()),
        Some(kept) => Quota::deserialize(kept)
            .map_err(|e| EngineError::Corrupt(format!("the quota of collection '{}': {e}", entry.name))),
    }
}

pub fn set_quota(entry: &mut CatalogEntry, quota: Quota) {
    match quota.is_boundless() {
        true => entry.settings.remove(QUOTA),
        false => entry.settings.insert(QUOTA.to_owned(), json!(quota)),
    };
}

fn deleted(name: &CollectionName) -> EngineError {
    EngineError::Refused(Problem::new(
        Code::CollectionNotFound,
        format!("collection '{name}' was deleted"),
    ))
}
