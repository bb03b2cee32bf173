//! Answers of queries, written straight into bytes.

use std::time::Duration;

use rhumb_core::query::{Hit, Hits, LegTouched, Query, Touched};
use rhumb_core::render::{Rendered, RenderedValue};
use rhumb_core::{FieldName, Schema};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::answer::write_json;

pub struct Answered {
    pub hits: Hits,
    pub touched: Touched,
    pub took: Duration,
}

impl Answered {
    pub fn hits(&self) -> u64 {
        let hits = match &self.hits {
            Hits::Flat(hits) => hits.len(),
            Hits::Grouped(groups) => groups.iter().map(|group| group.hits.len()).sum(),
        };
        hits as u64
    }

    /// `{"hits": […], "took_ms": …}`, or with `groups` in place of `hits`.
    pub fn write(&self, out: &mut Vec<u8>, query: &Query, explain: bool, schema: &Schema) {
        match &self.hits {
            Hits::Flat(hits) => {
                out.extend_from_slice(b"{\"hits\":");
                write_list(out, hits, |out, hit| write_hit(out, hit, query, schema));
            }
            Hits::Grouped(groups) => {
                out.extend_from_slice(b"{\"groups\":");
                let ty = query
                    .group_by
                    .as_ref()
                    .and_then(|group_by| schema.get(group_by.field.as_str()));
                write_list(out, groups, |out, group| {
                    out.extend_from_slice(b"{\"value\":");
                    let value = &group.value;
                    write_json(out, &RenderedValue { value, ty });
                    out.extend_from_slice(b",\"hits\":");
                    write_list(out, &group.hits, |out, hit| write_hit(out, hit, query, schema));
                    out.push(b'}');
                });
            }
        }
        out.extend_from_slice(b",\"took_ms\":");
        write_json(out, &ms(self.took));
        if explain {
            out.extend_from_slice(b",\"explain\":");
            write_json(out, &explained(&self.touched));
        }
        out.push(b'}');
    }
}

fn write_list<T>(out: &mut Vec<u8>, items: &[T], each: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(b']');
}

fn write_hit(out: &mut Vec<u8>, hit: &Hit, query: &Query, schema: &Schema) {
    out.extend_from_slice(b"{\"id\":");
    write_json(out, &hit.id);
    out.extend_from_slice(b",\"score\":");
    write_json(out, &hit.score);
    if let Some(document) = &hit.document {
        out.extend_from_slice(b",\"document\":");
        write_json(out, &Rendered::new(document, &query.include, schema));
    }
    if query.highlight.is_some() {
        out.extend_from_slice(b",\"highlights\":");
        write_json(out, &Passages(&hit.highlights));
    }
    out.push(b'}');
}

struct Passages<'a>(&'a [(FieldName, Vec<String>)]);

impl Serialize for Passages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (field, passages) in self.0 {
            map.serialize_entry(field.as_str(), passages)?;
        }
        map.end()
    }
}

fn explained(touched: &Touched) -> rhumb_api::Explain {
    rhumb_api::Explain {
        rows_scanned: touched.rows_scanned,
        rows_rescored: touched.rows_rescored,
        segments: touched.segments,
        fresh_rows: touched.fresh_rows,
        filter_survivors: touched.filter_survivors,
        legs: touched.legs.iter().map(explained_leg).collect(),
        plan_ms: ms(touched.plan),
        search_ms: ms(touched.search),
        fetch_ms: ms(touched.fetch),
    }
}

fn explained_leg(leg: &LegTouched) -> rhumb_api::ExplainLeg {
    rhumb_api::ExplainLeg {
        leg: leg.leg.to_owned(),
        fields: leg.fields.iter().map(|field| field.as_str().to_owned()).collect(),
        hits: leg.hits,
        rows_scanned: leg.rows_scanned,
        took_ms: ms(leg.took),
    }
}

/// To the microsecond.
pub fn ms(took: Duration) -> f64 {
    took.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use rhumb_core::query::{Group, GroupBy, Highlight, Include};
    use rhumb_core::{Document, Value};

    use super::*;

    fn name(text: &str) -> FieldName {
        FieldName::parse(text).expect("a name")
    }

    fn hit() -> Hit {
        Hit {
            id: "n\"1".into(),
            score: 0.83,
            document: Some(Document::default()),
            highlights: vec![(name("gloss"), vec!["a <em>boat</em>".to_owned()])],
        }
    }

    fn written(hits: Hits, query: &Query) -> rhumb_api::QueryAnswer {
        let answered = Answered {
            hits,
            touched: Touched {
                legs: vec![LegTouched {
                    leg: "vector",
                    fields: vec![name("embedding")],
                    hits: 3,
                    rows_scanned: 7,
                    took: Duration::from_micros(20),
                }],
                ..Touched::default()
            },
            took: Duration::from_micros(310),
        };
        let mut out = Vec::new();
        answered.write(&mut out, query, true, &Schema::default());
        serde_json::from_slice(&out).expect("the type reads it")
    }

    #[test]
    fn answers_are_what_the_types_say() {
        let query = Query {
            include: Include::Everything,
            ..Query::default()
        };
        let read = written(Hits::Flat(vec![hit()]), &query);
        assert_eq!((read.hits[0].score, read.took_ms), (0.83, 0.31));
        assert!(read.hits[0].document.is_some() && read.hits[0].highlights.is_none());
        let legs = read.explain.expect("asked for").legs;
        assert_eq!(
            (legs[0].leg.as_str(), legs[0].hits, legs[0].took_ms),
            ("vector", 3, 0.02)
        );
    }

    #[test]
    fn groups_and_highlights_are_there_when_asked_for() {
        let query = Query {
            group_by: Some(GroupBy {
                field: name("pos"),
                size: 2,
            }),
            highlight: Some(Highlight {
                fields: vec![name("gloss")],
                before: "<em>".into(),
                after: "</em>".into(),
                passages: 1,
                length: 20,
            }),
            ..Query::default()
        };
        let group = Group {
            value: Value::Str("n".into()),
            hits: vec![hit(), hit()],
        };
        let groups = written(Hits::Grouped(vec![group]), &query)
            .groups
            .expect("groups");
        assert_eq!((groups[0].value.as_str(), groups[0].hits.len()), (Some("n"), 2));
        let passages = groups[0].hits[0].highlights.clone().expect("asked for");
        assert_eq!(passages["gloss"], ["a <em>boat</em>"]);
        assert_eq!(
            written(Hits::Grouped(Vec::new()), &query).groups,
            Some(Vec::new())
        );
    }
}
