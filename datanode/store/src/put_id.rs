//! The name of one PUT.  "Did mine land?" is answered by this name alone, never by equal
//! bytes: the records of two writers may be byte-identical (protocol P1).

use std::fmt;

use object_store::{Attribute, Attributes};
use rhumb_seams::Ids;

/// Object metadata key; `x-amz-meta-rhumb-put-id` on S3.
const KEY: &str = "rhumb-put-id";

/// Minted once per intended write and kept through every repetition of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PutId(String);

impl PutId {
    pub fn mint(ids: &Ids) -> Self {
        Self(ids.ulid())
    }

    /// A put-id read back from a record or an object.  `None` for anything that could not
    /// have been minted here: it may end up in an HTTP header.
    pub fn parse(text: &str) -> Option<Self> {
        let ulid = text.len() == 26 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        ulid.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of(attributes: &Attributes) -> Option<Self> {
        attributes
            .get(&attribute())
            .map(|value| Self(value.as_ref().to_owned()))
    }

    pub(crate) fn attach(&self, attributes: &mut Attributes) {
        attributes.insert(attribute(), self.0.clone().into());
    }
}

pub(crate) fn attribute() -> Attribute {
    Attribute::Metadata(KEY.into())
}

impl fmt::Display for PutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
