//! From JSON to typed documents: the edge that every write passes, once.
//!
//! A `Typer` belongs to one request.  It checks ids, names, values and limits against the
//! schema, and collects in `NewFields` what the request would add to it: a field that is
//! not declared gets its type from the first document that has it, in the order of the
//! request.  What comes out is well typed and finite; what is refused is a `Problem` that
//! names the place (`upsert[3].embedding`), and nothing of it is left behind.
//!
//! Decisions where the contract is silent:
//! - A float that is an integer (`3.0`) fits an int field and an int8 vector.
//! - An integer above `i64::MAX` has no type to infer; a float field takes it.
//! - A list of integers and floats infers as a list of floats.  Lists in lists, objects in
//!   lists and mixed lists are no attribute unless the field is declared `json`.
//! - An empty list fixes no type.  It is kept when another document of the same request
//!   makes the field a list; else it is the same as missing.
//! - Null inside a list is refused, inside json it is kept.
//! - A field declared `json` takes any value, a nested depth of 64 at most.
//! - `delete` and `patch` must name ids of the collection's kind but do not fix it.

mod cell;
mod columns;
mod sparse;
mod value;
mod vector;

use std::collections::HashSet;
use std::sync::Arc;

use crate::ids::{DocId, FieldName, IdKind};
use crate::json::Json;
use crate::limits::Limits;
use crate::problem::{Code, Problem};
use crate::schema::{FieldType, NewFields, Schema, check_count};
use crate::value::{Document, Value};
use crate::write::Patch;

pub use cell::{cell, id_from_text, kind_of_id};
pub use sparse::{query_sparse, sparse};
pub use value::typed;
pub use vector::query_vector;

type Object = Vec<(Arc<str>, Json)>;

pub struct Typer<'a> {
    schema: &'a Schema,
    limits: &'a Limits,
    new: NewFields,
    /// Kind of the ids seen in this request, deletes and patches included.
    kind: Option<IdKind>,
    /// Ids of this request's upserts.
    upserted: HashSet<DocId>,
    rows: usize,
    /// Fields that the row at hand added, to be taken back when it fails.
    added: Vec<FieldName>,
    /// Fields for which the row at hand has an empty list and nobody a type.
    untyped_empties: Vec<FieldName>,
}

impl<'a> Typer<'a> {
    pub fn new(schema: &'a Schema, limits: &'a Limits) -> Self {
        Self {
            schema,
            limits,
            new: NewFields::default(),
            kind: schema.id_kind,
            upserted: HashSet::new(),
            rows: 0,
            added: Vec::new(),
            untyped_empties: Vec::new(),
        }
    }

    /// `"upsert": [{"id": …, …}, …]`.
    pub fn upsert(&mut self, rows: Json) -> Result<Vec<(DocId, Document)>, Problem> {
        let rows = list("upsert", "documents", rows)?;
        self.count(rows.len(), "upsert")?;
        let mut documents = Vec::with_capacity(rows.len());
        let mut empties = Vec::new();
        for (at, row) in rows.into_iter().enumerate() {
            let typed = self
                .fresh_row(row)
                .map_err(|problem| problem.within(&format!("upsert[{at}]")))?;
            empties.extend(self.untyped_empties.drain(..).map(|name| (at, name)));
            documents.push(typed);
        }
        self.settle_empties(&mut documents, empties)?;
        Ok(documents)
    }

    /// `"patch": [{"id": …, …}, …]`.  One id may come twice: patches apply in their order.
    pub fn patch(&mut self, rows: Json) -> Result<Vec<Patch>, Problem> {
        let rows = list("patch", "documents", rows)?;
        self.count(rows.len(), "patch")?;
        let each = rows.into_iter().enumerate().map(|(at, row)| {
            let patch = object(row).and_then(|mut fields| {
                let id = self.known_id(take_id(&mut fields)?)?;
                Ok(Patch {
                    id,
                    set: self.patched(fields)?,
                })
            });
            patch.map_err(|problem| problem.within(&format!("patch[{at}]")))
        });
        each.collect()
    }

    /// `"delete": [id, …]`.
    pub fn delete(&mut self, ids: Json) -> Result<Vec<DocId>, Problem> {
        self.ids("delete", ids)
    }

    /// A list of ids that are looked up and need not exist, under its name in the request.
    pub fn ids(&mut self, name: &str, ids: Json) -> Result<Vec<DocId>, Problem> {
        let ids = list(name, "ids", ids)?;
        self.count(ids.len(), name)?;
        let each = ids.into_iter().enumerate().map(|(at, id)| {
            self.known_id(id).map_err(|problem| {
                Problem {
                    field: None,
                    ..problem
                }
                .within(&format!("{name}[{at}]"))
            })
        });
        each.collect()
    }

