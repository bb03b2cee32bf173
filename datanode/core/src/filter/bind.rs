//! From a path, an operator and an operand to a leaf: the part that both ways of writing a
//! filter share, so that they cannot differ.

use std::sync::Arc;

use super::{Filter, Leaf, Path, Test, pattern};
use crate::ids::{FieldName, IdKind};
use crate::json::Json;
use crate::limits::Limits;
use crate::order;
use crate::problem::{Code, Problem, shorten};
use crate::schema::{FieldType, Scalar, Schema};
use crate::time;
use crate::value::Value;

/// As deep as a json attribute may be.
const JSON_STEPS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    In,
    Nin,
    Contains,
    ContainsAny,
    ContainsAll,
    Exists,
    Prefix,
    Glob,
    Regex,
    Like,
}

pub(super) struct Binder<'a> {
    schema: &'a Schema,
    limits: &'a Limits,
    clauses: usize,
    patterns: usize,
    depth: usize,
}

/// What a path leads to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    path: Path,
    kind: Kind,
    /// As it was written, for messages.
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Id(Option<IdKind>),
    Scalar(Scalar),
    List(Scalar),
    Json,
    Vector,
}

/// An operand under a field's type.
enum Operand {
    Value(Value),
    /// A number that the field's type cannot hold, and the nearest values that it can on
    /// either side: nothing equals it, but things are less or greater.
    Between(Option<Value>, Option<Value>),
}

impl Target {
    /// True when an object operand can be compared with what is there.
    pub(super) fn is_json(&self) -> bool {
        self.kind == Kind::Json
    }
}

impl<'a> Binder<'a> {
    pub(super) fn new(schema: &'a Schema, limits: &'a Limits) -> Self {
        Self {
            schema,
            limits,
            clauses: 0,
            patterns: 0,
            depth: 0,
        }
    }

    /// One level deeper; `ascend` comes back.  After a problem nobody comes back.
    pub(super) fn descend(&mut self) -> Result<(), Problem> {
        if self.depth == self.limits.filter_depth {
            let detail = format!("a filter nests at most {} levels", self.limits.filter_depth);
            return Err(Problem::new(Code::LimitExceeded, detail));
        }
        self.depth += 1;
        Ok(())
    }

    pub(super) fn ascend(&mut self) {
        self.depth -= 1;
    }

    /// `first` names the id or a field; more steps lead into json.
    pub(super) fn target(&self, steps: &[&str]) -> Result<Target, Problem> {
        let name = steps.join(".");
        let (first, rest) = match steps {
            ["id"] => {
                return Ok(Target {
                    path: Path::Id,
                    kind: Kind::Id(self.schema.id_kind),
                    name,
                });
            }
            [first, rest @ ..] => (*first, rest),
            [] => return Err(Problem::new(Code::InvalidFilter, "a filter names a field")),
        };
        let (field, ty) = self.find(first)?;
        if rest.is_empty() {
            let kind = match ty {
                FieldType::Vector(_) | FieldType::Sparse => Kind::Vector,
                FieldType::Text { .. } => Kind::Scalar(Scalar::String),
                FieldType::Scalar(scalar) => Kind::Scalar(*scalar),
                FieldType::List(scalar) => Kind::List(*scalar),
                FieldType::Json => Kind::Json,
            };
            return Ok(Target {
                path: Path::Field(field.clone()),
                kind,
                name,
            });
        }
        if *ty != FieldType::Json {
            let detail = format!(
                "'{first}' is {}, so there is nothing in it called '{}'",
                ty.name(),
                shorten(&rest.join("."))
            );
            return Err(Problem::new(Code::UnknownField, detail).field(shorten(&name)));
        }
        if rest.len() > JSON_STEPS {
            let detail = format!("a path goes at most {JSON_STEPS} steps into json");
            return Err(Problem::new(Code::LimitExceeded, detail).field(shorten(&name)));
        }
        let steps = rest.iter().map(|step| Arc::from(*step)).collect();
        Ok(Target {
            path: Path::Json(field.clone(), steps),
            kind: Kind::Json,
            name,
        })
    }

    fn find(&self, name: &str) -> Result<(&'a FieldName, &'a FieldType), Problem> {
        match self.schema.fields.get_key_value(name) {
            Some((name, field)) => Ok((name, &field.ty)),
            None => {
                let known = self.schema.fields.keys().map(FieldName::as_str);
                Err(Problem::unknown_field(name, known.chain(["id"])))
            }
        }
    }

