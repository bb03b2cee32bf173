//! The master key: it wraps data keys and never meets data.  It is bytes from a file, of
//! which the first key wraps and every key unwraps, or a command that asks a key
//! management service.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::command::KeyCommand;
use super::format::random;
use super::problem::KeyProblem;

const KEY_BYTES: usize = 32;

/// More keys than a rotation ever needs at a time.
const MOST_KEYS: usize = 16;

/// What a wrapped key is bound to: it opens as this key of this database and nothing else.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Context<'a> {
    pub database: &'a str,
    pub scope: &'a str,
    pub key: &'a str,
}

impl Context<'_> {
    fn associated(&self) -> Vec<u8> {
        format!(
            "rhumb data key 1\0{}\0{}\0{}",
            self.database, self.scope, self.key
        )
        .into_bytes()
    }
}

/// A data key as it lies in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wrapped {
    /// Which master key wrapped it: for people, and to pick the key that unwraps.
    pub master: String,
    /// Base64.
    pub bytes: String,
}

#[derive(Debug)]
pub enum MasterKey {
    Local(LocalKeys),
    Command(KeyCommand),
}

impl MasterKey {
    /// Keys of 32 bytes, in hex or base64, one per line; `#` starts a comment.  The first
    /// one wraps, all of them unwrap.
    pub fn parse(text: &str) -> Result<Self, KeyProblem> {
        let lines = text.lines().map(str::trim);
        let keys: Vec<LocalKey> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(LocalKey::parse)
            .collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err(KeyProblem::Unusable("there is none in it".into())),
            1..=MOST_KEYS => Ok(Self::Local(LocalKeys(keys))),
            many => Err(KeyProblem::Unusable(format!(
                "{many} keys, at most {MOST_KEYS} are taken"
            ))),
        }
    }

    pub fn from_file(file: &Path) -> Result<Self, KeyProblem> {
        let unusable = |reason: String| KeyProblem::Unusable(format!("{}: {reason}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|e| unusable(e.to_string()))?;
        Self::parse(&Zeroizing::new(text)).map_err(|e| match e {
            KeyProblem::Unusable(reason) => unusable(reason),
            other => other,
        })
    }

    /// `program` is started as it is, with no shell, once per data key.
    pub fn from_command(program: PathBuf, timeout: Duration) -> Self {
        Self::Command(KeyCommand::new(program, timeout))
    }

    /// For people: which key this is, and nothing of the key.
    pub fn name(&self) -> String {
        match self {
            Self::Local(keys) => keys.names(),
            Self::Command(command) => command.to_string(),
        }
    }

    /// Whether `wrapped` was made by the key that wraps now.
    pub(super) fn is_newest(&self, wrapped: &Wrapped) -> bool {
        match self {
            Self::Local(keys) => keys.0.first().is_some_and(|key| key.name == wrapped.master),
            // What the service makes of a key is its secret: wrap it anew.
            Self::Command(_) => false,
        }
    }

    pub(super) async fn wrap(
        &self,
        secret: &[u8; KEY_BYTES],
        context: &Context<'_>,
    ) -> Result<Wrapped, KeyProblem> {
        match self {
            Self::Local(keys) => keys.wrap(secret, context),
            Self::Command(command) => command.wrap(secret, context).await,
        }
    }

    pub(super) async fn unwrap(
        &self,
        wrapped: &Wrapped,
        context: &Context<'_>,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyProblem> {
        match self {
            Self::Local(keys) => keys.unwrap(wrapped, context),
            Self::Command(command) => command.unwrap(wrapped, context).await,
        }
    }
}

/// Never empty.
pub struct LocalKeys(Vec<LocalKey>);

struct LocalKey {
    /// Made from the key by HKDF: says nothing about it.
    name: String,
    aead: LessSafeKey,
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKeys({})", self.names())
    }
}

impl LocalKeys {
    fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|key| key.name.as_str()).collect();
        names.join(", ")
    }

    fn wrap(&self, secret: &[u8; KEY_BYTES], context: &Context<'_>) -> Result<Wrapped, KeyProblem> {
        let key = self.0.first().ok_or(KeyProblem::Missing)?;
        // Random nonces: a master key wraps thousands of keys, not 2^32.
        let nonce: [u8; NONCE_LEN] = random();
        let mut bytes = nonce.to_vec();
        let mut sealed = Zeroizing::new(secret.to_vec());
        key.aead
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.associated()),
                &mut *sealed,
            )
            .map_err(|_| KeyProblem::Unusable("it does not wrap".into()))?;
        bytes.extend_from_slice(&sealed);
        Ok(Wrapped {
            master: key.name.clone(),
            bytes: BASE64.encode(bytes),
        })
    }

    fn unwrap(
        &self,
        wrapped: &Wrapped,
        context: &Context<'_>,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyProblem> {
        let wrong = || KeyProblem::Wrong {
            needed: wrapped.master.clone(),
            given: self.names(),
        };
        let key = self
            .0
            .iter()
            .find(|key| key.name == wrapped.master)
            .ok_or_else(wrong)?;
        let bytes = BASE64.decode(&wrapped.bytes).map_err(|_| wrong())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let secret = key
            .aead
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context.associated()),
                &mut opened,
            )
            .map_err(|_| wrong())?;
        let secret: [u8; KEY_BYTES] = (&*secret).try_into().map_err(|_| wrong())?;
        Ok(Zeroizing::new(secret))
    }
}

