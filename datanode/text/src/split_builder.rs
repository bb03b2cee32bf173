//! Makes a split from the texts of a segment's rows.

use std::path::Path;

use rhumb_core::FieldName;
use tantivy::directory::RamDirectory;
use tantivy::directory::error::OpenReadError;
use tantivy::index::{Segment, SegmentComponent, SegmentId};
use tantivy::postings::Postings;
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::store::Compressor;
use tantivy::tokenizer::TokenizerManager;
use tantivy::{
    Directory, DocSet, Index, IndexSettings, SegmentReader, SingleSegmentIndexWriter, TERMINATED,
    TantivyDocument,
};

use crate::analyze::TextFields;
use crate::blob;
use crate::bm25::Peaks;
use crate::error::TextError;
use crate::split::{FILES, MAX_ROWS, META, PEAKS_FROM};

/// What tantivy's arena and hash table start from; they grow with the terms.
const WRITER_BYTES: usize = 16 << 20;
/// A list of files that garbage collection would look at.  Nothing here collects.
const MANAGED: &str = ".managed.json";
const COMPONENTS: [SegmentComponent; 6] = [
    SegmentComponent::Terms,
    SegmentComponent::Postings,
    SegmentComponent::Positions,
    SegmentComponent::FieldNorms,
    SegmentComponent::FastFields,
    SegmentComponent::Store,
];

/// Rows are pushed in the order of the segment; the n-th becomes ordinal n.  One thread,
/// one tantivy segment, no merge: document numbers are ordinals by construction.
pub struct SplitBuilder {
    writer: SingleSegmentIndexWriter,
    directory: RamDirectory,
    fields: Vec<(FieldName, &'static str, Field)>,
    rows: u32,
}

impl SplitBuilder {
    pub fn new(fields: &TextFields) -> Result<Self, TextError> {
        let mut schema = Schema::builder();
        let tokenizers = TokenizerManager::new();
        let mut named = Vec::new();
        for (name, analyzer) in fields.iter() {
            tokenizers.register(analyzer.language(), analyzer.tantivy());
            let indexing = TextFieldIndexing::default()
                .set_tokenizer(analyzer.language())
                .set_index_option(IndexRecordOption::WithFreqsAndPositions);
            let options = TextOptions::default().set_indexing_options(indexing);
            named.push((
                name.clone(),
                analyzer.language(),
                schema.add_text_field(name.as_str(), options),
            ));
        }
        let directory = RamDirectory::create();
        let settings = IndexSettings {
            docstore_compression: Compressor::None,
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let writer = Index::builder()
            .schema(schema.build())
            .settings(settings)
            .tokenizers(tokenizers)
            .single_segment_index_writer(directory.clone(), WRITER_BYTES)?;
        Ok(Self {
            writer,
            directory,
            fields: named,
            rows: 0,
        })
    }

    /// The next row; `text` gives its text in a field, if it has one.
    pub fn push<'t>(&mut self, text: impl Fn(&FieldName) -> Option<&'t str>) -> Result<(), TextError> {
        if self.rows == MAX_ROWS {
            return Err(TextError::TooManyRows(MAX_ROWS));
        }
        let mut document = TantivyDocument::new();
        for (name, _, field) in &self.fields {
            if let Some(text) = text(name) {
                document.add_text(*field, text);
            }
        }
        self.writer.add_document(document)?;
        self.rows += 1;
        Ok(())
    }

    /// The split as one object.  The same rows give the same bytes.
    pub fn finish(self) -> Result<Vec<u8>, TextError> {
        let index = self.writer.finalize()?;
        let segments = index.searchable_segments()?;
        let [segment] = &segments[..] else {
            return Err(TextError::Bug(format!(
                "{} segments of one writer",
                segments.len()
            )));
        };
        let reader = SegmentReader::open(segment)?;
        if reader.max_doc() != self.rows {
            return Err(TextError::Bug(format!(
                "{} rows became {}",
                self.rows,
                reader.max_doc()
            )));
        }
        let mut sections = files(&self.directory, segment)?;
        sections.push((META.to_owned(), describe(&reader, &self.fields)?));
        Ok(blob::pack(
            sections.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])),
        ))
    }
}

/// tantivy's files under names without the random number it gives to segments.
fn files(directory: &RamDirectory, segment: &Segment) -> Result<Vec<(String, Vec<u8>)>, TextError> {
    let (random, fixed) = (segment.id(), SegmentId::from_uuid_string(&"0".repeat(32)));
    let fixed = fixed.map_err(|e| TextError::Bug(e.to_string()))?;
    let mut files = Vec::new();
    for component in COMPONENTS {
        let path = segment.relative_path(component);
        let file = match directory.open_read(&path) {
            Ok(file) => file,
            // Not every kind of file is there in every index.
            Err(OpenReadError::FileDoesNotExist(_)) => continue,
            Err(e) => return Err(TextError::Bug(e.to_string())),
        };
        let name = path
            .to_string_lossy()
            .replace(&random.uuid_string(), &fixed.uuid_string());
        files.push((format!("{FILES}{name}"), file.read_bytes()?.to_vec()));
    }
    let meta = directory
        .atomic_read(Path::new("meta.json"))
        .map_err(|e| TextError::Bug(e.to_string()))?;
    let meta =
        String::from_utf8_lossy(&meta).replace(&dashed(&random.uuid_string()), &dashed(&fixed.uuid_string()));
    files.push((format!("{FILES}meta.json"), meta.into_bytes()));
    files.push((format!("{FILES}{MANAGED}"), b"[]".to_vec()));
    Ok(files)
}

/// As a segment's number stands in `meta.json`.
fn dashed(hex: &str) -> String {
    let cut = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    [cut(0..8), cut(8..12), cut(12..16), cut(16..20), cut(20..32)].join("-")
}

/// What searches need beyond tantivy's files; `Split::open` reads it.
fn describe(
    reader: &SegmentReader,
    fields: &[(FieldName, &'static str, Field)],
) -> Result<Vec<u8>, TextError> {
    let rows = reader.max_doc();
    let mut out = Vec::new();
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(&(fields.len() as u32).to_le_bytes());
    for (name, language, field) in fields {
        let norms = reader.get_fieldnorms_reader(*field)?;
        let docs = (0..rows).filter(|&row| norms.fieldnorm_id(row) > 0).count() as u64;
        for text in [name.as_str(), language] {
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&docs.to_le_bytes());
        let inverted = reader.inverted_index(*field)?;
        let mut long = Vec::new();
        let mut terms = inverted.terms().stream()?;
        while terms.advance() {
            let info = terms.value().clone();
            if info.doc_freq < PEAKS_FROM {
                continue;
            }
            let mut postings = inverted.read_postings_from_terminfo(&info, IndexRecordOption::WithFreqs)?;
            let mut peaks = Peaks::NONE;
            while postings.doc() != TERMINATED {
                peaks.see(postings.term_freq(), norms.fieldnorm_id(postings.doc()));
                postings.advance();
            }
            long.push((info.postings_range.start as u64, peaks));
        }
        out.extend_from_slice(&(long.len() as u32).to_le_bytes());
        for (start, peaks) in long {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&peaks.shortest);
            out.extend_from_slice(&peaks.most.to_le_bytes());
        }
    }
    Ok(out)
}
