//! Documents, filters and queries out of small numbers, so that values repeat and tie.

use std::sync::Arc;

use rhumb_core::filter::{Leaf, Path, Test};
use rhumb_core::order::compare;
use rhumb_core::{
    DocId, Document, Element, Field, FieldType, Filter, Metric, Scalar, Schema, Value, Vector, VectorIndex,
    VectorType,
};

use super::name;

/// Splitmix: a stream of numbers from a seed.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

pub const VECTORS: [(&str, u32, Metric, Element); 7] = [
    ("cosine", 5, Metric::Cosine, Element::F32),
    ("dot", 33, Metric::Dot, Element::F16),
    ("l2", 4, Metric::L2, Element::F32),
    ("small", 7, Metric::Cosine, Element::Int8),
    ("small_l2", 3, Metric::L2, Element::Int8),
    ("bits", 11, Metric::Hamming, Element::Binary),
    (LISTED, 64, Metric::L2, Element::F32),
];

/// The field that has lists.
pub const LISTED: &str = "listed";

const SCALARS: [(&str, Scalar); 5] = [
    ("pos", Scalar::String),
    ("lex", Scalar::Int),
    ("price", Scalar::Float),
    ("live", Scalar::Bool),
    ("at", Scalar::Timestamp),
];

pub fn schema() -> Schema {
    let mut schema = Schema::default();
    let mut add = |field: &str, ty: FieldType| {
        schema.fields.insert(name(field), Field { ty, declared: true });
    };
    for (field, dim, metric, element) in VECTORS {
        add(
            field,
            FieldType::Vector(VectorType {
                dim,
                metric,
                element,
                index: VectorIndex::Auto,
            }),
        );
    }
    for (field, scalar) in SCALARS {
        add(field, FieldType::Scalar(scalar));
    }
    add(
        "gloss",
        FieldType::Text {
            language: "english".into(),
        },
    );
    add("tags", FieldType::List(Scalar::String));
    add("counts", FieldType::List(Scalar::Int));
    add("extra", FieldType::Json);
    schema
}

