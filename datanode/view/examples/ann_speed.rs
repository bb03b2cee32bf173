//! Approximate search on this machine, in CPU time of one core:
//! `cargo run -p rhumb-view --example ann_speed -- [--base file --queries file] [--dim 384] [--rows 100000] [--k 10] [--metric cosine]`.
//! Files are raw little-endian f32, row after row.  Without them: clusters, every tenth
//! query outside of all.  Ratios, not promises.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::filter::{Leaf, Path, Test};
use rhumb_core::query::Accuracy;
use rhumb_core::{
    DocId, Document, Element, FieldName, FieldType, Filter, Metric, Scalar, Seq, Value, Vector, VectorIndex,
    VectorType,
};
use rhumb_view::{
    CalibrationQuery, Change, CodesBuilder, ColumnBuilder, Grid, GridTrainer, Keys, ListsBuilder, RowMask,
    RowRef, Scorer, SearchSpec, Segment, Snapshot, View,
};
use roaring::RoaringBitmap;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// CPU time of this thread since some point.
struct Instant(Duration);

impl Instant {
    fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.unit()).sum::<f32>() - 2.0
    }
}

struct Data {
    dim: usize,
    base: Vec<f32>,
    queries: Vec<f32>,
}

impl Data {
    fn row(&self, at: usize) -> &[f32] {
        &self.base[at * self.dim..][..self.dim]
    }

    fn rows(&self) -> usize {
        self.base.len() / self.dim
    }

    fn read(args: &Args) -> Result<Self> {
        let floats = |path: &str| -> Result<Vec<f32>> {
            let bytes = std::fs::read(path)?;
            Ok(bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|four| f32::from_le_bytes(*four))
                .collect())
        };
        let mut base = floats(&args.base)?;
        base.truncate(args.rows * args.dim);
        let mut queries = floats(&args.queries)?;
        queries.truncate(500 * args.dim);
        Ok(Self {
            dim: args.dim,
            base,
            queries,
        })
    }

    /// Centres have a low-dimensional shape of their own, as embeddings do.
    fn clusters(args: &Args) -> Self {
        let mut random = Random(42);
        let factors: Vec<f32> = (0..32 * args.dim).map(|_| random.normal()).collect();
        let point = |random: &mut Random, spread: f32| -> Vec<f32> {
            let weights: Vec<f32> = (0..32).map(|_| random.normal() * spread).collect();
            let of = |at: usize| {
                weights
                    .iter()
                    .enumerate()
                    .map(|(f, w)| w * factors[f * args.dim + at])
                    .sum()
            };
            (0..args.dim).map(of).collect()
        };
        let centres: Vec<Vec<f32>> = (0..args.rows / 80).map(|_| point(&mut random, 0.3)).collect();
        let vector = |random: &mut Random, outside: bool| {
            let centre = &centres[random.next() as usize % centres.len()];
            let own = point(random, if outside { 0.3 } else { 0.18 });
            let keep = if outside { 0.0 } else { 1.0 };
            centre
                .iter()
                .zip(own)
                .map(|(c, o)| keep * c + o + 0.3 * random.normal())
                .collect::<Vec<f32>>()
        };
        let base = (0..args.rows).flat_map(|_| vector(&mut random, false)).collect();
        let queries = (0..300)
            .flat_map(|at| vector(&mut random, at % 10 == 9))
            .collect();
        Self {
            dim: args.dim,
            base,
            queries,
        }
    }
}

struct Args {
    base: String,
    queries: String,
    dim: usize,
    rows: usize,
    k: usize,
    metric: Metric,
}

impl Args {
    fn parse() -> Result<Self> {
        let mut args = Self {
            base: String::new(),
            queries: String::new(),
            dim: 384,
            rows: 100_000,
            k: 10,
            metric: Metric::Cosine,
        };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let value = words.next().ok_or("a value is missing")?;
            match flag.as_str() {
                "--base" => args.base = value,
                "--queries" => args.queries = value,
                "--dim" => args.dim = value.parse()?,
                "--rows" => args.rows = value.parse()?,
                "--k" => args.k = value.parse()?,
                "--metric" => {
                    args.metric = match value.as_str() {
                        "cosine" => Metric::Cosine,
                        "dot" => Metric::Dot,
                        "l2" => Metric::L2,
                        _ => return Err("cosine, dot or l2".into()),
                    }
                }
                other => return Err(format!("unknown flag {other}").into()),
            }
        }
        Ok(args)
    }
}