    pub(super) fn leaf(&mut self, target: &Target, op: Op, operand: &Json) -> Result<Filter, Problem> {
        self.spend(1)?;
        let bound = self.bind(target, op, operand);
        bound.map_err(|problem| {
            // Patterns, times and lists do not know the name that they are under.
            let inside = problem
                .field
                .as_deref()
                .filter(|f| f.starts_with('['))
                .unwrap_or_default();
            let place = format!("{}{inside}", shorten(&target.name));
            problem.field(place)
        })
    }

    fn bind(&mut self, target: &Target, op: Op, operand: &Json) -> Result<Filter, Problem> {
        let leaf = |test| {
            Filter::Leaf(Leaf {
                path: target.path.clone(),
                test,
            })
        };
        if let Some(problem) = target.refuses(op) {
            return Err(problem);
        }
        let test = match op {
            Op::Exists => match operand {
                Json::Bool(wanted) => Test::Exists(*wanted),
                other => return Err(wrong("$exists takes true or false", other)),
            },
            Op::Eq | Op::Ne if operand.is_null() => Test::Exists(op == Op::Ne),
            Op::Gt | Op::Gte | Op::Lt | Op::Lte if !has_order(operand) => {
                return Err(wrong(
                    "less and greater are for numbers, strings and times",
                    operand,
                ));
            }
            Op::Eq | Op::Ne | Op::Gt | Op::Gte | Op::Lt | Op::Lte => {
                self.spend(operand.list_len().unwrap_or(0))?;
                target.operand(operand)?.compare(op)
            }
            Op::In | Op::Nin => return self.one_of(target, op == Op::In, operand),
            Op::Contains => target.contains_any(vec![operand.clone()])?,
            Op::ContainsAny => target.contains_any(self.items(operand)?)?,
            Op::ContainsAll => target.contains_all(self.items(operand)?)?,
            Op::Prefix => Test::Prefix(text(operand)?),
            Op::Glob => self.pattern(operand, pattern::glob)?,
            Op::Like => self.pattern(operand, pattern::like)?,
            Op::Regex => self.pattern(operand, pattern::regex)?,
        };
        Ok(leaf(test))
    }

    /// `$in` and `$nin`; a null item stands for missing.
    fn one_of(&mut self, target: &Target, wanted: bool, operand: &Json) -> Result<Filter, Problem> {
        let leaf = |test| {
            Filter::Leaf(Leaf {
                path: target.path.clone(),
                test,
            })
        };
        let items = self.items(operand)?;
        let null = items.iter().any(Json::is_null);
        let operands = target.operands(items.iter().filter(|item| !item.is_null()))?;
        let values = sorted(operands.into_iter().filter_map(Operand::value).collect());
        Ok(match (wanted, null) {
            (true, false) => leaf(Test::In(values)),
            (false, false) => leaf(Test::NotIn(values)),
            (true, true) => Filter::Or(vec![leaf(Test::In(values)), leaf(Test::Exists(false))]),
            (false, true) => Filter::And(vec![leaf(Test::NotIn(values)), leaf(Test::Exists(true))]),
        })
    }

    fn items(&mut self, operand: &Json) -> Result<Vec<Json>, Problem> {
        self.spend(operand.list_len().unwrap_or(0))?;
        operand
            .clone()
            .into_items()
            .map_err(|other| wrong("the operator takes a list", &other))
    }

    fn pattern(
        &mut self,
        operand: &Json,
        compile: fn(&str) -> Result<Test, Problem>,
    ) -> Result<Test, Problem> {
        self.patterns += 1;
        if self.patterns > pattern::MOST_PATTERNS {
            let detail = format!("a filter has at most {} patterns", pattern::MOST_PATTERNS);
            return Err(Problem::new(Code::LimitExceeded, detail));
        }
        compile(&text(operand)?)
    }

    pub(super) fn spend(&mut self, clauses: usize) -> Result<(), Problem> {
        self.clauses += clauses;
        if self.clauses <= self.limits.filter_clauses {
            return Ok(());
        }
        let detail = format!(
            "a filter has at most {} clauses, the items of lists included",
            self.limits.filter_clauses
        );
        Err(Problem::new(Code::LimitExceeded, detail))
    }
}

