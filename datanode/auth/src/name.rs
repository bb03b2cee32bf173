//! Names of users, groups and roles.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `[A-Za-z0-9][A-Za-z0-9._@-]{0,127}`: an e-mail address fits, a separator of ours does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    pub fn parse(text: &str) -> Option<Self> {
        let head = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-');
        (head && text.len() <= 128 && text.bytes().all(rest)).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a name is [A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_short() {
        for good in ["a", "ada@example.org", "team-1", "A.b_c"] {
            assert!(Name::parse(good).is_some(), "{good}");
        }
        for bad in ["", "-a", "a b", "a:b", "a/b", "ä", "a\n", &"a".repeat(129)] {
            assert!(Name::parse(bad).is_none(), "{bad}");
        }
    }
}
