//! One field of one segment by ordinal, for filters, sorting and aggregates.
//!
//! Columns hold values, not documents: whatever an answer shows is read from the base.
//! Vectors have only their presence here.

mod buckets;
mod builder;
mod eval;
mod lists;
mod narrow;
mod numbers;
mod paths;
mod strings;
#[cfg(test)]
mod tests;

pub use builder::ColumnBuilder;

use std::sync::Arc;

use rhumb_core::Value;
use rhumb_core::order::{Num, Seen};

use crate::bits::Bits;
use crate::keys::Arena;

use numbers::{Numbers, float_of_key, int_of_key};
use paths::Paths;
use strings::{Dictionary, Text};

#[derive(Debug)]
pub struct Column {
    rows: u32,
    present: Presence,
    data: Data,
}

#[derive(Debug)]
enum Presence {
    Everywhere,
    Nowhere,
    Some(Bits),
}

impl Presence {
    fn holds(&self, at: usize) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Nowhere => false,
            Self::Some(bits) => bits.get(at),
        }
    }
}

/// By ordinal; rows without the field hold what means nothing.
#[derive(Debug)]
enum Data {
    /// Only presence is known: vectors, and fields that no row has.
    Nothing,
    Bool(Bits),
    Int(Numbers),
    /// Milliseconds since 1970.
    Time(Numbers),
    Float(Numbers),
    /// Few distinct strings.
    Dictionary(Dictionary),
    Text(Text),
    /// `ends[i]` is the end of row i's items.
    List {
        ends: Vec<u32>,
        items: Box<Column>,
    },
    /// As text, parsed when asked: a parsed tree takes many times the room.
    Json(Arena, Paths),
}

impl Column {
    /// Of a field that no row of the fragment has.
    pub fn missing(rows: u32) -> Self {
        Self {
            rows,
            present: Presence::Nowhere,
            data: Data::Nothing,
        }
    }

    pub fn len(&self) -> u32 {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn is_present(&self, ordinal: u32) -> bool {
        ordinal < self.rows && self.present.holds(ordinal as usize)
    }

    /// `None` for a missing value, and for vectors.
    pub fn value(&self, ordinal: u32) -> Option<Value> {
        if !self.is_present(ordinal) {
            return None;
        }
        let at = ordinal as usize;
        match &self.data {
            Data::Nothing => None,
            Data::Bool(bits) => Some(Value::Bool(bits.get(at))),
            Data::Int(numbers) => Some(Value::Int(int_of_key(numbers.key(at)))),
            Data::Time(numbers) => Some(Value::Time(int_of_key(numbers.key(at)))),
            Data::Float(numbers) => Some(Value::Float(float_of_key(numbers.key(at)))),
            Data::Dictionary(dictionary) => Some(Value::Str(dictionary.get(at).clone())),
            Data::Text(text) => Some(Value::Str(text.get(at).into())),
            Data::List { ends, items } => {
                let items = span(ends, at).filter_map(|item| items.value(item as u32));
                Some(Value::List(items.collect()))
            }
            Data::Json(arena, _) => Some(Value::Json(Arc::new(parse(arena.get(at))))),
        }
    }

    pub fn heap_size(&self) -> usize {
        let present = match &self.present {
            Presence::Some(bits) => bits.heap_size(),
            Presence::Everywhere | Presence::Nowhere => 0,
        };
        present
            + match &self.data {
                Data::Nothing => 0,
                Data::Bool(bits) => bits.heap_size(),
                Data::Int(numbers) | Data::Time(numbers) | Data::Float(numbers) => numbers.heap_size(),
                Data::Dictionary(dictionary) => dictionary.heap_size(),
                Data::Text(text) => text.heap_size(),
                Data::Json(arena, paths) => arena.heap_size() + paths.heap_size(),
                Data::List { ends, items } => {
                    ends.capacity() * size_of::<u32>() + size_of::<Self>() + items.heap_size()
                }
            }
    }

    /// The value without a copy; `None` when it is missing or of a kind without an order
    /// to sort by (`is_ordered`).
    pub(crate) fn seen(&self, ordinal: u32) -> Option<Seen<'_>> {
        if !self.is_present(ordinal) {
            return None;
        }
        let at = ordinal as usize;
        match &self.data {
            Data::Bool(bits) => Some(Seen::Bool(bits.get(at))),
            Data::Int(numbers) => Some(Seen::Num(Num::Int(int_of_key(numbers.key(at))))),
            Data::Time(numbers) => Some(Seen::Time(int_of_key(numbers.key(at)))),
            Data::Float(numbers) => Some(Seen::Num(Num::Float(float_of_key(numbers.key(at))))),
            Data::Dictionary(dictionary) => Some(Seen::Str(dictionary.get(at))),
            Data::Text(text) => Some(Seen::Str(text.get(at))),
            Data::Nothing | Data::List { .. } | Data::Json(..) => None,
        }
    }

    /// False for lists, json and vectors.
    pub(crate) fn is_ordered(&self) -> bool {
        match &self.data {
            Data::Nothing => matches!(self.present, Presence::Nowhere),
            Data::List { .. } | Data::Json(..) => false,
            Data::Bool(_)
            | Data::Int(_)
            | Data::Time(_)
            | Data::Float(_)
            | Data::Dictionary(_)
            | Data::Text(_) => true,
        }
    }
}

fn span(ends: &[u32], at: usize) -> std::ops::Range<usize> {
    let start = if at == 0 { 0 } else { ends[at - 1] };
    start as usize..ends[at] as usize
}

fn parse(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("the builder takes nothing but json")
}