impl Target {
    /// Why this operator makes no sense here, if it does not.
    fn refuses(&self, op: Op) -> Option<Problem> {
        let refused = |why: &str, hint: &str| {
            Some(
                Problem::new(
                    Code::TypeMismatch,
                    format!("'{}' is {}: {why}", shorten(&self.name), self.kind.name()),
                )
                .hint(hint),
            )
        };
        let ordered = matches!(op, Op::Gt | Op::Gte | Op::Lt | Op::Lte);
        let textual = matches!(op, Op::Prefix | Op::Glob | Op::Like | Op::Regex);
        let contains = matches!(op, Op::Contains | Op::ContainsAny | Op::ContainsAll);
        match self.kind {
            _ if op == Op::Exists => None,
            Kind::Json => None,
            Kind::Vector if matches!(op, Op::Eq | Op::Ne) => None,
            Kind::Vector => refused("it can only be tested for being there", "use $exists"),
            Kind::List(_) if matches!(op, Op::In | Op::Nin) => {
                refused("it is no single value", "use $contains_any, or $not around it")
            }
            Kind::List(_) if ordered || textual => refused("it is no single value", "use $contains"),
            Kind::Scalar(_) | Kind::Id(_) if contains => {
                refused("it holds no items", "use $in, or $glob to search in a string")
            }
            Kind::Scalar(Scalar::Bool) if ordered => refused("it has no order", "use $eq or $ne"),
            Kind::Scalar(Scalar::String) | Kind::Id(Some(IdKind::Str) | None) => None,
            Kind::Scalar(_) | Kind::Id(Some(IdKind::Num)) if textual => {
                refused("patterns are for strings", "use $gt, $gte, $lt or $lte")
            }
            Kind::List(_) | Kind::Scalar(_) | Kind::Id(_) => None,
        }
    }

    /// The operand of a comparison.
    fn operand(&self, json: &Json) -> Result<Operand, Problem> {
        match self.kind {
            Kind::Scalar(scalar) => of_scalar(scalar, json),
            Kind::Id(kind) => of_id(kind, json),
            Kind::Json => Ok(Operand::Value(untyped(json))),
            Kind::Vector => Err(
                Problem::new(Code::TypeMismatch, "a vector is compared with null only").hint("use $exists"),
            ),
            Kind::List(scalar) => match json.clone().into_items() {
                Ok(items) => of_list(scalar, &items),
                Err(single) => Err(
                    wrong(&format!("the field is a list of {}", scalar.name()), &single)
                        .hint("use $contains to find a list that holds a value"),
                ),
            },
        }
    }

    /// Operands for single values: the field's own, or one of a list's items.
    fn operands<'j>(&self, items: impl IntoIterator<Item = &'j Json>) -> Result<Vec<Operand>, Problem> {
        let each = items.into_iter().map(|item| match self.kind {
            Kind::List(scalar) => of_scalar(scalar, item),
            _ => self.operand(item),
        });
        each.collect()
    }

    fn contains_any(&self, items: Vec<Json>) -> Result<Test, Problem> {
        let operands = self.operands(&no_null(items)?)?;
        Ok(Test::ContainsAny(sorted(
            operands.into_iter().filter_map(Operand::value).collect(),
        )))
    }

    fn contains_all(&self, items: Vec<Json>) -> Result<Test, Problem> {
        let operands = self.operands(&no_null(items)?)?.into_iter().map(Operand::value);
        Ok(match operands.collect::<Option<Vec<_>>>() {
            Some(values) => Test::ContainsAll(sorted(values)),
            None => Test::In(Vec::new()),
        })
    }
}

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Id(Some(IdKind::Num)) => "an unsigned integer".into(),
            Self::Id(_) => "an id".into(),
            Self::Scalar(scalar) => scalar.name().into(),
            Self::List(scalar) => format!("a list of {}", scalar.name()),
            Self::Json => "json".into(),
            Self::Vector => "a vector".into(),
        }
    }
}

impl Operand {
    fn value(self) -> Option<Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::Between(..) => None,
        }
    }

    fn compare(self, op: Op) -> Test {
        let nothing = || Test::In(Vec::new());
        match (op, self) {
            (Op::Ne, Self::Value(v)) => Test::Ne(v),
            (Op::Gt, Self::Value(v)) => Test::Gt(v),
            (Op::Gte, Self::Value(v)) => Test::Gte(v),
            (Op::Lt, Self::Value(v)) => Test::Lt(v),
            (Op::Lte, Self::Value(v)) => Test::Lte(v),
            (_, Self::Value(v)) => Test::Eq(v),
            (Op::Lt | Op::Lte, Self::Between(below, _)) => below.map_or_else(nothing, Test::Lte),
            (Op::Gt | Op::Gte, Self::Between(_, above)) => above.map_or_else(nothing, Test::Gte),
            (Op::Ne, Self::Between(..)) => Test::NotIn(Vec::new()),
            (_, Self::Between(..)) => nothing(),
        }
    }
}

