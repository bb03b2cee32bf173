//! Parquet, which begins at its end: the whole file must be there before a row can be read.

use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use ::parquet::file::reader::ChunkReader;
use rhumb_core::{Code, Problem};

use crate::chunk::{Chunk, ROWS, Rows};
use crate::{columns, foreign};

pub struct Parquet {
    reader: ParquetRecordBatchReader,
    /// Rows handed out so far.
    rows: u64,
}

impl Parquet {
    /// Blocks, as reading does.
    pub fn open(file: impl ChunkReader + 'static) -> Result<Self, Problem> {
        let reader = foreign::read(move || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?;
            columns::check(builder.schema())?;
            builder.with_batch_size(ROWS).build().map_err(broken)
        });
        Ok(Self {
            reader: reader.unwrap_or_else(|| Err(broken(foreign::SENSELESS)))?,
            rows: 0,
        })
    }

    /// The next rows; `None` at the end.
    pub fn next_rows(&mut self) -> Result<Option<Chunk>, Problem> {
        let batch = foreign::read(|| self.reader.next()).ok_or_else(|| broken(foreign::SENSELESS))?;
        let Some(batch) = batch.transpose().map_err(broken)? else {
            return Ok(None);
        };
        let first = self.rows + 1;
        self.rows += batch.num_rows() as u64;
        Ok(Some(Chunk {
            rows: Rows::Batch { first, batch },
            broken: Vec::new(),
        }))
    }
}

fn broken(why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Malformed, format!("this is not a Parquet file: {why}"))
}
