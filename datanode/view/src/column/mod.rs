//! One field of one segment by ordinal, for filters, sorting and aggregates.
//!
//! Columns hold values, not documents: whatever an answer shows is read from the base.
//! Vectors have only their presence here.

mod builder;
mod eval;
#[cfg(test)]
mod tests;

pub use builder::ColumnBuilder;

use std::sync::Arc;

use rhumb_core::Value;
use rhumb_core::order::{Num, Seen};

use crate::bits::Bits;
use crate::keys::Arena;

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

/// By ordinal; rows without the field hold a zero.
#[derive(Debug)]
enum Data {
    /// Only presence is known: vectors, and fields that no row has.
    Nothing,
    Bool(Bits),
    Int(Vec<i64>),
    /// Milliseconds since 1970.
    Time(Vec<i64>),
    Float(Vec<f64>),
    /// Few distinct strings.
    Dictionary {
        codes: DictionaryCodes,
        entries: Vec<Arc<str>>,
    },
    Text(Arena),
    /// `ends[i]` is the end of row i's items.
    List {
        ends: Vec<u32>,
        items: Box<Column>,
    },
    /// As text, parsed when asked: a parsed tree takes many times the room.
    Json(Arena),
}

#[derive(Debug)]
enum DictionaryCodes {
    Byte(Vec<u8>),
    Short(Vec<u16>),
}

impl DictionaryCodes {
    fn get(&self, at: usize) -> usize {
        match self {
            Self::Byte(codes) => usize::from(codes[at]),
            Self::Short(codes) => usize::from(codes[at]),
        }
    }
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
        match &self.present {
            Presence::Everywhere => ordinal < self.rows,
            Presence::Nowhere => false,
            Presence::Some(bits) => bits.get(ordinal as usize),
        }
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
            Data::Int(values) => Some(Value::Int(values[at])),
            Data::Time(values) => Some(Value::Time(values[at])),
            Data::Float(values) => Some(Value::Float(values[at])),
            Data::Dictionary { codes, entries } => Some(Value::Str(entries[codes.get(at)].clone())),
            Data::Text(arena) => Some(Value::Str(arena.get(at).into())),
            Data::List { ends, items } => {
                let items = span(ends, at).filter_map(|item| items.value(item as u32));
                Some(Value::List(items.collect()))
            }
            Data::Json(arena) => Some(Value::Json(Arc::new(parse(arena.get(at))))),
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
                Data::Int(values) | Data::Time(values) => values.capacity() * size_of::<i64>(),
                Data::Float(values) => values.capacity() * size_of::<f64>(),
                Data::Dictionary { codes, entries } => {
                    let codes = match codes {
                        DictionaryCodes::Byte(codes) => codes.capacity(),
                        DictionaryCodes::Short(codes) => codes.capacity() * size_of::<u16>(),
                    };
                    codes + entries.iter().map(|entry| 32 + entry.len()).sum::<usize>()
                }
                Data::Text(arena) | Data::Json(arena) => arena.heap_size(),
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
            Data::Int(values) => Some(Seen::Num(Num::Int(values[at]))),
            Data::Time(values) => Some(Seen::Time(values[at])),
            Data::Float(values) => Some(Seen::Num(Num::Float(values[at]))),
            Data::Dictionary { codes, entries } => Some(Seen::Str(&entries[codes.get(at)])),
            Data::Text(arena) => Some(Seen::Str(arena.get(at))),
            Data::Nothing | Data::List { .. } | Data::Json(_) => None,
        }
    }

    /// False for lists, json and vectors.
    pub(crate) fn is_ordered(&self) -> bool {
        match &self.data {
            Data::Nothing => matches!(self.present, Presence::Nowhere),
            Data::List { .. } | Data::Json(_) => false,
            Data::Bool(_)
            | Data::Int(_)
            | Data::Time(_)
            | Data::Float(_)
            | Data::Dictionary { .. }
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
