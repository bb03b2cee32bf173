//! What a write does to the documents it meets: pure, one request at a time, in the order
//! `delete_by_filter`, `delete`, `upsert`, `patch`.
//!
//! The caller says what each document looks like in write order (P4); the answer is the
//! rows to log and the counts to reply with.  Nothing is applied here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rhumb_core::write::{Condition, Counts, Patch, Write};
use rhumb_core::{DocId, Document, Seq};

use crate::rows::Row;

/// A document as the write order shows it.
#[derive(Clone, Debug)]
pub struct Old {
    pub seq: Seq,
    /// Loaded for the ids that [`needs_document`] names; `None` otherwise.
    pub document: Option<Arc<Document>>,
}

#[derive(Debug, Default)]
pub struct Judged {
    pub rows: Vec<Row>,
    pub counts: Counts,
    /// Documents that are there afterwards and were not before, less those that went.
    pub growth: i64,
    /// A document that the writer may not write, or not replace.
    pub outside: Option<DocId>,
}

impl Judged {
    /// A document that patches made larger than `limit`; whole ones are weighed when they
    /// are typed.
    pub fn too_large(&self, write: &Write, limit: usize) -> Option<&DocId> {
        if write.patch.is_empty() {
            return None;
        }
        let large = |row: &&Row| row.document.as_ref().is_some_and(|d| d.heap_size() > limit);
        self.rows.iter().find(large).map(|row| &row.id)
    }
}

/// The ids whose old document, not only its existence, decides the outcome.
pub fn needs_document(write: &Write) -> Vec<&DocId> {
    let patched = write.patch.iter().map(|p| &p.id);
    let conditional = matches!(write.condition, Some(Condition::Filter(_))) || write.scope.is_some();
    let conditioned = write
        .delete
        .iter()
        .chain(write.upsert.iter().map(|(id, _)| id))
        .filter(|_| conditional);
    patched.chain(conditioned).collect()
}

/// Every id a write may touch, `delete_by_filter` aside.
pub fn touches(write: &Write) -> impl Iterator<Item = &DocId> {
    write
        .delete
        .iter()
        .chain(write.upsert.iter().map(|(id, _)| id))
        .chain(write.patch.iter().map(|p| &p.id))
}

/// How many documents a write adds at most, given which ids are there.  What may go is
/// counted only where it is certain to.
pub fn growth_at_most(write: &Write, is_there: impl Fn(&DocId) -> bool) -> u64 {
    let may_create = matches!(write.condition, None | Some(Condition::Absent(true)));
    let is_certain = write.condition.is_none() && write.scope.is_none();
    let upserted: HashSet<&DocId> = write.upsert.iter().map(|(id, _)| id).collect();
    let deleted: HashSet<&DocId> = write.delete.iter().filter(|_| is_certain).collect();
    let created = upserted.iter().filter(|id| may_create && !is_there(id)).count();
    let gone = deleted.difference(&upserted).filter(|id| is_there(id)).count();
    created.saturating_sub(gone) as u64
}

/// `matched` are the documents that `delete_by_filter` met; `next` gives the versions.
pub fn judge(
    write: &Write,
    matched: &[DocId],
    old: &HashMap<DocId, Old>,
    mut next: impl FnMut() -> Seq,
) -> Judged {
    let mut bench = Bench {
        old,
        changed: HashMap::new(),
        judged: Judged::default(),
        write,
    };
    for id in matched.iter().chain(&write.delete) {
        bench.delete(id, &mut next);
    }
    for (id, document) in &write.upsert {
        bench.upsert(id, document, &mut next);
    }
    for patch in &write.patch {
        bench.patch(patch, &mut next);
    }
    bench.judged
}

struct Bench<'a> {
    old: &'a HashMap<DocId, Old>,
    /// What this request itself already did.
    changed: HashMap<DocId, Option<Old>>,
    judged: Judged,
    write: &'a Write,
}

