//! Passwords: argon2id, kept in the usual text form (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`).
//! Costs tens of milliseconds and 19 MiB by design: callers bound how many run at once.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::secret::same;

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const HASH_BYTES: usize = 32;
/// Of what a stored text may ask for: it comes from the bucket.
const MOST_MEMORY_KIB: u32 = 256 << 10;
const MOST_PASSES: u32 = 16;
/// How long a password is.
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1_024;

/// The hash of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password(String);

/// Salted with 16 bytes that are used once.
pub fn hash_password(password: &str, salt: [u8; 16]) -> Password {
    let hash = derive(password, &salt, MEMORY_KIB, PASSES).unwrap_or_default();
    Password(format!(
        "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1${}${}",
        STANDARD_NO_PAD.encode(salt),
        STANDARD_NO_PAD.encode(hash)
    ))
}

impl Password {
    pub fn is(&self, password: &str) -> bool {
        self.compare(password).unwrap_or(false)
    }

    fn compare(&self, password: &str) -> Option<bool> {
        let mut parts = self.0.strip_prefix("$argon2id$v=19$")?.split('$');
        let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let mut costs = costs.split(',');
        let mut cost = |name: &str| -> Option<u32> { costs.next()?.strip_prefix(name)?.parse().ok() };
        let (memory, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
        if lanes != 1 || memory > MOST_MEMORY_KIB || passes > MOST_PASSES {
            return None;
        }
        let salt = STANDARD_NO_PAD.decode(salt).ok()?;
        let hash = STANDARD_NO_PAD.decode(hash).ok()?;
        // A hash of nothing would be like everything.
        if hash.len() != HASH_BYTES {
            return None;
        }
        Some(same(&derive(password, &salt, memory, passes)?, &hash))
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What it takes to find that a password is wrong, for a user who does not exist: whoever
/// asks must not learn that from the time.
pub fn verify_nobody(password: &str) -> bool {
    let hash = derive(password, &[0; 16], MEMORY_KIB, PASSES);
    hash.is_none_or(|hash| same(&hash, &[]))
}

fn derive(password: &str, salt: &[u8], memory: u32, passes: u32) -> Option<Vec<u8>> {
    let params = Params::new(memory, passes, 1, Some(HASH_BYTES)).ok()?;
    let mut blocks = vec![Block::default(); params.block_count()];
    let mut hash = vec![0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut hash, &mut blocks)
        .ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_itself_and_no_other() {
        let hash = hash_password("correct horse", [3; 16]);
        assert!(hash.is("correct horse"));
        assert!(!hash.is("correct horse "));
        assert!(!hash.is(""));
        assert!(!verify_nobody("correct horse"));
        assert_ne!(hash, hash_password("correct horse", [4; 16]));
    }

    #[test]
    fn a_text_that_is_no_hash_is_like_nothing() {
        for text in [
            "",
            "plain",
            "$argon2id$v=19$m=8,t=1,p=1$$",
            "$argon2i$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
            "$argon2id$v=19$m=4294967295,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
        ] {
            let stored = Password(text.to_owned());
            assert!(!stored.is("") && !stored.is("plain"), "{text}");
        }
    }

    #[test]
    fn nothing_of_a_password_is_printed() {
        let hash = hash_password("correct horse", [3; 16]);
        assert_eq!(format!("{hash:?}"), "Password(…)");
    }
}
