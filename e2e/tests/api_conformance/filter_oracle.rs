//! Random documents under random filters, written in both syntaxes, against an evaluator
//! of ten lines.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rhumb_e2e::client::escape;
use rhumb_e2e::{Suite, seed};
use serde_json::{Value, json};

use crate::{documents, query};

const ROWS: u64 = 300;
const FILTERS: usize = 400;

#[tokio::test]
async fn random_filters_agree_with_the_evaluator() {
    let t = Suite::start("filter_oracle").await;
    let seed = seed();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let fields = json!({"s": "string", "i": "int", "f": "float", "b": "bool", "l": ["string"], "v": {"type": "vector", "dim": 1, "metric": "dot"}});
    t.create("random", json!({"fields": fields, "partitions": 2}))
        .await;
    let rows: Vec<Value> = (0..ROWS).map(|id| random_row(&mut rng, id)).collect();
    for part in rows.chunks(100) {
        t.write("random", json!({"upsert": part})).await;
    }
    for n in 0..FILTERS {
        if n == FILTERS / 2 {
            t.client().optimize("random").await.expect("optimize works");
        }
        let filter = Node::random(&mut rng, 3);
        let ids: Vec<String> = rows
            .iter()
            .filter(|row| filter.matches(row))
            .map(|row| row["id"].to_string())
            .collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        for form in [filter.json(), json!(filter.sql())] {
            let text = form.as_str().map_or_else(|| form.to_string(), str::to_owned);
            t.case(format!("scan {text}"))
                .get(&format!(
                    "{}?limit=10000&filter={}",
                    documents("random"),
                    escape(&text)
                ))
                .await
                .status(200)
                .ids("/documents", &ids);
            t.case(format!("query {text}"))
                .post(
                    &query("random"),
                    json!({"vector": [1], "k": 10_000, "filter": form}),
                )
                .await
                .status(200)
                .ids("/hits", &ids);
        }
    }
    t.finish().await;
}

const TEXTS: [&str; 6] = ["", "a", "ab", "b", "é", "a'b"];

fn random_row(rng: &mut StdRng, id: u64) -> Value {
    let mut row = json!({"id": id, "v": [1]});
    if rng.random_bool(0.8) {
        row["s"] = json!(TEXTS.choose(rng));
    }
    if rng.random_bool(0.8) {
        row["i"] = json!(rng.random_range(-3..4));
    }
    if rng.random_bool(0.8) {
        row["f"] = json!(f64::from(rng.random_range(-6..7)) / 4.0);
    }
    if rng.random_bool(0.8) {
        row["b"] = json!(rng.random_bool(0.5));
    }
    if rng.random_bool(0.8) {
        let count = rng.random_range(0..3);
        row["l"] = (0..count).map(|_| json!(TEXTS.choose(rng))).collect();
    }
    row
}

enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Leaf {
        field: &'static str,
        test: &'static str,
        operands: Vec<Value>,
    },
}

impl Node {
    fn random(rng: &mut StdRng, depth: usize) -> Self {
        let children = |rng: &mut StdRng| {
            let count = rng.random_range(1..4);
            (0..count).map(|_| Self::random(rng, depth - 1)).collect()
        };
        match rng.random_range(0..7) {
            0 | 1 if depth > 0 => Self::And(children(rng)),
            2 | 3 if depth > 0 => Self::Or(children(rng)),
            4 if depth > 0 => Self::Not(Box::new(Self::random(rng, depth - 1))),
            _ => Self::random_leaf(rng),
        }
    }

    fn random_leaf(rng: &mut StdRng) -> Self {
        let field = *["id", "s", "i", "f", "b", "l"].choose(rng).expect("not empty");
        let tests: &[&str] = match field {
            "l" => &["$contains", "$exists", "$missing"],
            "b" => &["=", "!=", "$in", "$exists", "$missing"],
            _ => &["=", "!=", "<", "<=", ">", ">=", "$in", "$exists", "$missing"],
        };
        let test = *tests.choose(rng).expect("not empty");
        let count = match test {
            "$in" => rng.random_range(1..4),
            "$exists" | "$missing" => 0,
            _ => 1,
        };
        Self::Leaf {
            field,
            test,
            operands: (0..count).map(|_| operand(rng, field)).collect(),
        }
    }