/// Strings or numbers, in an order unlike their index's.
pub fn id(numbers: bool, index: u64) -> DocId {
    match numbers {
        true => DocId::from(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        false => DocId::from(
            format!(
                "{}{}",
                ["doc", "d", "é", ""][index as usize % 4],
                index * 7919 % 1000
            )
            .as_str(),
        ),
    }
}

fn scalar(numbers: &mut Numbers, scalar: Scalar) -> Value {
    let n = numbers.below(6) as i64;
    match scalar {
        Scalar::Bool => Value::Bool(n % 2 == 0),
        Scalar::Int => Value::Int([i64::MIN, -2, 0, 1, 7, i64::MAX][n as usize]),
        Scalar::Float => Value::Float([-1.5, -0.0, 0.0, 0.5, 1e300, 2.0][n as usize]),
        Scalar::String => Value::Str(["n", "v", "noun", "", "adverb", "é"][n as usize].into()),
        Scalar::Timestamp => Value::Time([-5, 0, 1_700_000_000_000, 3, 4, 5][n as usize]),
    }
}

pub fn vector(numbers: &mut Numbers, dim: u32, element: Element) -> Vector {
    let size = [0.0, 1.0, 1.0, 1.0, 1e-3, 1e18][numbers.below(6) as usize];
    let coarse = numbers.below(2) == 0;
    match element {
        Element::F32 | Element::F16 => {
            let mut number = || {
                if coarse {
                    (numbers.below(3) as f32 - 1.0) * size
                } else {
                    numbers.unit() * size
                }
            };
            Vector::F32((0..dim).map(|_| number()).collect())
        }
        Element::Int8 => {
            let mut number = || {
                if coarse {
                    numbers.below(3) as i8 - 1
                } else {
                    numbers.next() as i8
                }
            };
            Vector::I8((0..dim).map(|_| number()).collect())
        }
        Element::Binary => {
            let mut bytes: Vec<u8> = (0..dim.div_ceil(8)).map(|_| numbers.next() as u8).collect();
            if let Some(last) = bytes.last_mut()
                && !dim.is_multiple_of(8)
            {
                *last &= !(0xff >> (dim % 8));
            }
            Vector::Bits(bytes.into())
        }
    }
}

fn json(numbers: &mut Numbers) -> serde_json::Value {
    match numbers.below(5) {
        0 => serde_json::json!({"color": "red", "size": 3}),
        1 => serde_json::json!({"color": "blue", "deep": {"er": [1, 2.5]}}),
        2 => serde_json::json!({"color": null, "size": 3.0}),
        3 => serde_json::json!([{"color": "red"}]),
        _ => serde_json::json!({}),
    }
}

/// Each field is there two times of three.
pub fn document(seed: u64) -> Arc<Document> {
    let mut numbers = Numbers(seed);
    let mut fields = Vec::new();
    for (field, dim, _, element) in VECTORS {
        let value = Value::Vector(vector(&mut numbers, dim, element));
        fields.push((field, value));
    }
    for (field, kind) in SCALARS {
        fields.push((field, scalar(&mut numbers, kind)));
    }
    let gloss = format!("gloss {}", numbers.below(1_000_000));
    fields.push(("gloss", Value::Str(gloss.as_str().into())));
    let list = |numbers: &mut Numbers, kind| {
        Value::List((0..numbers.below(4)).map(|_| scalar(numbers, kind)).collect())
    };
    fields.push(("tags", list(&mut numbers, Scalar::String)));
    fields.push(("counts", list(&mut numbers, Scalar::Int)));
    fields.push(("extra", Value::Json(Arc::new(json(&mut numbers)))));
    fields.retain(|_| numbers.below(3) > 0);
    Arc::new(Document::from_fields(
        fields
            .into_iter()
            .map(|(field, value)| (name(field), value))
            .collect(),
    ))
}

fn leaf(path: Path, test: Test) -> Filter {
    Filter::Leaf(Leaf { path, test })
}

fn some(numbers: &mut Numbers, kind: Scalar) -> Vec<Value> {
    let mut values: Vec<Value> = (0..numbers.below(4)).map(|_| scalar(numbers, kind)).collect();
    values.sort_by(compare);
    values.dedup_by(|a, b| compare(a, b).is_eq());
    values
}

fn scalar_test(numbers: &mut Numbers, kind: Scalar) -> Test {
    let value = scalar(numbers, kind);
    match numbers.below(if kind == Scalar::Bool {
        5
    } else if kind == Scalar::String {
        11
    } else {
        9
    }) {
        0 => Test::Eq(value),
        1 => Test::Ne(value),
        2 => Test::In(some(numbers, kind)),
        3 => Test::NotIn(some(numbers, kind)),
        4 => Test::Exists(numbers.below(2) == 0),
        5 => Test::Lt(value),
        6 => Test::Lte(value),
        7 => Test::Gt(value),
        8 => Test::Gte(value),
        9 => Test::Prefix(["n", "", "ad"][numbers.below(3) as usize].into()),
        _ => Test::Matches(
            regex::Regex::new(["^n", "v", "oun$"][numbers.below(3) as usize]).expect("a pattern"),
        ),
    }
}

fn list_test(numbers: &mut Numbers, kind: Scalar) -> Test {
    match numbers.below(5) {
        0 => Test::ContainsAny(some(numbers, kind)),
        1 => Test::ContainsAll(some(numbers, kind)),
        2 => Test::Exists(numbers.below(2) == 0),
        3 => Test::Eq(Value::List(some(numbers, kind))),
        _ => Test::Ne(Value::List(some(numbers, kind))),
    }
}

fn json_leaf(numbers: &mut Numbers) -> Filter {
    let steps: &[&str] = [
        &["color"][..],
        &["size"],
        &["deep", "er"],
        &["deep", "er", "1"],
        &["0", "color"],
    ][numbers.below(5) as usize];
    let path = Path::Json(name("extra"), steps.iter().map(|step| Arc::from(*step)).collect());
    let test = match numbers.below(6) {
        0 => Test::Eq(Value::Str("red".into())),
        1 => Test::Ne(Value::Int(3)),
        2 => Test::Gte(Value::Float(2.5)),
        3 => Test::Exists(numbers.below(2) == 0),
        4 => Test::ContainsAny(vec![Value::Int(1)]),
        _ => Test::In(vec![Value::Int(3), Value::Str("blue".into())]),
    };
    leaf(path, test)
}

pub fn filter(numbers: &mut Numbers, depth: u32) -> Filter {
    let several = |numbers: &mut Numbers| {
        (0..numbers.below(4))
            .map(|_| filter(numbers, depth - 1))
            .collect()
    };
    match numbers.below(if depth == 0 { 7 } else { 10 }) {
        0 => leaf(Path::Field(name("tags")), list_test(numbers, Scalar::String)),
        1 => leaf(Path::Field(name("counts")), list_test(numbers, Scalar::Int)),
        2 => json_leaf(numbers),
        3 => {
            let field = VECTORS[numbers.below(6) as usize].0;
            leaf(Path::Field(name(field)), Test::Exists(numbers.below(2) == 0))
        }
        4 => {
            let test = match numbers.below(4) {
                0 => Test::Gt(Value::Str("doc4".into())),
                1 => Test::Prefix("d".into()),
                2 => Test::Lt(Value::Int(i64::MAX)),
                _ => Test::In(vec![Value::Str("d919".into()), Value::Str("doc676".into())]),
            };
            leaf(Path::Id, test)
        }
        5 | 6 => {
            let (field, kind) = SCALARS[numbers.below(5) as usize];
            leaf(Path::Field(name(field)), scalar_test(numbers, kind))
        }
        7 => Filter::And(several(numbers)),
        8 => Filter::Or(several(numbers)),
        _ => Filter::Not(Box::new(filter(numbers, depth - 1))),
    }
}
