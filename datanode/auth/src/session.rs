//! Sessions of users: a token for 15 minutes, signed and kept nowhere, and a refresh token
//! that is good for one use.
//!
//! A login opens a *family*.  Each refresh raises its generation; a token of an earlier
//! generation was used twice, by its owner or by whoever took it, and ends the family.  The
//! tokens are keyed hashes over family and generation, so the directory holds no secret of
//! theirs, and only who once had a real token can end a session with it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::Mac;
use crate::{Denied, Name, Secret};

pub const SESSION_LIFE_MS: i64 = 15 * 60 * 1_000;
/// Without a refresh a session ends.
pub const REFRESH_LIFE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
const SESSION_PREFIX: &str = "rhs_";
const REFRESH_PREFIX: &str = "rhr_";
const LONGEST: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    pub user: Name,
    pub generation: u64,
    pub expires_at_ms: i64,
}

/// What a login or a refresh hands out.
#[derive(Clone)]
pub struct Tokens {
    pub token: Zeroizing<String>,
    pub refresh_token: Zeroizing<String>,
    pub expires_in_s: u64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens(for {} s)", self.expires_in_s)
    }
}

/// What a session token says once its signature held.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    pub family: String,
    pub user: Name,
    pub expires_at_ms: i64,
}

/// What a refresh token says once its hash held.
#[derive(Debug, PartialEq, Eq)]
pub struct Refresh {
    pub family: String,
    pub generation: u64,
}

pub fn tokens(family: &str, of: &Family, signing: &Secret, now_ms: i64) -> Tokens {
    let session = Session {
        family: family.to_owned(),
        user: of.user.clone(),
        expires_at_ms: now_ms + SESSION_LIFE_MS,
    };
    let mac = refresh_mac(family, of.generation, signing).text();
    Tokens {
        token: session.seal(signing),
        refresh_token: Zeroizing::new(format!("{REFRESH_PREFIX}{family}_{}_{mac}", of.generation)),
        expires_in_s: SESSION_LIFE_MS as u64 / 1_000,
    }
}

impl Session {
    pub fn is_one(text: &str) -> bool {
        text.starts_with(SESSION_PREFIX)
    }

    fn seal(&self, signing: &Secret) -> Zeroizing<String> {
        let said = URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default());
        let mac = signing.mac("session", &[said.as_bytes()]).text();
        Zeroizing::new(format!("{SESSION_PREFIX}{said}.{mac}"))
    }

    pub fn open(text: &str, signing: &Secret, now_ms: i64) -> Result<Self, Denied> {
        let parts = text
            .strip_prefix(SESSION_PREFIX)
            .filter(|_| text.len() <= LONGEST);
        let (said, mac) = parts
            .and_then(|rest| rest.split_once('.'))
            .ok_or(Denied::Invalid)?;
        if Mac::parse(mac) != Some(signing.mac("session", &[said.as_bytes()])) {
            return Err(Denied::Invalid);
        }
        let said = URL_SAFE_NO_PAD.decode(said).map_err(|_| Denied::Invalid)?;
        let session: Self = serde_json::from_slice(&said).map_err(|_| Denied::Invalid)?;
        match now_ms < session.expires_at_ms {
            true => Ok(session),
            false => Err(Denied::Expired),
        }
    }
}

impl Refresh {
    pub fn open(text: &str, signing: &Secret) -> Result<Self, Denied> {
        Self::parse(text, signing).ok_or(Denied::Invalid)
    }

    fn parse(text: &str, signing: &Secret) -> Option<Self> {
        let rest = text
            .strip_prefix(REFRESH_PREFIX)
            .filter(|_| text.len() <= LONGEST)?;
        let mut parts = rest.splitn(3, '_');
        let (family, generation, mac) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let held = Mac::parse(mac)? == refresh_mac(family, generation, signing);
        held.then(|| Self {
            family: family.to_owned(),
            generation,
        })
    }
}

fn refresh_mac(family: &str, generation: u64, signing: &Secret) -> Mac {
    signing.mac("refresh", &[family.as_bytes(), &generation.to_le_bytes()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn family() -> Family {
        Family {
            user: Name::parse("ada").expect("a name"),
            generation: 3,
            expires_at_ms: 0,
        }
    }

    #[test]
    fn a_session_token_says_who_and_until_when() {
        let signing = Secret::new([5; 32]);
        let tokens = tokens("f1", &family(), &signing, 1_000);
        let session = Session::open(&tokens.token, &signing, 1_001).expect("valid");
        assert_eq!((session.family.as_str(), session.user.as_str()), ("f1", "ada"));
        assert_eq!(
            Session::open(&tokens.token, &signing, 1_000 + SESSION_LIFE_MS),
            Err(Denied::Expired)
        );
        assert_eq!(
            Session::open(&tokens.token, &Secret::new([6; 32]), 1_001),
            Err(Denied::Invalid)
        );
    }

    #[test]
    fn a_refresh_token_is_not_a_session_token() {
        let signing = Secret::new([5; 32]);
        let tokens = tokens("f1", &family(), &signing, 0);
        assert!(Session::open(&tokens.refresh_token, &signing, 0).is_err());
        assert!(Refresh::open(&tokens.token, &signing).is_err());
        let refresh = Refresh::open(&tokens.refresh_token, &signing).expect("valid");
        assert_eq!((refresh.family.as_str(), refresh.generation), ("f1", 3));
        let later = tokens.refresh_token.replace("_3_", "_4_");
        assert!(Refresh::open(&later, &signing).is_err());
    }

    proptest! {
        #[test]
        fn one_changed_letter_makes_a_token_nothing(at in 0usize..60, letter in "[A-Za-z0-9]") {
            let signing = Secret::new([5; 32]);
            let token = tokens("f1", &family(), &signing, 0).token;
            let mut changed = token.to_string();
            changed.replace_range(at..=at, &letter);
            prop_assume!(changed != *token);
            prop_assert!(Session::open(&changed, &signing, 1).is_err());
        }
    }
}
