//! What a filter costs, in CPU time of one core: its first evaluation, when only what the
//! columns keep helps, and every later one, over 100,000 rows of a segment and 17,000
//! fresh ones: `cargo run -p rhumb-view --example filter_speed`.  Ratios, not promises.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::filter::{Leaf, Path, Test};
use rhumb_core::{
    DocId, Document, Field, FieldName, FieldType, Filter, Json, Limits, Scalar, Schema, Seq, Value,
};
use rhumb_view::{Change, ColumnBuilder, Keys, Segment, Snapshot, View};
use roaring::RoaringBitmap;

const SEALED: u64 = 100_000;
const FRESH: u64 = 17_000;
/// Filters of one kind that differ in their operands, as far as there are so many.
const VARIANTS: u64 = 15;

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

fn main() -> Result<()> {
    let mut out = io::stdout().lock();
    parsing(&mut out)?;

    let sealed = View::new();
    let segment = segment()?;
    let before = column_bytes(&segment)?;
    sealed.add_segment(segment, &RoaringBitmap::from_iter((0..SEALED as u32).step_by(50)))?;
    writeln!(out, "\n{SEALED} sealed rows, every 50th dead")?;
    cases(&mut out, &sealed.snapshot())?;
    writeln!(
        out,
        "\nbytes per row of the columns, loaded and after all these filters"
    )?;
    let snapshot = sealed.snapshot();
    let after = column_bytes(snapshot.segments()[0].segment())?;
    for ((field, before), (_, after)) in before.iter().zip(after) {
        let per_row = |bytes: usize| bytes as f64 / SEALED as f64;
        writeln!(out, "  {field:8} {:6.1} {:6.1}", per_row(*before), per_row(after))?;
    }
    writeln!(
        out,
        "  masks    {:13.1}",
        sealed.heap_size().segments.masks as f64 / SEALED as f64
    )?;

    let fresh = View::new();
    let names = names()?;
    let changes: Vec<Change> = (0..FRESH)
        .map(|n| {
            Ok(Change {
                id: DocId::from(id(n).as_str()),
                seq: Seq(n + 1),
                document: Some(Arc::new(document(&names, n))),
            })
        })
        .collect::<Result<_>>()?;
    fresh.apply(&changes);
    writeln!(out, "\n{FRESH} fresh rows")?;
    cases(&mut out, &fresh.snapshot())?;
    writes_between(&mut out, &fresh)?;
    Ok(())
}

const FIELDS: [(&str, FieldType); 8] = [
    ("pos", FieldType::Scalar(Scalar::String)),
    ("user", FieldType::Scalar(Scalar::String)),
    ("url", FieldType::Scalar(Scalar::String)),
    ("lex", FieldType::Scalar(Scalar::Int)),
    ("price", FieldType::Scalar(Scalar::Float)),
    ("at", FieldType::Scalar(Scalar::Timestamp)),
    ("live", FieldType::Scalar(Scalar::Bool)),
    ("tags", FieldType::List(Scalar::String)),
];

fn name(text: &str) -> Result<FieldName> {
    Ok(FieldName::parse(text)?)
}

fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn id(n: u64) -> String {
    format!("document-{:016x}", mixed(n))
}

fn string(text: &str) -> Value {
    Value::Str(text.into())
}

/// One value in seven is missing, but for `price`.
fn value(field: &str, n: u64) -> Option<Value> {
    let random = mixed(n ^ 0xface);
    if field != "price" && mixed(n + field.len() as u64 * 977).is_multiple_of(7) {
        return None;
    }
    Some(match field {
        "pos" => string(["n", "v", "a", "r"][random as usize % 4]),
        "user" => string(&format!("user-{}", random % 5_000)),
        "url" => string(&format!("https://example.org/{:x}", random)),
        "lex" => Value::Int((random % 45) as i64),
        "price" => Value::Float((random % 1_000_000_007) as f64 / 1_000_000_007.0),
        "at" => Value::Time(1_700_000_000_000 + (random % 31_536_000_000) as i64),
        "live" => Value::Bool(random.is_multiple_of(2)),
        "tags" => {
            // The n-th tag is met about 1/n as often as the first.
            let tag = |i: u64| string(&format!("tag-{}", 1_000 / (1 + mixed(random ^ i) % 1_000)));
            Value::List((0..random % 5).map(tag).collect())
        }
        _ => Value::Json(Arc::new(
            serde_json::json!({"color": format!("c{}", random % 70), "size": random % 100}),
        )),
    })
}

