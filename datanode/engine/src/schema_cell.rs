//! The schema of one open collection, and the only way it grows.
//!
//! A new field is in the catalog before the first row that has it is in the log, so that
//! recovery always knows every column it meets; and it gets there only once a write is
//! certain to apply (P20).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rhumb_core::schema::NewFields;
use rhumb_core::{Code, CollectionName, FieldName, FieldType, Limits, Problem, Schema};
use rhumb_store::catalog::{Catalog, CatalogEntry};
use rhumb_store::{ErrorKind, StoreError};
use rhumb_text::TextFields;

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
        match self.change(|schema| schema.extend(new, &self.limits)).await {
            Err(EngineError::Refused(problem)) if problem.code != Code::CollectionNotFound => {
                Err(EngineError::SchemaMoved)
            }
            changed => changed,
        }
    }

    /// Adds declared fields, and changes those settings of a field that may change.
    pub async fn declare(&self, fields: &BTreeMap<FieldName, FieldType>) -> Result<(), EngineError> {
        let declare = |schema: &Schema| {
            let declared = schema.declare(fields, &self.limits);
            declared.map_err(|problem| problem.within("fields"))
        };
        self.change(declare).await
    }

    async fn change(&self, change: impl Fn(&Schema) -> Result<Schema, Problem>) -> Result<(), EngineError> {
        let _one = self.changing.lock().await;
        if change(&self.schema()).is_ok_and(|same| same == *self.schema()) {
            return Ok(());
        }
        let id = self.entry().id.clone();
        let mut refused = None;
        let updated = self
            .catalog
            .update(&self.name, &id, |entry| match change(&entry.schema) {
                Ok(schema) => {
                    entry.schema = schema;
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

    fn adopt(&self, entry: CatalogEntry) {
        *self.schema.write() = Arc::new(entry.schema.clone());
        *self.entry.write() = Arc::new(entry);
    }
}

fn deleted(name: &CollectionName) -> EngineError {
    EngineError::Refused(Problem::new(
        Code::CollectionNotFound,
        format!("collection '{name}' was deleted"),
    ))
}
