//! Who a request turned out to be.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Claims, Grant, Pace};

/// `key:<id>`, `user:<name>`, `jwt:<issuer>#<sub>` or `cert:<name>`: what audit and limits
/// know somebody by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject(Arc<str>);

impl Subject {
    pub fn key(id: &str) -> Self {
        Self(format!("key:{id}").into())
    }

    pub fn user(name: &str) -> Self {
        Self(format!("user:{name}").into())
    }

    pub fn token(issuer: &str, sub: &str) -> Self {
        Self(format!("jwt:{issuer}#{sub}").into())
    }

    /// Nobody asked for keys: `--dev`.
    pub fn anybody() -> Self {
        Self("anybody".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user of this name, when it is one.
    pub fn as_user(&self) -> Option<&str> {
        self.0.strip_prefix("user:")
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
pub struct Identity {
    pub subject: Subject,
    pub roles: Vec<String>,
    pub grants: Vec<Grant>,
    pub claims: Claims,
    /// What it may ask for at most.
    pub pace: Pace,
}

impl Identity {
    /// Where nobody asks who somebody is.
    pub fn anybody() -> Self {
        Self {
            subject: Subject::anybody(),
            roles: vec!["admin".into()],
            grants: crate::Role::built_in("admin").map_or(Vec::new(), |role| role.grants),
            claims: Claims::new(),
            pace: Pace::default(),
        }
    }
}

/// Why somebody was not let in.  Told only as far as whoever asks has proved to know the
/// secret: what is wrong and what does not exist look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("there are no credentials")]
    Missing,
    #[error("the credentials are not valid")]
    Invalid,
    #[error("the credentials have expired")]
    Expired,
    #[error("the token is not valid yet")]
    TooEarly,
    /// A refresh token was used twice: somebody else may have it, so its session has ended.
    #[error("the refresh token was used before; the session has ended")]
    Reused,
}