    fn matches(&self, row: &Value) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.matches(row)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(row)),
            Self::Not(node) => !node.matches(row),
            Self::Leaf {
                field,
                test,
                operands,
            } => {
                let value = row.get(*field).filter(|value| !value.is_null());
                leaf_matches(value, test, operands)
            }
        }
    }

    fn json(&self) -> Value {
        let all = |nodes: &[Node]| -> Value { nodes.iter().map(Self::json).collect() };
        match self {
            Self::And(nodes) => json!({"$and": all(nodes)}),
            Self::Or(nodes) => json!({"$or": all(nodes)}),
            Self::Not(node) => json!({"$not": node.json()}),
            Self::Leaf {
                field,
                test,
                operands,
            } => {
                let condition = match *test {
                    "=" => operands[0].clone(),
                    "!=" => json!({"$ne": operands[0]}),
                    "<" => json!({"$lt": operands[0]}),
                    "<=" => json!({"$lte": operands[0]}),
                    ">" => json!({"$gt": operands[0]}),
                    ">=" => json!({"$gte": operands[0]}),
                    "$in" => json!({"$in": operands}),
                    "$contains" => json!({"$contains": operands[0]}),
                    _ => json!({"$exists": *test == "$exists"}),
                };
                json!({*field: condition})
            }
        }
    }

    /// Parentheses only where precedence needs them, so that precedence is tested.
    fn sql(&self) -> String {
        let join = |nodes: &[Node], word: &str| -> String {
            let parts: Vec<String> = nodes.iter().map(|node| node.sql_within(self)).collect();
            parts.join(word)
        };
        match self {
            Self::And(nodes) => join(nodes, " AND "),
            Self::Or(nodes) => join(nodes, " or "),
            Self::Not(node) => format!("NOT {}", node.sql_within(self)),
            Self::Leaf {
                field,
                test,
                operands,
            } => {
                let texts: Vec<String> = operands.iter().map(sql_literal).collect();
                match *test {
                    "$in" => format!("{field} IN ({})", texts.join(", ")),
                    "$contains" => format!("{field} HAS {}", texts[0]),
                    "$exists" => format!("{field} IS NOT NULL"),
                    "$missing" => format!("{field} is null"),
                    comparison => format!("{field} {comparison} {}", texts[0]),
                }
            }
        }
    }

    fn sql_within(&self, outer: &Self) -> String {
        let binds = |node: &Self| match node {
            Self::Or(_) => 0,
            Self::And(_) => 1,
            Self::Not(_) => 2,
            Self::Leaf { .. } => 3,
        };
        if binds(self) < binds(outer) {
            format!("({})", self.sql())
        } else {
            self.sql()
        }
    }
}

fn operand(rng: &mut StdRng, field: &str) -> Value {
    match field {
        "id" => json!(rng.random_range(0..ROWS + 5)),
        "s" | "l" => json!(TEXTS.choose(rng)),
        "i" => json!(rng.random_range(-4..5)),
        "f" => json!(f64::from(rng.random_range(-7..8)) / 4.0),
        _ => json!(rng.random_bool(0.5)),
    }
}

fn leaf_matches(value: Option<&Value>, test: &str, operands: &[Value]) -> bool {
    let Some(value) = value else {
        return matches!(test, "!=" | "$missing");
    };
    let order = |operand: &Value| match (value, operand) {
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
    };
    match test {
        "=" => order(&operands[0]).is_eq(),
        "!=" => order(&operands[0]).is_ne(),
        "<" => order(&operands[0]).is_lt(),
        "<=" => order(&operands[0]).is_le(),
        ">" => order(&operands[0]).is_gt(),
        ">=" => order(&operands[0]).is_ge(),
        "$in" => operands.iter().any(|operand| order(operand).is_eq()),
        "$contains" => value.as_array().is_some_and(|items| items.contains(&operands[0])),
        other => other == "$exists",
    }
}

fn sql_literal(value: &Value) -> String {
    value.as_str().map_or_else(
        || value.to_string(),
        |text| format!("'{}'", text.replace('\'', "''")),
    )
}
