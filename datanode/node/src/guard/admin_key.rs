//! The first key: without it nobody could make another.
//!
//! A file holds it.  What it holds is made a valid admin key at each start, so that a key
//! can be handed in (a Secret) or replaced; when it is missing and this process may make
//! one, a new key is minted under an id of its own, and older ones stay as they are.  A file
//! that is somebody else's is looked at while the server runs, too.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rhumb_auth::{Directory, KeySpec, MintedKey, Name, Secret};

use super::{Guard, GuardError, problem_of};

#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} does not hold an API key (rhk_…); write one into it, or remove it to get a new one")]
    NoKey(PathBuf),
    #[error("the admin key cannot be made valid: {0}")]
    Refused(rhumb_core::Problem),
}

/// Of a key that was replaced in its file.
const OVERLAP_MS: i64 = 60_000;
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The key, when it was made just now.
pub async fn ensure(guard: &Guard, path: &Path, may_make: bool) -> Result<Option<MintedKey>, GuardError> {
    let file = |source| AdminKeyError::File {
        path: path.to_owned(),
        source,
    };
    match read(path) {
        Ok(key) => {
            make_valid(guard, &key).await?;
            Ok(None)
        }
        Err(AdminKeyError::File { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound && may_make =>
        {
            let key = MintedKey::new(guard.new_id(), Secret::random());
            if let Some(home) = path.parent() {
                let made = std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(home);
                made.map_err(file)?;
            }
            // First the file: a key that is valid and written nowhere would help nobody.
            write(path, &key).map_err(file)?;
            make_valid(guard, &key).await?;
            Ok(Some(key))
        }
        Err(error) => Err(error.into()),
    }
}

/// Follows the file, for ever: a key that is put there is valid without a restart.  One that
/// stays there is left alone, also when somebody revoked it.
pub async fn follow(guard: &Guard, path: &Path) {
    let mut known: Option<MintedKey> = None;
    loop {
        let followed = match read(path) {
            Ok(key) if known.as_ref() == Some(&key) => Ok(()),
            Ok(key) => {
                let valid = make_valid(guard, &key).await;
                if valid.is_ok() && known.replace(key).is_some() {
                    tracing::info!("a new admin key is valid");
                }
                valid
            }
            Err(error) => Err(error),
        };
        if let Err(error) = followed {
            tracing::warn!(%error, "the admin key's file cannot be used");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn read(path: &Path) -> Result<MintedKey, AdminKeyError> {
    let text = std::fs::read_to_string(path).map_err(|source| AdminKeyError::File {
        path: path.to_owned(),
        source,
    })?;
    let text = zeroize::Zeroizing::new(text);
    MintedKey::parse(text.trim()).ok_or_else(|| AdminKeyError::NoKey(path.to_owned()))
}

fn write(path: &Path, key: &MintedKey) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(key.reveal().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

async fn make_valid(guard: &Guard, key: &MintedKey) -> Result<(), AdminKeyError> {
    let now = guard.now_ms();
    if guard.directory().has_admin_key(key, now) {
        return Ok(());
    }
    let changed = guard.change(|directory: &Directory| {
        let changed = match directory.keys.contains_key(&key.id) {
            true => directory.rotate_key(key, now, OVERLAP_MS),
            false => directory.add_key(spec(), key, now),
        };
        changed.map_err(|error| problem_of(&error))
    });
    changed.await.map_err(AdminKeyError::Refused)?;
    match guard.directory().has_admin_key(key, now) {
        true => Ok(()),
        // A key of this id that was made for something else.
        false => Err(AdminKeyError::Refused(rhumb_core::Problem::new(
            rhumb_core::Code::InvalidValue,
            "a key of this id exists and is no admin's",
        ))),
    }
}

fn spec() -> KeySpec {
    KeySpec {
        name: "admin".into(),
        roles: Name::parse("admin").into_iter().collect(),
        ..KeySpec::default()
    }
}