fn of_scalar(ty: Scalar, json: &Json) -> Result<Operand, Problem> {
    let value = match (ty, json) {
        (Scalar::Bool, Json::Bool(b)) => Value::Bool(*b),
        (Scalar::String, Json::Str(s)) => Value::Str(Arc::clone(s)),
        (Scalar::Timestamp, Json::Str(s)) => Value::Time(time::parse(s)?),
        (Scalar::Int, Json::Int(n)) => Value::Int(*n),
        (Scalar::Int, Json::UInt(_)) => return Ok(Operand::Between(Some(Value::Int(i64::MAX)), None)),
        (Scalar::Int, Json::Float(x)) => return Ok(among_integers(*x)),
        (Scalar::Float, Json::Float(x)) => Value::Float(*x),
        (Scalar::Float, Json::Int(n)) => return Ok(among_floats(i128::from(*n))),
        (Scalar::Float, Json::UInt(n)) => return Ok(among_floats(i128::from(*n))),
        (ty, json) => return Err(wrong(&format!("the field is {}", ty.name()), json)),
    };
    Ok(Operand::Value(value))
}

fn among_integers(x: f64) -> Operand {
    // Both ends are exact: the first is -2^63 itself, the second one past the last.
    if x < i64::MIN as f64 {
        return Operand::Between(None, Some(Value::Int(i64::MIN)));
    }
    if x >= i64::MAX as f64 {
        return Operand::Between(Some(Value::Int(i64::MAX)), None);
    }
    let below = x.floor() as i64;
    if x.fract() == 0.0 {
        return Operand::Value(Value::Int(below));
    }
    // A float with a fraction is far from the ends, so there is an integer above.
    Operand::Between(Some(Value::Int(below)), Some(Value::Int(below + 1)))
}

fn among_floats(n: i128) -> Operand {
    let nearest = n as f64;
    let (below, above) = match n.cmp(&(nearest as i128)) {
        std::cmp::Ordering::Equal => return Operand::Value(Value::Float(nearest)),
        std::cmp::Ordering::Greater => (nearest, nearest.next_up()),
        std::cmp::Ordering::Less => (nearest.next_down(), nearest),
    };
    Operand::Between(Some(Value::Float(below)), Some(Value::Float(above)))
}

fn of_id(kind: Option<IdKind>, json: &Json) -> Result<Operand, Problem> {
    let fits = match json {
        Json::Str(_) => kind != Some(IdKind::Num),
        Json::Int(_) | Json::UInt(_) | Json::Float(_) => kind != Some(IdKind::Str),
        _ => false,
    };
    match kind {
        _ if fits => Ok(Operand::Value(untyped(json))),
        Some(IdKind::Num) => Err(wrong("ids are unsigned integers here", json)),
        Some(IdKind::Str) => Err(wrong("ids are strings here", json)),
        None => Err(wrong("an id is a string or an unsigned integer", json)),
    }
}

fn of_list(ty: Scalar, items: &[Json]) -> Result<Operand, Problem> {
    let operands = items.iter().map(|item| of_scalar(ty, item));
    let values = operands
        .map(|operand| operand.map(Operand::value))
        .collect::<Result<Option<Vec<_>>, _>>()?;
    Ok(values.map_or(Operand::Between(None, None), |values| {
        Operand::Value(Value::List(values))
    }))
}

/// As it was written, where no type says more.
fn untyped(json: &Json) -> Value {
    match json {
        Json::Bool(b) => Value::Bool(*b),
        Json::Int(n) => Value::Int(*n),
        Json::Float(x) => Value::Float(*x),
        Json::Str(s) => Value::Str(Arc::clone(s)),
        other => Value::Json(Arc::new(other.clone().into_serde())),
    }
}

fn has_order(json: &Json) -> bool {
    matches!(json, Json::Int(_) | Json::UInt(_) | Json::Float(_) | Json::Str(_))
}

fn sorted(mut values: Vec<Value>) -> Vec<Value> {
    values.sort_by(order::compare);
    values.dedup_by(|a, b| order::compare(a, b).is_eq());
    values
}

fn no_null(items: Vec<Json>) -> Result<Vec<Json>, Problem> {
    if items.iter().any(Json::is_null) {
        return Err(Problem::new(Code::TypeMismatch, "no list holds null"));
    }
    Ok(items)
}

fn text(operand: &Json) -> Result<Arc<str>, Problem> {
    match operand {
        Json::Str(s) => Ok(Arc::clone(s)),
        other => Err(wrong("the operator takes a string", other)),
    }
}

fn wrong(expected: &str, found: &Json) -> Problem {
    Problem::new(Code::TypeMismatch, format!("{expected}, not {}", found.kind()))
}
