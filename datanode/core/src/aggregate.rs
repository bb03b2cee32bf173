//! Aggregates: groups of documents and numbers about them.
//!
//! A `Plan` is bound to a schema; `Groups` takes documents one by one and can be merged
//! with the groups of another part of the collection, so the answer does not depend on how
//! the documents were split.  Integer sums are exact, float sums compensated; a sum beyond
//! f64 is null, since JSON has no infinity.  Memory is bounded by `MOST_CELLS`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, json};

use crate::ids::FieldName;
use crate::json::Json;
use crate::order;
use crate::problem::{Code, Problem, did_you_mean, shorten};
use crate::render::RenderedValue;
use crate::schema::{FieldType, Scalar, Schema};
use crate::value::{Document, Value};

const MOST_KEYS: usize = 16;
const MOST_METRICS: usize = 64;
/// Groups times what each of them holds.
const MOST_CELLS: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub by: Vec<FieldName>,
    /// In the order of the request, under the names it gave.
    pub metrics: Vec<(Arc<str>, Metric)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Documents; with a field, those that have it.
    Count(Option<FieldName>),
    Sum(FieldName),
    Avg(FieldName),
    Min(FieldName),
    Max(FieldName),
}

const METRICS: [&str; 5] = ["count", "sum", "avg", "min", "max"];

impl Plan {
    /// `by` and `metrics` of the request; either may be left out.
    pub fn parse(by: Option<&Json>, metrics: Option<&Json>, schema: &Schema) -> Result<Self, Problem> {
        let by = by.map_or(Ok(Vec::new()), |by| parse_by(by, schema))?;
        let metrics = metrics.map_or(Ok(Vec::new()), |metrics| parse_metrics(metrics, schema))?;
        Ok(Self { by, metrics })
    }

    /// The fields whose values it needs, without duplicates.
    pub fn fields(&self) -> Vec<&FieldName> {
        let mut fields: Vec<_> = self
            .by
            .iter()
            .chain(self.metrics.iter().filter_map(|(_, m)| m.field()))
            .collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }
}

impl Metric {
    pub fn field(&self) -> Option<&FieldName> {
        match self {
            Self::Count(field) => field.as_ref(),
            Self::Sum(field) | Self::Avg(field) | Self::Min(field) | Self::Max(field) => Some(field),
        }
    }
}

