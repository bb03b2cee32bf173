//! What the tests compare the view with: a base of fragments as Lance would hold it, and
//! an oracle that knows every document and looks at all of them.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod documents;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rhumb_core::{DocId, Document, Element, FieldName, FieldType, Filter, Schema, Seq, Value, VectorType};
use rhumb_view::{
    CodesBuilder, ColumnBuilder, Frozen, Hit, Keys, RowMask, RowRef, SearchSpec, Segment, SegmentId,
    Snapshot, View, exact_score,
};
use roaring::RoaringBitmap;

pub fn name(text: &str) -> FieldName {
    FieldName::parse(text).expect("a field name")
}

pub type Row = (DocId, Seq, Arc<Document>);

/// Fragments by number, never forgotten, so that pinned snapshots can still be read.
#[derive(Default)]
pub struct Base {
    pub fragments: Vec<Fragment>,
}

pub struct Fragment {
    pub rows: Vec<Row>,
    pub deleted: RoaringBitmap,
    /// False once a compaction has replaced it.
    pub current: bool,
}

impl Base {
    pub fn add(&mut self, rows: Vec<Row>, deleted: RoaringBitmap) -> u64 {
        self.fragments.push(Fragment {
            rows,
            deleted,
            current: true,
        });
        self.fragments.len() as u64 - 1
    }

    pub fn segment(&self, fragment: u64) -> Segment {
        let rows = &self.fragments[fragment as usize].rows;
        let mut keys = Keys::builder();
        rows.iter()
            .for_each(|(id, _, _)| keys.push(id).expect("one kind of id"));
        let seqs = rows.iter().map(|(_, seq, _)| *seq).collect();
        Segment::new(fragment, keys.finish(), seqs).expect("as many keys as seqs")
    }

    /// The commit of one frozen group: deletions and a new fragment.  `None` when the
    /// group has no rows to add.
    pub fn merge(&mut self, frozen: &Frozen) -> Option<Segment> {
        for killed in frozen.killed().expect("the oldest group") {
            self.fragments[killed.fragment as usize].deleted |= &killed.ordinals;
        }
        let document = |row: &rhumb_view::FreshRow| row.document.clone().expect("live rows have documents");
        let rows: Vec<Row> = frozen
            .live_rows()
            .map(|row| (row.id.clone(), row.seq, document(row)))
            .collect();
        if rows.is_empty() {
            return None;
        }
        let fragment = self.add(rows, RoaringBitmap::new());
        Some(self.segment(fragment))
    }

    pub fn open(&self) -> View {
        let view = View::new();
        for (number, fragment) in self
            .fragments
            .iter()
            .enumerate()
            .filter(|(_, fragment)| fragment.current)
        {
            view.add_segment(self.segment(number as u64), &fragment.deleted)
                .expect("unique ids");
        }
        view
    }

    pub fn live(&self) -> BTreeMap<DocId, (Seq, Arc<Document>)> {
        let mut live = BTreeMap::new();
        for fragment in self.fragments.iter().filter(|fragment| fragment.current) {
            for (ordinal, (id, seq, document)) in (0..).zip(&fragment.rows) {
                if !fragment.deleted.contains(ordinal) {
                    let before = live.insert(id.clone(), (*seq, document.clone()));
                    assert_eq!(before, None, "{id} twice in the base");
                }
            }
        }
        live
    }

    pub fn document(&self, snapshot: &Snapshot, row: RowRef) -> Arc<Document> {
        match snapshot.segment(row.segment) {
            Some(sealed) => {
                let fragment = &self.fragments[sealed.segment().fragment() as usize];
                fragment.rows[row.ordinal as usize].2.clone()
            }
            None => snapshot.fresh_document(row).expect("a live fresh row"),
        }
    }

    pub fn load_columns(&self, missing: Vec<(Arc<Segment>, FieldName)>, schema: &Schema) {
        for (segment, field) in missing {
            let mut builder = ColumnBuilder::new(schema.get(field.as_str()).expect("a field of the schema"));
            for (_, _, document) in &self.fragments[segment.fragment() as usize].rows {
                builder.push(document.get(field.as_str())).expect("typed values");
            }
            segment
                .attach_column(field, Arc::new(builder.finish()))
                .expect("as many rows");
        }
    }

