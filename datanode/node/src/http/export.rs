//! `GET …/export`: every document of one snapshot, streamed.
//!
//! One page is in memory at a time, and the next is read when the client has taken the
//! last.  An error in the middle cuts the answer off, so that it cannot be taken for whole.

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use futures::stream;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rhumb_core::ids::IdKind;
use rhumb_core::order::OrderBy;
use rhumb_core::problem::did_you_mean;
use rhumb_core::query::{Include, Stored};
use rhumb_core::render::ExportRow;
use rhumb_core::{Code, Filter, Problem, Schema};
use rhumb_engine::{EngineError, PageStart, Row, Scan, ScanSnapshot};
use rhumb_seams::Tasks;

use super::answer::{self, Answer, write_json};
use super::bill::Meter;
use super::call::{Call, in_time};
use super::problem::Refused;

const PAGE: usize = 1_000;
/// Rows of a Parquet row group: what its writer holds in memory.
const ROW_GROUP: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Ndjson,
    Parquet,
    Arrow,
}

pub async fn export(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let format = Format::parse(call.params.get("format").unwrap_or("ndjson"))?;
    let schema = collection.schema();
    let filter = call
        .params
        .get_filled("filter")
        .map(|text| Filter::parse_param(text, &schema, &call.app.limits));
    let filter = filter.transpose().map_err(|problem| problem.within("filter"))?;
    let filter = Filter::both(call.scope(&schema), filter);
    let consistency = call.consistency()?;
    let reading = call.read(&collection, consistency).await?;
    let scan = Scan {
        start: None,
        end: None,
        prefix: None,
        filter,
        order_by: OrderBy::id(),
        include: Include::Everything,
    };
    let snapshot = in_time(call.patience(), reading.scan(scan)).await?;
    // After the snapshot: its documents have no field that this schema has not.
    let mut schema = collection.schema().as_ref().clone();
    // An empty collection has no kind of id yet, and a table needs one.
    schema.id_kind.get_or_insert(IdKind::Str);
    let writer = Writer::new(format, Arc::new(schema))?;
    let export = Export {
        snapshot: Arc::new(snapshot),
        next: Some(PageStart::First),
        writer: Some(writer),
        tasks: call.app.tasks.clone(),
        meter: call.bill.meter(),
    };
    let chunks = stream::try_unfold(export, |export| async move {
        export.chunk().await.map_err(|error| {
            tracing::error!(%error, "an export was cut off");
            std::io::Error::other(error)
        })
    });
    let mut answer = answer::stream(format.content_type(), chunks);
    *answer.status_mut() = StatusCode::OK;
    Ok(answer)
}

impl Format {
    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "ndjson" => Ok(Self::Ndjson),
            "parquet" => Ok(Self::Parquet),
            "arrow" => Ok(Self::Arrow),
            other => {
                let detail = format!("there is no format '{}'", rhumb_core::problem::shorten(other));
                Err(Problem::new(Code::InvalidValue, detail)
                    .field("format")
                    .hint(did_you_mean(other, ["ndjson", "parquet", "arrow"])))
            }
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => rhumb_api::NDJSON,
            Self::Parquet => rhumb_api::PARQUET,
            Self::Arrow => rhumb_api::ARROW,
        }
    }
}

struct Export {
    snapshot: Arc<ScanSnapshot>,
    next: Option<PageStart>,
    /// `None` when its end has been written.
    writer: Option<Writer>,
    tasks: Tasks,
    meter: Option<Meter>,
}

impl Export {
    /// The next bytes and what is left, `None` at the end.
    async fn chunk(mut self) -> Result<Option<(Bytes, Self)>, EngineError> {
        while let Some(mut writer) = self.writer.take() {
            let page = match self.next.take() {
                Some(start) => Some(self.snapshot.page(&start, PAGE).await?),
                None => None,
            };
            if let (Some(meter), Some(page)) = (&self.meter, &page) {
                meter.rows(page.documents.len() as u64);
            }
            // Encoding a page takes milliseconds: not on the threads that answer others.
            let worked = self.tasks.compute(move || match page {
                Some(page) => {
                    let bytes = writer.page(page.documents)?;
                    Ok::<_, EngineError>((bytes, page.next, Some(writer)))
                }
                None => Ok((writer.end()?, None, None)),
            });
            let (bytes, next, writer) = worked
                .await
                .map_err(|e| EngineError::Bug(format!("an export panicked: {e}")))??;
            (self.next, self.writer) = (next, writer);
            if !bytes.is_empty() {
                return Ok(Some((bytes, self)));
            }
        }
        Ok(None)
    }
}

