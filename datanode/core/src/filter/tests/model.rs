//! Random filters on random documents: both ways of writing one are evaluated as a naive
//! reading of the contract evaluates it on the raw JSON.

use proptest::prelude::*;
use serde_json::{Value as Raw, json};

use super::*;

#[derive(Clone, Debug)]
enum Model {
    And(Vec<Model>),
    Or(Vec<Model>),
    Not(Box<Model>),
    Leaf(&'static str, Check),
}

#[derive(Clone, Debug)]
enum Check {
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`
    Compare(&'static str, Raw),
    In(bool, Vec<Raw>),
    Any(Vec<Raw>),
    All(Vec<Raw>),
    Exists(bool),
    Prefix(String),
    Glob(String),
}

const OPERATORS: [(&str, &str); 6] = [
    ("=", "$eq"),
    ("!=", "$ne"),
    ("<", "$lt"),
    ("<=", "$lte"),
    (">", "$gt"),
    (">=", "$gte"),
];

impl Model {
    fn json(&self) -> Raw {
        match self {
            Self::And(all) => json!({"$and": all.iter().map(Self::json).collect::<Vec<_>>()}),
            Self::Or(any) => json!({"$or": any.iter().map(Self::json).collect::<Vec<_>>()}),
            Self::Not(inner) => json!({"$not": inner.json()}),
            Self::Leaf(path, check) => json!({*path: check.json()}),
        }
    }

    fn sql(&self) -> String {
        let joined = |parts: &[Self], word: &str| {
            let parts: Vec<String> = parts.iter().map(Self::sql).collect();
            format!("({})", parts.join(word))
        };
        match self {
            Self::And(all) => joined(all, " AND "),
            Self::Or(any) => joined(any, " or "),
            Self::Not(inner) => format!("Not {}", inner.sql()),
            Self::Leaf(path, check) => check.sql(path),
        }
    }

    fn matches(&self, document: &Raw) -> bool {
        match self {
            Self::And(all) => all.iter().all(|m| m.matches(document)),
            Self::Or(any) => any.iter().any(|m| m.matches(document)),
            Self::Not(inner) => !inner.matches(document),
            Self::Leaf(path, check) => {
                let value = path.split('.').try_fold(document, |json, step| json.get(step));
                check.matches(value.filter(|value| !value.is_null()))
            }
        }
    }
}

impl Check {
    fn json(&self) -> Raw {
        match self {
            Self::Compare("=", operand) if !operand.is_object() => operand.clone(),
            Self::Compare(op, operand) => {
                let (_, name) = OPERATORS.iter().find(|(sql, _)| sql == op).expect("one of them");
                json!({*name: operand})
            }
            Self::In(true, items) => json!({"$in": items}),
            Self::In(false, items) => json!({"$nin": items}),
            Self::Any(items) if items.len() == 1 => json!({"$contains": items[0]}),
            Self::Any(items) => json!({"$contains_any": items}),
            Self::All(items) => json!({"$contains_all": items}),
            Self::Exists(wanted) => json!({"$exists": wanted}),
            Self::Prefix(prefix) => json!({"$prefix": prefix}),
            Self::Glob(pattern) => json!({"$glob": pattern}),
        }
    }

    fn sql(&self, path: &str) -> String {
        let each = |items: &[Raw], word: &str| {
            let items: Vec<String> = items
                .iter()
                .map(|i| format!("{path} HAS {}", literal(i)))
                .collect();
            format!("({})", items.join(word))
        };
        match self {
            Self::Compare(op, operand) => format!("{path}{op}{}", literal(operand)),
            Self::In(wanted, items) => {
                let items: Vec<String> = items.iter().map(literal).collect();
                format!(
                    "{path} {} ({})",
                    if *wanted { "IN" } else { "not in" },
                    items.join(", ")
                )
            }
            Self::Any(items) => each(items, " OR "),
            Self::All(items) => each(items, " AND "),
            Self::Exists(wanted) => format!("{path} IS {}NULL", if *wanted { "NOT " } else { "" }),
            Self::Prefix(prefix) => format!("{path} LIKE {}", literal(&json!(like(prefix) + "%"))),
            Self::Glob(pattern) => {
                format!(
                    "{path} LIKE {}",
                    literal(&json!(like(pattern).replace('*', "%").replace('?', "_")))
                )
            }
        }
    }

    fn matches(&self, value: Option<&Raw>) -> bool {
        let Some(value) = value else {
            return matches!(
                self,
                Self::Compare("!=", _) | Self::In(false, _) | Self::Exists(false)
            );
        };
        let items = value.as_array();
        let holds = |wanted: &Raw| items.is_some_and(|items| items.iter().any(|item| same(item, wanted)));
        match self {
            Self::Compare("=", operand) => same(value, operand),
            Self::Compare("!=", operand) => !same(value, operand),
            Self::Compare(op, operand) => match (value, operand) {
                (Raw::Number(a), Raw::Number(b)) => ordered(op, &a.as_f64(), &b.as_f64()),
                (Raw::String(a), Raw::String(b)) => ordered(op, a, b),
                _ => false,
            },
            Self::In(wanted, operands) => operands.iter().any(|o| same(value, o)) == *wanted,
            Self::Any(operands) => operands.iter().any(holds),
            Self::All(operands) => items.is_some() && operands.iter().all(holds),
            Self::Exists(wanted) => *wanted,
            Self::Prefix(prefix) => value.as_str().is_some_and(|s| s.starts_with(prefix.as_str())),
            Self::Glob(pattern) => {
                let chars = |s: &str| s.chars().collect::<Vec<_>>();
                value
                    .as_str()
                    .is_some_and(|s| globbed(&chars(pattern), &chars(s)))
            }
        }
    }
}

/// Small numbers only, so that f64 compares them exactly.
fn same(a: &Raw, b: &Raw) -> bool {
    match (a, b) {
        (Raw::Number(a), Raw::Number(b)) => a.as_f64() == b.as_f64(),
        (Raw::Array(a), Raw::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Raw::Object(a), Raw::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn ordered<T: PartialOrd>(op: &str, a: &T, b: &T) -> bool {
    match op {
        "<" => a < b,
        "<=" => a <= b,
        ">" => a > b,
        _ => a >= b,
    }
}

fn globbed(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => globbed(rest, text) || (!text.is_empty() && globbed(pattern, &text[1..])),
        (['?', rest @ ..], [_, after @ ..]) => globbed(rest, after),
        ([a, rest @ ..], [b, after @ ..]) => a == b && globbed(rest, after),
        _ => false,
    }
}

fn literal(raw: &Raw) -> String {
    match raw {
        Raw::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

fn like(plain: &str) -> String {
    plain.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_")
}

fn text() -> impl Strategy<Value = String> {
    "[ab%_'\\\\ö]{0,3}"
}

fn number() -> impl Strategy<Value = Raw> {
    prop_oneof![
        (-3..3).prop_map(|n| json!(n)),
        (-6..6).prop_map(|n| json!(f64::from(n) / 2.0))
    ]
}

fn time() -> impl Strategy<Value = Raw> {
    (0..4_i64).prop_map(|n| json!(crate::time::format(n * 1_000)))
}

fn inside() -> impl Strategy<Value = Raw> {
    let scalar = prop_oneof![
        number(),
        text().prop_map(Raw::from),
        any::<bool>().prop_map(Raw::from),
        Just(Raw::Null)
    ];
    scalar.prop_recursive(2, 6, 3, |inner| {
        prop::collection::vec(inner, 0..3).prop_map(Raw::from)
    })
}

fn document() -> impl Strategy<Value = Raw> {
    let fields = (
        prop::option::of(text().prop_map(Raw::from)),
        prop::option::of((-3..3).prop_map(Raw::from)),
        prop::option::of(number()),
        prop::option::of(any::<bool>().prop_map(Raw::from)),
        prop::option::of(time()),
        prop::option::of(prop::collection::vec(text(), 0..3).prop_map(Raw::from)),
        prop::option::of(prop::collection::vec(number(), 0..3).prop_map(Raw::from)),
        prop::option::of(
            (prop::option::of(inside()), prop::option::of(inside()))
                .prop_map(|(a, b)| json!({"a": a, "b": {"c": b}})),
        ),
    );
    ("[ab]{1,2}", fields).prop_map(|(id, (pos, lex, price, live, at, tags, sizes, extra))| {
        json!({"id": id, "pos": pos, "gloss": pos, "lex": lex, "price": price, "live": live, "at": at,
               "tags": tags, "sizes": sizes, "extra": extra})
    })
}

fn comparison() -> impl Strategy<Value = &'static str> {
    prop::sample::select(OPERATORS.map(|(sql, _)| sql).to_vec())
}

fn check(operand: BoxedStrategy<Raw>) -> BoxedStrategy<Check> {
    prop_oneof![
        (comparison(), operand.clone()).prop_map(|(op, operand)| Check::Compare(op, operand)),
        (any::<bool>(), prop::collection::vec(operand, 1..4))
            .prop_map(|(wanted, items)| Check::In(wanted, items)),
        any::<bool>().prop_map(Check::Exists),
    ]
    .boxed()
}

fn contains(operand: BoxedStrategy<Raw>) -> BoxedStrategy<Check> {
    prop_oneof![
        prop::collection::vec(operand.clone(), 1..3).prop_map(Check::Any),
        prop::collection::vec(operand, 1..3).prop_map(Check::All),
        any::<bool>().prop_map(Check::Exists),
    ]
    .boxed()
}

fn pattern() -> BoxedStrategy<Check> {
    prop_oneof![
        text().prop_map(Check::Prefix),
        "[ab*?%_\\\\ö]{0,4}".prop_map(Check::Glob)
    ]
    .boxed()
}

fn leaf() -> impl Strategy<Value = Model> {
    let at = |paths: &[&'static str], check: BoxedStrategy<Check>| {
        (prop::sample::select(paths.to_vec()), check).prop_map(|(path, check)| Model::Leaf(path, check))
    };
    let texts = text().prop_map(Raw::from).boxed();
    let bools = any::<bool>().prop_map(Raw::from).boxed();
    let equal = |operand: BoxedStrategy<Raw>| {
        (prop::sample::select(vec!["=", "!="]), operand)
            .prop_map(|(op, operand)| Check::Compare(op, operand))
            .boxed()
    };
    let json_scalar = prop_oneof![number(), text().prop_map(Raw::from)].boxed();
    prop_oneof![
        at(&["pos", "gloss", "id"], check(texts.clone())),
        at(&["pos", "gloss", "id", "extra.a"], pattern()),
        at(&["lex", "price"], check(number().boxed())),
        at(&["live", "extra.a", "extra.b.c"], equal(bools)),
        at(&["at"], check(time().boxed())),
        at(&["tags"], contains(texts)),
        at(&["sizes"], contains(number().boxed())),
        at(&["extra.a", "extra.b.c"], check(json_scalar.clone())),
        at(&["extra.a", "extra.b.c"], contains(json_scalar)),
        at(
            &["extra", "extra.b", "embedding"],
            any::<bool>().prop_map(Check::Exists).boxed()
        ),
    ]
}

fn model() -> impl Strategy<Value = Model> {
    leaf().prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Model::And),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Model::Or),
            inner.prop_map(|m| Model::Not(Box::new(m))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn both_ways_of_writing_a_filter_mean_what_the_contract_says(
        model in model(), documents in prop::collection::vec(document(), 1..6)
    ) {
        let (schema, limits) = (schema(), Limits::default());
        let by_json = Filter::parse_json(&Json::from(model.json()), &schema, &limits);
        let by_json = by_json.map_err(|p| TestCaseError::fail(format!("{}: {p}", model.json())))?;
        let by_sql = Filter::parse_sql(&model.sql(), &schema, &limits);
        let by_sql = by_sql.map_err(|p| TestCaseError::fail(format!("{}: {p}", model.sql())))?;
        for raw in documents {
            let expected = model.matches(&raw);
            let (id, document) = Typer::new(&schema, &limits).row(Json::from(raw.clone())).expect("it fits");
            prop_assert_eq!(by_json.matches(&id, &document), expected, "{} on {}", model.json(), raw);
            prop_assert_eq!(by_sql.matches(&id, &document), expected, "{} on {}", model.sql(), raw);
            for leaf in by_json.leaves() {
                columns_agree(leaf, &id, &document)?;
            }
        }
    }

    #[test]
    fn any_text_is_a_filter_or_a_problem(text in "[a-z'\"()., =<>!0-9-]{0,24}|(lex|pos|tags|AND|OR|NOT|IN|=|'a'|3|\\(|\\)| ){0,12}") {
        let parsed = Filter::parse_sql(&text, &schema(), &Limits::default());
        if let Err(problem) = parsed {
            prop_assert!(!problem.detail.is_empty());
        }
    }
}

/// What a column says about a value is what the document says.
fn columns_agree(leaf: &Leaf, id: &DocId, document: &Document) -> Result<(), TestCaseError> {
    let Path::Field(name) = &leaf.path else {
        return Ok(());
    };
    let by_column = match document.get(name.as_str()) {
        None => leaf.test.matches_missing(),
        Some(Value::Bool(b)) => leaf.test.matches_bool(*b),
        Some(Value::Int(n)) => leaf.test.matches_int(*n),
        Some(Value::Float(x)) => leaf.test.matches_float(*x),
        Some(Value::Str(s)) => leaf.test.matches_str(s),
        Some(Value::Time(ms)) => leaf.test.matches_time(*ms),
        Some(Value::List(items)) => leaf.test.matches_list(items),
        Some(Value::Json(json)) => leaf.test.matches_json(Some(json)),
        Some(Value::Vector(_) | Value::Sparse(_)) => return Ok(()),
    };
    prop_assert_eq!(by_column, leaf.matches(id, document));
    Ok(())
}
