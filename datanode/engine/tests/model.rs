//! Random histories of every operation, restarts, takeovers, flushes and merges in
//! between: the engine against a map.  A failing seed is printed; replay it with
//! `RHUMB_MODEL_SEED`.

#![recursion_limit = "256"]

mod fixture;

use std::collections::BTreeMap;

use fixture::{Store, doc, field, schema};
use rhumb_core::aggregate::Plan;
use rhumb_core::json::Json;
use rhumb_core::order::{OrderBy, OrderKey};
use rhumb_core::query::{Accuracy, Consistency, Include, Leg, Query, VectorLeg};
use rhumb_core::write::{Condition, Patch, Write};
use rhumb_core::{DocId, Document, Filter, Limits, Seq, Value, Vector};
use rhumb_engine::{Collection, Database, EngineError, PageStart, Scan};
use rhumb_seams::Rand;

const IDS: u64 = 60;
const DIM: usize = 8;

type Model = BTreeMap<DocId, (Seq, Document)>;

fn seeds() -> Vec<u64> {
    match std::env::var("RHUMB_MODEL_SEED") {
        Ok(seed) => vec![seed.parse().expect("RHUMB_MODEL_SEED is a number")],
        Err(_) => (0..6).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_match_the_model() {
    for seed in seeds() {
        for partitions in [1, 3] {
            println!("seed {seed}, {partitions} partitions");
            History::start(seed, partitions).await.run(120).await;
        }
    }
}

struct History {
    rand: Rand,
    store: Store,
    database: Database,
    model: Model,
}

impl History {
    async fn start(seed: u64, partitions: u32) -> Self {
        let store = Store::memory();
        let database = store.open("first").await;
        database
            .create_collection(&fixture::name(), schema(DIM as u32), partitions, None)
            .await
            .expect("created");
        Self {
            rand: Rand::from_seed(seed),
            store,
            database,
            model: Model::new(),
        }
    }

    async fn collection(&self) -> std::sync::Arc<Collection> {
        self.database
            .collection(&fixture::name())
            .await
            .expect("the collection is there")
    }

    async fn run(mut self, steps: usize) {
        for step in 0..steps {
            match self.rand.below(100) {
                0..60 => self.write().await,
                60..68 => self.collection().await.optimize().await.expect("optimized"),
                68..74 => self.reopen(self.rand.below(2) == 0).await,
                74..84 => self.check_documents().await,
                84..92 => self.check_queries().await,
                92..96 => self.check_scan(step).await,
                _ => self.check_aggregate().await,
            }
        }
        self.reopen(true).await;
        self.check_documents().await;
        self.check_queries().await;
        self.check_scan(0).await;
        self.check_aggregate().await;
        self.database.close().await;
    }

    /// Closed properly, or taken over while it still runs.
    async fn reopen(&mut self, closed: bool) {
        // Everything open: an unopened partition is nobody's, and free to be claimed.
        self.check_documents().await;
        if closed {
            self.database.close().await;
        }
        let next = self.store.open("next").await;
        let old = std::mem::replace(&mut self.database, next);
        self.check_documents().await;
        if !closed {
            let zombie = old.collection(&fixture::name()).await.expect("cached");
            let write = Write {
                upsert: vec![self.random_document()],
                ..Write::default()
            };
            let answer = zombie.write(write).await;
            assert!(
                matches!(
                    answer,
                    Err(EngineError::Fenced
                        | EngineError::OutcomeUnknown
                        | EngineError::Unavailable(_)
                        | EngineError::Store(_))
                ) || matches!(&answer, Err(EngineError::PartiallyApplied(_))),
                "a zombie was answered {answer:?}"
            );
        }
    }

    fn random_id(&self) -> DocId {
        DocId::from(format!("d{:02}", self.rand.below(IDS)).as_str())
    }

    fn random_vector(&self) -> Vec<f32> {
        (0..DIM)
            .map(|_| (self.rand.below(2_001) as f32 - 1_000.0) / 250.0)
            .collect()
    }

    fn random_document(&self) -> (DocId, Document) {
        let lex = self.rand.below(20) as i64;
        let mut document = doc(
            lex,
            ["n", "v", "a"][self.rand.below(3) as usize],
            &self.random_vector(),
        );
        if self.rand.below(5) == 0 {
            document.remove("embedding");
        }
        if self.rand.below(5) == 0 {
            document.remove("lex");
        }
        (self.random_id(), document)
    }

    fn random_write(&self) -> Write {
        let mut write = Write::default();
        let mut taken = std::collections::BTreeSet::new();
        for _ in 0..self.rand.below(12) {
            let (id, document) = self.random_document();
            if taken.insert(id.clone()) {
                write.upsert.push((id, document));
            }
        }
        for _ in 0..self.rand.below(3) {
            write.delete.push(self.random_id());
        }
        for _ in 0..self.rand.below(3) {
            let set = vec![
                (field("lex"), Some(Value::Int(self.rand.below(20) as i64))),
                (
                    field("pos"),
                    (self.rand.below(2) == 0).then(|| Value::Str("p".into())),
                ),
            ];
            write.patch.push(Patch {
                id: self.random_id(),
                set,
            });
        }
        if self.rand.below(8) == 0 {
            write.delete_by_filter = Some(self.lex_filter("$eq", self.rand.below(20) as i64));
        }
        write.condition = match self.rand.below(8) {
            0 => Some(Condition::Absent(true)),
            1 => Some(Condition::Absent(false)),
            2 => Some(Condition::Filter(self.lex_filter("$gt", 9))),
            3 => self.known_version().map(Condition::Version),
            _ => None,
        };
        write
    }

    fn lex_filter(&self, operator: &str, value: i64) -> Filter {
        let text = format!(r#"{{"lex": {{"{operator}": {value}}}}}"#);
        fixture::filter(&text, DIM as u32)
    }

    async fn write(&mut self) {
        let write = self.random_write();
        if matches!(write.condition, Some(Condition::Version(_))) {
            // Partitions count for themselves: a document of another one may have this
            // version too, which the model has to know by now.
            self.check_documents().await;
        }
        let written = self
            .collection()
            .await
            .write(write.clone())
            .await
            .expect("a write is acknowledged");
        let mut expected = self.apply(&write);
        let counts = written.counts;
        expected.version = counts.version;
        expected.created = counts.created;
        assert_eq!(counts, expected, "counts of {write:?}");
    }

    /// The rules again, as plainly as possible.  Versions are the engine's to choose, and
    /// are learned in `check_documents`.
    fn apply(&mut self, write: &Write) -> rhumb_core::write::Counts {
        let mut counts = rhumb_core::write::Counts::default();
        let holds = |model: &Model, id: &DocId| match &write.condition {
            None => true,
            Some(Condition::Absent(absent)) => model.contains_key(id) != *absent,
            Some(Condition::Version(v)) => model.get(id).is_some_and(|(seq, _)| seq == v),
            Some(Condition::Filter(f)) => model.get(id).is_some_and(|(_, d)| f.matches(id, d)),
        };
        let matched: Vec<DocId> = match &write.delete_by_filter {
            None => Vec::new(),
            Some(f) => self
                .model
                .iter()
                .filter(|(id, (_, d))| f.matches(id, d))
                .map(|(id, _)| id.clone())
                .collect(),
        };
        for id in matched.iter().chain(&write.delete) {
            if !holds(&self.model, id) {
                counts.skipped += 1;
            } else if self.model.remove(id).is_some() {
                counts.deleted += 1;
            }
        }
        for (id, document) in &write.upsert {
            if holds(&self.model, id) {
                self.model.insert(id.clone(), (Seq(u64::MAX), document.clone()));
                counts.upserted += 1;
            } else {
                counts.skipped += 1;
            }
        }
        for patch in &write.patch {
            let ok = holds(&self.model, &patch.id);
            match self.model.get_mut(&patch.id) {
                Some((seq, document)) if ok => {
                    *seq = Seq(u64::MAX);
                    for (name, value) in &patch.set {
                        match value {
                            Some(v) => document.set(name.clone(), v.clone()),
                            None => document.remove(name.as_str()),
                        }
                    }
                    counts.patched += 1;
                }
                _ => counts.skipped += 1,
            }
        }
        counts
    }

    /// A version that `check_documents` has learned.
    fn known_version(&self) -> Option<Seq> {
        self.model
            .values()
            .map(|(seq, _)| *seq)
            .find(|seq| *seq != Seq(u64::MAX))
    }

    async fn check_documents(&mut self) {
        let ids: Vec<DocId> = (0..IDS)
            .map(|n| DocId::from(format!("d{n:02}").as_str()))
            .collect();
        let reading = self
            .collection()
            .await
            .read(Consistency::Strong, &[])
            .await
            .expect("readable");
        let found = reading.get(&ids, &Include::Everything).await.expect("documents");
        for (id, found) in ids.iter().zip(found) {
            let expected = self.model.get_mut(id);
            match (found, expected) {
                (None, None) => {}
                (Some(found), Some((seq, document))) => {
                    assert_eq!(&found.document, document, "document {id}");
                    if *seq == Seq(u64::MAX) {
                        *seq = found.version;
                    }
                    assert_eq!(found.version, *seq, "version of {id}");
                }
                (found, expected) => panic!("{id}: the engine has {found:?}, the model {expected:?}"),
            }
        }
        assert_eq!(
            reading.count(None).await.expect("a count"),
            self.model.len() as u64
        );
    }

    async fn check_queries(&self) {
        let reading = self
            .collection()
            .await
            .read(Consistency::Verified, &[])
            .await
            .expect("readable");
        for filter in [
            None,
            Some(self.lex_filter("$gte", 10)),
            Some(self.lex_filter("$lt", 0)),
        ] {
            let query = self.random_vector();
            let k = 1 + self.rand.below(15) as usize;
            let mut expected: Vec<(f32, DocId)> = Vec::new();
            for (id, (_, document)) in &self.model {
                let Some(Value::Vector(Vector::F32(v))) = document.get("embedding") else {
                    continue;
                };
                if filter.as_ref().is_none_or(|f| f.matches(id, document)) {
                    expected.push((fixture::cosine(&query, v), id.clone()));
                }
            }
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            expected.truncate(k);
            let query = Query {
                legs: vec![Leg::Vector(VectorLeg {
                    field: field("embedding"),
                    value: Vector::F32(query.into()),
                })],
                k,
                filter,
                include: Include::Fields(vec![field("lex")]),
                accuracy: Accuracy::Exact,
                ..Query::default()
            };
            let (hits, _) = reading.query(&query, None).await.expect("hits");
            let hits = hits.into_flat();
            assert_eq!(hits.len(), expected.len());
            for (hit, (score, id)) in hits.iter().zip(&expected) {
                assert!(
                    (hit.score - score).abs() < 1e-5,
                    "{} scores {} instead of {score}",
                    hit.id,
                    hit.score
                );
                if expected.iter().filter(|(s, _)| (s - score).abs() < 1e-5).count() == 1 {
                    assert_eq!(&hit.id, id);
                }
                let lex = self.model[&hit.id].1.get("lex");
                assert_eq!(hit.document.as_ref().expect("included").get("lex"), lex);
            }
        }
    }

    async fn check_scan(&self, step: usize) {
        let reading = self
            .collection()
            .await
            .read(Consistency::Strong, &[])
            .await
            .expect("readable");
        let order_by = match step % 4 {
            0 => OrderBy::id(),
            1 => OrderBy {
                key: OrderKey::Id,
                descending: true,
            },
            n => OrderBy {
                key: OrderKey::Field(field("lex")),
                descending: n == 2,
            },
        };
        let scan = Scan {
            start: Some("d05".into()),
            end: Some("d50".into()),
            prefix: None,
            filter: None,
            order_by: order_by.clone(),
            include: Include::Everything,
        };
        let mut expected: Vec<(&DocId, &Document)> = self
            .model
            .iter()
            .filter(|(id, _)| **id >= DocId::from("d05") && **id < DocId::from("d50"))
            .map(|(id, (_, d))| (id, d))
            .collect();
        let key = |d: &Document| match d.get("lex") {
            Some(Value::Int(n)) => (0, if order_by.descending { -n } else { *n }),
            _ => (1, 0),
        };
        match &order_by.key {
            OrderKey::Id if order_by.descending => expected.reverse(),
            OrderKey::Id => {}
            OrderKey::Field(_) => expected.sort_by(|a, b| key(a.1).cmp(&key(b.1)).then_with(|| a.0.cmp(b.0))),
        }
        let snapshot = reading.scan(scan).await.expect("a scan");
        let (mut found, mut start) = (Vec::new(), PageStart::First);
        loop {
            let page = snapshot.page(&start, 7).await.expect("a page");
            found.extend(page.documents);
            match page.next {
                Some(next) => start = next,
                None => break,
            }
        }
        let found: Vec<(&DocId, &Document)> = found.iter().map(|s| (&s.id, &s.document)).collect();
        assert_eq!(found, expected);
    }

    async fn check_aggregate(&self) {
        let reading = self
            .collection()
            .await
            .read(Consistency::Strong, &[])
            .await
            .expect("readable");
        let json = |text: &str| Json::parse(text.as_bytes(), &Limits::default()).expect("json");
        let metrics = json(r#"{"n": {"count": true}, "sum": {"sum": "lex"}}"#);
        let plan =
            Plan::parse(Some(&json(r#"["pos"]"#)), Some(&metrics), &schema(DIM as u32)).expect("a plan");
        let found = reading.aggregate(None, &plan).await.expect("groups");
        let mut expected: BTreeMap<Option<String>, (i64, Option<i64>)> = BTreeMap::new();
        for (_, document) in self.model.values() {
            let pos = match document.get("pos") {
                Some(Value::Str(s)) => Some(s.to_string()),
                _ => None,
            };
            let group = expected.entry(pos).or_default();
            group.0 += 1;
            if let Some(Value::Int(n)) = document.get("lex") {
                group.1 = Some(group.1.unwrap_or(0) + n);
            }
        }
        let group = |g: &serde_json::Value| {
            let pos = g["by"]["pos"].as_str().map(str::to_owned);
            (pos, (g["n"].as_i64().unwrap_or(0), g["sum"].as_i64()))
        };
        assert_eq!(found.iter().map(group).collect::<BTreeMap<_, _>>(), expected);
    }
}

#[test]
fn the_limits_of_the_fixture_are_the_defaults() {
    assert_eq!(fixture::settings().limits, Limits::default());
}
