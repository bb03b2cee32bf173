//! One spelling per filter, so that a cache finds what was asked before.
//!
//! Two filters of one key mean the same.  The converse is only tried for: the order and
//! repetition of `$and` and `$or` say nothing, nor does a double `$not`.

use std::sync::Arc;

use super::{Filter, Leaf, Path, Test};
use crate::value::{Value, Vector};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilterKey(Arc<[u8]>);

impl FilterKey {
    pub fn heap_size(&self) -> usize {
        self.0.len() + 16
    }
}

impl Filter {
    /// O(its text).  A pattern is its text: nothing here compiles one with other flags.
    pub fn key(&self) -> FilterKey {
        let mut spelling = Vec::with_capacity(64);
        spell(self, &mut spelling);
        FilterKey(spelling.into())
    }
}

const AND: u8 = 0;
const OR: u8 = 1;
const NOT: u8 = 2;
const LEAF: u8 = 3;

fn spell(filter: &Filter, to: &mut Vec<u8>) {
    match filter {
        Filter::And(_) => spell_set(AND, filter, to),
        Filter::Or(_) => spell_set(OR, filter, to),
        Filter::Not(inner) => match inner.as_ref() {
            Filter::Not(twice) => spell(twice, to),
            inner => {
                to.push(NOT);
                spell(inner, to);
            }
        },
        Filter::Leaf(leaf) => {
            to.push(LEAF);
            spell_leaf(leaf, to);
        }
    }
}

/// `a and (b and a)` is `a and b`.
fn spell_set(tag: u8, filter: &Filter, to: &mut Vec<u8>) {
    let mut members = Vec::new();
    collect(tag, filter, &mut members);
    members.sort_unstable();
    members.dedup();
    match members.as_slice() {
        [one] => to.extend_from_slice(one),
        members => {
            to.push(tag);
            spell_length(members.len(), to);
            members.iter().for_each(|member| spell_bytes(member, to));
        }
    }
}

fn collect(tag: u8, filter: &Filter, members: &mut Vec<Vec<u8>>) {
    match (tag, filter) {
        (AND, Filter::And(inner)) | (OR, Filter::Or(inner)) => {
            inner.iter().for_each(|filter| collect(tag, filter, members));
        }
        (_, other) => {
            let mut member = Vec::with_capacity(32);
            spell(other, &mut member);
            members.push(member);
        }
    }
}

fn spell_leaf(leaf: &Leaf, to: &mut Vec<u8>) {
    match &leaf.path {
        Path::Id => to.push(0),
        Path::Field(name) => {
            to.push(1);
            spell_bytes(name.as_str().as_bytes(), to);
        }
        Path::Json(name, steps) => {
            to.push(2);
            spell_bytes(name.as_str().as_bytes(), to);
            spell_length(steps.len(), to);
            steps.iter().for_each(|step| spell_bytes(step.as_bytes(), to));
        }
    }
    spell_test(&leaf.test, to);
}

fn spell_test(test: &Test, to: &mut Vec<u8>) {
    let mut one = |tag, value| {
        to.push(tag);
        spell_value(value, to);
    };
    match test {
        Test::Eq(value) => one(0, value),
        Test::Ne(value) => one(1, value),
        Test::Lt(value) => one(2, value),
        Test::Lte(value) => one(3, value),
        Test::Gt(value) => one(4, value),
        Test::Gte(value) => one(5, value),
        Test::In(values) => spell_values(6, values, to),
        Test::NotIn(values) => spell_values(7, values, to),
        Test::ContainsAny(values) => spell_values(8, values, to),
        Test::ContainsAll(values) => spell_values(9, values, to),
        Test::Exists(wanted) => to.extend([10, u8::from(*wanted)]),
        Test::Prefix(prefix) => {
            to.push(11);
            spell_bytes(prefix.as_bytes(), to);
        }
        Test::Matches(pattern) => {
            to.push(12);
            spell_bytes(pattern.as_str().as_bytes(), to);
        }
    }
}

fn spell_values(tag: u8, values: &[Value], to: &mut Vec<u8>) {
    to.push(tag);
    spell_length(values.len(), to);
    values.iter().for_each(|value| spell_value(value, to));
}

fn spell_value(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Bool(value) => to.extend([0, u8::from(*value)]),
        Value::Int(value) => {
            to.push(1);
            to.extend(value.to_le_bytes());
        }
        Value::Float(value) => {
            to.push(2);
            to.extend(value.to_bits().to_le_bytes());
        }
        Value::Str(value) => {
            to.push(3);
            spell_bytes(value.as_bytes(), to);
        }
        Value::Time(value) => {
            to.push(4);
            to.extend(value.to_le_bytes());
        }
        Value::List(values) => spell_values(5, values, to),
        Value::Json(json) => {
            to.push(6);
            spell_bytes(json.to_string().as_bytes(), to);
        }
        // No test compares vectors; each element type still has its own spelling.
        Value::Vector(Vector::F32(vector)) => {
            to.push(7);
            spell_length(vector.len(), to);
            vector.iter().for_each(|x| to.extend(x.to_bits().to_le_bytes()));
        }
        Value::Vector(Vector::I8(vector)) => {
            to.push(8);
            spell_length(vector.len(), to);
            to.extend(vector.iter().map(|x| x.to_le_bytes()[0]));
        }
        Value::Vector(Vector::Bits(vector)) => {
            to.push(9);
            spell_bytes(vector, to);
        }
        Value::Sparse(vector) => {
            to.push(10);
            spell_length(vector.elements().len(), to);
            for (index, value) in vector.elements() {
                to.extend(index.to_le_bytes());
                to.extend(value.to_bits().to_le_bytes());
            }
        }
    }
}

fn spell_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    spell_length(bytes.len(), to);
    to.extend_from_slice(bytes);
}

fn spell_length(length: usize, to: &mut Vec<u8>) {
    to.extend((length as u64).to_le_bytes());
}
