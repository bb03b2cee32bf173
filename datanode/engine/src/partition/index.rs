//! Keeps the search structures of a partition up with its rows: trains grids, sorts rows
//! into lists, measures how far searches must go, saves and loads what came of it.
//!
//! Nothing waits for this task and no answer depends on it: a search scans the codes of
//! rows that are in no list yet.  What is long runs on quiet threads.  A round brings every
//! vector field up to date; what fails is tried again in the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rhumb_core::{FieldName, Vector, VectorIndex, VectorType};
use rhumb_seams::CancellationToken;
use rhumb_view::{
    Calibration, CalibrationQuery, Grid, GridTrainer, Lists, ListsBuilder, RowRef, Segment, View, ViewError,
};
use tokio::time::Instant;

use crate::budget::SegmentPart;
use crate::error::EngineError;
use crate::partition::Shared;
use crate::pinned::{Pinned, bug};
use crate::rows;
use crate::view_files::FileName;

/// With fewer rows a scan of all codes takes no longer than finding the lists.
const LEAST_ROWS: u64 = 10_000;
/// Fresh rows outside lists are scanned one by one: so many cost some ten microseconds.
const FRESH_BACKLOG: u64 = 1_024;
/// A grid is trained anew when its lists are so many times as long as they were meant to be:
/// about √rows / 3.
const OUTGROWN: f64 = 3.0;
/// Codes of smaller segments are made faster than they are loaded.
const WORTH_SAVING: u32 = 4_096;
/// A calibration is measured anew when there are so many times as many rows.
const STALE: u64 = 2;
/// Queries that a calibration is measured with.
const QUERIES: usize = 200;
/// Without writes for so long, a partition is at rest.
const REST: Duration = Duration::from_millis(500);
/// Beside long work, between two looks at the backlog.
const LOOK: Duration = Duration::from_millis(100);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// `View::list_fresh`, or the one for a partition at rest.
type ListFresh = fn(&View, &FieldName, &dyn Fn() -> bool) -> Result<u64, ViewError>;

pub struct Indexer {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Indexer {
    pub fn new(shared: Arc<Shared>, stop: CancellationToken) -> Self {
        Self { shared, stop }
    }

    /// Ends when the partition closes.
    pub async fn run(self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.rounds() => {}
        }
    }