impl Bench<'_> {
    fn current(&self, id: &DocId) -> Option<&Old> {
        match self.changed.get(id) {
            Some(changed) => changed.as_ref(),
            None => self.old.get(id),
        }
    }

    /// What the writer may know of.
    fn visible(&self, id: &DocId) -> Option<&Old> {
        let current = self.current(id)?;
        match &self.write.scope {
            None => Some(current),
            Some(scope) => current
                .document
                .as_ref()
                .is_some_and(|document| scope.matches(id, document))
                .then_some(current),
        }
    }

    fn may_write(&self, id: &DocId, document: &Document) -> bool {
        let scope = self.write.scope.as_ref();
        let hidden = self.current(id).is_some() && self.visible(id).is_none();
        !hidden && scope.is_none_or(|scope| scope.matches(id, document))
    }

    fn holds(&self, id: &DocId) -> bool {
        let current = self.visible(id);
        match &self.write.condition {
            None => true,
            Some(Condition::Absent(wanted)) => current.is_none() == *wanted,
            Some(Condition::Version(version)) => current.is_some_and(|old| old.seq == *version),
            Some(Condition::Filter(filter)) => current
                .and_then(|old| old.document.as_ref())
                .is_some_and(|d| filter.matches(id, d)),
        }
    }

    fn delete(&mut self, id: &DocId, next: &mut impl FnMut() -> Seq) {
        if !self.holds(id) {
            self.judged.counts.skipped += 1;
        } else if self.visible(id).is_some() {
            self.record(id, None, next());
            self.judged.counts.deleted += 1;
            self.judged.growth -= 1;
        }
    }

    fn upsert(&mut self, id: &DocId, document: &Document, next: &mut impl FnMut() -> Seq) {
        if !self.holds(id) {
            self.judged.counts.skipped += 1;
            return;
        }
        if !self.may_write(id, document) {
            self.judged.outside.get_or_insert_with(|| id.clone());
            return;
        }
        self.judged.counts.created = self.current(id).is_none();
        self.judged.growth += i64::from(self.judged.counts.created);
        self.record(id, Some(Arc::new(document.clone())), next());
        self.judged.counts.upserted += 1;
    }

    fn patch(&mut self, patch: &Patch, next: &mut impl FnMut() -> Seq) {
        let known = self.visible(&patch.id).and_then(|old| old.document.clone());
        let Some(document) = known.filter(|_| self.holds(&patch.id)) else {
            self.judged.counts.skipped += 1;
            return;
        };
        let mut document = document.as_ref().clone();
        for (name, value) in &patch.set {
            match value {
                Some(value) => document.set(name.clone(), value.clone()),
                None => document.remove(name.as_str()),
            }
        }
        if !self.may_write(&patch.id, &document) {
            self.judged.outside.get_or_insert_with(|| patch.id.clone());
            return;
        }
        self.judged.counts.created = false;
        self.record(&patch.id, Some(Arc::new(document)), next());
        self.judged.counts.patched += 1;
    }

    fn record(&mut self, id: &DocId, document: Option<Arc<Document>>, seq: Seq) {
        self.changed.insert(
            id.clone(),
            document.clone().map(|d| Old {
                seq,
                document: Some(d),
            }),
        );
        self.judged.rows.push(Row {
            id: id.clone(),
            seq,
            document,
        });
        self.judged.counts.version = Some(seq);
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::{FieldName, Filter, Json, Limits, Value};

    use super::*;

    fn document(lex: i64) -> Document {
        Document::from_fields(vec![(FieldName::parse("lex").expect("a name"), Value::Int(lex))])
    }

    fn stored(id: &str, seq: u64, lex: i64) -> HashMap<DocId, Old> {
        HashMap::from([(
            id.into(),
            Old {
                seq: Seq(seq),
                document: Some(Arc::new(document(lex))),
            },
        )])
    }

    fn run(write: &Write, matched: &[DocId], old: &HashMap<DocId, Old>) -> Judged {
        let mut seq = Seq(100);
        judge(write, matched, old, || {
            seq = seq.next();
            seq
        })
    }

    #[test]
    fn a_request_sees_its_own_earlier_steps() {
        let write = Write {
            delete: vec!["a".into()],
            upsert: vec![("a".into(), document(1))],
            patch: vec![Patch {
                id: "a".into(),
                set: vec![(FieldName::parse("lex").expect("a name"), Some(Value::Int(2)))],
            }],
            ..Write::default()
        };
        let judged = run(&write, &[], &stored("a", 7, 0));
        let last = judged.rows.last().expect("three rows");
        assert_eq!(judged.rows.len(), 3);
        assert_eq!(last.document.as_deref(), Some(&document(2)));
        assert_eq!(
            (
                judged.counts.deleted,
                judged.counts.upserted,
                judged.counts.patched
            ),
            (1, 1, 1)
        );
    }

    #[test]
    fn what_a_filter_matched_is_gone_before_the_upsert_of_the_same_id() {
        let write = Write {
            upsert: vec![("a".into(), document(5))],
            ..Write::default()
        };
        let judged = run(&write, &["a".into()], &stored("a", 7, 0));
        assert!(judged.counts.created);
        assert_eq!(judged.counts.deleted, 1);
    }

    #[test]
    fn a_condition_that_does_not_hold_skips_the_document_alone() {
        let write = Write {
            upsert: vec![("a".into(), document(1)), ("b".into(), document(1))],
            condition: Some(Condition::Absent(true)),
            ..Write::default()
        };
        let judged = run(&write, &[], &stored("a", 7, 0));
        assert_eq!((judged.counts.upserted, judged.counts.skipped), (1, 1));
    }

    #[test]
    fn an_absent_document_is_neither_patched_nor_counted_as_deleted() {
        let write = Write {
            delete: vec!["x".into()],
            patch: vec![Patch {
                id: "y".into(),
                set: Vec::new(),
            }],
            ..Write::default()
        };
        let judged = run(&write, &[], &HashMap::new());
        assert!(judged.rows.is_empty());
        assert_eq!((judged.counts.deleted, judged.counts.skipped), (0, 1));
    }

    #[test]
    fn a_version_holds_only_for_the_stored_one() {
        let at = |version| Write {
            upsert: vec![("a".into(), document(1))],
            condition: Some(Condition::Version(Seq(version))),
            ..Write::default()
        };
        assert_eq!(run(&at(7), &[], &stored("a", 7, 0)).counts.upserted, 1);
        assert_eq!(run(&at(6), &[], &stored("a", 7, 0)).counts.skipped, 1);
    }

    /// May touch documents whose `lex` is below 10.
    fn scoped(write: Write) -> Write {
        let fields = Json::parse(br#"{"lex": "int"}"#, &Limits::default()).expect("json");
        let fields = rhumb_core::fields::parse(&fields, &Limits::default()).expect("fields");
        let schema = rhumb_core::Schema::default();
        let schema = schema.declare(&fields, &Limits::default()).expect("a schema");
        let scope = Filter::parse_sql("lex < 10", &schema, &Limits::default());
        Write {
            scope: Some(scope.expect("a filter")),
            ..write
        }
    }

    #[test]
    fn a_document_outside_the_scope_is_as_if_absent() {
        let touch = Write {
            delete: vec!["a".into()],
            patch: vec![Patch {
                id: "a".into(),
                set: Vec::new(),
            }],
            ..Write::default()
        };
        let hidden = run(&scoped(touch.clone()), &["a".into()], &stored("a", 7, 50));
        let absent = run(&scoped(touch), &[], &HashMap::new());
        assert_eq!(hidden.counts, absent.counts);
        assert!(hidden.rows.is_empty() && hidden.outside.is_none());
        let at = |condition| {
            let write = Write {
                upsert: vec![("a".into(), document(1))],
                condition: Some(condition),
                ..Write::default()
            };
            run(&scoped(write), &[], &stored("a", 7, 50)).counts.skipped
        };
        assert_eq!(at(Condition::Version(Seq(7))), 1);
        assert_eq!(at(Condition::Absent(false)), 1);
    }

    #[test]
    fn nothing_is_written_over_or_out_of_the_scope() {
        let upsert = |id: &str, lex| Write {
            upsert: vec![(id.into(), document(lex))],
            ..Write::default()
        };
        let patch = |lex| Write {
            patch: vec![Patch {
                id: "a".into(),
                set: vec![(FieldName::parse("lex").expect("a name"), Some(Value::Int(lex)))],
            }],
            ..Write::default()
        };
        let own = stored("a", 7, 1);
        assert!(run(&scoped(upsert("a", 2)), &[], &own).outside.is_none());
        assert!(run(&scoped(patch(3)), &[], &own).outside.is_none());
        for refused in [
            run(&scoped(upsert("a", 50)), &[], &own),
            run(&scoped(patch(50)), &[], &own),
            run(&scoped(upsert("a", 1)), &[], &stored("a", 7, 50)),
        ] {
            assert_eq!(refused.outside, Some("a".into()));
        }
    }

    fn upsert_and_delete(condition: Option<Condition>) -> Write {
        Write {
            delete: vec!["a".into(), "a".into(), "x".into(), "b".into()],
            upsert: ["b", "c", "d"].map(|id| (id.into(), document(1))).to_vec(),
            condition,
            ..Write::default()
        }
    }

    #[test]
    fn a_write_grows_by_what_is_new_less_what_went() {
        let old: HashMap<DocId, Old> = ["a", "b"].into_iter().flat_map(|id| stored(id, 7, 0)).collect();
        let write = upsert_and_delete(None);
        assert_eq!(run(&write, &[], &old).growth, 1, "c and d for a");
        assert_eq!(run(&write, &[], &HashMap::new()).growth, 3);
        let gone = Write {
            delete: vec!["a".into(), "b".into()],
            ..Write::default()
        };
        assert_eq!(run(&gone, &[], &old).growth, -2);
    }

    #[test]
    fn no_write_grows_by_more_than_was_foreseen() {
        let all: HashMap<DocId, Old> = ["a", "b", "c"]
            .into_iter()
            .flat_map(|id| stored(id, 7, 0))
            .collect();
        for there in [&["a", "b"][..], &[], &["a", "b", "c"], &["c"]] {
            let there = there.iter().map(|id| DocId::from(*id));
            let old: HashMap<DocId, Old> = there
                .filter_map(|id| all.get_key_value(&id))
                .map(|(id, old)| (id.clone(), old.clone()))
                .collect();
            for condition in [
                None,
                Some(Condition::Absent(true)),
                Some(Condition::Absent(false)),
                Some(Condition::Version(Seq(7))),
            ] {
                for write in [
                    upsert_and_delete(condition.clone()),
                    scoped(upsert_and_delete(condition)),
                ] {
                    let foreseen = growth_at_most(&write, |id| old.contains_key(id));
                    let growth = run(&write, &[], &old).growth;
                    assert!(growth <= foreseen as i64, "{growth} of {foreseen}: {write:?}");
                    if write.condition.is_none() && write.scope.is_none() {
                        assert_eq!(growth.max(0) as u64, foreseen);
                    }
                }
            }
        }
    }

    #[test]
    fn under_a_scope_every_document_a_write_touches_is_looked_at() {
        let write = Write {
            delete: vec!["a".into()],
            upsert: vec![("b".into(), document(1))],
            ..Write::default()
        };
        assert!(needs_document(&write).is_empty());
        assert_eq!(needs_document(&scoped(write)).len(), 2);
    }
}
