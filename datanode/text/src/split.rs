//! The immutable text index of one segment.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use rhumb_core::FieldName;
use tantivy::directory::error::{DeleteError, OpenReadError, OpenWriteError};
use tantivy::directory::{FileHandle, OwnedBytes, WatchCallback, WatchHandle, WritePtr};
use tantivy::postings::TermInfo;
use tantivy::schema::IndexRecordOption;
use tantivy::{Directory, Index, InvertedIndexReader, SegmentReader};
use tantivy_fst::Automaton;

use crate::blob::{self, Reader, corrupt};
use crate::bm25::{FieldStats, Peaks, Weight};
use crate::error::TextError;

/// The section with rows, fields and peaks.
pub(crate) const META: &str = "rhumb";
/// Sections that are tantivy's files.
pub(crate) const FILES: &str = "tantivy/";
/// Document numbers that tantivy can tell from the end of a list.
pub(crate) const MAX_ROWS: u32 = i32::MAX as u32 - 1;
/// Lists of this many rows have their peaks written down; shorter ones are one block and
/// looked through.
pub(crate) const PEAKS_FROM: u32 = 128;

/// Opening verifies every byte, then costs a copy of one byte per row and field; the
/// rest stays where it is.
pub struct Split {
    fields: BTreeMap<FieldName, SplitField>,
    rows: u32,
    bytes: OwnedBytes,
}

pub(crate) struct SplitField {
    language: String,
    pub(crate) stats: FieldStats,
    pub(crate) inverted: Arc<InvertedIndexReader>,
    /// A norm id per row.
    pub(crate) norms: Vec<u8>,
    /// By where the list starts, ascending.
    peaks: Vec<(u64, Peaks)>,
}