/// A view of some rows, and what a caller of searches must know.
struct Bench<'a> {
    out: io::StdoutLock<'a>,
    data: Data,
    ty: VectorType,
    field: FieldName,
    k: usize,
    view: View,
}

fn name(text: &str) -> Result<FieldName> {
    Ok(FieldName::parse(text)?)
}

fn main() -> Result<()> {
    let args = Args::parse()?;
    let data = if args.base.is_empty() {
        Data::clusters(&args)
    } else {
        Data::read(&args)?
    };
    let ty = VectorType {
        dim: args.dim as u32,
        metric: args.metric,
        element: Element::F32,
        index: VectorIndex::Auto,
    };
    let field = name("v")?;
    let mut bench = Bench {
        out: io::stdout().lock(),
        data,
        ty,
        field,
        k: args.k,
        view: View::new(),
    };
    let rows = bench.data.rows();
    let sealed = rows * 100 / 117;
    let grid = bench.build(sealed)?;
    bench.report("shipped limits", sealed, None, Accuracy::Recall(0.95))?;
    bench.calibrate(&grid, sealed)?;
    for recall in [0.8, 0.9, 0.95, 0.97, 0.99] {
        bench.report(
            &format!("recall {recall}"),
            sealed,
            None,
            Accuracy::Recall(recall),
        )?;
    }
    for effort in [10, 100] {
        bench.report(
            &format!("effort {effort}"),
            sealed,
            None,
            Accuracy::Effort(effort),
        )?;
    }
    bench.report("exact", sealed, None, Accuracy::Exact)?;
    bench.filters(sealed)?;
    bench.fresh(&grid, sealed..rows)?;
    bench.report("with 17 % fresh", rows, None, Accuracy::Recall(0.95))?;
    let size = bench.view.heap_size();
    writeln!(bench.out, "memory: {size:?}")?;
    Ok(())
}

