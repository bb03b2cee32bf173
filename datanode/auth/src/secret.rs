//! Bytes that must not be seen: wiped when dropped, never printed, compared in constant time.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

pub const SECRET_BYTES: usize = 32;

/// 256 bits: a pepper, a signing key, the secret half of an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

impl Secret {
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From the machine's generator.
    pub fn random() -> Self {
        Self::new(random())
    }

    pub fn parse(text: &str) -> Option<Self> {
        // Any text of the wrong length is refused before it is decoded.
        if text.len() != 43 {
            return None;
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        Some(Self::new(bytes.as_slice().try_into().ok()?))
    }

    /// For the one moment when somebody is told.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.as_slice()))
    }

    /// HMAC-SHA256 over parts that cannot run into each other: each goes with its length.
    pub fn mac(&self, purpose: &str, parts: &[&[u8]]) -> Mac {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        let mut context = hmac::Context::with_key(&key);
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        Mac(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({SECRET_BYTES} bytes)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.reveal())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a secret of 32 bytes"))
    }
}

/// A keyed hash.  Equality takes the same time for every pair.
#[derive(Clone, Copy)]
pub struct Mac([u8; 32]);

impl Mac {
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 43 {
            return None;
        }
        Some(Self(
            URL_SAFE_NO_PAD.decode(text).ok()?.as_slice().try_into().ok()?,
        ))
    }

    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl PartialEq for Mac {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Mac {}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac(…)")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a hash of 32 bytes"))
    }
}

/// Bytes of the machine's generator, for what must not be guessed.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the machine has a random generator: TLS needs it as well");
    bytes
}

/// Two texts in constant time; their lengths may show.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new([7; 32]);
        let shown = format!("{secret:?} {:?}", secret.mac("p", &[]));
        assert!(!shown.contains(secret.reveal().as_str()) && !shown.contains('7'));
    }

    #[test]
    fn parts_of_a_mac_do_not_run_into_each_other() {
        let secret = Secret::new([7; 32]);
        assert_ne!(secret.mac("p", &[b"ab", b"c"]), secret.mac("p", &[b"a", b"bc"]));
        assert_ne!(secret.mac("p", &[b"a"]), secret.mac("q", &[b"a"]));
        assert_eq!(secret.mac("p", &[b"a"]), secret.mac("p", &[b"a"]));
    }

    #[test]
    fn what_was_revealed_can_be_read_again_and_nothing_else() {
        let secret = Secret::random();
        assert_eq!(Secret::parse(&secret.reveal()), Some(secret));
        for text in ["", "a", &"a".repeat(44), &"!".repeat(43), &"é".repeat(22)] {
            assert_eq!(Secret::parse(text), None, "{text}");
        }
    }
}
