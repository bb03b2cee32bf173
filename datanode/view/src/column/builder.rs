//! Building a column row by row, from values or straight from typed arrays.

use std::sync::Arc;

use hashbrown::HashTable;
use rhumb_core::{FieldType, Scalar, Value};

use super::numbers::{Numbers, key_of_float, key_of_int};
use super::paths::Paths;
use super::strings::{Dictionary, Text};
use super::{Column, Data, Presence};
use crate::bits::Bits;
use crate::error::ViewError;
use crate::keys::{Arena, MAX_ROWS};

/// Takes the rows of one segment in ordinal order.  After an error it is of no more use.
#[derive(Debug)]
pub struct ColumnBuilder {
    present: Bits,
    data: Building,
}

#[derive(Debug)]
enum Building {
    Nothing,
    Bool(Bits),
    Int(Vec<i64>),
    Time(Vec<i64>),
    Float(Vec<f64>),
    Strings(Strings),
    List {
        ends: Vec<u32>,
        items: Box<ColumnBuilder>,
    },
    Json(Arena),
}

impl ColumnBuilder {
    pub fn new(ty: &FieldType) -> Self {
        let data = match ty {
            FieldType::Vector(_) | FieldType::Sparse => Building::Nothing,
            FieldType::Text { .. } => Building::Strings(Strings::default()),
            FieldType::Scalar(scalar) => Building::of(*scalar),
            FieldType::List(scalar) => {
                let items = Box::new(Self {
                    present: Bits::none(0),
                    data: Building::of(*scalar),
                });
                Building::List {
                    ends: Vec::new(),
                    items,
                }
            }
            FieldType::Json => Building::Json(Arena::default()),
        };
        Self {
            present: Bits::none(0),
            data,
        }
    }

    /// The value must be of the field's type.
    pub fn push(&mut self, value: Option<&Value>) -> Result<(), ViewError> {
        match value {
            None => self.push_missing(),
            Some(Value::Bool(value)) => self.push_bool(*value),
            Some(Value::Int(value)) => self.push_i64(*value),
            Some(Value::Float(value)) => self.push_f64(*value),
            Some(Value::Str(value)) => self.push_str(value),
            Some(Value::Time(value)) => self.push_time(*value),
            Some(Value::List(values)) => self.push_list(values.iter()),
            Some(Value::Json(value)) => self.push_json(&value.to_string()),
            Some(Value::Vector(_) | Value::Sparse(_)) => self.push_present(),
        }
    }

    pub fn push_missing(&mut self) -> Result<(), ViewError> {
        match &mut self.data {
            Building::Nothing => {}
            Building::Bool(bits) => bits.push(false),
            Building::Int(values) | Building::Time(values) => values.push(0),
            Building::Float(values) => values.push(0.0),
            Building::Strings(strings) => strings.push(""),
            Building::List { ends, items } => ends.push(items.rows()),
            Building::Json(arena) => arena.push("null"),
        }
        self.mark(false)
    }

    pub fn push_bool(&mut self, value: bool) -> Result<(), ViewError> {
        match &mut self.data {
            Building::Bool(bits) => bits.push(value),
            _ => return Err(ViewError::ValueType),
        }
        self.mark(true)
    }

    pub fn push_i64(&mut self, value: i64) -> Result<(), ViewError> {
        match &mut self.data {
            Building::Int(values) => values.push(value),
            _ => return Err(ViewError::ValueType),
        }
        self.mark(true)
    }

    /// Milliseconds since 1970.
    pub fn push_time(&mut self, value: i64) -> Result<(), ViewError> {
        match &mut self.data {
            Building::Time(values) => values.push(value),
            _ => return Err(ViewError::ValueType),
        }
        self.mark(true)
    }

    pub fn push_f64(&mut self, value: f64) -> Result<(), ViewError> {
        match &mut self.data {
            Building::Float(values) if value.is_finite() => values.push(value),
            _ => return Err(ViewError::ValueType),
        }
        self.mark(true)
    }

    pub fn push_str(&mut self, value: &str) -> Result<(), ViewError> {
        match &mut self.data {
            Building::Strings(strings) => strings.push(value),
            _ => return Err(ViewError::ValueType),
        }
        self.mark(true)
    }

