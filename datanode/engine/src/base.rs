//! The base table of a partition: one version of a Lance dataset.
//!
//! Invariants:
//! - STATE alone says which version counts (P11).  A version that STATE does not name is
//!   an orphan of a crash or a zombie: the next commit first restores the named one.
//! - A commit counts only if it landed exactly one version above the one it was made for;
//!   anything else is `Conflict`, is never named, and is restored away.
//! - One fragment is one view segment: row offset = ordinal, for as long as it lives.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{RecordBatch, RecordBatchIterator};
use arrow_schema::{ArrowError, Schema as ArrowSchema};
use futures::TryStreamExt;
use lance::Dataset;
use lance::dataset::cleanup::CleanupPolicy;
use lance::dataset::scanner::DatasetRecordBatchStream;
use lance::dataset::transaction::{Operation, Transaction, TransactionBuilder};
use lance::dataset::{
    CommitBuilder, InsertBuilder, NewColumnTransform, ProjectionRequest, WriteMode, WriteParams,
};
use lance::deps::datafusion::error::DataFusionError;
use lance::deps::datafusion::execution::SendableRecordBatchStream;
use lance::deps::datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use lance_core::utils::deletion::DeletionVector;
use lance_io::object_store::ObjectStore;
use lance_io::utils::CachedFileSize;
use lance_table::format::Fragment;
use lance_table::io::deletion::relative_deletion_file_path;
use object_store::path::Path;
use rhumb_core::{FieldName, Schema};
use roaring::RoaringBitmap;

use crate::error::EngineError;
use crate::lance_store::LanceEnv;
use crate::remains::TableFiles;
use crate::rows::{self, Row};

/// Rows per Arrow batch handed to the Lance writer: bounds its buffers.
const WRITE_BATCH_ROWS: usize = 8_192;
/// Scans read this many rows at a time: 1,024-d rows are 4 KB each.
const READ_BATCH_ROWS: usize = 4_096;
/// What a scan may read ahead of whoever takes its batches; Lance's own default is 2 GiB.
const READ_AHEAD_BYTES: u64 = 32 << 20;

/// One immutable version; cheap to clone and safe to keep: files outlive every cursor.
#[derive(Clone)]
pub struct Base {
    env: LanceEnv,
    dataset: Arc<Dataset>,
}

/// A fragment as the view needs it.
#[derive(Clone, Debug)]
pub struct FragmentInfo {
    pub id: u64,
    pub physical_rows: u32,
    pub dead: RoaringBitmap,
}

/// One atomic change of the base.
#[derive(Default)]
pub struct Change {
    /// Row offsets to kill, by fragment.
    pub kill: BTreeMap<u64, RoaringBitmap>,
    /// Fragments to drop whole (merged away).
    pub drop: Vec<u64>,
    /// What recovery and a curious reader see in the transaction.
    pub properties: HashMap<String, String>,
}

impl Base {
    pub async fn open(env: &LanceEnv, url: &str, version: u64) -> Result<Self, EngineError> {
        let dataset = env.dataset(url).with_version(version).load().await?;
        Ok(Self {
            env: env.clone(),
            dataset: Arc::new(dataset),
        })
    }

    /// The empty table every base starts from.  A table that is already there was made by
    /// a crashed attempt or a zombie: its first version is the same empty table.
    pub async fn create(env: &LanceEnv, url: &str, schema: &Schema) -> Result<Self, EngineError> {
        let arrow = Arc::new(rows::table_schema(schema)?);
        let empty = RecordBatchIterator::new(Vec::<Result<RecordBatch, ArrowError>>::new(), arrow);
        let params = WriteParams {
            mode: WriteMode::Create,
            session: Some(env.session()),
            skip_auto_cleanup: true,
            ..Default::default()
        };
        let created = InsertBuilder::new(url)
            .with_params(&params)
            .execute_stream(empty)
            .await;
        match created {
            Ok(dataset) => Ok(Self {
                env: env.clone(),
                dataset: Arc::new(dataset),
            }),
            Err(lance::Error::DatasetAlreadyExists { .. } | lance::Error::CommitConflict { .. }) => {
                Self::open(env, url, 1).await
            }
            Err(e) => Err(e.into()),
        }
    }

    pub fn version(&self) -> u64 {
        self.dataset.version().version
    }

