//! The crate as a whole, against an oracle that reads every row.

mod agree;
mod edges;
mod oracle;
mod splits;

use rhumb_core::FieldName;

use crate::{
    Allowed, FreshText, Index, Part, SearchSpec, Split, SplitBuilder, TextFields, TextHit, TextQuery, TextRow,
};

/// Texts of one row in `title` and `body`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) title: Option<String>,
    pub(crate) body: Option<String>,
}

impl Row {
    pub(crate) fn body(text: impl Into<String>) -> Self {
        Self {
            title: None,
            body: Some(text.into()),
        }
    }

    pub(crate) fn get(&self, field: &FieldName) -> Option<&str> {
        match field.as_str() {
            "title" => self.title.as_deref(),
            _ => self.body.as_deref(),
        }
    }
}

pub(crate) fn name(field: &str) -> FieldName {
    FieldName::parse(field).expect("a name")
}

pub(crate) fn fields() -> TextFields {
    let mut fields = TextFields::default();
    fields.add(name("title"), "english").expect("known");
    fields.add(name("body"), "english").expect("known");
    fields
}

pub(crate) fn blob(rows: &[Row]) -> Vec<u8> {
    let mut builder = SplitBuilder::new(&fields()).expect("a builder");
    for row in rows {
        builder.push(|field| row.get(field)).expect("pushed");
    }
    builder.finish().expect("finished")
}

pub(crate) fn sealed(rows: &[Row]) -> Split {
    Split::open(blob(rows)).expect("whole")
}

pub(crate) fn fresh(rows: &[Row]) -> FreshText {
    let (text, fields) = (FreshText::new(), fields());
    for (at, row) in rows.iter().enumerate() {
        let ordinal = text.push(&fields, |field| row.get(field)).expect("pushed");
        assert_eq!(ordinal as usize, at);
    }
    text
}

pub(crate) fn whole(index: Index<'_>) -> Part<'_> {
    Part {
        index,
        allowed: Allowed::All,
        ascending: true,
    }
}

/// Ties go to the smaller part and ordinal.
pub(crate) fn search(parts: &[Part<'_>], query: &TextQuery, k: usize) -> Vec<TextHit> {
    let fields = fields();
    let spec = SearchSpec {
        query,
        fields: &fields,
        k,
        tie: &|a: TextRow, b: TextRow| a.cmp(&b),
    };
    crate::search(parts, &spec).expect("searched")
}

/// Numbers that only a seed decides.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}