fn parse_by(by: &Json, schema: &Schema) -> Result<Vec<FieldName>, Problem> {
    let shape = || Problem::new(Code::Malformed, "by is a list of field names").field("by");
    let Json::Array(items) = by else {
        return Err(shape());
    };
    if items.len() > MOST_KEYS {
        let detail = format!("at most {MOST_KEYS} fields to group by");
        return Err(Problem::new(Code::LimitExceeded, detail).field("by"));
    }
    let mut names: Vec<FieldName> = Vec::with_capacity(items.len());
    for item in items {
        let (name, ty) = schema
            .find(item.as_str().ok_or_else(shape)?)
            .map_err(|problem| problem.within("by"))?;
        if !matches!(ty, FieldType::Scalar(_) | FieldType::Text { .. }) {
            let detail = format!("{} values make no groups", ty.name());
            return Err(Problem::new(Code::TypeMismatch, detail)
                .field(name.as_str())
                .within("by"));
        }
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Ok(names)
}

fn parse_metrics(metrics: &Json, schema: &Schema) -> Result<Vec<(Arc<str>, Metric)>, Problem> {
    let Json::Object(entries) = metrics else {
        let detail = format!("metrics is an object, not {}", metrics.kind());
        return Err(Problem::new(Code::Malformed, detail)
            .field("metrics")
            .hint("{\"n\": {\"count\": true}}"));
    };
    if entries.len() > MOST_METRICS {
        let detail = format!("at most {MOST_METRICS} metrics");
        return Err(Problem::new(Code::LimitExceeded, detail).field("metrics"));
    }
    let each = entries.iter().map(|(name, definition)| {
        let metric = parse_metric(name, definition, schema);
        let metric = metric.map_err(|problem| problem.within(&shorten(name)).within("metrics"))?;
        Ok((Arc::clone(name), metric))
    });
    each.collect()
}

fn parse_metric(name: &str, definition: &Json, schema: &Schema) -> Result<Metric, Problem> {
    if name == "by" || name.is_empty() || name.len() > 64 {
        return Err(Problem::new(
            Code::InvalidName,
            "a metric's name has 1 to 64 bytes and is not 'by'",
        ));
    }
    let Some([(function, operand)]) = definition.as_object() else {
        return Err(
            Problem::new(Code::Malformed, "a metric is an object with one function")
                .hint("{\"count\": true} or {\"avg\": \"price\"}"),
        );
    };
    if !METRICS.contains(&function.as_ref()) {
        let detail = format!("there is no metric '{}'", shorten(function));
        return Err(Problem::new(Code::UnknownField, detail)
            .field(shorten(function))
            .hint(did_you_mean(function, METRICS)));
    }
    let field = match operand {
        Json::Bool(true) if function.as_ref() == "count" => return Ok(Metric::Count(None)),
        Json::Str(field) => field,
        other => {
            let takes = if function.as_ref() == "count" {
                "true or a field"
            } else {
                "a field"
            };
            let detail = format!("{function} takes {takes}, not {}", other.kind());
            return Err(Problem::new(Code::TypeMismatch, detail));
        }
    };
    let (field, ty) = schema.find(field)?;
    let numeric = matches!(ty, FieldType::Scalar(Scalar::Int | Scalar::Float));
    let ordered = numeric
        || matches!(
            ty,
            FieldType::Scalar(Scalar::String | Scalar::Timestamp) | FieldType::Text { .. }
        );
    let field = field.clone();
    match function.as_ref() {
        "count" => Ok(Metric::Count(Some(field))),
        "sum" if numeric => Ok(Metric::Sum(field)),
        "avg" if numeric => Ok(Metric::Avg(field)),
        "min" if ordered => Ok(Metric::Min(field)),
        "max" if ordered => Ok(Metric::Max(field)),
        function => {
            let detail = format!("'{field}' is {}, which has no {function}", ty.name());
            Err(Problem::new(Code::TypeMismatch, detail))
        }
    }
}

/// What has been seen so far.
pub struct Groups<'a> {
    plan: &'a Plan,
    groups: BTreeMap<Key, Vec<Cell>>,
}

/// Values of `by`; a missing one comes last.
#[derive(Clone, Debug)]
struct Key(Vec<Option<Value>>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let each = self.0.iter().zip(&other.0).map(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => order::compare(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        each.into_iter().find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

/// The state of one metric in one group.
#[derive(Clone, Debug, Default)]
struct Cell {
    /// Values seen.
    count: u64,
    sum: Sum,
    best: Option<Value>,
}

/// Integers and floats never meet in one field, so one kind is enough.
#[derive(Clone, Copy, Debug, Default)]
enum Sum {
    #[default]
    Nothing,
    /// 2^64 rows of 64-bit integers fit.
    Ints(i128),
    /// Neumaier's sum: the error of n additions stays that of one.
    Floats { sum: f64, lost: f64 },
}

impl Sum {
    fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, sum) | (sum, Self::Nothing) => sum,
            (Self::Ints(a), Self::Ints(b)) => Self::Ints(a + b),
            (Self::Floats { sum: a, lost }, Self::Floats { sum: b, lost: more }) => {
                let sum = a + b;
                let error = if a.abs() >= b.abs() {
                    (a - sum) + b
                } else {
                    (b - sum) + a
                };
                Self::Floats {
                    sum,
                    lost: lost + more + error,
                }
            }
            (Self::Ints(n), Self::Floats { sum, lost }) | (Self::Floats { sum, lost }, Self::Ints(n)) => {
                Self::Floats {
                    sum: sum + n as f64,
                    lost,
                }
            }
        }
    }

    fn total(self) -> f64 {
        match self {
            Self::Nothing => 0.0,
            Self::Ints(n) => n as f64,
            Self::Floats { sum, lost } => sum + lost,
        }
    }
}

