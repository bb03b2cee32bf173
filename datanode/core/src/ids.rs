//! Names and numbers that identify things.  A type here is the proof that its rule was
//! checked: a `CollectionName` may become a path segment, a `String` may not.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};

/// `[a-z0-9][a-z0-9_-]{0,127}`: the only user string that may reach an object's path, and
/// only because this alphabet holds no separator, no dot and no upper case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    pub fn parse(name: &str) -> Result<Self, Problem> {
        let head_ok = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest_ok = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if head_ok && rest_ok && name.len() <= 128 {
            return Ok(Self(name.into()));
        }
        Err(Problem::new(
            Code::InvalidName,
            "a collection name is [a-z0-9][a-z0-9_-]{0,127}",
        )
        .field("collection")
        .hint("use lower-case letters, digits, '_' and '-', starting with a letter or digit"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CollectionName {
    type Error = Problem;
    fn try_from(name: String) -> Result<Self, Problem> {
        Self::parse(&name)
    }
}

impl From<CollectionName> for String {
    fn from(name: CollectionName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[A-Za-z_][A-Za-z0-9_]{0,63}`, shared so that a million documents hold one copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(Arc<str>);

impl FieldName {
    pub fn parse(name: &str) -> Result<Self, Problem> {
        let head_ok = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest_ok = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !head_ok || !rest_ok || name.len() > 64 {
            return Err(Problem::new(
                Code::InvalidName,
                format!("'{}' is not a field name", crate::problem::shorten(name)),
            )
            .field(crate::problem::shorten(name))
            .hint("a field name is [A-Za-z_][A-Za-z0-9_]{0,63}"));
        }
        if name == "id" {
            return Err(Problem::new(Code::InvalidName, "'id' is reserved").field(name));
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FieldName {
    type Error = Problem;
    fn try_from(name: String) -> Result<Self, Problem> {
        Self::parse(&name)
    }
}

impl From<FieldName> for String {
    fn from(name: FieldName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl std::borrow::Borrow<str> for FieldName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A ULID in its 26-letter form, minted once; names the collection's folder for ever, so
/// that a collection re-created under the same name never meets old objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectionId(Arc<str>);

impl CollectionId {
    pub fn parse(id: &str) -> Result<Self, Problem> {
        if id.len() == 26 && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
            return Ok(Self(id.into()));
        }
        Err(Problem::new(
            Code::InvalidName,
            "a collection id is a ULID of 26 letters and digits",
        ))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CollectionId {
    type Error = Problem;
    fn try_from(id: String) -> Result<Self, Problem> {
        Self::parse(&id)
    }
}

impl From<CollectionId> for String {
    fn from(id: CollectionId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document's id.  Order: numbers by value, strings by bytes, numbers before strings
/// (a collection only ever holds one kind).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DocId {
    Num(u64),
    Str(Arc<str>),
}

impl DocId {
    /// The same for ever: it decides which partition owns a document.
    pub fn hash64(&self) -> u64 {
        match self {
            Self::Num(n) => xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()),
            Self::Str(s) => xxhash_rust::xxh3::xxh3_64(s.as_bytes()),
        }
    }

    pub fn partition(&self, partitions: u32) -> u32 {
        // The high half: the low half picks buckets in the key map.
        ((self.hash64() >> 32) % u64::from(partitions.max(1))) as u32
    }

    pub fn kind(&self) -> IdKind {
        match self {
            Self::Num(_) => IdKind::Num,
            Self::Str(_) => IdKind::Str,
        }
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(n) => n.fmt(f),
            Self::Str(s) => f.write_str(s),
        }
    }
}

impl From<&str> for DocId {
    fn from(s: &str) -> Self {
        Self::Str(s.into())
    }
}

impl From<u64> for DocId {
    fn from(n: u64) -> Self {
        Self::Num(n)
    }
}

/// A collection keeps the kind of id it saw first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdKind {
    Num,
    Str,
}

impl IdKind {
    pub fn refuses(self) -> Problem {
        let is = match self {
            Self::Num => "unsigned integers",
            Self::Str => "strings",
        };
        Problem::new(Code::InvalidId, format!("the ids of this collection are {is}"))
            .field("id")
            .hint("a collection keeps the kind of id it saw first")
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Fencing number of a partition, claimed in the bucket; the higher one wins for ever.
    Epoch
);
number!(
    /// Number of a log object within its partition, dense, from 1.
    Slot
);
number!(
    /// A document's version: given under the partition's write order, never used twice.
    Seq
);

/// What a write of one partition is acknowledged at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub slot: Slot,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.slot)
    }
}