    pub fn push_list<'a>(&mut self, values: impl Iterator<Item = &'a Value>) -> Result<(), ViewError> {
        let Building::List { ends, items } = &mut self.data else {
            return Err(ViewError::ValueType);
        };
        for value in values {
            items.push(Some(value))?;
        }
        ends.push(items.rows());
        self.mark(true)
    }

    /// The text of one json value; null is a missing one.
    pub fn push_json(&mut self, text: &str) -> Result<(), ViewError> {
        let Building::Json(arena) = &mut self.data else {
            return Err(ViewError::ValueType);
        };
        // A whole parse, not a syntax check: what is kept must parse again, limits included.
        let parsed: serde_json::Value = serde_json::from_str(text).map_err(|_| ViewError::ValueType)?;
        arena.push(text);
        self.mark(!parsed.is_null())
    }

    /// A vector: only that it is there.
    pub fn push_present(&mut self) -> Result<(), ViewError> {
        match &self.data {
            Building::Nothing => self.mark(true),
            _ => Err(ViewError::ValueType),
        }
    }

    pub fn finish(self) -> Column {
        let rows = self.rows();
        let present = match self.present.count() {
            0 => Presence::Nowhere,
            all if all == u64::from(rows) => Presence::Everywhere,
            _ => Presence::Some(self.present),
        };
        let data = match self.data {
            _ if matches!(present, Presence::Nowhere) => Data::Nothing,
            Building::Nothing => Data::Nothing,
            Building::Bool(bits) => Data::Bool(bits),
            Building::Int(values) => Data::Int(numbers(values, key_of_int, &present)),
            Building::Time(values) => Data::Time(numbers(values, key_of_int, &present)),
            Building::Float(values) => Data::Float(numbers(values, key_of_float, &present)),
            Building::Strings(strings) => strings.finish(),
            Building::List { ends, items } => Data::List {
                ends: exactly(ends),
                items: Box::new(items.finish()),
            },
            Building::Json(mut arena) => {
                arena.shrink();
                Data::Json(arena, Paths::default())
            }
        };
        Column { rows, present, data }
    }

    fn rows(&self) -> u32 {
        self.present.len() as u32
    }

    fn mark(&mut self, present: bool) -> Result<(), ViewError> {
        if self.present.len() >= MAX_ROWS {
            return Err(ViewError::TooManyRows);
        }
        self.present.push(present);
        Ok(())
    }
}

impl Building {
    fn of(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Bool => Self::Bool(Bits::none(0)),
            Scalar::Int => Self::Int(Vec::new()),
            Scalar::Float => Self::Float(Vec::new()),
            Scalar::String => Self::Strings(Strings::default()),
            Scalar::Timestamp => Self::Time(Vec::new()),
        }
    }
}

fn numbers<T>(values: Vec<T>, key: impl Fn(T) -> u64, present: &Presence) -> Numbers {
    let keys = values.into_iter().map(key).collect();
    Numbers::new(keys, |at| present.holds(at))
}

fn exactly<T>(mut values: Vec<T>) -> Vec<T> {
    values.shrink_to_fit();
    values
}

/// A dictionary for as long as a 16-bit code can name its entries.
#[derive(Debug, Default)]
struct Strings {
    table: HashTable<u16>,
    entries: Vec<Arc<str>>,
    codes: Vec<u16>,
    /// Bytes of all rows' text.
    text_bytes: usize,
    /// In use once there were too many distinct strings.
    spelled_out: Option<Arena>,
}

impl Strings {
    fn push(&mut self, text: &str) {
        self.text_bytes += text.len();
        if let Some(arena) = &mut self.spelled_out {
            return arena.push(text);
        }
        let hash = hash_of(text);
        let known = self
            .table
            .find(hash, |&code| *self.entries[usize::from(code)] == *text);
        match (known, u16::try_from(self.entries.len())) {
            (Some(&code), _) => self.codes.push(code),
            (None, Ok(code)) => {
                self.entries.push(text.into());
                self.codes.push(code);
                self.table
                    .insert_unique(hash, code, |&code| hash_of(&self.entries[usize::from(code)]));
            }
            (None, Err(_)) => {
                let mut arena = self.spell_out();
                arena.push(text);
                *self = Self {
                    spelled_out: Some(arena),
                    ..Self::default()
                };
            }
        }
    }

    fn finish(self) -> Data {
        if let Some(arena) = self.spelled_out {
            return Data::Text(Text::new(arena));
        }
        let narrow = self.entries.len() <= 1 << u8::BITS;
        let code_bytes = if narrow { size_of::<u8>() } else { size_of::<u16>() };
        let entry_bytes: usize = self.entries.iter().map(|entry| 32 + entry.len()).sum();
        let spelled_bytes = self.text_bytes + self.codes.len() * size_of::<u32>();
        if self.codes.len() * code_bytes + entry_bytes > spelled_bytes {
            return Data::Text(Text::new(self.spell_out()));
        }
        Data::Dictionary(Dictionary::new(self.entries, &self.codes))
    }

    fn spell_out(&self) -> Arena {
        let mut arena = Arena::default();
        self.codes
            .iter()
            .for_each(|&code| arena.push(&self.entries[usize::from(code)]));
        arena
    }
}

fn hash_of(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}