fn all_fields() -> impl Iterator<Item = (&'static str, FieldType)> {
    FIELDS.into_iter().chain([("extra", FieldType::Json)])
}

/// Names are shared by all documents, as they are when a schema gives them.
fn document(names: &[FieldName], n: u64) -> Document {
    let fields = names
        .iter()
        .filter_map(|name| Some((name.clone(), value(name.as_str(), n)?)));
    Document::from_fields(fields.collect())
}

fn names() -> Result<Vec<FieldName>> {
    all_fields().map(|(field, _)| name(field)).collect()
}

fn segment() -> Result<Segment> {
    let mut keys = Keys::builder();
    (0..SEALED).try_for_each(|n| keys.push_str(&id(n)))?;
    let segment = Segment::new(0, keys.finish(), (0..SEALED).map(|n| Seq(n + 1)).collect())?;
    for (field, ty) in all_fields() {
        let mut builder = ColumnBuilder::new(&ty);
        (0..SEALED).try_for_each(|n| builder.push(value(field, n).as_ref()))?;
        segment.attach_column(name(field)?, Arc::new(builder.finish()))?;
    }
    Ok(segment)
}

fn column_bytes(segment: &Segment) -> Result<Vec<(&'static str, usize)>> {
    let bytes = |(field, _): (&'static str, FieldType)| {
        let column = segment.column(field).ok_or("an attached column")?;
        Ok((field, column.heap_size()))
    };
    all_fields().map(bytes).collect()
}

type Make = fn(u64) -> Result<Filter>;

const CASES: [(&str, Make); 20] = [
    ("pos = 'n'", |n| {
        on("pos", Test::Eq(string(["n", "v", "a", "r"][n as usize % 4])))
    }),
    ("pos != 'n'", |n| {
        on("pos", Test::Ne(string(["n", "v", "a", "r"][n as usize % 4])))
    }),
    ("user = one of 5,000", |n| {
        on("user", Test::Eq(string(&format!("user-{n}"))))
    }),
    ("user in 20", |n| {
        let mut users: Vec<Value> = (0..20)
            .map(|i| string(&format!("user-{}", n * 37 + i * 3)))
            .collect();
        users.sort_by(rhumb_core::order::compare);
        on("user", Test::In(users))
    }),
    ("user prefix, 11 %", |n| {
        on(
            "user",
            Test::Prefix(format!("user-{}", 1 + n % 4).as_str().into()),
        )
    }),
    ("user regex", |n| {
        on("user", Test::Matches(regex::Regex::new(&format!("{n}7$"))?))
    }),
    ("url = one of all", |n| {
        on("url", value("url", n * 11).map_or(Test::Exists(false), Test::Eq))
    }),
    ("url prefix, 6 %", |n| {
        on(
            "url",
            Test::Prefix(format!("https://example.org/{n:x}").as_str().into()),
        )
    }),
    ("lex < 20, 44 %", |n| {
        on("lex", Test::Lt(Value::Int(20 + n as i64 % 3)))
    }),
    ("lex in (3, 5), 4 %", |n| {
        on("lex", Test::In(vec![Value::Int(3), Value::Int(5 + n as i64)]))
    }),
    ("price in a 1 % range", |n| range(n, 0.01)),
    ("price in a 10 % range", |n| range(n, 0.1)),
    ("price in a 50 % range", |n| range(n, 0.5)),
    ("at > , 50 %", |n| {
        on(
            "at",
            Test::Gt(Value::Time(1_700_000_000_000 + 15_768_000_000 + n as i64)),
        )
    }),
    ("live", |n| {
        Ok(Filter::And(vec![
            on("live", Test::Eq(Value::Bool(true)))?,
            on("lex", Test::Ne(Value::Int(n as i64)))?,
        ]))
    }),
    ("tags contains, 0.1 %", |n| {
        on(
            "tags",
            Test::ContainsAny(vec![string(&format!("tag-{}", 1_000 / (7 + n)))]),
        )
    }),
    ("tags contains, 40 %", |n| {
        on(
            "tags",
            Test::ContainsAny(vec![string("tag-1"), string(&format!("tag-{}", 30 + n))]),
        )
    }),
    ("extra.color = 'c1'", |n| {
        Ok(Filter::Leaf(Leaf {
            path: Path::Json(name("extra")?, vec!["color".into()]),
            test: Test::Eq(string(&format!("c{n}"))),
        }))
    }),
    ("id in 20", |n| {
        let mut ids: Vec<Value> = (0..20).map(|i| string(&id(n * 100 + i))).collect();
        ids.sort_by(rhumb_core::order::compare);
        Ok(Filter::Leaf(Leaf {
            path: Path::Id,
            test: Test::In(ids),
        }))
    }),
    ("pos and price and not live", |n| {
        Ok(Filter::And(vec![
            on("pos", Test::Eq(string("n")))?,
            range(n, 0.3)?,
            Filter::Not(Box::new(on("live", Test::Eq(Value::Bool(true)))?)),
        ]))
    }),
];

