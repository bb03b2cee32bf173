//! The Arrow IPC stream, message by message.
//!
//! Every length in it is a stranger's: messages are framed here and held against limits,
//! compressed buffers against the size they promise, before Arrow's reader (which reserves
//! what it is promised) sees them.  A panic in that reader is a broken file, not ours.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::{MessageHeader, root_as_message};
use arrow_schema::{ArrowError, SchemaRef};
use bytes::{Buf, BytesMut};
use rhumb_core::{Code, Problem};

use crate::chunk::{Chunk, ROWS, Rows};
use crate::{columns, foreign};

const CONTINUATION: [u8; 4] = [0xFF; 4];
const LONGEST_METADATA: usize = 16 << 20;

pub struct Frames {
    /// Largest body of a message, as sent and as unpacked.
    largest: usize,
    buffer: BytesMut,
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    ended: bool,
    /// Rows handed out so far.
    rows: u64,
    /// What is left of the batch at hand.
    batch: Option<RecordBatch>,
}

impl Frames {
    pub fn new(largest: usize) -> Self {
        Self {
            largest,
            buffer: BytesMut::new(),
            schema: None,
            dictionaries: HashMap::new(),
            ended: false,
            rows: 0,
            batch: None,
        }
    }

    pub fn has_schema(&self) -> bool {
        self.schema.is_some()
    }

    pub fn push(&mut self, bytes: &[u8]) {
        // What follows the end of the stream is not part of it.
        if !self.ended {
            self.buffer.extend_from_slice(bytes);
        }
    }

    pub fn finish(&self) -> Result<(), Problem> {
        match (&self.schema, self.ended || self.buffer.is_empty()) {
            (None, _) => Err(broken("it has no schema")),
            (Some(_), false) => Err(broken("it ends inside a message")),
            (Some(_), true) => Ok(()),
        }
    }

    /// Reads messages until one has rows, or more bytes are needed.
    pub fn advance(&mut self) -> Result<(), Problem> {
        while self.batch.is_none() {
            let Some(frame) = self.frame()? else { return Ok(()) };
            foreign::read(|| self.message(&frame)).unwrap_or_else(|| Err(broken(foreign::SENSELESS)))?;
        }
        Ok(())
    }

    pub fn has_rows(&self) -> bool {
        self.batch.is_some()
    }

    /// The next rows, `None` when more bytes are needed for some.
    pub fn take(&mut self) -> Result<Option<Chunk>, Problem> {
        self.advance()?;
        let Some(batch) = self.batch.take() else {
            return Ok(None);
        };
        let count = batch.num_rows().min(ROWS);
        let rows = Rows::Batch {
            first: self.rows + 1,
            batch: batch.slice(0, count),
        };
        if batch.num_rows() > count {
            self.batch = Some(batch.slice(count, batch.num_rows() - count));
        }
        self.rows += count as u64;
        // So that whoever asks `has_rows` next is told the truth.
        self.advance()?;
        Ok(Some(Chunk {
            rows,
            broken: Vec::new(),
        }))
    }

    /// One whole message, metadata and body.
    fn frame(&mut self) -> Result<Option<Frame>, Problem> {
        let Some(head) = self.buffer.get(..4) else {
            return Ok(None);
        };
        // Streams older than Arrow 0.15 have no continuation marker.
        let prefix = if head == CONTINUATION { 8 } else { 4 };
        let Some(size) = self
            .buffer
            .get(prefix - 4..prefix)
            .and_then(|b| b.try_into().ok())
        else {
            return Ok(None);
        };
        let metadata = u32::from_le_bytes(size) as usize;
        if metadata == 0 {
            self.ended = true;
            self.buffer.clear();
            return Ok(None);
        }
        if metadata > LONGEST_METADATA {
            return Err(broken("a message announces too much metadata"));
        }
        let Some(bytes) = self.buffer.get(prefix..prefix + metadata) else {
            return Ok(None);
        };
        let body = body_length(bytes, self.largest)?;
        let whole = prefix + metadata + body;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut bytes = self.buffer.split_to(whole).freeze();
        bytes.advance(prefix);
        Ok(Some(Frame {
            body: Buffer::from(bytes.slice(metadata..)),
            metadata: bytes.slice(..metadata),
        }))
    }

    fn message(&mut self, frame: &Frame) -> Result<(), Problem> {
        let message = root_as_message(&frame.metadata).map_err(broken)?;
        match message.header_type() {
            MessageHeader::Schema => {
                let schema = message
                    .header_as_schema()
                    .ok_or_else(|| broken("a schema is none"))?;
                let schema = arrow_ipc::convert::fb_to_schema(schema);
                columns::check(&schema)?;
                self.schema = Some(Arc::new(schema));
            }
            MessageHeader::DictionaryBatch => {
                let dictionary = message
                    .header_as_dictionary_batch()
                    .ok_or_else(|| broken("a dictionary is none"))?;
                if let Some(data) = dictionary.data() {
                    self.check_buffers(&data, &frame.body)?;
                }
                let schema = self
                    .schema
                    .clone()
                    .ok_or_else(|| broken("a dictionary comes before the schema"))?;
                read_dictionary(
                    &frame.body,
                    dictionary,
                    &schema,
                    &mut self.dictionaries,
                    &message.version(),
                )
                .map_err(unreadable)?;
            }
            MessageHeader::RecordBatch => {
                let batch = message
                    .header_as_record_batch()
                    .ok_or_else(|| broken("a batch is none"))?;
                self.check_buffers(&batch, &frame.body)?;
                let schema = self
                    .schema
                    .clone()
                    .ok_or_else(|| broken("a batch comes before the schema"))?;
                let version = message.version();
                let read = read_record_batch(&frame.body, batch, schema, &self.dictionaries, None, &version);
                self.batch = Some(read.map_err(unreadable)?).filter(|batch| batch.num_rows() > 0);
            }
            _ => return Err(broken("a message is neither schema, dictionary nor batch")),
        }
        Ok(())
    }

