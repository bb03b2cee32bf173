//! `rhumb query`: the nearest documents, as a table or as the server's own JSON.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use reqwest::Method;
use rhumb_api::{CollectionInfo, FieldDef, FieldObject, Include, OneDocument, QueryAnswer};
use serde_json::{Map, Value, json};

use super::client::{self, CliError, Client, plain};

const CELL: usize = 40;

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("target").required(true).args(["vector", "like"]))]
pub struct Args {
    collection: String,
    /// [0.1, …], @file.json or b64:…
    #[arg(long)]
    vector: Option<String>,
    /// The id of a document whose vector to ask with.
    #[arg(long, value_name = "ID")]
    like: Option<String>,
    /// The vector field; may be left out when there is one.
    #[arg(long)]
    field: Option<String>,
    #[arg(short, default_value_t = 10)]
    k: u64,
    /// JSON or SQL: {"pos": "n"}, or "pos = 'n' AND lex >= 3"
    #[arg(long)]
    filter: Option<String>,
    /// Attributes to show, with commas, or all.
    #[arg(long)]
    include: Option<String>,
    /// Prints the server's answer as it is.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: client::Server,
}

pub async fn run(args: Args) -> ExitCode {
    client::exit(query(args).await)
}

async fn query(args: Args) -> Result<ExitCode, CliError> {
    let client = Client::new(&args.server)?;
    let leg = match (&args.vector, &args.like) {
        (Some(text), _) => named(args.field.as_deref(), parse_vector(text)?),
        (None, Some(id)) => like(&client, &args, id).await?,
        (None, None) => return Err(CliError::Usage("give --vector or --like".into())),
    };
    let include = args.include.as_deref().map(parse_include);
    let mut body = Map::from_iter([("vector".to_owned(), leg), ("k".to_owned(), args.k.into())]);
    if let Some(filter) = &args.filter {
        body.insert("filter".to_owned(), parse_filter(filter)?);
    }
    if let Some(include) = &include {
        body.insert("include".to_owned(), json!(include));
    }
    let request = client
        .request(Method::POST, &args.collection, &["query"])
        .json(&body);
    let answer = client::send(request).await?.text().await?;
    if args.json {
        client::print(&format!("{}\n", answer.trim_end()))?;
    } else {
        client::print(&table(&serde_json::from_str(&answer)?, include.as_ref()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn named(field: Option<&str>, value: Value) -> Value {
    match field {
        Some(field) => json!({"field": field, "value": value}),
        None => value,
    }
}

/// The vector of a stored document.
async fn like(client: &Client, args: &Args, id: &str) -> Result<Value, CliError> {
    let field = match &args.field {
        Some(field) => field.clone(),
        None => only_vector_field(&client.get(&args.collection, &[]).await?)?,
    };
    let mut document: OneDocument = client.get(&args.collection, &["documents", id]).await?;
    match document.document.remove(&field) {
        Some(value) => Ok(named(Some(&field), value)),
        None => Err(CliError::Usage(format!("document {id} has no {field}"))),
    }
}

fn only_vector_field(info: &CollectionInfo) -> Result<String, CliError> {
    let is_vector = |def: &FieldDef| matches!(def, FieldDef::Object(FieldObject::Vector { .. }));
    let fields: Vec<&String> = info
        .fields
        .iter()
        .filter(|(_, def)| is_vector(def))
        .map(|(name, _)| name)
        .collect();
    match fields.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(CliError::Usage(format!(
            "collection {} has no vector field",
            info.name
        ))),
        many => Err(CliError::Usage(format!("--field must be one of {many:?}"))),
    }
}

fn parse_vector(text: &str) -> Result<Value, CliError> {
    if let Some(file) = text.strip_prefix('@') {
        let path = Path::new(file);
        let content = std::fs::read_to_string(path).map_err(|source| CliError::File {
            path: path.to_owned(),
            source,
        })?;
        return numbers(&content).ok_or_else(|| CliError::Usage(format!("{file} is not a JSON list")));
    }
    if text.starts_with("b64:") {
        return Ok(text.into());
    }
    numbers(text).ok_or_else(|| CliError::Usage("--vector takes [0.1, …], @file.json or b64:…".into()))
}

/// What the list holds is the server's to judge: it knows the field.
fn numbers(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(Value::is_array)
}

fn parse_filter(text: &str) -> Result<Value, CliError> {
    match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|e| CliError::Usage(format!("--filter: {e}"))),
        false => Ok(text.into()),
    }
}

fn parse_include(text: &str) -> Include {
    match text {
        "all" => Include::All(true),
        names => Include::Names(names.split(',').map(|name| name.trim().to_owned()).collect()),
    }
}

fn table(answer: &QueryAnswer, include: Option<&Include>) -> String {
    let fields: Vec<&str> = match include {
        Some(Include::Names(names)) => names.iter().map(String::as_str).collect(),
        _ => {
            let documents = answer.hits.iter().filter_map(|hit| hit.document.as_ref());
            let names: BTreeSet<&str> = documents.flat_map(|d| d.keys().map(String::as_str)).collect();
            names.into_iter().collect()
        }
    };
    let head = ["id", "score"].into_iter().chain(fields.iter().copied());
    let mut rows = vec![head.map(|name| plain(name, CELL)).collect::<Vec<_>>()];
    for hit in &answer.hits {
        let value = |field: &&str| hit.document.as_ref().and_then(|document| document.get(*field));
        let cells = fields
            .iter()
            .map(|field| value(field).map(cell).unwrap_or_default());
        rows.push(
            [cell(&hit.id), format!("{:.6}", hit.score)]
                .into_iter()
                .chain(cells)
                .collect(),
        );
    }
    let hits = match answer.hits.len() {
        1 => "1 hit".to_owned(),
        n => format!("{n} hits"),
    };
    format!("{}{hits} in {:.2} ms\n", aligned(&rows), answer.took_ms)
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text, CELL),
        other => plain(&other.to_string(), CELL),
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_column_for_each_field_and_blanks_for_what_is_missing() {
        let answer = json!({"took_ms": 0.5, "hits": [
            {"id": "a", "score": 0.5, "document": {"pos": "n", "tags": ["x"]}},
            {"id": 12, "score": -1.0, "document": {"pos": null}},
        ]});
        let answer = serde_json::from_value(answer).expect("an answer");
        let text = "id  score      pos   tags\n\
                    a   0.500000   n     [\"x\"]\n\
                    12  -1.000000  null\n\
                    2 hits in 0.50 ms\n";
        assert_eq!(table(&answer, Some(&Include::All(true))), text);
        let named = Include::Names(vec!["tags".into()]);
        assert!(table(&answer, Some(&named)).starts_with("id  score      tags\n"));
    }

    #[test]
    fn a_vector_is_a_list_or_base64_and_nothing_else() {
        assert_eq!(parse_vector("[1, 0.5]").ok(), Some(json!([1, 0.5])));
        assert_eq!(parse_vector("b64:AAAA").ok(), Some(json!("b64:AAAA")));
        assert!(parse_vector("{}").is_err());
        assert!(parse_vector("1, 2").is_err());
        assert!(parse_vector("@/no/such/file").is_err());
    }

    #[test]
    fn a_filter_is_json_only_when_it_starts_with_a_brace() {
        assert_eq!(parse_filter(r#" {"a": 1}"#).ok(), Some(json!({"a": 1})));
        assert_eq!(parse_filter("a = 1").ok(), Some(json!("a = 1")));
        assert!(parse_filter("{a = 1").is_err());
    }
}
