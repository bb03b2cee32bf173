//! The admin key: what lets its holder make all other keys.
//!
//! It is made once and kept in a Secret; from then on the Secret is read and never written,
//! so that whoever takes the key out, or puts one of their own there, is not overruled.  Data
//! nodes read it from a mounted file.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::Secret;
use rhumb_crds::names;
use rhumb_crds::vector_database::{Clients, VectorDatabase};
use serde_json::{Value, json};

use super::children;

/// The same for every key that is made: one that is made after its Secret was deleted takes
/// the place of the one before, which would otherwise stay valid unseen.
const ID: &str = "admin";
const BYTES: usize = 32;
const LONGEST_ID: usize = 64;

/// How it stands with the key.
#[derive(Clone, Debug, PartialEq)]
pub enum AdminKey {
    /// Nobody asks for keys.
    Unneeded,
    Found,
    /// There is no Secret yet.
    Due,
    /// A Secret that does not hold a key.
    Unusable(String),
}

pub fn look(db: &VectorDatabase, found: Option<&Secret>) -> AdminKey {
    let name = names::admin(db.metadata.name.as_deref().unwrap_or_default());
    match (db.spec.security.clients, found) {
        (Clients::Open, _) => AdminKey::Unneeded,
        (Clients::Secured, None) => AdminKey::Due,
        (Clients::Secured, Some(secret)) if read(secret).is_some() => AdminKey::Found,
        (Clients::Secured, Some(_)) => AdminKey::Unusable(format!(
            "Secret {name} has no API key under {}: put rhk_<letters and digits>_<43 characters of base64url> there, \
             or delete the Secret to get a new one",
            names::ADMIN_KEY
        )),
    }
}

/// The key in the Secret, when it is written like one.
pub fn read(secret: &Secret) -> Option<&str> {
    let bytes = secret.data.as_ref()?.get(names::ADMIN_KEY)?;
    let text = std::str::from_utf8(&bytes.0).ok()?.trim();
    let (id, secret) = text.strip_prefix("rhk_")?.split_once('_')?;
    let named = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    let decoded = URL_SAFE_NO_PAD.decode(secret).ok()?;
    (named && decoded.len() == BYTES).then_some(text)
}

/// A new Secret with a new key.
pub fn make(db: &VectorDatabase) -> Result<Value, rustls::Error> {
    let mut bytes = [0; BYTES];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut bytes)?;
    let key = format!("rhk_{ID}_{}", URL_SAFE_NO_PAD.encode(bytes));
    let name = names::admin(db.metadata.name.as_deref().unwrap_or_default());
    let data = json!({ names::ADMIN_KEY: key });
    Ok(children::secret(db, &name, "Opaque", json!({}), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(key: &str, value: &str) -> Secret {
        let bytes = k8s_openapi::ByteString(value.into());
        serde_json::from_value(json!({ "data": { key: bytes } })).expect("a Secret")
    }

    #[test]
    fn what_a_data_node_would_refuse_is_no_key() {
        let good = format!("rhk_ops7_{}", "a".repeat(42) + "A");
        assert_eq!(read(&secret(names::ADMIN_KEY, &good)), Some(good.as_str()));
        assert_eq!(
            read(&secret(names::ADMIN_KEY, &format!("{good}\n"))),
            Some(good.as_str()),
            "written by an editor"
        );
        assert_eq!(read(&secret("key", &good)), None);
        for wrong in [
            "",
            "password",
            "rhk_ops7_short",
            "rhk__",
            &good.replace("ops7", "ops-7"),
        ] {
            assert_eq!(read(&secret(names::ADMIN_KEY, wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn two_keys_are_never_the_same() {
        let db: VectorDatabase = serde_json::from_value(json!({
            "apiVersion": "rhumb.dev/v1alpha1", "kind": "VectorDatabase", "metadata": { "name": "words" },
            "spec": { "objectStore": { "bucket": "vectors" } }
        }))
        .expect("a database");
        let key = || {
            let made = make(&db).expect("made")["stringData"][names::ADMIN_KEY].clone();
            made.as_str().expect("text").to_owned()
        };
        let (first, second) = (key(), key());
        assert_ne!(first, second);
        assert!(read(&secret(names::ADMIN_KEY, &first)).is_some(), "its own form");
    }
}
