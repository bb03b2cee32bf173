//! Whose database this is: `identity.json`, minted once with a random uid and never
//! changed.  Caches, tokens and sessions are bound to the uid, so a bucket that was emptied
//! and filled again is another database.  It carries a checksum: one flipped bit in the uid
//! would make this another database too.
//!
//! It also says whether the database is encrypted.  That is decided when it is minted, and
//! a server that comes with a master key to a plain database, or without one to an encrypted
//! database, is refused.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{Attributes, Error as OsError, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use rhumb_seams::Ids;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::bucket::under;
use crate::crypt::{CIPHER, KeyProblem};
use crate::put_id::PutId;
use crate::{Result, StoreError};

/// The newest object layout this code reads.
const FORMAT: u32 = 2;
const PLAIN: u32 = 1;
/// Another number than `PLAIN`, so that a Rhumb from before encryption refuses to open it.
const ENCRYPTED: u32 = 2;
const NAME: &str = "identity.json";

/// Damage on the way is gone the next time.
const READS: u32 = 3;

/// Unknown fields are those of a newer minor version and harmless: `format` decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    pub uid: String,
    /// The cipher, when the database is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    sum: String,
}

/// What every format has, however new.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Identity {
    fn new(uid: String, encrypted: bool) -> Self {
        let mut identity = Self {
            format: if encrypted { ENCRYPTED } else { PLAIN },
            uid,
            encryption: encrypted.then(|| CIPHER.to_owned()),
            sum: String::new(),
        };
        identity.sum = identity.sum_of();
        identity
    }

    fn sum_of(&self) -> String {
        let covered = match &self.encryption {
            None => format!("{} {}", self.format, self.uid),
            Some(cipher) => format!("{} {} {cipher}", self.format, self.uid),
        };
        format!("{:016x}", xxh3_64(covered.as_bytes()))
    }

    /// Whether it may be opened by somebody who has a master key, or has none.
    fn require(&self, have_key: bool) -> std::result::Result<(), KeyProblem> {
        match (&self.encryption, have_key) {
            (None, false) => Ok(()),
            (None, true) => Err(KeyProblem::NotEncrypted),
            (Some(_), false) => Err(KeyProblem::Missing),
            (Some(cipher), true) if cipher == CIPHER => Ok(()),
            (Some(cipher), true) => Err(KeyProblem::Cipher {
                found: cipher.clone(),
                known: CIPHER,
            }),
        }
    }
}

pub(crate) async fn read_or_mint(
    store: &Arc<dyn ObjectStore>,
    prefix: &Path,
    ids: &Ids,
    encrypted: bool,
) -> Result<Identity> {
    let path = under(prefix, NAME);
    let identity = match read(store, &path).await? {
        Some(found) => found,
        None => mint(store, &path, ids, encrypted).await?,
    };
    identity.require(encrypted)?;
    Ok(identity)
}

async fn mint(store: &Arc<dyn ObjectStore>, path: &Path, ids: &Ids, encrypted: bool) -> Result<Identity> {
    let minted = Identity::new(ids.ulid().to_ascii_lowercase(), encrypted);
    let body = serde_json::to_vec_pretty(&minted).map_err(|e| corrupt(path, &e.to_string()))?;
    let mut attributes = Attributes::new();
    PutId::mint(ids).attach(&mut attributes);
    let options = PutOptions {
        mode: PutMode::Create,
        attributes,
        ..PutOptions::default()
    };
    match store.put_opts(path, body.into(), options).await {
        Ok(_) => Ok(minted),
        // Two first starts at once: one of them minted it.
        Err(OsError::AlreadyExists { .. }) => read(store, path)
            .await?
            .ok_or_else(|| corrupt(path, "it was there and is gone")),
        Err(e) => Err(e.into()),
    }
}

async fn read(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Option<Identity>> {
    let mut doubt = None;
    for _ in 0..READS {
        let bytes = match store.get(path).await {
            Ok(found) => found.bytes().await?,
            Err(OsError::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        match decode(path, &bytes) {
            Ok(found) => return Ok(Some(found)),
            Err(e) => doubt = Some(e),
        }
    }
    Err(doubt.unwrap_or_else(|| corrupt(path, "unreadable")))
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Identity> {
    let head: Head = serde_json::from_slice(bytes).map_err(|e| corrupt(path, &e.to_string()))?;
    if head.format > FORMAT {
        return Err(StoreError::NewerFormat {
            found: head.format,
            known: FORMAT,
        });
    }
    let found: Identity = serde_json::from_slice(bytes).map_err(|e| corrupt(path, &e.to_string()))?;
    // It names a cache folder.
    let plain = !found.uid.is_empty()
        && found.uid.len() <= 64
        && found.uid.bytes().all(|b| b.is_ascii_alphanumeric());
    if !plain || found.sum != found.sum_of() {
        return Err(corrupt(path, "its checksum does not hold"));
    }
    Ok(found)
}

fn corrupt(path: &Path, reason: &str) -> StoreError {
    StoreError::Corrupt {
        path: path.clone(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_never_makes_another_database() {
        let path = Path::from(NAME);
        for encrypted in [false, true] {
            let identity = Identity::new("01arz3ndektsv4rrffq69g5fav".into(), encrypted);
            let whole = serde_json::to_vec_pretty(&identity).expect("json");
            assert_eq!(decode(&path, &whole).expect("whole"), identity);
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // White space may change; what is read may not.
                if let Ok(found) = decode(&path, &flipped) {
                    assert_eq!(found, identity, "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_plain_database_is_written_as_it_was_before_there_was_encryption() {
        let identity = Identity::new("01arz3ndektsv4rrffq69g5fav".into(), false);
        assert_eq!(
            serde_json::to_string(&identity).expect("json"),
            r#"{"format":1,"uid":"01arz3ndektsv4rrffq69g5fav","sum":"d1950fdd3473caec"}"#
        );
    }
}