enum Writer {
    Ndjson(Arc<Schema>),
    Parquet(Arc<Schema>, Box<ArrowWriter<Vec<u8>>>),
    Arrow(Arc<Schema>, Box<arrow_ipc::writer::StreamWriter<Vec<u8>>>),
}

impl Writer {
    fn new(format: Format, schema: Arc<Schema>) -> Result<Self, EngineError> {
        if format == Format::Ndjson {
            return Ok(Self::Ndjson(schema));
        }
        // An empty batch has the columns that every page will have.
        let columns = table(Vec::new(), &schema)?.schema();
        if format == Format::Arrow {
            let writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &columns);
            return Ok(Self::Arrow(schema, Box::new(writer.map_err(bug)?)));
        }
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), columns, Some(properties)).map_err(bug)?;
        Ok(Self::Parquet(schema, Box::new(writer)))
    }

    fn page(&mut self, documents: Vec<Stored>) -> Result<Bytes, EngineError> {
        match self {
            Self::Ndjson(schema) => {
                let mut out = Vec::with_capacity(documents.len() * 256);
                for stored in &documents {
                    write_json(
                        &mut out,
                        &ExportRow {
                            id: &stored.id,
                            document: &stored.document,
                            schema,
                        },
                    );
                    out.push(b'\n');
                }
                Ok(out.into())
            }
            Self::Parquet(schema, writer) => {
                writer.write(&table(documents, schema)?).map_err(bug)?;
                Ok(std::mem::take(writer.inner_mut()).into())
            }
            Self::Arrow(schema, writer) => {
                writer.write(&table(documents, schema)?).map_err(bug)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
        }
    }

    fn end(self) -> Result<Bytes, EngineError> {
        match self {
            Self::Ndjson(_) => Ok(Bytes::new()),
            Self::Parquet(_, mut writer) => {
                writer.finish().map_err(bug)?;
                Ok(std::mem::take(writer.inner_mut()).into())
            }
            Self::Arrow(_, mut writer) => {
                writer.finish().map_err(bug)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
        }
    }
}

/// The engine's own columns, without the version: an import gives new ones.
fn table(documents: Vec<Stored>, schema: &Schema) -> Result<arrow_array::RecordBatch, EngineError> {
    let rows = documents.into_iter().map(|stored| Row {
        id: stored.id,
        seq: stored.version,
        document: Some(Arc::new(stored.document)),
    });
    let batch = rhumb_engine::encode_table(&rows.collect::<Vec<_>>(), schema)?;
    let kept: Vec<usize> = batch
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, f)| f.name() != "_seq")
        .map(|(at, _)| at)
        .collect();
    batch.project(&kept).map_err(bug)
}

fn bug(error: impl std::fmt::Display) -> EngineError {
    EngineError::Bug(format!("an export could not be encoded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_one_of_three() {
        assert_eq!(Format::parse("arrow"), Ok(Format::Arrow));
        let problem = Format::parse("parqet").expect_err("a typo");
        assert!(problem.hint.expect("a hint").contains("parquet"));
    }

    #[test]
    fn an_export_of_nothing_is_still_a_whole_file() {
        let schema = Arc::new(Schema {
            id_kind: Some(IdKind::Str),
            ..Schema::default()
        });
        for format in [Format::Parquet, Format::Arrow] {
            let mut writer = Writer::new(format, schema.clone()).expect("columns");
            let mut bytes = writer.page(Vec::new()).expect("no rows").to_vec();
            bytes.extend_from_slice(&writer.end().expect("an end"));
            match format {
                Format::Parquet => assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1")),
                Format::Arrow => {
                    let reader =
                        arrow_ipc::reader::StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
                    assert_eq!(reader.schema().fields().len(), 1);
                }
                Format::Ndjson => unreachable!("not in the list"),
            }
        }
    }
}
