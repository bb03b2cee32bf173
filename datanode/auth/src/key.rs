//! API keys: `rhk_<id>_<secret>`.  The id finds the record, the record holds only keyed
//! hashes of the secret.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::Mac;
use crate::{Claims, Name, Pace, Secret};

const PREFIX: &str = "rhk_";
/// Scanners for leaked secrets look for the prefix; the rest has a fixed length.
const LONGEST_ID: usize = 64;
/// Secrets that are valid at once: the newest and those that it overlaps with.
const OVERLAPPING: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub name: String,
    pub roles: Vec<Name>,
    #[serde(default, skip_serializing_if = "Claims::is_empty")]
    pub claims: Claims,
    #[serde(default, skip_serializing_if = "Pace::is_boundless")]
    pub pace: Pace,
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
    pub last_used_ms: Option<i64>,
    /// Newest first.
    secrets: Vec<Hashed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hashed {
    mac: Mac,
    /// Of one that was rotated away.
    until_ms: Option<i64>,
}

/// What a new key is to be.
#[derive(Clone, Debug, Default)]
pub struct KeySpec {
    pub name: String,
    pub roles: Vec<Name>,
    pub claims: Claims,
    pub pace: Pace,
    pub expires_at_ms: Option<i64>,
}

/// A key as it is shown, once.
#[derive(Clone, PartialEq, Eq)]
pub struct MintedKey {
    pub id: String,
    pub secret: Secret,
}

impl MintedKey {
    pub fn new(id: String, secret: Secret) -> Self {
        Self { id, secret }
    }

    /// `None` for whatever is not written like a key.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let plain = !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then_some(())?;
        Some(Self {
            id: id.to_owned(),
            secret: Secret::parse(secret)?,
        })
    }

    pub fn is_one(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}_{}", self.id, self.secret.reveal().as_str()))
    }

    fn mac(&self, pepper: &Secret) -> Mac {
        pepper.mac("api key", &[self.id.as_bytes(), self.secret.bytes()])
    }
}

impl std::fmt::Debug for MintedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MintedKey({})", self.id)
    }
}

/// How a key that was shown compares with its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Holds,
    Wrong,
    Expired,
}

impl Key {
    pub fn new(spec: KeySpec, minted: &MintedKey, pepper: &Secret, now_ms: i64) -> Self {
        Self {
            name: spec.name,
            roles: spec.roles,
            claims: spec.claims,
            pace: spec.pace,
            created_at_ms: now_ms,
            expires_at_ms: spec.expires_at_ms,
            last_used_ms: None,
            secrets: vec![Hashed {
                mac: minted.mac(pepper),
                until_ms: None,
            }],
        }
    }

    pub fn check(&self, shown: &MintedKey, pepper: &Secret, now_ms: i64) -> Check {
        let mac = shown.mac(pepper);
        // All of them, so that which one it was takes no time to learn.
        let mut held = None;
        for hashed in &self.secrets {
            if hashed.mac == mac {
                held = Some(hashed);
            }
        }
        let over = |at: Option<i64>| at.is_some_and(|at| now_ms >= at);
        match held {
            None => Check::Wrong,
            Some(hashed) if over(hashed.until_ms) || over(self.expires_at_ms) => Check::Expired,
            Some(_) => Check::Holds,
        }
    }

    /// Whether this very secret is the one that the key has now, and not one before it.
    pub fn is_newest(&self, shown: &MintedKey, pepper: &Secret) -> bool {
        let newest = self.secrets.first();
        newest.is_some_and(|hashed| hashed.mac == shown.mac(pepper))
    }