impl Bench<'_> {
    fn build(&mut self, sealed: usize) -> Result<Arc<Grid>> {
        let started = Instant::now();
        let mut codes = CodesBuilder::new(&self.ty, sealed);
        (0..sealed).try_for_each(|at| codes.push_f32(self.data.row(at)))?;
        let codes = codes.finish();
        let coded = started.elapsed();
        let started = Instant::now();
        let mut trainer = GridTrainer::new(&self.ty, 1, sealed, 7).ok_or("no lists for this type")?;
        (0..sealed).try_for_each(|at| trainer.push_f32(self.data.row(at)))?;
        let grid = Arc::new(trainer.train(&|| false)?.ok_or("no rows")?);
        let trained = started.elapsed();
        let started = Instant::now();
        let mut builder = ListsBuilder::new(grid.clone(), sealed as u32);
        (0..sealed).try_for_each(|at| builder.push_f32(at as u32, self.data.row(at)))?;
        let lists = builder.finish();
        let listed = started.elapsed();
        writeln!(
            self.out,
            "{sealed} rows x {}: {} lists; codes {coded:.2?}, grid {trained:.2?}, lists {listed:.2?}; bytes per row: codes {}, lists {}, grid {}",
            self.data.dim,
            grid.lists(),
            codes.heap_size() / sealed,
            lists.heap_size() / sealed,
            grid.heap_size() / sealed,
        )?;
        let mut keys = Keys::builder();
        (0..sealed as u64).try_for_each(|n| keys.push_num(n))?;
        let seqs = (0..sealed as u64).map(Seq).collect();
        let segment = Segment::new(0, keys.finish(), seqs)?;
        segment.attach_codes(self.field.clone(), Arc::new(codes))?;
        segment.attach_lists(self.field.clone(), Arc::new(lists))?;
        self.attach_columns(&segment)?;
        self.view.add_segment(segment, &RoaringBitmap::new())?;
        Ok(grid)
    }

    /// `any` is random below 100; `near` follows the distance to the first query.
    fn attach_columns(&self, segment: &Segment) -> Result<()> {
        let mut random = Random(5);
        let mut any = ColumnBuilder::new(&FieldType::Scalar(Scalar::Int));
        let mut near = ColumnBuilder::new(&FieldType::Scalar(Scalar::Int));
        let rows = segment.len() as usize;
        let anchor = Vector::F32(self.data.row(11).into());
        let scorer = Scorer::new(&self.ty, &anchor)?;
        let score = |at: usize| scorer.score_f32(self.data.row(at)).unwrap_or_default();
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
        let mut percent = vec![0; rows];
        order
            .iter()
            .enumerate()
            .for_each(|(rank, at)| percent[*at] = (rank * 100 / rows) as i64);
        for near_percent in percent {
            any.push_i64((random.next() % 100) as i64)?;
            near.push_i64(near_percent)?;
        }
        segment.attach_column(name("any")?, Arc::new(any.finish()))?;
        segment.attach_column(name("near")?, Arc::new(near.finish()))?;
        Ok(())
    }

    fn calibrate(&mut self, grid: &Arc<Grid>, sealed: usize) -> Result<()> {
        let started = Instant::now();
        let mut random = Random(9);
        let snapshot = self.view.snapshot();
        let segment = snapshot.segments()[0].id();
        let queries = (0..200).map(|at| {
            let row = random.next() as usize % sealed;
            let other = self.data.row(random.next() as usize % sealed);
            let weight = if at % 4 == 3 { 0.5 } else { 0.0 };
            let vector = self.data.row(row).iter().zip(other).map(|(a, b)| a + weight * b);
            CalibrationQuery {
                vector: Vector::F32(vector.collect()),
                source: Some(RowRef::new(segment, row as u32)),
            }
        });
        let queries: Vec<CalibrationQuery> = queries.collect();
        let measured = snapshot
            .calibrate(&self.field, grid, &queries, &|| false)?
            .ok_or("no hits")?;
        writeln!(self.out, "calibrated in {:.2?}: {measured:?}", started.elapsed())?;
        grid.calibrate(measured);
        Ok(())
    }

    fn filters(&mut self, sealed: usize) -> Result<()> {
        let snapshot = self.view.snapshot();
        for (field, percent) in [("any", 1), ("any", 10), ("any", 50), ("near", 1), ("near", 10)] {
            let filter = Filter::Leaf(Leaf {
                path: Path::Field(name(field)?),
                test: Test::Lt(Value::Int(percent)),
            });
            let mask = snapshot.filter(&filter)?;
            let text = format!("filter {field} {percent} %");
            self.report(&text, sealed, Some(&mask), Accuracy::Recall(0.95))?;
        }
        Ok(())
    }

    fn fresh(&mut self, grid: &Arc<Grid>, rows: std::ops::Range<usize>) -> Result<()> {
        self.view.set_grid(&self.field, Some(grid.clone()));
        let (mut wrote, mut listed, mut calls) = (Duration::ZERO, Duration::ZERO, 0);
        let count = rows.len();
        for at in rows {
            let vector = Value::Vector(Vector::F32(self.data.row(at).into()));
            let change = Change {
                id: DocId::from(at as u64),
                seq: Seq(at as u64 + 1),
                document: Some(Arc::new(Document::from_fields(vec![(
                    self.field.clone(),
                    vector,
                )]))),
            };
            let started = Instant::now();
            self.view.apply(&[change]);
            wrote += started.elapsed();
            if self.view.fresh_backlog(self.field.as_str()) >= 256 {
                let started = Instant::now();
                self.view.list_fresh(&self.field, &|| false)?;
                listed += started.elapsed();
                calls += 1;
            }
        }
        writeln!(
            self.out,
            "{count} fresh rows: applied in {wrote:.2?}, listed in {listed:.2?} by {calls} calls, {} left",
            self.view.fresh_backlog(self.field.as_str())
        )?;
        Ok(())
    }

    fn report(&mut self, text: &str, rows: usize, mask: Option<&RowMask>, accuracy: Accuracy) -> Result<()> {
        let snapshot = self.view.snapshot();
        let queries: Vec<Vector> = self
            .data
            .queries
            .chunks_exact(self.data.dim)
            .map(|query| Vector::F32(query.into()))
            .collect();
        let mut spec = SearchSpec {
            field: &self.field,
            ty: &self.ty,
            query: &queries[0],
            k: self.k,
            mask,
            accuracy,
            cancel: &|| false,
        };
        let mut times: Vec<Duration> = Vec::new();
        let (mut found, mut wanted, mut estimated, mut ranked, mut left) = (0, 0, 0, 0, 0);
        for query in &queries {
            spec.query = query;
            let (time, candidates) = best_of(5, &snapshot, &spec)?;
            times.push(time);
            estimated += candidates.rows_estimated;
            ranked += candidates.rows_scanned + candidates.fresh_scanned;
            left += candidates.uncertain.len();
            let hits = self.finish(query, candidates)?;
            let truth = self.truth(&snapshot, query, rows, mask)?;
            found += truth.iter().filter(|row| hits.contains(row)).count();
            wanted += truth.len();
        }
        times.sort();
        let count = queries.len();
        writeln!(
            self.out,
            "{text}: recall {:.4}, mean {:.1?}, median {:.1?}, p95 {:.1?}; {} estimated, {} ranked, {:.1} left",
            found as f64 / wanted.max(1) as f64,
            times.iter().sum::<Duration>() / count as u32,
            times[count / 2],
            times[count * 95 / 100],
            estimated / count as u64,
            ranked / count as u64,
            left as f64 / count as f64,
        )?;
        Ok(())
    }

    /// Rows of the data, by their number.
    fn finish(&self, query: &Vector, candidates: rhumb_view::Candidates) -> Result<BTreeSet<u64>> {
        let scorer = Scorer::new(&self.ty, query)?;
        let score = |row: &RowRef| Some((*row, scorer.score_f32(self.data.row(row.ordinal as usize))?));
        let scores: Vec<_> = candidates.uncertain.iter().filter_map(score).collect();
        let hits = candidates.finish(&scores)?;
        let number = |id: DocId| match id {
            DocId::Num(n) => n,
            DocId::Str(_) => u64::MAX,
        };
        Ok(hits.into_iter().map(|hit| number(hit.id)).collect())
    }

    fn truth(
        &self,
        snapshot: &Snapshot,
        query: &Vector,
        rows: usize,
        mask: Option<&RowMask>,
    ) -> Result<Vec<u64>> {
        let scorer = Scorer::new(&self.ty, query)?;
        let segment = snapshot.segments()[0].id();
        let allowed = |at: &usize| mask.is_none_or(|mask| mask.contains(RowRef::new(segment, *at as u32)));
        let score = |at: usize| Some((scorer.score_f32(self.data.row(at))?, at as u64));
        let mut scored: Vec<(f32, u64)> = (0..rows).filter(allowed).filter_map(score).collect();
        let k = self.k.min(scored.len());
        if k < scored.len() {
            scored.select_nth_unstable_by(k, |a, b| b.0.total_cmp(&a.0));
        }
        Ok(scored[..k].iter().map(|(_, at)| *at).collect())
    }
}

/// The best of some calls: the others shared the core with somebody.
fn best_of(
    runs: u32,
    snapshot: &Arc<Snapshot>,
    spec: &SearchSpec<'_>,
) -> Result<(Duration, rhumb_view::Candidates)> {
    let mut last = snapshot.search(spec)?;
    let mut best = Duration::MAX;
    for _ in 0..runs {
        let started = Instant::now();
        last = snapshot.search(spec)?;
        best = best.min(started.elapsed());
    }
    Ok((best, last))
}