    pub fn bytes(&self) -> u64 {
        let files = self.dataset.fragments().iter().flat_map(|f| &f.files);
        files.filter_map(|f| f.file_size_bytes.get()).map(u64::from).sum()
    }

    pub async fn fragments(&self) -> Result<Vec<FragmentInfo>, EngineError> {
        let mut infos = Vec::new();
        for fragment in self.dataset.get_fragments() {
            let dead = match fragment.get_deletion_vector().await? {
                None => RoaringBitmap::new(),
                Some(vector) => match vector.as_ref() {
                    DeletionVector::NoDeletions => RoaringBitmap::new(),
                    DeletionVector::Set(set) => set.iter().copied().collect(),
                    DeletionVector::Bitmap(bitmap) => bitmap.clone(),
                },
            };
            let physical_rows = fragment.physical_rows().await? as u32;
            infos.push(FragmentInfo {
                id: fragment.id() as u64,
                physical_rows,
                dead,
            });
        }
        Ok(infos)
    }

    /// Columns of one fragment, live rows only, in row order, with their offsets.  A column
    /// the table does not have yet is left out.
    pub async fn batches(&self, fragment: u64, columns: &[Cow<'_, str>]) -> Result<Batches, EngineError> {
        let fragment = self
            .dataset
            .get_fragment(fragment as usize)
            .ok_or_else(|| EngineError::Corrupt(format!("fragment {fragment} is not in the base table")))?;
        let mut scanner = fragment.scan();
        scanner.with_row_address().project(&self.known(columns))?;
        scanner
            .batch_size(READ_BATCH_ROWS)
            .io_buffer_size(READ_AHEAD_BYTES)
            .scan_in_order(true);
        Ok(Batches(scanner.try_into_stream().await?))
    }

    /// As `batches`, to the end.
    pub async fn scan(
        &self,
        fragment: u64,
        columns: &[Cow<'_, str>],
        mut each: impl FnMut(&[u32], RecordBatch) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut batches = self.batches(fragment, columns).await?;
        while let Some((offsets, batch)) = batches.next().await? {
            each(&offsets, batch)?;
        }
        Ok(())
    }

    /// Columns of the given rows, in the order asked for.
    pub async fn take(
        &self,
        rows: &[(u64, u32)],
        columns: &[Cow<'_, str>],
    ) -> Result<RecordBatch, EngineError> {
        let addresses: Vec<u64> = rows
            .iter()
            .map(|(fragment, offset)| (fragment << 32) | u64::from(*offset))
            .collect();
        let projection = ProjectionRequest::from_columns(self.known(columns), self.dataset.schema());
        let batch = self.dataset.take_rows(&addresses, projection).await?;
        if batch.num_rows() != rows.len() {
            return Err(EngineError::Corrupt(format!(
                "{} rows were asked of the base table, {} came back",
                rows.len(),
                batch.num_rows()
            )));
        }
        Ok(batch)
    }

    /// The file that holds a column of a fragment, the column's number in it, and its size.
    /// `None` where the column came later than the fragment.
    pub fn column_file(&self, fragment: u64, column: &str) -> Option<(Path, usize, CachedFileSize)> {
        let field = self.dataset.schema().field(column)?.id;
        let fragment = self.dataset.fragments().iter().find(|f| f.id == fragment)?;
        fragment.files.iter().find_map(|file| {
            let at = file.fields.iter().position(|id| *id == field)?;
            let number = usize::try_from(*file.column_indices.get(at)?).ok()?;
            // The table's own folder: we never write elsewhere.
            let folder = file.base_id.is_none().then(|| self.dataset.data_dir())?;
            Some((
                folder.join(file.path.as_str()),
                number,
                file.file_size_bytes.clone(),
            ))
        })
    }

    /// A column's number: its own for as long as the table lives.
    pub fn field_number(&self, column: &str) -> Option<i32> {
        Some(self.dataset.schema().field(column)?.id)
    }

    /// The names, without their endings, of the files that hold this version's rows.
    pub fn data_file_stems(&self) -> BTreeSet<String> {
        let files = self.dataset.fragments().iter().flat_map(|f| &f.files);
        let stem = |path: &str| path.split_once('.').map_or(path, |(stem, _)| stem).to_owned();
        files.map(|file| stem(&file.path)).collect()
    }

    /// What this version consists of.
    pub fn files(&self) -> TableFiles {
        let manifest = self.dataset.manifest();
        let mut rows = BTreeSet::new();
        for fragment in self.dataset.fragments().iter() {
            rows.extend(fragment.files.iter().map(|file| format!("data/{}", file.path)));
            rows.extend(
                fragment
                    .deletion_file
                    .iter()
                    .map(|file| relative_deletion_file_path(fragment.id, file)),
            );
        }
        TableFiles {
            version: self.version(),
            rows,
            transaction: manifest.transaction_file.clone(),
        }
    }

    pub async fn object_store(&self) -> Result<Arc<ObjectStore>, EngineError> {
        Ok(self.dataset.object_store(None).await?)
    }

    fn known<'a>(&self, columns: &'a [Cow<'_, str>]) -> Vec<&'a str> {
        columns
            .iter()
            .map(Cow::as_ref)
            .filter(|c| self.dataset.schema().field(c).is_some())
            .collect()
    }

    /// Makes this version the newest: restores it when others (orphans) lie above it.
    pub async fn on_top(&self) -> Result<Self, EngineError> {
        if self.dataset.latest_version_id().await? == self.version() {
            return Ok(self.clone());
        }
        let mut dataset = self.dataset.as_ref().clone();
        dataset.restore().await?;
        tracing::info!(
            version = self.version(),
            restored = dataset.version().version,
            "orphaned base versions undone"
        );
        Ok(Self {
            env: self.env.clone(),
            dataset: Arc::new(dataset),
        })
    }

    /// Adds the columns the schema has and the table has not.
    pub async fn with_columns(&self, schema: &Schema) -> Result<Self, EngineError> {
        let missing: Vec<_> = schema
            .fields
            .iter()
            .filter(|(name, _)| self.dataset.schema().field(&rows::column_name(name)).is_none())
            .map(|(name, field)| rows::column(name, &field.ty))
            .collect();
        if missing.is_empty() {
            return Ok(self.clone());
        }
        let mut dataset = self.dataset.as_ref().clone();
        let columns = NewColumnTransform::AllNulls(Arc::new(ArrowSchema::new(missing)));
        dataset.add_columns(columns, None, None).await?;
        self.followed_by(dataset)
    }

    /// Writes rows into a file of the table without committing: the new fragment.
    pub async fn write_rows<I>(&self, schema: Arc<Schema>, rows: I) -> Result<Option<Fragment>, EngineError>
    where
        I: Iterator<Item = Result<Vec<Row>, EngineError>> + Send + 'static,
    {
        let arrow = Arc::new(rows::table_schema(&schema)?);
        let batches = rows.map(move |chunk| {
            chunk
                .and_then(|rows| rows::encode_table(&rows, &schema))
                .map_err(|e| DataFusionError::External(Box::new(e)))
        });
        self.write_stream(Box::pin(RecordBatchStreamAdapter::new(
            arrow,
            futures::stream::iter(batches),
        )))
        .await
    }

    async fn write_stream(&self, source: SendableRecordBatchStream) -> Result<Option<Fragment>, EngineError> {
        let params = WriteParams {
            mode: WriteMode::Append,
            session: Some(self.env.session()),
            max_rows_per_file: u32::MAX as usize,
            skip_auto_cleanup: true,
            ..Default::default()
        };
        let transaction = InsertBuilder::new(self.dataset.clone())
            .with_params(&params)
            .execute_uncommitted_stream(source)
            .await?;
        let Operation::Append { mut fragments } = transaction.operation else {
            return Err(EngineError::Bug("an append was planned as something else".into()));
        };
        if fragments.len() > 1 {
            return Err(EngineError::Bug(format!(
                "one write made {} fragments",
                fragments.len()
            )));
        }
        Ok(fragments.pop())
    }

    /// Writes the live rows of some fragments into one new file, in table order, without
    /// committing.  Streams: memory does not grow with the fragments.
    pub async fn rewrite(&self, fragments: &[u64]) -> Result<Option<Fragment>, EngineError> {
        let chosen = self
            .dataset
            .fragments()
            .iter()
            .filter(|f| fragments.contains(&f.id))
            .cloned()
            .collect();
        let mut scanner = self.dataset.scan();
        scanner
            .with_fragments(chosen)
            .scan_in_order(true)
            .io_buffer_size(READ_AHEAD_BYTES)
            .batch_size(READ_BATCH_ROWS);
        let stream = scanner.try_into_stream().await?;
        self.write_stream(SendableRecordBatchStream::from(stream)).await
    }

    /// Commits kills, drops and at most one new fragment together.  Returns the new
    /// version and the new fragment's id.
    pub async fn commit(
        &self,
        change: Change,
        new: Option<Fragment>,
    ) -> Result<(Self, Option<u64>), EngineError> {
        let mut updated_fragments = Vec::new();
        let mut removed_fragment_ids = change.drop;
        for (id, offsets) in change.kill {
            let fragment = self.dataset.get_fragment(id as usize).ok_or_else(|| {
                EngineError::Bug(format!("rows to kill in fragment {id}, which is not there"))
            })?;
            match fragment.extend_deletions(offsets).await? {
                Some(fragment) => updated_fragments.push(fragment.metadata().clone()),
                None => removed_fragment_ids.push(id),
            }
        }
        let has_new = new.is_some();
        let operation = Operation::Update {
            removed_fragment_ids,
            updated_fragments,
            new_fragments: new.into_iter().collect(),
            fields_modified: Vec::new(),
            compacted_sstables: Vec::new(),
            fields_for_preserving_frag_bitmap: Vec::new(),
            update_mode: None,
            inserted_rows_filter: None,
            updated_fragment_offsets: None,
        };
        let transaction: Transaction = TransactionBuilder::new(self.version(), operation)
            .transaction_properties(Some(Arc::new(change.properties)))
            .build();
        let dataset = CommitBuilder::new(self.dataset.clone())
            .with_max_retries(0)
            .with_skip_auto_cleanup(true)
            .execute(transaction)
            .await?;
        let next = self.followed_by(dataset)?;
        let id = has_new
            .then(|| next.dataset.fragments().iter().map(|f| f.id).max())
            .flatten();
        Ok((next, id))
    }

    fn followed_by(&self, dataset: Dataset) -> Result<Self, EngineError> {
        let (from, to) = (self.version(), dataset.version().version);
        if to != from + 1 {
            return Err(EngineError::Unavailable(format!(
                "a commit meant for version {} landed at {to}: another writer commits to this table",
                from + 1
            )));
        }
        Ok(Self {
            env: self.env.clone(),
            dataset: Arc::new(dataset),
        })
    }

    /// Deletes files that only versions older than `before` need.  Never the current one.
    pub async fn clean(&self, before: chrono::DateTime<chrono::Utc>) -> Result<(), EngineError> {
        let policy = CleanupPolicy {
            before_timestamp: Some(before),
            before_version: Some(self.version()),
            error_if_tagged_old_versions: false,
            ..Default::default()
        };
        self.dataset.cleanup_with_policy(policy).await?;
        Ok(())
    }
}

/// A scan under way.
pub struct Batches(DatasetRecordBatchStream);

impl Batches {
    pub async fn next(&mut self) -> Result<Option<(Vec<u32>, RecordBatch)>, EngineError> {
        let Some(batch) = self.0.try_next().await? else {
            return Ok(None);
        };
        let addresses = batch
            .column_by_name(lance_core::ROW_ADDR)
            .and_then(|c| c.as_primitive_opt::<UInt64Type>())
            .ok_or_else(|| EngineError::Bug("a scan came back without row addresses".into()))?;
        let offsets = addresses.values().iter().map(|a| *a as u32).collect();
        Ok(Some((offsets, batch)))
    }
}

/// Splits rows into the chunks that [`Base::write_rows`] takes.
pub fn chunks(rows: Vec<Row>) -> impl Iterator<Item = Result<Vec<Row>, EngineError>> + Send + 'static {
    let mut rows = rows.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<Row> = rows.by_ref().take(WRITE_BATCH_ROWS).collect();
        (!chunk.is_empty()).then_some(Ok(chunk))
    })
}

/// Column names of the fields asked for, with the keys first.
pub fn with_keys<'a>(fields: impl IntoIterator<Item = &'a FieldName>) -> Vec<Cow<'a, str>> {
    [rows::ID, rows::SEQ]
        .map(Cow::Borrowed)
        .into_iter()
        .chain(fields.into_iter().map(rows::column_name))
        .collect()
}