impl LocalKey {
    fn parse(line: &str) -> Result<Self, KeyProblem> {
        let bytes = Zeroizing::new(key_bytes(line).ok_or_else(|| {
            KeyProblem::Unusable(
                "a key is 32 bytes, as 64 hex digits or as base64; make one with `openssl rand -hex 32`"
                    .into(),
            )
        })?);
        // A file of zeros, or a placeholder of a template, is no secret.
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(KeyProblem::Unusable("all its bytes are the same".into()));
        }
        let name = hkdf::Salt::new(hkdf::HKDF_SHA256, b"rhumb master key 1").extract(&*bytes);
        let mut digest = [0; KEY_BYTES];
        name.expand(&[b"name"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut digest))
            .map_err(|_| KeyProblem::Unusable("it has no name".into()))?;
        let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let key = UnboundKey::new(&AES_256_GCM, &*bytes)
            .map_err(|_| KeyProblem::Unusable("the cipher refuses it".into()))?;
        Ok(Self {
            name,
            aead: LessSafeKey::new(key),
        })
    }
}

fn key_bytes(line: &str) -> Option<[u8; KEY_BYTES]> {
    if line.len() == 2 * KEY_BYTES && line.is_ascii() {
        let mut bytes = [0; KEY_BYTES];
        for (byte, digits) in bytes.iter_mut().zip(line.as_bytes().as_chunks::<2>().0) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        return Some(bytes);
    }
    Zeroizing::new(BASE64.decode(line).ok()?)
        .as_slice()
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'_> = Context {
        database: "db",
        scope: "root",
        key: "k1",
    };

    fn hex(digit: char) -> String {
        format!("{}0{digit}", digit.to_string().repeat(62))
    }

    async fn unwrapped(master: &MasterKey, wrapped: &Wrapped, context: Context<'_>) -> Option<[u8; 32]> {
        master.unwrap(wrapped, &context).await.ok().map(|secret| *secret)
    }

    #[tokio::test]
    async fn a_wrapped_key_opens_under_its_master_key_and_its_name_only() {
        let master = MasterKey::parse(&hex('a')).expect("a key");
        let other = MasterKey::parse(&hex('b')).expect("a key");
        let wrapped = master.wrap(&[7; 32], &CONTEXT).await.expect("wrapped");
        assert_eq!(unwrapped(&master, &wrapped, CONTEXT).await, Some([7; 32]));
        let error = other.unwrap(&wrapped, &CONTEXT).await.expect_err("another key");
        assert!(matches!(&error, KeyProblem::Wrong { needed, given }
            if *needed == master.name() && *given == other.name()));
        for context in [
            Context {
                database: "dc",
                ..CONTEXT
            },
            Context {
                scope: "c-1",
                ..CONTEXT
            },
            Context { key: "k2", ..CONTEXT },
        ] {
            assert_eq!(unwrapped(&master, &wrapped, context).await, None, "{context:?}");
        }
    }

    #[tokio::test]
    async fn any_flipped_bit_of_a_wrapped_key_is_seen() {
        let master = MasterKey::parse(&hex('a')).expect("a key");
        let wrapped = master.wrap(&[7; 32], &CONTEXT).await.expect("wrapped");
        let bytes = BASE64.decode(&wrapped.bytes).expect("base64");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = Wrapped {
                bytes: BASE64.encode(flipped),
                ..wrapped.clone()
            };
            assert_eq!(unwrapped(&master, &flipped, CONTEXT).await, None, "bit {bit}");
        }
    }

    #[tokio::test]
    async fn the_first_key_of_a_file_wraps_and_all_of_them_unwrap() {
        let old = MasterKey::parse(&hex('a')).expect("a key");
        let wrapped = old.wrap(&[7; 32], &CONTEXT).await.expect("wrapped");
        let both =
            MasterKey::parse(&format!("# since May\n{}\n\n{}\n", hex('b'), hex('a'))).expect("two keys");
        assert_eq!(unwrapped(&both, &wrapped, CONTEXT).await, Some([7; 32]));
        assert!(old.is_newest(&wrapped) && !both.is_newest(&wrapped));
        let rewrapped = both.wrap(&[7; 32], &CONTEXT).await.expect("wrapped");
        assert!(both.is_newest(&rewrapped));
        assert_eq!(unwrapped(&old, &rewrapped, CONTEXT).await, None);
    }

    #[test]
    fn hex_and_base64_name_the_same_key_and_nothing_else_is_one() {
        let bytes: Vec<u8> = (0..32).collect();
        let in_hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = |text: &str| MasterKey::parse(text).map(|key| key.name());
        assert_eq!(
            name(&in_hex).expect("hex"),
            name(&BASE64.encode(&bytes)).expect("base64")
        );
        let zeros = "0".repeat(64);
        for bad in [
            "",
            "# only words",
            "secret",
            &in_hex[1..],
            &zeros,
            &"é".repeat(32),
            "+0".repeat(32).as_str(),
        ] {
            assert!(matches!(name(bad), Err(KeyProblem::Unusable(_))), "`{bad}`");
        }
    }

    #[test]
    fn no_key_shows_in_what_is_printed() {
        let master = MasterKey::parse(&hex('a')).expect("a key");
        let printed = format!("{master:?} {}", master.name());
        assert!(!printed.contains("aaaa"), "{printed}");
    }
}