impl Split {
    /// `Corrupt` when the bytes are not exactly what [`SplitBuilder`](crate::SplitBuilder) made.
    pub fn open(blob: Vec<u8>) -> Result<Self, TextError> {
        let sections = blob::unpack(&blob)?;
        let bytes = OwnedBytes::new(blob);
        let meta = sections
            .get(META)
            .ok_or_else(|| corrupt("it has no description"))?;
        let files = BlobFiles::new(&bytes, &sections);
        let index = Index::open(files).map_err(|e| corrupt(&e.to_string()))?;
        let segments = index.searchable_segments().map_err(|e| corrupt(&e.to_string()))?;
        let [segment] = &segments[..] else {
            return Err(corrupt("it has more or less than one segment"));
        };
        let reader = SegmentReader::open(segment).map_err(|e| corrupt(&e.to_string()))?;
        let mut meta = Reader::new(&bytes[meta.clone()]);
        let rows = meta.u32()?;
        if reader.max_doc() != rows {
            return Err(corrupt("two of its parts disagree about its rows"));
        }
        let mut fields = BTreeMap::new();
        for _ in 0..meta.u32()? {
            let name = FieldName::parse(meta.str()?).map_err(|e| corrupt(&e.to_string()))?;
            let field = SplitField::open(&reader, &name, &mut meta)?;
            fields.insert(name, field);
        }
        Ok(Self { fields, rows, bytes })
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// What `open` was given.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The fields it was made with, and how each was analyzed.
    pub fn fields(&self) -> impl Iterator<Item = (&FieldName, &str)> {
        self.fields
            .iter()
            .map(|(name, field)| (name, field.language.as_str()))
    }

    pub fn heap_size(&self) -> usize {
        let of =
            |field: &SplitField| field.norms.len() + field.peaks.len() * size_of::<(u64, Peaks)>() + 1_024;
        self.bytes.len() + self.fields.values().map(of).sum::<usize>()
    }

    pub(crate) fn field(&self, name: &FieldName) -> Option<&SplitField> {
        self.fields.get(name)
    }
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split")
            .field("rows", &self.rows)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl SplitField {
    fn open(reader: &SegmentReader, name: &FieldName, meta: &mut Reader<'_>) -> Result<Self, TextError> {
        let language = meta.str()?.to_owned();
        let docs = meta.u64()?;
        let field = reader
            .schema()
            .get_field(name.as_str())
            .map_err(|e| corrupt(&e.to_string()))?;
        let inverted = reader
            .inverted_index(field)
            .map_err(|e| corrupt(&e.to_string()))?;
        let norms = reader
            .get_fieldnorms_reader(field)
            .map_err(|e| corrupt(&e.to_string()))?;
        let mut peaks = Vec::new();
        for _ in 0..meta.u32()? {
            let start = meta.u64()?;
            let shortest = meta.u32()?.to_le_bytes();
            let most = meta.u32()?;
            peaks.push((start, Peaks { shortest, most }));
        }
        let tokens = inverted.total_num_tokens();
        Ok(Self {
            language,
            stats: FieldStats { docs, tokens },
            norms: (0..reader.max_doc()).map(|row| norms.fieldnorm_id(row)).collect(),
            inverted,
            peaks,
        })
    }

    /// A field keeps its analyzer for the life of its collection.
    pub(crate) fn check(&self, name: &FieldName, language: Option<&str>) -> Result<(), TextError> {
        match language {
            Some(language) if language != self.language => {
                let was = &self.language;
                Err(corrupt(&format!(
                    "'{name}' is {language}, the split has it as {was}"
                )))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn find(&self, term: &str) -> Result<Option<TermInfo>, TextError> {
        Ok(self.inverted.terms().get(term.as_bytes())?)
    }

    /// `None` for lists of less than a block.
    pub(crate) fn bound(&self, info: &TermInfo, weight: &Weight<'_>) -> Option<u32> {
        let start = info.postings_range.start as u64;
        let at = self
            .peaks
            .binary_search_by_key(&start, |(start, _)| *start)
            .ok()?;
        Some(self.peaks[at].1.bound(weight))
    }

    /// Terms that an automaton accepts, and how many rows have each.
    pub(crate) fn each_term<A>(&self, automaton: A, mut each: impl FnMut(&str, u64)) -> Result<(), TextError>
    where
        A: Automaton,
        A::State: Clone,
    {
        let mut found = self.inverted.terms().search(automaton).into_stream()?;
        while let Some((term, info)) = found.next() {
            if let Ok(term) = std::str::from_utf8(term) {
                each(term, u64::from(info.doc_freq));
            }
        }
        Ok(())
    }

    pub(crate) fn each_beginning(
        &self,
        prefix: &str,
        mut each: impl FnMut(&str, u64),
    ) -> Result<(), TextError> {
        let mut found = self
            .inverted
            .terms()
            .range()
            .ge(prefix.as_bytes())
            .into_stream()?;
        while let Some((term, info)) = found.next() {
            if !term.starts_with(prefix.as_bytes()) {
                break;
            }
            if let Ok(term) = std::str::from_utf8(term) {
                each(term, u64::from(info.doc_freq));
            }
        }
        Ok(())
    }

    pub(crate) fn occurrences(
        &self,
        info: &TermInfo,
    ) -> Result<tantivy::postings::SegmentPostings, TextError> {
        let option = IndexRecordOption::WithFreqsAndPositions;
        Ok(self.inverted.read_postings_from_terminfo(info, option)?)
    }

    pub(crate) fn blocks(
        &self,
        info: &TermInfo,
    ) -> Result<tantivy::postings::BlockSegmentPostings, TextError> {
        let option = IndexRecordOption::WithFreqs;
        Ok(self.inverted.read_block_postings_from_terminfo(info, option)?)
    }
}

/// The sections of a blob as the files that tantivy asks for.  Read-only.
#[derive(Clone)]
struct BlobFiles {
    files: Arc<BTreeMap<PathBuf, OwnedBytes>>,
}

impl BlobFiles {
    fn new(blob: &OwnedBytes, sections: &BTreeMap<String, Range<usize>>) -> Self {
        let file = |(name, range): (&String, &Range<usize>)| {
            let path = PathBuf::from(name.strip_prefix(FILES)?);
            Some((path, blob.slice(range.clone())))
        };
        Self {
            files: Arc::new(sections.iter().filter_map(file).collect()),
        }
    }

    fn find(&self, path: &Path) -> Result<&OwnedBytes, OpenReadError> {
        let found = self.files.get(path);
        found.ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))
    }
}

impl fmt::Debug for BlobFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.keys()).finish()
    }
}

impl Directory for BlobFiles {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.find(path)
            .map(|bytes| Arc::new(bytes.clone()) as Arc<dyn FileHandle>)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(self.files.contains_key(path))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.find(path).map(|bytes| bytes.to_vec())
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        Err(DeleteError::FileDoesNotExist(path.to_owned()))
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::wrap_io_error(read_only(), path.to_owned()))
    }

    fn atomic_write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

fn read_only() -> io::Error {
    io::Error::from(io::ErrorKind::ReadOnlyFilesystem)
}