    /// Whether the buffers lie in the body, and what the compressed ones say they unpack to.
    fn check_buffers(&self, batch: &arrow_ipc::RecordBatch<'_>, body: &Buffer) -> Result<(), Problem> {
        let mut unpacked = 0_usize;
        for buffer in batch.buffers().into_iter().flatten() {
            let start = usize::try_from(buffer.offset()).ok();
            let length = usize::try_from(buffer.length()).ok();
            let bytes = start
                .zip(length)
                .and_then(|(start, length)| body.get(start..start.checked_add(length)?))
                .ok_or_else(|| broken("a buffer lies outside its message"))?;
            if let Some((prefix, _)) = bytes
                .split_first_chunk::<8>()
                .filter(|_| batch.compression().is_some())
            {
                // -1 says that this buffer is not compressed.
                let size = i64::from_le_bytes(*prefix).max(0);
                unpacked = unpacked.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            }
        }
        if unpacked <= self.largest {
            return Ok(());
        }
        Err(Problem::new(
            Code::LimitExceeded,
            format!("a batch unpacks to more than {} bytes", self.largest),
        )
        .hint("write smaller batches"))
    }
}

struct Frame {
    metadata: bytes::Bytes,
    body: Buffer,
}

fn body_length(metadata: &[u8], largest: usize) -> Result<usize, Problem> {
    let message = root_as_message(metadata).map_err(broken)?;
    let length = usize::try_from(message.bodyLength()).map_err(|_| broken("a length is negative"))?;
    if length <= largest {
        return Ok(length);
    }
    Err(Problem::new(
        Code::LimitExceeded,
        format!("a batch is larger than {largest} bytes"),
    )
    .hint("write smaller batches"))
}

fn unreadable(error: ArrowError) -> Problem {
    broken(error)
}

fn broken(why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Malformed, format!("this is not an Arrow IPC stream: {why}"))
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, StringArray};
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    fn stream(rows: usize, compression: Option<CompressionType>) -> Vec<u8> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("lex", DataType::Int64, true),
        ]));
        let ids: StringArray = (0..rows).map(|n| Some(format!("n{n}"))).collect();
        let lex: Int64Array = (0..rows as i64).map(Some).collect();
        let batch =
            RecordBatch::try_new(schema.clone(), vec![Arc::new(ids), Arc::new(lex)]).expect("a batch");
        let options = IpcWriteOptions::default()
            .try_with_compression(compression)
            .expect("known");
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).expect("memory");
        writer.write(&batch).expect("memory");
        writer.write(&batch.slice(0, rows.min(3))).expect("memory");
        writer.into_inner().expect("memory")
    }

    fn rows(bytes: &[u8], size: usize) -> Result<Vec<(u64, usize)>, Problem> {
        let mut frames = Frames::new(16 << 20);
        let mut chunks = Vec::new();
        for piece in bytes.chunks(size) {
            frames.push(piece);
            while let Some(chunk) = frames.take()? {
                let Rows::Batch { first, batch } = chunk.rows else {
                    panic!("frames make batches")
                };
                chunks.push((first, batch.num_rows()));
            }
        }
        frames.finish()?;
        Ok(chunks)
    }

    #[test]
    fn batches_are_the_same_however_the_bytes_arrive() {
        for compression in [
            None,
            Some(CompressionType::LZ4_FRAME),
            Some(CompressionType::ZSTD),
        ] {
            let bytes = stream(2_500, compression);
            for size in [1, 100, bytes.len()] {
                let found = rows(&bytes, size).expect("valid");
                assert_eq!(
                    found,
                    [(1, 1000), (1001, 1000), (2001, 500), (2501, 3)],
                    "{compression:?} {size}"
                );
            }
        }
    }

    #[test]
    fn a_stream_without_rows_is_a_stream() {
        assert_eq!(rows(&stream(0, None), 7), Ok(vec![]));
    }

    #[test]
    fn what_is_no_stream_or_half_of_one_is_refused() {
        let whole = stream(10, None);
        // Without its end marker, 8 bytes, a stream is still whole.
        for cut in [0, 3, 9, whole.len() / 2, whole.len() - 9] {
            assert!(rows(&whole[..cut], 64).is_err(), "{cut}");
        }
        for text in [
            "PAR1 is something else",
            "{\"id\": 1}\n",
            "id,pos\n",
            "\u{0}\u{0}\u{0}\u{0}",
        ] {
            assert_eq!(
                rows(text.as_bytes(), 64).expect_err(text).code,
                Code::Malformed,
                "{text}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_another_value_but_never_the_end_of_the_process() {
        let whole = stream(20, Some(CompressionType::ZSTD));
        for at in 0..whole.len() {
            for bit in [0, 7] {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                // Whatever it says, it says it.
                let _ = rows(&flipped, whole.len());
            }
        }
    }

    #[test]
    fn what_a_buffer_promises_to_unpack_to_is_held_against_the_limit() {
        let bytes = stream(2_000, Some(CompressionType::ZSTD));
        let mut frames = Frames::new(8 << 10);
        frames.push(&bytes);
        assert_eq!(frames.take().expect_err("too much").code, Code::LimitExceeded);
    }
}