    async fn rounds(&self) {
        loop {
            let asked = self.shared.index_asked.load(Ordering::SeqCst);
            let round = self.round().await;
            // One that failed counts: it is tried again, and nobody's rows depend on it.
            self.shared.indexed.send_replace(asked);
            match round {
                Ok(()) => {
                    let due = self.shared.index_due.notified();
                    if tokio::time::timeout(REST, due).await.is_err() {
                        self.at_rest().await;
                        self.shared.index_due.notified().await;
                    }
                }
                Err(error) => {
                    tracing::warn!(partition = self.shared.name, %error, "indexing failed: trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Nothing has come for a while: what is left outside lists goes in now.
    async fn at_rest(&self) {
        self.list_fields(0, View::list_fresh_at_rest).await;
    }

    async fn round(&self) -> Result<(), EngineError> {
        let schema = self.shared.schema.schema();
        for (field, ty) in schema.vectors() {
            if Grid::supports(ty) && ty.index == VectorIndex::Auto {
                self.lists(field, ty).await?;
            }
            self.save_codes(field, ty).await?;
        }
        self.texts().await
    }

    /// Fresh texts are indexed here, before somebody searches them; and every segment's
    /// index has a file.
    async fn texts(&self) -> Result<(), EngineError> {
        let fields = self.shared.schema.texts()?;
        if fields.is_empty() {
            return Ok(());
        }
        let (shared, of) = (self.shared.clone(), fields.clone());
        self.quietly("fresh texts", move |_| shared.view.index_texts(&of))
            .await?;
        let (pinned, files) = (self.shared.pin().quietly(), &self.shared.files);
        let Some(base) = &pinned.base else { return Ok(()) };
        for sealed in pinned.snapshot.segments() {
            let segment = sealed.segment();
            let Some(name) = FileName::split(base, segment.fragment()) else {
                continue;
            };
            if !worth_saving(segment) || files.has(&name).await? {
                continue;
            }
            let split = match segment.split() {
                Some(split) => split,
                None => Arc::new(pinned.made_split(segment, &fields).await?),
            };
            files.write(&name, split.as_bytes().to_vec()).await?;
        }
        Ok(())
    }

    async fn lists(&self, field: &FieldName, ty: &VectorType) -> Result<(), EngineError> {
        let Some(grid) = self.grid(field, ty).await? else {
            return Ok(());
        };
        let pinned = self.shared.pin().quietly();
        for segment in pinned.snapshot.missing_lists(field.as_str(), &grid) {
            self.listing_meanwhile(self.segment_lists(&pinned, &segment, field, ty, &grid))
                .await?;
        }
        self.fresh_lists(field, FRESH_BACKLOG, View::list_fresh).await?;
        if grid.calibration().rows() == 0 {
            self.saved_calibration(field, &grid).await?;
        }
        let grown = grid.calibration().rows() * STALE < self.shared.view.snapshot().live_rows();
        if grown || grid.is_measuring_due() {
            self.listing_meanwhile(self.calibrate(field, ty, &grid)).await?;
        }
        self.save_lists(field, &grid).await
    }

    /// The grid to use: the view's, a saved one, or a new one when the rows ask for it.
    async fn grid(&self, field: &FieldName, ty: &VectorType) -> Result<Option<Arc<Grid>>, EngineError> {
        let view = &self.shared.view;
        let rows = view.snapshot().live_rows();
        let known = match view.grid(field.as_str()) {
            Some(grid) => Some(grid),
            None => self.saved_grid(field, None).await?,
        };
        let grid = match known {
            Some(grid) if !is_outgrown(&grid, rows) => Some(grid),
            known if rows < LEAST_ROWS => known,
            _ => self.listing_meanwhile(self.train(field, ty, rows)).await?,
        };
        if let Some(grid) = &grid {
            view.set_grid(field, Some(grid.clone()));
        }
        Ok(grid)
    }

    async fn train(
        &self,
        field: &FieldName,
        ty: &VectorType,
        rows: u64,
    ) -> Result<Option<Arc<Grid>>, EngineError> {
        let id = self.shared.env.ids.ulid_number();
        let Some(mut trainer) = GridTrainer::new(ty, id, rows as usize, id as u64) else {
            return Ok(None);
        };
        let started = Instant::now();
        let pinned = self.shared.pin();
        pinned
            .each_vector(field, ty, |vector| trainer.push(vector))
            .await?;
        let grid = self.quietly("grid", |cancel| trainer.train(cancel)).await?;
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::info!(partition = self.shared.name, %field, rows, took_ms, "grid trained");
        Ok(grid.map(Arc::new))
    }

    /// Takes over what the leader of the partition saved: nothing is made here, nothing saved.
    /// `known` are grids that need not be read again.
    pub async fn take_over(&self, known: impl Fn(&str) -> Option<Arc<Grid>>) -> Result<(), EngineError> {
        let schema = self.shared.schema.schema();
        for (field, ty) in schema.vectors() {
            if !Grid::supports(ty) || ty.index != VectorIndex::Auto {
                continue;
            }
            let Some(grid) = self.saved_grid(field, known(field.as_str())).await? else {
                continue;
            };
            self.shared.view.set_grid(field, Some(grid.clone()));
            if grid.calibration().rows() == 0 {
                self.saved_calibration(field, &grid).await?;
            }
            let pinned = self.shared.pin().quietly();
            for segment in pinned.snapshot.missing_lists(field.as_str(), &grid) {
                if let Some(lists) = self.saved_lists(&pinned, &segment, field, &grid).await? {
                    self.attach(&segment, field, lists)?;
                }
            }
        }
        Ok(())
    }

    /// From a file, or made from the base.
    async fn segment_lists(
        &self,
        pinned: &Pinned,
        segment: &Arc<Segment>,
        field: &FieldName,
        ty: &VectorType,
        grid: &Arc<Grid>,
    ) -> Result<(), EngineError> {
        let lists = match self.saved_lists(pinned, segment, field, grid).await? {
            Some(lists) => lists,
            None => self.made_lists(pinned, segment, field, ty, grid).await?,
        };
        self.attach(segment, field, lists)
    }

    async fn saved_lists(
        &self,
        pinned: &Pinned,
        segment: &Segment,
        field: &FieldName,
        grid: &Arc<Grid>,
    ) -> Result<Option<Lists>, EngineError> {
        let Some(name) = self.lists_name(pinned, segment, field, grid) else {
            return Ok(None);
        };
        let open = |bytes: &[u8]| Lists::from_bytes(bytes, grid.clone());
        let saved = self.shared.files.read(&name, open).await?;
        Ok(saved.filter(|lists| lists.rows() == segment.len()))
    }

    fn attach(&self, segment: &Arc<Segment>, field: &FieldName, lists: Lists) -> Result<(), EngineError> {
        let lists = Arc::new(lists);
        segment.attach_lists(field.clone(), lists.clone()).map_err(bug)?;
        let parts = &self.shared.env.parts;
        parts.loaded(segment, SegmentPart::Lists(field.clone()), lists.heap_size());
        Ok(())
    }

    async fn made_lists(
        &self,
        pinned: &Pinned,
        segment: &Arc<Segment>,
        field: &FieldName,
        ty: &VectorType,
        grid: &Arc<Grid>,
    ) -> Result<Lists, EngineError> {
        let (grid, stop, ty) = (grid.clone(), self.stop.clone(), *ty);
        let rows = segment.len();
        pinned
            .built(segment, vec![rows::column_name(field).into()], move |arriving| {
                let mut builder = ListsBuilder::new(grid, rows);
                arriving.each_vector(&ty, |ordinal, vector| match vector {
                    _ if stop.is_cancelled() => Err(ViewError::Cancelled),
                    Some(vector) => builder.push(ordinal, Some(&vector)),
                    None => Ok(()),
                })?;
                Ok(builder.finish())
            })
            .await
    }

    /// Does `work`, which may take as long as a quiet thread is given little time, and goes on
    /// putting fresh rows into lists: searches would come to scan all that were written since.
    async fn listing_meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        let list = || self.list_fields(FRESH_BACKLOG, View::list_fresh).boxed();
        beside(work, LOOK, list).await
    }

    /// As `fresh_lists`, for every field.  What fails is left for the next round.
    async fn list_fields(&self, least: u64, list: ListFresh) {
        let schema = self.shared.schema.schema();
        for (field, _) in schema.vectors() {
            if let Err(error) = self.fresh_lists(field, least, list).await {
                tracing::debug!(partition = self.shared.name, %error, "fresh rows stay outside lists");
            }
        }
    }

    /// Once `least` rows wait.
    async fn fresh_lists(&self, field: &FieldName, least: u64, list: ListFresh) -> Result<(), EngineError> {
        if self.shared.view.fresh_backlog(field.as_str()) < least {
            return Ok(());
        }
        let (shared, field) = (self.shared.clone(), field.clone());
        self.quietly("fresh lists", move |cancel| list(&shared.view, &field, cancel))
            .await?;
        Ok(())
    }

    /// With stored vectors and what lies between them: users ask for more than what is there.
    async fn calibrate(
        &self,
        field: &FieldName,
        ty: &VectorType,
        grid: &Arc<Grid>,
    ) -> Result<(), EngineError> {
        let pinned = self.shared.pin();
        let sample = pinned.sample(field, ty, QUERIES, None).await?;
        if pinned.snapshot.missing_lists(field.as_str(), grid).is_empty() && !sample.is_empty() {
            let _held = pinned.load_codes(field, ty).await?;
            let (field, on) = (field.clone(), grid.clone());
            let queries = queries_around(sample);
            let measured = self.quietly("calibration", move |cancel| {
                pinned.snapshot.calibrate(&field, &on, &queries, cancel)
            });
            if let Some(measured) = measured.await? {
                grid.calibrate(measured);
            }
        }
        Ok(())
    }

    /// On a thread that yields to everybody else, to be cancelled with the partition.
    async fn quietly<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let stop = self.stop.clone();
        let env = &self.shared.env;
        env.quietly(name, move || work(&|| stop.is_cancelled())).await
    }
}

/// Saving and loading: see `view_files`.
impl Indexer {
    async fn saved_grid(
        &self,
        field: &FieldName,
        known: Option<Arc<Grid>>,
    ) -> Result<Option<Arc<Grid>>, EngineError> {
        let pinned = self.shared.pin();
        let column = rows::column_name(field);
        let Some(number) = pinned.base.as_ref().and_then(|base| base.field_number(&column)) else {
            return Ok(None);
        };
        let Some(id) = self.shared.files.newest_grid(number).await? else {
            return Ok(None);
        };
        if known.as_ref().is_some_and(|known| known.id() == id) {
            return Ok(known);
        }
        let grid = self
            .shared
            .files
            .read(&FileName::grid(number, id), Grid::from_bytes)
            .await?;
        Ok(grid.map(Arc::new))
    }

    async fn saved_calibration(&self, field: &FieldName, grid: &Grid) -> Result<(), EngineError> {
        let (pinned, files) = (self.shared.pin(), &self.shared.files);
        let column = rows::column_name(field);
        if let Some(number) = pinned.base.as_ref().and_then(|base| base.field_number(&column))
            && let Some(name) = files.newest_calibration(number, grid.id()).await?
            && let Some(saved) = files.read(&name, Calibration::from_bytes).await?
        {
            grid.calibrate(saved);
        }
        Ok(())
    }

    /// The grid goes last: lists without it are nothing, and it stands for all of them.
    async fn save_lists(&self, field: &FieldName, grid: &Arc<Grid>) -> Result<(), EngineError> {
        let (pinned, files) = (self.shared.pin(), &self.shared.files);
        let column = rows::column_name(field);
        let Some(base) = &pinned.base else { return Ok(()) };
        let Some(number) = base.field_number(&column) else {
            return Ok(());
        };
        for sealed in pinned.snapshot.segments() {
            let segment = sealed.segment();
            let Some(name) = self.lists_name(&pinned, segment, field, grid) else {
                continue;
            };
            let lists = segment.lists(field.as_str());
            if let Some(lists) = lists.filter(|lists| lists.grid().id() == grid.id() && worth_saving(segment))
                && !files.has(&name).await?
            {
                files.write(&name, lists.to_bytes()).await?;
            }
        }
        let name = FileName::grid(number, grid.id());
        if !files.has(&name).await? {
            files.write(&name, grid.to_bytes()).await?;
        }
        let calibration = grid.calibration();
        let name = FileName::calibration(number, grid.id(), &calibration);
        if calibration.rows() > 0 && !files.has(&name).await? {
            files.write(&name, calibration.to_bytes()).await?;
        }
        Ok(())
    }

    /// Of segments that nobody has searched too: whoever is the first loads them.
    async fn save_codes(&self, field: &FieldName, ty: &VectorType) -> Result<(), EngineError> {
        let pinned = self.shared.pin().quietly();
        let Some(base) = &pinned.base else { return Ok(()) };
        for sealed in pinned.snapshot.segments() {
            let segment = sealed.segment();
            let name = FileName::codes(base, segment.fragment(), &rows::column_name(field));
            let Some(name) = name.filter(|_| worth_saving(segment)) else {
                continue;
            };
            if self.shared.files.has(&name).await? {
                continue;
            }
            let codes = match segment.codes(field.as_str()) {
                Some(codes) => codes,
                None => Arc::new(pinned.made_codes(segment, field, ty).await?),
            };
            self.shared.files.write(&name, codes.to_bytes()).await?;
        }
        Ok(())
    }

    fn lists_name(
        &self,
        pinned: &Pinned,
        segment: &Segment,
        field: &FieldName,
        grid: &Grid,
    ) -> Option<FileName> {
        let column = rows::column_name(field);
        FileName::lists(pinned.base.as_ref()?, segment.fragment(), &column, grid.id())
    }
}

/// The sample itself, and what lies between two of it: users ask for more than what is there.
fn queries_around(sample: Vec<(RowRef, Vector)>) -> Vec<CalibrationQuery> {
    let numbers = |vector: &Vector| match vector {
        Vector::F32(vector) => vector.to_vec(),
        Vector::I8(vector) => vector.iter().map(|x| f32::from(*x)).collect(),
        Vector::Bits(_) => Vec::new(),
    };
    let between = sample.chunks_exact(2).map(|pair| {
        let (a, b) = (numbers(&pair[0].1), numbers(&pair[1].1));
        let middle: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a + b) / 2.0).collect();
        CalibrationQuery {
            vector: Vector::F32(middle.into()),
            source: None,
        }
    });
    let between: Vec<_> = between.collect();
    let stored = sample.into_iter().map(|(row, vector)| CalibrationQuery {
        vector,
        source: Some(row),
    });
    stored.chain(between).collect()
}

fn is_outgrown(grid: &Grid, rows: u64) -> bool {
    let meant = (rows as f64 / OUTGROWN).sqrt() * 3.0;
    meant > grid.lists() as f64
}

fn worth_saving(segment: &Segment) -> bool {
    segment.len() >= WORTH_SAVING
}

/// Does `work`, and every now and then the chore.
async fn beside<'a, T>(
    work: impl Future<Output = T>,
    every: Duration,
    mut chore: impl FnMut() -> BoxFuture<'a, ()>,
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(every, &mut work).await {
            return done;
        }
        chore().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_chore_is_done_beside_work_that_waits_for_it() {
        let done = AtomicU32::new(0);
        let work = async {
            while done.load(Ordering::SeqCst) < 3 {
                tokio::time::sleep(LOOK * 10).await;
            }
            "worked"
        };
        let chore = || {
            let count = async {
                done.fetch_add(1, Ordering::SeqCst);
            };
            count.boxed()
        };
        assert_eq!(beside(work, LOOK, chore).await, "worked");
        let never = || -> BoxFuture<'static, ()> { unreachable!("short work") };
        assert_eq!(beside(async { 7 }, LOOK, never).await, 7);
    }
}
