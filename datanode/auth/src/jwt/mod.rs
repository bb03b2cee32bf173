//! Tokens of OpenID Connect issuers.
//!
//! Signatures are asymmetric only (RS, PS, ES, EdDSA): `none` and the HS family are not
//! names that this knows.  The key decides which algorithms it takes, so a public key is
//! never taken for an HMAC secret.  `kid` is compared with the names of the keys that are
//! known and used for nothing else; `jku`, `x5u` and `jwk` are not looked at; a header with
//! `crit` is refused.

mod keys;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::{Claims, Name};
pub use keys::{Jwks, JwksProblem};

const LONGEST: usize = 16 << 10;
const LONGEST_HEADER: usize = 1 << 10;
/// How far clocks may be apart.
const LEEWAY_S: f64 = 60.0;
const LONGEST_SUBJECT: usize = 256;

/// Somebody who vouches for others.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// As it stands in `iss`.
    pub name: String,
    /// One of these is in `aud`.
    pub audiences: Vec<String>,
    /// Where in the claims the roles are, such as `realm_access.roles`; `roles` by default.
    pub roles_claim: String,
    /// From a value of that claim to roles.  A value that is not here is no role: an issuer
    /// must not be able to make admins because its groups are named that way.
    pub roles: BTreeMap<String, Vec<Name>>,
    /// Roles of everybody whom the issuer vouches for.
    pub everybody: Vec<Name>,
    pub keys: Jwks,
}

/// What a token says, once it is believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Vouched {
    pub issuer: String,
    pub subject: String,
    pub roles: Vec<Name>,
    pub claims: Claims,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtDenied {
    #[error("the token is not a JWT")]
    Malformed,
    #[error("the token is too large")]
    TooLarge,
    #[error("the token's algorithm is not taken here")]
    Algorithm,
    #[error("the token's issuer is not known")]
    Issuer,
    /// Perhaps one that the issuer uses since the keys were fetched.
    #[error("the token's key is not known")]
    Key,
    #[error("the token's signature does not hold")]
    Signature,
    #[error("the token is for somebody else")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    TooEarly,
    #[error("the token names nobody")]
    Subject,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Who {
    iss: String,
}

/// A token, taken apart and not believed yet.
struct Parts<'a> {
    header: Header,
    /// What the signature covers.
    signed: &'a str,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

/// Whether a credential looks like a JWT at all: three parts.
pub fn is_one(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|b| *b == b'.').count() == 2
}

/// The issuer that a token claims to be from, to fetch its keys; proves nothing.
pub fn issuer_of(token: &str) -> Result<String, JwtDenied> {
    let parts = Parts::parse(token)?;
    Ok(parts.who()?.iss)
}

pub fn verify<'a>(
    token: &str,
    issuers: impl IntoIterator<Item = &'a Issuer>,
    now_ms: i64,
) -> Result<Vouched, JwtDenied> {
    let parts = Parts::parse(token)?;
    let who = parts.who()?;
    let mut issuers = issuers.into_iter();
    let issuer = issuers
        .find(|issuer| issuer.name == who.iss)
        .ok_or(JwtDenied::Issuer)?;
    issuer.keys.verify(
        &parts.header.alg,
        parts.header.kid.as_deref(),
        parts.signed.as_bytes(),
        &parts.signature,
    )?;
    // Only from here on are the claims anybody's word.
    let claims: Claims = serde_json::from_slice(&parts.claims).map_err(|_| JwtDenied::Malformed)?;
    check(&claims, issuer, now_ms as f64 / 1e3)?;
    let subject = claims.get("sub").and_then(Value::as_str);
    let subject = subject
        .filter(|sub| (1..=LONGEST_SUBJECT).contains(&sub.len()) && !sub.chars().any(char::is_control));
    Ok(Vouched {
        issuer: issuer.name.clone(),
        subject: subject.ok_or(JwtDenied::Subject)?.to_owned(),
        roles: issuer.roles_of(&claims),
        claims,
    })
}

impl<'a> Parts<'a> {
    fn parse(token: &'a str) -> Result<Self, JwtDenied> {
        if token.len() > LONGEST {
            return Err(JwtDenied::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtDenied::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtDenied::Malformed)?;
        if header.len() > LONGEST_HEADER {
            return Err(JwtDenied::TooLarge);
        }
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtDenied::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwtDenied::Malformed)?;
        let typed = header.typ.as_deref().map(str::to_ascii_lowercase);
        if header.crit.is_some() || typed.is_some_and(|typ| !matches!(typ.as_str(), "jwt" | "at+jwt")) {
            return Err(JwtDenied::Malformed);
        }
        Ok(Self {
            header,
            signed,
            claims: decode(claims)?,
            signature: decode(signature)?,
        })
    }

    fn who(&self) -> Result<Who, JwtDenied> {
        serde_json::from_slice(&self.claims).map_err(|_| JwtDenied::Malformed)
    }
}

fn check(claims: &Claims, issuer: &Issuer, now_s: f64) -> Result<(), JwtDenied> {
    let is_ours = |aud: &Value| {
        aud.as_str()
            .is_some_and(|aud| issuer.audiences.iter().any(|a| a == aud))
    };
    let for_us = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    };
    if !for_us {
        return Err(JwtDenied::Audience);
    }
    let seconds = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(JwtDenied::Malformed),
    };
    // A token for ever is no token.
    let expires = seconds("exp")?.ok_or(JwtDenied::Expired)?;
    if now_s >= expires + LEEWAY_S {
        return Err(JwtDenied::Expired);
    }
    let early = |at: Option<f64>| at.is_some_and(|at| now_s < at - LEEWAY_S);
    if early(seconds("nbf")?) || early(seconds("iat")?) {
        return Err(JwtDenied::TooEarly);
    }
    Ok(())
}

impl Issuer {
    fn roles_of(&self, claims: &Claims) -> Vec<Name> {
        let mut path = self.roles_claim.split('.');
        let first = path.next().and_then(|step| claims.get(step));
        let found = first.and_then(|first| path.try_fold(first, |value, step| value.as_object()?.get(step)));
        let words: Vec<&str> = match found {
            Some(Value::String(words)) => words.split(' ').collect(),
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mapped = words
            .into_iter()
            .filter_map(|word| self.roles.get(word))
            .flatten();
        let mut roles: Vec<Name> = self.everybody.iter().chain(mapped).cloned().collect();
        roles.sort_unstable();
        roles.dedup();
        roles
    }
}

#[cfg(test)]
mod tests;