    /// The body of `PUT …/documents/{id}`: carries no id, or the same one.
    pub fn document(&mut self, id: &DocId, body: Json) -> Result<Document, Problem> {
        let fields = self.body(id, body)?;
        self.stored_id(id)?;
        self.sized(fields)
    }

    /// The body of `PATCH …/documents/{id}`.
    pub fn document_patch(&mut self, id: &DocId, body: Json) -> Result<Patch, Problem> {
        let fields = self.body(id, body)?;
        self.check_kind(id)?;
        Ok(Patch {
            id: id.clone(),
            set: self.patched(fields)?,
        })
    }

    /// One document of an import.  A row that fails fixes no type and no kind of id; an id
    /// may come twice.
    pub fn row(&mut self, row: Json) -> Result<(DocId, Document), Problem> {
        let before = (self.kind, self.new.id_kind);
        self.added.clear();
        let typed = self.one_row(row);
        if typed.is_err() {
            (self.kind, self.new.id_kind) = before;
            for name in self.added.drain(..) {
                self.new.fields.remove(&name);
            }
        }
        typed
    }

    /// What the rows so far add to the schema.
    pub fn new_fields(&self) -> &NewFields {
        &self.new
    }

    pub fn into_new_fields(self) -> NewFields {
        self.new
    }

    fn one_row(&mut self, row: Json) -> Result<(DocId, Document), Problem> {
        let mut fields = object(row)?;
        let id = doc_id(take_id(&mut fields)?, self.limits)?;
        self.stored_id(&id)?;
        Ok((id, self.sized(fields)?))
    }

    fn fresh_row(&mut self, row: Json) -> Result<(DocId, Document), Problem> {
        let (id, document) = self.one_row(row)?;
        self.once(&id)?;
        Ok((id, document))
    }

    fn once(&mut self, id: &DocId) -> Result<(), Problem> {
        if self.upserted.insert(id.clone()) {
            return Ok(());
        }
        let detail = format!(
            "the id '{}' is there twice in one request",
            crate::problem::shorten(&id.to_string())
        );
        Err(Problem::new(Code::DuplicateId, detail).field("id"))
    }

    fn body(&self, id: &DocId, body: Json) -> Result<Object, Problem> {
        let mut fields = object(body)?;
        if let Some(at) = fields.iter().position(|(key, _)| key.as_ref() == "id") {
            let (_, inside) = fields.swap_remove(at);
            if doc_id(inside, self.limits)? != *id {
                return Err(
                    Problem::new(Code::InvalidId, "the id in the body is not the id in the path")
                        .field("id")
                        .hint("leave the id out of the body"),
                );
            }
        }
        Ok(fields)
    }

    /// Typed fields of an upsert: null is missing.
    fn sized(&mut self, fields: Object) -> Result<Document, Problem> {
        let fields = self.fields(fields)?;
        let present = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let document = Document::from_fields(present.collect());
        self.check_size(document.heap_size())?;
        Ok(document)
    }

    /// Typed fields of a patch: null removes.
    fn patched(&mut self, fields: Object) -> Result<Vec<(FieldName, Option<Value>)>, Problem> {
        let set = self.fields(fields)?;
        self.check_size(
            set.iter()
                .flat_map(|(_, value)| value)
                .map(Value::heap_size)
                .sum(),
        )?;
        Ok(set)
    }

    fn check_size(&self, size: usize) -> Result<(), Problem> {
        if size <= self.limits.document_bytes {
            return Ok(());
        }
        Err(Problem::new(
            Code::LimitExceeded,
            format!(
                "the document takes {size} bytes, at most {} are allowed",
                self.limits.document_bytes
            ),
        ))
    }

    fn fields(&mut self, fields: Object) -> Result<Vec<(FieldName, Option<Value>)>, Problem> {
        self.untyped_empties.clear();
        let mut typed = Vec::with_capacity(fields.len());
        for (key, json) in fields {
            if let Some(field) = self.field(&key, json)? {
                typed.push(field);
            }
        }
        Ok(typed)
    }

    /// `None` when there is nothing to store or to remove.
    fn field(&mut self, key: &str, json: Json) -> Result<Option<(FieldName, Option<Value>)>, Problem> {
        if let Some((name, ty)) = self.known_field(key) {
            let value = match json {
                Json::Null => None,
                json => Some(typed(ty, json, self.limits).map_err(|problem| problem.within(key))?),
            };
            return Ok(Some((name.clone(), value)));
        }
        let name = FieldName::parse(key)?;
        match json {
            Json::Null => Ok(None),
            Json::Array(items) if items.is_empty() => {
                self.untyped_empties.push(name);
                Ok(None)
            }
            json => {
                let ty = value::infer(&json).map_err(|problem| problem.within(key))?;
                let value = typed(&ty, json, self.limits).map_err(|problem| problem.within(key))?;
                self.add(name.clone(), ty)?;
                Ok(Some((name, Some(value))))
            }
        }
    }