    /// `minted` from now on; what was valid is valid for `overlap_ms` more.
    pub fn rotate(&mut self, minted: &MintedKey, pepper: &Secret, now_ms: i64, overlap_ms: i64) {
        self.secrets
            .retain(|hashed| hashed.until_ms.is_none_or(|until| until > now_ms));
        let until = now_ms.saturating_add(overlap_ms);
        for hashed in &mut self.secrets {
            hashed.until_ms = Some(hashed.until_ms.map_or(until, |old| old.min(until)));
        }
        if overlap_ms == 0 {
            self.secrets.clear();
        }
        let mac = minted.mac(pepper);
        // One that comes back does so for good, not for what was left of its overlap.
        self.secrets.retain(|hashed| hashed.mac != mac);
        self.secrets.insert(0, Hashed { mac, until_ms: None });
        self.secrets.truncate(OVERLAPPING);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minted(byte: u8) -> MintedKey {
        MintedKey::new("01ab".into(), Secret::new([byte; 32]))
    }

    fn key(pepper: &Secret, expires_at_ms: Option<i64>) -> Key {
        let spec = KeySpec {
            expires_at_ms,
            ..KeySpec::default()
        };
        Key::new(spec, &minted(1), pepper, 0)
    }

    #[test]
    fn a_key_is_known_by_its_secret_under_the_pepper_alone() {
        let pepper = Secret::new([9; 32]);
        let key = key(&pepper, None);
        assert_eq!(key.check(&minted(1), &pepper, 1), Check::Holds);
        assert_eq!(key.check(&minted(2), &pepper, 1), Check::Wrong);
        assert_eq!(key.check(&minted(1), &Secret::new([8; 32]), 1), Check::Wrong);
        let other_id = MintedKey::new("02".into(), Secret::new([1; 32]));
        assert_eq!(key.check(&other_id, &pepper, 1), Check::Wrong);
    }

    #[test]
    fn a_key_expires_at_its_time() {
        let pepper = Secret::new([9; 32]);
        let key = key(&pepper, Some(100));
        assert_eq!(key.check(&minted(1), &pepper, 99), Check::Holds);
        assert_eq!(key.check(&minted(1), &pepper, 100), Check::Expired);
        assert_eq!(key.check(&minted(2), &pepper, 100), Check::Wrong);
    }

    #[test]
    fn after_a_rotation_both_are_valid_for_the_overlap() {
        let pepper = Secret::new([9; 32]);
        let mut key = key(&pepper, None);
        key.rotate(&minted(2), &pepper, 1_000, 60);
        assert_eq!(key.check(&minted(1), &pepper, 1_059), Check::Holds);
        assert_eq!(key.check(&minted(2), &pepper, 1_059), Check::Holds);
        assert_eq!(key.check(&minted(1), &pepper, 1_060), Check::Expired);
        // A second rotation does not give the first secret more time.
        key.rotate(&minted(3), &pepper, 1_050, 1_000);
        assert_eq!(key.check(&minted(1), &pepper, 1_060), Check::Expired);
        key.rotate(&minted(4), &pepper, 1_100, 0);
        assert_eq!(key.check(&minted(2), &pepper, 1_100), Check::Wrong);
        assert_eq!(key.check(&minted(4), &pepper, 1_100), Check::Holds);
    }

    #[test]
    fn a_secret_that_comes_back_comes_back_for_good() {
        let pepper = Secret::new([9; 32]);
        let mut key = key(&pepper, None);
        key.rotate(&minted(2), &pepper, 1_000, 60);
        assert!(key.is_newest(&minted(2), &pepper) && !key.is_newest(&minted(1), &pepper));
        key.rotate(&minted(1), &pepper, 1_010, 60);
        assert!(key.is_newest(&minted(1), &pepper));
        assert_eq!(key.check(&minted(1), &pepper, 9_000), Check::Holds);
        assert_eq!(key.check(&minted(2), &pepper, 9_000), Check::Expired);
        // Two nodes that start with one admin key both make it valid.
        key.rotate(&minted(1), &pepper, 1_020, 60);
        assert_eq!(key.check(&minted(1), &pepper, 9_000), Check::Holds);
    }

    #[test]
    fn nothing_in_a_record_is_the_secret() {
        let pepper = Secret::new([9; 32]);
        let record = serde_json::to_string(&key(&pepper, None)).expect("json");
        assert!(!record.contains(minted(1).secret.reveal().as_str()));
        assert!(!format!("{:?}", minted(1)).contains(minted(1).secret.reveal().as_str()));
    }

    proptest! {
        #[test]
        fn whatever_is_shown_is_parsed_or_refused(text in ".{0,80}") {
            if let Some(key) = MintedKey::parse(&text) {
                let shown = key.reveal();
                prop_assert_eq!(shown.as_str(), text);
            }
        }

        #[test]
        fn a_key_is_read_as_it_was_shown(id in "[0-9a-z]{1,26}", bytes in any::<[u8; 32]>()) {
            let minted = MintedKey::new(id, Secret::new(bytes));
            prop_assert_eq!(MintedKey::parse(&minted.reveal()), Some(minted));
        }
    }
}