fn on(field: &str, test: Test) -> Result<Filter> {
    Ok(Filter::Leaf(Leaf {
        path: Path::Field(name(field)?),
        test,
    }))
}

fn range(n: u64, share: f64) -> Result<Filter> {
    let low = 0.1 + n as f64 * 0.0123;
    Ok(Filter::And(vec![
        on("price", Test::Gte(Value::Float(low)))?,
        on("price", Test::Lt(Value::Float(low + share)))?,
    ]))
}

fn cases(out: &mut impl Write, snapshot: &Snapshot) -> Result<()> {
    writeln!(
        out,
        "{:28} {:>9} {:>9} {:>9} {:>8}",
        "", "once", "first", "repeated", "rows"
    )?;
    for (text, make) in CASES {
        let started = Instant::now();
        snapshot.filter(&make(VARIANTS)?)?;
        let once = started.elapsed();
        let (mut first, mut repeated, mut rows) = (Duration::MAX, Duration::MAX, 0);
        for n in 0..VARIANTS {
            let filter = make(n)?;
            forget_masks(snapshot)?;
            let started = Instant::now();
            let mask = snapshot.filter(&filter)?;
            first = first.min(started.elapsed());
            rows = mask.count();
            let started = Instant::now();
            for _ in 0..10 {
                snapshot.filter(&filter)?;
            }
            repeated = repeated.min(started.elapsed() / 10);
        }
        let micros = |time: Duration| format!("{:.1}µs", time.as_secs_f64() * 1e6);
        let (once, first, repeated) = (micros(once), micros(first), micros(repeated));
        writeln!(out, "{text:28} {once:>9} {first:>9} {repeated:>9} {rows:>8}")?;
    }
    Ok(())
}

/// Columns attached anew, which keep what they have learned.
fn forget_masks(snapshot: &Snapshot) -> Result<()> {
    for sealed in snapshot.segments() {
        for (field, _) in all_fields() {
            let column = sealed.segment().column(field).ok_or("an attached column")?;
            sealed.segment().attach_column(name(field)?, column)?;
        }
    }
    Ok(())
}

/// One document is written between any two queries.
fn writes_between(out: &mut impl Write, view: &View) -> Result<()> {
    let filter = on("lex", Test::Lt(Value::Int(20)))?;
    let (mut best, names) = (Duration::MAX, names()?);
    for n in FRESH..FRESH + 200 {
        let document = Some(Arc::new(document(&names, n)));
        view.apply(&[Change {
            id: DocId::from(id(n).as_str()),
            seq: Seq(n + 1),
            document,
        }]);
        let snapshot = view.snapshot();
        let started = Instant::now();
        snapshot.filter(&filter)?;
        best = best.min(started.elapsed());
    }
    writeln!(out, "lex < 20 after each write: {best:.1?}")?;
    Ok(())
}

fn parsing(out: &mut impl Write) -> Result<()> {
    let mut schema = Schema::default();
    for (field, ty) in all_fields() {
        schema.fields.insert(name(field)?, Field { ty, declared: true });
    }
    let limits = Limits::default();
    for text in [
        r#"{"lex": {"$lt": 20}}"#,
        r#"{"pos": "n", "price": {"$gte": 0.25, "$lt": 0.75}, "tags": {"$contains": "tag-7"}}"#,
        r#"{"$or": [{"user": {"$in": ["user-1", "user-2", "user-3"]}}, {"extra.color": "red"}], "live": true}"#,
        r#"{"user": {"$glob": "user-*7"}}"#,
    ] {
        let (mut parsed, mut keyed) = (Duration::MAX, Duration::MAX);
        for _ in 0..200 {
            let started = Instant::now();
            let json = Json::parse(text.as_bytes(), &limits)?;
            let filter = Filter::parse_json(&json, &schema, &limits)?;
            parsed = parsed.min(started.elapsed());
            let started = Instant::now();
            std::hint::black_box(filter.key());
            keyed = keyed.min(started.elapsed());
        }
        writeln!(out, "parsed in {parsed:.1?}, keyed in {keyed:.1?}: {text}")?;
    }
    Ok(())
}