    fn add(&mut self, name: FieldName, ty: FieldType) -> Result<(), Problem> {
        check_count(self.schema.fields.len() + self.new.fields.len() + 1, self.limits)
            .map_err(|problem| problem.field(name.as_str()))?;
        self.added.push(name.clone());
        self.new.fields.insert(name, ty);
        Ok(())
    }

    fn known_field(&self, key: &str) -> Option<(&FieldName, &FieldType)> {
        let declared = self
            .schema
            .fields
            .get_key_value(key)
            .map(|(name, field)| (name, &field.ty));
        declared.or_else(|| self.new.fields.get_key_value(key))
    }

    /// Empty lists that came before their field had a type.
    fn settle_empties(
        &self,
        documents: &mut [(DocId, Document)],
        empties: Vec<(usize, FieldName)>,
    ) -> Result<(), Problem> {
        for (row, name) in empties {
            if let Some((_, ty)) = self.known_field(name.as_str()) {
                let empty = typed(ty, Json::Array(Vec::new()), self.limits)
                    .map_err(|problem| problem.within(name.as_str()).within(&format!("upsert[{row}]")))?;
                documents[row].1.set(name, empty);
            }
        }
        Ok(())
    }

    /// An id that this request stores: it may fix the collection's kind.
    fn stored_id(&mut self, id: &DocId) -> Result<(), Problem> {
        self.check_kind(id)?;
        if self.schema.id_kind.is_none() {
            self.new.id_kind = Some(id.kind());
        }
        Ok(())
    }

    /// An id that this request only refers to.
    fn known_id(&mut self, id: Json) -> Result<DocId, Problem> {
        let id = doc_id(id, self.limits)?;
        self.check_kind(&id)?;
        Ok(id)
    }

    fn check_kind(&mut self, id: &DocId) -> Result<(), Problem> {
        match *self.kind.get_or_insert(id.kind()) {
            kind if kind == id.kind() => Ok(()),
            kind if self.schema.id_kind.is_some() => Err(kind.refuses()),
            _ => Err(Problem::new(
                Code::InvalidId,
                "one request mixes ids that are strings and integers",
            )
            .field("id")
            .hint("a collection has one kind of id")),
        }
    }

    fn count(&mut self, rows: usize, name: &str) -> Result<(), Problem> {
        self.rows += rows;
        if self.rows <= self.limits.batch_rows {
            return Ok(());
        }
        let detail = format!(
            "one request holds at most {} documents and ids",
            self.limits.batch_rows
        );
        Err(Problem::new(Code::LimitExceeded, detail)
            .field(name)
            .hint("send several requests"))
    }
}

/// An id by its own rules: a string of 1 to `Limits::id_bytes` bytes or an unsigned integer.
pub fn doc_id(id: Json, limits: &Limits) -> Result<DocId, Problem> {
    let refused = |detail: String| {
        Problem::new(Code::InvalidId, detail).field("id").hint(format!(
            "an id is a string of 1 to {} bytes or an unsigned 64-bit integer",
            limits.id_bytes
        ))
    };
    match id {
        Json::Str(text) if text.is_empty() => Err(refused("an id is not empty".into())),
        Json::Str(text) if text.len() > limits.id_bytes => {
            Err(refused(format!("an id of {} bytes is too long", text.len())))
        }
        Json::Str(text) => Ok(DocId::Str(text)),
        Json::UInt(n) => Ok(DocId::Num(n)),
        Json::Int(n) => u64::try_from(n)
            .map(DocId::Num)
            .map_err(|_| refused(format!("the id {n} is negative"))),
        other => Err(refused(format!("an id is not {}", other.kind()))),
    }
}

fn list(name: &str, of: &str, json: Json) -> Result<Vec<Json>, Problem> {
    json.into_items().map_err(|other| {
        Problem::new(
            Code::Malformed,
            format!("{name} is a list of {of}, not {}", other.kind()),
        )
        .field(name)
    })
}

fn object(row: Json) -> Result<Object, Problem> {
    match row {
        Json::Object(fields) => Ok(fields),
        other => Err(Problem::new(
            Code::Malformed,
            format!("a document is an object, not {}", other.kind()),
        )),
    }
}

fn take_id(fields: &mut Object) -> Result<Json, Problem> {
    match fields.iter().position(|(key, _)| key.as_ref() == "id") {
        Some(at) => Ok(fields.remove(at).1),
        None => Err(Problem::new(Code::InvalidId, "a document needs an id").field("id")),
    }
}

#[cfg(test)]
mod tests;