impl<'a> Groups<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        let mut groups = BTreeMap::new();
        if plan.by.is_empty() {
            // All documents are one group, even when there are none.
            groups.insert(Key(Vec::new()), vec![Cell::default(); plan.metrics.len()]);
        }
        Self { plan, groups }
    }

    pub fn add_document(&mut self, document: &Document) -> Result<(), Problem> {
        self.add(|field| document.get(field.as_str()).cloned())
    }

    /// One document, seen through its values of `Plan::fields`.
    pub fn add(&mut self, value: impl Fn(&FieldName) -> Option<Value>) -> Result<(), Problem> {
        let plan = self.plan;
        let cells = self.cells(Key(plan.by.iter().map(&value).collect()))?;
        for (cell, (_, metric)) in cells.iter_mut().zip(&plan.metrics) {
            match metric.field() {
                None => cell.count += 1,
                Some(field) => value(field).into_iter().for_each(|value| cell.add(metric, value)),
            }
        }
        Ok(())
    }

    /// The groups of other documents under the same plan.
    pub fn merge(&mut self, other: Self) -> Result<(), Problem> {
        let plan = self.plan;
        for (key, theirs) in other.groups {
            let cells = self.cells(key)?;
            for ((cell, their), (_, metric)) in cells.iter_mut().zip(theirs).zip(&plan.metrics) {
                cell.merge(metric, their);
            }
        }
        Ok(())
    }

    /// `[{"by": {"pos": "n"}, "n": 12}, …]` in the order of the keys, missing ones last.
    pub fn into_json(self) -> Vec<serde_json::Value> {
        let plan = self.plan;
        let groups = self.groups.into_iter().map(|(key, cells)| {
            let by = plan
                .by
                .iter()
                .zip(&key.0)
                .map(|(name, value)| (name.to_string(), rendered(value.as_ref())));
            let mut group = Map::new();
            group.insert("by".to_owned(), serde_json::Value::Object(by.collect()));
            for ((name, metric), cell) in plan.metrics.iter().zip(&cells) {
                group.insert(name.as_ref().to_owned(), cell.result(metric));
            }
            serde_json::Value::Object(group)
        });
        groups.collect()
    }

    fn cells(&mut self, key: Key) -> Result<&mut Vec<Cell>, Problem> {
        let cells_each = 1 + self.plan.by.len() + self.plan.metrics.len();
        let full = (self.groups.len() + 1) * cells_each > MOST_CELLS;
        if full && !self.groups.contains_key(&key) {
            let detail = format!("more than {} groups", self.groups.len());
            return Err(Problem::new(Code::LimitExceeded, detail)
                .field("by")
                .hint("narrow it with a filter, or group by a field with fewer values"));
        }
        let metrics = self.plan.metrics.len();
        Ok(self
            .groups
            .entry(key)
            .or_insert_with(|| vec![Cell::default(); metrics]))
    }
}

impl Cell {
    fn add(&mut self, metric: &Metric, value: Value) {
        self.count += 1;
        match metric {
            Metric::Count(_) => {}
            Metric::Sum(_) | Metric::Avg(_) => match value {
                Value::Int(n) => self.sum = self.sum.merge(Sum::Ints(n.into())),
                Value::Float(sum) => self.sum = self.sum.merge(Sum::Floats { sum, lost: 0.0 }),
                // A plan sums only these two.
                _ => self.count -= 1,
            },
            Metric::Min(_) => self.keep(value, Ordering::Less),
            Metric::Max(_) => self.keep(value, Ordering::Greater),
        }
    }

    fn merge(&mut self, metric: &Metric, other: Self) {
        self.count += other.count;
        self.sum = self.sum.merge(other.sum);
        if let Some(value) = other.best {
            self.keep(
                value,
                if matches!(metric, Metric::Min(_)) {
                    Ordering::Less
                } else {
                    Ordering::Greater
                },
            );
        }
    }

    fn keep(&mut self, value: Value, better: Ordering) {
        if self
            .best
            .as_ref()
            .is_none_or(|best| order::compare(&value, best) == better)
        {
            self.best = Some(value);
        }
    }

    fn result(&self, metric: &Metric) -> serde_json::Value {
        match metric {
            Metric::Count(_) => json!(self.count),
            Metric::Sum(_) | Metric::Avg(_) if self.count == 0 => json!(null),
            Metric::Sum(_) => match self.sum {
                Sum::Ints(n) => i64::try_from(n).map_or_else(|_| finite(n as f64), |n| json!(n)),
                sum => finite(sum.total()),
            },
            Metric::Avg(_) => finite(self.sum.total() / self.count as f64),
            Metric::Min(_) | Metric::Max(_) => rendered(self.best.as_ref()),
        }
    }
}

