//! Fixtures shared by the tests of this crate.

use std::path::{Path, PathBuf};

use rhumb_seams::{Clock, Ids, Rand};

/// A folder of one test, removed with everything in it.
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rhumb-store-{}", ids().ulid()));
        std::fs::create_dir_all(&path).expect("a temp folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // What stays is in the temp folder of the machine.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn ids() -> Ids {
    Ids::new(Clock::system(), Rand::from_entropy())
}
