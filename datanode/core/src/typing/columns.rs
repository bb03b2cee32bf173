//! `upsert_columns`: the same documents, field by field.

use super::{Typer, doc_id, list, vector};
use crate::ids::{DocId, FieldName};
use crate::json::Json;
use crate::problem::{Code, Problem};
use crate::schema::FieldType;
use crate::value::{Document, Value};

impl Typer<'_> {
    /// `{"id": […], "embedding": "b64:…rows×dim…", "pos": […]}`: null in a column is a
    /// missing value.  A problem's place is `upsert_columns.pos[3]`.
    pub fn upsert_columns(&mut self, columns: Json) -> Result<Vec<(DocId, Document)>, Problem> {
        self.columns(columns)
            .map_err(|problem| problem.within("upsert_columns"))
    }

    fn columns(&mut self, columns: Json) -> Result<Vec<(DocId, Document)>, Problem> {
        let Json::Object(mut columns) = columns else {
            let detail = format!("upsert_columns is an object of lists, not {}", columns.kind());
            return Err(Problem::new(Code::Malformed, detail));
        };
        let Some(at) = columns.iter().position(|(key, _)| key.as_ref() == "id") else {
            return Err(Problem::new(Code::InvalidId, "the columns need an id for each row").field("id"));
        };
        let ids = self.column_of_ids(columns.remove(at).1)?;
        let mut rows: Vec<Vec<(FieldName, Value)>> = Vec::new();
        rows.resize_with(ids.len(), Vec::new);
        for (key, column) in columns {
            for (row, field) in self.column(&key, column, ids.len())?.into_iter().enumerate() {
                rows[row].extend(field);
            }
        }
        let mut documents = Vec::with_capacity(ids.len());
        for (at, (id, fields)) in ids.into_iter().zip(rows).enumerate() {
            let document = Document::from_fields(fields);
            self.check_size(document.heap_size())
                .map_err(|problem| problem.within(&format!("[{at}]")))?;
            documents.push((id, document));
        }
        Ok(documents)
    }

    fn column_of_ids(&mut self, ids: Json) -> Result<Vec<DocId>, Problem> {
        let ids = list("id", "ids", ids)?;
        self.count(ids.len(), "id")?;
        let each = ids.into_iter().enumerate().map(|(at, id)| {
            let id = doc_id(id, self.limits).and_then(|id| {
                self.stored_id(&id)?;
                self.once(&id)?;
                Ok(id)
            });
            id.map_err(|problem| problem.field(format!("id[{at}]")))
        });
        each.collect()
    }

    /// The values of one column, a row each.
    fn column(
        &mut self,
        key: &str,
        column: Json,
        rows: usize,
    ) -> Result<Vec<Option<(FieldName, Value)>>, Problem> {
        if let (Json::Str(text), Some((name, FieldType::Vector(ty)))) = (&column, self.known_field(key)) {
            let vectors = vector::decode(ty, text, rows).map_err(|problem| problem.within(key))?;
            return Ok(vectors
                .into_iter()
                .map(|v| Some((name.clone(), Value::Vector(v))))
                .collect());
        }
        let items = list(key, "values, one for each id", column)?;
        if items.len() != rows {
            let detail = format!("the column has {} values for {rows} ids", items.len());
            return Err(Problem::new(Code::InvalidValue, detail).field(key));
        }
        let mut typed = Vec::with_capacity(rows);
        let mut empties = Vec::new();
        self.untyped_empties.clear();
        for (at, item) in items.into_iter().enumerate() {
            let field = self
                .field(key, item)
                .map_err(|problem| in_row(problem, key, at))?;
            empties.extend(self.untyped_empties.drain(..).map(|_| at));
            typed.push(field.and_then(|(name, value)| Some((name, value?))));
        }
        if let Some((name, ty)) = self.known_field(key) {
            for at in empties {
                let empty = super::typed(ty, Json::Array(Vec::new()), self.limits)
                    .map_err(|problem| in_row(problem.within(key), key, at))?;
                typed[at] = Some((name.clone(), empty));
            }
        }
        Ok(typed)
    }
}

/// `pos` or `pos[7]` becomes `pos[3]` or `pos[3][7]`.
fn in_row(problem: Problem, key: &str, row: usize) -> Problem {
    let inside = problem
        .field
        .as_deref()
        .and_then(|field| field.strip_prefix(key))
        .unwrap_or_default();
    let place = format!("{key}[{row}]{inside}");
    problem.field(place)
}