    pub fn load_codes(&self, snapshot: &Snapshot, field: &FieldName, ty: &VectorType) {
        for segment in snapshot.missing_codes(field.as_str()) {
            let mut builder = CodesBuilder::new(ty, segment.len() as usize);
            for (_, _, document) in &self.fragments[segment.fragment() as usize].rows {
                match document.get(field.as_str()) {
                    Some(Value::Vector(vector)) => builder.push(Some(vector)).expect("the field's shape"),
                    _ => builder.push_missing().expect("few rows"),
                }
            }
            segment
                .attach_codes(field.clone(), Arc::new(builder.finish()))
                .expect("as many rows");
        }
    }

    /// A whole search as the engine does it: load, scan, fetch and score, finish.
    pub fn search(&self, snapshot: &Arc<Snapshot>, spec: &SearchSpec<'_>) -> Vec<Hit> {
        self.load_codes(snapshot, spec.field, spec.ty);
        let candidates = snapshot.search(spec).expect("codes are loaded");
        assert!(candidates.uncertain.is_empty() || matches!(spec.ty.element, Element::F32 | Element::F16));
        let score = |&row: &RowRef| {
            let document = self.document(snapshot, row);
            let Some(Value::Vector(vector)) = document.get(spec.field.as_str()) else {
                panic!("a hit without a vector")
            };
            (
                row,
                exact_score(spec.ty, spec.query, vector).expect("the field's shape"),
            )
        };
        let scores: Vec<(RowRef, f32)> = candidates.uncertain.iter().map(score).collect();
        candidates.finish(&scores).expect("all are scored")
    }

    pub fn filter(&self, snapshot: &Snapshot, filter: &Filter, schema: &Schema) -> RowMask {
        self.load_columns(snapshot.missing_columns(filter), schema);
        snapshot.filter(filter).expect("columns are loaded")
    }
}

/// Every document by brute force.
#[derive(Clone, Default)]
pub struct Oracle {
    pub live: BTreeMap<DocId, (Seq, Arc<Document>)>,
    /// Deletions that a fresh group still remembers, and which group.
    pub deleted: BTreeMap<DocId, (Seq, usize)>,
}

impl Oracle {
    pub fn known_seq(&self, id: &DocId) -> Seq {
        let live = self.live.get(id).map(|(seq, _)| *seq);
        let deleted = self.deleted.get(id).map(|(seq, _)| *seq);
        live.max(deleted).unwrap_or_default()
    }

    pub fn apply(&mut self, id: &DocId, seq: Seq, document: Option<Arc<Document>>, group: usize) {
        if seq < self.known_seq(id) {
            return;
        }
        self.live.remove(id);
        self.deleted.remove(id);
        match document {
            Some(document) => {
                self.live.insert(id.clone(), (seq, document));
            }
            None => {
                self.deleted.insert(id.clone(), (seq, group));
            }
        }
    }

    pub fn matching(&self, filter: &Filter) -> BTreeSet<DocId> {
        let matching = self
            .live
            .iter()
            .filter(|(id, (_, document))| filter.matches(id, document));
        matching.map(|(id, _)| id.clone()).collect()
    }

    pub fn nearest(&self, spec: &SearchSpec<'_>, filter: &Filter) -> Vec<(DocId, u32)> {
        let mut scored: Vec<(DocId, f32)> = Vec::new();
        for (id, (_, document)) in self
            .live
            .iter()
            .filter(|(id, (_, document))| filter.matches(id, document))
        {
            if let Some(Value::Vector(vector)) = document.get(spec.field.as_str()) {
                scored.push((
                    id.clone(),
                    exact_score(spec.ty, spec.query, vector).expect("the field's shape"),
                ));
            }
        }
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        scored.truncate(spec.k);
        scored
            .into_iter()
            .map(|(id, score)| (id, score.to_bits()))
            .collect()
    }
}

pub fn ids(snapshot: &Snapshot, rows: impl IntoIterator<Item = RowRef>) -> Vec<DocId> {
    rows.into_iter()
        .map(|row| snapshot.row_id(row).expect("a row of the snapshot"))
        .collect()
}

pub fn vector_type<'a>(schema: &'a Schema, field: &str) -> &'a VectorType {
    match schema.get(field) {
        Some(FieldType::Vector(ty)) => ty,
        other => panic!("{field} is {other:?}"),
    }
}

/// The segment ids of a snapshot, oldest first.
pub fn segment_ids(snapshot: &Snapshot) -> Vec<SegmentId> {
    snapshot.segments().iter().map(|sealed| sealed.id()).collect()
}