fn finite(x: f64) -> serde_json::Value {
    if x.is_finite() { json!(x) } else { json!(null) }
}

fn rendered(value: Option<&Value>) -> serde_json::Value {
    // Writing a scalar into a tree cannot fail: there is no map key to refuse.
    value.map_or(json!(null), |value| json!(RenderedValue { value, ty: None }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Field;
    use proptest::prelude::*;

    fn schema() -> Schema {
        let mut schema = Schema::default();
        for (name, ty) in [
            ("pos", FieldType::Scalar(Scalar::String)),
            ("lex", FieldType::Scalar(Scalar::Int)),
            ("price", FieldType::Scalar(Scalar::Float)),
            ("at", FieldType::Scalar(Scalar::Timestamp)),
            ("live", FieldType::Scalar(Scalar::Bool)),
            ("tags", FieldType::List(Scalar::String)),
        ] {
            schema.fields.insert(
                FieldName::parse(name).expect("valid"),
                Field { ty, declared: true },
            );
        }
        schema
    }

    fn plan(by: &str, metrics: &str) -> Result<Plan, Problem> {
        let json = |text: &str| Json::parse(text.as_bytes(), &Default::default()).expect("json");
        Plan::parse(Some(&json(by)), Some(&json(metrics)), &schema())
    }

    fn document(fields: &[(&str, Value)]) -> Document {
        let named = fields
            .iter()
            .map(|(n, v)| (FieldName::parse(n).expect("valid"), v.clone()));
        Document::from_fields(named.collect())
    }

    fn groups(plan: &Plan, documents: &[Document]) -> serde_json::Value {
        let mut groups = Groups::new(plan);
        documents
            .iter()
            .for_each(|d| groups.add_document(d).expect("few groups"));
        serde_json::Value::Array(groups.into_json())
    }

    const ALL: &str = r#"{"n": {"count": true}, "m": {"count": "lex"}, "s": {"sum": "lex"}, "a": {"avg": "price"},
        "lo": {"min": "at"}, "hi": {"max": "pos"}}"#;

    #[test]
    fn groups_come_in_order_with_missing_values_last() {
        let documents = [
            document(&[("lex", Value::Int(7))]),
            document(&[
                ("pos", Value::Str("v".into())),
                ("lex", Value::Int(1)),
                ("price", Value::Float(0.5)),
            ]),
            document(&[("pos", Value::Str("n".into())), ("at", Value::Time(5))]),
            document(&[
                ("pos", Value::Str("v".into())),
                ("lex", Value::Int(2)),
                ("price", Value::Float(1.0)),
            ]),
        ];
        assert_eq!(
            groups(&plan("[\"pos\"]", ALL).expect("valid"), &documents),
            json!([
                {"by": {"pos": "n"}, "n": 1, "m": 0, "s": null, "a": null, "lo": "1970-01-01T00:00:00.005Z", "hi": "n"},
                {"by": {"pos": "v"}, "n": 2, "m": 2, "s": 3, "a": 0.75, "lo": null, "hi": "v"},
                {"by": {"pos": null}, "n": 1, "m": 1, "s": 7, "a": null, "lo": null, "hi": null},
            ])
        );
    }

    #[test]
    fn without_by_there_is_one_group_even_of_nothing() {
        let plan = plan("[]", r#"{"n": {"count": true}, "s": {"sum": "lex"}}"#).expect("valid");
        assert_eq!(groups(&plan, &[]), json!([{"by": {}, "n": 0, "s": null}]));
    }

    #[test]
    fn sums_are_exact_beyond_64_bits_and_null_beyond_floats() {
        let plan = plan(
            "[]",
            r#"{"s": {"sum": "lex"}, "f": {"sum": "price"}, "a": {"avg": "price"}}"#,
        )
        .expect("valid");
        let large = document(&[("lex", Value::Int(i64::MAX)), ("price", Value::Float(1e308))]);
        let back = document(&[("lex", Value::Int(-i64::MAX)), ("price", Value::Float(1e308))]);
        let result = groups(&plan, &[large.clone(), large.clone(), back.clone(), back]);
        assert_eq!(result, json!([{"s": 0, "f": null, "a": null, "by": {}}]));
        assert_eq!(
            groups(&plan, &[large.clone(), large])[0]["s"],
            json!(1.844_674_407_370_955_2e19)
        );
    }

    #[test]
    fn a_float_sum_does_not_lose_small_terms() {
        let plan = plan("[]", r#"{"f": {"sum": "price"}}"#).expect("valid");
        let terms = [1e16, 1.0, -1e16, 1.0].map(|x| document(&[("price", Value::Float(x))]));
        assert_eq!(groups(&plan, &terms), json!([{"by": {}, "f": 2.0}]));
    }

    #[test]
    fn wrong_plans_are_refused_with_their_place() {
        let case = |by: &str, metrics: &str| {
            let problem = plan(by, metrics).expect_err("refused");
            (problem.code, problem.field.unwrap_or_default())
        };
        assert_eq!(case("[\"poss\"]", "{}"), (Code::UnknownField, "by.poss".into()));
        assert_eq!(case("[\"tags\"]", "{}"), (Code::TypeMismatch, "by.tags".into()));
        assert_eq!(case("\"pos\"", "{}"), (Code::Malformed, "by".into()));
        assert_eq!(case("[1]", "{}"), (Code::Malformed, "by".into()));
        assert_eq!(case("[]", "[]"), (Code::Malformed, "metrics".into()));
        assert_eq!(
            case("[]", r#"{"by": {"count": true}}"#),
            (Code::InvalidName, "metrics.by".into())
        );
        assert_eq!(
            case("[]", r#"{"n": {"cuont": true}}"#),
            (Code::UnknownField, "metrics.n.cuont".into())
        );
        assert_eq!(case("[]", r#"{"n": {}}"#), (Code::Malformed, "metrics.n".into()));
        assert_eq!(
            case("[]", r#"{"n": {"sum": true}}"#),
            (Code::TypeMismatch, "metrics.n".into())
        );
        assert_eq!(
            case("[]", r#"{"n": {"sum": "pos"}}"#),
            (Code::TypeMismatch, "metrics.n".into())
        );
        assert_eq!(
            case("[]", r#"{"n": {"max": "live"}}"#),
            (Code::TypeMismatch, "metrics.n".into())
        );
        assert_eq!(
            case("[]", r#"{"n": {"max": "nope"}}"#),
            (Code::UnknownField, "metrics.n.nope".into())
        );
    }

    #[test]
    fn too_many_groups_are_refused() {
        let plan = plan("[\"lex\"]", "{}").expect("valid");
        let mut groups = Groups::new(&plan);
        let fits = (MOST_CELLS / 2) as i64;
        for n in 0..fits {
            groups.add(|_| Some(Value::Int(n))).expect("fits");
        }
        assert_eq!(
            groups.add(|_| Some(Value::Int(fits))).expect_err("one more").code,
            Code::LimitExceeded
        );
        assert!(groups.add(|_| Some(Value::Int(0))).is_ok());
    }

    proptest! {
        #[test]
        fn merged_parts_are_the_whole(rows in prop::collection::vec((0_i64..4, -9_i64..9, any::<bool>()), 0..40), cut in 0_usize..40) {
            let documents: Vec<Document> = rows.iter().map(|(pos, lex, has)| {
                let mut fields = vec![("pos", Value::Str(pos.to_string().into()))];
                if *has {
                    fields.extend([("lex", Value::Int(*lex)), ("price", Value::Float(*lex as f64 / 4.0)), ("at", Value::Time(*lex))]);
                }
                document(&fields)
            }).collect();
            let plan = plan("[\"pos\"]", ALL).expect("valid");
            let (left, right) = documents.split_at(cut.min(documents.len()));
            let mut merged = Groups::new(&plan);
            left.iter().for_each(|d| merged.add_document(d).expect("few"));
            let mut other = Groups::new(&plan);
            right.iter().for_each(|d| other.add_document(d).expect("few"));
            merged.merge(other).expect("few");
            prop_assert_eq!(serde_json::Value::Array(merged.into_json()), groups(&plan, &documents));
        }
    }
}
